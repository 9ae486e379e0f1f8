"""Displays draw the numbers that they are given, where they are told to."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from skgate import (
    BinnedLayerMI,
    ComplexityDisplay,
    ComplexityMonitor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    InformationPlaneDisplay,
    KDELayerMI,
    LambdaDisplay,
    TotalCorrelation,
)
from skgate.densities import Kernel

matplotlib.use("agg")

import matplotlib.pyplot as plt

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")

LONG = "layer4.1.bottleneck.relu:1"


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture
def labels(states):
    return np.arange(len(states)) % 3


def activations(rng, n=60):
    return {"a": rng.normal(size=(n, 5)), LONG: rng.normal(size=(n, 4))}


def record(step, layer, measure="H", **values):
    return {"step": step, "measure": measure, "layer": layer, "base": 2.0, **values}


def curves(n_steps=4, names=("a", LONG, None), **more):
    """A history with an entropy of its own in each record, every second saturated."""
    return [
        record(
            10 * step,
            name,
            entropy=step + 3.0 * i,
            entropy_se=0.1 + i,
            total_correlation=2.0 * step + i,
            mi_x=step + 0.5 * i,
            mi_y=0.1 * step + i,
            saturated=(step + i) % 2 == 0,
            **more,
        )
        for step in range(n_steps)
        for i, name in enumerate(names)
    ]


def drawn(figure):
    figure.canvas.draw()
    return figure


def inside(figure):
    """All texts are within the picture, and labels of ticks do not cover each other."""
    renderer = drawn(figure).canvas.get_renderer()
    for ax in figure.axes:
        ticks = [
            [
                tick.label1
                for tick in axis.get_major_ticks()
                if min(limits) <= tick.get_loc() <= max(limits) and tick.label1.get_visible()
            ]
            for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim()))
            if ax.axison
        ]
        texts = [*itertools.chain(*ticks), ax.xaxis.label, ax.yaxis.label, ax.title, *ax.texts]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        for text in texts:
            if text.get_visible() and text.get_text():
                (x0, y0), (x1, y1) = text.get_window_extent(renderer).get_points()
                assert -1 <= x0 < x1 <= figure.bbox.x1 + 1, text
                assert -1 <= y0 < y1 <= figure.bbox.y1 + 1, text
                assert 5 <= text.get_fontsize() <= 8
        for labels in ticks:
            boxes = [t.get_window_extent(renderer) for t in labels if t.get_text()]
            for i, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[i + 1 :]), labels


def marks(ax):
    """Return filled and hollow points as sets of rounded (x, y), of lines and collections."""
    found = {False: set(), True: set()}
    for line in ax.get_lines():
        if line.get_linestyle() == "None" and line.get_marker() not in ("", "None", "|"):
            empty = line.get_markerfacecolor() == "white"
            found[empty] |= {tuple(point) for point in line.get_xydata().round(9).tolist()}
    for collection in ax.collections:
        if isinstance(collection, matplotlib.collections.PathCollection):
            faces, offsets = collection.get_facecolors(), collection.get_offsets()
            for face, point in zip(faces, np.asarray(offsets).round(9).tolist(), strict=True):
                found[bool((face[:3] == 1).all())].add(tuple(point))
    return found[False], found[True]


# All of them -----------------------------------------------------------------------------------


def each_display(states, labels, rng):
    """Yield the name of each display, what draws it, and how many axes it has."""
    H = GatingEntropy(density=Kernel(alpha=1.0)).fit(states)
    plane = GibbsLayerMI().fit(activations(rng), labels)
    trained = [
        {"lam": lam, "seed": seed, "complexity": 9.0, "gap": 1.0, "test_loss": 2.0}
        for lam in (0, 0.1)
        for seed in (0, 1)
    ]
    two = {"one": curves(), "other": curves()}
    return {
        "complexity": (lambda ax: ComplexityDisplay.from_estimator(H, ax=ax), 1),
        "curves": (lambda ax: ComplexityDisplay.from_history(curves(), ax=ax), 1),
        "plane": (lambda ax: InformationPlaneDisplay.from_estimator(plane, ax=ax), 1),
        "paths": (lambda ax: InformationPlaneDisplay.from_history(curves(), ax=ax), 1),
        "two": (lambda ax: InformationPlaneDisplay.from_history(two, ax=ax), 2),
        "lambda": (lambda ax: LambdaDisplay.from_records(trained, ax=ax), 3),
    }


NAMES = ["complexity", "curves", "plane", "paths", "two", "lambda"]


@pytest.mark.parametrize("name", NAMES)
def test_display_is_returned_with_a_new_figure(name, states, labels, rng):
    draw, n = each_display(states, labels, rng)[name]
    before = plt.get_fignums()
    display = draw(None)
    assert type(display).__name__.endswith("Display")
    assert len(plt.get_fignums()) == len(before) + 1
    assert plt.figure(plt.get_fignums()[-1]) is display.figure_
    assert np.size(display.ax_) == n
    assert all(ax.figure is display.figure_ for ax in np.ravel(display.ax_))
    inside(display.figure_)


@pytest.mark.parametrize("name", NAMES)
def test_axes_that_are_given_are_drawn_in(name, states, labels, rng):
    draw, n = each_display(states, labels, rng)[name]
    figure, given = plt.subplots(1, n + 1, squeeze=False)
    mine = given[0, :n] if n > 1 else given[0, 0]
    display = draw(mine)
    assert plt.get_fignums() == [figure.number]
    assert display.figure_ is figure
    assert list(np.ravel(display.ax_)) == list(np.ravel(mine))
    assert all(ax.has_data() for ax in np.ravel(mine))
    assert not given[0, n].has_data()
    assert plt.rcParams["font.size"] == plt.rcParamsDefault["font.size"]
    with pytest.raises(ValueError, match=f"ax holds {n + 1} axes; {n} are needed"):
        draw(given)


def test_an_error_leaves_no_figure(states):
    for draw in (
        lambda: ComplexityDisplay.from_history([]),
        lambda: ComplexityDisplay.from_history(curves(), quantity="none"),
        lambda: ComplexityDisplay(curves()).plot(quantities=["entropy", "mi_x"]),
        lambda: InformationPlaneDisplay.from_history({"a": curves(), "b": []}),
        lambda: InformationPlaneDisplay.from_estimator(GatingEntropy().fit(states)),
        lambda: LambdaDisplay.from_records([]),
    ):
        with pytest.raises(ValueError, match=r"Need|has|No record|choose"):
            draw()
    assert plt.get_fignums() == []


def test_nothing_loads_matplotlib_before_something_is_drawn():
    code = """
