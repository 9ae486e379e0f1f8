"""States that are written batch by batch, and runs that resume."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from skgate import GateExtractor, GatingEntropy, GatingStates
from skgate.densities import Kernel


@pytest.fixture
def X():  # noqa: N802
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


def network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 5), nn.ReLU6()]
    return nn.Sequential(*layers)


def extractor(X, net=None, **options):
    options = {"batch_size": 8, "random_state": 0, **options}
    return GateExtractor(net or network(), **options).fit(X)


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("sampling", ["off", "on"])
@pytest.mark.parametrize(
    "kind", [lambda X: X, TensorDataset, None], ids=["tensor", "set", "loader"]
)
def test_states_on_disk_are_those_in_memory(X, tmp_path, sampling, kind):
    data = kind(X) if kind else DataLoader(TensorDataset(X), batch_size=7)
    gates = extractor(data, sampling=sampling)
    states = gates.transform_to(data, tmp_path / "a" / "states")
    assert states == gates.transform(data)
    assert isinstance(states.packed[0], np.memmap)
    assert not states.packed[0].flags.writeable
    for mmap in (False, True):
        assert GatingStates.load(tmp_path / "a" / "states", mmap=mmap) == states
    assert GatingEntropy(density=Kernel(alpha=0.5)).fit(states).entropy_ > 0


class Interrupted(BaseException):
    pass


class Fragile(nn.Module):
    """Counts its runs, and fails in one of them."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.net, self.runs, self.fails_at = network(), 0, fails_at

    def forward(self, x):
        self.runs += 1
        if self.runs == self.fails_at:
            raise Interrupted
        return self.net(x)


@pytest.mark.parametrize("sampling", ["off", "on"])
def test_an_interrupted_run_resumes_to_the_same_bytes(X, tmp_path, sampling):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extractor(X, Fragile(), sampling=sampling).transform_to(X, whole)
    for batches in (3, 2):
        net = Fragile()
        gates = extractor(X, net, sampling=sampling)
        net.fails_at = net.runs + 1 + batches
        with pytest.raises(Interrupted):
            gates.transform_to(X, broken)
        with pytest.raises(ValueError, match=r"not a complete folder.*incomplete"):
            GatingStates.load(broken)
    net = Fragile()
    gates = extractor(X, net, sampling=sampling)
    before = net.runs
    gates.transform_to(X, broken)
    # of 7 batches three were there, and one of the second run, which tried the first again
    assert net.runs - before == 1 + 7 - 4
    assert contents(broken) == contents(whole)
    before = net.runs
    gates.transform_to(X, broken)
    assert net.runs - before == 1
    assert contents(broken) == contents(whole)


def test_batches_of_another_size_resume_too(X, tmp_path):
    net = Fragile()
    gates = extractor(X, net)
    net.fails_at = net.runs + 3
    with pytest.raises(Interrupted):
        gates.transform_to(X, tmp_path)
    states = extractor(X, Fragile(), batch_size=5).transform_to(X, tmp_path)
    assert states == extractor(X, Fragile()).transform(X)


KILLED = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from test_folder import Fragile, extractor
X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
net = Fragile()
gates = extractor(X, net, sampling="on")
limit = net.runs + int(sys.argv[3])
hook = lambda *_: os.kill(os.getpid(), signal.SIGKILL) if net.runs == limit else None
net.register_forward_hook(hook)
gates.transform_to(X, sys.argv[2])
"""


def test_a_killed_run_resumes_to_the_same_bytes(X, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extractor(X, Fragile(), sampling="on").transform_to(X, whole)
    for batches in (2, 3):
        arguments = [str(Path(__file__).parent), str(broken), str(batches)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
        assert done.returncode == -9, done.stderr
    extractor(X, Fragile(), sampling="on").transform_to(X, broken)
    assert contents(broken) == contents(whole)


def test_a_folder_of_something_else_is_left_alone(X, tmp_path):
    gates = extractor(X)
    gates.transform_to(X, tmp_path / "states")
    before = contents(tmp_path / "states")
    for other, data, message in [
        (gates, X[:40], "this run writes"),
        (extractor(X, layers=0), X, "this run writes"),
        (extractor(X, network(1)), X, "another module or of other data: samples 0 to 8"),
        (gates, X.flip(0), "another module or of other data"),
    ]:
        with pytest.raises(ValueError, match=message):
            other.transform_to(data, tmp_path / "states")
        assert contents(tmp_path / "states") == before
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "layer0.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds other arrays"):
        gates.transform_to(X, tmp_path / "arrays")
    with pytest.raises(ValueError, match="not a complete folder"):
        GatingStates.load(tmp_path / "arrays")


class Endless(IterableDataset):
    def __iter__(self):
        yield from torch.randn(9, 6)


def test_a_number_of_samples_that_nobody_knows_is_an_error(X, tmp_path):
    for data in (Endless(), DataLoader(TensorDataset(X), batch_size=7, drop_last=True)):
        with pytest.raises(ValueError, match="number of samples"):
            extractor(X).transform_to(data, tmp_path / "states")
    with pytest.raises(ValueError, match="shuffling"):
        extractor(X).transform_to(DataLoader(TensorDataset(X), shuffle=True), tmp_path / "states")
    assert not (tmp_path / "states").exists()
