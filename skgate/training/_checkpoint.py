"""The state of a training: what it goes on from, in files that execute nothing when loaded."""

import json
import pickle
from numbers import Integral
from pathlib import Path

import joblib
import numpy as np
import torch
from skorch.callbacks import EarlyStopping, LRScheduler

from ..capture import tree_map
from ..utils.arrays import to_numpy
from ..utils.files import written_whole

__all__ = [
    "add_outcome",
    "check_same_training",
    "classifier_state",
    "other_settings",
    "read_state",
    "restore_net",
    "restore_outcome",
    "restore_run",
    "run_state",
    "settings",
    "write_state",
]

FORMAT = "skgate 1"
#: What early stopping remembers.
MEMORY = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")
#: Parameters that do not say what is trained: a training goes on when they change.
NOT_SETTINGS = ("callbacks", "checkpoint", "device", "max_epochs", "module", "verbose",
                "warm_start")  # fmt: skip


def write_state(state, path):
    """Write a state of tensors, numbers and text, all of it or nothing."""
    with written_whole(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def read_state(path):
    """Return what `write_state` wrote.

    Raises
    ------
    ValueError
        If the file is something else, or would execute code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        # torch advises to load it anyway
        executes = isinstance(error, pickle.UnpicklingError)
        reason = "it is cut short, or would execute code" if executes else error
        raise ValueError(
            f"{path} is not a file of parameters that save_params wrote: {reason}."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a file of parameters that save_params wrote.")
    return state


def classifier_state(classifier, data):
    """Return all of a fitted classifier that goes to a file.

    Parameters
    ----------
    classifier : ComplexityRegularizedClassifier
    data : str or None
        What tells the data that it is trained on from others.
    """
    classes, names = classifier.classes_, getattr(classifier, "feature_names_in_", None)
    # dates as text, since a file that executes nothing holds none
    plain = classes.astype(str) if classes.dtype.kind == "M" else classes
    shape = list(classifier._input["shape"])
    return {
        "classes": plain.tolist(),
        "classes_dtype": "object" if classes.dtype == object else classes.dtype.str,
        "n_features": classifier.n_features_in_,
        "feature_names": None if names is None else names.tolist(),
        "input": {"shape": shape, "dtype": classifier._input["dtype"]},
        "batch_size": classifier.net_.batch_size,
        "settings": settings(classifier),
        "seed": classifier._seed,
        "data": data,
        "net": _net_state(classifier.net_),
        "run": classifier._run_state,
    }


def settings(classifier):
    """Return a hash of each parameter that says what is trained."""
    params = classifier.get_params(deep=False)
    if not isinstance(classifier.random_state, Integral):
        params["random_state"] = None  # the seed that was drawn from it is in the file
    return {name: _digest(v) for name, v in params.items() if name not in NOT_SETTINGS}


def _digest(value):
    """Return a hash that is the same in another process, None of what has none."""
    try:
        return joblib.hash(tree_map(to_numpy, value))  # tensors pickle with their addresses
    except Exception:  # a function that was defined in another one
        return None


def other_settings(classifier, theirs):
    """Return the names of the settings that a classifier has otherwise than ``theirs``."""
    ours = settings(classifier)
    return sorted(name for name in ours if ours[name] != theirs.get(name))


def check_same_training(classifier, saved, data):
    """Raise where a file is not of the training that a classifier is about to do."""
    differ = other_settings(classifier, saved["settings"])
    if saved["data"] != data:
        differ.append("X or y")
    if differ:
        raise ValueError(
            f"checkpoint={str(classifier.checkpoint)!r} is of another training: it had another "
            f"{', '.join(differ)}. Give fit what it had, or take another file."
        )


def _net_state(net):
    """Return what a net has become."""
    return {
        "module": net.module_.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "complexity": net.complexity.state_dict() if net.complexity else {},
        "n_steps": net.n_steps_,
        "history": _history(net),
    }


def restore_net(net, state):
    """Put a net that is initialised into a state that `classifier_state` returned."""
    try:
        net.module_.load_state_dict(state["module"])
    except RuntimeError as error:
        raise ValueError(
            f"The file holds the parameters of another module than {type(net.module_).__name__} "
            f"with these settings: {error}"
        ) from error
    net.optimizer_.load_state_dict(state["optimizer"])
    if net.complexity and state["complexity"]:
        net.complexity.load_state_dict(state["complexity"])
    net.n_steps_ = state["n_steps"]
    net.history = type(net.history)(json.loads(state["history"]))
    net.n_epochs_ = len(net.history)


def add_outcome(net, path):
    """Add to a file what a training came to, where that is not what it would go on from.

    Early stopping takes the parameters of an earlier epoch in the end, and a longer training
    would not have.
    """
    state = read_state(path) if Path(path).exists() else None
    if state is not None:
        outcome = {"module": net.module_.state_dict(), "history": _history(net)}
        write_state({**state, "outcome": outcome}, path)


def restore_outcome(net, state):
    """Put a net into the state that its training came to, if that was added to the file."""
    if outcome := state.get("outcome"):
        net.module_.load_state_dict(outcome["module"])
        net.history = type(net.history)(json.loads(outcome["history"]))
        net.n_epochs_ = len(net.history)


def _history(net):
    return json.dumps(net.history.to_list(), default=float)


def run_state(net):
    """Return what the rest of a training hangs on besides its net."""
    devices = {p.device for p in net.module_.parameters() if p.device.type == "cuda"}
    return {
        "callbacks": {name: _memory(callback) for name, callback in net.callbacks_},
        "optimizer": _options(net.optimizer_),
        "rng": torch.get_rng_state(),
        "cuda_rng": {str(device): torch.cuda.get_rng_state(device) for device in devices},
    }


def restore_run(net, state):
    """Give callbacks their memory back, and torch its random numbers."""
    for name, callback in net.callbacks_:
        memory = state["callbacks"].get(name)
        if not memory:
            continue
        if isinstance(callback, EarlyStopping):
            vars(callback).update(memory)
            if callback.misses_ >= callback.patience:  # it has ended a training; this is the next
                callback.misses_ = 0
        elif isinstance(callback, LRScheduler):
            callback.batch_idx_ = memory["batch_idx_"]
            callback.lr_scheduler_.load_state_dict(memory["lr_scheduler_"])
            # a new scheduler sets rates and momenta back to those of the first step
            for group, options in zip(net.optimizer_.param_groups, state["optimizer"], strict=True):
                group.update(options)
        else:
            callback.load_state_dict(memory)
    torch.set_rng_state(state["rng"])
    for device, rng in state["cuda_rng"].items():
        torch.cuda.set_rng_state(rng, device)


def _options(optimizer):
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def _memory(callback):
    if isinstance(callback, EarlyStopping):
        memory = {name: getattr(callback, name, None) for name in MEMORY}
        # numpy's numbers are objects to a file that may hold none
        return {k: float(v) if isinstance(v, np.floating) else v for k, v in memory.items()}
    if isinstance(callback, LRScheduler):
        scheduler = callback.lr_scheduler_
        return {"batch_idx_": callback.batch_idx_, "lr_scheduler_": scheduler.state_dict()}
    return callback.state_dict() if hasattr(callback, "state_dict") else {}