import sys
import skgate
from skgate import *
assert "matplotlib" not in sys.modules
sys.modules["matplotlib"] = None
try:
    skgate.LambdaDisplay([{"lam": 0, "seed": 0, "gap": 0.5}]).plot()
except ImportError as error:
    assert 'pip install "skgate[plot]"' in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plots_load_no_torch():
    code = "import sys, skgate; skgate.LambdaDisplay; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ComplexityDisplay -----------------------------------------------------------------------------


def test_entropies_of_layers_with_errors_and_ceilings(states):
    H = GatingEntropy(density=Kernel(alpha=0.5)).fit(states)
    display = ComplexityDisplay.from_estimator(H)
    ax = display.ax_
    values, rows = display.lines_["entropy"].get_data()
    np.testing.assert_array_equal(values, [*H.layer_entropy_, H.entropy_])
    np.testing.assert_array_equal(rows, range(4))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c", "all layers"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first layer is on top
    assert ax.get_xlabel() == "H [bits]"
    (bars,) = ax.containers
    segments = np.array([s[:, 0] for s in bars[2][0].get_segments()])
    errors = np.array([*H.layer_entropy_se_, H.entropy_se_])
    np.testing.assert_allclose(np.diff(segments)[:, 0], 2 * errors)
    (ceilings,) = (line for line in ax.get_lines() if line.get_label() == "ceiling")
    np.testing.assert_array_equal(ceilings.get_xdata()[:3], H.layer_ceiling_)


def test_fitted_density_has_no_ceiling(states):
    H = GatingEntropy(density="product", random_state=0, base=np.e).fit(states)
    ax = ComplexityDisplay.from_estimator(H).ax_
    assert "ceiling" not in [line.get_label() for line in ax.get_lines()]
    assert ax.get_xlabel() == "H [nats]"


