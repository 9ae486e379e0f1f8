"""Standard errors of the kernel density, masses by part, and how an entropy grows with n."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import t

from skgate import (
    GatingEntropy,
    GatingMI,
    GatingStates,
    entropy_curve,
    gating_entropy,
    gating_mi,
)
from skgate.densities import Kernel
from skgate.pairwise import block_masses, kernel_masses

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")


def parts_of(n):
    """Rows of the 16 parts, as the library draws them; n is a multiple of 16."""
    order = np.random.default_rng(0).permutation(n)
    return [part.tolist() for part in order.reshape(16, -1)]


def dependent_gates(rng, n, d=12, factors=3):
    latent = rng.normal(size=(n, factors))
    return latent @ rng.normal(size=(factors, d)) + rng.normal(size=(n, d)) > 0


@pytest.fixture
def two_layers(rng):
    gates = dependent_gates(rng, 64)
    return {"a": gates[:, :7], "b": gates[:, 7:]}


# Brute force --------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", ["concatenated", "product"])
@pytest.mark.parametrize("bound", ["upper", "lower"])
def test_fixed_bandwidth_is_brute_force(two_layers, joint, bound):
    result = gating_entropy(two_layers, density=Kernel(bandwidth=1.3, bound=bound, joint=joint))
    layers = list(two_layers.values())
    for some, error in [
        (layers, result.entropy_se),
        (layers[:1], result.layer_entropy_se[0]),
        (layers[1:], result.layer_entropy_se[1]),
    ]:
        values = reference.kernel(some, [1.3] * len(some), bound)
        expected = reference.jackknife_error(
            lambda rows, values=values: reference.entropy(values, rows), parts_of(64)
        )
        assert_allclose(error, expected, rtol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_fixed_bandwidth_is_brute_force_given_labels(two_layers, rng, n_classes):
    y = rng.integers(0, n_classes, 64).tolist()
    result = gating_mi(two_layers, y, density=Kernel(bandwidth=1.3))
    layers = list(two_layers.values())

    def information(values, rows):
        some = [[values[j][k] for k in rows] for j in rows]
        own = [y[j] for j in rows]
        return reference.entropy(some) - reference.conditional_entropy(some, own)

    for some, error in [(layers, result.mi_xy_se), (layers[:1], result.layer_mi_xy_se[0])]:
        values = reference.kernel(some, [1.3] * len(some))
        expected = reference.jackknife_error(
            lambda rows, values=values: information(values, rows), parts_of(64)
        )
        assert_allclose(error, expected, rtol=1e-10)
    values = reference.kernel(layers, [1.3] * 2)
    expected = reference.jackknife_error(lambda rows: reference.entropy(values, rows), parts_of(64))
    assert_allclose(result.mi_x_se, expected, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("joint", ["concatenated", "product"])
@pytest.mark.parametrize("n", [160, 1600])
def test_bandwidth_of_the_samples_is_estimated_again(rng, alpha, joint, n):
    gates = dependent_gates(rng, n)
    gates[:, 7:] &= rng.random((n, 5)) < 0.4  # layers whose variances do not move together
    states = GatingStates.from_arrays({"a": gates[:, :7], "b": gates[:, 7:]})
    y = (gates[:, 0] ^ (rng.random(n) < 0.2)).astype(int)
    result = gating_mi(states, y, density=Kernel(alpha=alpha, joint=joint))

    def again(name):
        return reference.jackknife_error(
            lambda rows: getattr(
                gating_mi(states[rows], y[rows], density=Kernel(alpha=alpha, joint=joint)), name
            ),
            parts_of(n),
        )

    # beyond 512 samples the slope is that of some of them
    rtol = 0.05 if n <= 512 else 0.1
    assert_allclose(result.mi_x_se, again("mi_x"), rtol=rtol)
    assert_allclose(result.mi_xy_se, again("mi_xy"), rtol=rtol)


def test_of_layers_whose_variances_part_ways(rng):
    """The kernel of each layer has its own bandwidth, which moves by itself."""
    n = 320
    rare = np.repeat(rng.random((n, 1)) < 0.04, 12, axis=1) ^ (rng.random((n, 12)) < 0.02)
    fair = dependent_gates(rng, n)
    states = GatingStates.from_arrays({"rare": rare, "fair": fair})
    options = {"density": Kernel(alpha=0.5, joint="product")}
    expected = reference.jackknife_error(
        lambda rows: gating_entropy(states[rows], **options).entropy, parts_of(n)
    )
    assert_allclose(gating_entropy(states, **options).entropy_se, expected, rtol=0.1)


def test_gates_that_vary_in_one_part_alone():
    """Without that part there is no variance, and no entropy; the error cannot exceed log n."""
    for n in (16, 32, 160):
        gates = np.zeros((n, 8), bool)
        gates[parts_of(n)[3][:1]] = True
        for alpha in (0.5, 1.0, 3.0):
            result = gating_entropy(gates, density=Kernel(alpha=alpha))

            def h(rows, gates=gates, alpha=alpha):
                return gating_entropy(gates[rows], density=Kernel(alpha=alpha)).entropy

            expected = reference.jackknife_error(h, parts_of(n))
            assert_allclose(result.entropy_se, expected, rtol=0.2)


@pytest.mark.parametrize("n", [31, 47, 100])
def test_what_is_left_over_counts_too(rng, n):
    """n need not be a multiple of 16: the share of the samples that a part has sets the scale."""
    errors, values = [], []
    for _ in range(300):
        result = gating_entropy(
            rng.random((n, 1)) < 0.2, density=Kernel(bandwidth=1e-3)
        )  # the plug-in of a rate
        errors.append(result.entropy_se)
        values.append(result.entropy)
    # 300 replications know the quotient to 4%
    assert_allclose(np.sqrt(np.mean(np.square(errors))) / np.std(values), 1, atol=0.15)


def test_error_of_every_alpha_and_bound(two_layers):
    alphas, bounds = [0.1, 0.6], ["lower", "upper"]
    grid = gating_entropy(two_layers, density=Kernel(alpha=alphas, bound=bounds))
    assert grid.entropy_se.shape == (2, 2)
    assert grid.layer_entropy_se.shape == (2, 2, 2)
    for i, alpha in enumerate(alphas):
        for j, bound in enumerate(bounds):
            single = gating_entropy(two_layers, density=Kernel(alpha=alpha, bound=bound))
            assert_allclose(grid.entropy_se[i, j], single.entropy_se, rtol=1e-9)
            assert_allclose(grid.layer_entropy_se[i, j], single.layer_entropy_se, rtol=1e-9)


@pytest.mark.parametrize("base", [np.e, 10])
def test_errors_are_in_units_of_base(two_layers, rng, base):
    y = rng.integers(0, 2, 64)
    bits, other = (gating_mi(two_layers, y, density=Kernel(alpha=0.4), base=b) for b in (2, base))
    for name in ("mi_x_se", "mi_xy_se", "layer_mi_x_se", "layer_mi_xy_se"):
        assert_allclose(other[name], bits[name] / np.log2(base), rtol=1e-12)


def test_estimators_hold_the_errors(two_layers, rng):
    states, y = GatingStates.from_arrays(two_layers), rng.integers(0, 2, 64)
    fitted = GatingEntropy(density=Kernel(alpha=0.3)).fit(states)
    result = gating_entropy(states, density=Kernel(alpha=0.3))
    assert fitted.entropy_se_ == result.entropy_se > 0
    assert_array_equal(fitted.layer_entropy_se_, result.layer_entropy_se)
    fitted = GatingMI(density=Kernel(alpha=0.3), random_state=0).fit(states, y)
    result = gating_mi(states, y, density=Kernel(alpha=0.3), random_state=0)
    assert fitted.mi_xy_se_ == result.mi_xy_se > 0
    assert_array_equal(fitted.layer_mi_xy_se_, result.layer_mi_xy_se)
    assert fitted.mi_x_se_ == result.mi_x_se


def test_no_threads_no_difference(rng):
    gates = dependent_gates(rng, 3000, d=64)
    one, two = (gating_entropy(gates, density=Kernel(alpha=0.1), n_jobs=jobs) for jobs in (1, 2))
    assert one.entropy == two.entropy
    assert one.entropy_se == two.entropy_se


# Edges --------------------------------------------------------------------------------------------


def test_one_sample_has_no_error():
    result = gating_mi([[1, 0, 1]], [0], density="kde")
    assert np.isnan([result.mi_x_se, result.mi_xy_se]).all()


@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 33])
def test_few_samples_have_a_finite_error(rng, n):
    result = gating_mi(rng.random((n, 9)) < 0.5, rng.integers(0, 2, n), density=Kernel(alpha=0.3))
    assert np.isfinite([result.mi_x_se, result.mi_xy_se]).all()
    assert result.mi_x_se >= 0


def test_constant_gates_have_no_error():
    result = gating_mi(np.ones((40, 3), bool), np.arange(40) % 2)
    assert result.mi_x_se == result.mi_xy_se == 0


def test_a_constant_layer_changes_no_error(two_layers):
    result = gating_entropy(two_layers, density=Kernel(alpha=0.3))
    more = gating_entropy(
        {**two_layers, "constant": np.ones((64, 4), bool)}, density=Kernel(alpha=0.3)
    )
    assert_allclose(more.entropy_se, result.entropy_se, rtol=1e-9)
    assert more.layer_entropy_se[-1] == 0


def test_a_class_of_one(two_layers):
    y = np.zeros(64, int)
    y[10] = 1
    result = gating_mi(two_layers, y, density=Kernel(alpha=0.3))
    assert np.isfinite(result.mi_xy_se)
    assert np.isfinite(result.layer_mi_xy_se).all()


def test_one_class_tells_nothing_for_sure(two_layers):
    result = gating_mi(two_layers, np.zeros(64), density=Kernel(alpha=0.3))
    assert_allclose([result.mi_xy, result.mi_xy_se], 0, atol=1e-12)


# Coverage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "bandwidth"), [(128, "variance"), (480, 1.5)])
def test_intervals_cover_as_often_as_they_say(n, bandwidth):
    rng = np.random.default_rng(7)
    loadings = rng.normal(size=(3, 10))
    entropies, informations = [], []
    for _ in range(200):
        y = rng.integers(0, 2, n)
        latent = rng.normal(size=(n, 3)) + 0.8 * y[:, None]
        gates = latent @ loadings + rng.normal(size=(n, 10)) > 0
        result = gating_mi(gates, y, density=Kernel(alpha=0.5, bandwidth=bandwidth), random_state=0)
        entropies.append((result.mi_x, result.mi_x_se))
        informations.append((result.mi_xy, result.mi_xy_se))
    for values, errors in (np.transpose(entropies), np.transpose(informations)):
        covered = np.abs(values - values.mean()) <= t.ppf(0.975, 15) * errors
        assert 0.88 <= covered.mean() <= 0.99


# Masses by part -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.lists(st.integers(1, 20), min_size=1, max_size=3),
       st.integers(0, 999))  # fmt: skip
def test_parts_add_up(n, widths, seed):
    rng = np.random.default_rng(seed)
    states = GatingStates.from_arrays({str(i): rng.random((n, d)) < 0.4
                                       for i, d in enumerate(widths)})  # fmt: skip
    weights = rng.random((4, len(widths)))
    label_sets = [rng.integers(0, 3, n), rng.integers(0, 5, n)]
    masses, parts = block_masses(states, weights, label_sets=label_sets)
    assert masses.shape == (4, 3, parts.max() + 1, n)
    assert_array_equal(np.bincount(parts)[:16], max(1, n // 16))
    whole = kernel_masses(states, weights, label_sets=label_sets)
    assert_allclose(np.log(masses.sum(axis=2)), whole, rtol=1e-12, atol=1e-12)
    gates = [np.asarray(states.select(i), int) for i in range(len(widths))]
    distances = np.stack([np.abs(g[:, None] - g).sum(axis=2) for g in gates])
    kernel = np.exp(-np.tensordot(weights, distances, 1))  # (n_terms, n, n)
    for part in range(parts.max() + 1):
        own = parts == part
        assert_allclose(masses[:, 0, part], kernel[:, :, own].sum(axis=2), rtol=1e-12, atol=1e-13)
        same = (label_sets[1][:, None] == label_sets[1]) & own
        assert_allclose(masses[:, 2, part], (kernel * same).sum(axis=2), rtol=1e-12, atol=1e-13)


def test_parts_add_up_over_several_tasks(rng):
    states = GatingStates.from_arrays(rng.random((9001, 10)) < 0.3)
    masses, parts = block_masses(states, np.array([[0.4]]))
    assert len(parts) == 9001
    assert parts.max() == 16
    whole = kernel_masses(states, np.array([[0.4]]))
    assert_allclose(np.log(masses.sum(axis=2)), whole, rtol=1e-12)
    first = kernel_masses(states[parts == 3], np.array([[0.4]]), queries=states[:50])
    assert_allclose(np.log(masses[:, :, 3, :50]), first, rtol=1e-10)


# Growth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", ["concatenated", "product"])
def test_curve_ends_at_the_entropy(two_layers, joint):
    curve = entropy_curve(two_layers, density=Kernel(alpha=0.2, joint=joint))
    result = gating_entropy(two_layers, density=Kernel(alpha=0.2, joint=joint))
    assert_array_equal(curve.n_samples, np.arange(4, 65, 4))
    assert curve.layer_entropy.shape == (16, 2)
    assert_allclose(curve.entropy[-1], result.entropy, rtol=1e-12)
    assert_allclose(curve.layer_entropy[-1], result.layer_entropy, rtol=1e-12)


@pytest.mark.parametrize("n", [5, 31, 100])
def test_curve_ends_at_all_samples(rng, n):
    gates = dependent_gates(rng, n)
    curve = entropy_curve(gates, density=Kernel(alpha=0.3))
    assert curve.n_samples[-1] > 0.9 * n
    assert_allclose(
        curve.entropy[-1], gating_entropy(gates, density=Kernel(alpha=0.3)).entropy, rtol=0.1
    )


def test_curve_is_the_mean_of_sub_samples(rng):
    gates = dependent_gates(rng, 64)
    curve = entropy_curve(gates, density=Kernel(bandwidth=1.3))
    parts = parts_of(64)
    values = reference.kernel([gates], [1.3])
    for length in (1, 5, 16):
        runs = [[j for i in range(length) for j in parts[(i + s) % 16]] for s in range(16)]
        expected = np.mean([reference.entropy(values, rows) for rows in runs])
        assert_allclose(curve.entropy[length - 1], expected, rtol=1e-10)


def test_curve_rises(rng):
    curve = entropy_curve(dependent_gates(rng, 800, d=30), density=Kernel(alpha=0.1))
    assert (np.diff(curve.entropy) > -1e-3).all()
    assert curve.entropy[-1] > curve.entropy[0] + 0.1
    nothing = entropy_curve(np.ones((64, 3), bool))
    assert_array_equal(nothing.entropy, 0)


def test_curve_of_one_sample():
    curve = entropy_curve([[1, 0]])
    assert_array_equal(curve.n_samples, [1])
    assert_array_equal(curve.entropy, [0])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"density": Kernel(alpha=-1)}, "alpha"),
        ({"density": Kernel(alpha=[0.1, 0.2])}, "several values"),
        ({"density": Kernel(joint="sum")}, "joint"),
        ({"density": Kernel(bound="no")}, "bound"),
        ({"density": "product"}, "density"),
        ({"base": 1}, "base"),
    ],
)
def test_curve_validates(wrong, match, rng):
    with pytest.raises(ValueError, match=match):
        entropy_curve(rng.random((20, 3)) < 0.5, **wrong)


def test_entropies_do_not_hang_on_whether_errors_are_wanted(states):
    with_errors = gating_entropy(states, density=Kernel(alpha=[0.1, 0.5]))
    without = gating_entropy(states, density=Kernel(alpha=[0.1, 0.5]), standard_errors=False)
    assert_allclose(without.suffix_entropy, with_errors.suffix_entropy, rtol=1e-12)
    assert np.isnan(without.layer_entropy_se).all()
    assert without.layer_entropy_se.shape == with_errors.layer_entropy_se.shape
    assert np.isfinite(with_errors.layer_entropy_se).all()
