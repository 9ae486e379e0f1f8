"""Max pooling, with the input that won each window."""

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
    rest = indices.int()  # half the memory, and no plane has more positions
    position = torch.zeros_like(rest)  # of the winner within its window, row-major
    strides = [1]
    for size in reversed(window[1:]):
        strides.insert(0, strides[0] * size)
    input = arguments["input"]
    for axis in reversed(range(n_axes)):
        extent = input.shape[input.ndim - n_axes + axis]
        coordinate, rest = rest % extent, rest // extent
        shape = [-1 if a == axis else 1 for a in range(n_axes)]
        start = torch.tensor(starts[axis], dtype=torch.int32, device=input.device).reshape(shape)
        position += (coordinate - start) // dilations[axis] * strides[axis]
    positions = torch.arange(strides[0] * window[0], dtype=torch.int32, device=input.device)
    winner = position.unsqueeze(-1) == positions
    return ((output, indices) if wants_indices else output), winner


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
