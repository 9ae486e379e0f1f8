"""A resumed training, in the same process or another, is the same as an uninterrupted one."""

import copy
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from skgate import ComplexityRegularizedClassifier

X, Y = load_digits(return_X_y=True)
X, Y = (X[:120] / 16).astype(np.float32), Y[:120]


class Net(nn.Module):
    def __init__(self, n_features, n_classes, width=8):
        super().__init__()
        self.fc, self.bn = nn.Linear(n_features, width), nn.BatchNorm1d(width)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.3)
        self.out = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.out(self.drop(self.relu(self.bn(self.fc(x)))))


def classifier(**params):
    options = {"module": Net, "max_epochs": 5, "batch_size": 32, "random_state": 0}
    return ComplexityRegularizedClassifier(**{**options, **params})


def weights(fitted):
    return {name: value.clone() for name, value in fitted.module_.state_dict().items()}


def assert_same(a, b):
    """The module, and all that it is trained with."""
    for one, other in ((a.module_, b.module_), (a.net_.complexity, b.net_.complexity)):
        if one is not None:
            assert joblib.hash(_plain(one.state_dict())) == joblib.hash(_plain(other.state_dict()))
    kept = [[{**row, "dur": 0} for row in c.history_] for c in (a, b)]
    assert kept[0] == kept[1]


def _plain(state):
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return state.numpy() if isinstance(state, torch.Tensor) else state


