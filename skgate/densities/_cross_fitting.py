"""`FittedDensity`: densities that score samples which they were not fitted to."""

from copy import copy
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..exceptions import warn_user
from ..pairwise import Engine
from ..utils.memory import give_back, physical_memory
from ..utils.parallel import run
from ..utils.samples import Samples
from ._base import Density, Estimate
from ._surprisals import Surprisals
from .labels import label_information, label_log_ratios

#: Seconds from which on a user is told beforehand.
_LONG = 3600
#: Seconds up to which a part leaves too little memory behind to be worth collecting.
_BRIEF = 1.0


class FittedDensity(Density):
    """Base of the densities that are cross-fitted: of each layer and all together.

    A subclass has ``_fit_model(states, seed, gpu)``, which returns a model with
    ``log_likelihoods(states, bounds)``, (n_terms, n_samples), nats: log p of some ranges of its
    layers. Its samples come in random order.

    In a chain, each layer is a link: states of the layer, or of the one before and the layer.
    ``_fit_link``, with the same arguments, returns a model with two terms, log p of the layer and
    log p given the one before; of one layer, only the first. Where ``_links`` is False, the second
    is the first.
    """

    #: Ranges that a model of all layers has: "any", those that are "prefixes", or only "all"; or
    #: "chain": layers are links, whose terms add up.
    _covers = "any"
    #: Whether a layer can be given the one before it.
    _links = False
    #: Whether a model is fitted on the GPU where there is work enough.
    _uses_gpu = False

    def fit_states(self, states, ranges):
        """Fit a model to each part of the layers."""
        rows = np.arange(len(states))
        models, _ = self._cross_fit(states, [(rows, rows[:0])], ranges, 0, Engine())
        return self._with_models(states.layers, ranges, models)

    def _with_models(self, layers, ranges, models, labelled=None):
        self.layers_, self._ranges, self._models, self._labelled = layers, ranges, models, labelled
        return self

    def log_likelihoods(self, states):
        """Return log p of each range, (n_ranges, n_samples), nats."""
        logs = np.zeros((len(self._ranges), len(states)))
        for part, model in zip(_parts(self._ranges, self._covers), self._models, strict=True):
            part.add(model.log_likelihoods(states.select(part.layers), part.bounds), logs)
        return logs

    def log_marginals(self, states, engine):
        """Return log p of new states, (n_layers + 1, n_samples), that of all layers last."""
        return self.log_likelihoods(states)[[*self._ranges.layers, self._ranges.joint]]

    def log_ratios(self, states, y_encoded, engine):
        """Return log p(y|sigma) / p(y) of new states, all layers together."""
        fitted, labels, *options = self._labelled
        return label_log_ratios(fitted, labels, states, y_encoded, *options)

    def estimate(self, states, label_sets, ranges, *, cv, errors, seed, engine, classifier=None):
        """Return an `Estimate` for each set of labels; the entropy is that of all of them."""
        samples = Samples(states.groups, len(states))
        models, logs = self._cross_fit(states, _folds(samples, cv, seed), ranges, seed, engine)
        marginal, chosen = Surprisals(-logs, samples), self._chosen()
        options = seed, classifier
        labelled = [y for y in label_sets if y is not None]
        gains = iter(self._label_gains(states, labelled, ranges, *options) if labelled else [])
        ceilings = ranges.mask @ np.array(states.n_gates) * np.log(2)
        unsaturable, estimates = np.zeros(len(ranges), bool), []
        for y in label_sets:
            given = None if y is None else Surprisals(marginal.rows - next(gains), samples)
            of_labels = None if y is None else (states, y, *options)
            density = copy(chosen)._with_models(states.layers, ranges, models, of_labels)
            found = marginal, given, ceilings, unsaturable, density
            estimates.append(Estimate(*found, held_out=cv is not None))
        return estimates

    def _label_gains(self, states, label_sets, ranges, seed, classifier):
        """Return log p(y|sigma) / p(y) of all rows, (n_ranges, n_rows), for each set of labels."""
        return label_information(states, label_sets, ranges, seed, classifier)

    def independent(self):
        """Return the reference of the total correlation: independent units."""
        from ._per_layer import IndependentUnits  # which derives from this class

        return IndependentUnits()

    def _chosen(self):
        """Return a new density of the kind that was fitted."""
        return copy(self)

    def _cross_fit(self, states, folds, ranges, seed, engine):
        """Return the models of the first fold's rows, and log-likelihoods.

        These are (n_ranges, n_rows), nats, of each row under a density of the fold in which it is
        to be scored.
        """
        parts = _parts(ranges, self._covers)
        seconds = self._require_means(parts, states, len(folds))
        models, logs = [], np.zeros((len(ranges), len(states)))
        unit = "{l_bar}{bar}| about {n:.0f} of {total:.0f} s [{elapsed} gone, {remaining} left]"
        with tqdm(total=sum(seconds), bar_format=unit, disable=not engine.verbose) as bar:
            for part, cost in zip(parts, seconds, strict=True):
                bar.set_description(part.name(states))
                own = states.select(part.layers)
                if part.bounds is None:
                    model, found = self._cross_fit_link(own, folds, seed, engine)
                else:
                    model, found = self._cross_fit_part(own, folds, seed, engine, part.bounds)
                models.append(model)
                part.add(found, logs)
                if cost > _BRIEF:
                    give_back()
                bar.update(cost)
        return models, logs

    def _require_means(self, parts, states, n_fits):
        """Return the seconds that each part takes; raise or warn, before any work, if too much."""
        memory, all_seconds = physical_memory(), []
        for part in parts:
            layers = tuple(states.layers[index] for index in part.layers)
            cost = self._link_cost if part.bounds is None else self._cost
            seconds, n_bytes = cost(layers, len(states), n_fits)
            all_seconds.append(seconds)
            if n_bytes > memory:
                raise ValueError(
                    f"{type(self).__name__} needs about {n_bytes / 1e9:.0f} GB for "
                    f"{part.name(states)} ({len(states)} rows of "
                    f"{sum(layer.n_gates for layer in layers)} gates), and this machine has "
                    f"{memory / 1e9:.0f} GB. density='auto' takes what fits; or measure single "
                    "layers, states.select(name)."
                )
        if (total := sum(all_seconds)) > _LONG:
            warn_user(
                f"{type(self).__name__} takes about {total / 3600:.0f} hours for these "
                f"{len(states)} rows of {sum(states.n_gates)} gates. density='auto' takes at most "
                "a minute a layer; max_samples takes fewer samples."
            )
        return all_seconds

    def _cost(self, layers, n_rows, n_fits):
        """Return estimates of the seconds of two cores, and of the bytes, that a part takes.

        It is fitted ``n_fits`` times, and each row is scored once. The base guesses, from the
        number of gates.
        """
        return 1e-8 * sum(layer.n_gates for layer in layers) * n_rows * n_fits, 0

    def _link_cost(self, layers, n_rows, n_fits):
        """Return the same of a link, which may leave out the layer before."""
        return self._cost(layers if self._links else layers[-1:], n_rows, n_fits)

    def _cross_fit_link(self, states, folds, seed, engine):
        """Return the model of the first fold, and terms of rows scored, (n_terms, n_rows), nats."""
        if self._links:
            return self._cross_fit_part(states, folds, seed, engine, None)
        n_terms, own = len(states.layers), states.select([-1])
        model, logs = self._cross_fit_part(own, folds, seed, engine, np.array([(0, 1)]))
        return LayerAlone(model), np.broadcast_to(logs, (n_terms, logs.shape[1]))

    def _cross_fit_part(self, states, folds, seed, engine, bounds):
        """Return the same of ranges of some layers, or of a link if ``bounds`` is None."""
        seconds, _ = self._cost(states.layers, len(states), len(folds))
        gpu = engine.gpu(1e9 * seconds) if self._uses_gpu else None
        shared = self, states, seed, gpu, bounds
        results = run(_fold, shared, folds, engine.n_jobs, 1e9 * seconds)
        first = logs = None
        for (_, test), (model, values) in zip(folds, results, strict=True):
            if first is None:  # the models of the other folds are not kept
                first, logs = model, np.zeros((len(values), len(states)))
            logs[:, test] = values
        return first, logs


