"""Callbacks of the penalised net: means over an epoch, and the state a callback resumes from."""

import numpy as np
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

EARLY_STOPPING_STATE = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")


def callback_state(callback):
    """Return what a callback remembers between epochs; empty if it has no state."""
    if isinstance(callback, EarlyStopping):
        state = {name: getattr(callback, name, None) for name in EARLY_STOPPING_STATE}
        # files that are safe to load hold no NumPy scalars
        return {k: float(v) if isinstance(v, np.floating) else v for k, v in state.items()}
    if isinstance(callback, LRScheduler):
        scheduler = callback.lr_scheduler_
        groups = scheduler.optimizer.param_groups
        return {
            "batch_idx": callback.batch_idx_,
            "scheduler": scheduler.state_dict(),
            "groups": [{k: v for k, v in group.items() if k != "params"} for group in groups],
        }
    return callback.state_dict() if hasattr(callback, "state_dict") else {}


def load_callback_state(callback, state):
    """Restore what `callback_state` returned; call it after ``on_train_begin``."""
    if isinstance(callback, EarlyStopping):
        vars(callback).update(state)
        if callback.misses_ >= callback.patience:  # it stopped the last training, not this one
            callback.misses_ = 0
    elif isinstance(callback, LRScheduler):
        callback.batch_idx_, scheduler = state["batch_idx"], callback.lr_scheduler_
        scheduler.load_state_dict(state["scheduler"])
        # a new scheduler has reset rates and momenta to those of the first step
        for group, options in zip(scheduler.optimizer.param_groups, state["groups"], strict=True):
            group.update(options)
    elif state:
        callback.load_state_dict(state)


class EpochMeans(Callback):
    """Record means over the batches of an epoch, and the complexities at its end."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        for key in dict.fromkeys(k for b in batches for k in b):
            if key in ("train_loss", "valid_loss") or key.endswith("_batch_size"):
                continue
            size = "valid_batch_size" if key == "valid_acc" else "train_batch_size"
            pairs = [(b[key], b[size]) for b in batches if key in b]
            net.history.record(key, sum(v * n for v, n in pairs) / sum(n for _, n in pairs))
        row = net.history[-1]
        if "valid_loss" in row:
            net.history.record("loss_gap", float(row["valid_loss"] - row["train_loss"]))
        if net.complexity is not None:
            self._record_complexity(net, row)
        net.n_epochs_ = len(net.history)

    def _record_complexity(self, net, row):
        names, record = net.complexity.layer_names_, net.history.record
        if f"penalty_{names[0]}" in row:
            record("penalty", sum(row[f"penalty_{name}"] for name in names))
        entropies, errors = net.complexity.complexity(*net.probes_)
        for name, entropy, error in zip(names, entropies.tolist(), errors.tolist(), strict=True):
            record(f"complexity_{name}", entropy)
            record(f"complexity_{name}_se", error)
        record("complexity", float(entropies.sum()))
