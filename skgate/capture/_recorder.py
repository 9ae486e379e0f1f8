"""`GateRecorder`: the gates of each non-linear operation that a module runs."""

import contextlib
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from . import _operations as ops
from ._custom_gates import custom_functions, is_custom, read_gates
from ._pooling import POOLING, max_pool
from ._selections import Selections, first_k
from ._substitutes import DETERMINISTIC, DRY_RUN, MEANS, WITHOUT_SIDE_EFFECTS, dropout_mask
from ._tracer import Tracer, has_floats, named_parts

#: Operations that have gates, or may have.
GATING = {*ops.THRESHOLD, *ops.COMPARISONS, *ops.ORDERS, *POOLING}


@dataclass
class Event:
    """One non-linear operation of one forward pass.

    ``gates`` is a boolean tensor with the gates of a unit on its last axis, or None for an
    operation whose gates cannot be read; ``reason`` then says why. A dry run also keeps
    ``values``, the gated numbers, which tell samples apart on the other axes. ``after`` is about
    the last linear operation: the axis of its units, counted from the last, and their number.
    ``moved``: a first run saw that the data chose or sorted the rows of the numbers.
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
    moved: bool = False

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
    by default it is found out. ``gates`` has functions that return the gates of modules, by name.

    A dry run without ``wanted`` finds the layers: gates of a comparison, or of an order, are in
    its event once its result selects data. ``note_output`` is then called with the output of each
    linear operation.
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
        gates=None,
        note_output=None,
    ):
        super().__init__(module)
        self.sampling, self.smooth, self.report, self.dry_run = sampling, smooth, report, dry_run
        self.wanted, self.constant_is_first = wanted or (lambda name: True), constant_is_first
        self.gates, self._n_covering = gates or {}, 0
        self.selections = None
        if dry_run and wanted is None:
            self.selections = Selections(module, partial(self._hide, reason=ops.UNKNOWN_MASK))
        self.note_output = note_output if self.selections is not None else None
        self._n_gating = 0
        self.draws = sampling == "on" and not dry_run
        still = DRY_RUN if dry_run else DETERMINISTIC
        self.substitutes = WITHOUT_SIDE_EFFECTS if self.draws else still
        self._after = None

    def __enter__(self):
        super().__enter__()
        for name, module in named_parts(self._module) if self.gates else ():
            if name in self.gates:
                enter, leave = self._cover(name)
                self._hooks += [
                    module.register_forward_pre_hook(enter),
                    module.register_forward_hook(leave, always_call=True),
                ]
        self._functions = contextlib.ExitStack()
        if self.selections is not None:
            self._functions.enter_context(custom_functions(self._autograd_function))
            note = self.selections.note_inputs
            self._hooks.append(self._module.register_forward_pre_hook(note, with_kwargs=True))
        return self

    def __exit__(self, *error):
        self._functions.close()
        if self.selections is not None:
            self.selections.finish()
        return super().__exit__(*error)

    def _cover(self, name):
        """Return hooks that read the gates of a module by the user's function."""

        def enter(*_):
            self._n_covering += 1

        def leave(module, inputs, output):
            self._n_covering -= 1
            if output is None or self._n_covering:  # after an error; inside another such module
                return
            event = Event(self._numbered(name), "custom", "custom", module, after=self._after)
            if self.wanted(event.layer):
                with torch._C.DisableTorchFunction():
                    gates = read_gates(name, self.gates[name], module, inputs, output)
                    alike = isinstance(output, torch.Tensor) and output.shape == gates.shape
                    self._read(event, gates.unsqueeze(-1), output if alike else gates)
            self.report(event)

        return enter, leave

    def _handle(self, operation, function, args, kwargs):
        handle = self._handle_covered if self._n_covering else super()._handle
        if self.selections is None:
            return handle(operation, function, args, kwargs)
        if is_custom(function) and self.selections.any_data(args, kwargs):
            self._hide(operation, ops.CUSTOM.format(f"operator {function}"))
        run = partial(handle, operation, function, args, kwargs)
        return self.selections.follow(operation, args, kwargs, run)

    def _handle_covered(self, operation, function, args, kwargs):
        if operation in ops.LINEAR:
            return self._linear(operation, function, args, kwargs)
        if self.selections is not None and operation in self.handlers:
            path, module = self._place(operation)
            self.report(Event(path, operation, "custom", module, reason=ops.READ_BY_FUNCTION))
        return self._run(operation, function, args, kwargs)

    def _hide(self, operation, reason):
        """Report gates that cannot be read. The name is not counted: other runs do not see it."""
        if not self._n_covering:
            path, module = self._place(operation)
            self.report(Event(path, operation, "hidden", module, reason=reason))

    def _autograd_function(self, cls, args, run):
        """Run a custom autograd function; report it unless its gates are seen inside."""
        is_data, n_gating = self.selections.any_data(args), self._n_gating
        output = run()
        seen = n_gating < self._n_gating and self.selections.knows(output)
        if is_data and not seen:
            self._hide(cls.__name__, ops.CUSTOM.format(f"autograd function {cls.__name__}"))
        return output

    def _event(self, operation, kind, **details):
        layer, module = self._locate(operation)
        self._n_gating += operation in GATING
        return Event(layer, operation, kind, module, after=self._after, **details)

    def _decide(self, event, kind, x, read, threshold=None, why_hidden=""):
        """Report an operation that is a layer of this kind if its outcome selects data.

        ``read`` returns its gates and the gated numbers, unless ``why_hidden`` says that these
        have none. Returns the `Candidate` of a first run.
        """
        if self.selections is None:
            if not why_hidden and self.wanted(event.layer):
                self._read(event, *read())
            self.report(event)
            return None
        if not self.selections.is_data(x) or self.selections.is_outcome(x):
            return None
        fields = {"kind": "hidden", "reason": why_hidden}
        if not why_hidden:
            self._read(event, *read())
            fields = {"kind": kind, "reason": "", "gates": event.gates}
            event.gates = None
        self.report(event)
        numbers = None if kind == "comparison" else x
        return self.selections.add(event, numbers, threshold, **fields)

    def _read(self, event, gates, values):
        event.gates = gates
        if self.selections is not None:
            event.moved = self.selections.is_moved(values)
        if self.dry_run:  # a copy, since the module may overwrite them in place
            event.values = values.broadcast_to(gates.shape[:-1]).clone()

    def _linear(self, operation, function, args, kwargs):
        output = self._run(operation, function, args, kwargs)
        axis = ops.LINEAR[operation]
        if self.note_output is not None:
            self.note_output(output)
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
            event.reason = ops.IS_SMOOTH
        elif self.wanted(event.layer):
            x = args[0] if args else kwargs["input"]
            self._read(event, x.unsqueeze(-1) > 0, x)
        self.report(event)
        return function(*args, **kwargs)

    def _compare(self, operation, function, args, kwargs):
        output = self._run(operation, function, args, kwargs)
        if not has_floats(args, kwargs):
            return output
        first, second = ops.by_name(("input", "other"), args, kwargs).values()
        # Python asks the subclass first: with a parameter t, z > t runs as t < z
        if isinstance(first, nn.Parameter) and not isinstance(second, nn.Parameter):
            operation, first, second = ops.MIRRORED[operation], second, first
        event = self._event(operation, "comparison", reason=ops.SELECTS_NOTHING)
        if self.selections is None:
            event.constant_is_first = event.layer in (self.constant_is_first or ())
        else:
            event.constant_is_first = self.selections.threshold_is_first(first, second)
        if event.constant_is_first:
            operation, first, second = ops.MIRRORED[operation], second, first

        def read():
            holds = output.bool().unsqueeze(-1)
            return (holds if ops.COMPARISONS[operation] else ~holds), first

        whole = "" if output.ndim else "it has one bit for the whole batch"
        self._decide(event, "comparison", first, read, second, why_hidden=whole)
        return output

    def _order(self, operation, function, args, kwargs):
        output = self._run(operation, function, args, kwargs)
        if not has_floats(args, kwargs):
            return output
        kind, reason = ops.ORDERS[operation]
        event = self._event(operation, kind, reason=reason)
        x = args[0] if args else kwargs["input"]
        dim, indices = ops.first_indices(operation, output, args, kwargs)
        why_hidden = "" if indices is not None else ops.NO_INDICES
        event.one_hot = indices is not None and indices.shape[dim] == 1
        if event.one_hot and event.after and dim % x.ndim - x.ndim == event.after[0]:
            event.after = event.after[0], 1  # of the units, one is left
        read = partial(first_k, x, indices, dim)
        candidate = self._decide(event, "top-k", x, read, why_hidden=why_hidden)
        if candidate and operation == "topk":
            candidate.select()
        return output

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
        **dict.fromkeys(ops.COMPARISONS, _compare),
        **dict.fromkeys(ops.ORDERS, _order),
        **dict.fromkeys(ops.HIDDEN, _hidden),
        **dict.fromkeys(ops.NONLINEAR, _nonlinear),
        **dict.fromkeys(MEANS, _random),
        "batch_norm": _batch_norm,
    }
