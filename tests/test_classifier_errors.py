"""Bad input, losses that are not finite, and interruptions leave a classifier usable."""

import copy
import os
import signal
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from classifiers import IMAGES, Net, X, Y, assert_same, classifier, sequential
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skgate import ComplexityLoss, GatingStates


def soft(n_features, n_classes):
    return nn.Sequential(sequential(n_features, n_classes), nn.Softmax(1))


class InDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = sequential()

    def forward(self, x):
        return {"logits": self.net(x)}


STREAM = TensorDataset(torch.tensor(X), torch.tensor(Y))
BAD = [
    ({}, X, 0 * Y, "1 class"),
    ({}, np.where(X > 0.9, np.nan, X), Y, "NaN"),
    ({}, STREAM, Y, "TensorDataset.*one array.*Stack"),
    ({}, DataLoader(STREAM), None, "DataLoader.*one array"),
    ({}, GatingStates.from_arrays(X > 0), Y, "GatingStates.*raw inputs"),
    ({}, list(zip(X, Y, strict=True)), Y, "list of tuples"),
    ({}, {"a": X}, Y, "dict"),
    ({}, iter(X), Y, "iterator"),
    ({"batch_size": 500}, X, Y, "batch_size=500 exceeds the 120 samples"),
    ({"batch_size": 100, "validation_fraction": 0.3}, X, Y, "exceeds the 84 samples"),
    ({"module": nn.Linear(64, 10)}, X, Y, "no layer that could be penalised"),
    ({"module": sequential(64, 3)}, X, Y, r"shape \(10, 3\).*y has 10 classes"),
    ({"module": InDict}, X, Y, "InDict returns dict"),
    ({"module": InDict, "lam": 0}, X, Y, "InDict returns dict"),
    ({"module": lambda a, b, c: None}, X, Y, r"takes \['a', 'b', 'c'\].*net_params"),
    ({"module": lambda: 3}, X, Y, "returned a int"),
    ({"module": sequential(63)}, X, Y, "shapes cannot be multiplied"),
    ({"module": Net, "batch_size": 17}, X, Y, "last batch has 1 sample"),
    ({"module": Net, "batch_size": 1}, X, Y, "batch normalisation"),
    ({"penalized_layers": 7}, X, Y, "penalized_layers.*matches 7"),
    ({"penalized_layers": "conv"}, X, Y, "penalized_layers.*matches 'conv'"),
    ({"penalized_layers": slice(5, 9)}, X, Y, "selects none of the 2 layers"),
    ({"early_stopping": True}, X, Y, "Set a validation_fraction"),
    ({"validation_fraction": 0.2}, X[:30], np.arange(30) == 3, "validation_fraction=0.2.*1 member"),
    ({"validation_fraction": 0.01}, X, Y, "validation_fraction=0.01.*number of classes"),
    ({"net_params": {"lr": 1}}, X, Y, "net_params holds"),
    ({"net_params": {"verbose": 1}}, X, Y, "net_params holds"),
    ({"net_params": {3: 1}}, X, Y, "net_params holds"),
    ({"net_params": {"nonsense": 1}}, X, Y, "nonsense"),
    ({"net_params": {"optimizer__nonsense": 1}}, X, Y, "nonsense"),
    ({"net_params": {"module__width": 1}}, X, Y, "module is None"),
    ({"net_params": {"module__width": 1}, "module": sequential()}, X, Y, "an instance"),
    ({"checkpoint": "/no/such/place/file"}, X, Y, "no directory /no/such/place"),
]


@pytest.mark.parametrize(("params", "data", "y", "message"), BAD)
def test_errors_come_before_training_and_leave_the_last_fit(params, data, y, message):
    class Never(Callback):
        def on_train_begin(self, net, **kwargs):
            raise AssertionError

    fitted = FITTED
    before, expected = vars(fitted).copy(), fitted.predict_proba(X)
    params = {"callbacks": [Never()], **params}
    old = {name: getattr(fitted, name) for name in params}
    with pytest.raises((ValueError, TypeError, RuntimeError, OSError), match=message):
        fitted.set_params(**params).fit(data, y)
    fitted.set_params(**old)
    assert vars(fitted).keys() == before.keys()
    assert all(vars(fitted)[name] is before[name] for name in before)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)


