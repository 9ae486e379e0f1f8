"""`Auto`: for each layer, the best of the densities that fit the budget."""

from numbers import Real

import numpy as np
from sklearn.base import clone

from ..utils.memory import physical_memory
from ..utils.samples import Samples
from ..utils.sklearn import Interval
from ._base import LayerChoice
from ._per_layer import PerLayer
from .autoregression._autoregressive import Autoregressive
from .convolution._convolutional import Convolutional
from .forests._chow_liu import ChowLiu
from .forests._product import Product

#: What a convolution may take of the budget where a simpler one will do, and others beside it.
_SHARE = 6
#: One in so many samples judges the densities; with fewer samples there is no choice.
_JUDGED = 5


class Auto(PerLayer):
    """For each layer, the density that predicts new samples best, of those that fit a budget.

    The candidates are :class:`Product`, :class:`ChowLiu`, :class:`Autoregressive` and, for feature
    maps, tokens and vectors too wide for these, :class:`Convolutional`. Those whose estimated time
    and memory fit are fitted to four fifths of the samples; the rest decides. The time is estimated
    from sizes, so that the choice is always the same for the same seed. All layers together are the
    chain of :class:`PerLayer`, which is what a fitted measure has as ``density_``: to keep a choice
    for other states of the same layers, pass it as their density.

    Parameters
    ----------
    budget : float, default=60
        Seconds that a layer may take on two cores, the choice included.

    Attributes
    ----------
    layers_ : tuple of GateLayer

    See Also
    --------
    skgate.GatingEntropy : Whose ``density="auto"`` this is, and ``budget``.

    Notes
    -----
    The choice is made once, from all samples, not in each fold. That can lower a value by about the
    standard error of the difference between the two best candidates, where they are as good.

    Examples
    --------
    Twenty gates that follow three numbers, and twenty fair coins:

    >>> import numpy as np
    >>> from skgate import GatingEntropy
    >>> rng = np.random.default_rng(0)
    >>> depends = rng.normal(size=(1000, 3)) @ rng.normal(size=(3, 20)) > 0
    >>> for gates in (depends, rng.random((1000, 20)) < 0.5):
    ...     H = GatingEntropy(random_state=0).fit(gates)
    ...     print(round(H.entropy_), H.layer_densities_[0].density)
    8 Autoregressive()
    20 Product()
    """

    _parameter_constraints = {"budget": [Interval(Real, 0, None, closed="neither")]}

    def __init__(self, budget=60):
        self.budget = budget

    def _validate_params(self):
        super(PerLayer, self)._validate_params()

    def _cost(self, layers, n_rows, n_fits):
        costs = self._affordable(layers, n_rows, n_fits)[0].values()
        seconds, n_bytes = zip(*costs, strict=True)
        choice = sum(seconds) / n_fits if len(seconds) > 1 else 0.0
        return max(seconds) + choice, max(n_bytes)

    def _affordable(self, layers, n_rows, n_fits):
        """Return the cost of each density to try, by density, and why others are not tried."""

        def cost(density):
            return density._link_cost(layers, n_rows, n_fits)

        budget, last_resort, tried = self.budget, Product(), []
        autoregressive = Autoregressive()
        if len(layers[-1].shape) > 1 or cost(autoregressive)[0] > budget:
            kinds = [Convolutional(w, i) for i in (Convolutional().max_iter, 0) for w in (5, 3)]
            fast = [kind for kind in kinds if cost(kind)[0] <= budget / _SHARE]
            convolution = fast[0] if fast else kinds[-1]
            if cost(convolution)[0] <= budget:
                last_resort = convolution
                budget /= _SHARE  # of others, which hardly ever predict maps better
            else:
                tried.append(convolution)
        if len(layers) > 1 and cost(autoregressive)[0] > budget:
            autoregressive = Autoregressive(given_previous=False)
        affordable, left_out = {last_resort: cost(last_resort)}, {}
        for density in (*tried, autoregressive, ChowLiu()):
            seconds, n_bytes = cost(density)
            if n_bytes > physical_memory() / 2:
                left_out[repr(density)] = f"needs about {n_bytes / 1e9:.0f} GB"
            elif seconds * (1 + 1 / n_fits) > budget:  # a fit for the choice
                why = f"takes about {seconds:.2g} s, more than {budget:.2g} of budget={self.budget}"
                left_out[repr(density)] = why
            else:
                affordable[density] = seconds, n_bytes
        return affordable, left_out

    def _cross_fit(self, *args):
        self._choices = {}
        return super()._cross_fit(*args)

    def _cross_fit_link(self, states, folds, seed, engine):
        choice = self._choose(states, len(folds), seed, engine)
        self._choices = {**self._choices, states.layer_names[-1]: choice}
        return clone(choice.density)._cross_fit_link(states, folds, seed, engine)

    def _choose(self, states, n_fits, seed, engine):
        """Return the `LayerChoice` of a link."""
        affordable, left_out = self._affordable(states.layers, len(states), n_fits)
        if len(affordable) == 1:
            return LayerChoice(*affordable, {}, left_out)
        samples = Samples(states.groups, len(states))
        n_judged = len(samples) // _JUDGED
        if n_judged < 2:
            few = f"{len(samples)} samples are too few"
            others = [repr(density) for density in affordable if not isinstance(density, Product)]
            return LayerChoice(Product(), {}, dict.fromkeys(others, few) | left_out)
        drawn = np.random.default_rng(seed).permutation(len(samples))[:n_judged]
        judged = np.isin(samples.of_rows, drawn)
        train, test, held_out = states[~judged], states[judged], {}
        rows = np.arange(len(train))
        for density in affordable:
            options = train, [(rows, rows[:0])], seed, engine
            model, _ = clone(density)._cross_fit_link(*options)
            alone, *given = -model.log_likelihoods(test, None).mean(axis=1)
            if given and density._links and given[0] > alone:
                density, given = clone(density).set_params(given_previous=False), [alone]
            held_out[density] = np.mean([alone, *given]) / states.n_gates[-1] / np.log(2)
        best = min(held_out, key=held_out.get)
        return LayerChoice(best, {repr(d): float(v) for d, v in held_out.items()}, left_out)

    def _chosen(self):
        chosen = PerLayer({name: choice.density for name, choice in self._choices.items()})
        chosen._choices = self._choices
        return chosen
