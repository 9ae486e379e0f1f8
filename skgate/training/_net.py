"""The skorch net inside `ComplexityRegularizedClassifier`: a training step with the penalty."""

import contextlib
import math

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.dataset import unpack_data

from ..capture import eval_mode_without_side_effects
from ..monitoring import ComplexityMonitor

__all__ = ["PenalizedNet"]


class PenalizedNet(NeuralNetClassifier):
    """skorch net that trains with ``task loss + lam * penalty``.

    Each batch teaches the densities of the gates first, then the network. Without a penalty it
    does what its base class does.

    Parameters
    ----------
    module : nn.Module
        An instance, which is trained itself.
    complexity : ComplexityLoss or None
    lam : float
    penalty_interval : int
        Every which batch has the penalty.
    **kwargs
        Of skorch's `NeuralNetClassifier`.
    """

    def __init__(self, module, *, complexity=None, lam=0.0, penalty_interval=1, **kwargs):
        super().__init__(module, **kwargs)
        self.complexity = complexity
        self.lam = lam
        self.penalty_interval = penalty_interval
        self._after_epoch = None

    @property
    def _default_callbacks(self):
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring("train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring("valid_loss")),
            ("means", EpochMeans()),
        ]

    def initialize(self):
        self.n_steps_ = self.n_epochs_ = 0
        return super().initialize()

    def __setstate__(self, state):
        super().__setstate__(state)
        if self.complexity is not None:  # skorch pickles its module apart
            self.complexity.module = self.module_

    def train(self, X, y, epochs, *, before, after_epoch):
        """Train for some epochs; unlike ``fit``, leave an interruption to the caller.

        Parameters
        ----------
        X, y : tensors
        epochs : int
        before : callable
            Called when callbacks have been set up, before the first epoch.
        after_epoch : callable
            Called after each epoch that no callback ends the training in.
        """
        self.notify("on_train_begin", X=X, y=y)
        before()
        self._after_epoch = after_epoch
        try:
            with contextlib.suppress(_TrainingEnded):
                self.fit_loop(X, y, epochs)
            self.notify("on_train_end", X=X, y=y)
        finally:
            self._after_epoch = None
            self._set_training(False)
            del self.history[self.n_epochs_ :]  # of an epoch that did not come to its end

    def notify(self, method_name, **kwargs):
        getattr(self, method_name)(self, **kwargs)
        for name, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                # how callbacks of skorch end a training; the user's interruption is another matter
                ours = name in dict(self._default_callbacks)
                ours = ours or isinstance(callback, ComplexityMonitor)
                if not ours and method_name.startswith(("on_epoch", "on_batch")):
                    raise _TrainingEnded from None
                raise
        if method_name == "on_epoch_end" and self._after_epoch is not None:
            self._after_epoch()

    def train_step(self, batch, **fit_params):
        self.n_steps_ += 1
        self._taught = False
        buffers = [(buffer, buffer.clone()) for buffer in self.module_.buffers()]
        try:
            step = super().train_step(batch, **fit_params)
        except FloatingPointError:  # running statistics would stay what the loss is
            for buffer, before in buffers:
                buffer.copy_(before)
            raise
        _, y = unpack_data(batch)
        self.history.record_batch("train_acc", _accuracy(step["y_pred"], y))
        return {"loss": step["task_loss"], "y_pred": step["y_pred"]}

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        X, y = unpack_data(batch)
        gates = None
        if self.complexity is None:
            y_pred = self.infer(X, **fit_params)
        else:
            with self.complexity.relaxed() as found:
                y_pred = self.infer(X, **fit_params)
            gates = found[0]
        task_loss = loss = self.get_loss(y_pred, y, X=X, training=True)
        if gates is not None:
            loss = task_loss + self._penalty(gates, X)
        if not torch.isfinite(loss):
            self._raise_not_finite(X, task_loss)
        loss.backward()
        return {"loss": loss, "task_loss": task_loss, "y_pred": y_pred}

    def _penalty(self, gates, X):
        """Teach the densities, and return the penalty as it goes into the loss."""
        record = self.history.record_batch
        first = not self._taught  # an optimizer may evaluate the loss several times
        if first:
            self._taught = True
            try:
                record("energy_loss", self.complexity.energy_step(gates))
            except FloatingPointError as error:
                raise FloatingPointError(f"{self._where()}{error}") from None
            if len(self.history[-1, "batches"]) == 1:
                self.probe_ = X
        if (self.n_steps_ - 1) % self.penalty_interval:
            return 0.0
        penalties = self.complexity.layer_penalties(gates)
        self._penalties = penalties.tolist()
        if first:
            for name, value in zip(self.complexity.layer_names_, self._penalties, strict=True):
                record(f"penalty_{name}", value)
        return self.lam * penalties.sum()

    def validation_step(self, batch, **fit_params):
        step = super().validation_step(batch, **fit_params)
        _, y = unpack_data(batch)
        self.history.record_batch("valid_acc", _accuracy(step["y_pred"], y))
        return step

    def _where(self):
        return f"Epoch {len(self.history)}, batch {len(self.history[-1, 'batches'])}: "

    def _raise_not_finite(self, X, task_loss):
        where = self._where()
        if torch.isfinite(task_loss):
            values = dict(zip(self.complexity.layer_names_, self._penalties, strict=True))
            # of finite penalties, the largest made their sum or its product with lam overflow
            bad = next((n for n, v in values.items() if not math.isfinite(v)), None)
            bad = bad or max(values, key=lambda name: abs(values[name]))
            raise FloatingPointError(
                f"{where}the penalty of layer {bad!r} is {values[bad]}. Lower energy_lr (now "
                f"{self.complexity.energy_lr}) or lam (now {self.lam})."
            )
        raise FloatingPointError(
            f"{where}the loss is {task_loss.item()}; the first output that is not finite is that "
            f"of layer {_first_not_finite(self.module_, X, self)!r}. Lower lr (now {self.lr}) or "
            f"scale X; a module must give logits, not their exponentials."
        )