FITTED = classifier(random_state=1).fit(X, Y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without")
def test_no_cuda():
    with pytest.raises(RuntimeError, match=r"torch finds no CUDA.*device='auto'"):
        classifier(device="cuda").fit(X, Y)


def test_softmax_outputs():
    with pytest.warns(UserWarning, match="Leave out the last softmax") as record:
        classifier(soft).fit(X, Y)
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(sequential).fit(X, Y)


def test_sigmoid_outputs():
    net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10), nn.Sigmoid())
    with pytest.warns(UserWarning, match="last softmax or sigmoid"):
        classifier(net).fit(X, Y)


def test_other_inputs_later():
    fitted = classifier(max_epochs=1, warm_start=True).fit(IMAGES, Y)
    for call in (fitted.predict, fitted.decision_function, partial(fitted.fit, y=Y)):
        with pytest.raises(ValueError, match=r"shape \(1, 4, 16\).*shape \(1, 8, 8\)"):
            call(IMAGES.reshape(-1, 1, 4, 16))
    with pytest.raises(ValueError, match=r"\[-1, 0.*warm_start"):
        fitted.fit(IMAGES, Y - 1)
    with pytest.raises(ValueError, match=r"had another lam, lr\."):
        fitted.set_params(lam=0.1, lr=0.1).fit(IMAGES, Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 1e30}, r"Epoch 1, batch 2: the loss is .*layer '.*Lower lr"),
        ({"energy_lr": 1e30}, r"Epoch 1, batch 2: .*layers \['1'\].*Lower energy_lr"),
        ({"lam": 1e308}, r"Epoch 1, batch 1: the penalty of layer '1' is [\d.]+\. Lower.*lam"),
    ],
)
def test_loss_that_is_not_finite(params, message):
    with pytest.raises(FloatingPointError, match=message):
        classifier(hidden_layer_sizes=(8,), **params).fit(X, Y)


class Poisoned(nn.Module):
    """Gives NaN on the third batch it trains on."""

    n_calls = 0

    def __init__(self):
        super().__init__()
        self.fc, self.bn, self.out = nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.fc(x)
        if self.training:
            self.n_calls += 1
            x = x * (float("nan") if self.n_calls == 3 else 1)
        return self.out(F.relu(self.bn(x)))


@pytest.mark.parametrize("lam", [0, 1e-3])
def test_weights_of_before_the_batch_are_left(lam):
    states = []

    class Keep(Callback):
        def on_batch_begin(self, net, **kwargs):
            states.append(copy.deepcopy(net.module_.state_dict()))

    fitted = classifier(Poisoned, lam=lam, callbacks=[Keep()])
    with pytest.raises(FloatingPointError, match=r"Epoch 1, batch 3.*layer 'bn'"):
        fitted.fit(X, Y)
    assert len(states) == 3
    left = fitted.module_.state_dict()
    assert all(torch.equal(left[name], states[-1][name]) for name in left)
    assert np.isfinite(fitted.predict_proba(X)).all()


class Interrupted(Net):
    """Ctrl-C while a batch is trained."""

    at = None

    def forward(self, x):
        if self.training and len(self.seen) == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(x)


@pytest.fixture
def interruptible():
    """SIGINT as Python handles it, which a shell turns off for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c(tmp_path):
    full = classifier(Interrupted, max_epochs=4).fit(X, Y)
    Net.seen.clear()
    Interrupted.at = 6
    params = {"max_epochs": 4, "warm_start": True, "checkpoint": tmp_path / "file"}
    fitted = classifier(Interrupted, **params)
    try:
        with pytest.raises(KeyboardInterrupt):
            fitted.fit(X, Y)
    finally:
        Interrupted.at = None
    assert [row["epoch"] for row in fitted.history_] == [1]
    assert "complexity" in fitted.history_[0]
    assert not fitted.module_.training
    assert fitted.predict(X).shape == (120,)
    copied = copy.deepcopy(fitted)
    assert_same(fitted.fit(X, Y), full)
    assert [row["epoch"] for row in fitted.history_] == [1, 2, 3, 4]
    assert_same(copied.fit(X, Y), full)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_measurement_of_an_epoch(monkeypatch):
    monkeypatch.setattr(
        ComplexityLoss, "complexity", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(KeyboardInterrupt):
        classifier().fit(X, Y)


def test_a_callback_ends_training_within_an_epoch():
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    fitted = classifier(callbacks=[Stop()], max_epochs=9).fit(X, Y)
    assert [row["epoch"] for row in fitted.history_] == [1]
