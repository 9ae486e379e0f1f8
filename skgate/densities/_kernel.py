r"""The kernel density of gating states: bandwidths, weights, ceilings, normalisers.

A *term* is a set of layers whose joint density is estimated. All terms of a measure go through
one pass over the pairs, as rows of a matrix of weights :math:`W`:

.. math::

    K_t(\sigma_j, \sigma_k) = \exp\Big(-\sum_l W_{tl} D_l[j, k]\Big), \qquad
    W_{tl} = \frac{1}{2\sigma_t^2}
"""

import numpy as np

from ..exceptions import SaturationWarning, warn_user

__all__ = [
    "AUTO_ALPHA",
    "SATURATED",
    "KernelTerms",
    "Spans",
    "as_scalar",
    "kernel_weights",
    "log_densities",
]

#: ``alpha="auto"`` by whether gates have spatial positions (ICLR 2021 submission, Section 4.4).
AUTO_ALPHA = {True: 0.04, False: 0.01}

_BOUND_SCALE = {"upper": 0.5, "lower": 0.125}
#: Share of its ceiling from which on an entropy says nothing.
SATURATED = 0.99
_GIVEN = " given Y"


class Spans:
    """Ranges of layers that are terms of a measure: each layer, prefixes, suffixes, all of them.

    Parameters
    ----------
    n_layers : int
    ranges : bool, default=False
        Whether prefixes and suffixes are among them.

    Attributes
    ----------
    edges : ndarray of shape (n_terms, 2)
        First layer, and the one after the last.
    layers, prefixes, suffixes : ndarray of shape (n_layers,)
        Positions of the terms of one layer, of the layers up to one, of the layers from one on.
    whole : int
        Position of the term of all layers.
    support : ndarray of shape (n_terms, n_layers), dtype bool
    """

    def __init__(self, n_layers, ranges=False):
        spans = [(i, i + 1) for i in range(n_layers)]
        if ranges:
            spans += [(0, i) for i in range(2, n_layers)]
            spans += [(i, n_layers) for i in range(1, n_layers - 1)]
        spans += [(0, n_layers)] if n_layers > 1 else []
        place = {span: i for i, span in enumerate(spans)}
        self.layers = np.arange(n_layers)
        self.whole = place[0, n_layers]
        firsts = self.layers if ranges else []
        self.prefixes = np.array([place[0, i + 1] for i in firsts], dtype=int)
        self.suffixes = np.array([place[i, n_layers] for i in firsts], dtype=int)
        self.edges = np.array(spans)
        self.support = (self.edges[:, :1] <= self.layers) & (self.layers < self.edges[:, 1:])


