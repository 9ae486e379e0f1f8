"""Both ceilings are flagged by all three estimators, and what lies below them is not."""

import numpy as np
import pytest
import torch
from torch import nn

from skgate import GatingEntropy, GatingMI, GatingStates, SaturationWarning, TotalCorrelation
from skgate.densities import Kernel

MEASURES = [GatingEntropy, GatingMI, TotalCorrelation]


@pytest.fixture
def wide_and_narrow(rng):
    return GatingStates.from_arrays(
        {"wide": rng.random((400, 1024)) < 0.5, "narrow": rng.random((400, 2)) < 0.5}
    )


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("params", "density", "message"),
    [
        ({}, Kernel(alpha=0.01), r"wide \(8\.64 of 8\.64 bits, log n\)"),
        ({}, Kernel(alpha=20.0), r"wide \(0\.07 of 0\.07 bits, Var/bandwidth\)"),
        ({}, Kernel(alpha=5.0, bound="lower"), r"wide \(0\.07 of 0\.07 bits, Var/bandwidth\)"),
        ({"base": np.e}, Kernel(alpha=0.01), r"wide \(5\.99 of 5\.99 nats, log n\)"),
    ],
)
def test_both_ceilings_warn_and_name_the_layer(measure, params, density, message, wide_and_narrow):
    y = np.arange(400) % 2
    with pytest.warns(SaturationWarning, match=message):
        fitted = measure(density=density, **params).fit(wide_and_narrow, y)
    assert fitted.layer_saturated_[0]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_layer_below_the_ceilings_is_not_flagged(measure, wide_and_narrow):
    with pytest.warns(SaturationWarning) as caught:
        fitted = measure(density=Kernel(alpha=0.01)).fit(wide_and_narrow, np.arange(400) % 2)
    assert fitted.layer_saturated_.tolist() == [True, False]
    assert "narrow" not in str(caught[0].message)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_network_below_the_ceilings_does_not_warn(measure, rng):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU())
    X = rng.normal(size=(500, 6))
    fitted = measure(net, density=Kernel(alpha=0.3)).fit(
        X, np.arange(500) % 2
    )  # a warning is an error here
    assert not fitted.layer_saturated_.any()
