"""The skorch net inside `ComplexityRegularizedClassifier`, and everything that it resumes from."""

import contextlib
import json
import math
from functools import partial

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochTimer, PassthroughScoring
from skorch.dataset import unpack_data

from ..capture import eval_mode_without_side_effects
from ..monitoring import ComplexityMonitor
from ._callbacks import EpochMeans, callback_state, load_callback_state

#: Samples of an epoch, as whole batches, whose complexity is recorded at its end.
N_PROBED = 1000


class PenalizedNet(NeuralNetClassifier):
    """skorch net that trains with ``task loss + lam * penalty``.

    Each batch updates the densities of the gates first, then the network. With ``complexity=None``
    the net trains as its base class does. ``module`` is an instance, which is itself trained.
    """

    def __init__(
        self,
        module,
        *,
        complexity=None,
        penalized_layers=(),
        lam=0.0,
        penalty_interval=1,
        **kwargs,
    ):
        super().__init__(module, **kwargs)
        self.complexity = complexity
        self.penalized_layers = penalized_layers
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
        self._interrupted, self._resume_state = False, None
        return super().initialize()

    def __setstate__(self, state):
        super().__setstate__(state)
        if self.complexity is not None:  # skorch pickles its module apart
            self.complexity.module = self.module_

    def state_dict(self):
        """Return everything needed to resume training: tensors, numbers and text."""
        if self._after_epoch is not None:
            self._resume_state = self._current_resume_state()
        return {
            **self.outcome(),
            "optimizer": self.optimizer_.state_dict(),
            "complexity": self.complexity.state_dict() if self.complexity else {},
            "n_steps": self.n_steps_,
            "resume": self._resume_state,
        }

    def outcome(self):
        """Return the part of `state_dict` that early stopping replaces when training ends.

        It restores the best epoch; a longer training would resume from the last one.
        """
        history = json.dumps(self.history.to_list(), default=float)
        return {"module": self.module_.state_dict(), "history": history}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned into an initialised net."""
        try:
            self.module_.load_state_dict(state["module"])
        except RuntimeError as error:
            raise ValueError(
                f"The file holds the parameters of another module than "
                f"{type(self.module_).__name__} with these settings: {error}"
            ) from error
        self.optimizer_.load_state_dict(state["optimizer"])
        if self.complexity and state["complexity"]:
            self.complexity.load_state_dict(state["complexity"])
        self.history = type(self.history)(json.loads(state["history"]))
        self.n_steps_, self.n_epochs_ = state["n_steps"], len(self.history)
        self._resume_state = state["resume"]

    def _current_resume_state(self):
        devices = {p.device for p in self.module_.parameters() if p.device.type == "cuda"}
        return {
            "callbacks": {name: callback_state(callback) for name, callback in self.callbacks_},
            "rng": torch.get_rng_state(),
            "cuda_rng": {str(device): torch.cuda.get_rng_state(device) for device in devices},
        }

    def _resume(self):
        """Restore the state of callbacks and of torch's random numbers."""
        for name, callback in self.callbacks_:
            if name in self._resume_state["callbacks"]:
                load_callback_state(callback, self._resume_state["callbacks"][name])
        torch.set_rng_state(self._resume_state["rng"])
        for device, rng in self._resume_state["cuda_rng"].items():
            torch.cuda.set_rng_state(rng, device)

    def train(self, X, y, epochs, *, after_epoch):
        """Train from the last state; unlike ``fit``, leave an interruption to the caller.

        ``after_epoch()`` is called after each epoch unless a callback has stopped training.
        """
        self._interrupted, n_steps = True, self.n_steps_
        self.notify("on_train_begin", X=X, y=y)
        if self._resume_state is not None:
            self._resume()
        self._after_epoch = after_epoch
        try:
            with contextlib.suppress(_TrainingEnded):
                self.fit_loop(X, y, epochs)
            self.notify("on_train_end", X=X, y=y)
            self._interrupted = False
        finally:
            self._after_epoch = None
            self._set_training(False)
            del self.history[self.n_epochs_ :]  # of an unfinished epoch
            if self.n_steps_ > n_steps:
                self._resume_state = self._current_resume_state()

    def notify(self, method_name, **kwargs):
        getattr(self, method_name)(self, **kwargs)
        for name, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                # skorch's callbacks stop training so; in our own callbacks, it is the user's Ctrl-C
                ours = name in dict(self._default_callbacks)
                ours = ours or isinstance(callback, ComplexityMonitor)
                if not ours and method_name.startswith(("on_epoch", "on_batch")):
                    raise _TrainingEnded from None
                raise
        if method_name == "on_epoch_end" and self._after_epoch is not None:
            self._after_epoch()

    def train_step(self, batch, **fit_params):
        self.n_steps_ += 1
        self._is_first_evaluation = True  # an optimizer may evaluate the loss several times
        buffers = [(buffer, buffer.clone()) for buffer in self.module_.buffers()]
        try:
            step = super().train_step(batch, **fit_params)
        except FloatingPointError:  # running statistics would stay infinite
            for buffer, before in buffers:
                buffer.copy_(before)
            raise
        _, y = unpack_data(batch)
        self.history.record_batch("train_acc", _accuracy(step["y_pred"], y))
        return {"loss": step["task_loss"], "y_pred": step["y_pred"]}

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        X, y = unpack_data(batch)
        relaxed = self.complexity.relaxed() if self.complexity else contextlib.nullcontext()
        with relaxed as gates:
            y_pred = self.infer(X, **fit_params)
        task_loss = loss = self.get_loss(y_pred, y, X=X, training=True)
        if gates:
            loss = task_loss + self._penalty(gates[0], X)
        if not torch.isfinite(loss):
            self._raise_not_finite(X, task_loss)
        loss.backward()
        return {"loss": loss, "task_loss": task_loss, "y_pred": y_pred}

    def _penalty(self, gates, X):
        """Update the densities, and return the penalty times its weight."""
        record, first = self.history.record_batch, self._is_first_evaluation
        if first:
            self._is_first_evaluation = False
            try:
                record("energy_loss", self.complexity.energy_step(gates))
            except FloatingPointError as error:
                raise FloatingPointError(f"{self._where()}{error}") from None
            if len(self.history[-1, "batches"]) == 1:
                self.probes_, self._n_probed = [], 0
            if self._n_probed < N_PROBED:
                self.probes_.append(X)
                self._n_probed += gates[0].shape[1]
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
            # where all are finite, the largest made their sum, or its product with lam, overflow
            bad = next((n for n, v in values.items() if not math.isfinite(v)), None)
            bad = bad or max(values, key=lambda name: abs(values[name]))
            raise FloatingPointError(
                f"{where}the penalty of layer {bad!r} is {values[bad]}. Lower energy_lr (now "
                f"{self.complexity.energy_lr}) or lam (now {self.lam})."
            )
        raise FloatingPointError(
            f"{where}the loss is {task_loss.item()}; the first output that is not finite is that "
            f"of layer {_first_not_finite(self, X)!r}. Lower lr (now {self.lr}) or scale X; a "
            "module must return logits, not their exponentials."
        )


def _accuracy(y_pred, y):
    return (y_pred.argmax(1) == y.to(y_pred.device)).double().mean().item()


class _TrainingEnded(KeyboardInterrupt):
    """A callback has stopped training."""


def _first_not_finite(net, X):
    """Return the name of the first leaf of the module whose output is not finite."""
    names = []

    def check(name, _leaf, _inputs, output):
        if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
            names.append(name)

    leaves = [(name, m) for name, m in net.module_.named_modules() if not list(m.children())]
    handles = [leaf.register_forward_hook(partial(check, name)) for name, leaf in leaves]
    try:
        with eval_mode_without_side_effects(net.module_, train=False, seed=0):
            net.infer(X)
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else "output"
