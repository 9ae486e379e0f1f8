"""H with sampling on against I(X;Σ) with sampling off, and that seeds are kept."""

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from skgate import GateExtractor, GatingEntropy, GatingMI, GatingStates
from skgate.densities import Kernel

ALPHA = 0.5


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 10), nn.ReLU(), nn.Dropout(0.3), nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU()
    )


def test_dropout_adds_entropy_that_the_input_does_not_cause(net, rng):
    X = rng.normal(size=(400, 6))
    y = (X[:, 0] > 0).astype(int)
    drawn = [
        GatingEntropy(net, density=Kernel(alpha=ALPHA), random_state=s).fit(X) for s in range(5)
    ]
    removed = GatingMI(net, density=Kernel(alpha=ALPHA), random_state=0).fit(X, y)
    assert removed.mi_x_ < 0.9 * removed.ceiling_
    for part in ("entropy_", "layer_entropy_"):
        on = np.array([getattr(measure, part) for measure in drawn])
        off = np.array({"entropy_": removed.mi_x_, "layer_entropy_": removed.layer_mi_x_}[part])
        spread = on.std(axis=0)
        if part == "entropy_":
            assert on.mean() - off > 10 * spread
        else:
            # the layer before dropout is the same, dropout and what follows have more;
            # dropout is a layer only where it is drawn
            np.testing.assert_allclose(on[:, 0], off[0], rtol=1e-12)
            assert (on.mean(axis=0)[1:] - [0, off[1]] > spread[1:]).all()
    assert drawn[0].layer_names_ == ["1", "2", "5"]
    assert removed.layer_names_ == ["1", "5"]


def test_one_seed_gives_one_result(net, rng):
    X = rng.normal(size=(100, 6))
    first, again, other = (
        GatingEntropy(net, density=Kernel(alpha=ALPHA), random_state=s).fit(X) for s in (0, 0, 1)
    )
    assert first.states_ == again.states_
    assert first.entropy_ == again.entropy_
    assert first.states_ != other.states_
    torch.manual_seed(123)  # the user's own generator plays no part
    assert (
        GatingEntropy(net, density=Kernel(alpha=ALPHA), random_state=0).fit(X).states_
        == first.states_
    )


def test_an_autoencoder_without_noise_is_its_mean(rng):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_var = nn.Linear(6, 5), nn.Linear(6, 5)
            self.head = nn.Sequential(nn.Linear(5, 9), nn.ReLU())

        def forward(self, x):
            mean, log_var = self.mean(x), self.log_var(x)
            return self.head(mean + torch.randn_like(mean) * torch.exp(log_var / 2))

    torch.manual_seed(0)
    encoder = Encoder().eval()
    X = rng.normal(size=(200, 6)).astype(np.float32)
    off = GateExtractor(encoder).fit_transform(X)
    with torch.no_grad():
        z = encoder.head[0](encoder.mean(torch.tensor(X)))
    assert np.array_equal(np.asarray(off), np.asarray(GatingStates.from_arrays(z)))
    on = GatingEntropy(encoder, density=Kernel(alpha=ALPHA), random_state=0).fit(X)
    y = (X[:, 0] > 0).astype(int)
    assert on.entropy_ > GatingMI(encoder, density=Kernel(alpha=ALPHA)).fit(X, y).mi_x_ + 0.02


def test_an_extractor_without_a_seed_takes_that_of_the_estimator(net, rng):
    X = rng.normal(size=(100, 6))
    extractor = GateExtractor(net, sampling="on")
    first, again = (
        GatingEntropy(extractor, density=Kernel(alpha=ALPHA), random_state=0).fit(X)
        for _ in range(2)
    )
    assert first.states_ == again.states_
    own = GateExtractor(net, sampling="on", random_state=3)
    seeds = [
        GatingEntropy(own, density=Kernel(alpha=ALPHA), random_state=s).fit(X).states_
        for s in (0, 1)
    ]
    assert seeds[0] == seeds[1] == own.fit_transform(X)


def test_threads_take_turns_with_a_module(net, rng):
    X = rng.normal(size=(60, 6))
    net.train()
    before = torch.get_rng_state()
    expected = GatingEntropy(net, density=Kernel(alpha=ALPHA), random_state=0).fit(X).states_
    fits = (
        delayed(GatingEntropy(net, density=Kernel(alpha=ALPHA), random_state=0).fit)(X)
        for _ in range(40)
    )
    for fitted in Parallel(n_jobs=4, backend="threading")(fits):
        assert fitted.states_ == expected
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module._forward_hooks for module in net.modules())


def test_batches_draw_other_numbers(net, rng):
    X = np.repeat(rng.normal(size=(1, 6)), 40, axis=0)
    states = GateExtractor(net, sampling="on", batch_size=10, random_state=0).fit_transform(X)
    assert states[:10] != states[10:20]
