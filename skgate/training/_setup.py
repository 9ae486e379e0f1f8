"""What a classifier trains, set up from its parameters and checked before training."""

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
    with_shapes_in_errors,
)
from ..exceptions import warn_user
from ._loss import PENALTY_CONSTRAINTS, ComplexityLoss
from ._net import PenalizedNet

__all__ = ["OPTIMIZERS", "batch_size", "cast", "new_net"]

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
BATCH_SIZE = 128
PATIENCE = 10
#: What the classifier decides of its skorch net.
DECIDED = {
    *("batch_size", "callbacks", "complexity", "criterion", "device", "lam", "lr", "max_epochs"),
    *("module", "optimizer", "penalty_interval", "train_split", "verbose", "warm_start"),
}


def new_net(classifier, X, seed, choose_batch_size):
    """Return an initialised net for a classifier, tried on some samples; nothing is trained.

    Parameters
    ----------
    classifier : ComplexityRegularizedClassifier
        With ``classes_``.
    X : ndarray
    seed : int
    choose_batch_size : callable
        Of the module and the split into training and validation samples.
    """
    arguments, options = _net_params(classifier.net_params or {})
    n_classes = len(classifier.classes_)
    module = _build_module(
        classifier.module,
        X,
        n_classes,
        hidden_layer_sizes=classifier.hidden_layer_sizes,
        device=classifier.device,
        **arguments,
    )
    split = complexity = None
    if classifier.validation_fraction is not None:
        split = ValidSplit(classifier.validation_fraction, stratified=True, random_state=seed)
    if classifier.lam:
        names = PENALTY_CONSTRAINTS.keys() - {"random_state"}
        penalty = {name: getattr(classifier, name) for name in names}
        complexity = ComplexityLoss(module, **penalty, random_state=seed).find_layers(X[:10])
    net = PenalizedNet(
        module,
        complexity=complexity,
        lam=classifier.lam,
        penalty_interval=classifier.penalty_interval,
        criterion=nn.CrossEntropyLoss,
        optimizer=OPTIMIZERS.get(classifier.optimizer, classifier.optimizer),
        lr=classifier.lr,
        max_epochs=classifier.max_epochs,
        batch_size=choose_batch_size(module, split),
        train_split=split,
        callbacks=_callbacks(classifier),
        device=str(InputCaster(module).device),
        verbose=0,
        **options,
    ).initialize()
    _check_output(net, cast(module, X[:10]), n_classes)
    return net


def cast(module, X):
    """Return an array as the tensor that a module takes, in memory of the CPU."""
    return InputCaster(module, device="cpu")(X)


def _net_params(net_params):
    """Return arguments of ``module``, and those of the skorch net."""
    options = {"iterator_train__shuffle": True, **net_params}
    if odd := [name for name in options if not isinstance(name, str)]:
        raise ValueError(f"net_params holds {odd}; its keys are names of parameters.")
    if taken := sorted(DECIDED & set(options)):
        raise ValueError(
            f"net_params holds {taken}, which the classifier decides. Set its own parameters "
            "(validation_fraction for train_split), or write a loop with ComplexityLoss."
        )
    arguments = {
        name.removeprefix("module__"): options.pop(name)
        for name in list(options)
        if name.startswith("module__")
    }
    return arguments, options


def batch_size(classifier, X, y, module, split):
    """Return the size of a batch, so that the last one is no trouble."""
    asked, automatic = classifier.batch_size, classifier.batch_size == "auto"
    try:
        n_samples = len(y) if split is None else len(split(X, y)[0])
    except ValueError as error:
        raise ValueError(
            f"validation_fraction={split.cv} of {len(y)} samples leaves no sample of each class "
            f"on both sides: {error}"
        ) from None
    size = min(BATCH_SIZE, n_samples) if automatic else asked
    if size > n_samples:
        raise ValueError(
            f"batch_size={size} exceeds the {n_samples} samples to train on. Lower it, or set "
            'batch_size="auto".'
        )
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    drops = (classifier.net_params or {}).get("iterator_train__drop_last", False)
    while normed and not drops and (size == 1 or n_samples % size == 1):
        if not automatic or size < 3:
            raise ValueError(
                f"With batch_size={size} and {n_samples} samples, the last batch has 1 sample, "
                "which batch normalisation cannot train on. Take another batch_size, or "
                'net_params={"iterator_train__drop_last": True}.'
            )
        size -= 1
    return size


