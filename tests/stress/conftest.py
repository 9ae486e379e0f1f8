"""Sizes of the stress tests: SKGATE_STRESS=full for those of the pages, whose tables it writes."""

import os
from pathlib import Path

import pytest
from tables import machine_line, rst_table

FULL = os.environ.get("SKGATE_STRESS") == "full"
DOC = Path(__file__).parents[2] / "doc"


@pytest.fixture
def size():
    """Choose between a small size and that of the pages."""
    return lambda small, full: full if FULL else small


@pytest.fixture
def report():
    """Print a note and tables; at full size, into a file of the pages if it has a name."""

    def write(packages, note, *tables, name=None):
        text = "\n\n".join([machine_line(*packages), note, *(rst_table(*t) for t in tables)]) + "\n"
        print(text)
        if FULL and name:
            (DOC / name).write_text(text, encoding="utf-8")

    return write
