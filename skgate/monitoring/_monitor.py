"""`ComplexityMonitor`: measures of a network while it trains."""

import contextlib
import copy
import json
import math
import os
import random
import warnings
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import get_tags
from skorch.callbacks import Callback

from ..capture import GateExtractor
from ..exceptions import SaturationWarning, warn_user
from ..gates import GatingEstimator, TotalCorrelation
from ..layers import LayerEstimator
from ..utils.files import written_whole
from ._records import records_of

__all__ = ["ComplexityMonitor"]

DEFAULT = TotalCorrelation(max_samples=250, random_state=0)


class ComplexityMonitor(Callback):
    """Callback that measures a network while it trains, and keeps a record of each layer.

    Measures before the first epoch, after every ``every``-th and after the last. A callback of
    skorch's nets and of :class:`ComplexityRegularizedClassifier`; :meth:`record` does the same in
    any other loop. The training is the one that it would be without: the same parameters, bit for
    bit.

    Parameters
    ----------
    measures : None, measure, list of measures, or dict of str to measure, default=None
        What to measure: :class:`GatingEntropy`, :class:`GatingMI`, :class:`TotalCorrelation`,
        :class:`GibbsLayerMI`, :class:`BinnedLayerMI`, :class:`KDELayerMI`, with ``model=None``,
        which stands for the network of the moment, or with a :class:`GateExtractor` of any network,
        whose ``layers``, ``sampling`` and other settings are those for this one. Names are those of
        the classes unless a dict gives them. ``random_state=None`` is taken as 0, so that each step
        draws the same samples. By default ``TotalCorrelation(max_samples=250)``, which has the
        entropies too.
    X : raw inputs of the network
        Samples to measure: an array, a tensor, a dict of these, a ``Dataset`` or ``DataLoader``.
    y : array-like of shape (n_samples,), default=None
        Class labels, for the measures that need some and data that have none.
    every : int, default=20
        Every which epoch is measured. 30 epochs of ``NeuralNetClassifier`` on the digits, with
        the network of ``examples/quickstart.py``, take 0.47 s, and three default records 4.8% of
        that; with ``every=1``, 31 records take 49%. An epoch of its MNIST network takes 11 s, and a
        record 0.02 s.
    path : str, path or None, default=None
        File to write the records to, as JSON lines, a step at a time.

    Attributes
    ----------
    history_ : list of dict
        A record ``{"step": 20, "measure": "GatingEntropy", "layer": "3", "base": 2, "entropy":
        2.71, "saturated": False, ...}`` a step, measure and layer, and one with ``"layer": None``
        for the whole network, where the measure has values of it. ``step`` is the number of epochs
        that were trained. The rest are the attributes of the fitted measure that are a number, or
        an array of one a layer: ``layer_entropies_`` is ``entropy`` of each layer.
        ``pandas.DataFrame(history_)`` makes a table of it.

    Raises
    ------
    ValueError
        If measures, data or ``every`` are not as described.
    FileExistsError
        Before training: if the file at ``path`` holds the records of another one. A training that
        goes on, from a checkpoint or by ``warm_start``, keeps the records up to its step.

    Warns
    -----
    SaturationWarning
        Once for each measure and set of layers, and not again at each step; ``saturated`` of the
        records has the flag of all steps.

    See Also
    --------
    ComplexityDisplay, InformationPlaneDisplay, EntanglementDisplay : Draw the history.
    ComplexityRegularizedClassifier : Trains with the complexity as a penalty.

    Notes
    -----
    A measure that raises an error ends the training; the records of the steps before are kept.
    scikit-learn clones callbacks along with an estimator, as a search does: the history is then in
    ``net.callbacks_`` of the fitted net, and no two candidates can write to one ``path``.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import ComplexityMonitor, GatingEntropy
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(500, 10)
    >>> y = (X[:, 0] > 0).long()
    >>> net = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    >>> monitor = ComplexityMonitor(GatingEntropy(alpha=0.1), X)
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

    def __init__(self, measures=None, X=None, y=None, *, every=20, path=None):
        self.measures = measures
        self.X = X
        self.y = y
        self.every = every
        self.path = path
        self.initialize()

    def initialize(self):
        """Start a new history."""
        self._check()
        self.history_ = []
        self.begun_ = False
        self.told_ = set()
        return self

    def _check(self):
        """Raise unless the parameters fit together."""
        if self.X is None:
            raise ValueError("X is None; need the samples to measure, ComplexityMonitor(X=...).")
        if not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(f"every={self.every!r}; need a number of epochs, 1 or more.")
        brings_labels = not (hasattr(self.X, "shape") or isinstance(self.X, dict | tuple | list))
        if not self._named():
            raise ValueError(f"measures={self.measures!r} holds none; need one or more.")
        for name, measure in self._named().items():
            if not isinstance(measure, GatingEstimator | LayerEstimator):
                raise ValueError(
                    f"The measure {name!r} is {measure!r}; need an estimator such as "
                    "GatingEntropy(), GatingMI() or GibbsLayerMI()."
                )
            if not (measure.model is None or isinstance(measure.model, GateExtractor)):
                raise ValueError(
                    f"The measure {name!r} has a model of its own. Leave model=None, which stands "
                    "for the network that is trained, or choose its layers by model=GateExtractor("
                    "net, layers=...)."
                )
            if get_tags(measure).target_tags.required and self.y is None and not brings_labels:
                raise ValueError(
                    f"The measure {name!r} needs class labels, and y is None. Pass y=..., or a "
                    "Dataset that yields (inputs, label) as X."
                )

    def _named(self):
        """Return the measures by name."""
        measures = DEFAULT if self.measures is None else self.measures
        if isinstance(measures, dict):
            return measures
        measures = measures if isinstance(measures, list | tuple) else [measures]
        names = [type(measure).__name__ for measure in measures]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Several measures have the name {twice[0]!r}. Name them in a dict: "
                f'measures={{"first": {twice[0]}(...), "second": {twice[0]}(...)}}.'
            )
        return dict(zip(names, measures, strict=True))

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        n_done = len(net.history)
        self._begin(n_done + 1 if n_done else 0)

    def on_epoch_begin(self, net, **kwargs):
        # not when training begins, when a checkpoint has not given the history back yet
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
            It comes back as it was: mode, buffers, gradients, hooks, random numbers.
        step : int
            Greater than the last one, such as the number of epochs that were trained. Where
            ``path`` is a file of records, the first step goes on from those before it, and cuts
            off the others.

        Returns
        -------
        records : list of dict
            Those that were added to ``history_``.

        Raises
        ------
        ValueError
            If ``step`` does not go up.
        FileExistsError
            If the file at ``path`` begins with this step, or with a later one.
        """
        if not isinstance(step, Integral) or isinstance(step, bool):
            raise ValueError(f"step={step!r}; need an integer, such as the number of epochs.")
        if not self.begun_:
            self._begin(step)
        if self.history_ and step <= self.history_[-1]["step"]:
            raise ValueError(
                f"step={step} came after step {self.history_[-1]['step']}; steps go up. Take a new "
                "ComplexityMonitor for another training."
            )
        records, caught = [], {}
        with _generators_restored():
            for name, measure in self._named().items():
                fitted, told = self._fit(measure, model)
                added = records_of(fitted, step=int(step), name=name)
                records += added
                caught.update(_by_what_they_say(name, added, told))
        self.history_ += records
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_lines(records))
        new = {key: told for key, told in caught.items() if key not in self.told_}
        self.told_.update(new)
        for (name, *_), told in new.items():
            once = " This is said once; the records have `saturated` of each step."
            once = once if told.category is SaturationWarning else ""
            warn_user(f"{name} at step {step}: {told.message}{once}", told.category)
        return records

    def _fit(self, measure, model):
        """Return a fitted copy of a measure, and the warnings that came up."""
        if measure.model is not None:  # an extractor, of settings alone
            settings = measure.model.get_params(deep=False) | {"module": model}
            model = type(measure.model)(**settings)
        others = {k: v for k, v in measure.get_params(deep=False).items() if k != "model"}
        measure = type(measure)(model, **copy.deepcopy(others))
        if "random_state" in measure.get_params() and measure.random_state is None:
            measure.set_params(random_state=0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SaturationWarning)
            return measure.fit(self.X, self.y), caught

    def _begin(self, first):
        """Keep the records before a first step, those in the file included; open the file."""
        self.history_ = [record for record in self.history_ if record["step"] < first]
        if self.path is not None and not os.path.exists(self.path):
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(_lines(self.history_))
        elif self.path is not None:
            written = self.read(self.path)
            if not written or written[0]["step"] >= first:
                steps = {record["step"] for record in written}
                raise FileExistsError(
                    f"path={str(self.path)!r} is the file of another training, of {len(steps)} "
                    f"steps, and this one begins with step {first}. Give another path, or remove "
                    "the file."
                )
            self._join([record for record in written if record["step"] < first])
        self.begun_ = True

    def _join(self, records):
        """Take the longer of the history and other records of it; write it to the file."""
        shorter, longer = sorted((self.history_, records), key=len)
        if not _lines(longer).startswith(_lines(shorter)):
            raise ValueError(
                f"path={str(self.path)!r} holds the records of another training than the one that "
                "is to go on. Give the path that it had, or another one."
            )
        self.history_ = longer
        if self.path is not None:
            with written_whole(self.path) as file:
                file.write(_lines(longer).encode())

    def state_dict(self):
        """Return what a checkpoint keeps."""
        return {"history": _lines(self.history_)}

    def load_state_dict(self, state):
        """Go on from what `state_dict` returned.

        Parameters
        ----------
        state : dict
        """
        self._join([_parse(line) for line in state["history"].splitlines()])

    @staticmethod
    def read(path):
        """Return the records in a file that a monitor has written, or is writing.

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
            If the file is something else.

        Warns
        -----
        UserWarning
            If the last line is cut short, as in a training that was killed; it is left out.
        """
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        *lines, torn = text.split("\n")
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = _parse(line)
                record["step"], record["measure"], record["layer"]
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise ValueError(
                    f"Line {number} of {str(path)!r} is no record of a ComplexityMonitor: "
                    f"{line[:60]!r}."
                ) from error
            records.append(record)
        if torn:
            warn_user(
                f"The last line of {str(path)!r} is cut short and was left out: {torn[:60]!r}."
            )
        return records


def _by_what_they_say(name, records, caught):
    """Return warnings by what has been told when they have, whatever numbers they hold."""
    saturated = tuple(record["layer"] for record in records if record.get("saturated"))
    return {
        (name, saturated if told.category is SaturationWarning else str(told.message)): told
        for told in caught
    }


@contextlib.contextmanager
def _generators_restored():
    """Put the generators of Python and NumPy back, from which a dataset may draw."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002


def _lines(records):
    """Return records as lines of JSON, which has no NaN (null) and no infinity (1e999)."""

    def encoded(value):
        if isinstance(value, float) and not math.isfinite(value):
            return "null" if math.isnan(value) else f"{value:+}".replace("inf", "1e999").lstrip("+")
        return json.dumps(value)

    return "".join(
        "{" + ", ".join(f'"{key}": {encoded(value)}' for key, value in record.items()) + "}\n"
        for record in records
    )


def _parse(line):
    record = json.loads(line)
    return {k: math.nan if v is None and k != "layer" else v for k, v in record.items()}
