"""The monitor records the measures of a network, and training is unaffected."""

import copy
import io
import json
import math
import os
import pickle
import random
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from classifiers import Net, X, Y, assert_same, classifier
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from skgate import (
    BinnedLayerMI,
    ComplexityMonitor,
    GateCaptureWarning,
    GateExtractor,
    GatingEntropy,
    GatingMI,
    GatingStates,
    GibbsLayerMI,
    KDELayerMI,
    SaturationWarning,
    TotalCorrelation,
)
from skgate.densities import Kernel
from skgate.gates import GatingEstimator
from skgate.monitoring import records_of
from skgate.monitoring._records import to_lines

ALL = [
    GatingEntropy(density=Kernel(alpha=1.0)),
    GatingMI(density=Kernel(alpha=1.0)),
    TotalCorrelation(density=Kernel(alpha=1.0)),
    GibbsLayerMI(),
    BinnedLayerMI(bin_size=0.5),
    KDELayerMI(noise_variance=20.0),
]
SMALL = GatingEntropy(density=Kernel(alpha=1.0))

pytestmark = pytest.mark.filterwarnings("ignore::skgate.SaturationWarning")


class Mixed(nn.Module):
    """Batch normalisation, dropout, gates; X need not be scaled."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)
        self.drop, self.out = nn.Dropout(0.4), nn.Linear(6, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.a(x)))
        return self.out(self.drop(torch.relu(self.b(x))))


def mixed():
    torch.manual_seed(0)
    return Mixed()


def skorch_net(module=None, **params):
    module = mixed() if module is None else module
    options = {"max_epochs": 4, "batch_size": 32, "lr": 0.05, "iterator_train__shuffle": True}
    options = {**options, "train_split": None, "verbose": 0}
    return NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **{**options, **params})


def loop(net, epochs, each=lambda net, epoch: None, start=0):
    """Train in a plain loop, that draws from all generators."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.tensor(X), torch.tensor(Y)
    for epoch in range(start, start + epochs):
        each(net, epoch)
        net.train()
        for rows in torch.randperm(len(x)).split(32):
            noise = random.random() + np.random.random()  # noqa: NPY002
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows] + 0.01 * noise), y[rows]).backward()
            optimizer.step()
    each(net, start + epochs)
    return net


def seed():
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002


def steps(monitor):
    return sorted({record["step"] for record in monitor.history_})


