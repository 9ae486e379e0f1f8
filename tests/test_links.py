"""What the pages name is there: files, pages, pictures, and the version."""

import re
from pathlib import Path

import pytest

import skgate

ROOT = Path(__file__).parents[1]
DOC = ROOT / "doc"
PAGES = sorted([ROOT / "README.rst", *DOC.glob("*.rst"), *DOC.glob("*.inc")])
MODULES = sorted((ROOT / "skgate").rglob("*.py"))
#: A block of math: its indentation and its lines.
MATH = r"^( *)\.\. math::(.*\n(?:(?:\1 +.*)?\n)*)"
FOLDERS = ("benchmarks", "doc", "examples", "skgate", "tests", ".ci")
FILES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
FILES |= {path.name for path in ROOT.glob("*.*")}
#: Written by runs, and not there in a checkout.
WRITTEN = {"examples/reproduce/.cache", "doc/_build/html"}
#: Written while the pages are built.
BUILT = ("auto_examples", "generated")

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


@page
def test_files_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"\b(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text.replace("\n", " "))
    assert [p for p in named if p not in WRITTEN and not (ROOT / p).exists()] == []
    names = re.findall(r"``([\w.-]+\.(?:py|rst|inc|cu|txt|toml))``", text)
    assert [name for name in names if name not in FILES] == []


@page
def test_what_a_page_links_to_or_includes_is_there(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r":doc:`(?:[^`<]*<)?/?([\w/]+)>?`", text)
    targets = [f"{target}.rst" for target in targets if not target.startswith(BUILT)]
    targets += re.findall(r"^\.\. (?:image|include|literalinclude|figure):: /?(\S+)$", text, re.M)
    assert [target for target in targets if not (page.parent / target).exists()] == []
    examples = re.findall(r"sphx_glr_auto_examples_(\w+\.py)", text)
    assert [e for e in examples if e.removeprefix("reproduce_") not in FILES] == []


def test_equations_of_several_lines_name_their_environment():
    """KaTeX, unlike MathJax, leaves an alignment without one as it is."""
    sources = [path.read_text(encoding="utf-8") for path in (*PAGES, *MODULES)]
    blocks = [b for s in sources for _, b in re.findall(MATH, s, re.MULTILINE)]
    assert len(blocks) > 50
    assert [b for b in blocks if "&" in b and r"\begin{" not in b] == []


def test_every_page_is_in_the_index():
    index = (DOC / "index.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", index, re.MULTILINE)
    assert sorted(listed) == sorted({page.stem for page in DOC.glob("*.rst")} - {"index"})


def test_the_changes_begin_with_this_version():
    text = (DOC / "whats_new.rst").read_text(encoding="utf-8")
    first = re.findall(r"^Version (.+)$", text, re.MULTILINE)[0]
    assert first == re.sub(r"(\.0)?\.dev\d+$", " (in development)", skgate.__version__)
    assert f"version = {{{skgate.__version__}}}" in (DOC / "citing.rst").read_text(encoding="utf-8")
