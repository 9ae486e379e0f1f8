"""The net that a classifier trains, built from plain parameters and checked before training."""

import inspect
import math
from itertools import pairwise

import torch
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from ..capture import (
    TORCH_LOCK,
    InputCaster,
    copy_module,
    eval_mode_without_side_effects,
    inner_module,
    prepare_module,
    require_one_device,
    with_shapes_in_errors,
)
from ..exceptions import warn_user
from ._loss import PENALTY_CONSTRAINTS, ComplexityLoss
from ._net import PenalizedNet

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
BATCH_SIZE = 128
PATIENCE = 10
#: Parameters of the skorch net that ``net_params`` must leave to the classifier.
RESERVED_NET_PARAMS = {
    *("batch_size", "callbacks", "complexity", "criterion", "device", "lam", "lr", "max_epochs"),
    *("module", "optimizer", "penalized_layers", "penalty_interval", "train_split", "verbose"),
    "warm_start",
}


def new_net(params, X, n_classes, seed):
    """Return an untrained net for the parameters of a classifier, all but ``batch_size``."""
    fraction = params["validation_fraction"]
    arguments, options = _split_net_params(params["net_params"] or {})
    module = _build_module(params["module"], X, n_classes, params["hidden_layer_sizes"], arguments)
    module = prepare_module(module, X[:1], params["device"], 0)
    penalty = {name: params[name] for name in PENALTY_CONSTRAINTS} | {"random_state": seed}
    complexity, names = _find_penalty(ComplexityLoss(module, **penalty), X[:10], params["lam"])
    net = PenalizedNet(
        module,
        complexity=complexity,
        penalized_layers=names,
        criterion=nn.CrossEntropyLoss,
        optimizer=OPTIMIZERS.get(params["optimizer"], params["optimizer"]),
        **{name: params[name] for name in ("lam", "lr", "max_epochs", "penalty_interval")},
        train_split=fraction and ValidSplit(fraction, stratified=True, random_state=seed),
        callbacks=_callbacks(params["callbacks"], params["early_stopping"], fraction),
        device=str(InputCaster(module).device),
        verbose=0,
        **options,
    ).initialize()
    _check_output(net, InputCaster(module, device="cpu")(X[:10]), n_classes)
    return net


def _find_penalty(loss, X, lam):
    """Return the penalty, None without a weight, and the layers it is of, or would be of."""
    try:
        names = loss.find_layers(X).layer_names_
    except ValueError:
        if lam or loss.penalized_layers is not None:
            raise
        return None, []  # a network without gates can be trained without a penalty
    return (loss if lam else None), names


def _split_net_params(net_params):
    """Return the arguments of ``module``, and the parameters of the skorch net."""
    options = {"iterator_train__shuffle": True, **net_params}
    if bad := [name for name in options if not isinstance(name, str)]:
        raise ValueError(f"net_params holds {bad}; its keys must be names of parameters.")
    if reserved := sorted(RESERVED_NET_PARAMS & set(options)):
        raise ValueError(
            f"net_params holds {reserved}, which the classifier sets. Use its own parameters "
            "(validation_fraction for train_split), or write a loop with ComplexityLoss."
        )
    arguments = {name: options.pop(name) for name in list(options) if name.startswith("module__")}
    return {name.removeprefix("module__"): value for name, value in arguments.items()}, options


def batch_size_for(net, X, y, batch_size):
    """Return the size of a batch, chosen or checked so that a net can train on the last one."""
    split, automatic = net.train_split, batch_size == "auto"
    try:
        n_samples = len(y) if split is None else len(split(X, y)[0])
    except ValueError as error:
        raise ValueError(
            f"validation_fraction={split.cv} of {len(y)} samples leaves no sample of some class "
            f"on one of the two sides: {error}"
        ) from None
    size = min(BATCH_SIZE, n_samples) if automatic else batch_size
    if size > n_samples:
        raise ValueError(
            f"batch_size={size} exceeds the {n_samples} samples to train on. Lower it, or set "
            'batch_size="auto".'
        )
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.module_.modules())
    drops = getattr(net, "iterator_train__drop_last", False)
    while normed and not drops and (size == 1 or n_samples % size == 1):
        if not automatic or size < 3:
            raise ValueError(
                f"With batch_size={size} and {n_samples} samples, the last batch has 1 sample, "
                "which batch normalisation cannot train on. Set another batch_size, or "
                'net_params={"iterator_train__drop_last": True}.'
            )
        size -= 1
    return size