class Draws(Dataset):
    """Draws from each generator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        noise = torch.rand(1).item() + random.random() + np.random.random()  # noqa: NPY002
        return X[i] + np.float32(1e-3 * noise), Y[i]


# Training is unaffected -----------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [(X, Y), (Draws(), None)], ids=["arrays", "dataset that draws"])
@pytest.mark.parametrize("how", ["loop", "skorch", "classifier", "classifier, no penalty"])
def test_training_is_the_same_bit_for_bit(how, inputs):
    runs = []
    for monitor in (None, ComplexityMonitor(ALL, *inputs, every=1)):
        seed()
        callbacks = [] if monitor is None else [monitor]
        if how == "loop":
            fitted = loop(mixed(), 3, monitor.record if monitor else lambda *_: None)
        elif how == "skorch":
            fitted = skorch_net(callbacks=callbacks, max_epochs=3).fit(X, Y)
        else:
            lam = 0 if "no" in how else 1e-2
            fitted = classifier(Net, lam=lam, callbacks=callbacks, max_epochs=3).fit(X, Y)
        state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        runs.append((fitted, torch.get_rng_state(), *state))
    (plain, *generators), (watched, *others) = runs
    assert_same(plain, watched)
    assert torch.equal(generators[0], others[0])
    assert generators[1:] == others[1:]
    assert steps(monitor) == [0, 1, 2, 3]
    if how.startswith("classifier"):
        kept = [[{**row, "dur": 0} for row in run[0].history_] for run in runs]
        assert kept[0] == kept[1]


class Fails(GatingEntropy):
    """Raises an error in its n-th fit, after the network has run."""

    count = 0

    def __init__(self, model=None, *, error=None, at=2):
        super().__init__(model)
        self.error, self.at = error, at

    def get_params(self, deep=True):
        return {"model": self.model, "error": self.error, "at": self.at}

    def fit(self, X, y=None):
        super().fit(X)
        Fails.count += 1
        if Fails.count == self.at:
            raise self.error
        return self


def all_of(net):
    return {
        "flags": [m.training for m in net.modules()],
        "hooks": [list(m._forward_hooks) + list(m._forward_pre_hooks) for m in net.modules()],
        "values": joblib.hash([t.detach().numpy() for t in net.state_dict().values()]),
        "grads": joblib.hash(
            [None if p.grad is None else p.grad.numpy() for p in net.parameters()]
        ),
        "needs": [p.requires_grad for p in net.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "mode": torch.is_grad_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "filters": list(warnings.filters),
    }


@pytest.mark.parametrize("error", [None, RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_the_module_comes_back_as_it_was(error):
    net = loop(mixed(), 1)
    for i, module in enumerate(net.modules()):
        module.training = i % 2 == 0
    net.a.weight.requires_grad_(False)
    Fails.count = 0
    measures = {"H": SMALL, "fails": Fails(error=error, at=1)} if error else ALL
    monitor = ComplexityMonitor(measures, Draws())
    before = all_of(net)
    if error is None:
        monitor.record(net, 0)
    else:
        with pytest.raises(type(error)):
            monitor.record(net, 0)
        assert monitor.history_ == []
    after = all_of(net)
    assert [part for part in before if before[part] != after[part]] == []


@pytest.mark.parametrize("how", ["skorch", "classifier"])
def test_a_measure_that_fails_ends_the_training(how, tmp_path):
    Fails.count = 0
    path = tmp_path / "curve"
    monitor = ComplexityMonitor(Fails(error=RuntimeError("no")), X, every=1, path=path)
    net = skorch_net(callbacks=[monitor]) if how == "skorch" else classifier(callbacks=[monitor])
    with pytest.raises(RuntimeError, match="no"):
        net.fit(X, Y)
    assert steps(monitor) == [0]
    assert monitor.read(path) == monitor.history_


def test_an_interruption_within_a_measure_is_the_users():
    Fails.count = 0
    monitor = ComplexityMonitor(Fails(error=KeyboardInterrupt(), at=3), X, every=1)
    clf = classifier(callbacks=[monitor], max_epochs=4, warm_start=True)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert (len(clf.history_), steps(monitor)) == (2, [0, 1])
    clf.set_params(max_epochs=2).fit(X, Y)
    assert steps(monitor) == [0, 1, 3, 4]


# What is recorded ------------------------------------------------------------------------------


def test_records_are_the_attributes_of_the_fitted_measures():
    net = loop(mixed(), 1)
    monitor = ComplexityMonitor(ALL, X, Y)
    records = monitor.record(net, 5)
    assert monitor.history_ == records
    table = pd.DataFrame(records).set_index(["measure", "layer"])
    assert set(table["step"]) == {5}
    for measure in ALL:
        fitted = clone(measure).set_params(model=net)
        if hasattr(fitted, "random_state"):
            fitted.set_params(random_state=0)
        fitted.fit(X, Y)
        rows = table.loc[type(measure).__name__]
        layers = [layer for layer in rows.index if layer is not None and layer == layer]
        assert layers == fitted.layer_names_
        for key in LAYER_KEYS[type(measure)]:
            values = rows.loc[layers, key].to_numpy()
            np.testing.assert_array_equal(values, getattr(fitted, attribute(key, "layer_")), key)
        network = [r for r in records if r["measure"] == type(measure).__name__ and not r["layer"]]
        keys = NETWORK_KEYS.get(type(measure), ())
        assert len(network) == bool(keys)
        for key in keys:
            assert network[0][key] == getattr(fitted, attribute(key, ""))


GATES = {
    GatingEntropy: {
        "entropy",
        "entropy_se",
        "prefix_entropy",
        "suffix_entropy",
        "suffix_saturated",
    },
    GatingMI: {
        *("mi_x", "mi_x_se", "mi_xy", "conditional_entropy"),
        *("shuffled_mi_xy", "suffix_mi_xy", "shuffled_suffix_mi_xy"),
    },
    TotalCorrelation: {
        *("total_correlation", "independent_entropy", "entropy", "conditional_entropy"),
        *("conditional_total_correlation", "conditional_independent_entropy"),
    },
}
LAYERS = {
    GibbsLayerMI: {"mi_x", "mi_y", "mi_xbar"},
    BinnedLayerMI: {"mi_x", "mi_y", "shuffled_mi_y", "ceiling", "saturated"},
    KDELayerMI: {"mi_x", "mi_y", "shuffled_mi_y", "ceiling", "saturated"},
}
#: Keys of the records of each layer.
LAYER_KEYS = {m: keys | {"ceiling", "saturated"} for m, keys in GATES.items()} | LAYERS
#: Keys of the record of the whole network, where a measure has one.
NETWORK_KEYS = {
    GatingEntropy: {"entropy", "entropy_se", "entropy_corrected", "saturated"},
    GatingMI: {"mi_x", "mi_xy", "shuffled_mi_xy", "conditional_entropy", "saturated"},
    TotalCorrelation: {"entropy", "total_correlation", "independent_entropy", "saturated"},
    GibbsLayerMI: {"mi_x", "mi_y"},
}


def attribute(key, prefix):
    """Return the fitted attribute of a key, by the rule that names of quantities follow."""
    shuffled = "shuffled_" * key.startswith("shuffled_")
    name = key.removeprefix("shuffled_")
    return f"{shuffled}{'' if name.startswith(('prefix_', 'suffix_')) else prefix}{name}_"


def test_every_quantity_of_a_measure_is_recorded():
    states = GatingStates.from_arrays({"a": X > 0.5, "b": X[:, :9] > 0.2})
    for measure in ALL:
        fitted = measure.fit(states if isinstance(measure, GatingEstimator) else {"a": X}, Y)
        records = records_of(fitted)
        names = {name for name in vars(fitted) if name.endswith("_")} - NO_QUANTITIES
        names = {name for name in names if not name.endswith("interval_")}  # two numbers each
        arrays = {n for n in names if isinstance(getattr(fitted, n), np.ndarray)}
        assert {len(getattr(fitted, n)) for n in arrays} == {len(fitted.layer_names_)}
        base = {"step", "measure", "layer", "base", "density"}
        assert len(arrays) == len(records[0].keys() - base)
        found = records[-1].keys() - base if records[-1]["layer"] is None else ()
        assert {f"{key}_" for key in found} == names - arrays


#: Fitted attributes that are no quantities.
NO_QUANTITIES = {
    *(
        "n_features_in_",
        "layer_names_",
        "states_",
        "extractor_",
        "classes_",
        "density_",
        "layer_densities_",
        "n_units_",
    ),
}


def test_records_hold_plain_numbers_and_nothing_else():
    monitor = ComplexityMonitor(ALL, X, np.arange(len(X)) % 2 == 0)  # classes_ are as many as gates
    for record in monitor.record(loop(mixed(), 1), 0):
        assert list(record)[:4] == ["step", "measure", "layer", "base"]
        of_gates = record["measure"] in {"GatingEntropy", "GatingMI", "TotalCorrelation"}
        assert ("density" in record) == (of_gates and record["layer"] is not None)
        numbers = {k: v for k, v in record.items() if k != "density"}
        assert {type(v) for v in list(numbers.values())[3:]} <= {float, bool}
        assert not {"classes", "classe", "n_features_in"} & set(record)
        json.dumps(record)


def test_classes_are_no_layers():
    net = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
    records = ComplexityMonitor(GatingMI(), X, Y % 2 > 0).record(net, 0)
    assert [r["layer"] for r in records] == ["1", "3", None]
    assert not any("class" in key for r in records for key in r)


@pytest.mark.parametrize(
    ("every", "epochs", "wanted"),
    [(1, 3, [0, 1, 2, 3]), (2, 5, [0, 2, 4, 5]), (2, 4, [0, 2, 4]), (9, 2, [0, 2])],
)
def test_steps_are_the_first_every_and_the_last(every, epochs, wanted):
    monitor = ComplexityMonitor(SMALL, X, every=every)
    skorch_net(callbacks=[monitor], max_epochs=epochs).fit(X, Y)
    assert steps(monitor) == wanted


def test_the_first_record_is_of_the_network_before_training():
    first = ComplexityMonitor(SMALL, X).record(mixed(), 0)
    monitor = ComplexityMonitor(SMALL, X)
    net = skorch_net(mixed(), callbacks=[monitor]).fit(X, Y)
    assert monitor.history_[: len(first)] == first
    last = ComplexityMonitor(SMALL, X).record(net, 4)
    assert monitor.history_[-len(last) :] == last


def test_the_last_epoch_is_recorded_when_a_callback_ends_the_training():
    monitor = ComplexityMonitor(SMALL, X, every=100)
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=100, threshold_mode="abs")
    skorch_net(callbacks=[monitor, stop], max_epochs=50).fit(X, Y)
    assert 1 < steps(monitor)[-1] < 50


def test_default_measures_the_entropies_of_250_samples():
    monitor = ComplexityMonitor(X=np.vstack([X] * 4))
    monitor.record(mixed(), 0)
    fitted = TotalCorrelation(mixed(), max_samples=250, random_state=0).fit(np.vstack([X] * 4))
    assert monitor.history_[-1]["entropy"] == fitted.entropy_
    assert len(fitted.states_) == 250


def test_each_step_draws_the_same_samples():
    net = mixed()
    for random_state in (None, np.random.RandomState(3)):
        measure = GatingEntropy(
            density=Kernel(alpha=1.0), max_samples=30, random_state=random_state
        )
        monitor = ComplexityMonitor(measure, X)
        one, two = (monitor.record(net, step) for step in (0, 1))
        assert [{**r, "step": 1} for r in one] == two
        assert measure.random_state is random_state


def test_measures_are_named_by_class_or_by_the_user():
    measures = {
        "narrow": GatingEntropy(density=Kernel(alpha=0.5)),
        "wide": GatingEntropy(density=Kernel(alpha=2.0)),
    }
    records = ComplexityMonitor(measures, X).record(mixed(), 0)
    assert list(dict.fromkeys(r["measure"] for r in records)) == ["narrow", "wide"]
    assert not hasattr(measures["wide"], "entropy_")
    assert ComplexityMonitor(SMALL, X).record(mixed(), 0)[0]["measure"] == "GatingEntropy"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "X is None"),
        ({"X": X, "every": 0}, "every=0; need a number of epochs, 1 or more"),
        ({"X": X, "every": 1.5}, "every=1.5"),
        ({"X": X, "measures": []}, "is empty"),
        ({"X": X, "measures": [SMALL, SMALL]}, "Several measures have the name 'GatingEntropy'"),
        ({"X": X, "measures": GatingEntropy}, "need an estimator such as GatingEntropy"),
        ({"X": X, "measures": "entropy"}, "need an estimator"),
        ({"X": X, "measures": GatingEntropy(mixed())}, "Leave model=None"),
        ({"X": X, "measures": [SMALL, GatingMI()]}, "'GatingMI' needs class labels, and y is None"),
    ],
)
def test_parameters_that_do_not_fit_together_are_an_error_at_once(params, message):
    with pytest.raises(ValueError, match=message):
        ComplexityMonitor(**params)


def test_labels_of_a_dataset_are_used():
    data = TensorDataset(torch.tensor(X), torch.tensor(Y))
    net = mixed()
    one, two = (ComplexityMonitor(GatingMI(), *d).record(net, 0) for d in [(data,), (X, Y)])
    assert one == two


def test_steps_go_up():
    monitor = ComplexityMonitor(SMALL, X)
    monitor.record(mixed(), 3)
    for step in (3, 1):
        with pytest.raises(ValueError, match=f"step={step} came after step 3; steps must increase"):
            monitor.record(mixed(), step)
    for step in (4.0, True, None):
        with pytest.raises(ValueError, match="need an integer"):
            monitor.record(mixed(), step)


# Warnings --------------------------------------------------------------------------------------


def test_saturation_warns_once_for_a_measure_and_its_layers():
    measures = {
        "one": GatingEntropy(density=Kernel(alpha=50.0)),
        "two": GatingEntropy(density=Kernel(alpha=90.0)),
    }
    monitor = ComplexityMonitor(measures, X)
    net = mixed()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SaturationWarning)
        for step in range(3):
            monitor.record(loop(net, 1), step)
    assert [str(w.message).split(" at ")[0] for w in caught] == ["one", "two"]
    assert "This warning is given once" in str(caught[0].message)
    assert "the kernel counts states as one" in str(caught[0].message)
    assert all(os.path.basename(w.filename) == "test_monitor.py" for w in caught)
    assert all(r["saturated"] for r in monitor.history_)
    with torch.no_grad():  # another set of layers
        net.b.bias.fill_(-1e3)
    with pytest.warns(SaturationWarning) as caught:
        monitor.record(net, 3)
    assert len(caught) == 2


def test_other_warnings_are_given_once_too():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 8)

        def forward(self, x):
            return torch.relu(self.fc(x)).amax(1)

    monitor = ComplexityMonitor(SMALL, X)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            monitor.record(Hidden(), step)
    kinds = [w.category for w in caught]
    assert kinds.count(GateCaptureWarning) == 1


def test_a_warning_that_is_an_error_loses_no_record():
    monitor = ComplexityMonitor(GatingEntropy(density=Kernel(alpha=50.0)), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaturationWarning)
        with pytest.raises(SaturationWarning):
            monitor.record(mixed(), 0)
    assert steps(monitor) == [0]


# With scikit-learn, skorch and files -----------------------------------------------------------


def test_history_is_in_the_users_own_callback_unless_cloned():
    monitor = ComplexityMonitor(SMALL, X)
    net = skorch_net(callbacks=[("curve", monitor)], max_epochs=1)
    copied = clone(net).fit(X, Y)
    assert monitor.history_ == []
    cloned = dict(copied.callbacks_)["curve"]
    assert steps(cloned) == [0, 1]
    np.testing.assert_array_equal(cloned.X, X)
    net.fit(X, Y)
    assert dict(net.callbacks_)["curve"] is monitor
    assert steps(monitor) == [0, 1]
    assert {"callbacks__curve__every", "callbacks__curve__measures"} < set(net.get_params())
    net.set_params(callbacks__curve__every=1, max_epochs=2).fit(X, Y)
    assert steps(monitor) == [0, 1, 2]


def test_in_a_search():
    clf = classifier(callbacks=[ComplexityMonitor(SMALL, X)], lam=0, max_epochs=1)
    search = GridSearchCV(clf, {"lr": [1e-3, 1e-2]}, cv=2).fit(X, Y)
    assert steps(search.best_estimator_.callbacks[0]) == [0, 1]
    assert clf.callbacks[0].history_ == []


def test_copies_and_pickles():
    monitor = ComplexityMonitor(SMALL, X)
    monitor.record(mixed(), 0)
    for other in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert other.history_ == monitor.history_
        other.record(mixed(), 1)
    assert steps(monitor) == [0]


def test_a_new_fit_begins_a_new_history():
    monitor = ComplexityMonitor(SMALL, X, every=1)
    net = skorch_net(callbacks=[monitor], max_epochs=2).fit(X, Y)
    first = monitor.history_
    net.fit(X, Y)
    assert steps(monitor) == [0, 1, 2]
    assert monitor.history_ is not first


def test_warm_start_resumes_the_history(tmp_path):
    path = tmp_path / "curve"
    monitor = ComplexityMonitor(SMALL, X, every=1, path=path)
    net = skorch_net(callbacks=[monitor], max_epochs=2).fit(X, Y)
    past = list(monitor.history_)
    net.partial_fit(X, Y)
    assert steps(monitor) == [0, 1, 2, 3, 4]
    assert monitor.history_[: len(past)] == past
    assert monitor.read(path) == monitor.history_


@pytest.mark.parametrize("has_path", [False, True])
def test_resumed_training_has_the_history_of_one_that_was_not_interrupted(has_path, tmp_path):
    def run(name, epochs, **params):
        path = tmp_path / f"{name}.jsonl" if has_path else None
        monitor = ComplexityMonitor([SMALL, GibbsLayerMI()], X, Y, every=1, path=path)
        options = {"callbacks": [monitor], "max_epochs": epochs, **params}
        return monitor, classifier(Net, checkpoint=tmp_path / f"{name}.pt", **options).fit(X, Y)

    full, a = run("full", 4)
    stopped, _ = run("stopped", 2)
    if has_path:  # it was killed in its next epoch
        with open(tmp_path / "stopped.jsonl", "a") as file:
            file.write(json.dumps({**full.history_[-1], "step": 3}) + '\n{"step": 3, "mea')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        resumed, b = run("stopped", 4, warm_start=True)
    assert resumed.history_ == full.history_
    assert_same(a, b)
    assert steps(stopped) == [0, 1, 2]
    if has_path:
        assert (tmp_path / "stopped.jsonl").read_text() == (tmp_path / "full.jsonl").read_text()
        assert resumed.read(tmp_path / "stopped.jsonl") == full.history_


def test_a_monitor_of_another_training_can_follow_a_resumed_one(tmp_path):
    def run(monitor, epochs, **params):
        options = {"callbacks": [monitor], "max_epochs": epochs, **params}
        classifier(checkpoint=tmp_path / "state.pt", **options).fit(X, Y)
        return monitor

    past = run(ComplexityMonitor(SMALL, X, every=1), 2).history_
    used = ComplexityMonitor(SMALL, X, every=1)
    classifier(lr=0.1, max_epochs=3, callbacks=[used]).fit(X, Y)
    run(used, 3, warm_start=True)
    assert steps(used) == [0, 1, 2, 3]
    assert used.history_[: len(past)] == past


def test_the_file_of_another_training_is_an_error_before_training(tmp_path):
    path = tmp_path / "curve"
    skorch_net(callbacks=[ComplexityMonitor(SMALL, X, path=path)], max_epochs=1).fit(X, Y)
    before, net = path.read_bytes(), mixed()
    weights = copy.deepcopy(net.state_dict())
    for trained in (
        skorch_net(net, callbacks=[ComplexityMonitor(SMALL, X, path=path)]),
        classifier(callbacks=[ComplexityMonitor(SMALL, X, path=path)]),
    ):
        with pytest.raises(FileExistsError, match="of another training, of 2 steps"):
            trained.fit(X, Y)
        assert len(trained.history if hasattr(trained, "history") else trained.history_) == 0
    with pytest.raises(FileExistsError, match="begins with step 0"):
        ComplexityMonitor(SMALL, X, path=path).record(net, 0)
    assert path.read_bytes() == before
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())


def test_a_file_of_another_training_is_no_past_of_this_one(tmp_path):
    path = tmp_path / "curve"
    other = ComplexityMonitor(GatingEntropy(density=Kernel(alpha=2.0)), X, path=path)
    other.record(mixed(), 0)
    monitor = ComplexityMonitor(SMALL, X)
    net = skorch_net(callbacks=[monitor], max_epochs=1).fit(X, Y)
    monitor.path = path
    with pytest.raises(ValueError, match="holds the records of another training"):
        net.partial_fit(X, Y)
    assert other.read(path) == other.history_


def test_a_folder_that_is_not_there_is_an_error_before_training(tmp_path):
    monitor = ComplexityMonitor(SMALL, X, path=tmp_path / "none" / "curve")
    with pytest.raises(FileNotFoundError):
        skorch_net(callbacks=[monitor]).fit(X, Y)
    assert monitor.history_ == []


def test_a_plain_loop_resumes_from_its_file(tmp_path):
    path = tmp_path / "curve"
    first = ComplexityMonitor(SMALL, X, path=path)
    loop(mixed(), 3, first.record)
    second = ComplexityMonitor(SMALL, X, path=str(path))
    loop(mixed(), 2, second.record, start=2)  # from a checkpoint at 2: step 3 is done again
    assert steps(second) == [0, 1, 2, 3, 4]
    early = [r for r in first.history_ if r["step"] < 2]
    assert second.history_[: len(early)] == early
    assert ComplexityMonitor.read(path) == second.history_
    with pytest.raises(FileExistsError):  # a loop that counts from where the file begins
        ComplexityMonitor(SMALL, X, path=path).record(mixed(), 0)


def test_each_step_is_in_the_file_when_it_is_done(tmp_path):
    path = tmp_path / "curve"
    monitor = ComplexityMonitor(ALL, X, Y, path=path)
    for step in (0, 5):
        monitor.record(mixed(), step)
        read = ComplexityMonitor.read(path)
        assert to_lines(read) == to_lines(monitor.history_)  # in which NaN equals NaN
        table = pd.read_json(path, lines=True)
        assert list(table["step"]) == [r["step"] for r in monitor.history_]


KILLED = """
import os, sys
import torch
from torch import nn
from skgate import ComplexityMonitor, GatingEntropy
from skgate.densities import Kernel
torch.manual_seed(0)
measure = GatingEntropy(density=Kernel(alpha=1.0))
monitor = ComplexityMonitor(measure, torch.randn(50, 4), path=sys.argv[1])
for step in range(10):
    monitor.record(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), step)
    if step == 3:
        os.kill(os.getpid(), 9)
