"""Bad input gets an error that says what was received and what is needed, before any work."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from torch import nn

from skgate import (
    BinnedLayerMI,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    KDELayerMI,
    TotalCorrelation,
    binned_layer_mi,
    gating_entropy,
    gibbs_layer_mi,
    kde_layer_mi,
    sample_correlation,
)
from skgate.densities import Kernel
from skgate.pairwise import _cupy

# activations of the networks here are small beside the default bins
pytestmark = pytest.mark.filterwarnings("ignore:All samples are in one cell")

MEASURES = [GatingEntropy, GatingMI, TotalCorrelation]
LAYER_MEASURES = [GibbsLayerMI, BinnedLayerMI, KDELayerMI]
LAYER_FUNCTIONS = [gibbs_layer_mi, binned_layer_mi, kde_layer_mi, sample_correlation]
Y = np.array([0, 1] * 5)
GOOD = np.random.default_rng(0).normal(size=(10, 4))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


BAD_ARRAYS = [
    (np.full((10, 4), np.nan), "NaN"),
    (np.full((10, 4), np.inf), "infinity"),
    (GOOD + 1j, "[Cc]omplex"),
    (np.full((10, 4), "on"), "could not convert|dtype"),
    (np.empty((0, 4)), r"0 sample\(s\)"),
    (np.empty((10, 0)), r"0 feature\(s\)"),
    (np.ones(10), "2D array"),
]


@pytest.mark.parametrize("measure", [*MEASURES, *LAYER_MEASURES])
@pytest.mark.parametrize(("X", "message"), BAD_ARRAYS)
def test_arrays_that_hold_no_gates(measure, X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        measure().fit(X, Y)


@pytest.mark.parametrize("estimator", [m() for m in LAYER_MEASURES] + [GateExtractor(network())])
def test_sparse_arrays_where_numbers_are_needed(estimator):
    with pytest.raises(TypeError, match=r"[Ss]parse data"):
        estimator.fit(csr_array(GOOD), Y)


@pytest.mark.parametrize("X", BAD_ARRAYS)
def test_arrays_that_no_module_takes(X):
    with pytest.raises((ValueError, TypeError), match=X[1]):
        GateExtractor(network()).fit(X[0])


@pytest.mark.parametrize("measure", [*MEASURES, *LAYER_MEASURES])
def test_three_axes(measure):
    with pytest.raises(ValueError, match="dim 3"):
        measure().fit(np.ones((10, 4, 2)), Y)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("X", [[GOOD, GOOD], {"a": GOOD, "b": GOOD}, [torch.ones(10, 4)]])
def test_layers_in_a_list_are_sent_to_from_arrays(measure, X):
    with pytest.raises(ValueError, match=r"GatingStates\.from_arrays"):
        measure().fit(X, Y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        (np.linspace(0, 1, 10), "continuous.*qcut"),
        (Y[:7], "inconsistent numbers of samples"),
        (np.array([0, 1, np.nan] + [0] * 7), "NaN"),
        (np.eye(2)[Y], r"shape \(10, 2\).*argmax"),
    ],
)
@pytest.mark.parametrize("model", [None, "network"])
def test_labels_that_are_no_labels(y, message, model):
    ran = []
    if model is not None:
        model = network()
        model.register_forward_hook(lambda *_: ran.append(1))
    with pytest.raises(ValueError, match=message):
        GatingMI(model).fit(GOOD, y)
    assert not ran  # before any work


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"density": Kernel(alpha=0)}, "'alpha' parameter"),
        ({"density": Kernel(alpha=-1.0)}, "'alpha' parameter"),
        ({"density": Kernel(alpha="aut")}, "'auto'"),
        ({"density": Kernel(alpha=[0.1])}, "several values of a parameter"),
        ({"density": Kernel(bound=["upper"])}, "several values of a parameter"),
        ({"density": Kernel(bandwidth=0.0)}, "'bandwidth' parameter"),
        ({"density": Kernel(bandwidth="var")}, "'variance'"),
        ({"density": Kernel(bound="middle")}, "'lower'"),
        ({"density": Kernel(joint="sum")}, "'product'"),
        ({"density": "tree"}, "'kde'"),
        ({"base": 1}, "'base' parameter"),
        ({"device": "gpu"}, "'cuda'"),
        ({"max_samples": 0}, "'max_samples' parameter"),
        ({"max_samples": 1.5}, "'max_samples' parameter"),
        ({"threshold": None}, "'threshold' parameter"),
        ({"model": 3}, "'model' parameter"),
        ({"n_jobs": "all"}, "'n_jobs' parameter"),
    ],
)
def test_parameters_out_of_range(measure, params, message):
    with pytest.raises(ValueError, match=message):
        measure(**params).fit(GOOD, Y)


@pytest.mark.parametrize("measure", MEASURES)
def test_parameters_of_a_density_that_is_a_string(measure):
    with pytest.raises(ValueError, match=r"density=Kernel\(\), from skgate.densities"):
        measure(density="kde").set_params(density__alpha=0.1)
    with pytest.raises(ValueError, match=r"density=ChowLiu\(\)"):
        measure().set_params(density="chow-liu", density__alpha=0.1)
    fitted = measure().set_params(density=Kernel(), density__alpha=0.1)
    assert fitted.density.alpha == 0.1


@pytest.mark.parametrize("measure", MEASURES)
def test_raw_inputs_without_a_model(measure):
    with pytest.raises(ValueError, match=r"dim 4.*model=.*GatingStates.from_arrays"):
        measure().fit(np.zeros((20, 3, 8, 8)), np.arange(20) % 2)


@pytest.mark.parametrize("measure", MEASURES)
def test_cuda_without_a_gpu(measure, monkeypatch):
    monkeypatch.setattr(_cupy, "what_is_missing", lambda: "there is no GPU.")
    with pytest.raises(RuntimeError, match=r"there is no GPU\. Or use device='cpu'"):
        measure(device="cuda").fit(GOOD, Y)


def test_curves_over_bad_values():
    with pytest.raises(ValueError, match="Each alpha must be a positive finite number"):
        gating_entropy(GOOD, density=Kernel(alpha=[0.1, -1]))
    with pytest.raises(ValueError, match="Each bound must be"):
        gating_entropy(GOOD, density=Kernel(bound=["upper", "middle"]))


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_other_layers_than_those_fitted():
    fitted = GatingEntropy().fit(GatingStates.from_arrays({"a": GOOD, "b": GOOD}))
    with pytest.raises(ValueError, match=r"expecting 8 features as input, in layers"):
        fitted.transform(GatingStates.from_arrays({"a": GOOD, "c": GOOD}))
    with pytest.raises(ValueError, match="expecting 8 features"):
        fitted.transform(GatingStates.from_arrays({"a": GOOD}))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        fitted.transform(fitted.states_[:0])


def test_models_that_are_none():
    with pytest.raises(TypeError, match=r"instance, Linear\(\.\.\.\)"):
        GateExtractor(nn.Linear).fit(GOOD)

    class Unfitted:
        def predict(self):
            """Stand in for an estimator."""

    with pytest.raises(Exception, match="FrozenEstimator"):
        GateExtractor(Unfitted()).fit(GOOD)
    with pytest.raises(ValueError, match="script module"):
        GateExtractor(torch.jit.trace(network(), torch.ones(2, 4))).fit(GOOD)
    with pytest.raises(ValueError, match="sampling='off'"):
        GatingMI(GateExtractor(network(), sampling="on")).fit(GOOD, Y)
    with pytest.raises(ValueError, match="'sampling' parameter"):
        GateExtractor(network(), sampling="mean").fit(GOOD)
    with pytest.raises(ValueError, match="'batch_size' parameter"):
        GatingEntropy(GateExtractor(network(), batch_size=0)).fit(GOOD)


def test_streams_need_a_model():
    dataset = torch.utils.data.TensorDataset(torch.tensor(GOOD), torch.tensor(Y))
    for stream in (dataset, torch.utils.data.DataLoader(dataset)):
        with pytest.raises(ValueError, match=r"no model.*model=\.\.\."):
            GatingMI().fit(stream)


def test_states_and_iterators_are_no_inputs():
    states = GatingStates.from_arrays(GOOD)
    with pytest.raises(ValueError, match=r"leave the model out"):
        GatingEntropy(network()).fit(states)
    with pytest.raises(ValueError, match="an iterator"):
        GateExtractor(network()).fit(iter([GOOD]))


def test_targets_that_are_no_labels_are_explained():
    images = torch.utils.data.TensorDataset(torch.tensor(GOOD), torch.ones(10, 2, 2))
    with pytest.raises(ValueError, match="one class label per sample"):
        GatingMI(network()).fit(images)


def test_inputs_of_another_width_come_with_a_note():
    with pytest.raises(RuntimeError) as caught:
        GatingEntropy(network()).fit(GOOD[:, :3])
    assert "batch of shape (10, 3)" in caught.value.__notes__[0]


def test_layers_that_select_nothing():
    with pytest.raises(ValueError, match=r"selects none of the 1 layers \['1'\]"):
        GateExtractor(network(), layers=slice(5, 9)).fit(GOOD)


def test_devices_that_are_not_there():
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="torch finds no CUDA"):
            GateExtractor(network(), device="cuda").fit(GOOD)


def test_activations_in_place_of_pre_activations_warn():
    with pytest.warns(UserWarning, match=r"All gates are open.*threshold=0\.0"):
        assert GatingEntropy(density="kde").fit(1 / (1 + np.exp(-GOOD))).entropy_ == 0


def test_keys_that_no_module_takes():
    class Net(nn.Module):
        def forward(self, a, b):
            return torch.relu(a + b)

    parts = {"a": GOOD, "b": GOOD, "c": GOOD}
    with pytest.raises(ValueError, match=r"also has \['c'\]"):
        GateExtractor(Net()).fit(parts)


@pytest.mark.filterwarnings("default::skgate.SaturationWarning")
def test_warnings_point_at_the_line_of_the_user(recwarn):
    GatingEntropy(density="kde").fit(np.random.default_rng(0).normal(size=(20, 500)))
    gating_entropy(np.random.default_rng(0).normal(size=(20, 500)), density="kde")
    assert [warning.filename for warning in recwarn] == [__file__] * 2


# Activations of layers -----------------------------------------------------------------------


@pytest.mark.parametrize("function", LAYER_FUNCTIONS)
@pytest.mark.parametrize(("X", "message"), BAD_ARRAYS)
def test_arrays_that_hold_no_activations(function, X, message):
    for given in (X, {"a": GOOD, "b": X}):
        with pytest.raises((ValueError, TypeError), match=message):
            function(given, Y)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_a_layer_that_holds_no_activations_is_named(measure):
    with pytest.raises(ValueError, match="Layer 'b' contains NaN"):
        measure().fit({"a": GOOD, "b": np.full((10, 2), np.nan)}, Y)
    with pytest.raises(ValueError, match=r"number of samples: \{'a': 10, 'b': 9\}"):
        measure().fit({"a": GOOD, "b": GOOD[1:]}, Y)
    with pytest.raises(ValueError, match="at least one"):
        measure().fit({}, Y)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
@pytest.mark.parametrize("X", [[GOOD, GOOD], (GOOD, GOOD), [torch.ones(10, 4)]])
def test_activations_in_a_list_are_sent_to_a_dict(measure, X):
    with pytest.raises(
        ValueError, match=r'split as if they were samples\. Pass \{"layer0": X\[0\]'
    ):
        measure().fit(X, Y)


@pytest.mark.parametrize("use", [*(m().fit for m in LAYER_MEASURES), *LAYER_FUNCTIONS])
def test_gating_states_are_no_activations(use):
    states = GatingStates.from_arrays(GOOD)
    for given in (states, {"a": states}):
        with pytest.raises(ValueError, match="GatingStates"):
            use(given, Y)


@pytest.mark.parametrize("use", [*(m().fit for m in LAYER_MEASURES), *LAYER_FUNCTIONS])
def test_streams_are_no_activations(use):
    dataset = torch.utils.data.TensorDataset(torch.tensor(GOOD), torch.tensor(Y))
    for stream in (dataset, torch.utils.data.DataLoader(dataset)):
        with pytest.raises(ValueError, match="activations"):
            use(stream, Y)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_streams_of_activations_need_a_model(measure):
    dataset = torch.utils.data.TensorDataset(torch.tensor(GOOD), torch.tensor(Y))
    for stream in (dataset, torch.utils.data.DataLoader(dataset)):
        with pytest.raises(ValueError, match=rf"no model.*{measure.__name__}\(model=\.\.\.\)"):
            measure().fit(stream)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_layers_need_a_model(measure):
    for layers in ("layer0", 0, [0], slice(1)):
        with pytest.raises(ValueError, match=r"model is None\. Leave layers out"):
            measure(layers=layers).fit(GOOD, Y)


BAD_LABELS = [
    (None, "requires y"),
    (np.linspace(0, 1, 10), "continuous.*qcut"),
    (Y[:7], "inconsistent numbers of samples"),
    (np.array([0, 1, np.nan] + [0] * 7), "NaN"),
    (np.eye(2)[Y], r"shape \(10, 2\).*argmax"),
]


@pytest.mark.parametrize(("y", "message"), BAD_LABELS)
@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_labels_that_are_none_before_any_work(measure, y, message):
    ran = []
    model = network()
    model.register_forward_hook(lambda *_: ran.append(1))
    for use in (measure(model).fit, measure().fit):
        with pytest.raises(ValueError, match=message):
            use(GOOD, y)
    assert not ran


@pytest.mark.parametrize(("y", "message"), BAD_LABELS)
@pytest.mark.parametrize("function", LAYER_FUNCTIONS)
def test_labels_that_are_none_of_given_activations(function, y, message):
    with pytest.raises(ValueError, match=message):
        function(GOOD, y)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@pytest.mark.parametrize("measure", LAYER_MEASURES)
@pytest.mark.parametrize("model", [None, "network"])
def test_labels_that_were_not_there(measure, model):
    fitted = measure(network() if model else None).fit(GOOD, Y)
    with pytest.raises(ValueError, match=r"labels \[5\], which were not in the fitted y"):
        fitted.score(GOOD, np.where(Y == 1, 5, 0))
    with pytest.raises(ValueError, match=r"labels \['a', 'b'\]"):
        fitted.score(GOOD, list("ab" * 5))
    with pytest.raises(ValueError, match="requires y"):
        fitted.score(GOOD)
    with pytest.raises(ValueError, match="inconsistent"):
        fitted.score(GOOD, Y[:3])


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
@pytest.mark.parametrize("measure", LAYER_MEASURES)
@pytest.mark.parametrize("method", ["transform", "score"])
def test_other_activations_than_those_fitted(measure, method):
    fitted = measure().fit({"a": GOOD, "b": GOOD[:, :3]}, Y)
    labels = (Y,) if method == "score" else ()
    others = [
        {"a": GOOD, "c": GOOD[:, :3]},
        {"a": GOOD},
        {"a": GOOD, "b": GOOD},
        {"a": GOOD, "b": GOOD[:, :3], "c": GOOD},
        np.hstack([GOOD, GOOD[:, :3]]),
        GOOD,
    ]
    for other in others:
        with pytest.raises(ValueError, match="expecting 7 features as input"):
            getattr(fitted, method)(other, *labels)
    fitted = measure().fit(GOOD, Y)
    for other in ({"a": GOOD}, {"layer0": GOOD[:, 1:]}, GOOD[:, 1:]):
        with pytest.raises(ValueError, match="expecting 4 features as input"):
            getattr(fitted, method)(other, *labels)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_unfitted_measures_of_layers(measure):
    for use in (measure().transform, measure().score, measure(network()).transform):
        with pytest.raises(NotFittedError):
            use(GOOD)


@pytest.mark.parametrize(
    ("measure", "params"),
    [
        *((m, {"base": 1}) for m in LAYER_MEASURES),
        *((m, {"model": 3}) for m in LAYER_MEASURES),
        *((m, {"spatial": "positions"}) for m in LAYER_MEASURES),
        *((m, {"batch_size": 0}) for m in LAYER_MEASURES),
        *((m, {"layers": 1.5}) for m in LAYER_MEASURES),
        (GibbsLayerMI, {"class_weight": "balanced"}),
        (GibbsLayerMI, {"class_weight": None}),
        (GibbsLayerMI, {"n_jobs": "all"}),
        (BinnedLayerMI, {"bin_size": 0}),
        (BinnedLayerMI, {"bin_size": -1.0}),
        (BinnedLayerMI, {"bin_size": np.inf}),
        (BinnedLayerMI, {"bin_size": np.nan}),
        (KDELayerMI, {"noise_variance": 0.0}),
        (KDELayerMI, {"noise_variance": -2}),
        (KDELayerMI, {"noise_variance": np.inf}),
        (KDELayerMI, {"bound": "middle"}),
        (KDELayerMI, {"max_samples": 0}),
        (KDELayerMI, {"max_samples": 1.5}),
        (KDELayerMI, {"device": "gpu"}),
        (KDELayerMI, {"n_jobs": "all"}),
    ],
)
def test_parameters_of_layer_measures_out_of_range(measure, params):
    (name,) = params
    with pytest.raises(ValueError, match=f"'{name}' parameter of {measure.__name__}"):
        measure(**params).fit(GOOD, Y)


def test_parameters_of_functions_out_of_range():
    with pytest.raises(ValueError, match="'bin_size' parameter of binned_layer_mi"):
        binned_layer_mi(GOOD, Y, bin_size=0)
    with pytest.raises(ValueError, match="'noise_variance' parameter of kde_layer_mi"):
        kde_layer_mi(GOOD, Y, noise_variance=0)
    with pytest.raises(ValueError, match="'class_weight' parameter of gibbs_layer_mi"):
        gibbs_layer_mi(GOOD, Y, class_weight="balanced")


@pytest.mark.parametrize("bin_size", [1e-19, 1e-300, 5e-324])
def test_bins_too_small_to_be_counted(bin_size, recwarn):
    for use in (BinnedLayerMI(bin_size=bin_size).fit, partial_binned(bin_size)):
        with pytest.raises(ValueError, match=rf"bin_size={bin_size} is too small: .* 2\^62 bins"):
            use(GOOD, Y)
    assert [str(w.message) for w in recwarn] == []


def partial_binned(bin_size):
    return lambda X, y: binned_layer_mi(X, y, bin_size=bin_size)


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_layer_measures_on_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(_cupy, "what_is_missing", lambda: "there is no GPU.")
    for use in (KDELayerMI(device="cuda").fit, lambda X, y: kde_layer_mi(X, y, device="cuda")):
        with pytest.raises(RuntimeError, match="Or use device='cpu'"):
            use(GOOD, Y)


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_models_that_no_layer_measure_takes(measure):
    with pytest.raises(TypeError, match=r"instance, Linear\(\.\.\.\)"):
        measure(nn.Linear).fit(GOOD, Y)
    with pytest.raises(ValueError, match="script module"):
        measure(torch.jit.trace(network(), torch.ones(2, 4))).fit(GOOD, Y)
    with pytest.raises(ValueError, match="Got GatingStates"):
        measure(network()).fit(GatingStates.from_arrays(GOOD), Y)
    with pytest.raises(ValueError, match="iterator"):
        measure(network()).fit(iter([GOOD]), Y)
    with pytest.raises(ValueError, match="list of tuples"):
        measure(network()).fit(list(zip(GOOD, Y, strict=True)), Y)
    with pytest.raises(RuntimeError) as caught:
        measure(network()).fit(GOOD[:, :3], Y)
    assert "batch of shape (10, 3)" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("default::skgate.SaturationWarning")
def test_warnings_of_layer_measures_point_at_the_line_of_the_user(recwarn):
    X = np.random.default_rng(0).normal(size=(20, 30)) * 100
    y = np.arange(20) % 2
    for measure in (BinnedLayerMI(), KDELayerMI()):
        measure.fit(X, y)
        measure.fit({"a": X}, y)
    binned_layer_mi(X, y)
    kde_layer_mi(X, y)
    sample_correlation(np.ones((20, 3)), y)
    assert [warning.filename for warning in recwarn] == [__file__] * 7
