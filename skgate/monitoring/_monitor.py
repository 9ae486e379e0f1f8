"""`ComplexityMonitor`: measures of a network while it trains."""

import contextlib
import copy
import os
import random
import warnings
from numbers import Integral

import numpy as np
from sklearn.utils import get_tags
from skorch.callbacks import Callback

from .. import densities
from ..capture import GateExtractor
from ..densities import PerLayer
from ..exceptions import SaturationWarning, warn_user
from ..gates import GatingEstimator, TotalCorrelation
from ..layers import LayerEstimator
from ..utils.files import atomic_write
from ._records import parse_lines, read_records, records_of, to_lines

DEFAULT = TotalCorrelation(max_samples=250, random_state=0)


class ComplexityMonitor(Callback):
    """Callback that measures a network while it trains, and keeps a record of each layer.

    It measures before the first epoch, after every ``every`` epochs and after the last. It is a
    callback for skorch's nets and :class:`ComplexityRegularizedClassifier`; in any other loop, call
    :meth:`record`. Training is unaffected: it ends with the same parameters, bit for bit.

    Parameters
    ----------
    measures : None, measure, list of measures, or dict of str to measure, default=None
        :class:`GatingEntropy`, :class:`GatingMI`, :class:`TotalCorrelation`,
        :class:`GibbsLayerMI`, :class:`BinnedLayerMI`, :class:`KDELayerMI`, with ``model=None`` (the
        network being trained) or with a :class:`GateExtractor` whose settings are applied to it.
        They are named by class unless a dict names them. ``random_state=None`` means 0, so that
        each step draws the same samples. ``density="auto"`` chooses at the first step and keeps
        the densities, so that no change is one of the density. The default,
        ``TotalCorrelation(max_samples=250)``, measures the entropies too.
    X : raw inputs of the network
        Samples to measure: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
    y : array-like of shape (n_samples,), default=None
        Class labels, for measures that need them and data that have none.
    groups : array-like of shape (n_samples,), default=None
        Samples of one group depend on each other, as in the ``fit`` of :class:`GatingEntropy`;
        measures of layers have no groups.
    every : int, default=20
        Number of epochs between measurements. A default record of the network in
        ``examples/quickstart.py`` takes 0.2 s on the digits, as long as twenty epochs do there.
    path : str, path or None, default=None
        File to write the records to, as JSON lines, a step at a time.

    Attributes
    ----------
    history_ : list of dict
        One record ``{"step": 20, "measure": "GatingEntropy", "layer": "3", "base": 2, "entropy":
        2.71, "saturated": False, ...}`` per step, measure and layer, and one with ``"layer": None``
        for the whole network, if the measure has values of it. ``step`` is the number of epochs
        trained. The quantities are fitted attributes of the measure: ``entropy`` is
        ``layer_entropy_`` of a layer, and ``entropy_`` of the network.
        ``pandas.DataFrame(history_)`` turns it into a table.

    Raises
    ------
    FileExistsError
        Before training: if the file at ``path`` holds the records of another training. A training
        that resumes, from a checkpoint or by ``warm_start``, keeps the records up to its step.

    Warns
    -----
    SaturationWarning
        Once for each measure and set of layers, not at each step; the records have the flag
        ``saturated`` of every step.

    See Also
    --------
    ComplexityDisplay, InformationPlaneDisplay : Draw the history.
    ComplexityRegularizedClassifier : Trains with the complexity as a penalty.

    Notes
    -----
    An error in a measure stops training; the records of earlier steps are kept. Cloning an
    estimator, as a search does, clones its callbacks: the history is then in ``net.callbacks_`` of
    the fitted net, and no two candidates can write to the same ``path``.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import ComplexityMonitor, GatingEntropy
    >>> from skgate.densities import Kernel
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(500, 10)
    >>> y = (X[:, 0] > 0).long()
    >>> net = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    >>> monitor = ComplexityMonitor(GatingEntropy(density=Kernel(alpha=0.1)), X)
    >>> for step in range(3):
    ...     _ = monitor.record(net, step)
    ...     for rows in torch.randperm(500).split(50):
    ...         loss = nn.functional.cross_entropy(net(X[rows]), y[rows])
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         optimizer.step()
    >>> [(r["step"], r["layer"], round(r["entropy"], 1)) for r in monitor.history_]
    [(0, '1', 5.3), (0, None, 5.3), (1, '1', 5.0), (1, None, 5.0), (2, '1', 4.5), (2, None, 4.5)]
    """

    def __init__(self, measures=None, X=None, y=None, *, groups=None, every=20, path=None):
        self.measures = measures
        self.X = X
        self.y = y
        self.groups = groups
        self.every = every
        self.path = path
        self.initialize()

    def initialize(self):
        """Check the parameters and start a new history."""
        # skorch takes attributes without a last underscore for parameters
        self.history_, self._started_, self._warned_ = [], False, set()
        self._densities_ = {}  # by measure and layer: what was chosen at the first step
        if self.X is None:
            raise ValueError("X is None; pass the samples to measure, ComplexityMonitor(X=...).")
        if not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(f"every={self.every!r}; need a number of epochs, 1 or more.")
        has_labels = not (hasattr(self.X, "shape") or isinstance(self.X, dict | tuple | list))
        if not self._named():
            raise ValueError(f"measures={self.measures!r} is empty; need one or more.")
        for name, measure in self._named().items():
            if not isinstance(measure, GatingEstimator | LayerEstimator):
                raise ValueError(
                    f"The measure {name!r} is {measure!r}; need an estimator such as "
                    "GatingEntropy(), GatingMI() or GibbsLayerMI()."
                )
            if not (measure.model is None or isinstance(measure.model, GateExtractor)):
                raise ValueError(
                    f"The measure {name!r} has a model of its own. Leave model=None (the network "
                    "being trained), or choose layers with model=GateExtractor(net, layers=...)."
                )
            if self.groups is not None and isinstance(measure, LayerEstimator):
                raise ValueError(
                    f"The measure {name!r} takes no groups. Use a monitor without groups for it, "
                    "and one with groups for measures of gates."
                )
            if get_tags(measure).target_tags.required and self.y is None and not has_labels:
                raise ValueError(
                    f"The measure {name!r} needs class labels, and y is None. Pass y=..., or a "
                    "Dataset that yields (inputs, label) as X."
                )
        return self

    def _named(self):
        """Return the measures by name."""
        measures = DEFAULT if self.measures is None else self.measures
        if isinstance(measures, dict):
            return measures
        measures = measures if isinstance(measures, list | tuple) else [measures]
        names = [type(measure).__name__ for measure in measures]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Several measures have the name {repeated[0]!r}. Name them in a dict: "
                f'measures={{"first": {repeated[0]}(...), "second": {repeated[0]}(...)}}.'
            )
        return dict(zip(names, measures, strict=True))

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self._start(len(net.history) + 1 if net.history else 0)

    def on_epoch_begin(self, net, **kwargs):
        # not in on_train_begin: a checkpoint restores the history after that
        if not self.history_:
            self.record(net.module_, len(net.history) - 1)

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) % self.every == 0:
            self.record(net.module_, len(net.history))

    def on_train_end(self, net, X=None, y=None, **kwargs):
        if self.history_ and self.history_[-1]["step"] < len(net.history):
            self.record(net.module_, len(net.history))

    def record(self, model, step):
        """Measure a network and keep the records.

        Parameters
        ----------
        model : torch.nn.Module or fitted estimator with a module
            It is left as it was: mode, buffers, gradients, hooks, random numbers.
        step : int
            Number of epochs trained, or another count that increases. If the file at ``path``
            exists, the first step continues the records before it and deletes those after.

        Returns
        -------
        records : list of dict
            The new records, which are also in ``history_``.

        Raises
        ------
        ValueError
            If ``step`` does not increase.
        FileExistsError
            If the file at ``path`` begins with this step or a later one.
        """
        if not isinstance(step, Integral) or isinstance(step, bool):
            raise ValueError(f"step={step!r}; need an integer, such as the number of epochs.")
        if not self._started_:
            self._start(step)
        if self.history_ and step <= self.history_[-1]["step"]:
            raise ValueError(
                f"step={step} came after step {self.history_[-1]['step']}; steps must increase. "
                "Use a new ComplexityMonitor for another training."
            )
        records, caught = [], {}
        with _generators_restored():
            for name, measure in self._named().items():
                fitted, warned = self._fit(measure, model, name)
                added = records_of(fitted, step=int(step), name=name)
                records += added
                caught |= {_warning_key(name, added, warning): warning for warning in warned}
        self.history_ += records
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(to_lines(records))
        new = {key: warning for key, warning in caught.items() if key not in self._warned_}
        self._warned_.update(new)
        for (name, _), warning in new.items():
            note = " This warning is given once; the records have `saturated` of each step."
            note = note if warning.category is SaturationWarning else ""
            warn_user(f"{name} at step {step}: {warning.message}{note}", warning.category)
        return records

    def _fit(self, measure, model, name):
        """Return a fitted copy of a measure, and the warnings that it gave."""
        if measure.model is not None:  # an extractor, of which only the settings count
            model = type(measure.model)(**measure.model.get_params(deep=False) | {"module": model})
        others = {k: v for k, v in measure.get_params(deep=False).items() if k != "model"}
        if name in self._densities_:
            others["density"] = PerLayer(self._densities_[name])
        measure = type(measure)(model, **copy.deepcopy(others))
        if "random_state" in measure.get_params() and measure.random_state is None:
            measure.set_params(random_state=0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SaturationWarning)
            groups = {} if self.groups is None else {"groups": self.groups}
            measure.fit(self.X, self.y, **groups)
        if "density" in others and isinstance(measure.density_, PerLayer):
            self._densities_[name] = measure.density_.densities
        return measure, caught

    def _start(self, first):
        """Keep the records before the first step, in the history and the file; open the file."""
        self.history_ = [record for record in self.history_ if record["step"] < first]
        if self.path is not None and not os.path.exists(self.path):
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(to_lines(self.history_))
        elif self.path is not None:
            written = self.read(self.path)
            if not written or written[0]["step"] >= first:
                steps = {record["step"] for record in written}
                raise FileExistsError(
                    f"path={str(self.path)!r} is the file of another training, of {len(steps)} "
                    f"steps, and this one begins with step {first}. Set another path, or delete "
                    "the file."
                )
            self._merge([record for record in written if record["step"] < first])
        self._started_ = True

    def _merge(self, records):
        """Keep the longer of the history and another copy of it; write it to the file."""
        shorter, longer = sorted((self.history_, records), key=len)
        if not to_lines(longer).startswith(to_lines(shorter)):
            raise ValueError(
                f"path={str(self.path)!r} holds the records of another training than the one being "
                "resumed. Set the path that it had, or a new one."
            )
        self.history_ = longer
        if self.path is not None:
            with atomic_write(self.path) as file:
                file.write(to_lines(longer).encode())

    def state_dict(self):
        """Return the history as text, and the densities, for a checkpoint."""
        chosen = {
            name: {layer: [type(d).__name__, d.get_params()] for layer, d in of_layers.items()}
            for name, of_layers in self._densities_.items()
        }
        return {"history": to_lines(self.history_), "densities": chosen}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned.

        Parameters
        ----------
        state : dict
        """
        self._merge(parse_lines(state["history"].splitlines()))
        self._densities_ = {
            name: {
                layer: getattr(densities, kind)(**params) for layer, (kind, params) in of.items()
            }
            for name, of in state["densities"].items()
        }

    @staticmethod
    def read(path):
        """Return the records in a file that a monitor wrote, or is writing.

        The last line is left out, with a warning, if it is incomplete: the training was killed.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        records : list of dict
            As in ``history_``.

        Raises
        ------
        ValueError
            If the file is anything else.
        """
        return read_records(path)


def _warning_key(name, records, warning):
    """Return what identifies a warning across steps: its text, or the layers that are saturated."""
    if warning.category is not SaturationWarning:
        return name, str(warning.message)
    return name, tuple(record["layer"] for record in records if record.get("saturated"))


@contextlib.contextmanager
def _generators_restored():
    """Restore the generators of Python and NumPy, from which a dataset may draw."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002
