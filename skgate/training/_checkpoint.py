"""Checkpoints: files that hold everything needed to resume training and are safe to load."""

import pickle
from numbers import Integral

import joblib
import torch

from ..capture import tree_map
from ..utils.arrays import to_numpy
from ..utils.files import atomic_write

FORMAT = "skgate 3"
#: Parameters that may change when training resumes.
MAY_CHANGE = {"callbacks", "checkpoint", "device", "max_epochs", "module", "verbose", "warm_start"}


def write_state(state, path):
    """Write a state of tensors, numbers and text, either completely or not at all."""
    with atomic_write(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def read_state(path):
    """Return a state that `write_state` wrote; nothing in the file is executed."""
    message = f"{path} is not a file of parameters that save_params wrote"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own message advises to load the file without the safeguard
        raise ValueError(f"{message}: it is truncated, or would execute code.") from error
    except Exception as error:
        raise ValueError(f"{message}: {error}.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{message}.")
    return state


def read_checkpoint(path, settings, data):
    """Return the state in a file; raise unless it is of a training with these settings and data."""
    state = read_state(path)
    changed = changed_settings(settings, state["settings"])
    if state["data"] != data:
        changed.append("X or y")
    if changed:
        raise ValueError(
            f"checkpoint={str(path)!r} is of another training: it had another "
            f"{', '.join(changed)}. Pass what it had to fit, or set another file."
        )
    return state


def settings_of(params):
    """Return a hash of each parameter of a classifier that determines the result of training."""
    if not isinstance(params["random_state"], Integral):
        params = {**params, "random_state": None}  # the file has the seed that was drawn
    return {name: _digest(v) for name, v in params.items() if name not in MAY_CHANGE}


def _digest(value):
    """Return a hash that is the same in all processes, or None for a value that has none."""
    try:
        return joblib.hash(tree_map(to_numpy, value))  # pickled tensors hold their addresses
    except Exception:  # such as a function defined inside another one
        return None


def changed_settings(settings, saved):
    """Return the names of the settings that differ from those saved, sorted."""
    return sorted(name for name in settings if settings[name] != saved.get(name))