def _fold(density, states, seed, gpu, bounds, train, test):
    groups = None if states.groups is None else states.groups[train]
    rows = train[Samples(groups, len(train)).shuffled_rows(seed)]
    fit = density._fit_link if bounds is None else density._fit_model
    model = fit(states[rows], seed, gpu)
    return model, model.log_likelihoods(states[test], bounds)


@dataclass
class LayerAlone:
    """A link whose layer is not given the one before: both terms are its log p."""

    model: object

    def log_likelihoods(self, states, bounds):
        logs = self.model.log_likelihoods(states.select([-1]), np.array([(0, 1)]))
        return np.broadcast_to(logs, (len(states.layers), *logs.shape[1:]))


@dataclass
class Part:
    """Layers that have a model of their own.

    Attributes
    ----------
    layers : list of int
    bounds : ndarray of shape (n_terms, 2) or None
        The ranges among these layers that are its terms; None for a link.
    members : list of ndarray
        Positions of the ranges that each term is added to.
    """

    layers: list
    bounds: np.ndarray | None
    members: list

    def add(self, terms, logs):
        """Add terms, (n_terms, ...), to the log-likelihoods of ranges, (n_ranges, ...)."""
        for members, term in zip(self.members, terms, strict=True):
            logs[members] += term

    def name(self, states):
        names = [states.layer_names[index] for index in self.layers]
        if self.bounds is None or len(names) == 1:
            return f"layer {names[-1]}"
        return f"layers {names[0]} to {names[-1]}"


