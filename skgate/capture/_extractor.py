"""`GateExtractor`: runs a module on data and returns its gating states; long for its docstrings."""

import re
from copy import copy
from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state
from tqdm import tqdm

from ..states import GatingStates, GrowingFolder, LayersInTurn, in_groups, states_header
from ..utils.labels import require_classes
from ..utils.samples import Samples
from ..utils.sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _check_feature_names_in,
    _fit_context,
    check_is_fitted,
)
from ._batch_size import MAX_BATCH, LargestOutput, Part, split
from ._coverage import check_layers, choose_layers, refuse_layers, warn_missed
from ._custom_gates import match_gates
from ._inputs import Batches, check_inputs, n_samples_in, refuse_shuffling, sampled_batches
from ._masks import Masks
from ._models import prepare_module
from ._passes import Passes, first_pass, require_room
from ._positions import PositionRows, SampleRows, without_positions
from ._recorder import GateRecorder
from ._repeats import Repeats
from ._rows import MIN_COMPARED, compare_padding, compare_rows
from ._runner import ModuleRunner, each_batch, with_shapes_in_errors
from ._store import Store


class GateExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Transformer from raw inputs of a torch module to its gating states.

    The module runs in evaluation mode, and the gates are read of each operation that lets some of
    its input through, whether called as a module, a function or a tensor method: ReLU and its
    relatives, max pooling, dropout; ``topk``, and ``argmax`` and ``max`` along an axis whose
    indices select data, which have a gate for each entry of their input; comparisons whose result
    multiplies or selects data, such as ``z * (z > threshold)``, whose gates are open where ``z`` is
    above the threshold, also if it is written ``z <= threshold``. The module itself is left
    unchanged.

    The gates of a row may depend on that row alone. ``fit`` therefore runs up to 64 rows of the
    first batch, or as many as ``batch_size="auto"`` allows, without sampling, at once and again in
    smaller batches in another order. A layer whose gates change is not captured: ``coverage_`` and
    a warning say so. Rounding may flip 0.1% of the gates that differ between two rows drawn at
    random, or one gate; 2% if parameters or gated numbers are in lower precision than float32, or
    in float32 on a GPU.

    Parameters
    ----------
    module : torch.nn.Module or fitted estimator with one in ``module_``
        The network; of a ``torch.compile`` or data-parallel wrapper, the module inside.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to keep: by name, by pattern with ``*`` and ``?``, by the type of the module that
        makes the call, or by position; all by default.
    exclude : None, str, type, re.Pattern, or sequence of these, default=None
        Layers to leave out, of those that ``layers`` keeps: by name, pattern or type.
    samples : {"sample", "position"}, default="sample"
        What a row is. ``"sample"``: an element of the batch; its positions are gates.
        ``"position"``: a position of one, such as a token of a text or a pixel of a feature map;
        gates are the units, ``states.groups`` has the sample of each row, and labels are given to
        the positions of their samples. All layers need the same positions; those that have none
        are left out.
    mask : "auto", None, str or array-like of shape (n_samples, n_positions), default="auto"
        Which positions are data. A position that is not is no row, or has closed gates if rows are
        samples. ``"auto"``: the input of the module that is called ``attention_mask``, 1 where
        positions are data, or ``*padding_mask*``, True where they are not; in a module with an
        encoder and a decoder, layers of the decoder have ``decoder_attention_mask`` or
        ``tgt_*padding_mask``. A string: the input of this name, with the same meaning. An array:
        True where the positions of ``X`` are data. ``None``: all of them are.
    smooth : bool, default=False
        Whether smooth activations (SiLU, GELU, tanh, ...) count as layers with gates
        ``input > 0``.
    gates : None or dict of str to callable, default=None
        Functions ``(module, inputs, output)`` that return the gates of a module whose name matches
        the pattern, after each of its calls, as a bool tensor: for kernels that hide them, such as
        ``{"sae.*": lambda module, inputs, output: output != 0}``. ``inputs`` is the tuple of its
        positional arguments. Operations and modules inside that module then have no gates of their
        own.
    sampling : {"off", "on"}, default="off"
        ``"off"``: random numbers that the module draws are replaced by their means, and dropout,
        which drops nothing, is no layer. ``"on"``: they are drawn from ``random_state``. Batch
        normalisation uses its running statistics in both cases.
    batch_size : int or "auto", default="auto"
        Samples that go through the module at once. A ``DataLoader`` has its own. ``"auto"``: 256,
        or as many as keep the largest output of a linear operation below 64 MB, 1 GB on a GPU;
        batches of a ``DataLoader`` run in parts that are no larger.
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
        operation that ran, and for each custom autograd function or operator, which may hide
        gates. A reason beside a captured layer says that its rows were not compared: all have
        equal gates, or there is only one.
    n_features_in_ : int
        Only when ``X`` is an array.

    Warns
    -----
    GateCaptureWarning
        If an operation that may gate the data was not captured, also because its gates of a row
        depend on the other rows of the batch or on padding; or if gates were closed under a mask.

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

    _needs_labels = False
    _parameter_constraints = {
        "module": [HasMethods("forward"), HasMethods("predict")],
        "layers": [None, str, type, re.Pattern, slice, list, tuple, Integral],
        "exclude": [None, str, type, re.Pattern, list, tuple],
        "samples": [StrOptions({"sample", "position"})],
        "mask": [None, str, "array-like"],
        "smooth": ["boolean"],
        "gates": [None, dict],
        "sampling": [StrOptions({"on", "off"})],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
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
        samples="sample",
        mask="auto",
        smooth=False,
        gates=None,
        sampling="off",
        batch_size="auto",
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.layers = layers
        self.exclude = exclude
        self.samples = samples
        self.mask = mask
        self.smooth = smooth
        self.gates = gates
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
            names them, none but dropout, or if ``layers``, ``exclude`` or ``gates`` names none;
            the error lists the layers.
        TypeError
            If a function of ``gates`` returns no tensor of booleans.
        """
        X = self._start(X)
        batches = Batches(X, self._batch_size)
        self._check_mask(batches)
        inputs, _ = next(each_batch(batches, seed=self._seed))
        self._fit_layers(inputs, np.arange(n_samples_in(inputs)))
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
            One row per sample, in the order of ``X``, or per position that is data.

        Raises
        ------
        ValueError
            If ``X`` is a shuffling loader, whose rows could not be matched with labels.
        """
        check_is_fitted(self)
        refuse_shuffling(X)
        batches = Batches(check_inputs(self, X, reset=False), self._batch_size)
        self._check_mask(batches)
        return self._run(batches, None, in_turn=False)[0]

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
        if self.samples == "position":
            raise ValueError(
                "transform_to needs to know the number of rows beforehand, which positions under a "
                "mask leave open. Use transform with samples='position'."
            )
        batches = Batches(check_inputs(self, X, reset=False), self._batch_size)
        self._check_mask(batches)
        if batches.n_samples is None:
            raise ValueError(
                f"The number of samples that this {type(X).__name__} yields is not known. Pass an "
                "array, a Dataset with a length, or a DataLoader of such that drops no batch."
            )
        layers, n_samples = self._layers, batches.n_samples
        shapes = {f"layer{i}": (n_samples, layer.n_bytes) for i, layer in enumerate(layers)}
        folder = GrowingFolder(path, shapes, {**states_header(layers), "n_samples": n_samples})
        reader = self._rows(self._layouts, self._masks)
        for part in self._each_part(batches):
            if part.start == 0 or part.stop > folder.n_rows:
                packed, _, _ = self._read(reader, part)
                folder.add(part.start, dict(zip(shapes, packed, strict=True)))
        folder.finish()
        reader.warn()
        return GatingStates.load(path, mmap=True)

    def extract(self, X, y=None, *, groups=None, max_samples=None, random_state=None):
        """Return gating states and labels of one data set, fitting first if need be.

        States that would take more than half of the memory of this machine are not kept: the result
        has their layers, rows and labels, and its ``select`` runs the module on ``X`` again for the
        gates of some neighbouring layers. A warning says how many passes there will be.

        Parameters
        ----------
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
            Raw inputs of the module.
        y : array-like of shape (n_samples,), default=None
            Labels; not needed for a dataset or loader that yields ``(inputs, label)``. If rows are
            positions, there may be one label a position, (n_samples, n_positions).
        groups : array-like of shape (n_samples,), default=None
            Samples of one group depend on each other: ``states.groups`` holds their groups, as
            integers. Not with a loader, nor with data whose length is not known.
        max_samples : int, float or None, default=None
            Number or share of samples to draw at random; a loader is read to its end first.
        random_state : int, RandomState instance or None, default=None
            Seed for drawing samples.

        Returns
        -------
        states : GatingStates or LayersInTurn
            The latter has ``layers``, ``groups``, ``n_gates``, ``shape`` and the like, and
            ``select(layers)`` returns `GatingStates`.
        y : ndarray of shape (n_rows,) or None

        Raises
        ------
        ValueError
            If ``y`` or ``groups`` comes with a loader, or has another length than ``X``; if states
            that do not fit in memory come from a shuffling loader, or from data whose length is not
            known; by ``select``, if the gates of a layer are not those of the first pass.

        Warns
        -----
        UserWarning
            If there will be several passes; when it fits, if more than 1% of the samples, and at
            least 5, equal an earlier one that is not of their group.
        """
        repeats = None if self.__sklearn_is_fitted__() else Repeats()
        if repeats is None:
            X = check_inputs(self, X, reset=False)
        else:
            self._validate_params()
            X = self._start(X)
        sample = max_samples, random_state
        batches, y, groups, sampled = sampled_batches(X, y, groups, self._batch_size, *sample)
        self._check_mask(batches)
        states, labels = self._run(batches, y, in_turn=True, repeats=repeats)
        y = labels if y is None or states.groups is not None else y
        check_consistent_length(states, y)
        rows = None if sampled else Samples(states.groups, len(states)).drawn_rows(*sample)
        if rows is not None:
            states, y = states[rows], None if y is None else y[rows]
        if repeats is not None:
            repeats.warn(groups, rows if states.groups is None else np.unique(states.groups))
        if groups is not None:
            states = in_groups(states, groups if states.groups is None else groups[states.groups])
        return states, y

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

    @property
    def _batch_size(self):
        """Number of samples that are read at once."""
        return MAX_BATCH if self.batch_size == "auto" else self.batch_size

    def _start(self, X):
        self._seed = 0
        if self.sampling == "on" or self.random_state is not None:
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return check_inputs(self, X, reset=True)

    def _check_mask(self, batches):
        """Raise if the mask is an array that does not belong to the data."""
        if self.mask is None or isinstance(self.mask, str):
            return
        if not batches.holds:
            raise ValueError(
                "mask is an array, whose rows cannot be matched with those of a Dataset or "
                "DataLoader. Let it yield the mask as an input, and set mask to its name."
            )
        n_samples = n_samples_in(batches.X)
        if len(self.mask) != n_samples:
            raise ValueError(
                f"mask has {len(self.mask)} rows and X {n_samples} samples. An array belongs to "
                "one X; for several, pass the mask as an input and set mask to its name."
            )

    def _fit_layers(self, inputs, rows):
        """Set the module, its layers and its coverage from a first batch."""
        with with_shapes_in_errors(inputs):
            self.module_ = prepare_module(self.module, inputs, self.device, self._seed)
            largest = LargestOutput()
            recorder = partial(
                GateRecorder,
                sampling=self.sampling,
                smooth=self.smooth,
                gates=match_gates(self.module_, self.gates),
                note_output=largest.note,
            )
            train = self.sampling == "on"
            self._runner = ModuleRunner(self.module_, recorder, train=train, seed=self._seed)
            self._masks = Masks(self.module_, self.mask)
            masks = self._masks.of(inputs, n_samples_in(inputs), rows)
            chosen, coverage, drawn = self._find_layers(inputs, masks, largest)
            chosen, coverage = self._refuse_dependent(chosen, coverage, drawn, inputs, masks)
        check_layers(type(self.module_).__name__, chosen, coverage, self.layers)
        warn_missed(coverage)
        self._layouts = chosen
        self._rows = PositionRows if self.samples == "position" else SampleRows
        self._layers = self._rows(chosen, self._masks).layers
        n_gates = {layer.name: layer.n_gates for layer in self._layers}  # of a row
        self.coverage_ = [r._replace(n_gates=n_gates.get(r.layer, r.n_gates)) for r in coverage]
        self.layer_names_ = list(chosen)

    def _find_layers(self, inputs, masks, largest):
        """Return the layers to capture, the coverage, and the names of layers that are drawn.

        ``largest`` notes the outputs, from which the samples that run at once are set.
        """
        two, three = self._runner.dry_run(inputs)
        self._constant_is_first = {event.layer for event in three if event.constant_is_first}
        for event in three:
            if event.gates is not None:
                largest.note(event.gates)
        automatic = self.batch_size == "auto"
        self._n_at_once = largest.samples_at_once(3) if automatic else np.inf
        chosen, coverage = choose_layers(two, three, self.layers, self.exclude)
        missing = [e.layer for e in three if e.layer in chosen and e.values.isnan().any()]
        if missing and all(mask.all() for mask in masks.values()):
            raise ValueError(
                f"Layers {missing} receive NaN, from which no gates can be read. Check whether "
                "training diverged, or whether numbers exceed half precision."
            )
        reasons = without_positions(chosen, self._masks, masks, self.samples == "position")
        chosen, coverage = refuse_layers(chosen, coverage, reasons)
        return chosen, coverage, {event.layer for event in three if event.kind == "dropout"}

    def _refuse_dependent(self, chosen, coverage, drawn, inputs, masks):
        """Return layers and coverage less the layers whose rows depend on others or on padding."""
        compared = {name: layout for name, layout in chosen.items() if name not in drawn}
        if not compared:
            return chosen, coverage
        options = {"constant_is_first": self._constant_is_first}
        n_compared = max(MIN_COMPARED, self._n_at_once)
        refused = compare_rows(self._runner, inputs, compared, n_compared, **options)
        chosen, coverage = refuse_layers(chosen, coverage, *refused)
        compared = {name: layout for name, layout in compared.items() if name in chosen}
        given = self._masks, masks, n_compared
        reasons = compare_padding(self._runner, inputs, compared, *given, **options)
        return refuse_layers(chosen, coverage, reasons)

    def _each_part(self, batches, y=None, desc="gating states"):
        """Yield a `Part` for the samples that run at once; fit on the first batch if need be."""
        start, position = 0, 0
        unit = {"desc": desc, "unit": " samples", "disable": not self.verbose}
        with tqdm(total=batches.n_samples, **unit) as bar:
            for inputs, labels in each_batch(batches, seed=self._seed):
                n_samples = n_samples_in(inputs)
                labels = labels if y is None else y[start : start + n_samples]
                if not self.__sklearn_is_fitted__():
                    if self._needs_labels and y is None:  # in fit of a measure
                        require_classes(labels, by_position=self.samples == "position")
                    self._fit_layers(inputs, batches.rows_of(start, start + n_samples))
                for taken, given in split(inputs, labels, self._n_at_once):
                    stop = start + n_samples_in(taken)
                    rows = batches.rows_of(start, stop)
                    yield Part(position, start, stop, taken, given, rows, batches.holds)
                    bar.update(stop - start)
                    start, position = stop, position + 1

    def _read(self, reader, part, repeats=None):
        """Return the packed rows of a part by layer, the sample of each, and their labels.

        Its samples are added to the `Repeats`, if these are counted.
        """
        options = {"checked": part.checked, "constant_is_first": self._constant_is_first}
        masks = self._masks.of(part.inputs, part.stop - part.start, part.rows)
        if repeats is not None:
            repeats.add(part.inputs, self._masks, masks)
        convert = reader.converters(part.inputs, masks)
        arrays = self._runner.read(part.inputs, part.position, convert, **options)
        packed, samples, labels = reader.collect(arrays, part.labels)
        return packed, None if samples is None else part.start + samples, labels

    def _run(self, batches, y, *, in_turn, repeats=None):
        """Return the states and labels of all batches; fits on the first if need be.

        States that do not fit in memory are `LayersInTurn`, or all of them if not ``in_turn``.
        """
        store = None
        for part in self._each_part(batches, y):
            if store is None:
                reader = self._rows(self._layouts, self._masks)
                n_bytes = reader.n_bytes(batches.n_samples)
                kept = first_pass(self.layer_names_, n_bytes, batches) if in_turn else None
                store = Store(self._layers, reader.n_rows(batches.n_samples), kept)
            store.add(*self._read(reader, part, repeats))
            if in_turn and batches.n_samples is None:
                require_room(store.n_bytes, part.stop)
        check_consistent_length(range(part.stop), y)
        reader.warn()
        (groups, labels), gates = store.groups_and_labels(), store.finish()
        if kept is None:
            return GatingStates(gates.values(), self._layers, groups), labels
        run = partial(copy(self)._run_again, batches, store.n_rows)
        read = Passes(run, self._layers, groups, n_bytes, gates, store.checksums)
        return LayersInTurn(self._layers, groups, store.n_rows, read), labels

    def _run_again(self, batches, n_rows, indices):
        """Return the packed gates of some layers, by index, and their checksums."""
        names = [self.layer_names_[index] for index in indices]
        reader = self._rows({name: self._layouts[name] for name in names}, self._masks)
        store = Store(reader.layers, n_rows, range(len(names)))
        desc = f"gating states, layers {names[0]} to {names[-1]}"
        for part in self._each_part(batches, desc=desc):
            store.add(*self._read(reader, part))
        checksums = dict(zip(indices, store.checksums, strict=True))
        return dict(zip(indices, store.finish().values(), strict=True)), checksums


def as_extractor(model, *, sampling, random_state, verbose, needs_labels=False):
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
    needs_labels : bool
        Whether labels that come with the data need to be classes: the first batch then shows it,
        before the module runs.
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
        extractor = type(model)(**params)
    else:
        extractor = GateExtractor(model, sampling=sampling, random_state=seed, verbose=verbose)
    extractor._needs_labels = needs_labels
    return extractor
