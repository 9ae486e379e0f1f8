"""Arrays of NumPy, torch and CuPy, without importing the latter two; rows drawn from them."""

import sys

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state

__all__ = ["holds_layers", "is_torch_data", "on_device", "pack_rows", "sample_rows", "to_numpy"]


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


def sample_rows(n_samples, max_samples, random_state):
    """Return sorted positions of ``max_samples`` rows drawn without replacement, or None for all.

    A float is a share of the rows.
    """
    if max_samples is None:
        return None
    size = (
        max_samples if isinstance(max_samples, int | np.integer) else int(max_samples * n_samples)
    )
    if size >= n_samples:
        return None
    return np.sort(check_random_state(random_state).permutation(n_samples)[: max(size, 1)])


def holds_layers(X):
    """Whether ``X`` is a list or dict of arrays, one a layer, and not an array itself."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and np.ndim(X[0]) >= 2
    return isinstance(X, dict) and not issparse(X)  # a sparse dok_array is a dict too


def is_torch_data(X):
    """Whether ``X`` is a torch Dataset or DataLoader."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, data.Dataset | data.DataLoader)
