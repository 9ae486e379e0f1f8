"""Max pooling, with the input that won each window."""

import torch
import torch.nn.functional as F

__all__ = ["POOLING", "max_pool"]

#: Operation -> number of pooled axes.
POOLING = {
    f"{prefix}max_pool{n}d{suffix}": n
    for prefix in ("", "adaptive_")
    for n in (1, 2, 3)
    for suffix in ("", "_with_indices")
}


def max_pool(operation, input, *args, **kwargs):
    """Run a max pooling once and return ``(output, winner)``.

    Returns
    -------
    output : Tensor or tuple of Tensor
        As the operation itself returns.
    winner : Tensor of shape (*output.shape, window size), dtype bool
        One-hot over the positions of the window.
    """
    n_axes = POOLING[operation]
    read = _adaptive_windows if operation.startswith("adaptive_") else _fixed_windows
    pool, sizes, arguments = read(n_axes, input, *args, **kwargs)
    wants_indices = arguments.pop("return_indices") or operation.endswith("_with_indices")
    output, indices = pool(input, **arguments)
    starts, dilations, window = sizes(indices.shape[-n_axes:])
    rest = indices.int()  # half the memory, and no plane has more positions
    position = torch.zeros_like(rest)  # of the winner within its window, row-major
    strides = [1]
    for size in reversed(window[1:]):
        strides.insert(0, strides[0] * size)
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


def _fixed_windows(
    n_axes,
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    window = _each_axis(kernel_size, n_axes)
    strides = _each_axis(stride, n_axes) if stride not in (None, [], ()) else window
    paddings, dilations = _each_axis(padding, n_axes), _each_axis(dilation, n_axes)

    def sizes(counts):
        spans = zip(counts, strides, paddings, strict=True)
        return [[i * s - p for i in range(n)] for n, s, p in spans], dilations, window

    arguments = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "return_indices": return_indices,
    }
    pool = getattr(F, f"max_pool{n_axes}d_with_indices")
    return pool, sizes, arguments


def _adaptive_windows(n_axes, input, output_size, return_indices=False):
    extents = input.shape[-n_axes:]

    def sizes(counts):
        starts = [[i * e // n for i in range(n)] for n, e in zip(counts, extents, strict=True)]
        window = [
            max(-(-(i + 1) * e // n) - i * e // n for i in range(n))
            for n, e in zip(counts, extents, strict=True)
        ]
        return starts, [1] * n_axes, window

    pool = getattr(F, f"adaptive_max_pool{n_axes}d_with_indices")
    return pool, sizes, {"output_size": output_size, "return_indices": return_indices}
