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
    "sphinx.ext.mathjax",
    "numpydoc",
]
templates_path = ["_templates"]
exclude_patterns = ["*.inc", "_build"]

autosummary_generate = True
autodoc_typehints = "none"
# The class template lists the methods; numpydoc would list the inherited ones too.
numpydoc_show_class_members = False
default_role = "py:obj"

html_theme = "pydata_sphinx_theme"
html_title = f"skgate {version}"
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_sidebars = {
    page: []
    for page in [
        "index",
        "densities",
        "layers",
        "models",
        "monitor",
        "performance",
        "plots",
        "quantities",
        "scale",
        "training",
    ]
}
html_show_sourcelink = False
html_copy_source = False
