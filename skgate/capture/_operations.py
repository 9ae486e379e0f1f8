"""What each torch operation does to data: gate it, bend it, or draw it at random.

Operations go by the last part of their name, without the underscore of the in-place form, so
that ``nn.ReLU``, ``F.relu``, ``torch.relu``, ``Tensor.relu`` and ``Tensor.relu_`` are all
``"relu"``.
"""

import torch
import torch.nn.functional as F
from torch.overrides import resolve_name

__all__ = [
    "ACTIVATION",
    "ATTENTION",
    "CARRYING",
    "COMPARING",
    "DROPOUT",
    "EMBEDDING",
    "HIDDEN",
    "HOLDS_LINEAR",
    "LINEAR",
    "NONLINEAR",
    "PRODUCTS",
    "RANDOM",
    "RECTIFIED",
    "SCALING",
    "SMOOTH",
    "THRESHOLD",
    "above",
    "constant_first",
    "dropout_mask",
    "gumbel_mean",
    "operation_name",
]


def operation_name(function):
    """Return the name that an intercepted torch function goes by, or None."""
    name = resolve_name(function)
    if name is None:
        return None
    name = name.rpartition(".")[2]
    return name if name.startswith("_") else name.removesuffix("_")


def constant_first(input, other):
    """Whether the first of two operands is a constant that the second is compared with."""
    if input.ndim != other.ndim:
        return input.ndim < other.ndim
    return _is_constant(input) and not _is_constant(other)


def _is_constant(x):
    return x.numel() > 1 and bool((x == x.flatten()[0]).all())


#: Operations that compare two operands, the data in either place.
COMPARING = ("maximum", "minimum", "fmax", "fmin")

#: Operation -> function of its arguments that returns its data and one or two thresholds.
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
    """Return ``x > t`` with a last axis for the thresholds that there are."""
    return torch.stack([x > t for t in thresholds if t is not None], dim=-1)


#: Operations whose gates can be read from their output: a ReLU comes last in them.
RECTIFIED = {"rnn_relu_cell"}

#: Smooth activations; ``smooth=True`` reads ``input > 0``.
SMOOTH = {
    "celu", "elu", "gelu", "hardswish", "logsigmoid", "mish", "selu", "sigmoid", "silu",
    "softplus", "softsign", "tanh", "tanhshrink",
}  # fmt: skip

#: Operations that hide gates which cannot be read from outside -> what to do about it.
HIDDEN = {
    **dict.fromkeys(
        ("max", "min", "amax", "amin"),
        "it selects along an axis; nn.AdaptiveMaxPool2d(1) and the like have gates",
    ),
    "where": "it selects by a condition of its own; F.relu and the like have gates",
    "rnn_relu": "its ReLUs run inside one fused call; write the recurrence with nn.RNNCell",
    "lp_pool1d": "its ReLU acts on absolute values and gates nothing",
    "lp_pool2d": "its ReLU acts on absolute values and gates nothing",
    "lp_pool3d": "its ReLU acts on absolute values and gates nothing",
    "fractional_max_pool2d": "its windows are random, so that gates have no fixed position",
    "fractional_max_pool3d": "its windows are random, so that gates have no fixed position",
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

#: Other operations that are not linear -> kind.
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
         "square", "pow", "__pow__", "sin", "cos", "tan", "atan", "erf", "reciprocal", "norm"),
        "smooth",
    ),
    **dict.fromkeys(
        ("sign", "round", "floor", "ceil", "argmax", "argmin", "topk", "sort", "argsort", "median",
         "kthvalue"), "ordering",
    ),
}  # fmt: skip


#: Embedding -> names of its positional arguments, as far as its norm.
EMBEDDING = {
    "embedding": ("input", "weight", "padding_idx", "max_norm", "norm_type"),
    "embedding_bag": ("input", "weight", "offsets", "max_norm", "norm_type"),
}

# Dropout ------------------------------------------------------------------------------------

#: Operation -> number of leading axes that its mask has, None for one gate an element.
DROPOUT = {
    "dropout": None,
    "alpha_dropout": None,
    "dropout1d": 2,
    "dropout2d": 2,
    "dropout3d": 2,
    "feature_dropout": 2,
    "feature_alpha_dropout": 2,
}


def dropout_mask(function, x, kwargs):
    """Run a dropout and return ``(output, kept)``.

    What is dropped does not depend on the input: it is where two different inputs give one
    output under the same random numbers.
    """
    rewind = _rewinder(x.device)
    zeros = function(torch.zeros_like(x), **kwargs)
    rewind()
    ones = function(torch.ones_like(x), **kwargs)
    rewind()
    output = function(x, **kwargs)
    return output, ones != zeros


