"""Gates that torch functions do not show: read by a user's function, or reported as hidden."""

import contextlib
import difflib
import fnmatch
import threading

import torch

from ._tracer import named_parts


def match_gates(module, gates):
    """Return the function for the gates of each module, by its name.

    Of modules inside each other, all are returned. ``gates`` has functions by pattern; of two
    that match, the first counts.
    """
    names = [name for name, _ in named_parts(module) if name]
    matched = {}
    for pattern, function in (gates or {}).items():
        if not isinstance(pattern, str) or not callable(function):
            raise TypeError(
                f"gates has {pattern!r}: {function!r}; need the name of a module, or a pattern, "
                "and a function of (module, inputs, output) that returns a bool tensor."
            )
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:10]
            raise ValueError(
                f"gates: no module matches {pattern!r}; of {len(names)}, the nearest are {near}. "
                "A pattern with * selects several."
            )
        matched = {**dict.fromkeys(found, function), **matched}
    return matched


def read_gates(name, function, module, inputs, output):
    """Return the gates of one call of a module by a user's function, after checking them."""
    gates = function(module, inputs, output)
    if isinstance(gates, torch.Tensor) and gates.dtype == torch.bool and gates.ndim:
        return gates
    got = type(gates).__name__
    if isinstance(gates, torch.Tensor):
        got = f"a tensor of type {gates.dtype} and shape {tuple(gates.shape)}"
    raise TypeError(
        f"gates: the function for module {name!r} returned {got}; need a bool tensor with a row "
        "for each sample, such as output != 0."
    )


def is_custom(function):
    """Return whether a function is an operator that was registered with torch from outside."""
    if not isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return False
    return str(function).split(".")[0] not in ("aten", "prims", "torchvision", "quantized")


@contextlib.contextmanager
def custom_functions(handle):
    """Call ``handle(cls, args, run)`` where this thread runs a custom `torch.autograd.Function`."""
    # the base of Function, since a module may hold its `apply` under another name
    base, thread = torch.autograd.Function.__mro__[1], threading.get_ident()

    def apply(cls, *args, **kwargs):
        run = super(base, cls).apply
        if threading.get_ident() != thread or cls.__module__.partition(".")[0] == "torch":
            return run(*args, **kwargs)
        return handle(cls, args, lambda: run(*args, **kwargs))

    base.apply = classmethod(apply)
    try:
        yield
    finally:
        del base.apply
