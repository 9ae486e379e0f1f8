"""Pipelines, searches, cross-validation, clones, pickles, output containers, imports."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import skgate
from skgate import (
    BinnedLayerMI,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    KDELayerMI,
    TotalCorrelation,
)
from skgate.densities import Kernel

pytestmark = [
    pytest.mark.filterwarnings("ignore::skgate.SaturationWarning"),
    pytest.mark.filterwarnings("ignore:All samples are in one cell"),  # small activations
]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


@pytest.fixture
def data(rng):
    X = rng.normal(size=(90, 5)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def test_pipeline_equals_its_parts(net, data):
    X, _ = data
    pipeline = make_pipeline(GateExtractor(net), GatingEntropy(density=Kernel(alpha=0.2))).fit(X)
    direct = GatingEntropy(net, density=Kernel(alpha=0.2)).fit(X)
    by_hand = GatingEntropy(density=Kernel(alpha=0.2)).fit(GateExtractor(net).fit_transform(X))
    for measure in (pipeline[-1], by_hand):
        assert_allclose(measure.layer_entropy_, direct.layer_entropy_, rtol=1e-13)
        assert measure.layer_names_ == ["1", "3"]
    assert_allclose(pipeline.transform(X), direct.transform(X), rtol=1e-13)
    assert_allclose(pipeline.score(X), direct.score(X), rtol=1e-13)
    assert list(pipeline.get_feature_names_out()) == ["1", "3"]


@pytest.mark.parametrize("measure", [GatingEntropy, GatingMI, TotalCorrelation])
def test_cross_validation_on_states_and_on_inputs(net, data, measure):
    X, y = data
    states = GateExtractor(net).fit_transform(X)
    on_states = cross_val_score(measure(density=Kernel(alpha=0.2), random_state=0), states, y, cv=3)
    on_inputs = cross_val_score(measure(net, density=Kernel(alpha=0.2), random_state=0), X, y, cv=3)
    in_pipeline = cross_validate(
        make_pipeline(GateExtractor(net), measure(density=Kernel(alpha=0.2), random_state=0)),
        X,
        y,
        cv=3,
    )["test_score"]
    assert np.isfinite(on_states).all()
    assert_allclose(on_inputs, on_states, rtol=1e-10)
    assert_allclose(in_pipeline, on_states, rtol=1e-10)


def test_grid_search_over_alpha(net, data):
    X, _ = data
    states = GateExtractor(net).fit_transform(X)
    grid = {"density__alpha": [1e-4, 0.1, 1.0]}
    search = GridSearchCV(GatingEntropy(density=Kernel()), grid, cv=3, n_jobs=2).fit(states)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert isinstance(search.best_estimator_.states_, GatingStates)
    pipeline = make_pipeline(GateExtractor(net), GatingEntropy(density=Kernel()))
    again = GridSearchCV(pipeline, {"gatingentropy__density__alpha": [1e-4, 0.1, 1.0]}, cv=3).fit(X)
    assert_allclose(
        again.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], rtol=1e-10
    )


@pytest.mark.parametrize("measure", [GatingEntropy, GatingMI, TotalCorrelation])
def test_clone_and_pickle(net, data, measure):
    X, y = data
    fitted = measure(net, density=Kernel(alpha=0.2), random_state=0).fit(X, y)
    cloned = clone(fitted)
    assert not hasattr(cloned, "states_")
    assert_allclose(cloned.fit(X, y).transform(X), fitted.transform(X), rtol=1e-13)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    assert loaded.score(X, y) == fitted.score(X, y)


def test_pandas_output_names_the_layers(net, data):
    X, _ = data
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(90) + 7)
    pipeline = make_pipeline(GateExtractor(net), GatingEntropy(density=Kernel(alpha=0.2)))
    out = pipeline.set_output(transform="pandas").fit(frame).transform(frame)
    assert list(out.columns) == ["1", "3"]
    direct = GatingEntropy(net, density=Kernel(alpha=0.2)).set_output(transform="pandas").fit(frame)
    assert list(direct.feature_names_in_) == list("abcde")
    pd.testing.assert_index_equal(direct.transform(frame).index, frame.index)
    with pytest.raises(ValueError, match="feature names"):
        direct.transform(frame[list("edcba")])


def test_html_representation(net):
    for estimator in (
        GatingEntropy(net),
        GateExtractor(net),
        make_pipeline(GateExtractor(net), GatingMI()),
    ):
        assert type(estimator).__name__ in estimator_html_repr(estimator)
        assert type(estimator).__name__ in repr(estimator)


def test_import_is_light():
    code = (
        "import sys, skgate; heavy = {'torch', 'cupy', 'matplotlib', 'skorch'} & set(sys.modules); "
        "assert not heavy, heavy; skgate.GatingEntropy().fit([[1, 0], [0, 1]] * 3); "
        "assert 'torch' not in sys.modules; skgate.GateExtractor; assert 'torch' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_there():
    assert set(skgate.__all__) <= set(dir(skgate))
    with pytest.raises(AttributeError, match="no attribute 'GatingEntropie'"):
        skgate.GatingEntropie  # noqa: B018


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Labelled(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index], int(self.y[index])


def test_datasets_and_loaders_bring_their_labels(net, data):
    X, y = data
    expected = GatingMI(net, density=Kernel(alpha=0.2), random_state=0).fit(X, y)
    dataset = Labelled(X, y)
    shuffled = DataLoader(dataset, batch_size=17, shuffle=True)
    for given in (dataset, DataLoader(dataset, batch_size=32), shuffled):
        fitted = GatingMI(net, density=Kernel(alpha=0.2), random_state=0).fit(given)
        assert_allclose(fitted.mi_xy_, expected.mi_xy_, rtol=1e-10)
        assert_allclose(fitted.score(given), expected.score(X, y), rtol=1e-10)
        assert_allclose(
            GatingEntropy(net, density=Kernel(alpha=0.2)).fit(given).entropy_,
            expected.mi_x_,
            rtol=1e-10,
        )
    assert_allclose(fitted.transform(dataset), expected.transform(X), rtol=1e-10)
    with pytest.raises(ValueError, match="shuffling DataLoader"):
        fitted.transform(shuffled)
    with pytest.raises(ValueError, match="together with a DataLoader"):
        GatingMI(net).fit(shuffled, y)
    with pytest.raises(ValueError, match="requires y"):
        GatingMI(net).fit(TensorDataset(torch.tensor(X)))
    with pytest.raises(ValueError, match="list of tuples"):
        GatingMI(net).fit(list(zip(X, y, strict=True)))


@pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")
def test_a_regression_dataset_has_a_total_correlation(net, data):
    X, _ = data
    dataset = TensorDataset(torch.tensor(X), torch.tensor(X[:, 0]))
    with pytest.warns(UserWarning, match="continuous; nothing is measured given them"):
        fitted = TotalCorrelation(net, density=Kernel(alpha=0.2)).fit(DataLoader(dataset))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an entropy has no use for them
        GatingEntropy(net, density="product").fit(DataLoader(dataset))
    expected = TotalCorrelation(net, density=Kernel(alpha=0.2)).fit(X)
    assert_allclose(fitted.total_correlation_, expected.total_correlation_, rtol=1e-12)
    with pytest.raises(ValueError, match="qcut"):
        GatingMI(net).fit(dataset)


@pytest.mark.parametrize("takes_labels", [True, False])
def test_labels_in_a_mapping_are_found(net, data, takes_labels):
    X, y = data

    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, values):
            return {"logits": self.net(values)}

    class KeywordWithLoss(Keyword):
        def forward(self, values, labels=None):
            assert labels is not None
            return super().forward(values)

    rows = [{"values": x, "labels": int(label)} for x, label in zip(X, y, strict=True)]
    dataset = Rows(rows)
    model = KeywordWithLoss() if takes_labels else Keyword()
    expected = GatingMI(net, density=Kernel(alpha=0.2), random_state=0).fit(X, y)
    for given in (dataset, DataLoader(dataset, batch_size=16, shuffle=True)):
        fitted = GatingMI(model, density=Kernel(alpha=0.2), random_state=0).fit(given)
        assert_allclose(fitted.mi_xy_, expected.mi_xy_, rtol=1e-10)


@pytest.mark.parametrize("kind", ["array", "dataset", "loader"])
def test_max_samples_draws_rows_with_their_labels(data, kind):
    X, _ = data
    y = (X[:, 0] > 0).astype(int)
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    nn.init.eye_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    dataset = Labelled(X, y)
    given = {"array": (X, y), "dataset": (dataset,), "loader": (DataLoader(dataset),)}[kind]
    fitted = GatingMI(net, max_samples=40, random_state=1).fit(*given)
    assert len(fitted.states_) == 40
    # the label is the first gate
    own = GatingMI(random_state=1).fit(fitted.states_, np.asarray(fitted.states_)[:, 0])
    assert_allclose(fitted.mi_xy_, own.mi_xy_, rtol=1e-12)
    assert fitted.mi_xy_ > 0.5


@pytest.mark.parametrize("kind", ["array", "tensor", "read-only"])
def test_modules_that_work_in_place_leave_the_input_alone(data, kind):
    X, _ = data
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2))
    given = torch.tensor(X) if kind == "tensor" else X.copy()
    if kind == "read-only":
        given.flags.writeable = False
    states = GateExtractor(net).fit_transform(given)
    np.testing.assert_array_equal(np.asarray(given), X)
    np.testing.assert_array_equal(np.asarray(states), X > 0)


def test_skorch_nets_and_slice_datasets(net, data):
    skorch = pytest.importorskip("skorch")
    from skorch.helper import SliceDataset

    X, y = data
    classifier = skorch.NeuralNetClassifier(
        net, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    ).fit(X, y.astype(np.int64))
    expected = GatingEntropy(classifier.module_, density=Kernel(alpha=0.2)).fit(X)
    for model in (classifier, FrozenEstimator(classifier)):
        fitted = GatingEntropy(model, density=Kernel(alpha=0.2)).fit(X)
        assert_allclose(fitted.entropy_, expected.entropy_, rtol=1e-13)
    dataset = Labelled(X, y)
    scores = cross_val_score(
        GatingMI(FrozenEstimator(classifier), density=Kernel(alpha=0.2)),
        SliceDataset(dataset, idx=0),
        SliceDataset(dataset, idx=1),
        cv=3,
    )
    assert_allclose(
        scores,
        cross_val_score(GatingMI(classifier.module_, density=Kernel(alpha=0.2)), X, y, cv=3),
        rtol=1e-10,
    )
    with pytest.raises(Exception, match="FrozenEstimator"):
        GatingEntropy(clone(classifier)).fit(X)


# Measures of layers --------------------------------------------------------------------------

LAYER_MEASURES = [GibbsLayerMI, BinnedLayerMI, KDELayerMI]


@pytest.fixture
def activations(rng):
    y = rng.integers(0, 3, 240)
    return 2 * np.eye(4)[y] + rng.normal(size=(240, 4)), y


@pytest.mark.parametrize("measure", LAYER_MEASURES)
def test_a_scaler_in_front_of_a_measure(activations, measure):
    X, y = activations
    pipeline = make_pipeline(StandardScaler(), measure()).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    direct = measure().fit(scaled, y)
    assert_allclose(pipeline[-1].layer_mi_y_, direct.layer_mi_y_, rtol=1e-12)
    assert_allclose(pipeline.transform(X), direct.transform(scaled), rtol=1e-12)
    assert_allclose(pipeline.score(X, y), direct.score(scaled, y), rtol=1e-12)
    assert list(pipeline.get_feature_names_out()) == list(direct.get_feature_names_out())


@pytest.mark.parametrize("measure", LAYER_MEASURES)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_cross_validation_of_layer_measures(net, data, activations, measure, n_jobs):
    X, y = activations
    cv = StratifiedKFold(3)
    result = cross_validate(measure(), X, y, cv=cv, n_jobs=n_jobs, return_train_score=True)
    expected = []
    for train, test in cv.split(X, y):
        expected.append(measure().fit(X[train], y[train]).score(X[test], y[test]))
    assert_allclose(result["test_score"], expected, rtol=1e-12)
    assert (result["train_score"] > 0).all()
    raw, labels = data
    scores = cross_val_score(measure(net), raw, labels, cv=3, n_jobs=n_jobs)
    with torch.no_grad():
        logits = net(torch.tensor(raw)).numpy()
    assert_allclose(scores, cross_val_score(measure(), logits, labels, cv=3), rtol=1e-5)


@pytest.mark.parametrize(
    ("measure", "grid"),
    [
        (KDELayerMI, {"noise_variance": [1e-3, 0.1, 1.0, 1e4]}),
        (BinnedLayerMI, {"bin_size": [1e-3, 1.0, 2.0, 1e4]}),
    ],
)
def test_grid_search_finds_the_resolution_that_predicts(activations, measure, grid, rng):
    X, y = activations
    (values,) = grid.values()
    search = GridSearchCV(measure(), grid, cv=3, n_jobs=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert 0 < search.best_index_ < 3
    assert 0.1 < search.best_score_ < np.log2(3)
    # the plug-in on the same samples is largest where it says nothing
    fine, coarse = (measure(**{next(iter(grid)): v}).fit(X, y).layer_mi_y_[0] for v in values[:2])
    assert fine >= coarse
    shuffled = GridSearchCV(measure(), grid, cv=3).fit(X, rng.permutation(y))
    assert shuffled.best_score_ < 0.02


def test_gibbs_probabilities_as_features(net, data, activations):
    X, y = activations
    pipeline = make_pipeline(GibbsLayerMI(), LogisticRegression())
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.6
    raw, labels = data
    pipeline = make_pipeline(GibbsLayerMI(net), LogisticRegression()).fit(raw, labels)
    assert pipeline[-1].n_features_in_ == 12 + 7 + 3
    assert pipeline.predict(raw).shape == labels.shape
    search = GridSearchCV(
        make_pipeline(GibbsLayerMI(net), LogisticRegression()),
        {"gibbslayermi__class_weight": ["prior", "uniform"]},
        cv=3,
    ).fit(raw, labels)
    # the probabilities are those of the samples, whatever the classes weigh
    assert len(set(search.cv_results_["mean_test_score"])) == 1


def test_slice_datasets_and_layer_measures(net, data):
    pytest.importorskip("skorch")
    from skorch.helper import SliceDataset

    X, y = data
    dataset = Labelled(X, y)
    for measure in LAYER_MEASURES:
        scores = cross_val_score(
            measure(net), SliceDataset(dataset, idx=0), SliceDataset(dataset, idx=1), cv=3
        )
        assert_allclose(scores, cross_val_score(measure(net), X, y, cv=3), rtol=1e-6)


def test_layer_measures_are_shown(net):
    for measure in LAYER_MEASURES:
        assert measure.__name__ in estimator_html_repr(measure(net))
        assert measure.__name__ in repr(measure(net))


def test_measuring_activations_does_not_load_torch():
    code = (
        "import sys, skgate, skgate.datasets; X, y, _ = skgate.datasets.make_oriented_images(8, 4);"
        "skgate.GibbsLayerMI().fit(X, y).score(X, y); skgate.BinnedLayerMI().fit(X, y);"
        "skgate.KDELayerMI().fit(X, y); skgate.sample_correlation(X, y);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
