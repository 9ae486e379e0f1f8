"""The examples print what they promise."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*args, script="quickstart.py", **environment):
    variables = {k: v for k, v in os.environ.items() if k != "SKGATE_DATA"} | environment
    command = [sys.executable, str(EXAMPLES / script), *args]
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


def test_each_figure_of_the_gibbs_paper_gets_a_verdict():
    figures = ["4", "table2", "5", "9", "11", "13"]
    done = run(
        *("--starts", "4", "--epochs", "20", "--figures", *figures), script="reproduce_gibbs.py"
    )
    assert done.returncode == 0, done.stderr
    verdicts = [
        line
        for line in done.stdout.splitlines()
        if line.startswith(("  reproduced", "  not reproduced: "))
    ]
    assert len(verdicts) == len(figures)
    # what fails for sure after 20 epochs is said to fail, and what cannot is not
    statements = {line[10:]: line[4:8].strip() for line in done.stdout.splitlines()}
    assert statements["Gibbs: no mean over starts is above 2"] == "yes"
    assert {"yes", "NO"} <= set(statements.values())


def test_densities_prints_values_and_verdicts_and_writes_them(tmp_path):
    output = tmp_path / "tables.inc"
    options = ["--epochs", "0", "2", "--samples", "200", "--output", str(output)]
    done = run(*options, script="plot_densities.py")
    assert done.returncode == 0, done.stderr
    text = output.read_text(encoding="utf-8")
    assert text in done.stdout
    lines = [line.split() for line in text.splitlines()]
    first = [line for line in lines if line[:2] == ["1", "128"]]
    values = {tuple(line[2:5]): list(map(float, line[5:7])) for line in first[:8]}
    for density in ("kde", "product", "chow-liu", "autoregressive"):
        pairs = zip(values[density, "in", "sample"], values[density, "held", "out"], strict=True)
        assert all(a < b for a, b in pairs)
    verdicts = {line[2]: " ".join(line[-3:]) for line in first[8:]}
    assert verdicts["kde"].endswith("saturated")
    assert verdicts["autoregressive"].endswith(("falls", "rises", "move"))


def test_densities_says_where_data_are_missing():
    done = run("--network", "resnet20", script="plot_densities.py")
    assert done.returncode != 0
    assert "SKGATE_DATA" in done.stderr
