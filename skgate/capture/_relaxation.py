"""Gates that a gradient flows through: sigmoids in place of steps, while a module trains."""

import inspect
import math

import torch

from ._operations import THRESHOLD
from ._recorder import GateRecorder

__all__ = ["GateRelaxation"]

#: Operation -> how much its slope grows at each threshold; what is not here jumps there.
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
#: Operation -> share of each of these that autograd has counted where data is at the threshold;
#: what is not here, none.
TIES = {
    **dict.fromkeys(("relu6", "hardtanh", "hardsigmoid"), (0, 1)),
    "softshrink": (1, 0),
    **dict.fromkeys(("clamp", "clip", "clamp_min"), (1, 0)),
    **dict.fromkeys(("maximum", "minimum"), (0.5,)),
    "fmax": (1,),
}


def _by_channel(weight, ndim):
    return weight.reshape(1, -1, *[1] * (ndim - 2)) if ndim > 1 else weight


class GateRelaxation(GateRecorder):
    """Run some layers of a module with relaxed gates, and keep these.

    A gate ``z > t`` becomes ``sigmoid(sharpness * (z - t))``, so that ``relu(z)`` becomes
    ``z * sigmoid(sharpness * z)``, the Swish function (Eq. 40). Where a function jumps at its
    threshold, as ``F.hardshrink`` does, or draws its slope, as ``F.rrelu`` does, only the gates
    are relaxed and the output is left. Everything else runs as it is.

    Parameters
    ----------
    module : nn.Module
    layers : collection of str
        Layers to relax, by the names that `GateExtractor` gives them.
    sharpness : float
    swapped : collection of str, default=()
        Those that compare a constant with data, in this order.

    Attributes
    ----------
    gates : dict of str to Tensor
        Relaxed gates of each layer that ran, those of a unit on the last axis.
    """

    def __init__(self, module, layers, sharpness, swapped=()):
        super().__init__(module, sampling="on", smooth=False, report=None, swapped=swapped)
        self.layers, self.sharpness = layers, sharpness
        self.gates = {}

    def _relax(self, operation, function, args, kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        if not any(t.is_floating_point() for t in tensors):
            return function(*args, **kwargs)
        name = self._event(operation, "threshold").layer
        if name not in self.layers:
            return function(*args, **kwargs)
        target = tensors[0] if _works_in_place(function, args, kwargs) else None
        if target is None:
            values = function(*args, **kwargs)
        else:  # what it overwrites is needed, for the gates and for gradients
            values = function(*_replaced(target, args), **_replaced(target, kwargs))
            args, kwargs = _replaced(target, args), _replaced(target, kwargs)
        relaxed = self._relaxed(
            name, values, THRESHOLD[operation](*args, **kwargs), operation, args, kwargs
        )
        return relaxed if target is None else target.copy_(relaxed)

    def _relaxed(self, name, output, operands, operation, args, kwargs):
        """Return the output with its kinks rounded, and keep the relaxed gates."""
        data, *thresholds = operands
        ties = TIES.get(operation, (0, 0))
        if name in self.swapped:
            data, thresholds = thresholds[0], [data]
            ties = (1 - ties[0],)
        slopes = SLOPES[operation](*args, **kwargs) if operation in SLOPES else ()
        gates = []
        for i, threshold in enumerate(thresholds):
            if threshold is None:  # of a clamp on one side
                continue
            excess = data - threshold
            gates.append(torch.sigmoid(self.sharpness * excess))
            endless = isinstance(threshold, float) and math.isinf(threshold)  # inf * 0 is NaN
            if operation == "relu":  # the same in fewer passes
                output = data * gates[0]
            elif slopes and not endless:
                step = torch.heaviside(excess.detach(), excess.new_full((), ties[i]))
                output = output + slopes[i] * excess * (gates[-1] - step)
        self.gates[name] = torch.stack(gates, -1) if len(gates) > 1 else gates[0].unsqueeze(-1)
        return output

    def _select(self, operation, function, args, kwargs):
        other = args[1] if len(args) > 1 else kwargs.get("other")
        if isinstance(other, torch.Tensor):
            return self._relax(f"{operation}imum", function, args, kwargs)
        return function(*args, **kwargs)

    _handlers = {**dict.fromkeys(THRESHOLD, _relax), "max": _select, "min": _select}


def _works_in_place(function, args, kwargs):
    if function.__name__.endswith("_"):
        return True
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # built in, without a signature
        return False
    return bool(bound.arguments.get("inplace"))


def _replaced(target, arguments):
    """Return arguments with a copy in the place of one tensor."""
    if isinstance(arguments, dict):
        return {k: a.clone() if a is target else a for k, a in arguments.items()}
    return tuple(a.clone() if a is target else a for a in arguments)