def test_prefixes_and_suffixes_beside_each_other(states):
    H = GatingEntropy(density=Kernel(alpha=0.5, joint="product")).fit(states)
    wanted = {
        "entropy": H.layer_entropy_,
        "prefix_entropy": H.prefix_entropy_,
        "suffix_entropy": H.suffix_entropy_,
    }
    display = ComplexityDisplay.from_estimator(H, quantities=list(wanted))
    for quantity, values in wanted.items():
        x, y = display.lines_[quantity].get_data()
        np.testing.assert_array_equal(x[:3], values)
        np.testing.assert_array_equal(np.round(y[:3]), range(3))
    texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert {"H of each layer", "H up to each layer", "H from each layer on"} <= set(texts)
    inside(display.figure_)


def test_saturated_layers_are_hollow(rng):
    wide = {"wide": rng.random((80, 500)) < 0.5, LONG: rng.random((80, 3)) < 0.5}
    H = GatingEntropy(density=Kernel(alpha=0.1)).fit(GatingStates.from_arrays(wide))
    assert list(H.layer_saturated_) == [True, False]
    assert list(H.suffix_saturated_) == [True, False]
    display = ComplexityDisplay.from_estimator(H)
    full, empty = marks(display.ax_)
    assert {row for _, row in empty} == {0, 2}  # the wide one and all of them
    assert {row for _, row in full} == {1}
    assert "saturated" in [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert list(H.prefix_saturated_) == [True, True]
    for quantity, rows in {"suffix_entropy": {0}, "prefix_entropy": {0, 1}}.items():
        display = ComplexityDisplay.from_estimator(H, quantities=quantity)
        assert {row for _, row in marks(display.ax_)[1]} == rows
    TC = TotalCorrelation(density=Kernel(alpha=0.1)).fit(GatingStates.from_arrays(wide))
    assert {row for _, row in marks(ComplexityDisplay.from_estimator(TC).ax_)[1]} == {0, 2}


def test_curves_are_the_history():
    history = curves()
    display = ComplexityDisplay.from_history(history[::-1])
    assert set(display.lines_) == {"a", LONG, "all layers"}
    full, empty = marks(display.ax_)
    for name, line in display.lines_.items():
        rows = [r for r in history if (r["layer"] or "all layers") == name]
        np.testing.assert_array_equal(line.get_xdata(), [0, 10, 20, 30])
        np.testing.assert_array_equal(line.get_ydata(), [r["entropy"] for r in rows])
        for r in rows:
            assert ((r["step"], r["entropy"]) in empty) == r["saturated"]
            assert ((r["step"], r["entropy"]) in full) != r["saturated"]
    ax = display.ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "H [bits]")
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert set(texts) == {"a", LONG, "all layers", "saturated"}
    looks = {(line.get_color(), line.get_linestyle()) for line in display.lines_.values()}
    assert len(looks) == 3


def test_curves_of_another_quantity():
    display = ComplexityDisplay.from_history(curves(), quantity="total_correlation")
    np.testing.assert_array_equal(display.lines_["a"].get_ydata(), [0, 2, 4, 6])
    assert display.ax_.get_ylabel() == "TC [bits]"


def test_measure_is_chosen():
    history = curves() + [{**r, "measure": "other", "entropy": 99.0} for r in curves()]
    with pytest.raises(ValueError, match=r"Several measures .* \['H', 'other'\]"):
        ComplexityDisplay.from_history(history)
    with pytest.raises(ValueError, match="measure='none' has no"):
        ComplexityDisplay.from_history(history, measure="none")
    display = ComplexityDisplay.from_history(history, measure="other")
    assert set(display.lines_["a"].get_ydata()) == {99.0}
    with pytest.raises(ValueError, match="No record has"):
        InformationPlaneDisplay.from_history([record(0, "a", entropy=1.0)])


@pytest.mark.parametrize("n_layers", [1, 17, 40])
def test_many_layers_with_long_names_are_readable(n_layers):
    names = [f"layer{i}.1.relu:{i}" for i in range(n_layers)]
    for n_steps in (1, 3):
        display = ComplexityDisplay.from_history(curves(n_steps, [*names, None]))
        inside(display.figure_)


