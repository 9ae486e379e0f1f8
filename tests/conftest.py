"""Devices that each test of an engine runs on, and gates to measure."""

import os

import numpy as np
import pytest
import torch
from gpu import FakeGpu

from skgate import GatingStates
from skgate.pairwise import _cupy

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes would wait for each other
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", "cuda", "cuda on NumPy"])
def device(request, monkeypatch):
    """Where pairs are computed; the last one is the CUDA engine with arrays of NumPy."""
    if request.param == "cuda" and (missing := _cupy.what_is_missing()):
        pytest.skip(missing)
    if request.param == "cuda on NumPy":
        monkeypatch.setattr(_cupy, "what_is_missing", lambda: None)
        monkeypatch.setattr(_cupy, "Gpu", FakeGpu)
    return request.param.split()[0]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def layers(rng):
    """Three layers of dependent gates, some constant, some rows twice."""
    latent = rng.normal(size=(60, 4))
    gates = {
        "a": latent @ rng.normal(size=(4, 13)) + 0.5 * rng.normal(size=(60, 13)) > 0,
        "b": latent @ rng.normal(size=(4, 8)) > 0.7,
        "c": rng.random((60, 21)) < 0.2,
    }
    gates["a"][:, 3] = True
    for bits in gates.values():
        bits[50:55] = bits[:5]
    return gates


@pytest.fixture
def states(layers):
    return GatingStates.from_arrays(layers)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, 60)
