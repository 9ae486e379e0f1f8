"""Arrays of other libraries as NumPy's, without importing these libraries."""

__all__ = ["to_numpy"]


def to_numpy(array):
    """Return a torch or CuPy array, on any device, as a NumPy array; anything else as it is."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        # NumPy has no bfloat16
        return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    if hasattr(array, "__cuda_array_interface__") and hasattr(array, "get"):
        return array.get()
    return array