# InformationPlaneDisplay -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "keys", "labels_of"),
    [
        (GibbsLayerMI(), ("layer_mi_x_", "layer_mi_y_"), ("I(X;T)", "I(Y;T)")),
        (BinnedLayerMI(), ("layer_mi_x_", "layer_mi_y_"), ("I(X;T)", "I(Y;T)")),
        (KDELayerMI(base=np.e), ("layer_mi_x_", "layer_mi_y_"), ("I(X;T)", "I(Y;T)")),
        (
            GatingMI(density=Kernel(alpha=0.5)),
            ("layer_mi_x_", "layer_mi_xy_"),
            ("I(X;Σ)", "I(X;Σ;Y)"),
        ),
    ],
    ids=lambda p: type(p).__name__ if hasattr(p, "fit") else "",
)
def test_plane_of_each_measure(measure, keys, labels_of, rng, states, labels):
    X = states if isinstance(measure, GatingMI) else activations(rng)
    fitted = measure.fit(X, labels)
    display = InformationPlaneDisplay.from_estimator(fitted)
    wanted = np.column_stack([getattr(fitted, key) for key in keys])
    assert list(display.paths_) == list(fitted.layer_names_)
    np.testing.assert_array_equal(np.vstack(list(display.paths_.values())), wanted)
    full, empty = marks(display.ax_)
    assert full | empty == {tuple(p) for p in wanted.round(9).tolist()}
    unit = "nats" if measure.base == np.e else "bits"
    got = display.ax_.get_xlabel(), display.ax_.get_ylabel()
    assert got == tuple(f"{label} [{unit}]" for label in labels_of)
    texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert texts[: len(wanted)] == list(fitted.layer_names_)
    assert len(display.figure_.axes) == 1


def test_paths_have_the_colours_of_their_steps():
    history = curves(5, ["a", LONG])
    display = InformationPlaneDisplay.from_history(history)
    full, empty = marks(display.ax_)
    assert {(r["mi_x"], round(r["mi_y"], 9)) for r in history if r["saturated"]} == empty
    assert {(r["mi_x"], round(r["mi_y"], 9)) for r in history if not r["saturated"]} == full
    np.testing.assert_allclose(display.paths_["a"], [[i, 0.1 * i] for i in range(5)])
    edges = [np.asarray(c.get_edgecolors()) for c in display.ax_.collections]
    np.testing.assert_allclose(edges[0], matplotlib.colormaps["viridis"](np.linspace(0, 1, 5)))
    np.testing.assert_array_equal(edges[0], edges[1])
    _, bar = display.figure_.axes
    assert bar.get_xlabel() == "step"
    assert bar.get_xlim() == (0, 40)
    inside(display.figure_)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_panel_a_network(n):
    histories = {f"network {i}": curves(i + 2, ["a", LONG]) for i in range(n)}
    shown = InformationPlaneDisplay.from_history(histories)
    assert isinstance(shown.ax_, np.ndarray)
    assert [ax.get_title() for ax in shown.ax_] == list(histories)
    assert len(shown.figure_.axes) == n + 1
    for i, paths in enumerate(shown.paths_.values()):
        assert len(paths["a"]) == i + 2
    assert len({ax.get_xlim() for ax in shown.ax_}) == 1
    for ax, paths in zip(shown.ax_, shown.paths_.values(), strict=True):
        assert (np.vstack(list(paths.values())) <= [ax.get_xlim()[1], ax.get_ylim()[1]]).all()
        assert any(tick.label1.get_visible() for tick in ax.xaxis.get_major_ticks())
    inside(shown.figure_)


def test_networks_must_hold_the_same_quantities():
    other = [{**r, "base": np.e} for r in curves()]
    with pytest.raises(ValueError, match="different quantities"):
        InformationPlaneDisplay.from_history({"bits": curves(), "nats": other})


def test_measure_of_a_plane_is_chosen():
    gates = [record(step, "a", "gates", mi_x=step, mi_xy=0.5) for step in range(3)]
    history = [*curves(3), *gates]
    with pytest.raises(ValueError, match=r"Several measures can be drawn: \['H', 'gates'\]"):
        InformationPlaneDisplay.from_history(history)
    display = InformationPlaneDisplay.from_history(history, measure="gates")
    np.testing.assert_array_equal(display.paths_["a"], [[0, 0.5], [1, 0.5], [2, 0.5]])
    assert display.ax_.get_ylabel() == "I(X;Σ;Y) [bits]"
    display = InformationPlaneDisplay.from_history(history, measure="H")
    assert display.ax_.get_ylabel() == "I(Y;T) [bits]"
    for records in (gates[:0], [r for r in curves() if r["layer"] is None]):
        with pytest.raises(ValueError, match=r"Need records|No record has \['mi_x', 'mi_y'\]"):
            InformationPlaneDisplay.from_history(records)