def _callbacks(classifier):
    callbacks = list(classifier.callbacks or [])
    if not classifier.early_stopping:
        return callbacks
    if classifier.validation_fraction is None:
        raise ValueError(
            "early_stopping=True needs samples to follow the loss on. Set a "
            "validation_fraction, such as 0.1."
        )
    return [*callbacks, ("early_stopping", EarlyStopping(patience=PATIENCE, load_best=True))]


def _build_module(module, X, n_classes, *, hidden_layer_sizes, device, **options):
    """Return a new module on its device.

    Parameters
    ----------
    module : None, nn.Module, or callable that returns one
    X : ndarray
        What it is to be trained on.
    n_classes : int
    hidden_layer_sizes : sequence of int
        Of the network that ``None`` stands for.
    device : str
    **options
        More arguments of the callable.
    """
    if options and (module is None or isinstance(module, nn.Module)):
        what = "None" if module is None else "an instance"
        raise ValueError(
            f"net_params holds arguments of the module, {sorted(options)}, and module is {what}, "
            "which takes none. Pass a class or function as module, or leave them out."
        )
    if module is None:
        built = _perceptron(X, n_classes, hidden_layer_sizes)
    elif isinstance(module, nn.Module):
        built = copy_module(inner_module(module))
    else:
        built = _called(module, X.shape[1], n_classes, options)
    return prepare_module(built, X[:1], device, 0)


def _perceptron(X, n_classes, hidden_layer_sizes):
    dtype = torch.float32 if X.dtype == "float32" else torch.float64
    layers = [nn.Flatten()] if X.ndim > 2 else []
    for n_in, n_out in pairwise([math.prod(X.shape[1:]), *hidden_layer_sizes]):
        layers += [nn.Linear(n_in, n_out, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden_layer_sizes[-1], n_classes, dtype=dtype))


def _called(factory, n_features, n_classes, options):
    """Call a class or function with as much of the two numbers as it takes."""
    given = {"n_features": n_features, "n_classes": n_classes}
    aliases = {**given, "num_classes": n_classes}  # as torchvision has it
    parameters = list(inspect.signature(factory).parameters.values())
    by_name = {p.name: aliases[p.name] for p in parameters if p.name in aliases}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [
        p.name
        for p in parameters
        if p.kind in positional and p.default is p.empty and p.name not in {*by_name, *options}
    ]
    if by_name and not required:
        built = factory(**by_name, **options)
    elif not by_name and len(required) in (0, 2):
        built = factory(*given.values(), **options) if required else factory(**options)
    else:
        name = getattr(factory, "__name__", repr(factory))
        raise TypeError(
            f"module={name} takes {required}; need a class or function of (n_features, n_classes), "
            "or of nothing. Give its other arguments defaults, or values by "
            'net_params={"module__name": value}.'
        )
    if not isinstance(built, nn.Module):
        raise TypeError(f"module(...) returned a {type(built).__name__}; need a torch.nn.Module.")
    return built


def _check_output(net, X, n_classes):
    """Raise unless a module gives one logit a class.

    Parameters
    ----------
    net : skorch.NeuralNet
    X : Tensor
    n_classes : int
    """
    module, n_samples = net.module_, len(X)
    with (
        TORCH_LOCK,
        with_shapes_in_errors(X),
        eval_mode_without_side_effects(module, train=False, seed=0),
    ):
        output = net.infer(X)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
    if shape != (n_samples, n_classes):
        found = type(output).__name__ if shape is None else f"an output of shape {shape}"
        raise ValueError(
            f"{type(module).__name__} gives {found} for {n_samples} samples; y has {n_classes} "
            f"classes, so that a tensor of shape {(n_samples, n_classes)} is needed: one logit a "
            "class."
        )
    if not (_look_like_probabilities(output) and X.is_floating_point()):
        return
    with TORCH_LOCK, eval_mode_without_side_effects(module, train=False, seed=0):
        large = net.infer(1e3 * X)  # of which logits are large, where they were not by chance
    if _look_like_probabilities(large):
        warn_user(
            f"The outputs of {type(module).__name__} look like probabilities; need logits, to "
            "which the loss applies softmax itself. Leave out the last softmax or sigmoid."
        )


def _look_like_probabilities(output):
    return bool(((output >= 0) & (output <= 1)).all())
