"""The classifier: training, history, and its use with scikit-learn and skorch."""

import contextlib
import copy
import json
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import reference
import torch
import torch.nn.functional as F
from classifiers import IMAGES, Net, X, Y, assert_same, classifier, sequential, weights
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, GradientNormClipping
from skorch.dataset import ValidSplit
from torch import nn

from skgate import ComplexityRegularizedClassifier, GateExtractor, GatingEntropy


def perceptron(a, b, c, d):
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)
    )


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(17, 3), nn.Linear(192, 10)

    def forward(self, x):
        return self.out(F.relu(self.table(x)).flatten(1))


# What is trained -----------------------------------------------------------------------------


@pytest.mark.parametrize("validation_fraction", [None, 0.25])
@pytest.mark.parametrize("kind", ["default", "class", "factory", "instance"])
def test_without_penalty_it_is_skorch(kind, validation_fraction):
    split = None
    if validation_fraction:
        split = ValidSplit(validation_fraction, stratified=True, random_state=3)
    module = {"default": None, "class": Net, "factory": sequential, "instance": sequential()}[kind]
    torch.manual_seed(3)
    reference = {
        "default": lambda: perceptron(64, 8, 6, 10),
        "class": lambda: Net(64, 10),
        "factory": sequential,
        "instance": lambda: copy.deepcopy(module),
    }[kind]()
    net = NeuralNetClassifier(
        reference,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=3,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=split,
        verbose=0,
    ).fit(X, Y)
    params = {"lam": 0, "random_state": 3, "max_epochs": 3}
    ours = classifier(module, validation_fraction=validation_fraction, **params).fit(X, Y)
    assert_same(ours, net)
    np.testing.assert_allclose(
        [row["train_loss"] for row in ours.history_], net.history[:, "train_loss"]
    )


def test_lam_changes_no_random_number():
    runs = []
    for lam in (0, 1e-9, 1.0):
        Net.seen.clear()
        fitted = classifier(partial(Net, p=0.5), lam=lam, validation_fraction=0.2).fit(X, Y)
        runs.append((list(Net.seen), fitted))
    (plain, first), *others = runs
    assert len(plain) == 6
    for seen, fitted in others:
        for (x, mask), (x0, mask0) in zip(seen, plain, strict=True):
            assert torch.equal(x, x0)
            assert torch.equal(mask, mask0)
        assert not torch.equal(weights(first)["fc.weight"], weights(fitted)["fc.weight"])
    assert first.penalized_layers_ == others[0][1].penalized_layers_ == ["relu"]
    assert first.history_[0].keys() < others[0][1].history_[0].keys()


def test_lam_weighs_the_penalty():
    weak, strong = (classifier(lam=lam, max_epochs=6, lr=0.01).fit(X, Y) for lam in (1e-6, 0.3))
    assert strong.history_[-1]["complexity"] < 0.8 * weak.history_[-1]["complexity"]
    assert weak.history_[-1]["train_loss"] < strong.history_[-1]["train_loss"]


def test_penalty_interval_skips_batches():
    runs = [classifier(lam=1.0, penalty_interval=i, max_epochs=1).fit(X, Y) for i in (1, 3, 99)]
    assert not torch.equal(weights(runs[0])["0.weight"], weights(runs[1])["0.weight"])
    assert not torch.equal(weights(runs[1])["0.weight"], weights(runs[2])["0.weight"])


@pytest.mark.parametrize(("lam", "weight"), [(1e-6, 1), (0.03, 1), (0.3, 1), (0.1, 0)])
def test_complexity_is_the_entropy_of_the_gates(lam, weight):
    inputs = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    y = (inputs[:, :2] > 0) @ [1, 2] if weight else np.arange(2000) % 2  # 0: noise
    params = {"hidden_layer_sizes": (8,), "batch_size": "auto", "max_epochs": 15, "lr": 5e-3}
    fitted = classifier(lam=lam, **params).fit(inputs, y)
    with torch.no_grad():
        gates = (fitted.module_[0](torch.tensor(inputs)) > 0).tolist()
    counts = np.unique(gates, axis=0, return_counts=True)[1]
    row = fitted.history_[-1]
    assert abs(row["complexity"] - reference.plogp(counts / 2000)) < 0.2
    assert row["complexity_1_se"] < 0.1


