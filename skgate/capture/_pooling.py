"""Max pooling, with the input that won each window."""

import math

import torch
import torch.nn.functional as F

from ._operations import by_name

#: Operation -> number of pooled axes.
POOLING = {
    f"{prefix}max_pool{n}d{suffix}": n
    for prefix in ("", "adaptive_")
    for n in (1, 2, 3)
    for suffix in ("", "_with_indices")
}

_FIXED = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_ADAPTIVE = ("input", "output_size", "return_indices")


def max_pool(operation, args, kwargs):
    """Run a max pooling once; return its output, and the winners, one-hot over the windows.

    The winners are boolean, of shape (*output.shape, window size).
    """
    n_axes, adaptive = POOLING[operation], operation.startswith("adaptive_")
    arguments = by_name(_ADAPTIVE if adaptive else _FIXED, args, kwargs)
    wants_indices = arguments.pop("return_indices", False) or operation.endswith("_with_indices")
    pool = getattr(F, f"{operation.removesuffix('_with_indices')}_with_indices")
    output, indices = pool(**arguments)
    windows = _adaptive_windows if adaptive else _fixed_windows
    starts, dilations, window = windows(indices.shape[-n_axes:], **arguments)
    # the place of a winner in its window, row-major, is linear in its place in the plane: the
    # difference of two tables, in units that make dilations whole
    unit = math.lcm(*dilations)
    steps = [unit // d * math.prod(window[a + 1 :]) for a, d in enumerate(dilations)]
    extents = [range(size) for size in arguments["input"].shape[-n_axes:]]
    place, start = (_sums(axes, steps).to(indices.device) for axes in (extents, starts))
    position = place.flatten().take(indices) - start
    positions = unit * torch.arange(math.prod(window), dtype=torch.int32, device=indices.device)
    winner = position.unsqueeze(-1) == positions
    return ((output, indices) if wants_indices else output), winner


def _sums(axes, steps):
    """Return the sums of one number of each axis times its step, (*axis lengths), int32."""
    scaled = [
        step * torch.tensor(list(a), dtype=torch.int32) for a, step in zip(axes, steps, strict=True)
    ]
    return sum(torch.meshgrid(*scaled, indexing="ij"))


def _each_axis(value, n_axes):
    values = [value] if isinstance(value, int) else list(value)
    return values * n_axes if len(values) == 1 else values


def _fixed_windows(counts, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Return the first positions of the windows, their dilations and sizes, axis by axis."""
    n_axes = len(counts)
    window = _each_axis(kernel_size, n_axes)
    strides = _each_axis(stride, n_axes) if stride not in (None, [], ()) else window
    axes = zip(counts, strides, _each_axis(padding, n_axes), strict=True)
    return [[i * s - p for i in range(n)] for n, s, p in axes], _each_axis(dilation, n_axes), window


def _adaptive_windows(counts, input, output_size):
    """Return the same of adaptive pooling, whose windows are padded to the largest."""
    axes = list(zip(counts, input.shape[-len(counts) :], strict=True))
    starts = [[i * e // n for i in range(n)] for n, e in axes]
    window = [max(-(-(i + 1) * e // n) - i * e // n for i in range(n)) for n, e in axes]
    return starts, [1] * len(axes), window
