"""The quickstart prints a row for each gating layer."""

import os
import subprocess
import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.py"


def run(*args, **environment):
    variables = {k: v for k, v in os.environ.items() if k != "SKGATE_DATA"} | environment
    command = [sys.executable, str(QUICKSTART), *args]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_quickstart_prints_a_table_of_layers():
    done = run("--epochs", "2")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    (head,) = [i for i, line in enumerate(lines) if line[:2] == ["layer", "gates"]]
    table = lines[head + 1 : head + 4]
    assert [row[:3] for row in table] == [
        ["1", "32", "relu"],
        ["3", "16", "relu"],
        ["5", "12", "relu"],
    ]
    for row in table:
        lower, upper, suffix, mi_x, mi_xy, _, tc, c = map(float, row[3:11])
        assert lower <= upper == mi_x <= suffix
        assert 0 < mi_xy < 3.33
        assert abs(upper + tc - c) < 0.02  # rounded to two digits


def test_quickstart_says_where_data_are_missing():
    done = run("--data", "mnist")
    assert done.returncode != 0
    assert "SKGATE_DATA" in done.stderr