"""


def test_a_killed_run_keeps_its_curve(tmp_path):
    path = tmp_path / "curve"
    code = subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode
    assert code == -9
    assert sorted({r["step"] for r in ComplexityMonitor.read(path)}) == [0, 1, 2, 3]


def test_a_torn_line_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "curve"
    monitor = ComplexityMonitor(SMALL, X, path=path)
    monitor.record(mixed(), 0)
    monitor.record(mixed(), 1)
    text = path.read_text()
    for cut in (1, 5, 60):
        path.write_text(text[:-cut])
        with pytest.warns(UserWarning, match=r"last line of .* is cut short and was left out"):
            assert ComplexityMonitor.read(path) == monitor.history_[:-1]
    path.write_text("")
    assert ComplexityMonitor.read(path) == []
    with pytest.raises(FileExistsError, match="of another training, of 0 steps"):
        ComplexityMonitor(SMALL, X, path=path).record(mixed(), 0)


@pytest.mark.parametrize(
    "text", ["no json\n", "[1, 2]\n", "3\n", '{"step": 1}\n', '{"step": 0, "layer"\n{}\n', "\xff\n"]
)
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "notes"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"Line 1 of .* is no record of a ComplexityMonitor"):
        ComplexityMonitor.read(path)
    with pytest.raises(ValueError, match="no record"):
        ComplexityMonitor(SMALL, X, path=path).record(mixed(), 1)
    assert path.read_text(encoding="latin-1") == text


def test_numbers_that_json_does_not_have(tmp_path):
    path = tmp_path / "curve"
    monitor = ComplexityMonitor(SMALL, X[:1], path=path)
    monitor.record(mixed(), 0)
    assert math.isnan(monitor.history_[0]["entropy_se"])
    monitor = ComplexityMonitor(SMALL, X)
    monitor.history_ = [
        {"step": 1, "measure": 'a"b', "layer": None, "x": math.inf, "y": -math.inf, "z": math.nan}
    ]
    lines = monitor.state_dict()["history"]

    def strict(token):
        raise AssertionError(token)

    json.loads(lines, parse_constant=strict)
    path.write_text(lines)
    (read,) = ComplexityMonitor.read(path)
    assert (read["x"], read["y"], read["layer"]) == (math.inf, -math.inf, None)
    assert math.isnan(read["z"])
    json.loads(path.read_text(), parse_constant=strict)


def test_state_goes_into_a_checkpoint_that_executes_nothing():
    monitor = ComplexityMonitor(SMALL, X)
    monitor.record(mixed(), 0)
    buffer = io.BytesIO()
    torch.save(monitor.state_dict(), buffer)
    buffer.seek(0)
    other = ComplexityMonitor(SMALL, X)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other.history_ == monitor.history_


def test_import_loads_no_torch():
    code = "import sys, skgate; assert 'torch' not in sys.modules; skgate.ComplexityMonitor"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_extractor_gives_the_layers_and_the_sampling_of_any_network():
    torch.manual_seed(0)
    nets = [
        nn.Sequential(
            *(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4), nn.ReLU()),
            *(nn.Linear(4, 3), nn.ReLU()),
        )
        for _ in range(2)
    ]
    samples = torch.randn(100, 6)
    kept = {"layers": ["1", "4", "6"], "exclude": "6"}
    extractor = GateExtractor(nets[0], **kept)
    monitor = ComplexityMonitor(GatingEntropy(extractor, density=Kernel(alpha=0.5)), samples)
    monitor.record(nets[1], 0)
    expected = GatingEntropy(GateExtractor(nets[1], **kept), density=Kernel(alpha=0.5)).fit(samples)
    # sampling is off: no dropout, and the same values without a seed
    assert [r["layer"] for r in monitor.history_] == ["1", "4", None]
    assert [r["entropy"] for r in monitor.history_[:2]] == expected.layer_entropy_.tolist()
    assert extractor.module is nets[0]