def test_complexity_does_not_exceed_the_number_of_gates():
    # in training, most inputs of the gates are dropped, and batch normalisation is that of a batch
    layers = [nn.Dropout(0.9), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)]
    for penalty in ("ebm", "product"):
        params = {"lam": 1e-9, "lr": 0.3, "max_epochs": 8, "penalty": penalty}
        fitted = classifier(nn.Sequential(*layers), **params).fit(X, Y)
        assert all(0 <= row["complexity"] <= 8 for row in fitted.history_)


def test_layers_of_a_penalty_without_weight():
    def smooth():
        return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))

    fitted = classifier(lam=0).fit(X, Y)
    assert fitted.penalized_layers_ == classifier().fit(X, Y).penalized_layers_ == ["1", "3"]
    assert classifier(lam=0, penalized_layers=0).fit(X, Y).penalized_layers_ == ["1"]
    states = GateExtractor(fitted, layers=fitted.penalized_layers_).fit_transform(X)
    assert list(states.layer_names) == ["1", "3"]
    assert classifier(smooth, lam=0).fit(X, Y).penalized_layers_ == []
    with pytest.raises(ValueError, match="no layer that could be penalised"):
        classifier(smooth).fit(X, Y)
    with pytest.raises(ValueError, match="penalized_layers"):
        classifier(lam=0, penalized_layers="none").fit(X, Y)


# What users expect ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y % 2 == 0,
        lambda y: 7 * y - 3,
        lambda y: y.astype(str),
        lambda y: np.array([f"digit {i}" for i in y], dtype=object),
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(float),
        lambda y: pd.Series(y).astype(str).astype("category"),
        torch.tensor,
        lambda y: y.tolist(),
        lambda y: np.datetime64("2020-01-01") + y,
    ],
)
def test_labels_of_any_type_and_files_of_them(labels, tmp_path):
    y = labels(Y)
    fitted = classifier(lr=0.02, max_epochs=15, lam=0).fit(X, y)
    y = np.asarray(y)
    np.testing.assert_array_equal(fitted.classes_, np.unique(y))
    predicted, probabilities = fitted.predict(X), fitted.predict_proba(X)
    assert predicted.dtype == fitted.classes_.dtype
    assert fitted.score(X, y) == (predicted == y).mean() > 0.6
    np.testing.assert_array_equal(predicted, fitted.classes_[probabilities.argmax(1)])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_allclose(fitted.predict_log_proba(X), np.log(probabilities), atol=1e-12)
    scores = fitted.decision_function(X)
    if scores.ndim == 1:
        np.testing.assert_array_equal(scores > 0, predicted == fitted.classes_[1])
        scores = np.stack([0 * scores, scores], 1)
    np.testing.assert_allclose(log_softmax(scores, 1), np.log(probabilities), atol=1e-12)
    fitted.save_params(tmp_path / "file")
    loaded = classifier(lam=0).load_params(tmp_path / "file")
    assert loaded.classes_.dtype == fitted.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(X), predicted)


