"""`GateExtractor`: run a module on data and keep its gating states."""

import re
from collections import Counter
from functools import partial
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state
from torch.utils.data import DataLoader

from ..states import GatingStates, GrowingFolder, states_header
from ..utils.arrays import sample_rows
from ..utils.sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names_in,
    _fit_context,
    check_is_fitted,
)
from ._coverage import Coverage, choose_layers, warn_missed
from ._inputs import (
    Batches,
    check_inputs,
    check_targets,
    n_samples_in,
    refuse_shuffling,
)
from ._models import prepare_module
from ._recorder import GateRecorder
from ._runner import LOCK, NO_SAMPLES, Watcher, each_batch, noted
from ._store import Store

__all__ = ["GateExtractor", "as_extractor"]


class GateExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Transformer from raw inputs of a torch module to its gating states.

    Runs the module in evaluation mode and reads the gates of each operation that lets some of
    its input through: ReLU and its relatives, max pooling, dropout, whether called as modules,
    functions or tensor methods. The module comes back as it was.

    Parameters
    ----------
    module : torch.nn.Module or fitted estimator with one in ``module_``
        The network. What is inside ``torch.compile`` or a data-parallel wrapper runs without it.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to keep: by name, by pattern with ``*`` and ``?``, by the type of the module that
        holds them, or by position; all by default.
    smooth : bool, default=False
        Whether smooth activations (SiLU, GELU, tanh, ...) count as layers with gates
        ``input > 0``.
    sampling : {"off", "on"}, default="off"
        ``"off"``: random numbers that the module draws are replaced by their means, and dropout
        layers have all gates open. ``"on"``: they are drawn from ``random_state``. Batch
        normalisation uses its running statistics in both.
    batch_size : int, default=256
        Samples that go through the module at once. A ``DataLoader`` has its own.
    device : str, default="auto"
        Where the module runs, as torch names it; ``"auto"`` is where its parameters are.
        Elsewhere, a copy runs.
    random_state : int, RandomState instance or None, default=None
        Seed of sampling, and of the initial values of lazy parameters.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    module_ : torch.nn.Module
        What runs: the module itself, or a copy of one with lazy parameters or on another device.
    layer_names_ : list of str
        Names of the captured layers: that of the module, for a function that of the module that
        calls it and its own, with ``:1``, ``:2``, ... for further calls.
    coverage_ : list of Coverage
        A record ``(layer, operation, kind, n_gates, captured, reason)`` of each non-linear
        operation that ran.
    n_features_in_ : int
        Only when ``X`` is an array.

    Warns
    -----
    GateCaptureWarning
        If an operation ran that may gate the data and whose gates were not captured.

    See Also
    --------
    GatingStates : What :meth:`transform` returns.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import GateExtractor
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> states = GateExtractor(net).fit_transform(torch.randn(100, 4))
    >>> states
    GatingStates(n_samples=100, layers={'1': 8, '3': 6})
    """

    _parameter_constraints = {
        "module": [HasMethods("forward"), HasMethods("predict")],
        "layers": [None, str, type, re.Pattern, slice, list, tuple, Integral],
        "smooth": ["boolean"],
        "sampling": [StrOptions({"on", "off"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module,
        *,
        layers=None,
        smooth=False,
        sampling="off",
        batch_size=256,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.layers = layers
        self.smooth = smooth
        self.sampling = sampling
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the gating layers, from three samples.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module.
        y : Ignored

        Returns
        -------
        self : GateExtractor

        Raises
        ------
        ValueError
            If ``X`` is not as described, the module has no gating layer, or ``layers`` names
            none; the error lists what there is.
        """
        X = self._start(X)
        with LOCK:
            with torch.random.fork_rng(devices=[]):  # as a loader draws its order
                first = next(iter(Batches(X, self.batch_size)), None)
            if first is None:
                raise ValueError(NO_SAMPLES)
            self._fit_layers(first[0])
        return self

    def transform(self, X):
        """Return the gating states of the module on ``X``.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module. Labels that a dataset yields are left aside.

        Returns
        -------
        states : GatingStates
            A row a sample, in the order of ``X``.

        Raises
        ------
        ValueError
            If ``X`` is a shuffling loader, whose rows would lose their labels.
        """
        check_is_fitted(self)
        refuse_shuffling(X)
        return self.extract(X)[0]

    def transform_to(self, X, path):
        """Write the gating states of the module on ``X`` to a folder, batch by batch.

        For states that do not fit in memory. A run that was interrupted goes on behind the last
        batch that it wrote, to the same bytes; it tries the first batch again to see that module
        and data are the same.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module, of a known number.
        path : str or path-like
            Folder to write to, a new one or that of a run that was interrupted.

        Returns
        -------
        states : GatingStates
            Mapped from the folder, read only, as ``GatingStates.load(path, mmap=True)`` gives them.

        Raises
        ------
        ValueError
            If the folder holds something else, or the states of another module or other data.
        """
        check_is_fitted(self)
        refuse_shuffling(X)
        batches = Batches(check_inputs(self, X, reset=False), self.batch_size)
        if batches.n_samples is None:
            raise ValueError(
                f"The number of samples in a {type(X).__name__} is not known, or not all are "
                "yielded. Pass an array or a Dataset with a length, in batches of every sample."
            )
        layers, n_samples = self._layers, batches.n_samples
        shapes = {f"layer{i}": (n_samples, layer.n_bytes) for i, layer in enumerate(layers)}
        folder = GrowingFolder(path, shapes, {**states_header(layers), "n_samples": n_samples})
        seen = Counter()

        def add(inputs, _):
            start, batch = seen["samples"], seen["batches"]
            stop = start + n_samples_in(inputs)
            seen.update(samples=stop - start, batches=1)
            if 0 < start and stop <= folder.n_rows:
                return
            options = {"checked": batches.holds, "swapped": self._swapped}
            packed = self._runner.read(inputs, batch, self._packers, **options)
            folder.add(start, dict(zip(shapes, packed, strict=True)))

        each_batch(batches, add, seed=self._seed, verbose=self.verbose, desc="gating states")
        folder.finish()
        return GatingStates.load(path, mmap=True)

    def extract(self, X, y=None, *, max_samples=None, random_state=None):
        """Return gating states and labels from one pass over the data.

        Fits first where that has not been done.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module.
        y : array-like of shape (n_samples,), default=None
            Labels. A dataset or loader that yields ``(inputs, label)`` has its own.
        max_samples : int, float or None, default=None
            Number or share of samples to draw at random; of a loader, from all that it yields.
        random_state : int, RandomState instance or None, default=None
            Seed of the drawn samples.

        Returns
        -------
        states : GatingStates
        y : ndarray of shape (n_samples,) or None

        Raises
        ------
        ValueError
            If ``y`` comes with a loader, or has another length than ``X``.
        """
        if self.__sklearn_is_fitted__():
            X = check_inputs(self, X, reset=False)
        else:
            self._validate_params()
            X = self._start(X)
        n_samples = Batches(X, 1).n_samples
        y = check_targets(X, y, n_samples)
        rows = None
        if not isinstance(X, DataLoader) and n_samples is not None:
            rows = sample_rows(n_samples, max_samples, random_state)
            y = y if y is None or rows is None else y[rows]
        states, labels = self._run(Batches(X, self.batch_size, rows))
        y = labels if y is None else y
        check_consistent_length(states, y)
        late = sample_rows(len(states), max_samples, random_state) if rows is None else None
        if late is None:
            return states, y
        return states[late], None if y is None else y[late]

    def get_feature_names_out(self, input_features=None):
        """Return a name for each gate, ``layer_position``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Checked against the fitted names and otherwise ignored.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.array(
            [f"{layer.name}_{i}" for layer in self._layers for i in range(layer.n_gates)],
            dtype=object,
        )

    def set_output(self, *, transform=None):
        """Return self: gating states are their own container, whatever ``transform`` asks for.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            Ignored.

        Returns
        -------
        self : GateExtractor
        """
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layer_names_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.three_d_array = True
        return tags

    def _start(self, X):
        self._seed = 0
        if self.sampling == "on" or self.random_state is not None:
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return check_inputs(self, X, reset=True)

    def _fit_layers(self, inputs):
        """Set the module, its layers and its coverage from a first batch."""
        with noted(inputs):
            self.module_ = prepare_module(self.module, inputs, self.device, self._seed)
            record = partial(GateRecorder, sampling=self.sampling, smooth=self.smooth)
            train = self.sampling == "on"
            self._runner = Watcher(self.module_, record, train=train, seed=self._seed)
            two, three = self._runner.rehearse(inputs)
        chosen, coverage = choose_layers(two, three, self.layers)
        if not chosen:
            raise ValueError(
                f"{type(self.module_).__name__} has no gating layer that could be captured. What "
                f"ran:\n{Coverage.table(coverage)}\nsmooth=True reads input > 0 of smooth "
                "activations. Gates made by arithmetic, such as z * (z > 0), leave no operation "
                "to see; write them as F.relu(z)."
            )
        warn_missed(coverage)
        self.coverage_ = coverage
        self._layers = [layer for layer, _ in chosen.values()]
        self._swapped = {event.layer for event in three if event.swapped}
        self._packers = {
            name: partial(_packed, layout=layout) for name, (_, layout) in chosen.items()
        }
        self.layer_names_ = list(chosen)

    def _run(self, batches):
        """Return the states and labels of all batches; fits on the first if need be."""
        store = None

        def add(inputs, labels):
            nonlocal store
            if not self.__sklearn_is_fitted__():
                self._fit_layers(inputs)
            if store is None:
                store = Store(self._layers, batches.n_samples)
            packed = self._runner.read(
                inputs,
                store.n_batches,
                self._packers,
                checked=batches.holds,
                swapped=self._swapped,
            )
            store.add(packed, labels)

        each_batch(batches, add, seed=self._seed, verbose=self.verbose, desc="gating states")
        packed, labels = store.finish()
        return GatingStates(packed, self._layers), labels


def _packed(event, layout):
    return layout.packed(event.gates)


def as_extractor(model, *, sampling, random_state, verbose):
    """Return a new `GateExtractor` for whatever an estimator was given as its ``model``.

    Parameters
    ----------
    model : nn.Module, GateExtractor, or fitted estimator with a module
    sampling : {"on", "off"}
        For a model that is no extractor; ``"off"`` is required of one.
    random_state : RandomState instance
        Gives the seed, unless an extractor has its own.
    verbose : int
        An extractor shows its progress where it or this says so.
    """
    seed = int(random_state.randint(2**31 - 1))
    if isinstance(model, GateExtractor):
        if sampling == "off" and model.sampling == "on":
            raise ValueError(
                "The information about the input is that of the states with sampling removed; "
                "got a GateExtractor with sampling='on'. Set sampling='off'."
            )
        params = model.get_params(deep=False)
        if params["random_state"] is None:
            params["random_state"] = seed
        params["verbose"] = max(params["verbose"], verbose)
        return type(model)(**params)
    return GateExtractor(model, sampling=sampling, random_state=seed, verbose=verbose)
