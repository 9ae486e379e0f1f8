"""Arrays of torch and CuPy, without importing these libraries."""

import sys

import numpy as np

__all__ = ["on_device", "pack_rows", "to_numpy"]


def to_numpy(array):
    """Return a torch or CuPy array, on any device, as a NumPy array; anything else as it is."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # NumPy has no bfloat16
        return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    if _is_cupy(array):
        return array.get()
    return array


def _is_cupy(array):
    return hasattr(array, "__cuda_array_interface__") and hasattr(array, "get")


def on_device(array):
    """Return whether an array of torch or CuPy is in the memory of a device."""
    return array.device.type != "cpu" if hasattr(array, "detach") else _is_cupy(array)


def pack_rows(gates):
    """Return boolean rows as packed bits, (n_rows, n_bytes) of NumPy, packed where they are."""
    n, d = gates.shape
    n_bytes = -(-d // 8)
    if hasattr(gates, "detach") and on_device(gates):
        torch = sys.modules["torch"]
        bits = gates.new_zeros((n, 8 * n_bytes), dtype=torch.uint8)
        bits[:, :d] = gates
        values = bits.new_tensor([128, 64, 32, 16, 8, 4, 2, 1])
        packed = (bits.view(n, n_bytes, 8) * values).sum(-1, dtype=torch.uint8)
        return packed.cpu().numpy()
    if _is_cupy(gates):
        cupy = sys.modules["cupy"]
        bits = cupy.zeros((n, 8 * n_bytes), bool)
        bits[:, :d] = gates
        return cupy.packbits(bits.ravel()).reshape(n, n_bytes).get()  # CuPy's has no axis
    return np.packbits(to_numpy(gates), axis=1)
