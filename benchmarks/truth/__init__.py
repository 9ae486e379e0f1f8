"""Distributions of gates whose entropy, total correlation and label information are known.

    from benchmarks.truth import CASES

    case = CASES["xor triples"]
    gates, y, groups = case.sample(500, np.random.default_rng(0))
    case.entropy, case.total_correlation, case.mi_xy     # bits; mi_xy is None without labels

The values are closed forms, sums over all states, or means over exact likelihoods
(`stored.py`, with standard errors; ``python -m benchmarks.truth`` computes them again). None of it
uses skgate.

    _base        Distribution: what every case answers
    closed       independent gates, trees, k of d, XOR triples, half constant
    enumerated   Ising, codes with given probabilities, deterministic networks
    latent       products given a hidden variable: classes, mixtures, Gaussian factors
    rows         repeated, augmented and clustered rows, all states once: not independent
"""

import numpy as np

from ._base import Distribution
from .closed import HalfConstant, Independent, KHot, Tree, XorTriples
from .enumerated import Codes, DeterministicNet, Ising
from .latent import DichotomisedGaussian, LowRank, ProductMixture, SharedRates
from .rows import AllStatesOnce, Augmented, Clustered

__all__ = [
    "CASES",
    "AllStatesOnce",
    "Augmented",
    "Clustered",
    "Codes",
    "DeterministicNet",
    "DichotomisedGaussian",
    "Distribution",
    "HalfConstant",
    "Independent",
    "Ising",
    "KHot",
    "LowRank",
    "ProductMixture",
    "SharedRates",
    "Tree",
    "XorTriples",
]


def _cases():
    coins = Independent(np.full(10, 0.5))
    gaussian = DichotomisedGaussian(100)
    return {
        "one rare gate": Independent([0.02]),
        "ten coins": coins,
        "independent": Independent(np.linspace(0.02, 0.98, 40)),
        "rare gates": Independent(np.full(200, 0.02)),
        "chain": Tree.chain(30),
        "tree": Tree.random(100),
        "ising": Ising(12),
        "k of d": KHot(3, 30),
        "xor triples": XorTriples(10),
        "half constant": HalfConstant(500),
        "equal codes": Codes.equal(1000, 200),
        "zipf codes": Codes.zipf(4096, 60),
        "net": DeterministicNet([200]),
        "deep net": DeterministicNet([8, 100, 100]),
        "dichotomised gaussian": gaussian,
        "mixture": ProductMixture(5, 60),
        "rare class": SharedRates([0.98, 0.02], [[0.3, 0.6]], [50]),
        "noisy copies": SharedRates([0.5, 0.5], [[0.2, 0.8]], [300], flip=0.11),
        "some copies": SharedRates([0.5, 0.5], [[0.2, 0.8], [0.5, 0.5]], [40, 260], flip=0.11),
        "weak gates": SharedRates([0.5, 0.5], [[0.44, 0.56]], [50]),
        "low rank": LowRank(300),
        "repeated rows": Augmented(Independent(np.linspace(0.1, 0.9, 100)), 10),
        "augmented rows": Augmented(Independent(np.linspace(0.1, 0.9, 100)), 10, flip=0.05),
        "clustered rows": Clustered(gaussian, 10),
        "all states once": AllStatesOnce(10),
    }


#: The cases of the bench by name.
CASES = _cases()
