"""Models as users pass them: a module, wrapped or not, or an estimator that holds one."""

import copy

import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from ._caster import InputCaster, call, without_loss
from ._inputs import first_samples
from ._runner import TORCH_LOCK, eval_mode_without_side_effects


def inner_module(model):
    """Return the module of a model, without wrappers that hide its operations."""
    if isinstance(model, type):
        raise TypeError(f"Got the class {model.__name__}; need an instance, {model.__name__}(...).")
    if not isinstance(model, nn.Module):
        module = getattr(model, "module_", None)
        if not isinstance(module, nn.Module):
            raise NotFittedError(
                f"{type(model).__name__} is neither a torch.nn.Module nor a fitted estimator with "
                "one in module_. Fit it first; where scikit-learn clones it, which un-fits it, "
                "wrap it as sklearn.frozen.FrozenEstimator(model). Of a pipeline pass pipe[-1], "
                "with pipe[:-1].transform(X); of a search, its best_estimator_."
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
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, parallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


def prepare_module(model, inputs, device, seed):
    """Return the module to run: the model's own, or a copy of it.

    Copied are modules with lazy parameters, which get their values from the first inputs, and
    modules that run on another device.
    """
    module = inner_module(model)
    parameters = list(module.parameters())
    elsewhere = device != "auto" and any(p.device != torch.device(device) for p in parameters)
    lazy = any(nn.parameter.is_lazy(p) for p in (*parameters, *module.buffers()))
    _require_data(module, device)
    if elsewhere and device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={device!r} was asked for and torch finds no CUDA. Use device='auto', "
            "or install a CUDA build of torch on a machine with a GPU."
        )
    if elsewhere or lazy:
        module = copy_module(module)
    if elsewhere:
        module = module.to(device)
    if lazy:
        with TORCH_LOCK, eval_mode_without_side_effects(module, train=False, seed=seed):
            call(module, InputCaster(module)(without_loss(module, first_samples(inputs, 2))))
    return module


def _require_data(module, device):
    """Raise if parameters hold no data, or if accelerate places them and so must a device."""
    hooked = any(hasattr(part, "_hf_hook") for part in module.modules())
    if hooked and device != "auto":
        raise ValueError(
            f"device={device!r} was asked for, and the model's parameters are placed by its "
            "device_map. Use device='auto', or load the model without a device_map."
        )
    empty = [n for n, p in module.named_parameters() if p.is_meta and not nn.parameter.is_lazy(p)]
    if empty and not hooked:
        raise ValueError(
            f"{len(empty)} parameters of {type(module).__name__}, such as {empty[0]!r}, are on the "
            "meta device and have no data. Load the weights first, for example with "
            "module.load_state_dict(state, assign=True)."
        )


def require_one_device(module):
    """Raise unless all parameters are on one device, and hold data, as training needs."""
    parameters = [p for p in module.parameters() if not nn.parameter.is_lazy(p)]
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1 or devices == ["meta"]:
        raise ValueError(
            f"The parameters of {type(module).__name__} are on {', '.join(devices)}; training "
            "needs them on one device that holds data (meta: offloaded, or not loaded). Load the "
            "weights to one device, without a device_map."
        )


def copy_module(module):
    """Return a copy of a module, whose parameters and buffers may be lazy."""
    # torch copies lazy parameters but not lazy buffers
    lazy = [b for b in module.buffers() if nn.parameter.is_lazy(b)]
    fresh = nn.parameter.UninitializedBuffer
    return copy.deepcopy(module, {id(b): fresh(device=b.device, dtype=b.dtype) for b in lazy})