@pytest.mark.parametrize(
    ("module", "inputs", "net_params"),
    [
        (convolutional, IMAGES, {}),
        (None, IMAGES, {}),
        (Lookup, (X * 16).astype(int), {}),
        (Lookup, (X * 16).astype(np.int32), {}),
        (lambda: sequential().double(), X, {}),
        (lambda: sequential().bfloat16(), X, {}),
        (sequential, torch.tensor(X, requires_grad=True), {}),
        (sequential, pd.DataFrame(X).add_prefix("pixel"), {}),
        (sequential, (X > 0.5), {}),
        (sequential, X, {"module__width": 5}),
        (lambda n, k: sequential(n, k), X, {}),
        (lambda *, n_classes: sequential(64, n_classes), X, {}),
        (lambda n_features, width: sequential(n_features, 10, width), X, {"module__width": 3}),
        (lambda: nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(10)), X, {}),
        (nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(5, 10)), X, {}),
        (nn.Sequential(nn.Linear(64, 4), nn.ReLU(True), nn.ReLU(True), nn.Linear(4, 10)), X, {}),
    ],
)
def test_modules_and_inputs(module, inputs, net_params, tmp_path):
    fitted = classifier(module, net_params=net_params).fit(inputs, Y)
    assert fitted.penalized_layers_
    assert fitted.predict_proba(inputs).shape == (120, 10)
    fitted.save_params(tmp_path / "file")
    loaded = classifier(module, net_params=net_params).load_params(tmp_path / "file")
    np.testing.assert_array_equal(loaded.predict_proba(inputs), fitted.predict_proba(inputs))
    names = getattr(fitted, "feature_names_in_", None)
    np.testing.assert_array_equal(getattr(loaded, "feature_names_in_", None), names)


def test_an_instance_is_left_alone():
    module, calls = Net(64, 10).eval(), []
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    handle = module.fc.register_forward_hook(lambda *_: calls.append(1))
    before = weights(module)
    fitted = classifier(module, lr=0.1).fit(X, Y)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not module.training
    assert module.fc.weight.grad.eq(1).all()
    assert list(module.fc._forward_hooks) == [handle.id]
    assert not torch.equal(weights(fitted)["fc.weight"], before["fc.weight"])
    assert_same(classifier(module, lr=0.1).fit(X, Y), fitted)


@pytest.mark.parametrize(("n_samples", "batch_size"), [(129, "auto"), (16257, "auto"), (64, 32)])
def test_no_batch_of_one_reaches_batch_normalisation(n_samples, batch_size):
    data = np.random.default_rng(0).normal(size=(n_samples, 2)).astype(np.float32)
    sizes = []

    class Sizes(Callback):
        def on_batch_begin(self, net, batch, **kwargs):
            sizes.append(len(batch[0]))

    params = {"lam": 0, "max_epochs": 1, "batch_size": batch_size, "callbacks": [Sizes()]}
    classifier(Net, **params).fit(data, data[:, 0] > 0)
    assert sum(sizes) == n_samples
    assert min(sizes) > 1


