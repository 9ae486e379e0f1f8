"""Configuration of the documentation: ``sphinx-build -W -b html doc build``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import skgate

project = "skgate"
author = "the skgate developers"
project_copyright = author
version = release = skgate.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.katex",
]
templates_path = ["_templates"]
exclude_patterns = ["*.inc", "_build"]

autosummary_generate = True
autodoc_typehints = "none"
# The class template lists the methods; numpydoc would list the inherited ones too.
numpydoc_show_class_members = False
default_role = "py:obj"
# Equations need no network: the extension brings the script of KaTeX 0.16.22, the folder its fonts.
katex_css_path = "katex/katex.min.css"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # only these are executed: the others take minutes, or data that are not at hand
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": r"^_|^run_all",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    # the examples of a class, below its methods
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skgate",),
    "inspect_global_variables": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"skgate {version}"
html_static_path = ["_static"]
html_theme_options = {
    # all pages are in the sidebar, under the captions of the index
    "navbar_center": [],
    "navigation_with_keys": False,
    "primary_sidebar_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_sidebars = {"**": ["pages.html"]}
html_show_sourcelink = False
html_copy_source = False
