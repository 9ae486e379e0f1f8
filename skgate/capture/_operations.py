"""Tables of torch operations: which have gates, which are linear, and what their arguments mean.

An operation has the last part of the function's name, without the underscore of the in-place
form, so that ``nn.ReLU``, ``F.relu``, ``torch.relu``, ``Tensor.relu`` and ``Tensor.relu_`` are all
``"relu"``.
"""

from functools import lru_cache

import torch
from torch.overrides import resolve_name

#: Comparison -> whether it holds above a threshold, where a gate is open. One of equality opens a
#: gate where it does not hold.
COMPARISONS = {"gt": True, "ge": True, "ne": True, "lt": False, "le": False, "eq": False}

#: Comparison -> the same with its operands exchanged.
MIRRORED = {"gt": "lt", "ge": "le", "ne": "ne", "lt": "gt", "le": "ge", "eq": "eq"}

#: Other name of an operation -> its name.
ALIASES = {
    **{f"__{name}__": name for name in COMPARISONS},
    **{f"{name}_": name for name in COMPARISONS},
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
}


def operation_name(function, args, kwargs):
    """Return the name of the operation that an intercepted call is, or None."""
    name = _name(function)
    if name in ("max", "min"):  # of two tensors, torch.max is torch.maximum
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return f"{name}imum" if isinstance(other, torch.Tensor) else name
    return name


@lru_cache(maxsize=4096)
def _name(function):
    # torch looks a name up in 0.03 ms, which a light network would notice
    if isinstance(function, torch._ops.OpOverload):
        function = function.overloadpacket
    name = resolve_name(function)
    if name is None:
        return None
    name = name.rpartition(".")[2]
    return ALIASES.get(name) or (name if name.startswith("_") else name.removesuffix("_"))


def by_name(names, args, kwargs):
    """Return the arguments of a call by name, given the names of the positional ones."""
    return {**dict(zip(names, args, strict=False)), **kwargs}


def constant_first(input, other):
    """Return whether the first of two operands is a constant that the second is compared with."""
    if input.ndim != other.ndim:
        return input.ndim < other.ndim
    return _is_constant(input) and not _is_constant(other)


def _is_constant(x):
    return x.numel() > 1 and bool((x == x.flatten()[0]).all())


#: Operations that compare two operands; the data may be either of them.
COMPARING = ("maximum", "minimum", "fmax", "fmin")

#: Operation -> function of its arguments that returns the data and one or two thresholds.
THRESHOLD = {
    "relu": lambda input, *_, **__: (input, 0),
    "leaky_relu": lambda input, *_, **__: (input, 0),
    "prelu": lambda input, *_, **__: (input, 0),
    "rrelu": lambda input, *_, **__: (input, 0),
    "relu6": lambda input, *_, **__: (input, 0, 6),
    "threshold": lambda input, threshold, *_, **__: (input, threshold),
    "hardtanh": lambda input, min_val=-1.0, max_val=1.0, *_, **__: (input, min_val, max_val),
    "hardsigmoid": lambda input, *_, **__: (input, -3, 3),
    "hardshrink": lambda input, lambd=0.5, **_: (input, -lambd, lambd),
    "softshrink": lambda input, lambd=0.5, **_: (input, -lambd, lambd),
    "clamp": lambda input, min=None, max=None, **_: (input, min, max),
    "clip": lambda input, min=None, max=None, **_: (input, min, max),
    "clamp_min": lambda input, min, **_: (input, min),
    "clamp_max": lambda input, max, **_: (input, max),
    "heaviside": lambda input, *_, **__: (input, 0),
    **dict.fromkeys(COMPARING, lambda input, other, **_: (input, other)),
}


def above(x, *thresholds):
    """Return ``x > t`` with the thresholds t, those that are not None, on a last axis."""
    gates = [x > t for t in thresholds if t is not None]
    return gates[0].unsqueeze(-1) if len(gates) == 1 else torch.stack(gates, dim=-1)


#: Operations that end with a ReLU: their output has its gates.
RECTIFIED = {"rnn_relu_cell"}