class KernelTerms:
    """The terms of a measure, for every combination of some ``alpha`` and some ``bound``.

    Parameters
    ----------
    states : GatingStates
    alpha, bound : scalar or sequence
        A sequence puts an axis in front of every result: alphas first, then bounds.
    bandwidth : {"variance", "n_gates"} or float
    joint : {"concatenated", "product"}
    ranges : bool, default=False
        Whether prefixes and suffixes of the layers are terms too.

    Attributes
    ----------
    spans : Spans
        The terms; its positions are attributes here too.
    weights : ndarray of shape (n_combinations * n_terms, n_layers)
    bandwidths : ndarray of shape (n_alphas, n_terms)
    """

    def __init__(self, states, *, alpha, bandwidth, bound, joint, ranges=False):
        n_layers = len(states.layers)
        self.rates = states.activation_rates()
        self.variances = np.array([np.sum(a * (1 - a)) for a in self.rates])
        self.n_samples = len(states)
        self.names = [*states.layer_names, "all layers together"]
        self.spans = Spans(n_layers, ranges)
        self.support = self.spans.support
        self.layers, self.prefixes = self.spans.layers, self.spans.prefixes
        self.suffixes, self.whole = self.spans.suffixes, self.spans.whole
        alphas = list(alpha) if _is_sequence(alpha) else [alpha]
        bounds = list(bound) if _is_sequence(bound) else [bound]
        self.has_alphas = _is_sequence(alpha)
        self.lead = (len(alphas),) * _is_sequence(alpha) + (len(bounds),) * _is_sequence(bound)
        self.bandwidth, self.joint, self.n_bounds = bandwidth, joint, len(bounds)
        self.layer_alphas = [_layer_alphas(states, a) for a in alphas]
        pairs = [self._bandwidths(states, a, bandwidth, joint) for a in self.layer_alphas]
        # (n_alphas, n_terms, n_layers) and (n_alphas, n_terms)
        per_layer, self.bandwidths = (np.stack(part) for part in zip(*pairs, strict=True))
        weights = np.stack([kernel_weights(per_layer, b) for b in bounds], axis=1)
        self.weights = (weights * self.support).reshape(-1, n_layers)

    def _bandwidths(self, states, alphas, bandwidth, joint):
        """Return sigma0^2 by term and layer, and the one of each term."""
        if isinstance(bandwidth, str):
            spread = self.variances if bandwidth == "variance" else np.array(states.n_gates)
            own = alphas * spread  # (n_layers,)
            summed = self.support @ own
        else:
            own = np.full(len(states.layers), float(bandwidth))
            summed = np.full(len(self.support), float(bandwidth))
        if joint == "product":
            return np.broadcast_to(own, self.support.shape), summed
        return np.repeat(summed[:, None], len(own), axis=1), summed

    def spreads(self, rates):
        """Return what bandwidths are proportional to at some activation rates.

        Returns
        -------
        spreads : ndarray of shape (n_directions, n_weights)
            That of all layers, or under a product kernel the one of each layer.
        """
        if self.bandwidth != "variance":
            return np.ones((1, len(self.weights)))
        variances = np.array([np.sum(a * (1 - a)) for a in rates])
        if self.joint == "product":
            # a layer that is not in a term has no weight there, whatever it is multiplied by
            return np.repeat(variances[:, None], len(self.weights), axis=1)
        summed = np.stack([self.support @ (alphas * variances) for alphas in self.layer_alphas])
        return np.repeat(summed[:, None], self.n_bounds, axis=1).reshape(1, -1)

    def shaped(self, values):
        """Split the first axis, (n_combinations * n_terms, ...), into (*lead, n_terms, ...)."""
        return values.reshape(*self.lead, len(self.support), *values.shape[1:])

    def reported_bandwidths(self):
        """Return sigma0^2 of all layers and of each, with an axis in front for several alphas."""
        bandwidths = self.bandwidths if self.has_alphas else self.bandwidths[0]
        return {
            "bandwidth": as_scalar(bandwidths[..., self.whole]),
            "bandwidths": bandwidths[..., self.layers],
        }

    def ceilings(self):
        """Return the lower of ``log n`` and the mean exponent (Jensen), (*lead, n_terms), nats."""
        mean_exponents = self.shaped(2 * self.weights @ self.variances)
        return np.minimum(mean_exponents, np.log(self.n_samples))

    def flag_saturated(self, entropies, base, *, given=None, codes=None):
        """Return which terms are within 1% of their ceiling, and warn, naming layers.

        States that cannot vary have an entropy of 0, which is right and not saturated.

        Parameters
        ----------
        entropies : ndarray of shape (*lead, n_terms), nats
        base : float
        given : ndarray of shape (n_terms,), default=None
            Entropies given a label, whose ceiling is that of the classes' sizes.
        codes : ndarray of shape (n_samples,), default=None
            The labels.

        Returns
        -------
        flags : ndarray of shape (*lead, n_terms), dtype bool
        """
        varies = (self.support @ self.variances > 0) | (self.n_samples == 1)
        found = [("", entropies, self.ceilings())]
        if given is not None:
            within = np.mean(np.log(np.bincount(codes)[codes]))
            found.append((_GIVEN, given, np.full_like(given, within)))
        told = [*self.layers, self.whole] if len(self.layers) > 1 else [0]
        flags, messages = False, []
        for suffix, values, ceilings in found:
            reached = varies & (values >= SATURATED * ceilings)
            flags = flags | reached
            messages += [
                self._tell(name + suffix, values[..., t], ceilings[..., t], reached[..., t], base)
                for name, t in zip(self.names, told, strict=False)
                if reached[..., t].any()
            ]
        if messages:
            _warn_saturated(messages, self.n_samples)
        return flags

    def _tell(self, name, values, ceilings, reached, base):
        value, ceiling = values[reached][0], ceilings[reached][0]
        unit = {2: "bits", np.e: "nats"}.get(base, f"units of log {base:g}")
        jensen = ceiling < np.log(self.n_samples) * (1 - 1e-12)
        reason = "Var/bandwidth" if jensen else "log n"
        if name.endswith(_GIVEN):
            reason = "log n of the classes"
        value, ceiling = value / np.log(base), ceiling / np.log(base)
        return f"{name} ({value:.2f} of {ceiling:.2f} {unit}, {reason})"