class Stop(EarlyStopping):
    """Stops on a made-up loss with a minimum between epochs."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("made_up", abs(len(net.history) - 2.5))
        super().on_epoch_end(net, **kwargs)


def scheduler(policy, **options):
    return lambda: {"callbacks": [LRScheduler(policy, **options)]}


ONE_CYCLE = {"max_lr": 0.05, "total_steps": 20, "step_every": "batch"}
CYCLIC = {"base_lr": 0.001, "max_lr": 0.05, "step_size_up": 3, "step_every": "batch"}
PLATEAU = {"monitor": "train_loss", "patience": 0, "threshold": 0.5, "event_name": "rate"}
WAYS = {
    "plain": dict,
    "lam=0": lambda: {"lam": 0},
    "product": lambda: {"penalty": "product"},
    "langevin": lambda: {"sampler": "langevin"},
    "interval": lambda: {"penalty_interval": 3, "lam": 0.1},
    "validation": lambda: {"validation_fraction": 0.2},
    "momentum": lambda: {"optimizer": "sgd", "net_params": {"optimizer__momentum": 0.9}},
    "lbfgs": lambda: {"optimizer": torch.optim.LBFGS, "net_params": {"optimizer__max_iter": 3}},
    "step": scheduler("StepLR", step_size=2, gamma=0.1),
    "lambda": scheduler("LambdaLR", lr_lambda=lambda epoch: 1 / (1 + epoch)),
    "plateau": scheduler("ReduceLROnPlateau", **PLATEAU),
    "one cycle": scheduler(torch.optim.lr_scheduler.OneCycleLR, **ONE_CYCLE),
    "cyclic": lambda: {"optimizer": "sgd", **scheduler("CyclicLR", **CYCLIC)()},
    "early stopping": lambda: {
        "callbacks": [Stop(monitor="made_up", patience=3, load_best=True)],
    },
    "class weights": lambda: {"net_params": {"criterion__weight": torch.arange(1.0, 11)}},
}


@pytest.mark.parametrize("way", WAYS)
def test_resuming_is_the_same_as_never_stopping(way, tmp_path):
    options = {"lr": 0.01, "max_epochs": 5, "warm_start": True}
    full = classifier(**{**options, **WAYS[way]()}).fit(X, Y)
    # from the file that is written after each epoch
    options["checkpoint"] = tmp_path / "file"
    classifier(**{**options, **WAYS[way](), "max_epochs": 2}).fit(X, Y)
    assert_same(classifier(**{**options, **WAYS[way]()}).fit(X, Y), full)
    del options["checkpoint"]
    # early stopping has restored the best epoch, from which training would resume
    n_first = 3 if way == "early stopping" else 2
    part = classifier(**{**options, **WAYS[way](), "max_epochs": n_first}).fit(X, Y)
    if way == "early stopping":
        return
    part.save_params(tmp_path / "saved")
    loaded = classifier(**{**options, **WAYS[way]()}).load_params(tmp_path / "saved")
    copies = [loaded, part]
    if way not in ("lambda", "lbfgs"):  # pickle takes no lambda; torch's LBFGS breaks when copied
        copies[:0] = [copy.deepcopy(part), pickle.loads(pickle.dumps(part))]
    for other in copies:
        assert_same(other.set_params(max_epochs=3).fit(X, Y), full)


@pytest.mark.parametrize("seed", [None, np.random.RandomState(0)])
def test_split_and_order_of_any_seed(seed, tmp_path):
    rows = []

    class Rows(EarlyStopping):
        def on_epoch_begin(self, net, dataset_valid, **kwargs):
            rows.append(sorted(dataset_valid.indices.tolist()))

    options = {"random_state": seed, "validation_fraction": 0.2, "checkpoint": tmp_path / "file"}
    for n in (1, 2):
        stop = Rows(patience=9)
        classifier(**options, callbacks=[stop], max_epochs=n, warm_start=True).fit(X, Y)
    loaded = classifier(**options, callbacks=[Rows(patience=9)], max_epochs=3, warm_start=True)
    loaded.load_params(tmp_path / "file").fit(X, Y)
    assert len(rows) == 3
    assert rows[0] == rows[1] == rows[2]


def test_resumed_early_stopping_stops_again():
    stop = EarlyStopping(patience=2, monitor="train_loss", threshold=10, threshold_mode="abs")
    fitted = classifier(callbacks=[stop], max_epochs=30, warm_start=True).fit(X, Y)
    assert len(fitted.history_) == 3
    assert len(fitted.fit(X, Y).history_) == 5


def test_early_stopping_waits_10_epochs_and_takes_the_best():
    params = {"lr": 0.5, "validation_fraction": 0.3, "lam": 0, "batch_size": 16}
    fitted = classifier(early_stopping=True, max_epochs=200, **params).fit(X, Y)
    losses = [row["valid_loss"] for row in fitted.history_]
    best = int(np.argmin(losses))
    assert len(losses) == best + 11
    again = classifier(max_epochs=best + 1, **params).fit(X, Y)
    assert all(torch.equal(weights(again)[name], w) for name, w in weights(fitted).items())


def test_the_file_has_the_best_epoch_and_resumes_from_the_last(tmp_path):
    def stopping(**options):
        stop = Stop(monitor="made_up", patience=3, load_best=True)
        return classifier(callbacks=[stop], max_epochs=20, **options)

    full = stopping().fit(X, Y)
    assert len(full.history_) < 20
    path = tmp_path / "file"
    stopping(checkpoint=path).fit(X, Y)
    loaded = classifier().load_params(path)
    assert all(torch.equal(weights(loaded)[name], w) for name, w in weights(full).items())
    assert len(loaded.history_) == len(full.history_)
    assert_same(stopping(checkpoint=path, warm_start=True).fit(X, Y), full)


def test_parameters_resume_with_the_settings_that_they_were_trained_with(tmp_path):
    classifier().fit(X, Y).save_params(tmp_path / "file")
    for other in ({"lr": 1e-9}, {"lam": 0.1}, {"energy_lr": 0.1}):
        loaded = classifier(warm_start=True, **other).load_params(tmp_path / "file")
        (name,) = other
        with pytest.raises(ValueError, match=f"had another {name}[.].*module=classifier.module_"):
            loaded.fit(X, Y)


def test_a_file_with_more_epochs_than_asked_for_warns(tmp_path):
    classifier(checkpoint=tmp_path / "file", max_epochs=3).fit(X, Y)
    resumed = classifier(checkpoint=tmp_path / "file", max_epochs=2, warm_start=True)
    with pytest.warns(UserWarning, match="holds 3 epochs, more than max_epochs=2"):
        assert len(resumed.fit(X, Y).history_) == 3


def test_max_epochs_counts_all_with_a_checkpoint(tmp_path):
    path = tmp_path / "file"
    fitted = classifier(checkpoint=path, warm_start=True, max_epochs=2).fit(X, Y)
    before = weights(fitted)
    fitted.fit(X, Y)
    assert len(fitted.history_) == 2
    assert all(torch.equal(before[name], value) for name, value in weights(fitted).items())
    assert len(fitted.set_params(max_epochs=3).fit(X, Y).history_) == 3
    anew = classifier(checkpoint=path, max_epochs=1).fit(X, Y)
    assert len(anew.history_) == 1


# Killed --------------------------------------------------------------------------------------

SCRIPT = """
import os, random, signal, sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import X, Y, to_kill
from skorch.callbacks import Callback

