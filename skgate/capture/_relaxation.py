"""`GateRelaxation`: sigmoids in place of step functions, so that gates have a gradient."""

import contextlib
import inspect
import math
from collections import Counter

import torch

from ._checkpointing import recompute_within
from ._operations import THRESHOLD
from ._tracer import Tracer, has_floats, tensors_in

#: Operation -> change of its slope at each threshold; operations that are not here jump there.
SLOPES = {
    "relu": lambda *_, **__: (1,),
    "leaky_relu": lambda input, negative_slope=0.01, *_, **__: (1 - negative_slope,),
    "prelu": lambda input, weight: (1 - _by_channel(weight, input.ndim),),
    "hardsigmoid": lambda *_, **__: (1 / 6, -1 / 6),
    "softshrink": lambda *_, **__: (-1, 1),
    **dict.fromkeys(("relu6", "hardtanh", "clamp", "clip"), lambda *_, **__: (1, -1)),
    **dict.fromkeys(("clamp_min", "maximum", "fmax"), lambda *_, **__: (1,)),
    **dict.fromkeys(("clamp_max", "minimum", "fmin"), lambda *_, **__: (-1,)),
}
#: Operation -> share of each of these changes in autograd's subgradient at the threshold itself;
#: 0 for operations that are not here.
SUBGRADIENT_AT_THRESHOLD = {
    **dict.fromkeys(("relu6", "hardtanh", "hardsigmoid"), (0, 1)),
    "softshrink": (1, 0),
    **dict.fromkeys(("clamp", "clip", "clamp_min"), (1, 0)),
    **dict.fromkeys(("maximum", "minimum"), (0.5,)),
    "fmax": (1,),
}


def _by_channel(weight, ndim):
    return weight.reshape(1, -1, *[1] * (ndim - 2)) if ndim > 1 else weight


class GateRelaxation(Tracer):
    """Runs some layers of a module with relaxed gates, and keeps these.

    A gate ``z > t`` becomes ``sigmoid(sharpness * (z - t))``, so that ``relu(z)`` becomes
    ``z * sigmoid(sharpness * z)``, the Swish function (Eq. 40). Where a function jumps at its
    threshold, as ``F.hardshrink`` does, or draws its slope, as ``F.rrelu`` does, the gates are
    relaxed and the output stays. All other operations run unchanged.

    ``layers`` are named as `GateExtractor` names them; those in ``constant_is_first`` compare a
    constant with data, in this order. ``gates`` has the relaxed gates of each layer that ran, those
    of a unit on the last axis.
    """

    def __init__(self, module, layers, sharpness, constant_is_first=()):
        super().__init__(module)
        self.layers, self.sharpness = layers, sharpness
        self.constant_is_first = constant_is_first
        self.gates = {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(recompute_within(self._resumed))
            super().__enter__()
            self._checkpoints = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._checkpoints.close()
        return super().__exit__(*error)

    def _resumed(self):
        """Return a relaxation that names layers as this one will from here on."""
        resumed = type(self)(self._module, self.layers, self.sharpness, self.constant_is_first)
        resumed._stack, resumed._calls = list(self._stack), Counter(self._calls)
        return resumed

    def _relax(self, operation, function, args, kwargs):
        if not has_floats(args, kwargs) or (name := self._locate(operation)[0]) not in self.layers:
            return function(*args, **kwargs)
        if not _works_in_place(function, args, kwargs):
            output = function(*args, **kwargs)
            return self._relaxed(name, operation, output, args, kwargs)
        # the numbers that are overwritten are needed, for the gates and for gradients
        target = tensors_in(args, kwargs)[0]
        output = function(*_copied(target, args), **_copied(target, kwargs))
        args, kwargs = _copied(target, args), _copied(target, kwargs)
        return target.copy_(self._relaxed(name, operation, output, args, kwargs))

    def _relaxed(self, name, operation, output, args, kwargs):
        """Return the output with its kinks rounded, and keep the relaxed gates."""
        data, *thresholds = THRESHOLD[operation](*args, **kwargs)
        at_threshold = SUBGRADIENT_AT_THRESHOLD.get(operation, (0, 0))
        if name in self.constant_is_first:
            data, thresholds = thresholds[0], [data]
            at_threshold = (1 - at_threshold[0],)
        slopes = SLOPES[operation](*args, **kwargs) if operation in SLOPES else ()
        gates = []
        for i, threshold in enumerate(thresholds):
            if threshold is None:  # of a clamp on one side
                continue
            excess = data - threshold
            gates.append(torch.sigmoid(self.sharpness * excess))
            unbounded = isinstance(threshold, float) and math.isinf(threshold)  # inf * 0 is NaN
            if operation == "relu":  # the same in fewer passes
                output = data * gates[0]
            elif slopes and not unbounded:
                step = torch.heaviside(excess.detach(), excess.new_full((), at_threshold[i]))
                output = output + slopes[i] * excess * (gates[-1] - step)
        self.gates[name] = torch.stack(gates, -1) if len(gates) > 1 else gates[0].unsqueeze(-1)
        return output

    handlers = dict.fromkeys(THRESHOLD, _relax)


def _works_in_place(function, args, kwargs):
    if function.__name__.endswith("_"):
        return True
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # built in, without a signature
        return False
    return bool(bound.arguments.get("inplace"))


def _copied(target, arguments):
    """Return arguments with a copy in the place of one tensor."""
    if isinstance(arguments, dict):
        return {k: a.clone() if a is target else a for k, a in arguments.items()}
    return tuple(a.clone() if a is target else a for a in arguments)
