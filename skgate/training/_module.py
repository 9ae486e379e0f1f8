"""The network that a classifier trains: built from what the user gave, checked before training."""

import inspect
import math
from itertools import pairwise

import torch
from torch import nn

from ..exceptions import warn_user
from ..nn._inputs import first_samples
from ..nn._models import copy_module, inner_module, prepare_module
from ..nn._recorder import running
from ..nn._watcher import LOCK, noted

__all__ = ["build_module", "check_output"]


def build_module(module, X, n_classes, *, hidden_layer_sizes, device, **options):
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
    parameters = list(inspect.signature(factory).parameters.values())
    by_name = {p.name: given[p.name] for p in parameters if p.name in given}
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


def check_output(net, X, n_classes):
    """Raise unless a module gives one logit a class.

    Parameters
    ----------
    net : skorch.NeuralNet
    X : Tensor
    n_classes : int
    """
    module = net.module_
    with LOCK, noted(X), running(module, train=False, seed=0):
        output = net.infer(first_samples(X, 2))
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else None
    if shape != (2, n_classes):
        found = type(output).__name__ if shape is None else f"an output of shape {shape}"
        raise ValueError(
            f"{type(module).__name__} gives {found} for 2 samples; y has {n_classes} classes, so "
            f"that a tensor of shape (2, {n_classes}) is needed: one logit a class."
        )
    sums_to_one = torch.allclose(output.sum(1), output.new_ones(2), atol=1e-4)
    if sums_to_one and bool((output >= 0).all()):
        warn_user(
            f"The outputs of {type(module).__name__} look like probabilities; need logits, to "
            "which the loss applies softmax itself. Leave out the last softmax."
        )