FOLDER, N_KILLS = sys.argv[2], int(sys.argv[3])
moments = random.Random(int(sys.argv[4]))

class Tick(Callback):
    def __init__(self, pipe):
        self.pipe = pipe
    def on_batch_end(self, net, **kwargs):
        os.write(self.pipe, b".")

def train(name, pipe):
    path = os.path.join(FOLDER, name)
    fitted = to_kill(Tick(pipe)).set_params(checkpoint=path, warm_start=True)
    fitted.fit(X, Y).save_params(path + ".result")

names, kills = ["full", "killed"], 0
while names:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        train(names[0], writing)
        os._exit(0)
    os.close(writing)
    if names[0] == "killed" and kills < N_KILLS:
        wait, done = moments.randrange(1, 14), 0
        while done < wait and (got := os.read(reading, 1)):
            done += 1
        for _ in range(moments.randrange(20_000)):
            pass
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if os.WIFSIGNALED(status):
        kills += 1
        continue
    assert status == 0, status
    names.pop(0)
print(kills)
"""


def to_kill(*callbacks):
    options = {"max_lr": 0.05, "total_steps": 36, "step_every": "batch"}
    return classifier(
        callbacks=[LRScheduler(torch.optim.lr_scheduler.OneCycleLR, **options), *callbacks],
        validation_fraction=0.2,
        early_stopping=True,
        batch_size=16,
        max_epochs=6,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_and_resumed(tmp_path):
    n_kills, seed = int(os.environ.get("SKGATE_KILLS", 3)), os.environ.get("SKGATE_SEED", "0")
    arguments = [Path(__file__).parent, tmp_path, n_kills, seed]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == n_kills
    full, killed = (
        to_kill().load_params(tmp_path / f"{name}.result") for name in ("full", "killed")
    )
    assert_same(full, killed)
    assert len(full.history_) == 6


# Files ---------------------------------------------------------------------------------------


class Runs:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_nothing_in_a_file_is_executed(write, tmp_path):
    path, trace = tmp_path / "file", tmp_path / "executed"
    content = {"format": "skgate 3", "net": Runs(trace)}
    if write == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"is not a file .*save_params.*execute") as caught:
        classifier().load_params(path)
    assert "weights_only" not in str(caught.value)
    with pytest.raises(ValueError, match="is not a file"):
        classifier(checkpoint=path, warm_start=True).fit(X, Y)
    assert not trace.exists()


def _bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", _bytes({"format": 1}), _bytes([1]), _bytes(nn.Linear(2, 2).state_dict()), None],
)
def test_other_files(content, tmp_path):
    path = tmp_path / "file"
    fitted = classifier(max_epochs=1).fit(X, Y)
    if content is None:
        fitted.save_params(path)
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    expected = fitted.predict_proba(X)
    with pytest.raises(ValueError, match=f"{path} is not a file of parameters"):
        fitted.load_params(path)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    with pytest.raises(FileNotFoundError):
        fitted.load_params(tmp_path / "none")
    with pytest.raises(ValueError, match="is not a file"):
        fitted.load_params(tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"net_params": {"module__width": 5}}, r"another module than Net[\s\S]*fc.weight"),
        ({"module": None}, "another module than Sequential"),
        ({"optimizer": "sgd"}, "another optimizer"),
        ({"penalty": "product"}, "another penalty"),
        ({"sampler": "langevin"}, "another sampler"),
    ],
)
def test_files_of_another_classifier(params, message, tmp_path):
    classifier(max_epochs=1).fit(X[Y < 3], Y[Y < 3]).save_params(tmp_path / "file")
    fitted = classifier(max_epochs=1, **params).fit(X, Y)
    before = vars(fitted).copy()
    with pytest.raises(ValueError, match=message):
        fitted.load_params(tmp_path / "file")
    assert vars(fitted).keys() == before.keys()
    assert all(vars(fitted)[name] is before[name] for name in before)
    assert fitted.predict_proba(X).shape == (120, 10)


def test_parameters_without_the_penalty(tmp_path):
    fitted = classifier(max_epochs=1).fit(X, Y)
    fitted.save_params(tmp_path / "file")
    loaded = classifier(lam=0).load_params(tmp_path / "file")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded.history_ == fitted.history_


def test_names_of_columns_follow_the_file(tmp_path):
    named = classifier(max_epochs=1).fit(pd.DataFrame(X).add_prefix("pixel"), Y)
    plain = classifier(max_epochs=1).fit(X, Y)
    named.save_params(tmp_path / "named")
    plain.save_params(tmp_path / "plain")
    named.load_params(tmp_path / "plain")
    assert not hasattr(named, "feature_names_in_")
    plain.load_params(tmp_path / "named")
    with pytest.raises(ValueError, match="feature names"):
        plain.predict(pd.DataFrame(X).add_prefix("column"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    fitted = classifier(max_epochs=1, checkpoint=path).fit(X, Y)
    before = path.read_bytes()

    def fails(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        fitted.save_params(path)
    with pytest.raises(OSError, match="disk full"):
        classifier(max_epochs=2, checkpoint=path, warm_start=True).fit(X, Y)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("params", "data", "names"),
    [
        ({"lam": 0.1}, (X, Y), "lam"),
        ({"lr": 0.1, "batch_size": 16}, (X, Y), "batch_size, lr"),
        ({"random_state": 1}, (X, Y), "random_state"),
        ({"net_params": {"criterion__weight": torch.ones(10)}}, (X, Y), "net_params"),
        ({}, (X + 1e-6, Y), "X or y"),
        ({}, (X, np.roll(Y, 1)), "X or y"),
    ],
)
def test_checkpoints_of_another_training(params, data, names, tmp_path):
    path = tmp_path / "file"
    classifier(max_epochs=1, checkpoint=path).fit(X, Y)
    before = path.read_bytes()
    other = classifier(checkpoint=path, warm_start=True, **params)
    with pytest.raises(ValueError, match=f"another training: it had another {names}[.]"):
        other.fit(*data)
    assert path.read_bytes() == before
    assert not hasattr(other, "n_features_in_")
    other = classifier(checkpoint=path, warm_start=True, verbose=0, device="cpu", max_epochs=2)
    assert len(other.fit(X, Y).history_) == 2


def test_copies_are_independent():
    fitted = classifier(max_epochs=1, warm_start=True).fit(X, Y)
    expected = fitted.predict_proba(X)
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert other.history_ == fitted.history_
        assert other.net_.complexity.module is other.module_
        other.fit(X, Y)
        assert not np.array_equal(other.predict_proba(X), expected)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
