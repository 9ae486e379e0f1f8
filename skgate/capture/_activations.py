"""`ActivationReader`: runs a module on data and yields the outputs of its linear layers."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch.utils.weak import WeakTensorKeyDictionary

from ..exceptions import warn_user
from ..utils.arrays import to_numpy
from ..utils.labels import require_classes
from . import _operations as ops
from ._batch_axis import CONSTANT, BatchAxis, find_batch_axis
from ._coverage import select
from ._inputs import check_inputs, refuse_shuffling, sampled_batches
from ._masks import padding_share
from ._models import prepare_module
from ._runner import ModuleRunner, each_batch, with_shapes_in_errors
from ._substitutes import DETERMINISTIC, DRY_RUN
from ._tracer import Tracer, tensors_in


@dataclass(eq=False)
class LinearEvent:
    """One linear operation of one forward pass.

    ``values`` is its output, after the activation function ``activation`` if one was applied;
    ``output`` is the output before that. Units are on the axis ``axis``, counted from the last.
    """

    layer: str
    operation: str
    module: torch.nn.Module
    n_units: int
    axis: int
    output: torch.Tensor | None = None
    values: torch.Tensor | None = None
    activation: str | None = None


class ActivationRecorder(Tracer):
    """Reports the linear operations of a module, each with the activation function on it.

    An output is followed on its way to an activation function through normalisation, dropout,
    pooling, addition and changes of shape. The activation function on a sum of outputs is that of
    all of them. The product of an output and its own activation, such as ``z * sigmoid(z)``, counts
    as one activation function.

    ``report`` is called with each `LinearEvent` when its values are known, in a dry run as soon as
    it opens. ``wanted`` tells by name whether a layer is reported. Layers named in
    ``read_before_activation`` are read without their activation function. ``opaque`` is filled with
    the operations that have linear layers inside which cannot be seen, by layer.
    """

    def __init__(
        self, module, *, report, dry_run=False, wanted=None, read_before_activation=(), opaque=None
    ):
        super().__init__(module)
        self.report, self.dry_run = report, dry_run
        self.substitutes = DRY_RUN if dry_run else DETERMINISTIC
        self.wanted = wanted or (lambda name: True)
        self.read_before_activation = read_before_activation
        self.opaque = {} if opaque is None else opaque
        self._origins = WeakTensorKeyDictionary()  # tensor -> events that it comes from
        self._activated = WeakTensorKeyDictionary()  # the same, through an activation function
        self._weights = _storages(module.parameters())

    def _linear(self, operation, function, args, kwargs):
        output = function(*args, **kwargs)
        axis = ops.LINEAR[operation]
        if operation in ops.PRODUCTS:
            operands = tensors_in(args, kwargs)
            if not any(map(self._is_weight, operands)):
                return output
            left, right = map(self._is_weight, operands[-2:])  # addmm has its bias before them
            axis = -2 if left and not right and output.ndim > 1 else -1
        layer, module = self._locate(operation)
        event = LinearEvent(layer, operation, module, output.shape[axis], axis)
        if self.dry_run:
            event.output = event.values = output.clone()
            self.report(event)
        elif layer in self.read_before_activation:
            event.values = output
            self.report(event)
            return output
        if self.dry_run or self.wanted(layer):
            self._origins[output] = [event]
        return output

    def _is_weight(self, tensor):
        """Return whether a tensor is a parameter of the module, or a view of one."""
        address = tensor.untyped_storage().data_ptr()
        # accelerate loads those that are offloaded as the module that has them runs
        loaded = self._stack[-1][1].parameters(recurse=False)
        return address in self._weights or address in _storages(loaded)

    def _follow(self, operation, function, args, kwargs):
        """Run an operation, and note its output if linear outputs go into it."""
        tensors = tensors_in(args, kwargs)
        # looked up before the operation runs, which may overwrite its input
        origins = _events_of(self._origins, tensors)
        activated = _events_of(self._activated, tensors)
        output = self._run(operation, function, args, kwargs)
        if not (origins or activated) or not isinstance(output, torch.Tensor):
            return output
        if operation in ops.SCALING and sum(t.numel() > 1 for t in tensors) > 1:
            self._activate([e for e in activated if e in origins], operation, output)
        elif operation in ops.ACTIVATION:
            self._activate([e for e in origins if e.activation is None], operation, output)
            self._activated[output] = origins + activated
        else:
            self._origins[output], self._activated[output] = origins, activated
        return output

    def _activate(self, events, operation, output):
        for event in events:
            # the product with the output of its own activation function is another function
            event.activation = f"x * {event.activation}" if event.activation else operation
            event.values = output.clone() if self.dry_run else output
            if not self.dry_run:
                self.report(event)

    def _opaque(self, operation, function, args, kwargs):
        self.opaque.setdefault(self._locate(operation)[0], operation)
        return self._run(operation, function, args, kwargs)

    handlers = {
        **dict.fromkeys((*ops.ACTIVATION, *ops.LINEAR_CHAIN_OPS), _follow),
        **dict.fromkeys(ops.LINEAR, _linear),
        **dict.fromkeys(ops.OPAQUE_LINEAR_OPS, _opaque),
    }


def _storages(parameters):
    """Return the addresses of the data of parameters."""
    return {p.untyped_storage().data_ptr() for p in parameters if not p.is_meta}


def _events_of(events, tensors):
    """Return the events of some tensors, each once."""
    return list(dict.fromkeys(event for tensor in tensors for event in events.get(tensor, [])))


class ActivationLayer(NamedTuple):
    """How to read one layer: the axes of its samples and units, and its activation function."""

    name: str
    batch_axis: BatchAxis
    unit_axis: int | None
    activation: str | None

    def array(self, event, n_samples):
        """Return activations, (n_samples, n_positions, n_units)."""
        values = self.batch_axis.checked_rows(self.name, event.values, n_samples)
        n_units = values[0].numel() if self.unit_axis is None else values.shape[self.unit_axis]
        values = values if self.unit_axis is None else values.movedim(self.unit_axis, -1)
        values = values.reshape(len(values), -1, n_units)
        array = np.array(to_numpy(values))  # a copy: the module may overwrite them in place
        if not np.isfinite(array).all():
            raise ValueError(
                f"The activations of layer {self.name!r} contain NaN or infinity, from which no "
                "information can be measured. Check whether training diverged."
            )
        return array


class ActivationReader:
    """Runs a module on raw inputs and yields the activations of its layers, batch by batch.

    After a pass, ``activation_functions`` names that of each layer, None for its own output;
    ``has_first`` and ``has_last`` say whether the first, and the last, layer of the module are
    read, and ``sampled`` whether ``max_samples`` were drawn before it.
    """

    def __init__(self, model, *, layers, spatial, batch_size, needs_labels=False):
        self.model, self.layers, self.spatial = model, layers, spatial
        self.batch_size, self.needs_labels = batch_size, needs_labels

    def read(self, estimator, X, y, *, reset, max_samples=None, random_state=None):
        """Yield ``(layers, labels)`` of each batch: arrays by name, and labels or None.

        ``estimator`` is that whose input this is, for scikit-learn's checks. ``reset`` finds the
        layers, in the first batch.
        """
        X, sample = check_inputs(estimator, X, reset=reset), (max_samples, random_state)
        batches, y, _, self.sampled = sampled_batches(X, y, None, self.batch_size, *sample)
        start, padding = 0, 0.0
        for inputs, labels in each_batch(batches, seed=0):
            if reset and start == 0:
                if self.needs_labels and y is None:
                    require_classes(labels)
                self._find_layers(inputs)
            padding = max(padding, padding_share(self._runner.module, inputs))
            options = {"checked": batches.holds, "read_before_activation": self._unactivated}
            arrays = self._runner.read(inputs, 0, self._converters, **options)
            stop = start + len(next(iter(arrays.values())))
            yield arrays, labels if y is None else y[start:stop]
            start = stop
        if padding:
            warn_user(
                f"Up to {padding:.0%} of the positions of a batch are under a mask, and measures "
                "of layers count them as data. Pass samples of one length."
            )

    def _find_layers(self, inputs):
        opaque = {}
        with with_shapes_in_errors(inputs):
            module = prepare_module(self.model, inputs, "auto", 0)
            recorder = partial(ActivationRecorder, opaque=opaque)
            two, three = ModuleRunner(module, recorder, train=False, seed=0).dry_run(inputs)
        if two and two[-1] is None:
            raise ValueError(
                f"Layer {three[-1].layer!r} runs on some samples only, so that the last layer "
                "cannot be identified. Take data-dependent control flow out of forward."
            )
        self._runner = ModuleRunner(module, ActivationRecorder, train=False, seed=0)
        if opaque:
            hidden = "\n  ".join(f"{layer}: {operation}" for layer, operation in opaque.items())
            warn_user(
                "Linear layers inside these operations cannot be seen and are not measured:\n  "
                + hidden
            )
        layers = self._choose(two, three, type(module).__name__)
        self.has_first &= not opaque
        self.activation_functions = [layer.activation for layer in layers]
        self._converters = {layer.name: layer.array for layer in layers}
        self._unactivated = {layer.name for layer in layers if layer.activation is None}

    def _choose(self, two, three, name):
        """Return the layers that were asked for, from the events of two runs."""
        found, reasons = [], []
        for a, b in zip(two, three, strict=True):
            batch_axis, reason = find_batch_axis(a, b)
            if batch_axis:
                found.append((b, batch_axis))
            elif reason != CONSTANT:
                reasons.append(f"{b.layer}: {reason}")
        if not found:
            raise ValueError(
                f"{name} has no linear or convolutional layer whose output could be read"
                + (f" ({'; '.join(reasons)})." if reasons else ".")
            )
        if reasons:
            warn_user("Not among the layers:\n  " + "\n  ".join(reasons))
        last = found[-1][0]
        if last.activation:  # the output layer is read as logits
            last.values, last.activation = last.output, None
        wanted = select([event for event, _ in found], self.layers)
        self.has_first, self.has_last = found[0][0].layer in wanted, last.layer in wanted
        return [self._layer(e, batch_axis) for e, batch_axis in found if e.layer in wanted]

    def _layer(self, event, batch_axis):
        unit_axis = None
        if self.spatial == "channels":
            shape = batch_axis.rows(event.values).shape  # (n_samples, ...)
            axes = [i for i in range(1, len(shape)) if shape[i] == event.n_units]
            usual = len(shape) + event.axis
            unit_axis = usual if usual in axes else axes[0] if len(axes) == 1 else None
            if unit_axis is None:
                warn_user(
                    f"Layer {event.layer!r}: which axis of its activations, of shape "
                    f"{tuple(shape[1:])}, holds its {event.n_units} units is ambiguous. Each unit "
                    "and position counts as a unit, as with spatial='flatten'."
                )
        return ActivationLayer(event.layer, batch_axis, unit_axis, event.activation)


def layer_activations(model, X, *, layers=None, batch_size=256):
    """Return the activations of a model's layers, as the measures of layers read them.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator with a module
        The output of every linear and convolutional layer is read, in the order in which they
        run, after the activation function that follows it if there is one; of the last layer,
        the output itself. The module is left unchanged.
    X : array, tensor, dict or tuple of these, Dataset or DataLoader
        Raw inputs of the model; a loader must not shuffle.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to read, as of :class:`GateExtractor`; all by default.
    batch_size : int, default=256
        Samples that go through the model at once. A ``DataLoader`` has its own.

    Returns
    -------
    activations : dict of str to ndarray of shape (n_samples, n_units)
        By name of the layer; each position of a layer with positions counts as units.

    Raises
    ------
    ValueError
        If ``X`` is not as described, activations are not finite, or ``layers`` names none.

    See Also
    --------
    gibbs_layer_mi, binned_layer_mi, kde_layer_mi, sample_correlation : Measures of activations.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import layer_activations
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> activations = layer_activations(net, torch.randn(100, 4))
    >>> {name: array.shape for name, array in activations.items()}
    {'0': (100, 8), '2': (100, 2)}
    """
    refuse_shuffling(X)
    reader = ActivationReader(model, layers=layers, spatial="flatten", batch_size=batch_size)
    batches = [arrays for arrays, _ in reader.read(BaseEstimator(), X, None, reset=True)]
    return {name: np.concatenate([b[name] for b in batches])[:, 0] for name in batches[0]}