def first_indices(operation, output, args, kwargs):
    """Return the axis of an order, and the indices of the first along it; or Nones."""
    arguments = by_name(FIRST.get(operation, ()), args, kwargs)
    dim = arguments.get("dim", arguments.get("axis", -1 if operation == "topk" else None))
    if operation not in FIRST or dim is None:
        return None, None
    indices = output if isinstance(output, torch.Tensor) else output[1]
    same_axes = indices.ndim == arguments["input"].ndim
    return dim, indices if same_axes else indices.unsqueeze(dim)


#: Smooth activations; ``smooth=True`` reads ``input > 0``.
SMOOTH = {
    "celu", "elu", "erf", "gelu", "hardswish", "logsigmoid", "mish", "selu", "sigmoid", "silu",
    "softplus", "softsign", "tanh", "tanhshrink",
}  # fmt: skip

#: Order of data along an axis -> its kind, and why it is no layer unless its indices select data.
ORDERS = {
    **dict.fromkeys(
        ("max", "min", "amax", "amin"),
        ("hidden", "it selects along an axis; nn.AdaptiveMaxPool2d(1) and the like have gates"),
    ),
    **dict.fromkeys(
        ("argmax", "argmin", "topk", "sort", "argsort", "msort", "median", "kthvalue"),
        ("ordering", "its indices select no data"),
    ),
}

#: Order whose indices are the first, or the first k, along an axis -> names of its arguments.
FIRST = {
    "topk": ("input", "k", "dim"),
    **dict.fromkeys(("argmax", "argmin", "max", "min"), ("input", "dim")),
}

#: Why an order is no layer although its indices select data.
NO_INDICES = "its order selects data; torch.topk, argmax and max along an axis have gates"

#: Why gates that nothing shows cannot be read.
CUSTOM = "the custom {} may hide gates; write it in torch functions, or read them by gates="

#: Why an operation inside a module with a function for its gates is no layer.
READ_BY_FUNCTION = "its gates are read by gates="

#: Why a comparison is no layer.
SELECTS_NOTHING = "its result neither multiplies nor selects data"

#: Why a mask is no layer.
UNKNOWN_MASK = "data that are no comparison of numbers select data; use z > threshold, or gates="

#: Operation with gates that cannot be read -> why, and what to use instead.
HIDDEN = {
    "rnn_relu": "its ReLUs run inside one fused call; write the recurrence with nn.RNNCell",
    "lp_pool1d": "its ReLU acts on absolute values and closes no gate",
    "lp_pool2d": "its ReLU acts on absolute values and closes no gate",
    "lp_pool3d": "its ReLU acts on absolute values and closes no gate",
    "fractional_max_pool2d": "its windows are random, so that a gate has no fixed position",
    "fractional_max_pool3d": "its windows are random, so that a gate has no fixed position",
}

#: Attention -> names of its positional arguments, as far as its dropout.
ATTENTION = {
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask", "dropout_p", "is_causal"),
    "multi_head_attention_forward": (
        "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
        "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight",
        "out_proj_bias", "training",
    ),
}  # fmt: skip

#: Other non-linear operation -> kind.
NONLINEAR = {
    **dict.fromkeys(("softmax", "softmin", "log_softmax", "gumbel_softmax", "glu"), "normalising"),
    **dict.fromkeys(
        ("layer_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm",
         "normalize"), "normalising",
    ),
    **dict.fromkeys(ATTENTION, "attention"),
    **dict.fromkeys(("rnn_tanh", "rnn_tanh_cell", "lstm", "lstm_cell", "gru",
                     "gru_cell"), "recurrent"),
    **dict.fromkeys(
        ("abs", "absolute", "exp", "expm1", "log", "log1p", "log2", "logsumexp", "sqrt", "rsqrt",
         "square", "pow", "__pow__", "sin", "cos", "tan", "atan", "reciprocal", "norm"),
        "smooth",
    ),
    **dict.fromkeys(("sign", "round", "floor", "ceil"), "ordering"),
}  # fmt: skip