def _layer_alphas(states, alpha):
    return np.array(
        [AUTO_ALPHA[layer.spatial] if alpha == "auto" else alpha for layer in states.layers]
    )


def as_scalar(values):
    """Return an array without axes as a float, any other as it is."""
    return float(values) if values.ndim == 0 else values


def _is_sequence(value):
    return not isinstance(value, str) and np.ndim(value) > 0


def kernel_weights(bandwidths, bound):
    """Return the exponent that a unit of distance costs: a half or an eighth of the inverse.

    A bandwidth of 0 is that of gates that do not vary, or of a layer that is not in a term: its
    distances cost nothing. One so small that any distance is infinite stays finite, for 0 times it.
    """
    scale = _BOUND_SCALE[bound]
    bandwidths = np.where(bandwidths > 0, np.maximum(bandwidths, 1e-200), 0.0)
    return np.divide(scale, bandwidths, out=np.zeros_like(bandwidths), where=bandwidths > 0)


def log_densities(log_masses, weights, support, n_samples, states, queries):
    r"""Return the log-likelihood of each query under the normalised kernel density.

    Aitchison and Aitken's kernel sums to 1 over all states:

    .. math::

        \log \hat p_t(\sigma) = \log \frac1n \sum_k K_t(\sigma, \sigma_k)
            - \sum_l d_l \log(1 + e^{-W_{tl}})

    Gates that never varied have a bandwidth of 0 and a point mass: other states get ``-inf``.

    Parameters
    ----------
    log_masses : ndarray of shape (n_terms, n_queries)
    weights, support : ndarray of shape (n_terms, n_layers)
    n_samples : int
    states, queries : GatingStates

    Returns
    -------
    log_likelihoods : ndarray of shape (n_terms, n_queries), nats
    """
    point_mass = support & (weights == 0)
    normalisers = np.where(support & ~point_mass, np.log1p(np.exp(-weights)), 0.0)
    logs = log_masses - np.log(n_samples) - (normalisers @ states.n_gates)[:, None]
    for layer in np.flatnonzero(point_mass.any(axis=0)):
        differs = (queries.packed[layer] != states.packed[layer][0]).any(axis=1)
        logs[np.ix_(point_mass[:, layer], differs)] = -np.inf
    return logs


def _warn_saturated(messages, n_samples):
    lines = "\n  ".join(messages)
    warn_user(
        "Saturated: these entropies are within 1% of the ceiling of their estimator "
        f"(n = {n_samples} samples):\n  {lines}\n"
        "They would be the same for other states and say nothing about the network, and neither "
        "does an information or a total correlation made from them. A density='autoregressive', "
        "'chow-liu' or 'product' has no such ceiling. At log n, more samples or a larger alpha "
        "help too, at Var/bandwidth a smaller one; between the two, alpha only moves the number.",
        SaturationWarning,
    )