# LambdaDisplay ---------------------------------------------------------------------------------


def search(rng, lams=(0, 1e-5, 1e-3), n_seeds=4):
    return [
        {
            "lam": lam,
            "seed": seed,
            **dict(zip(("complexity", "gap", "test_loss"), row, strict=True)),
        }
        for lam in lams
        for seed, row in enumerate(rng.random((n_seeds, 3)))
    ]


def test_lambda_has_means_and_errors_of_differences(rng):
    records = search(rng)
    display = LambdaDisplay.from_records([records[i] for i in rng.permutation(len(records))])
    assert display.lams_ == [0, 1e-5, 1e-3]
    for key, ax in zip(("complexity", "gap", "test_loss"), display.ax_, strict=True):
        values = np.array([r[key] for r in records]).reshape(3, 4)
        differences = values - values[0]
        errors = differences.std(1, ddof=1) / 2
        np.testing.assert_allclose(display.means_[key], values.mean(1))
        np.testing.assert_allclose(display.errors_[key], errors, atol=1e-15)
        (bars,) = ax.containers
        np.testing.assert_allclose(bars[0].get_ydata(), values.mean(1))
        segments = np.array([s[:, 1] for s in bars[2][0].get_segments()])
        np.testing.assert_allclose(np.diff(segments)[:, 0], 2 * errors, atol=1e-12)
    (line,) = (line for line in ax.get_lines() if line.get_linestyle() == ":")
    np.testing.assert_allclose(line.get_ydata(), display.means_["test_loss"][0])
    assert display.ax_[-1].get_xlabel() == "λ"
    texts = [t.get_text() for t in display.ax_[-1].get_xticklabels()]
    assert texts == ["0", "1e-5", "1e-3"]


def test_lambda_with_one_seed_or_fewer_quantities(rng):
    display = LambdaDisplay.from_records(search(rng, n_seeds=1))
    assert np.isnan(display.errors_["gap"]).all()
    records = [{k: v for k, v in r.items() if k != "complexity"} for r in search(rng)]
    assert list(LambdaDisplay.from_records(records).means_) == ["gap", "test_loss"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda records: records[4:], "No record has λ = 0"),
        (lambda records: records[:-1], r"\(lam, seed\) \[\(0.001, 3\)\] are missing"),
        (lambda records: records + records[:1], "some have several"),
        (lambda records: [{"lam": 0, "seed": 0}], "Need records that all have one or more of"),
        (lambda records: [{"lam": 0}], 'Each record needs "lam" and "seed"'),
    ],
)
def test_lambda_tells_what_is_missing(change, told, rng):
    with pytest.raises(ValueError, match=told):
        LambdaDisplay.from_records(change(search(rng)))


# From a training -------------------------------------------------------------------------------


def test_history_of_a_monitor_is_drawn(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    X = torch.randn(60, 4)
    y = (X[:, 0] > 0).long().numpy()
    measures = [TotalCorrelation(density=Kernel(alpha=0.5)), GibbsLayerMI()]
    monitor = ComplexityMonitor(measures, X, y, path=tmp_path / "curve")
    for step in range(3):
        monitor.record(net, step)
        with torch.no_grad():
            net[0].weight.mul_(2)
    history = ComplexityMonitor.read(tmp_path / "curve")
    assert set(ComplexityDisplay.from_history(history).lines_) == {"1", "3", "all layers"}
    assert set(InformationPlaneDisplay.from_history(history).paths_) == {"0", "2", "4"}
    TC = ComplexityDisplay.from_history(history, quantity="total_correlation")
    assert set(TC.lines_) == {"1", "3", "all layers"}


def test_information_of_activations_is_about_t_and_that_of_gates_about_sigma(rng):
    X, y = rng.normal(size=(100, 6)), rng.integers(0, 2, 100)
    plane = ComplexityDisplay.from_estimator(GibbsLayerMI().fit(X, y), quantities="mi_x")
    assert plane.ax_.get_xlabel() == "I(X;T) [bits]"
    gates = GatingMI(density=Kernel(alpha=0.3), random_state=0).fit(X, y)
    assert ComplexityDisplay.from_estimator(gates, quantities="mi_x").ax_.get_xlabel() == (
        "I(X;Σ) [bits]"
    )