#: Dropout -> number of leading axes that its mask has; None for a gate per element.
DROPOUT = {
    "dropout": None,
    "alpha_dropout": None,
    "dropout1d": 2,
    "dropout2d": 2,
    "dropout3d": 2,
    "feature_dropout": 2,
    "feature_alpha_dropout": 2,
}

#: Why a smooth activation is no layer.
IS_SMOOTH = "smooth, it has no gates; smooth=True reads input > 0"

#: Start of the reason why a dropout is no layer.
DROPS_NOTHING = "it drops nothing"

# Where tensors come from --------------------------------------------------------------------

#: Operations whose first tensor alone is in the output.
CASTS = {"to", "type_as", "expand_as", "view_as", "reshape_as"}

#: Operations whose output has the shape of a tensor, whatever that holds.
UNRELATED = {"zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like",
             "new_zeros", "new_ones", "new_full"}  # fmt: skip

#: Operations whose output holds nothing yet; a kernel may write to it, unseen.
UNINITIALISED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}

#: Operations that look for overflow.
GUARDS = {"isnan", "isinf", "isfinite", "isposinf", "isneginf"}

#: Operations after which a mask is a number, such as a count.
REDUCTIONS = {"sum", "nansum", "mean", "nanmean", "count_nonzero", "norm", "var", "std"}

#: Operations that subtract the second operand.
SUBTRACTIONS = {"sub", "__sub__", "__isub__", "subtract"}

# Linear layers ------------------------------------------------------------------------------

#: Products of two tensors, which are linear layers if one of them is a parameter.
PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "addmm", "bmm", "baddbmm", "einsum",
            "inner", "tensordot")  # fmt: skip

#: Linear operation -> axis of its output that holds the units, counted from the last.
LINEAR = {
    "linear": -1,
    "bilinear": -1,
    **dict.fromkeys(PRODUCTS, -1),
    **{f"conv{k}d": -k - 1 for k in (1, 2, 3)},
    **{f"conv_transpose{k}d": -k - 1 for k in (1, 2, 3)},
}

#: Element-wise activation functions.
ACTIVATION = {*THRESHOLD, *SMOOTH, "sin", "cos", "square", "atan"}

#: Products. With a number they belong to the chain below; with a tensor they end it.
SCALING = ("mul", "__mul__", "__rmul__", "__imul__", "div", "__truediv__", "__itruediv__",
           "true_divide")  # fmt: skip

#: Operations between a linear operation and its activation function.
LINEAR_CHAIN_OPS = {
    *DROPOUT,
    *SCALING,
    *("add", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__isub__", "__rsub__", "rsub"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
      "local_response_norm"),
    *(f"{prefix}{kind}_pool{k}d{suffix}" for prefix in ("", "adaptive_") for kind in ("max", "avg")
      for k in (1, 2, 3) for suffix in ("", "_with_indices")),
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute",
      "movedim", "swapaxes", "t", "__get__", "contiguous", "clone", "to", "type", "half", "bfloat16",
      "float", "double", "neg", "__neg__", "pad", "pixel_shuffle"),
}  # fmt: skip

#: Operations with linear layers inside that cannot be seen.
OPAQUE_LINEAR_OPS = ("multi_head_attention_forward", "rnn_tanh", "rnn_tanh_cell", "rnn_relu",
                     "rnn_relu_cell", "lstm", "lstm_cell", "gru", "gru_cell")  # fmt: skip

#: Operations that return places of rows if they run along the first axis.
SORTS = {"sort", "argsort", "topk"}

#: Operations that return places of rows; ``where`` does without alternatives.
PLACES = {"nonzero", "argwhere", "unique"}

#: Operations that read rows at places.
GATHERS = {"__getitem__", "index_select", "gather", "take", "take_along_dim", "masked_select"}

#: Operations that write rows to places in their first operand.
SCATTERS = {"__setitem__", "index_add", "index_copy", "index_put", "scatter", "scatter_add",
            "scatter_reduce", "index_reduce"}  # fmt: skip
