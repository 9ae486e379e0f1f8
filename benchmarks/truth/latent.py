"""Gates that are independent given a hidden variable."""

import numpy as np
from scipy.special import expit, gammaln, log_expit, log_ndtr, logsumexp, ndtr, xlog1py, xlogy

from ._base import Distribution, Estimated, bits


class SharedRates(Distribution):
    """Blocks of gates, open with one rate a block and hidden class z; the label is z, or z flipped.

    The numbers K_b of open gates in the blocks suffice:
    p(K, z) = p_z Π_b (d_b choose K_b) r_bz^K_b (1 - r_bz)^(d_b - K_b), H = -Σ_K p(K) log2 [p(K) /
    Π_b (d_b choose K_b)] and I(Σ;Y) = H(Y) - Σ_K p(K) H(Y|K), sums over all K. ``flip`` is the
    probability that the label of one of two classes is the other one.
    """

    def __init__(self, prior, block_rates, block_sizes, flip=0.0):
        self.prior, self.flip, self.sizes = np.asarray(prior), flip, block_sizes
        self.block_rates = np.asarray(block_rates, dtype=float)  # (blocks, classes)
        self.rates = np.repeat(self.block_rates @ self.prior, block_sizes)
        log_choices, log_given = np.zeros(1), np.zeros((1, len(prior)))
        for size, rates in zip(block_sizes, self.block_rates, strict=True):
            k = np.arange(size + 1)
            choices = gammaln(size + 1) - gammaln(k + 1) - gammaln(size - k + 1)
            given = xlogy(k[:, None], rates) + xlog1py(size - k[:, None], -rates)
            log_choices = np.add.outer(log_choices, choices).ravel()
            log_given = (log_given[:, None] + given).reshape(-1, len(prior))
        log_joint = log_given + np.log(self.prior)  # of one state with counts K, (counts, classes)
        log_p = logsumexp(log_joint, axis=1)
        weight = np.exp(log_p + log_choices)  # p(K)
        self.entropy = -weight @ log_p / np.log(2)
        posterior = np.exp(log_joint - log_p[:, None])
        self.mi_xy = bits(self._labels(self.prior)) - weight @ bits(self._labels(posterior))

    def _labels(self, p):
        """Return the probabilities of labels from those of hidden classes."""
        return p if not self.flip else (1 - self.flip) * p + self.flip * p[..., ::-1]

    def sample(self, n, rng):
        z = rng.choice(len(self.prior), n, p=self.prior)
        rates = np.repeat(self.block_rates[:, z], self.sizes, axis=0).T  # (n, d)
        y = np.where(rng.random(n) < self.flip, 1 - z, z) if self.flip else z
        return rng.random(rates.shape) < rates, y, None


class ProductMixture(Estimated):
    """p(σ) = Σ_z p_z Π_i r_zi^σ_i (1 - r_zi)^(1 - σ_i), with the component z for a label.

    H and I(Σ;Y) are means of 10⁵ exact likelihoods and posteriors.
    """

    def __init__(self, n_components, n_gates, seed=0):
        rng = np.random.default_rng(seed)
        self.class_rates = rng.dirichlet(np.full(n_components, 3.0))
        self.block_rates = rng.beta(1.5, 1.5, (n_components, n_gates))
        self.block_rates = 0.35 + 0.3 * self.block_rates
        self.rates = self.class_rates @ self.block_rates
        super().__init__()

    def __repr__(self):
        return f"ProductMixture({len(self.class_rates)}, {self.n_gates})"

    def sample(self, n, rng):
        z = rng.choice(len(self.class_rates), n, p=self.class_rates)
        return rng.random((n, self.n_gates)) < self.block_rates[z], z, None

    def log_joint(self, gates):
        log_open, log_closed = np.log(self.block_rates), np.log1p(-self.block_rates)
        given = gates @ (log_open - log_closed).T + log_closed.sum(axis=1)
        return given + np.log(self.class_rates)


class DichotomisedGaussian(Estimated):
    """Gate i is open where c_i z + √(1 - c_i²) ε_i > t_i, with Gaussian z and ε_i.

    p(σ) = ∫ N(z) Π_i Φ(±(c_i z - t_i) / √(1 - c_i²)) dz by the trapezoidal rule, and H the mean of
    10⁵ surprisals. The rates are Φ(-t_i).
    """

    def __init__(self, n_gates, seed=0):
        rng = np.random.default_rng(seed)
        self.factor, self.threshold = rng.uniform(0.2, 0.9, n_gates), rng.normal(0, 0.7, n_gates)
        self.rates = ndtr(-self.threshold)
        super().__init__()

    def __repr__(self):
        return f"DichotomisedGaussian({self.n_gates})"

    def _scores(self, z):
        return (np.multiply.outer(z, self.factor) - self.threshold) / np.sqrt(1 - self.factor**2)

    def sample(self, n, rng):
        return self.given_factor(rng.normal(size=n), rng), None, None

    def given_factor(self, z, rng):
        """Return a row for each value of the factor."""
        return rng.random((len(z), self.n_gates)) < ndtr(self._scores(z))

    def log_joint(self, gates):
        z, step = np.linspace(-8, 8, 801, retstep=True)
        scores = self._scores(z)  # (801, d)
        log_open, log_closed = log_ndtr(scores), log_ndtr(-scores)
        given = gates @ (log_open - log_closed).T + log_closed.sum(axis=1)
        log_weight = -(z**2) / 2 - np.log(2 * np.pi) / 2 + np.log(step)
        return logsumexp(given + log_weight, axis=1, keepdims=True)


class LowRank(Estimated):
    """Gates are logistic in two Gaussian factors, and so is the label in the first of them.

    Gate i is open with probability expit(b_i + w_i · z), z in the plane, and the label is 1 with
    probability expit(3.6 z_1). p(σ, y) is an integral over the plane, by the trapezoidal rule; H
    and I(Σ;Y) are means over 10⁵ rows. The rates are integrals over one Gaussian.
    """

    def __init__(self, n_gates, slope=3.6, seed=0):
        rng = np.random.default_rng(seed)
        self.weights, self.offsets = rng.normal(0, 0.5, (2, n_gates)), rng.normal(0, 1, n_gates)
        self.slope, self.class_rates = slope, np.array([0.5, 0.5])
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        spread = np.linalg.norm(self.weights, axis=0)
        self.rates = weights @ expit(np.outer(nodes, spread) + self.offsets) / weights.sum()
        super().__init__()

    def __repr__(self):
        return f"LowRank({self.n_gates})"

    def sample(self, n, rng):
        z = rng.normal(size=(n, 2))
        gates = rng.random((n, self.n_gates)) < expit(z @ self.weights + self.offsets)
        return gates, (rng.random(n) < expit(self.slope * z[:, 0])).astype(int), None

    def log_joint(self, gates):
        axis, step = np.linspace(-5.5, 5.5, 74, retstep=True)
        z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)  # (74², 2)
        logits = z @ self.weights + self.offsets
        given = gates @ logits.T + log_expit(-logits).sum(axis=1)
        given += 2 * np.log(step) - np.log(2 * np.pi) - (z**2).sum(axis=1) / 2
        sides = log_expit(np.outer([-self.slope, self.slope], z[:, 0]))  # (2, 74²)
        return np.stack([logsumexp(given + side, axis=1) for side in sides], axis=1)
