"""Watching a module run: which operations gate its data, and what their gates are."""

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from . import _operations as ops
from ._pooling import POOLING, max_pool

__all__ = ["Event", "GateRecorder", "running"]


@dataclass
class Event:
    """One non-linear operation of one forward pass.

    ``gates`` is a boolean tensor with the gates of a unit on its last axis, or None for an
    operation whose gates cannot be read; ``reason`` then says why. A rehearsal keeps ``values``
    too, real numbers on the other axes by which samples can be told apart: what was gated.
    """

    layer: str
    operation: str
    kind: str
    module: nn.Module
    gates: torch.Tensor | None = None
    values: torch.Tensor | None = None
    one_hot: bool = False
    swapped: bool = False
    reason: str = ""


class GateRecorder(TorchFunctionMode):
    """Intercept what torch functions a module calls, and report the non-linear ones.

    Function calls are intercepted, not modules, because networks call ``F.relu`` as often as
    ``nn.ReLU``; and above autograd and the dispatcher, because fused kernels hide gates there.
    Modules lend their names to the calls they make.

    Parameters
    ----------
    module : nn.Module
    sampling : {"on", "off"}
        Whether random numbers are drawn or replaced by their means.
    rehearse : bool, default=False
        Whether to replace them in any case, and still report what ``sampling`` asks for.
    smooth : bool
        Whether smooth activations have gates, ``input > 0``.
    report : callable
        Called with each `Event` as it happens.
    wanted : callable, default=None
        Whether gates of a layer, by name, need to be read; all by default.
    swapped : collection of str, default=()
        Layers that compare a constant with data, in this order; a rehearsal finds out which.
    """

    def __init__(
        self, module, *, sampling, smooth, report, rehearse=False, wanted=None, swapped=()
    ):
        super().__init__()
        self.sampling, self.smooth, self.report = sampling, smooth, report
        self.rehearse, self.draws = rehearse, sampling == "on" and not rehearse
        self.wanted, self.swapped = wanted or (lambda name: True), swapped
        self._module = module
        self._stack = [("", module)]
        self._calls = Counter()
        self._handles = []

    def __enter__(self):
        for name, module in self._module.named_modules():
            name = name.replace("_orig_mod.", "").removesuffix("._orig_mod")
            enter, leave = self._hooks(name)
            self._handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()
        return super().__exit__(*error)

    def _hooks(self, name):
        def enter(module, _):
            self._stack.append((name, module))

        def leave(*_):
            self._stack.pop()

        return enter, leave

    def _event(self, operation, kind, **details):
        path, module = self._stack[-1]
        # nn.ReLU and its like go by the name of the module, other calls by their own besides
        if (
            not path
            or list(module.children())
            or not type(module).__module__.startswith("torch.nn.")
        ):
            path = f"{path}.{operation}" if path else operation
        count = self._calls[path]
        self._calls[path] += 1
        return Event(f"{path}:{count}" if count else path, operation, kind, module, **details)

    def _read(self, event, gates, values):
        event.gates = gates
        if self.rehearse:  # a copy, since the module may work on them in place
            event.values = values.broadcast_to(gates.shape[:-1]).clone()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operation = ops.operation_name(function)
        handle = self._handlers.get(operation)
        if handle is None:
            return function(*args, **kwargs)
        return handle(self, operation, function, args, kwargs)

    def _threshold(self, operation, function, args, kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        if not any(t.is_floating_point() for t in tensors):
            return function(*args, **kwargs)  # arithmetic on indices or masks
        if operation == "rrelu" and not self.draws:
            names = ("input", "lower", "upper", "training", "inplace")
            args, kwargs = (), {**_named(names, args, kwargs), "training": False}
        event = self._event(operation, "threshold")
        if self.wanted(event.layer):
            data, *thresholds = ops.THRESHOLD[operation](*args, **kwargs)
            if operation in ops.COMPARING:
                # told once, since the data of a whole batch may be constant too
                known = event.layer in self.swapped
                event.swapped = ops.constant_first(data, *thresholds) if self.rehearse else known
                data, thresholds = (thresholds[0], [data]) if event.swapped else (data, thresholds)
            self._read(event, ops.above(data, *thresholds), data)  # before the input is changed
        self.report(event)
        return function(*args, **kwargs)

    def _rectified(self, operation, function, args, kwargs):
        output = function(*args, **kwargs)
        event = self._event(operation, "threshold")
        if self.wanted(event.layer):
            self._read(event, output.unsqueeze(-1) > 0, output)
        self.report(event)
        return output

    def _pool(self, operation, function, args, kwargs):
        if function is torch.adaptive_max_pool1d:  # F's returns indices on request, torch's always
            operation += "_with_indices"
        event = self._event(operation.removesuffix("_with_indices"), "max pooling", one_hot=True)
        if not self.wanted(event.layer):
            self.report(event)
            return function(*args, **kwargs)
        output, winner = max_pool(operation, *args, **kwargs)
        self._read(event, winner, output[0] if isinstance(output, tuple) else output)
        self.report(event)
        return output

    def _dropout(self, operation, function, args, kwargs):
        flag = "training" if function.__module__ == "torch.nn.functional" else "train"
        kwargs = _named(("input", "p", flag, "inplace"), args, kwargs)
        x, inplace = kwargs.pop("input"), kwargs.pop("inplace", function.__name__.endswith("_"))
        event = self._event(operation, "dropout")
        if self.draws and kwargs.get(flag, True):
            output, kept = ops.dropout_mask(function, x, kwargs)
            output = x.copy_(output) if inplace else output
        else:
            output, kept = x, torch.ones_like(x, dtype=torch.bool)
        if self.wanted(event.layer):
            values, axes = x, ops.DROPOUT[operation]
            if axes and x.ndim > axes:
                kept, values = kept.flatten(axes)[..., 0], x.flatten(axes).sum(-1)
            self._read(event, kept.unsqueeze(-1), values)
        self.report(event)
        return output

    def _smooth_activation(self, operation, function, args, kwargs):
        event = self._event(operation, "smooth activation")
        if not self.smooth:
            event.reason = "smooth, it has no gates; smooth=True reads input > 0"
        elif self.wanted(event.layer):
            x = args[0] if args else kwargs["input"]
            self._read(event, x.unsqueeze(-1) > 0, x)
        self.report(event)
        return function(*args, **kwargs)

    def _hidden(self, operation, function, args, kwargs):
        other = args[1] if len(args) > 1 else kwargs.get("other")
        if operation in ("max", "min") and isinstance(other, torch.Tensor):
            return self._threshold(f"{operation}imum", function, args, kwargs)
        event = self._event(operation, "hidden")
        event.reason = ops.HIDDEN[operation]
        self.report(event)
        return function(*args, **kwargs)

    def _nonlinear(self, operation, function, args, kwargs):
        event = self._event(operation, ops.NONLINEAR[operation])
        event.reason = f"{event.kind}, it has no gates"
        if event.kind == "attention":
            names = ops.ATTENTION[operation]
            args, kwargs = (), _named(names, args, kwargs)
            drops = kwargs.get("dropout_p") and kwargs.get("training", True)
            if drops and not self.draws:
                kwargs["dropout_p"] = 0.0
            if drops and self.sampling == "on":
                event.kind = "hidden"
                event.reason = (
                    "its dropout runs inside one fused call, so that its mask is not seen"
                )
        elif operation == "gumbel_softmax" and not self.draws:
            function = ops.gumbel_mean
        self.report(event)
        return function(*args, **kwargs)

    def _random(self, operation, function, args, kwargs):
        kwargs.pop("generator", None)  # the module's own would be left changed
        mean = ops.RANDOM[operation]
        event = self._event(operation, "random")
        if self.sampling == "on":
            event.reason = "random numbers, drawn"
        elif mean is not None:
            event.reason = "random numbers, replaced by their mean"
        else:
            event.kind = "hidden"
            event.reason = "random integers have no mean; they are drawn with a fixed seed"
        self.report(event)
        drawn = function(*args, **kwargs)
        return drawn if self.draws or mean is None else mean(drawn, *args, **kwargs)

    def _embedding(self, operation, function, args, kwargs):
        if function not in (F.embedding, F.embedding_bag):  # torch's own take other arguments
            return function(*args, **kwargs)
        names = ops.EMBEDDING[operation]
        args, kwargs = (), _named(names, args, kwargs)
        if kwargs.get("max_norm") is not None:  # which shortens rows of the weight in place
            kwargs["weight"] = kwargs["weight"].clone()
        return function(**kwargs)

    def _batch_norm(self, operation, function, args, kwargs):
        if function is F.batch_norm:  # a call may say training=True and change running statistics
            names = ("input", "running_mean", "running_var", "weight", "bias", "training",
                     "momentum", "eps")  # fmt: skip
            args, kwargs = (), _named(names, args, kwargs)
            if kwargs.get("running_mean") is not None:
                kwargs["training"] = False
            else:
                event = self._event(operation, "normalising")
                event.reason = "it takes the statistics of each batch: gates hang on batch_size"
                self.report(event)
        return function(*args, **kwargs)

    _handlers = {
        **dict.fromkeys(ops.THRESHOLD, _threshold),
        **dict.fromkeys(ops.RECTIFIED, _rectified),
        **dict.fromkeys(POOLING, _pool),
        **dict.fromkeys(ops.DROPOUT, _dropout),
        **dict.fromkeys(ops.SMOOTH, _smooth_activation),
        **dict.fromkeys(ops.HIDDEN, _hidden),
        **dict.fromkeys(ops.NONLINEAR, _nonlinear),
        **dict.fromkeys(ops.RANDOM, _random),
        **dict.fromkeys(ops.EMBEDDING, _embedding),
        "batch_norm": _batch_norm,
    }


def _named(names, args, kwargs):
    return {**dict(zip(names, args, strict=False)), **kwargs}


@contextlib.contextmanager
def running(module, *, train, seed):
    """Put a module, and torch, into the state in which it is watched; put all back after.

    With ``train`` all but normalisation runs in training mode, so that calls which ask for that
    mode are made.

    Training flags, buffers and the states of the random number generators are restored
    whatever happens in between.
    """
    flags = [(m, m.training) for m in module.modules()]
    buffers = [
        (m, name, b, b.clone())
        for m in module.modules()
        for name, b in m._buffers.items()
        if b is not None and not nn.parameter.is_lazy(b)
    ]
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[d.index for d in devices]))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # or nothing was compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for m, _ in flags:
                normalises = isinstance(m, nn.modules.batchnorm._NormBase)
                m.training = train and not normalises
            torch.manual_seed(seed)
            yield
        finally:
            for m, training in flags:
                m.training = training
            for m, name, buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                m._buffers[name] = buffer
