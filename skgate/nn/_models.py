"""What users hand over as a model: a module, wrapped or not, or an estimator that holds one."""

import torch
from sklearn.exceptions import NotFittedError
from torch import nn

__all__ = ["inner_module"]


def inner_module(model):
    """Return the module of a model, without wrappers whose inside cannot be watched."""
    if isinstance(model, type):
        raise TypeError(f"Got the class {model.__name__}; need an instance, {model.__name__}(...).")
    if not isinstance(model, nn.Module):
        module = getattr(model, "module_", None)
        if not isinstance(module, nn.Module):
            raise NotFittedError(
                f"{type(model).__name__} is neither a torch.nn.Module nor a fitted estimator with "
                "one in module_. Fit it first; where scikit-learn clones it, which un-fits it, "
                "wrap it as sklearn.frozen.FrozenEstimator(model)."
            )
        model = module
    module = _unwrap(model)
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(
                f"{name or 'The model'} is a script module, whose operations cannot be seen. "
                "Pass the nn.Module that it was made from."
            )
    return module


def _unwrap(module):
    """Return the module inside ``torch.compile`` and data-parallel wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(
            module, nn.DataParallel | nn.parallel.DistributedDataParallel
        ):
            inner = module.module
        if inner is None:
            return module
        module = inner
