"""`GateExtractor`: runs a module on data and returns its gating states; long for its docstrings."""

import re
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state

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
from ._coverage import check_layers, choose_layers, refuse_layers, warn_missed
from ._inputs import Batches, check_inputs, n_samples_in, refuse_shuffling, sampled_batches
from ._models import prepare_module
from ._recorder import GateRecorder
from ._rows import compare_rows
from ._runner import ModuleRunner, each_batch, with_shapes_in_errors
from ._store import Store


class GateExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Transformer from raw inputs of a torch module to its gating states.

    The module runs in evaluation mode, and the gates are read of each operation that lets some of
    its input through: ReLU and its relatives, max pooling, dropout, whether called as modules,
    functions or tensor methods. The module itself is left unchanged.

    The gates of a row may depend on that row alone. ``fit`` therefore runs up to 64 rows of the
    first batch, without sampling, at once and again in smaller batches in another order. A layer
    whose gates change is not captured: ``coverage_`` and a warning say so. Rounding may flip 0.1%
    of the gates that differ between two rows drawn at random, or one gate; 2% if parameters or
    gated numbers are in lower precision than float32, or in float32 on a GPU.

    Parameters
    ----------
    module : torch.nn.Module or fitted estimator with one in ``module_``
        The network; of a ``torch.compile`` or data-parallel wrapper, the module inside.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to keep: by name, by pattern with ``*`` and ``?``, by the type of the module that
        makes the call, or by position; all by default.
    exclude : None, str, type, re.Pattern, or sequence of these, default=None
        Layers to leave out, of those that ``layers`` keeps: by name, pattern or type.
    smooth : bool, default=False
        Whether smooth activations (SiLU, GELU, tanh, ...) count as layers with gates
        ``input > 0``.
    sampling : {"off", "on"}, default="off"
        ``"off"``: random numbers that the module draws are replaced by their means, and dropout,
        which drops nothing, is no layer. ``"on"``: they are drawn from ``random_state``. Batch
        normalisation uses its running statistics in both cases.
    batch_size : int, default=256
        Samples that go through the module at once. A ``DataLoader`` has its own.
    device : str, default="auto"
        Torch device on which the module runs; ``"auto"`` is that of its parameters. On another
        device, a copy runs.
    random_state : int, RandomState instance or None, default=None
        Seed for sampling, and for the initial values of lazy parameters.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    module_ : torch.nn.Module
        The module that runs: the given one, or a copy if it is lazy or on another device.
    layer_names_ : list of str
        Names of the captured layers: a module's own name; for a function, the name of the module
        that calls it and its own; with ``:1``, ``:2``, ... for further calls.
    coverage_ : list of Coverage
        A record ``(layer, operation, kind, n_gates, captured, reason)`` for each non-linear
        operation that ran. A reason beside a captured layer says that its rows were not compared:
        all have equal gates, or there is only one.
    n_features_in_ : int
        Only when ``X`` is an array.

    Warns
    -----
    GateCaptureWarning
        If an operation that may gate the data was not captured, also because its gates of a row
        depend on the other rows of the batch.

    See Also
    --------
    GatingStates : The container that :meth:`transform` returns.

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
        "exclude": [None, str, type, re.Pattern, list, tuple],
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
        exclude=None,
        smooth=False,
        sampling="off",
        batch_size=256,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.layers = layers
        self.exclude = exclude
        self.smooth = smooth
        self.sampling = sampling
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the gating layers, from the first batch.

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
            If ``X`` is not as described, the module has no gating layer or, unless ``layers``
            names them, none but dropout, or if ``layers`` or ``exclude`` names none; the error
            lists the layers.
        """
        X = self._start(X)
        inputs, _ = next(each_batch(Batches(X, self.batch_size), seed=self._seed))
        self._fit_layers(inputs)
        return self

    def transform(self, X):
        """Return the gating states of the module on ``X``.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module. Labels that a dataset yields are ignored.

        Returns
        -------
        states : GatingStates
            One row per sample, in the order of ``X``.

        Raises
        ------
        ValueError
            If ``X`` is a shuffling loader, whose rows could not be matched with labels.
        """
        check_is_fitted(self)
        refuse_shuffling(X)
        return self.extract(X)[0]

    def transform_to(self, X, path):
        """Write the gating states of the module on ``X`` to a folder, batch by batch.

        For states that do not fit in memory. An interrupted run resumes after the last batch that
        it wrote and ends with the same bytes; it runs the first batch again to check that module
        and data are the same.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module; their number must be known.
        path : str or path-like
            Folder to write to, a new one or that of an interrupted run.

        Returns
        -------
        states : GatingStates
            Read-only, mapped from the folder as by ``GatingStates.load(path, mmap=True)``.

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
                f"The number of samples that this {type(X).__name__} yields is not known. Pass an "
                "array, a Dataset with a length, or a DataLoader of such that drops no batch."
            )
        layers, n_samples = self._layers, batches.n_samples
        shapes = {f"layer{i}": (n_samples, layer.n_bytes) for i, layer in enumerate(layers)}
        folder = GrowingFolder(path, shapes, {**states_header(layers), "n_samples": n_samples})
        start = 0
        for position, (inputs, _) in enumerate(self._each_batch(batches)):
            stop = start + n_samples_in(inputs)
            if start == 0 or stop > folder.n_rows:
                packed = self._read(inputs, position, batches).values()
                folder.add(start, dict(zip(shapes, packed, strict=True)))
            start = stop
        folder.finish()
        return GatingStates.load(path, mmap=True)

    def extract(self, X, y=None, *, max_samples=None, random_state=None):
        """Return gating states and labels from one pass over the data, fitting first if need be.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module.
        y : array-like of shape (n_samples,), default=None
            Labels; not needed for a dataset or loader that yields ``(inputs, label)``.
        max_samples : int, float or None, default=None
            Number or share of samples to draw at random; a loader is read to its end first.
        random_state : int, RandomState instance or None, default=None
            Seed for drawing samples.

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
        sample = max_samples, random_state
        batches, y, sampled = sampled_batches(X, y, self.batch_size, *sample)
        states, labels = self._run(batches)
        y = labels if y is None else y
        check_consistent_length(states, y)
        rows = None if sampled else sample_rows(len(states), *sample)
        return (states, y) if rows is None else (states[rows], None if y is None else y[rows])

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
        """Return self: gating states are their own container.

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
        with with_shapes_in_errors(inputs):
            self.module_ = prepare_module(self.module, inputs, self.device, self._seed)
            recorder = partial(GateRecorder, sampling=self.sampling, smooth=self.smooth)
            train = self.sampling == "on"
            self._runner = ModuleRunner(self.module_, recorder, train=train, seed=self._seed)
            two, three = self._runner.dry_run(inputs)
            self._constant_is_first = {event.layer for event in three if event.constant_is_first}
            chosen, coverage = self._choose_layers(two, three, inputs)
        check_layers(type(self.module_).__name__, chosen, coverage, self.layers)
        warn_missed(coverage)
        self.coverage_ = coverage
        self._layers = [layout.layer for layout in chosen.values()]
        self._packers = {name: layout.packed for name, layout in chosen.items()}
        self.layer_names_ = list(chosen)

    def _choose_layers(self, two, three, inputs):
        """Return the layers to capture, and the coverage, after a comparison of their rows."""
        chosen, coverage = choose_layers(two, three, self.layers, self.exclude)
        drawn = {event.layer for event in three if event.kind == "dropout"}
        compared = {name: layout for name, layout in chosen.items() if name not in drawn}
        if not compared:
            return chosen, coverage
        options = {"constant_is_first": self._constant_is_first}
        return refuse_layers(
            chosen, coverage, *compare_rows(self._runner, inputs, compared, **options)
        )

    def _each_batch(self, batches):
        return each_batch(batches, seed=self._seed, verbose=self.verbose, desc="gating states")

    def _read(self, inputs, position, batches):
        """Return the packed gates of one batch, by layer."""
        options = {"checked": batches.holds, "constant_is_first": self._constant_is_first}
        return self._runner.read(inputs, position, self._packers, **options)

    def _run(self, batches):
        """Return the states and labels of all batches; fits on the first if need be."""
        store = None
        for position, (inputs, labels) in enumerate(self._each_batch(batches)):
            if not self.__sklearn_is_fitted__():
                self._fit_layers(inputs)
            store = store or Store(self._layers, batches.n_samples)
            store.add(self._read(inputs, position, batches).values(), labels)
        packed, labels = store.finish()
        return GatingStates(packed, self._layers), labels


def as_extractor(model, *, sampling, random_state, verbose):
    """Return a new `GateExtractor` for the ``model`` of an estimator.

    Parameters
    ----------
    model : nn.Module, GateExtractor, or fitted estimator with a module
    sampling : {"on", "off"}
        For a model other than an extractor, which has its own; with ``"off"``, ``"on"`` raises.
    random_state : RandomState instance
        Draws the seed, unless an extractor has its own.
    verbose : int
        Progress is shown if this or the extractor's own is set.
    """
    seed = int(random_state.randint(2**31 - 1))
    if isinstance(model, GateExtractor):
        if sampling == "off" and model.sampling == "on":
            raise ValueError(
                "Information about the input is measured without sampling; got a GateExtractor "
                "with sampling='on'. Set sampling='off'."
            )
        params = model.get_params(deep=False)
        if params["random_state"] is None:
            params["random_state"] = seed
        params["verbose"] = max(params["verbose"], verbose)
        return type(model)(**params)
    return GateExtractor(model, sampling=sampling, random_state=seed, verbose=verbose)
