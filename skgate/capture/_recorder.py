"""`GateRecorder`: the gates of each non-linear operation that a module runs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from . import _operations as ops
from ._pooling import POOLING, max_pool
from ._substitutes import DETERMINISTIC, DRY_RUN, MEANS, WITHOUT_SIDE_EFFECTS, dropout_mask
from ._tracer import Tracer, has_floats


@dataclass
class Event:
    """One non-linear operation of one forward pass.

    ``gates`` is a boolean tensor with the gates of a unit on its last axis, or None for an
    operation whose gates cannot be read; ``reason`` then says why. A dry run also keeps
    ``values``, the gated numbers, which tell samples apart on the other axes. ``after`` is about
    the last linear operation: the axis of its units, counted from the last, and their number.
    """

    layer: str
    operation: str
    kind: str
    module: nn.Module
    gates: torch.Tensor | None = None
    values: torch.Tensor | None = None
    one_hot: bool = False
    constant_is_first: bool = False
    reason: str = ""
    after: tuple[int, int] | None = None

    @property
    def after_convolution(self):
        """Whether the linear operation before is a convolution."""
        return self.after is not None and self.after[0] < -1


class GateRecorder(Tracer):
    """Reports the non-linear operations of a module, with their gates.

    ``report`` is called with each `Event` as it happens. ``sampling`` is "on" or "off": whether
    random numbers are drawn or replaced by their means, as a dry run replaces them in any case.
    ``smooth`` activations have gates, ``input > 0``. ``wanted`` tells by name whether the gates of
    a layer are read. Layers in ``constant_is_first`` compare a constant with data, in this order;
    by default it is found out.
    """

    def __init__(
        self,
        module,
        *,
        sampling,
        smooth,
        report,
        dry_run=False,
        wanted=None,
        constant_is_first=None,
    ):
        super().__init__(module)
        self.sampling, self.smooth, self.report, self.dry_run = sampling, smooth, report, dry_run
        self.wanted, self.constant_is_first = wanted or (lambda name: True), constant_is_first
        self.draws = sampling == "on" and not dry_run
        still = DRY_RUN if dry_run else DETERMINISTIC
        self.substitutes = WITHOUT_SIDE_EFFECTS if self.draws else still
        self._after = None

    def _event(self, operation, kind, **details):
        layer, module = self._locate(operation)
        return Event(layer, operation, kind, module, after=self._after, **details)

    def _read(self, event, gates, values):
        event.gates = gates
        if self.dry_run:  # a copy, since the module may overwrite them in place
            event.values = values.broadcast_to(gates.shape[:-1]).clone()

    def _linear(self, operation, function, args, kwargs):
        output = self._run(operation, function, args, kwargs)
        axis = ops.LINEAR[operation]
        if output.ndim >= -axis:
            self._after = axis, output.shape[axis]
        return output

    def _threshold(self, operation, function, args, kwargs):
        if has_floats(args, kwargs):
            event = self._event(operation, "threshold")
            if self.wanted(event.layer):
                data, *thresholds = ops.THRESHOLD[operation](*args, **kwargs)
                if operation in ops.COMPARING:
                    # found once, since the data of another batch may be constant too
                    known = self.constant_is_first
                    found = (
                        ops.constant_first(data, *thresholds)
                        if known is None
                        else event.layer in known
                    )
                    event.constant_is_first = found
                    data, thresholds = (thresholds[0], [data]) if found else (data, thresholds)
                self._read(event, ops.above(data, *thresholds), data)  # before it is overwritten
            self.report(event)
        return self._run(operation, function, args, kwargs)

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
        if self.wanted(event.layer):
            output, winner = max_pool(operation, args, kwargs)
            self._read(event, winner, output[0] if isinstance(output, tuple) else output)
        else:
            output = function(*args, **kwargs)
        self.report(event)
        return output

    def _dropout(self, operation, function, args, kwargs):
        flag = "training" if function.__module__ == "torch.nn.functional" else "train"
        kwargs = ops.by_name(("input", "p", flag, "inplace"), args, kwargs)
        x, inplace = kwargs.pop("input"), kwargs.pop("inplace", function.__name__.endswith("_"))
        event = self._event(operation, "dropout")
        if reason := self._no_dropout(operation, kwargs.get("p", 0.5), kwargs.get(flag)):
            event.reason = f"{ops.DROPS_NOTHING}: {reason}"
            self.report(event)
            return x
        output, kept = x, torch.ones_like(x, dtype=torch.bool)
        if self.draws:
            output, kept = dropout_mask(function, x, kwargs)
            output = x.copy_(output) if inplace else output
        if self.wanted(event.layer):
            values, axes = x, ops.DROPOUT[operation]
            if axes and x.ndim > axes:
                kept, values = kept.flatten(axes)[..., 0], x.flatten(axes).sum(-1)
            self._read(event, kept.unsqueeze(-1), values)
        self.report(event)
        return output

    def _no_dropout(self, operation, p, training):
        """Return why a dropout has no gates, "" if it has."""
        if training is None:  # functions for alpha dropout differ from the others
            training = "alpha" not in operation
        if not p:
            return "p is 0"
        if self.sampling == "off":
            return "sampling is off"
        return "" if training else "its training flag is off"

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
        self.report(self._event(operation, "hidden", reason=ops.HIDDEN[operation]))
        return function(*args, **kwargs)

    def _nonlinear(self, operation, function, args, kwargs):
        event = self._event(operation, ops.NONLINEAR[operation])
        event.reason = f"{event.kind}, it has no gates"
        if event.kind == "attention" and self.sampling == "on":
            named = ops.by_name(ops.ATTENTION[operation], args, kwargs)
            if named.get("dropout_p") and named.get("training", True):
                event.kind = "hidden"
                event.reason = "its dropout runs inside one fused call, which does not give a mask"
        self.report(event)
        return self._run(operation, function, args, kwargs)

    def _random(self, operation, function, args, kwargs):
        kind, reason = "random", "random numbers, replaced by their mean"
        if self.sampling == "on":
            reason = "random numbers, drawn"
        elif MEANS[operation] is None:
            kind = "hidden"
            reason = "random integers have no mean; they are drawn with a fixed seed"
        self.report(self._event(operation, kind, reason=reason))
        return self._run(operation, function, args, kwargs)

    def _batch_norm(self, operation, function, args, kwargs):
        named = ops.by_name(("input", "running_mean"), args, kwargs)
        if function is F.batch_norm and named.get("running_mean") is None:
            reason = "it takes the statistics of each batch: gates depend on batch_size"
            self.report(self._event(operation, "normalising", reason=reason))
        return self._run(operation, function, args, kwargs)

    handlers = {
        **dict.fromkeys(ops.LINEAR, _linear),
        **dict.fromkeys(ops.THRESHOLD, _threshold),
        **dict.fromkeys(ops.RECTIFIED, _rectified),
        **dict.fromkeys(POOLING, _pool),
        **dict.fromkeys(ops.DROPOUT, _dropout),
        **dict.fromkeys(ops.SMOOTH, _smooth_activation),
        **dict.fromkeys(ops.HIDDEN, _hidden),
        **dict.fromkeys(ops.NONLINEAR, _nonlinear),
        **dict.fromkeys(MEANS, _random),
        "batch_norm": _batch_norm,
    }
