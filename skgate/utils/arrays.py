"""Arrays of NumPy, torch and CuPy, handled without importing torch or CuPy."""

import sys

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state


def to_numpy(array):
    """Return a torch or CuPy array, on any device, as a NumPy array; return other objects as is."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # NumPy lacks bfloat16
        return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    if _is_cupy(array):
        return array.get()
    return array


def _is_cupy(array):
    return hasattr(array, "__cuda_array_interface__") and hasattr(array, "get")


def on_device(array):
    """Return whether an array is in the memory of a GPU."""
    return array.device.type != "cpu" if hasattr(array, "detach") else _is_cupy(array)


def pack_rows(gates):
    """Return boolean rows as a NumPy array of packed bits, (n_rows, n_bytes).

    Rows on a GPU are packed there, which divides the bytes to copy by eight.
    """
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
        return cupy.packbits(bits.ravel()).reshape(n, n_bytes).get()  # it has no axis argument
    return np.packbits(to_numpy(gates), axis=1)


def sample_rows(n_samples, max_samples, random_state):
    """Return sorted indices of rows drawn without replacement, or None for all rows.

    An integer ``max_samples`` is a number of rows, a float a share of them.
    """
    if max_samples is None:
        return None
    is_number = isinstance(max_samples, int | np.integer)
    size = max_samples if is_number else int(max_samples * n_samples)
    if size >= n_samples:
        return None
    return np.sort(check_random_state(random_state).permutation(n_samples)[: max(size, 1)])


def holds_layers(X):
    """Return whether ``X`` is a list or dict with one array per layer."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and np.ndim(X[0]) >= 2
    return isinstance(X, dict) and not issparse(X)  # a sparse dok_array is a dict too


def is_torch_data(X):
    """Return whether ``X`` is a torch Dataset or DataLoader."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, data.Dataset | data.DataLoader)