def _rewinder(device):
    """Return a function that winds the random numbers of a device back to where they are now."""
    state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind():
        torch.set_rng_state(state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)

    return rewind


# Randomness ---------------------------------------------------------------------------------


def _argument(args, kwargs, position, name, default):
    return args[position] if len(args) > position else kwargs.get(name, default)


def gumbel_mean(logits, tau=1, hard=False, eps=1e-10, dim=-1):
    """Return ``gumbel_softmax`` without its noise, whose mean softmax does not see."""
    soft = F.softmax(logits / tau, dim=dim)
    return F.one_hot(soft.argmax(dim), soft.shape[dim]).movedim(-1, dim).to(soft) if hard else soft


def _fill(value):
    return lambda drawn, *_, **__: drawn.fill_(value)


def _normal(drawn, *args, **kwargs):
    # Tensor.normal_(mean, std) fills its first argument; torch.normal(mean, std) returns a new one
    in_place = bool(args) and args[0] is drawn
    mean = _argument(args, kwargs, 1 if in_place else 0, "mean", 0.0)
    return drawn.copy_(torch.as_tensor(mean))


def _bernoulli(drawn, *args, **kwargs):
    p = _argument(args, kwargs, 1, "p", None)
    if p is None:
        p = 0.5 if args and args[0] is drawn else args[0] if args else kwargs["input"]
    return drawn.copy_(torch.as_tensor(p))


def _uniform(drawn, *args, **kwargs):
    low = _argument(args, kwargs, 1, "from", 0.0)
    return drawn.fill_((low + _argument(args, kwargs, 2, "to", 1.0)) / 2)


def _log_normal(drawn, *args, **kwargs):
    mean = torch.tensor(_argument(args, kwargs, 1, "mean", 1.0))
    return drawn.fill_(torch.exp(mean + _argument(args, kwargs, 2, "std", 2.0) ** 2 / 2))


def _multinomial(drawn, input, num_samples, *_, **__):
    most = input.topk(min(num_samples, input.shape[-1]), dim=-1).indices
    return drawn.copy_(most[..., torch.arange(num_samples) % most.shape[-1]])


#: Operation -> function of (what it drew, its arguments) that puts the mean in its place;
#: None where there is no mean to put.
RANDOM = {
    "randn": _fill(0.0),
    "randn_like": _fill(0.0),
    "rand": _fill(0.5),
    "rand_like": _fill(0.5),
    "normal": _normal,
    "bernoulli": _bernoulli,
    "uniform": _uniform,
    "exponential": lambda x, *a, **k: x.fill_(1 / _argument(a, k, 1, "lambd", 1.0)),
    "geometric": lambda x, *a, **k: x.fill_(1 / _argument(a, k, 1, "p", 0.5)),
    "cauchy": lambda x, *a, **k: x.fill_(_argument(a, k, 1, "median", 0.0)),
    "log_normal": _log_normal,
    "poisson": lambda x, rate, *_, **__: x.copy_(rate),
    "binomial": lambda x, count, prob, *_, **__: x.copy_(count * prob),
    "_standard_gamma": lambda x, alpha, *_, **__: x.copy_(alpha),
    "_sample_dirichlet": lambda x, alpha, *_, **__: x.copy_(alpha / alpha.sum(-1, keepdim=True)),
    "multinomial": _multinomial,
    "randint": None,
    "randint_like": None,
    "random": None,
    "randperm": None,
}

# Linear layers ------------------------------------------------------------------------------

#: Products of two tensors; linear layers where one of them is a parameter.
PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "addmm", "bmm", "baddbmm", "einsum",
            "inner", "tensordot")  # fmt: skip

#: Linear operation -> axis of its output that holds the units, from the last.
LINEAR = {
    "linear": -1,
    "bilinear": -1,
    **dict.fromkeys(PRODUCTS, -1),
    **{f"conv{k}d": -k - 1 for k in (1, 2, 3)},
    **{f"conv_transpose{k}d": -k - 1 for k in (1, 2, 3)},
}

#: Element-wise functions that make a layer of a linear operation.
ACTIVATION = {*THRESHOLD, *SMOOTH, "sin", "cos", "square", "atan", "erf"}

#: Products with a number, which lead to an activation function; with a tensor they do not.
SCALING = ("mul", "__mul__", "__rmul__", "__imul__", "div", "__truediv__", "__itruediv__",
           "true_divide")  # fmt: skip

#: Operations through which the output of a linear operation is followed.
CARRYING = {
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
HOLDS_LINEAR = ("multi_head_attention_forward", "rnn_tanh", "rnn_tanh_cell", "rnn_relu",
                "rnn_relu_cell", "lstm", "lstm_cell", "gru", "gru_cell")  # fmt: skip