def test_callbacks_of_skorch(tmp_path):
    epochs, norms = [], []

    class Watch(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            norms.append(sum(p.grad.square().sum() for _, p in named_parameters).sqrt().item())

        def on_epoch_end(self, net, **kwargs):
            epochs.append(net.history[-1]["penalty"])

    scoring = EpochScoring("neg_log_loss", name="nll", lower_is_better=False)
    stop = EarlyStopping(patience=2, monitor="train_loss", threshold=10, threshold_mode="abs")
    saved = Checkpoint(monitor="valid_loss_best", dirname=tmp_path)
    callbacks = [GradientNormClipping(0.01), Watch(), ("score", scoring), saved, ("stop", stop)]
    fitted = classifier(callbacks=callbacks, validation_fraction=0.3, max_epochs=20).fit(X, Y)
    assert len(fitted.history_) == len(epochs) == 3
    assert max(norms) < 0.0101
    assert (tmp_path / "params.pt").exists()
    np.testing.assert_allclose(
        [-row["nll"] for row in fitted.history_],
        [row["valid_loss"] for row in fitted.history_],
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("optimizer", "net_params"),
    [
        ("sgd", {"optimizer__momentum": 0.9, "optimizer__param_groups": [("0*", {"lr": 0.0})]}),
        (torch.optim.RMSprop, {"optimizer__weight_decay": 0.1}),
        ("adamw", {"criterion__label_smoothing": 0.1, "iterator_train__drop_last": True}),
    ],
)
def test_optimizers_and_net_params(optimizer, net_params):
    fitted = classifier(optimizer=optimizer, net_params=net_params, lr=0.01).fit(X, Y)
    group = fitted.net_.optimizer_.param_groups[-1]
    assert group["lr"] == 0.01
    assert group["weight_decay"] == net_params.get("optimizer__weight_decay", group["weight_decay"])
    frozen = classifier(lr=1e-30).fit(X, Y)
    same = torch.equal(weights(fitted)["0.weight"], weights(frozen)["0.weight"])
    assert same == ("optimizer__param_groups" in net_params)


def test_lbfgs_reports_its_first_evaluation():
    start = classifier(lam=0, lr=1e-30, max_epochs=1, batch_size=120).fit(X, Y)
    params = {"batch_size": 120, "max_epochs": 3, "net_params": {"iterator_train__shuffle": False}}
    fitted = classifier(lam=1e-4, optimizer=torch.optim.LBFGS, lr=0.5, **params).fit(X, Y)
    assert fitted.history_[0]["train_acc"] == start.score(X, Y)
    assert fitted.history_[-1]["train_loss"] < 0.7 * fitted.history_[0]["train_loss"]
    one = classifier(lam=1e-4, optimizer="sgd", **params).fit(X, Y)
    assert fitted.history_[0]["penalty"] == pytest.approx(one.history_[0]["penalty"], rel=1e-6)


# History -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0, 0.5])
def test_history(lam):
    losses, entropies = [], []

    class Losses(Callback):
        def on_batch_end(self, net, batch, training, y_pred=None, loss=None, **kwargs):
            if training:
                assert F.cross_entropy(y_pred, batch[1]).item() == pytest.approx(loss.item())
                losses.append((loss.item(), len(batch[1]), (y_pred.argmax(1) == batch[1]).sum()))

        def on_epoch_end(self, net, **kwargs):
            rows = [b for b in net.history[-1]["batches"] if "train_loss" in b]
            sizes = [b["train_batch_size"] for b in rows]
            for name in ["1", "3"] if lam else []:
                values = [b[f"penalty_{name}"] for b in rows]
                entropies.append(np.average(values, weights=sizes))

    fitted = classifier(lam=lam, validation_fraction=0.3, max_epochs=1, callbacks=[Losses()])
    row = fitted.fit(X, Y).history_[0]
    total = sum(n for _, n, _ in losses)
    assert total == 84
    assert [n for _, n, _ in losses][-1] == 20
    assert row["train_loss"] == pytest.approx(sum(loss * n for loss, n, _ in losses) / total)
    assert row["train_acc"] == pytest.approx(sum(int(k) for *_, k in losses) / total)
    split = ValidSplit(0.3, stratified=True, random_state=0)
    held_out = split(X, Y)[1].indices
    expected = log_loss(Y[held_out], fitted.predict_proba(X[held_out]), labels=range(10))
    assert row["valid_loss"] == pytest.approx(expected, rel=1e-5)
    assert row["valid_acc"] == pytest.approx(fitted.score(X[held_out], Y[held_out]))
    assert row["loss_gap"] == pytest.approx(row["valid_loss"] - row["train_loss"])
    keys = {"epoch", "dur", "train_loss", "train_acc", "valid_loss", "valid_acc", "loss_gap"}
    if lam:
        keys |= {f"{a}{b}" for a in ("penalty", "complexity") for b in ("", "_1", "_3")}
        keys |= {"energy_loss", "complexity_1_se", "complexity_3_se"}
        assert [row["penalty_1"], row["penalty_3"]] == pytest.approx(entropies)
        assert row["penalty"] == pytest.approx(row["penalty_1"] + row["penalty_3"])
        assert row["complexity"] == pytest.approx(row["complexity_1"] + row["complexity_3"])
    assert set(row) == keys
    assert set(pd.DataFrame(fitted.history_).columns) == keys
    assert json.loads(json.dumps(fitted.history_)) == fitted.history_


def test_verbose(capfd):
    classifier(verbose=0, validation_fraction=0.2, early_stopping=True).fit(X, Y).predict(X)
    assert capfd.readouterr() == ("", "")
    classifier(verbose=1).fit(X, Y)
    out, err = capfd.readouterr()
    assert not out
    assert "2/2" in err
    assert "train_loss" in err


# The module that comes out -------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"lam": 0}, {"validation_fraction": 0.2}])
def test_the_module_is_the_plain_network(params):
    fitted = classifier(Net, lr=0.01, **params).fit(X, Y)
    module = fitted.module_
    parts = list(module.modules())
    assert not any(p._forward_hooks or p._forward_pre_hooks or p._backward_hooks for p in parts)
    assert not any(p.training for p in parts)
    assert all(p.requires_grad for p in module.parameters())
    plain = Net(64, 10).eval()
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        expected = plain(torch.tensor(X)).double()
        assert torch.equal(module(torch.tensor(X)).double(), expected)
    np.testing.assert_allclose(fitted.predict_log_proba(X), expected.log_softmax(1), atol=1e-6)
    if fitted.net_.complexity is None:
        return
    with torch.no_grad():
        relaxed, _ = fitted.net_.complexity.run(torch.tensor(X))
    # |z sigmoid(10 z) - relu(z)| is at most 0.2785 / 10, which the last layer sums up
    bound = 0.028 * module.out.weight.abs().sum(1).max().item()
    difference = (relaxed.double() - expected).abs().max().item()
    assert 0 < difference < bound


def test_random_numbers_and_threads_stay():
    fitted = classifier(validation_fraction=0.2)

    class Fails(Callback):
        def on_batch_end(self, net, **kwargs):
            raise RuntimeError

    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    fitted.fit(X, Y).predict(X)
    for callbacks, data in (([Fails()], X), (None, X[:, None, None])):
        with contextlib.suppress(RuntimeError, ValueError):
            classifier(callbacks=callbacks).fit(data, Y)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    assert (threads, grad) == (torch.get_num_threads(), torch.is_grad_enabled())


# scikit-learn --------------------------------------------------------------------------------


def test_model_selection():
    search = GridSearchCV(
        ComplexityRegularizedClassifier(max_epochs=2, hidden_layer_sizes=(8,), random_state=0),
        {"lam": [0, 1e-3]},
        n_jobs=2,
        cv=2,
        scoring=["accuracy", "neg_log_loss"],
        refit="neg_log_loss",
    ).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_neg_log_loss"]).all()
    best = clone(search.best_estimator_).fit(X, Y)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))
    pipeline = make_pipeline(StandardScaler(), classifier(lam=0, max_epochs=20, lr=0.01))
    assert cross_validate(pipeline, X, Y, cv=2, error_score="raise")["test_score"].min() > 0.6


def test_wrappers():
    fitted = classifier(max_epochs=5, lr=0.01).fit(X, Y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), cv=2).fit(X, Y)
    assert calibrated.predict_proba(X).shape == (120, 10)
    entropy = GatingEntropy(model=fitted).fit(X)
    plain = GatingEntropy(model=fitted.module_).fit(X)
    assert list(entropy.states_.layer_names) == ["1", "3"]
    np.testing.assert_array_equal(np.asarray(entropy.states_), np.asarray(plain.states_))
    twin = clone(fitted)
    assert not hasattr(twin, "net_")
    assert not hasattr(twin, "history_")


def test_threads_get_what_a_sequence_gets():
    def work(seed):
        return weights(classifier(Net, random_state=seed, max_epochs=1).fit(X, Y))["fc.weight"]

    sequence = [work(seed) for seed in range(3)]
    threads = joblib.Parallel(3, backend="threading")(joblib.delayed(work)(s) for s in range(3))
    assert all(torch.equal(a, b) for a, b in zip(sequence, threads, strict=True))
