"""The examples print what they promise."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
        entropy, error, mi_xy, shuffled, tc = map(float, row[3:8])
        assert 0 < error < entropy < entropy + tc <= int(row[1])
        assert abs(shuffled) < mi_xy < 3.33
        assert row[8:] == ["Autoregressive()"]


def test_quickstart_says_where_data_are_missing():
    done = run("--data", "mnist")
    assert done.returncode != 0
    assert "SKGATE_DATA" in done.stderr


@pytest.mark.parametrize(
    "script", ["gibbs_fig3_images", "gibbs_table2_probabilities", "gibbs_fig13_estimators_mlp2"]
)
def test_a_figure_of_the_gibbs_paper_leaves_a_record_and_a_picture(script, tmp_path):
    # a copy: what it keeps on disk must be of this code
    folder = tmp_path / "examples" / "reproduce"
    shutil.copytree(EXAMPLES / "reproduce", folder, ignore=shutil.ignore_patterns(".cache"))
    records = []
    for _ in range(2):
        done = run("--seeds", "3", script=folder / f"{script}.py", OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        path = tmp_path / "doc" / "reproduction" / f"{script}.json"
        records.append(json.loads(path.read_text(encoding="utf-8")))
        path.unlink()
    first, second = records
    assert first["claims"] == second["claims"]
    assert first["notes"] == second["notes"]
    assert first["n_seeds"] == 3
    holds = [claim["holds"] for claim in first["claims"]]
    assert first["verdict"].startswith("not reproduced") == (False in holds)
    assert f"  {first['verdict']}\n" in done.stdout
    assert 0 < path.with_suffix(".png").stat().st_size < 80_000


def test_summary_of_figures_says_what_holds_and_what_was_tried(tmp_path):
    folder, records = tmp_path / "examples" / "reproduce", tmp_path / "doc" / "reproduction"
    shutil.copytree(EXAMPLES / "reproduce", folder, ignore=shutil.ignore_patterns(".cache"))
    records.mkdir(parents=True)
    common = {"found": "A* is |B|_", "full": False, "n_seeds": 3, "seconds": 1.2}
    claims = [{"statement": f"S_{holds}", "holds": holds} for holds in (True, False, None)]
    missed = {"verdict": "not reproduced: S", "claims": claims, "tried": "Much."}
    held = {"verdict": "reproduced", "claims": claims[:1], "tried": "Unseen."}
    for name, item, said in [
        ("tc_fig9_alpha", "P, Fig. 10", missed),
        ("tc_fig6_vae", "P, 9", held),
    ]:
        record = {**common, "item": item, **said}
        (records / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    done = run("--summary", script=folder / "run_all.py")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "doc" / "reproduction_table.inc").read_text(encoding="utf-8")
    assert text.startswith("1 of 2 reproduced;")
    rows, _, below = text.partition("What does not hold")
    assert rows.index("* - **reproduced**\n") < rows.index("* - **not reproduced**: 1 hold, 1 fail")
    assert ":ref:`Fig. 10 <sphx_glr_auto_examples_reproduce_tc_fig9_alpha.py>`" in rows
    assert r"A\* is \|B\|\_" in rows
    assert "    - S_False\n\n    Much.\n" in below
    assert "Unseen" not in text


def test_default_separates_epochs_that_the_kernel_does_not(tmp_path):
    plot = tmp_path / "entropy.svg"
    done = run(str(plot), script="plot_training_entropy.py", MPLBACKEND="agg")
    assert done.returncode == 0, done.stderr
    lines = np.array([re.findall(r"\d+(?:\.\d+)?", line) for line in done.stdout.splitlines()])
    epochs, accuracies, bits, errors, kernel = lines.astype(float).T
    assert list(epochs) == [0, 1, 2, 4]
    assert accuracies[-1] > 0.7
    assert np.all(abs(np.diff(bits))[:2] > 4 * errors.max())
    assert 8.5 < kernel.min() <= kernel.max() < 8.65  # log2 of 400 images is 8.64
    assert "layer 3" in plot.read_text(encoding="utf-8")


def test_gates_are_coded_in_as_many_bytes_as_are_reported():
    done = run(script="plot_coded_gates.py", MPLBACKEND="agg")
    assert done.returncode == 0, done.stderr
    _, _, *rows, verdict = done.stdout.splitlines()
    assert verdict == "decoded: the same gates"
    size = {row[:24].strip(): int(row[24:].split()[0]) for row in rows}
    assert size["entropy coder"] == pytest.approx(size["reported surprisal"], rel=0.01)
    others = set(size) - {"entropy coder", "reported surprisal"}
    assert len(others) == 5
    assert size["entropy coder"] < 0.75 * min(size[name] for name in others)


def rows_by_lambda(text):
    """Return the numbers of a table over λ, without their errors, by column and λ."""
    lines = text.splitlines()
    (head,) = [i for i, line in enumerate(lines) if line.split()[:2] == ["lam", "chow-liu,"]]
    names = ["lam", "bits", "kde", "train_loss", "test_loss", "gap", "accuracy", "change"]
    rows = [line.split() for line in lines[head + 1 :]]
    rows = rows[: next(i for i, row in enumerate(rows) if row[0] == "means")]
    rows = [[float(cell) for cell in row if not cell.startswith("±")] for row in rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_search_for_lambda_prints_a_row_for_each_and_verdicts(tmp_path):
    plot = tmp_path / "lambda.png"
    options = ["--epochs", "15", "--lams", "1e-3", "1e-2", "--seeds", "0", "1", "--jobs", "1"]
    options += ["--penalty", "product", "--plot", str(plot)]
    done = run(*options, script="grid_search_lambda.py")
    assert done.returncode == 0, done.stderr
    rows = rows_by_lambda(done.stdout)
    assert [row["lam"] for row in rows] == [0, 1e-3, 1e-2]
    bits = [row["bits"] for row in rows]
    assert bits[0] > bits[1] > 2 * bits[2] > 0
    for row in rows:
        assert abs(row["test_loss"] - row["train_loss"] - row["gap"]) < 2e-4  # rounded
        assert abs(row["test_loss"] - rows[0]["test_loss"] - row["change"]) < 2e-4
        assert row["kde"] < 2 * 10.5  # log2 of the test images, of two layers
    assert "    yes   complexity (chow-liu) falls with every step" in done.stdout
    assert any(
        line.startswith(("  reproduced", "  not reproduced: ")) for line in done.stdout.splitlines()
    )
    assert "chosen: lam = " in done.stdout
    assert plot.stat().st_size > 0


def test_penalized_loop_lowers_the_complexity():
    done = run("--epochs", "10", script="penalized_loop.py")
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    bits = [float(line.split("sum ")[1].split()[0]) for line in (before, after)]
    assert bits[1] < bits[0] / 2
    assert float(after.split()[-1]) > 0.8


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("**/[a-z]*.py")), ids=lambda path: path.stem)
def test_an_example_has_a_title_and_a_picture_for_the_gallery(path):
    if path.stem == "run_all":
        return
    text = path.read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(text))
    title, rule = doc.splitlines()[:2]
    assert rule == "=" * len(title)
    if not path.stem.startswith("plot_"):  # those are executed, and their figures taken
        (picture,) = re.findall(r'sphinx_gallery_thumbnail_path = "(.+)"', text)
        assert (EXAMPLES.parent / "doc" / picture).exists()