def _parts(ranges, covers):
    """Return the `Part` of each model.

    A layer has a model of its own. A model of all layers that leaves out gates gives every other
    range. One that predicts gates from those before them gives the prefixes alone, so that it is
    fitted once more in the opposite order. One that gives only all its layers is fitted to each.
    Links add up to all ranges.
    """
    n_layers, bounds = ranges.mask.shape[1], ranges.bounds
    if covers == "chain":
        return [_link(layer, bounds) for layer in range(n_layers)]
    parts = [([layer], [layer], [(0, 1)]) for layer in range(n_layers)]
    several = [r for r in range(len(bounds)) if bounds[r, 1] - bounds[r, 0] > 1]
    if covers == "all":
        spans = {r: list(range(*bounds[r])) for r in several}
        parts += [(layers, [r], [(0, len(layers))]) for r, layers in spans.items()]
    else:
        forward = [r for r in several if covers == "any" or bounds[r, 0] == 0]
        backward = [r for r in several if r not in forward]
        if forward:
            parts.append((list(range(n_layers)), forward, bounds[forward]))
        if backward:
            layers = list(range(n_layers))[::-1]
            bounds = [(0, n_layers - start) for start in bounds[backward, 0]]
            parts.append((layers, backward, bounds))
    return [Part(layers, np.array(own), [[r] for r in at]) for layers, at, own in parts]


def _link(layer, bounds):
    """Return the `Part` of a layer in a chain, which ranges begin with or go through."""
    first, stop = bounds.T
    members = [np.flatnonzero(first == layer)]
    if layer:
        members.append(np.flatnonzero((first < layer) & (layer < stop)))
    return Part([layer - 1, layer] if layer else [0], None, members)


def _folds(samples, cv, seed):
    """Return the rows to fit and to score of each fold; the first is fitted to all rows."""
    if cv is not None and len(samples) < cv:
        of = "samples" if samples.are_rows else "groups of rows that depend on each other"
        name = "n_samples" if samples.are_rows else "n_groups"
        raise ValueError(
            f"cv={cv} folds need at least as many {of}; got {name}={len(samples)}. "
            "Pass more of them, or cv=None for the in-sample value, which is too low."
        )
    all_rows = np.arange(len(samples.of_rows))
    if cv is None:
        return [(all_rows, all_rows)]
    return [(all_rows, all_rows[:0]), *samples.folds(cv, seed)]
