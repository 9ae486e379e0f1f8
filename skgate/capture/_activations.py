"""`ActivationReader`: run a module on data and hand on what its linear layers put out."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch.utils.data import DataLoader
from torch.utils.weak import WeakTensorKeyDictionary

from ..exceptions import warn_user
from ..utils.arrays import to_numpy
from . import _operations as ops
from ._batch_axis import CONSTANT, Layout, find_layout
from ._coverage import select
from ._inputs import Batches, check_inputs, check_targets, refuse_shuffling
from ._models import prepare_module
from ._recorder import GateRecorder
from ._runner import Watcher, each_batch, noted

__all__ = ["ActivationReader", "layer_activations"]


@dataclass
class LinearEvent:
    """One linear operation of one forward pass.

    ``values`` is its output, after the activation function ``activation`` if one was applied;
    ``output`` what it was before. Units are on the axis ``axis``, counted from the last.
    """

    layer: str
    operation: str
    module: torch.nn.Module
    n_units: int
    axis: int
    output: torch.Tensor | None = None
    values: torch.Tensor | None = None
    activation: str | None = None


class ActivationRecorder(GateRecorder):
    """Report the linear operations of a module, each with the activation function on it.

    What is done to an output on its way to an activation function is followed: normalisation,
    dropout, pooling, addition, change of shape. Where outputs are added, the activation function
    on the sum is that of all of them. A product of an output with what an activation function made
    of it, such as ``z * sigmoid(z)``, is one activation function.

    Parameters
    ----------
    module : nn.Module
    report : callable
        Called with each `LinearEvent`, when its values are known.
    rehearse : bool, default=False
        Whether to report at once, and copy what is going to be known later.
    wanted : callable, default=None
        Whether a layer, by name, is to be reported; all by default.
    bare : collection of str, default=()
        Layers whose own output is wanted, not that of an activation function.
    missed : callable, default=None
        Called with events of operations that have linear layers inside which cannot be seen.
    """

    def __init__(self, module, *, report, rehearse=False, wanted=None, bare=(), missed=None):
        super().__init__(
            module,
            sampling="off",
            smooth=False,
            rehearse=rehearse,
            report=missed or (lambda event: None),
            wanted=lambda name: False,
        )
        self.tell, self.asked, self.bare = report, wanted or (lambda name: True), bare
        self._origins = WeakTensorKeyDictionary()  # tensor -> events that it comes from
        self._activated = WeakTensorKeyDictionary()  # the same, through an activation function
        self._weights = {p.untyped_storage().data_ptr() for p in module.parameters()}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operation = ops.operation_name(function)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        # before it runs: in place, it makes another thing of its input
        origins = self._found(self._origins, tensors)
        activated = self._found(self._activated, tensors)
        output = super().__torch_function__(function, types, args, kwargs)
        if isinstance(output, torch.Tensor):
            if operation in ops.LINEAR:
                self._open(operation, tensors, output)
            elif origins or activated:
                self._follow(operation, tensors, origins, activated, output)
        return output

    @staticmethod
    def _found(events_of, tensors):
        return list({id(e): e for t in tensors for e in events_of.get(t, [])}.values())

    def _follow(self, operation, tensors, origins, activated, output):
        """Note what became of linear outputs: an activation, or another form of themselves."""
        if operation in ("max", "min") and len(tensors) > 1:
            operation += "imum"
        if operation in ops.SCALING and sum(t.numel() > 1 for t in tensors) > 1:
            self._close([e for e in activated if e in origins], operation, output)
        elif operation in ops.ACTIVATION:
            self._close([e for e in origins if e.activation is None], operation, output)
            self._activated[output] = origins + activated
        elif operation in ops.CARRYING:
            self._origins[output], self._activated[output] = origins, activated

    def _is_weight(self, tensor):
        """Whether a tensor is a parameter of the module, or a view of one."""
        return tensor.untyped_storage().data_ptr() in self._weights

    def _open(self, operation, operands, output):
        axis = ops.LINEAR[operation]
        if operation in ops.PRODUCTS:
            if not any(map(self._is_weight, operands)):
                return
            left, right = map(self._is_weight, operands[-2:])  # before them, addmm has its bias
            axis = -2 if left and not right and output.ndim > 1 else -1
        event = self._event(operation, "linear")
        event = LinearEvent(event.layer, operation, event.module, output.shape[axis], axis)
        if self.rehearse:
            event.output = event.values = output.clone()
            self.tell(event)
        elif not self.asked(event.layer):
            return
        elif event.layer in self.bare:
            event.values = output
            self.tell(event)
            return
        self._origins[output] = [event]

    def _close(self, events, operation, output):
        for event in events:
            # a product with what its own activation function gave is another one
            event.activation = f"x * {event.activation}" if event.activation else operation
            event.values = output.clone() if self.rehearse else output
            if not self.rehearse:
                self.tell(event)


class ActivationLayer(NamedTuple):
    """How to read one layer: where samples and units are, and which activation function."""

    name: str
    layout: Layout
    axis: int | None
    activation: str | None

    def array(self, event):
        """Return activations, (n_samples, n_positions, n_units)."""
        values = self.layout.rows(event.values)
        n_units = values[0].numel() if self.axis is None else values.shape[self.axis]
        values = values if self.axis is None else values.movedim(self.axis, -1)
        values = values.reshape(len(values), -1, n_units)
        array = np.array(to_numpy(values))  # a copy: the module may go on to work in place
        if not np.isfinite(array).all():
            raise ValueError(
                f"The activations of layer {self.name!r} contain NaN or infinity, of which no "
                "information can be measured. See whether training diverged."
            )
        return array


class ActivationReader:
    """Runs a module on raw inputs and hands on the activations of its layers, batch by batch.

    Parameters
    ----------
    model : nn.Module or fitted estimator with a module
    layers : as of `GateExtractor`
    spatial : {"channels", "flatten"}
    batch_size : int

    Attributes
    ----------
    has_first, has_last : bool
        Whether the first, and the last, layer of the module are among those that are read.
    """

    def __init__(self, model, *, layers, spatial, batch_size):
        self.model, self.layers, self.spatial = model, layers, spatial
        self.batch_size = batch_size

    @property
    def activation_functions(self):
        """Name of the activation function of each layer, None for its own output."""
        return [layer.activation for layer in self._layers]

    def read(self, estimator, X, y, consume, *, reset, draw=None):
        """Call ``consume(layers, labels)`` with each batch: arrays by name, and labels or None.

        Returns whether ``draw`` was heeded, which it is where the number of samples is known.

        Parameters
        ----------
        estimator : BaseEstimator
            Whose input this is, for scikit-learn's checks.
        X : array, tensor, dict or tuple of these, Dataset or DataLoader
        y : array-like or None
        consume : callable
        reset : bool
            Whether to find the layers, in the first batch.
        draw : callable, default=None
            Takes a number of samples and returns the rows to read, None for all.
        """
        X = check_inputs(estimator, X, reset=reset)
        n_samples = Batches(X, 1).n_samples
        y = check_targets(X, y, n_samples)
        can_draw = draw is not None and n_samples is not None and not isinstance(X, DataLoader)
        rows = draw(n_samples) if can_draw else None
        y = y if y is None or rows is None else y[rows]
        batches = Batches(X, self.batch_size, rows)
        done = Counter()

        def read(inputs, labels):
            if reset and not done["batches"]:
                self._find_layers(inputs)
            arrays = self._runner.read(
                inputs, 0, self._readers, checked=batches.holds, bare=self._bare
            )
            n, start = len(arrays[0]), done["samples"]
            done.update(batches=1, samples=n)
            if y is not None:
                labels = y[start : start + n]
            consume(dict(zip(self._readers, arrays, strict=True)), labels)

        each_batch(batches, read, seed=0, verbose=0, desc="activations")
        return can_draw

    def _find_layers(self, inputs):
        with noted(inputs):
            module = prepare_module(self.model, inputs, "auto", 0)
            missed = {}
            record = partial(
                ActivationRecorder, missed=lambda event: missed.setdefault(event.layer, event)
            )
            two, three = Watcher(module, record, train=False, seed=0).rehearse(inputs)
            self._runner = Watcher(module, ActivationRecorder, train=False, seed=0)
        self._warn_hidden(missed.values())
        self._layers = self._choose(two, three, type(module).__name__)
        self.has_first &= not any(e.operation in ops.HOLDS_LINEAR for e in missed.values())
        self._readers = {layer.name: layer.array for layer in self._layers}
        self._bare = {layer.name for layer in self._layers if layer.activation is None}

    def _choose(self, two, three, name):
        """Return the layers that were asked for, from the events of two runs."""
        found, reasons = [], []
        for a, b in zip(two, three, strict=True):
            layout, reason = find_layout(a, b)
            if layout:
                found.append((b, layout))
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
        if last.activation:  # the output layer is read before anything is done to its logits
            last.values, last.activation = last.output, None
        wanted = select([event for event, _ in found], self.layers)
        self.has_first, self.has_last = found[0][0].layer in wanted, last.layer in wanted
        return [self._layer(e, layout) for e, layout in found if e.layer in wanted]

    def _layer(self, event, layout):
        axis = None
        if self.spatial == "channels":
            shape = layout.rows(event.values).shape  # (n_samples, ...)
            axes = [i for i in range(1, len(shape)) if shape[i] == event.n_units]
            usual = len(shape) + event.axis
            axis = usual if usual in axes else axes[0] if len(axes) == 1 else None
            if axis is None:
                warn_user(
                    f"Layer {event.layer!r}: which axis of its activations, of shape "
                    f"{tuple(shape[1:])}, holds its {event.n_units} units cannot be told. Each "
                    "unit and position counts as a unit, as with spatial='flatten'."
                )
        return ActivationLayer(event.layer, layout, axis, event.activation)

    def _warn_hidden(self, events):
        hidden = [f"{e.layer}: {e.operation}" for e in events if e.operation in ops.HOLDS_LINEAR]
        if hidden:
            warn_user(
                "Linear layers inside these operations cannot be seen and are not measured:\n  "
                + "\n  ".join(hidden)
            )


def layer_activations(model, X, *, layers=None, batch_size=256):
    """Return the activations of a model's layers, as the measures of layers read them.

    Parameters
    ----------
    model : torch.nn.Module or fitted estimator with a module
        Read is the output of every linear and convolutional layer, in the order in which they
        run, after the activation function that follows it if there is one; of the last of them,
        the output itself. The module comes back as it was.
    X : array, tensor, dict or tuple of these, Dataset or DataLoader
        Raw inputs of the model; a loader must not shuffle.
    layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to read, as of :class:`GateExtractor`; all by default.
    batch_size : int, default=256
        Samples that go through the model at once. A ``DataLoader`` has its own.

    Returns
    -------
    activations : dict of str to ndarray of shape (n_samples, n_units)
        By name of the layer; positions of a layer that has some are units.

    Raises
    ------
    ValueError
        If ``X`` is not as described, activations are not finite, or ``layers`` names none.

    See Also
    --------
    gibbs_layer_mi, binned_layer_mi, kde_layer_mi, sample_correlation : What takes activations.

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
    batches = []
    reader.read(BaseEstimator(), X, None, lambda arrays, _: batches.append(arrays), reset=True)
    return {name: np.concatenate([b[name] for b in batches])[:, 0] for name in batches[0]}