def _accuracy(y_pred, y):
    return (y_pred.argmax(1) == y.to(y_pred.device)).double().mean().item()


class _TrainingEnded(KeyboardInterrupt):
    """A callback has ended the training."""


def _first_not_finite(module, X, net):
    """Return the name of the first part of a module whose output is not finite."""
    names = []

    def look(name):
        def hook(part, _, output):
            if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                names.append(name)

        return hook

    parts = [(name, part) for name, part in module.named_modules() if not list(part.children())]
    handles = [part.register_forward_hook(look(name)) for name, part in parts]
    try:
        with eval_mode_without_side_effects(module, train=False, seed=0):
            net.infer(X)
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else "output"


class EpochMeans(Callback):
    """Write what an epoch came to into the history: means over batches, and complexities."""

    def on_epoch_end(self, net, **kwargs):
        batches = net.history[-1]["batches"]
        for key in dict.fromkeys(k for b in batches for k in b):
            if key in ("train_loss", "valid_loss") or key.endswith("_batch_size"):
                continue
            sizes = "valid_batch_size" if key == "valid_acc" else "train_batch_size"
            pairs = [(b[key], b[sizes]) for b in batches if key in b]
            mean = sum(v * n for v, n in pairs) / sum(n for _, n in pairs)
            net.history.record(key, mean)
        row = net.history[-1]
        if "valid_loss" in row:
            net.history.record("loss_gap", float(row["valid_loss"] - row["train_loss"]))
        if net.complexity is not None:
            self._record_complexity(net, row)
        net.n_epochs_ = len(net.history)

    def _record_complexity(self, net, row):
        names = net.complexity.layer_names_
        if f"penalty_{names[0]}" in row:
            net.history.record("penalty", sum(row[f"penalty_{name}"] for name in names))
        entropies, errors = net.complexity.complexity(net.probe_)
        for name, entropy, error in zip(names, entropies.tolist(), errors.tolist(), strict=True):
            net.history.record(f"complexity_{name}", entropy)
            net.history.record(f"complexity_{name}_se", error)
        net.history.record("complexity", float(entropies.sum()))
