"""Arrays of NumPy, torch and CuPy, handled without importing torch or CuPy."""

import sys
from collections.abc import Mapping

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state


def to_numpy(array):
    """Return a torch or CuPy array, on any device, as a NumPy array; return other objects as is.

    Arrays of NumPy are returned in native byte order. Raises for entries that are masked, and for
    tensors that `plain_tensor` refuses.
    """
    if hasattr(array, "detach"):
        array = plain_tensor(array).cpu()
        # NumPy lacks bfloat16
        return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    if _is_cupy(array):
        return array.get()
    if isinstance(array, np.ma.MaskedArray):
        if n_masked := np.ma.count_masked(array):
            raise ValueError(
                f"Got an array with {n_masked} masked entries, which hold no data. Fill them with "
                "array.filled(value), or leave these samples out."
            )
        array = array.data
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def plain_tensor(tensor):
    """Return a torch tensor without its history; raise unless it holds the data of one array."""
    if tensor.is_nested:
        shapes = [tuple(part.shape) for part in tensor.unbind()]
        raise ValueError(
            f"Got a nested tensor, with samples of shapes {_first_few(shapes)}; "
            "samples need one shape. Pad them, for example with tensor.to_padded_tensor(0.0)."
        )
    if str(tensor.layout) != "torch.strided":
        name = str(tensor.layout).removeprefix("torch.")
        raise ValueError(f"Got a tensor of layout {name}; pass a dense one, tensor.to_dense().")
    if tensor.is_quantized:
        return tensor.detach().dequantize()
    if tensor.is_meta:
        raise ValueError(
            f"Got a tensor of shape {tuple(tensor.shape)} on the meta device, which holds no data. "
            "Make it on a device that does, such as device='cpu'."
        )
    if not _has_data(tensor):
        raise ValueError(
            f"Got a {type(tensor).__name__} that holds no data of its own, as tensors inside "
            "torch.func.vmap, torch.compile or FakeTensorMode. Pass a plain tensor, from outside."
        )
    tensor = tensor.detach().resolve_conj().resolve_neg()
    # torch can do little with 8 bits
    return tensor.float() if "float8" in str(tensor.dtype) else tensor


def _has_data(tensor):
    if type(tensor).__name__ == "FakeTensor":  # which warns of what follows
        return False
    try:
        return tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False


def _first_few(values):
    """Return the first values of a list as text."""
    return ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)


def require_real(array, name="X"):
    """Raise unless the dtype of an array, or of each column of a frame, is of real numbers.

    Objects pass, since they may be numbers.
    """
    dtypes = getattr(array, "dtypes", [getattr(array, "dtype", None)])
    for dtype in dtypes:
        is_complex = getattr(dtype, "is_complex", getattr(dtype, "kind", "") == "c")
        if is_complex:
            raise ValueError(
                f"Complex data not supported: {name} needs real numbers or booleans; got dtype "
                f"{dtype}. Pass the real and the imaginary part as two features."
            )
        if getattr(dtype, "kind", "O") not in "biufO":
            raise ValueError(f"{name} needs real numbers or booleans; got dtype {dtype}.")


def numbers(array, name="X"):
    """Return an array or frame as a NumPy array of real numbers or booleans; integers stay such."""
    if issparse(array):
        raise ValueError(f"{name} is a sparse matrix; pass a dense array, such as X.toarray().")
    rows = [to_numpy(row) for row in array] if isinstance(array, list) else to_numpy(array)
    try:
        array = np.asarray(rows)
        if array.dtype == object:
            array = np.array(array.tolist())  # in the type that its elements have in common
    except ValueError:
        shapes = _first_few([np.shape(row) for row in rows])
        raise ValueError(f"{name} has rows of different shapes: {shapes}. Pad them.") from None
    require_real(array, name)
    try:
        return array.astype(np.float64) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds objects, or misses values: {error}.") from None


def real_array(X, name="X"):
    """Return ``X`` as scikit-learn checks it: frames as they are, all else as a NumPy array."""
    X = numbers(X, name) if isinstance(X, list) else to_numpy(X)
    require_real(X, name)
    return X


def keep_integers(X, checked):
    """Return what scikit-learn made of ``X``; of objects that are integers, which it makes floats.

    A nullable column of a dataframe holds objects.
    """
    objects = np.asarray(X)
    if objects.dtype != object:
        return checked
    natural = np.array(objects.tolist())
    return natural if natural.dtype.kind in "iu" else checked


def holds_mappings(X):
    """Return whether ``X`` is a list of samples in mappings."""
    return isinstance(X, list) and len(X) > 0 and isinstance(X[0], Mapping)


def holds_inputs(X):
    """Return whether ``X`` holds inputs of a model in arrays; datasets and loaders yield them."""
    return hasattr(X, "shape") or isinstance(X, Mapping | tuple) or holds_mappings(X)


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
    return isinstance(X, Mapping) and not issparse(X)  # a sparse dok_array is a dict too


def fetches_lists(X):
    """Return whether ``X`` is a dataset as that of Hugging Face, which has no base of torch's."""
    return hasattr(X, "__getitems__") and not isinstance(X, Mapping)


def is_torch_data(X):
    """Return whether ``X`` is a Dataset or DataLoader, or holds samples in mappings."""
    if fetches_lists(X) or holds_mappings(X):
        return True
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(X, data.Dataset | data.DataLoader)