def _callbacks(callbacks, early_stopping, validation_fraction):
    if early_stopping and validation_fraction is None:
        raise ValueError(
            "early_stopping=True needs samples to compute a validation loss on. Set a "
            "validation_fraction, such as 0.1."
        )
    stop = ("early_stopping", EarlyStopping(patience=PATIENCE, load_best=True))
    return [*(callbacks or []), *([stop] if early_stopping else [])]


def _build_module(module, X, n_classes, hidden_layer_sizes, arguments):
    """Return a new module, on the CPU; ``arguments`` are those of a callable ``module``."""
    if arguments and (module is None or isinstance(module, nn.Module)):
        kind = "None" if module is None else "an instance"
        raise ValueError(
            f"net_params holds arguments of the module, {sorted(arguments)}, but module is {kind}, "
            "which takes none. Pass a class or function as module, or leave them out."
        )
    if module is None:
        return _perceptron(X, n_classes, hidden_layer_sizes)
    if isinstance(module, nn.Module):
        module = inner_module(module)
        require_one_device(module)
        return copy_module(module)
    return _called(module, X.shape[1], n_classes, arguments)


def _perceptron(X, n_classes, hidden_layer_sizes):
    dtype = torch.float32 if X.dtype == "float32" else torch.float64
    layers = [nn.Flatten()] if X.ndim > 2 else []
    for n_in, n_out in pairwise([math.prod(X.shape[1:]), *hidden_layer_sizes]):
        layers += [nn.Linear(n_in, n_out, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden_layer_sizes[-1], n_classes, dtype=dtype))


def _called(factory, n_features, n_classes, arguments):
    """Call a class or function with those of the two numbers that it takes."""
    # torchvision's name for the number of classes is accepted as well
    numbers = {"n_features": n_features, "n_classes": n_classes, "num_classes": n_classes}
    parameters = list(inspect.signature(factory).parameters.values())
    by_name = {p.name: numbers[p.name] for p in parameters if p.name in numbers}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    required = [name for name in required if name not in {*by_name, *arguments}]
    if not required:
        built = factory(**by_name, **arguments)
    elif len(required) == 2 and not by_name:
        built = factory(n_features, n_classes, **arguments)
    else:
        name = getattr(factory, "__name__", repr(factory))
        raise TypeError(
            f"module={name} takes {required}; need a class or function of (n_features, n_classes), "
            "or of no arguments. Give its other arguments defaults, or values by "
            'net_params={"module__name": value}.'
        )
    if not isinstance(built, nn.Module):
        raise TypeError(f"module(...) returned a {type(built).__name__}; need a torch.nn.Module.")
    return built


def _check_output(net, X, n_classes):
    """Raise unless a net returns one logit per class; warn if they look like probabilities."""
    name, needed = type(net.module_).__name__, (len(X), n_classes)
    output = _evaluate(net, X)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
    if shape != needed:
        found = type(output).__name__ if shape is None else f"an output of shape {shape}"
        raise ValueError(
            f"{name} returns {found} for {len(X)} samples; y has {n_classes} classes, so it must "
            f"return a tensor of shape {needed}: one logit per class."
        )
    probable = _look_like_probabilities(output) and X.is_floating_point()
    # logits that are between 0 and 1 by chance leave that range for large inputs
    if probable and _look_like_probabilities(_evaluate(net, 1e3 * X)):
        warn_user(
            f"The outputs of {name} look like probabilities; need logits, to which the loss "
            "applies softmax itself. Leave out the last softmax or sigmoid."
        )


def _evaluate(net, X):
    run = eval_mode_without_side_effects(net.module_, train=False, seed=0)
    with TORCH_LOCK, with_shapes_in_errors(X), run:
        return net.infer(X)


def _look_like_probabilities(output):
    return bool(((output >= 0) & (output <= 1)).all())
