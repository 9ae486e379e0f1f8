"""`GateExtractor`: run a module on data and keep its gating states."""

import copy
import difflib
import fnmatch
import re
import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from torch import nn
from tqdm import tqdm

from .._states import GatingStates
from .._validation import (
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names_in,
    _fit_context,
    check_is_fitted,
    issparse,
    sample_rows,
    validate_data,
)
from ..exceptions import GateCaptureWarning
from ._inputs import Batches, Caster, call, is_stream, shuffles, tree_map
from ._layout import find_layout
from ._recorder import GateRecorder, running, unwrap

__all__ = ["Coverage", "GateExtractor", "as_extractor"]


class Coverage(NamedTuple):
    """What became of one non-linear operation: captured, or why not."""

    layer: str
    operation: str
    kind: str
    n_gates: int
    captured: bool
    reason: str

    @staticmethod
    def table(records):
        """Return the records as lines of text."""
        lines = [
            f"{r.layer}  {r.operation}  {r.kind}  "
            + (f"{r.n_gates} gates" if r.captured else f"not captured: {r.reason}")
            for r in records
        ]
        return "\n".join(lines) or "(no non-linear operation ran)"


class GateExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Transformer from raw inputs of a torch module to its gating states.

    Runs the module in evaluation mode and reads the gates of each operation that lets some of
    its input through: ReLU and its relatives, max pooling, dropout, whether called as modules,
    functions or tensor methods. The module comes back as it was.

    Parameters
    ----------
    module : torch.nn.Module or fitted estimator with one in ``module_``
        The network. ``torch.compile``d and data-parallel modules are run without their wrapper.
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
    device : "auto" or torch device, default="auto"
        Where the module runs; ``"auto"`` is where its parameters are. Elsewhere, a copy runs.
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
        "device": [str, torch.device],
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
        X = self._check_X(X, reset=True)
        inputs, _ = next(iter(Batches(X, self.batch_size)))
        self._fit_layers(inputs)
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
        if shuffles(X):
            raise ValueError(
                "A shuffling DataLoader was received: its order is lost, and with it which label "
                "belongs to which row. Use shuffle=False, or extract(loader), which returns the "
                "labels of the same pass."
            )
        return self.extract(X)[0]

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
        if not self.__sklearn_is_fitted__():
            self._validate_params()
            X = self._check_X(X, reset=True)
        else:
            X = self._check_X(X, reset=False)
        n_samples = Batches(X, 1).n_samples
        y = _check_y(X, y, n_samples)
        loader = isinstance(X, torch.utils.data.DataLoader)
        rows = None
        if not loader and n_samples is not None:
            rows = sample_rows(n_samples, max_samples, random_state)
        states, labels = self._run(Batches(X, self.batch_size, rows))
        if y is not None:
            return states, y if rows is None else y[rows]
        late = sample_rows(len(states), max_samples, random_state) if rows is None else None
        if late is not None:
            return states[late], labels if labels is None else labels[late]
        return states, labels

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
        """Return self: gating states are their own container, whatever ``transform`` asks for."""
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "layer_names_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        tags.input_tags.three_d_array = True
        return tags

    def _check_X(self, X, *, reset):
        _refuse_lists(X)
        if is_stream(X):
            return X
        if isinstance(X, Mapping | tuple) and not issparse(X):
            checked = tree_map(lambda a: _check_part(self, a), X)
            lengths = {
                len(a) for a in (checked if isinstance(checked, tuple) else checked.values())
            }
            if len(lengths) != 1:
                raise ValueError(f"Inputs differ in their number of samples: {sorted(lengths)}.")
            return checked
        if isinstance(X, torch.Tensor):
            # the checks are scikit-learn's, the tensor stays where and what it is
            view = X.detach().cpu()
            view = view.float() if view.dtype == torch.bfloat16 else view
            validate_data(self, view.numpy(), reset=reset, allow_nd=True)
            return X.detach()
        if hasattr(X, "__cuda_array_interface__"):
            X = X.get()
        return validate_data(self, X, reset=reset, allow_nd=True)

    def _fit_layers(self, inputs):
        """Set the module, its layers and its coverage from a first batch."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.module_ = self._module(inputs)
        inputs = Caster(self.module_)(inputs)
        two, three = (self._watch(_first(inputs, n)) for n in (2, 3))
        if [e.layer for e in two] != [e.layer for e in three]:
            raise ValueError(
                "The module runs other operations on two samples than on three, so that its "
                "layers cannot be told. Take data-dependent control flow out of forward."
            )
        layouts, coverage = {}, []
        found = [_layout(a, b) for a, b in zip(two, three, strict=True)]
        gating = [e for e, (layout, _) in zip(three, found, strict=True) if layout]
        kept = _select(gating, self.layers) if gating else set()
        layers = []
        for event, (layout, reason) in zip(three, found, strict=True):
            captured = layout is not None and event.layer in kept
            layer = layout.layer(event) if layout else None
            coverage.append(
                Coverage(
                    event.layer,
                    event.operation,
                    event.kind,
                    layer.n_gates if layer else 0,
                    captured,
                    "" if captured else reason or "not selected by layers",
                )
            )
            if captured:
                layouts[event.layer] = layout
                layers.append(layer)
        if not layers:
            raise ValueError(
                f"{type(self.module_).__name__} has no gating layer that could be captured. What "
                f"ran:\n{Coverage.table(coverage)}\nsmooth=True reads input > 0 of smooth "
                "activations. Script modules and custom autograd functions cannot be seen into."
            )
        _warn_missed(coverage)
        self.coverage_ = coverage
        self._layouts, self._layers = layouts, layers
        self.layer_names_ = [layer.name for layer in layers]

    def _module(self, inputs):
        module = _inner_module(self.module)
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{type(module).__name__} is a script module, whose operations cannot be seen. "
                "Pass the nn.Module that it was made from."
            )
        parameters = list(module.parameters())
        elsewhere = self.device != "auto" and any(
            p.device != torch.device(self.device) for p in parameters
        )
        lazy = any(nn.parameter.is_lazy(p) for p in (*parameters, *module.buffers()))
        if elsewhere or lazy:
            module = copy.deepcopy(module)
        if elsewhere:
            module = module.to(self.device)
        if lazy:
            with running(module, sampling="off", seed=self._seed):
                call(module, Caster(module)(_first(inputs, 2)))
        return module

    def _watch(self, inputs):
        events = []
        with running(self.module_, sampling=self.sampling, seed=self._seed), GateRecorder(
            self.module_, sampling=self.sampling, smooth=self.smooth, report=events.append
        ):
            call(self.module_, inputs)
        return events

    def _run(self, batches):
        """Return the states and labels of all batches; fits on the first if need be."""
        store, labels, cast = None, [], None
        seed = getattr(self, "_seed", 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bar = tqdm(
                batches, total=_length(batches), disable=not self.verbose, desc="gating states"
            )
            for inputs, targets in bar:
                if not self.__sklearn_is_fitted__():
                    self._fit_layers(inputs)
                cast = cast or Caster(self.module_)
                store = store or _Store(self._layers, batches.n_samples)
                inputs = cast(inputs)
                store.add(self._pack(inputs, batch=store.n_batches))
                labels.append(targets)
        if store is None:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return GatingStates(store.finish(), self._layers), _join_labels(labels)

    def _pack(self, inputs, batch):
        """Return the packed gates of one batch, by layer."""
        packed = {}

        def keep(event):
            if event.layer in self._layouts:
                packed[event.layer] = self._layouts[event.layer].packed(event.gates)

        # a seed a batch, so that a batch does not depend on how far the generator had got
        seed = (self._seed + batch) % 2**31
        with running(self.module_, sampling=self.sampling, seed=seed), GateRecorder(
            self.module_,
            sampling=self.sampling,
            smooth=self.smooth,
            report=keep,
            wanted=self._layouts.__contains__,
        ):
            call(self.module_, inputs)
        missing = [name for name in self.layer_names_ if name not in packed]
        if missing:
            raise ValueError(
                f"Layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        return [packed[name] for name in self.layer_names_]


class _Store:
    """Packed rows that grow by a batch; allocated once where their number is known."""

    def __init__(self, layers, n_samples):
        self.layers, self.n_batches, self.n_rows = layers, 0, 0
        self.known = n_samples is not None
        self.rows = [
            np.empty((n_samples, layer.n_bytes), np.uint8) if self.known else [] for layer in layers
        ]

    def add(self, packed):
        n_new = len(packed[0])
        for layer, rows, new in zip(self.layers, self.rows, packed, strict=True):
            if new.shape != (n_new, layer.n_bytes):
                raise ValueError(
                    f"Layer {layer.name!r} gave packed gates of shape {new.shape}; need "
                    f"{(n_new, layer.n_bytes)}. Samples must all have one shape."
                )
            if self.known:
                rows[self.n_rows : self.n_rows + n_new] = new
            else:
                rows.append(new)
        self.n_rows += n_new
        self.n_batches += 1

    def finish(self):
        if self.known:
            return [rows[: self.n_rows] for rows in self.rows]
        # a layer at a time, so that no more than one is there twice
        return [np.concatenate(self.rows.pop(0)) for _ in self.layers]


def as_extractor(model, *, sampling, random_state):
    """Return a new `GateExtractor` for whatever an estimator was given as its ``model``.

    Parameters
    ----------
    model : nn.Module, GateExtractor, or fitted estimator with a module
    sampling : {"on", "off"}
        For a model that is no extractor; ``"off"`` is required of one.
    random_state : RandomState instance
        Gives the seed of a model that is no extractor.
    """
    if isinstance(model, GateExtractor):
        if sampling == "off" and model.sampling == "on":
            raise ValueError(
                "The information about the input is that of the states with sampling removed; "
                "got a GateExtractor with sampling='on'. Set sampling='off'."
            )
        return type(model)(**model.get_params(deep=False))
    seed = int(random_state.randint(2**31 - 1))
    return GateExtractor(model, sampling=sampling, random_state=seed)


def _inner_module(model):
    if isinstance(model, type):
        raise TypeError(f"Got the class {model.__name__}; need an instance, {model.__name__}(...).")
    if not isinstance(model, nn.Module):
        module = getattr(model, "module_", None)
        if not isinstance(module, nn.Module):
            raise NotFittedError(
                f"{type(model).__name__} is neither a torch.nn.Module nor a fitted estimator with "
                "one in module_. Fit it first; where scikit-learn clones it, which un-fits it, "
                "wrap it as sklearn.frozen.FrozenEstimator(model)."
            )
        model = module
    return unwrap(model)


def _refuse_lists(X):
    if isinstance(X, list) and X and isinstance(X[0], tuple) and len(X[0]) == 2:
        raise ValueError(
            "A list of tuples was received, which could be samples with labels or rows of an "
            "array. Pass arrays X and y, a torch Dataset, or skorch's SliceDataset."
        )


def _check_part(estimator, array):
    if isinstance(array, torch.Tensor):
        return array.detach()
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Inputs need real numbers or booleans; got dtype {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"Input X of {type(estimator).__name__} contains NaN or infinity.")
    return array


def _check_y(X, y, n_samples):
    if y is None:
        return None
    if is_stream(X) and isinstance(X, torch.utils.data.DataLoader):
        raise ValueError(
            "Labels y came together with a DataLoader, whose order they may not follow. Let its "
            "dataset yield (inputs, label) and leave y out."
        )
    y = np.asarray(y.detach().cpu() if isinstance(y, torch.Tensor) else y)
    if n_samples is not None and len(y) != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_samples}, y {len(y)}."
        )
    return y


def _first(inputs, n):
    """Return the first ``n`` samples of a batch, repeating them if there are fewer."""
    return tree_map(lambda a: a[[i % min(len(a), 3) for i in range(n)]], inputs)


def _layout(two, three):
    if three.gates is None:
        return None, three.reason
    return find_layout(two.gates, three.gates)


def _select(events, layers):
    """Return the names of the events that ``layers`` asks for."""
    names = [e.layer for e in events]
    if layers is None:
        return set(names)
    if isinstance(layers, slice):
        return set(names[layers])
    wanted = layers if isinstance(layers, list | tuple) else [layers]
    kept = set()
    for item in wanted:
        matched = {e.layer for i, e in enumerate(events) if _matches(item, e, i - len(events), i)}
        if not matched:
            near = difflib.get_close_matches(str(item), names, n=3, cutoff=0.3) or names[:10]
            raise ValueError(
                f"No gating layer matches {item!r}. The nearest are {near}; there are {len(names)}."
            )
        kept |= matched
    return kept


def _matches(item, event, *positions):
    if isinstance(item, str):
        return event.layer == item or fnmatch.fnmatchcase(event.layer, item)
    if isinstance(item, re.Pattern):
        return item.fullmatch(event.layer) is not None
    if isinstance(item, type):
        return isinstance(event.module, item)
    return item in positions


def _warn_missed(coverage):
    missed = [
        r
        for r in coverage
        if not r.captured
        and (r.kind == "hidden" or r.kind == "smooth activation" or "batch" in r.reason)
    ]
    if missed:
        warnings.warn(
            f"Not among the gating states:\n{Coverage.table(missed)}",
            GateCaptureWarning,
            stacklevel=4,
        )


def _length(batches):
    try:
        return len(batches)
    except TypeError:
        return None


def _join_labels(labels):
    if any(label is None for label in labels):
        return None
    arrays = [np.asarray(a.cpu() if isinstance(a, torch.Tensor) else a) for a in labels]
    joined = np.concatenate([np.atleast_1d(a) for a in arrays])
    return joined.ravel() if joined.size == len(joined) else None
