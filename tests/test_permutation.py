"""permutation_test: level, power, exactness, agreement with loops and gating_mi, edge cases."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.special import rel_entr
from scipy.stats import kstest

from skgate import GatingStates, SaturationWarning, gating_mi, permutation_test
from skgate.densities import Kernel
from skgate.densities.kernel import _kernel
from skgate.gates import _permutation
from skgate.pairwise import _by_class
from skgate.states import to_packed, to_sparse

# The default -------------------------------------------------------------------------------------


def plain_information(gates, y):
    """The mutual information of each gate with the label, in nats."""
    rates = gates.mean(axis=0)
    found = 0
    for c in np.unique(y):
        own = gates[y == c].mean(axis=0)
        found += np.mean(y == c) * (rel_entr(own, rates) + rel_entr(1 - own, 1 - rates))
    return found


def plain_statistics(layers, y, samples, measured):
    """The statistics of each layer and of all together, row by row."""
    distances = [cdist(gates, gates, "cityblock") for gates in layers]
    information = [2 * len(y) * plain_information(gates, y) for gates in layers]
    if len(layers) > 1:
        distances.append(sum(distances))
        information.append(np.concatenate(information))
    apart, same = samples[:, None] != samples, y[:, None] == y
    found = []
    for d, of_gates in zip(distances, information, strict=True):
        values = d[measured][apart[measured]]
        z = np.minimum((values.mean() - d) / values.std(), 4)
        pairs = []
        for scale in (1, 2):
            kernel = np.exp(scale * z)
            values = kernel[measured][apart[measured]]
            kernel = (kernel - values.mean()) / values.std()
            sums = [kernel[j, same[j] & apart[j]].sum() / same[j].sum() for j in range(len(y))]
            pairs.append(sum(sums))
        found.append([of_gates.sum(), of_gates.max(), *pairs])
    return np.array(found)


def plain_test(layers, label_sets, samples=None, measured=None):
    """The p-values and scores of `plain_statistics`, in a loop over the labels."""
    n = len(layers[0])
    samples = np.arange(n) if samples is None else samples
    measured = np.arange(n) if measured is None else measured
    values = [plain_statistics(layers, y, samples, measured) for y in label_sets]
    values = np.array(values)  # (1 + n_permutations, n_ranges, 4)
    scores = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-3)
    largest = np.column_stack([scores[:, : len(layers)].max(axis=2), scores.max(axis=(1, 2))])
    p_values = [
        (1 + sum(value >= column[0] - 1e-4 for value in column[1:])) / len(column)
        for column in largest.T
    ]
    return np.array(p_values), scores, largest


def assert_agree(result, plain, n_layers):
    p_values, scores, largest = plain
    assert_allclose(result.layer_statistics, scores[0, :n_layers], atol=2e-3)
    assert_allclose(result.layer_statistic, largest[0, :-1], atol=2e-3)
    assert_allclose(result.null_layer_statistic, largest[1:, :-1], atol=2e-3)
    assert_allclose(result.null_statistic, largest[1:, -1], atol=2e-3)
    assert_allclose(result.statistic, largest[0, -1], atol=2e-3)
    assert_allclose(result.layer_p_value, p_values[:-1])
    assert_allclose(result.p_value, p_values[-1])


def permuted(y, n_permutations, seed):
    draw = np.random.RandomState(seed)
    return [y, *(draw.permutation(y) for _ in range(n_permutations))]


def test_agrees_with_a_loop_over_permutations(rng):
    y = rng.integers(0, 3, 40)
    wide = rng.random((40, 500)) < 0.5
    wide[:4] = wide[4:8]  # more than four standard deviations nearer than others
    layers = {"narrow": rng.random((40, 5)) < 0.3 + 0.2 * (y[:, None] == 1), "wide": wide}
    result = permutation_test(layers, y, n_permutations=25, random_state=3)
    assert_agree(result, plain_test(list(layers.values()), permuted(y, 25, 3)), 2)
    assert len(result.statistic_names) == result.layer_statistics.shape[1]


def test_samples_of_several_rows_agree_with_a_loop(rng):
    samples = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    of_samples = np.arange(12) % 3
    gates = 2 * rng.normal(size=(12, 7))[samples] + rng.normal(size=(len(samples), 7)) > 0
    draw = np.random.RandomState(5)
    label_sets = [of_samples[samples]]
    label_sets += [of_samples[draw.permutation(12)][samples] for _ in range(20)]
    states = GatingStates.from_arrays(gates, groups=samples)
    result = permutation_test(states, of_samples, n_permutations=20, random_state=5)
    assert_agree(result, plain_test([gates], label_sets, samples), 1)


@pytest.mark.parametrize("n_classes", [3, 20])
def test_blocks_of_rows_sets_and_gates_agree_with_a_loop(rng, monkeypatch, n_classes):
    gates, y = rng.random((300, 150)) < 0.4, rng.integers(0, n_classes, 300)
    plain = plain_test([gates], permuted(y, 6, 0), measured=np.linspace(0, 299, 128).astype(int))
    whole = permutation_test(gates, y, n_permutations=6, random_state=0)
    assert_agree(whole, plain, 1)
    monkeypatch.setattr(_by_class, "_MAX_COLUMNS", 64)
    monkeypatch.setattr(_by_class, "_BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(_by_class, "_GATES", 64)
    assert_agree(permutation_test(gates, y, n_permutations=6, random_state=0), plain, 1)


def test_layers_stored_as_positions_agree(rng):
    gates, y = rng.random((70, 900)) < 0.02, rng.integers(0, 2, 70)
    packed = GatingStates.from_arrays(gates)
    sparse = GatingStates([to_sparse(to_packed(packed.packed[0]), 900)], packed.layers)
    one, two = (permutation_test(s, y, n_permutations=9, random_state=0) for s in (packed, sparse))
    for name, value in one.items():
        assert_array_equal(two[name], value)


def weak(rng):
    y = rng.permutation(np.arange(100) % 2)
    return rng.random((100, 300)) < 0.5 + 0.1 * rng.choice([-1, 1], 300) * (y[:, None] - 0.5), y


def strong(rng):
    y = rng.permutation(np.arange(100) % 2)
    return rng.random((100, 300)) < 0.5 + 0.4 * (np.arange(300) < 3) * (y[:, None] - 0.5), y


def exclusive_or(rng):
    gates = rng.random((150, 6)) < 0.5
    return gates, (gates[:, 0] ^ gates[:, 1] ^ (rng.random(150) < 0.15)).astype(int)


def alike_in_one_class(rng):
    """The same rates; in one class, gates have a factor in common."""
    y, factor = rng.integers(0, 2, 100), rng.normal(size=(100, 1))
    return 0.7 * y[:, None] * factor + rng.normal(size=(100, 50)) > 0, y


def ten_classes(rng):
    y = rng.integers(0, 10, 200)
    return rng.random((200, 100)) < 0.5 + 0.08 * rng.choice([-1, 1], (10, 100))[y], y


@pytest.mark.parametrize("draw", [weak, strong, exclusive_or, alike_in_one_class, ten_classes])
def test_has_power_by_default(draw):
    rng = np.random.default_rng(0)
    p = [permutation_test(*draw(rng), n_permutations=99, random_state=i).p_value for i in range(20)]
    assert np.sum(np.array(p) <= 0.05) >= 17


def test_a_layer_that_depends_is_seen_among_many_that_do_not(rng):
    y = rng.integers(0, 2, 100)
    pair = rng.random((100, 4)) < 0.5
    pair[:, 0] = pair[:, 1] ^ y
    noise = {f"noise {i}": rng.random((100, 200)) < 0.5 for i in range(9)}
    result = permutation_test({"xor": pair, **noise}, y, n_permutations=99, random_state=0)
    assert result.p_value == result.layer_p_value[0] == 0.01
    assert result.layer_p_value[1:].min() > 0.01


def test_layers_that_depend_only_together_are_seen(rng):
    y, one = rng.integers(0, 2, 100), rng.random((100, 3)) < 0.5
    other = one ^ y[:, None].astype(bool)
    result = permutation_test([one, other], y, n_permutations=99, random_state=0)
    assert result.p_value == 0.01
    assert result.layer_p_value.min() > 0.01


def fair(rng):
    return rng.random((40, 60)) < 0.5, rng.integers(0, 2, 40)


def low_rank(rng):
    factors, loadings = rng.normal(size=(40, 2)), rng.normal(size=(2, 20))
    gates = factors @ loadings + 0.5 * rng.normal(size=(40, 20)) > 0
    return gates, rng.choice(4, 40, p=[0.5, 0.3, 0.15, 0.05])


def rare(rng):
    return [rng.random((40, 150)) < 0.03, rng.random((40, 8)) < 0.5], rng.integers(0, 3, 40)


def of_samples(rng):
    groups = np.repeat(np.arange(20), rng.integers(1, 7, 20))
    gates = 1.5 * rng.normal(size=(20, 6))[groups] + rng.normal(size=(len(groups), 6)) > 0
    return GatingStates.from_arrays(gates, groups=groups), rng.permutation(20) % 2


@pytest.mark.parametrize("draw", [fair, low_rank, rare, of_samples])
def test_p_values_of_the_default_are_uniform_under_the_null(draw):
    rng = np.random.default_rng(4)
    p = [
        permutation_test(*draw(rng), n_permutations=49, random_state=i).p_value for i in range(150)
    ]
    assert kstest(np.array(p) - rng.random(150) / 50, "uniform").pvalue > 0.01


def test_ties_count_against_dependence():
    """Of the three ways to halve four samples, one has the statistics of the labels."""
    gates = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1]])
    y = np.array([0, 0, 1, 1])
    result = permutation_test(gates, y, n_permutations=60, random_state=0)
    label_sets = permuted(y, 60, 0)
    ties = sum(labels[0] == labels[1] for labels in label_sets)
    assert ties < 61
    assert result.p_value >= ties / 61
    assert_agree(result, plain_test([gates], label_sets), 1)


@pytest.mark.parametrize("members", [(0, 1), (0, 4)])
def test_rounding_does_not_tell_equal_labels_apart(rng, members):
    """Statistics depend only on the states of the two samples of the second class."""
    state = np.r_[np.arange(4), 0, rng.permutation(np.arange(395) % 4)]
    y = np.zeros(400, int)
    y[list(members)] = 1
    gates = (rng.random((4, 100)) < 0.3)[state]
    result = permutation_test(gates, y, n_permutations=300, random_state=0)
    pairs = [tuple(sorted(state[labels == 1])) for labels in permuted(y, 300, 0)]
    values, found = np.r_[result.statistic, result.null_statistic], {}
    for pair, value in zip(pairs, values, strict=True):
        found.setdefault(pair, []).append(value)
    assert len(found) == 10  # pairs of four states
    assert max(map(np.ptp, found.values())) < 1e-3
    typical = np.array([np.median(found[pair]) for pair in pairs])
    assert result.p_value == np.mean(typical >= typical[0])


def test_names_of_classes_and_order_of_gates_do_not_matter(rng):
    gates, y = rng.random((60, 30)) < 0.5, rng.integers(0, 3, 60)
    options = {"n_permutations": 30, "random_state": 0}
    one = permutation_test(gates, y, **options)
    two = permutation_test(gates[:, ::-1], np.array(["b", "c", "a"])[y], **options)
    assert_allclose(two.null_statistic, one.null_statistic, atol=1e-3)
    assert one.p_value == two.p_value


def test_shows_the_pairs(rng, capsys):
    permutation_test(rng.random((30, 3)) < 0.5, np.arange(30) % 2, n_permutations=5, verbose=1)
    assert "100%" in capsys.readouterr().err


def test_what_takes_long_is_announced(rng, monkeypatch):
    monkeypatch.setattr(_permutation, "_LONG", 1e-9)
    with pytest.warns(UserWarning, match=r"takes about .* hours.*30 rows and 5 permutations"):
        permutation_test(rng.random((30, 3)) < 0.5, np.arange(30) % 2, n_permutations=5)


# I(X;Σ;Y) under a density -------------------------------------------------------------------------

quiet = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")


@pytest.fixture
def dependent(rng):
    y = rng.integers(0, 2, 150)
    knows = rng.random((150, 6)) < 0.3 + 0.4 * y[:, None]
    return {"knows": knows, "does not": rng.random((150, 9)) < 0.5}, y


def test_agrees_with_gating_mi(dependent):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2, joint="product", bound="lower"), "base": 10}
    result = permutation_test(layers, y, n_permutations=9, random_state=0, **options)
    expected = gating_mi(layers, y, **options)
    assert_allclose(result.mi_xy, expected.mi_xy, rtol=1e-10)
    assert_allclose(result.layer_mi_xy, expected.layer_mi_xy, rtol=1e-10)


def test_agrees_with_double_loops(rng):
    gates, y = rng.random((25, 5)) < 0.4, rng.integers(0, 3, 25)
    result = permutation_test(
        gates, y, density=Kernel(bandwidth=1.5), n_permutations=20, random_state=3
    )
    values = reference.kernel([gates], [1.5])
    h, draw = reference.entropy(values), np.random.RandomState(3)
    null = [h - reference.conditional_entropy(values, draw.permutation(y)) for _ in range(20)]
    value = h - reference.conditional_entropy(values, y)
    assert_allclose(result.mi_xy, value, rtol=1e-10)
    assert_allclose(result.null_mi_xy, null, rtol=1e-9)
    assert_allclose(result.p_value, (1 + np.sum(np.array(null) >= value)) / 21)


def test_shapes_and_p_values(dependent):
    layers, y = dependent
    result = permutation_test(
        layers, y, density=Kernel(alpha=0.2), n_permutations=99, random_state=0
    )
    assert result.null_mi_xy.shape == (99,)
    assert result.null_layer_mi_xy.shape == (99, 2)
    assert result.layer_p_value.shape == result.layer_mi_xy.shape == (2,)
    for value, null, p in [
        (result.mi_xy, result.null_mi_xy, result.p_value),
        (result.layer_mi_xy[1], result.null_layer_mi_xy[:, 1], result.layer_p_value[1]),
    ]:
        assert_allclose(p, (1 + np.sum(null >= value)) / 100)


def test_has_power(dependent):
    layers, y = dependent
    result = permutation_test(
        layers, y, density=Kernel(alpha=0.2), n_permutations=199, random_state=0
    )
    assert result.p_value == result.layer_p_value[0] == 1 / 200  # the smallest there is
    assert result.layer_p_value[1] > 0.05
    assert result.mi_xy > result.null_mi_xy.max()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_sees_what_single_gates_do_not_show(rng, alpha):
    y = rng.integers(0, 2, 400)
    first = rng.random((400, 3)) < 0.5
    gates = np.hstack([first, first ^ y[:, None].astype(bool)])
    result = permutation_test(
        gates, y, density=Kernel(alpha=alpha), n_permutations=99, random_state=0
    )
    assert result.p_value == 0.01


@quiet
@pytest.mark.parametrize("alpha", [0.3, 0.01])
def test_p_values_are_uniform_under_the_null(alpha):
    rng, found = np.random.default_rng(1), []
    for seed in range(200):
        gates, y = rng.random((40, 12)) < 0.4, rng.integers(0, 3, 40)
        result = permutation_test(
            gates, y, density=Kernel(alpha=alpha), n_permutations=99, random_state=seed
        )
        found.append(result.p_value)
    found = np.array(found)
    # a p-value of 99 permutations is a hundredth; ties only make it larger
    assert kstest(found - rng.random(200) / 100, "uniform", alternative="greater").pvalue > 0.01
    if alpha == 0.3:
        assert kstest(found - rng.random(200) / 100, "uniform").pvalue > 0.01
    assert np.mean(found <= 0.05) <= 0.1


@quiet
def test_bandwidths_that_leave_nothing_have_no_power_but_the_right_level(rng):
    gates, y = rng.random((60, 400)) < 0.5, rng.integers(0, 2, 60)
    gates[:, :10] = y[:, None]
    result = permutation_test(
        gates, y, density=Kernel(bandwidth=1e-3), n_permutations=99, random_state=0
    )
    assert result.p_value == 1  # all values tie


def test_chunks_give_the_same_as_one_pass(dependent, monkeypatch):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2), "n_permutations": 30, "random_state": 5}
    whole = permutation_test(layers, y, **options)
    for step in (1, 7, 30, 31):
        monkeypatch.setattr(_permutation, "_MASS_BYTES", 8 * 3 * 150 * step)
        calls = []
        original = _kernel.kernel_masses
        monkeypatch.setattr(
            _kernel,
            "kernel_masses",
            lambda *a, original=original, calls=calls, **k: calls.append(1) or original(*a, **k),
        )
        chunks = permutation_test(layers, y, **options)
        monkeypatch.setattr(_kernel, "kernel_masses", original)
        assert len(calls) == -(-31 // step)
        for name, value in whole.items():
            assert_allclose(chunks[name], value, rtol=1e-12, atol=1e-13)
        assert chunks.p_value == whole.p_value


def test_a_kernel_that_tells_all_rows_apart_is_warned_of(rng):
    layers = {"wide": rng.random((60, 300)) < 0.5, "narrow": rng.random((60, 2)) < 0.5}
    y = np.arange(60) % 2
    match = "in wide, all layers together.*hardly any power"
    with pytest.warns(SaturationWarning, match=match) as found:
        permutation_test(layers, y, density="kde", n_permutations=9)
    assert [warning.filename for warning in found] == [__file__]
    permutation_test(layers, y, n_permutations=9)  # warnings are errors here
    permutation_test(layers, np.arange(60), density="kde", n_permutations=3)  # 0 of 0 nats


DENSITIES = [None, pytest.param("kde", marks=quiet)]


@pytest.mark.parametrize("density", DENSITIES)
def test_threads_and_seeds(rng, density):
    gates, y = rng.random((1500, 20)) < 0.5, rng.integers(0, 4, 1500)
    options = {"n_permutations": 5, "density": density}
    value, null = ("statistic", "null_statistic") if density is None else ("mi_xy", "null_mi_xy")
    one, two, other = (
        permutation_test(gates, y, n_jobs=jobs, random_state=seed, **options)
        for jobs, seed in ((1, 2), (2, 2), (1, 3))
    )
    assert one[value] == two[value]
    assert_array_equal(one[null], two[null])
    assert (one[null] != other[null]).any()


def test_takes_states_and_labels_of_any_kind(dependent):
    layers, y = dependent
    options = {"density": Kernel(alpha=0.2), "n_permutations": 19, "random_state": 0}
    one = permutation_test(layers, y, **options)
    two = permutation_test(GatingStates.from_arrays(layers), np.array(["a", "b"])[y], **options)
    assert_array_equal(one.null_mi_xy, two.null_mi_xy)
    assert one.p_value == two.p_value


# Edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", DENSITIES)
def test_one_class_and_constant_gates_give_a_p_value_of_one(rng, density):
    gates, options = rng.random((30, 4)) < 0.5, {"n_permutations": 9, "density": density}
    assert permutation_test(gates, np.zeros(30), **options).p_value == 1
    result = permutation_test(np.ones((30, 4)), rng.integers(0, 2, 30), **options)
    assert result.p_value == 1
    if density is None:
        assert result.statistic == 0
        assert not result.layer_statistics.any()
    else:
        assert result.mi_xy == result.null_mi_xy.mean() == 0


@pytest.mark.parametrize("density", DENSITIES)
def test_few_samples(density):
    options = {"n_permutations": 50, "random_state": 0, "density": density}
    assert permutation_test([[1, 0]], [0], **options).p_value == 1
    result = permutation_test([[1, 0], [0, 1]], [0, 1], **options)
    assert result.p_value == 1  # either order tells the samples apart


@quiet
@pytest.mark.parametrize("density", [None, Kernel(alpha=0.3)])
def test_a_label_of_each_sample_ties(rng, density):
    gates = rng.random((40, 8)) < 0.5
    result = permutation_test(
        gates, np.arange(40), density=density, n_permutations=19, random_state=0
    )
    assert result.p_value == 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_permutations": 0}, "n_permutations"),
        ({"n_permutations": 1.5}, "n_permutations"),
        ({"density": Kernel(alpha=0)}, "alpha"),
        ({"random_state": "x"}, "random_state"),
        ({"y": [0, 1]}, "samples"),
        ({"y": None}, "y"),
        ({"y": np.linspace(0, 1, 30)}, "continuous"),
    ],
)
def test_validates(wrong, match, rng):
    options = {"y": np.arange(30) % 2, **wrong}
    with pytest.raises(ValueError, match=match):
        permutation_test(rng.random((30, 3)) < 0.5, **options)
