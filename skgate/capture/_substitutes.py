"""Operations run without side effects: no buffer or weight changes, no random number is drawn.

A substitute takes (operation, function, args, kwargs) and returns what the function would.
"""

import torch
import torch.nn.functional as F

from ._operations import ATTENTION, DROPOUT, by_name

#: Embedding -> names of its positional arguments, as far as its norm.
_EMBEDDING = {
    "embedding": ("input", "weight", "padding_idx", "max_norm", "norm_type"),
    "embedding_bag": ("input", "weight", "offsets", "max_norm", "norm_type"),
}


def _embedding(operation, function, args, kwargs):
    if function not in (F.embedding, F.embedding_bag):  # torch's own take other arguments
        return function(*args, **kwargs)
    kwargs = by_name(_EMBEDDING[operation], args, kwargs)
    if kwargs.get("max_norm") is not None:  # which shortens rows of the weight in place
        kwargs["weight"] = kwargs["weight"].clone()
    return function(**kwargs)


def _batch_norm(operation, function, args, kwargs):
    if function is not F.batch_norm:
        return function(*args, **kwargs)
    names = ("input", "running_mean", "running_var", "weight", "bias", "training")
    kwargs = by_name((*names, "momentum", "eps"), args, kwargs)
    if kwargs.get("running_mean") is not None:  # training=True would change running statistics
        kwargs["training"] = False
    return function(**kwargs)


def _drawn(operation, function, args, kwargs):
    kwargs.pop("generator", None)  # one that the module owns would advance
    return function(*args, **kwargs)


def _mean(operation, function, args, kwargs):
    return MEANS[operation](_drawn(operation, function, args, kwargs), *args, **kwargs)


def _lowest(operation, function, args, kwargs):
    """Replace random integers by the lowest, the same for all samples."""
    low = kwargs.get("low", kwargs.get("from", 0))
    bounds = [a for a in args if isinstance(a, int)]  # (high) or (low, high)
    return _drawn(operation, function, args, kwargs).fill_(bounds[0] if bounds[1:] else low)


def _rrelu(operation, function, args, kwargs):
    names = ("input", "lower", "upper", "training", "inplace")
    return function(**{**by_name(names, args, kwargs), "training": False})


def _no_dropout(operation, function, args, kwargs):
    return args[0] if args else kwargs["input"]


def _attention(operation, function, args, kwargs):
    return function(**{**by_name(ATTENTION[operation], args, kwargs), "dropout_p": 0.0})


def _noiseless_softmax(logits, tau=1, hard=False, eps=1e-10, dim=-1):
    """Return ``gumbel_softmax`` without its noise."""
    soft = F.softmax(logits / tau, dim=dim)
    return F.one_hot(soft.argmax(dim), soft.shape[dim]).movedim(-1, dim).to(soft) if hard else soft


def dropout_mask(function, x, kwargs):
    """Run a dropout and return ``(output, kept)``.

    The mask does not depend on the input: an element is dropped where two different inputs give
    the same output under the same random numbers.
    """
    devices = [x.device.index] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        zeros = function(torch.zeros_like(x), **kwargs)
    with torch.random.fork_rng(devices):
        ones = function(torch.ones_like(x), **kwargs)
    return function(x, **kwargs), ones != zeros


# Means of random numbers --------------------------------------------------------------------


def _argument(args, kwargs, position, name, default):
    return args[position] if len(args) > position else kwargs.get(name, default)


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
    likeliest = input.topk(min(num_samples, input.shape[-1]), dim=-1).indices
    return drawn.copy_(likeliest[..., torch.arange(num_samples) % likeliest.shape[-1]])


#: Operation -> function of (the numbers drawn, its arguments) that writes their mean over them;
#: None where there is no mean.
MEANS = {
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
    **dict.fromkeys(("randint", "randint_like", "random", "randperm")),
}

#: Operations that draw integers, which have no mean.
INTEGERS = [operation for operation, mean in MEANS.items() if mean is None]

#: Substitutes that leave parameters, buffers and generators of the module alone.
WITHOUT_SIDE_EFFECTS = {
    **dict.fromkeys(_EMBEDDING, _embedding),
    "batch_norm": _batch_norm,
    **dict.fromkeys(MEANS, _drawn),
}

#: The same; besides, random numbers are replaced by their means and nothing is dropped.
DETERMINISTIC = {
    **WITHOUT_SIDE_EFFECTS,
    **{operation: _mean for operation, mean in MEANS.items() if mean},
    **dict.fromkeys(DROPOUT, _no_dropout),
    **dict.fromkeys(ATTENTION, _attention),
    "rrelu": _rrelu,
    "gumbel_softmax": lambda operation, function, args, kwargs: _noiseless_softmax(*args, **kwargs),
}

#: The same; besides, what is drawn does not depend on the place of a sample in its batch.
DRY_RUN = {**DETERMINISTIC, **dict.fromkeys(INTEGERS, _lowest)}
