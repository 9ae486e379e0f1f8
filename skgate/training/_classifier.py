"""`ComplexityRegularizedClassifier`, of which half is the documentation of its parameters."""

import copy
import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real

import joblib
import numpy as np
import torch
from scipy.sparse import issparse
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from tqdm import tqdm

from ..capture import TORCH_LOCK, InputCaster, is_stream
from ..exceptions import warn_user
from ..states import GatingStates
from ..utils.arrays import holds_mappings, keep_integers, real_array, to_numpy
from ..utils.labels import refuse_missing
from ..utils.sklearn import (
    POSITIVE,
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    _fit_context,
    check_is_fitted,
    validate_data,
)
from ._checkpoint import changed_settings, read_checkpoint, read_state, settings_of, write_state
from ._loss import PENALTY_CONSTRAINTS
from ._setup import OPTIMIZERS, batch_size_for, new_net


class ComplexityRegularizedClassifier(ClassifierMixin, BaseEstimator):
    """Classifier that trains a network with ``task loss + lam * entropy of its gating states``.

    L = L_task + λ Σ H(Σ_l) (Eq. 8), where the task loss is the cross entropy and the sum is over
    the penalised layers. The entropies are those of densities that are learned along with the
    network; :class:`ComplexityLoss` is the same penalty for other training loops.

    Parameters
    ----------
    module : None, torch.nn.Module, or callable, default=None
        Network with one logit per class. A class or function is called as
        ``module(n_features, n_classes)``, or without arguments if it takes none. An instance is
        copied, never changed: each ``fit`` starts from its parameters. ``None`` is a network of
        ``hidden_layer_sizes`` with ReLU, in the precision of ``X``.
    hidden_layer_sizes : tuple of int, default=(256, 128)
        Sizes of the hidden layers with ``module=None``.
    lam : float, default=1e-3
        λ, the weight of the penalty in nats. 0 trains without a penalty.
    penalized_layers, penalty, sampler, gate_sharpness
        As in :class:`ComplexityLoss`: the layers, the density of their gates and how it is learned,
        and the slope of the relaxed gates. Gates are relaxed in training only.
    langevin_steps, langevin_step_size, energy_lr
        As in :class:`ComplexityLoss`: steps of the sampler for each batch, their size with
        ``sampler="langevin"``, and the learning rate of the energy-based model.
    penalty_interval : int, default=1
        Apply the penalty every ``penalty_interval`` batches. The paper's code uses 10.
    optimizer : {"adam", "adamw", "sgd"} or subclass of torch.optim.Optimizer, default="adam"
        Optimizer of the network.
    lr : float, default=1e-3
        Learning rate of the network.
    max_epochs : int, default=50
        Number of epochs to train; with a ``checkpoint``, including those before it.
    batch_size : int or "auto", default="auto"
        ``"auto"`` is ``min(128, n_samples)``.
    validation_fraction : float or None, default=None
        Fraction of ``X`` set aside, stratified by class, for a validation loss and accuracy.
    early_stopping : bool, default=False
        Whether to stop when the validation loss has not fallen for 10 epochs, and restore the
        parameters of the best epoch. Needs a ``validation_fraction``.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        Additional callbacks, called with ``net_``.
    checkpoint : str, path or None, default=None
        File to which the state of training is written after each epoch. With ``warm_start=True``,
        ``fit`` on the same data resumes from it and ends with the same parameters as an
        uninterrupted run.
    device : str, default="auto"
        Device to train on, as torch names it; ``"auto"`` is that of the parameters.
    random_state : int, RandomState instance or None, default=None
        Seed of initial parameters, order of batches, dropout and the penalty's own random
        numbers. Initial parameters and order do not depend on ``lam``.
    verbose : int, default=0
        Whether to show a progress bar.
    warm_start : bool, default=False
        Whether ``fit`` resumes from the state of the last ``fit`` or `load_params`.
    net_params : dict or None, default=None
        Additional parameters of the skorch net, such as ``{"optimizer__weight_decay": 1e-4}``;
        ``module__...`` are arguments of a callable ``module``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    module_ : torch.nn.Module
        The trained network; it runs as its author wrote it.
    net_ : skorch.NeuralNetClassifier
    history_ : list of dict
        One record per epoch, for ``pandas.DataFrame(history_)``: ``train_loss`` (of the task) and
        ``train_acc`` over the batches as they were trained on; ``valid_loss``, ``valid_acc`` and
        ``loss_gap``, the difference of the losses; ``penalty`` and ``penalty_<layer>`` in nats,
        without the factor λ; ``energy_loss``; ``complexity`` and ``complexity_<layer>``, the
        entropy in bits at the end of the epoch, in evaluation mode, on its first batches of 1000
        samples or more (:meth:`ComplexityLoss.complexity`), with the standard error
        ``complexity_<layer>_se``. It is between 0 and the number of gates.
    penalized_layers_ : list of str
        Names of the penalised layers; with ``lam=0``, of those that a penalty would be of, if any.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only when ``X`` has column names.

    See Also
    --------
    ComplexityLoss : The penalty, for a training loop of your own.
    GatingEntropy : Measures the complexity of the result: ``GatingEntropy(model=fitted)``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skgate import ComplexityRegularizedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = (X / 16).astype("float32")
    >>> plain, simple = (
    ...     ComplexityRegularizedClassifier(lam=lam, max_epochs=10, random_state=0).fit(X, y)
    ...     for lam in (1e-6, 1e-3)
    ... )
    >>> bool(simple.history_[-1]["complexity"] < plain.history_[-1]["complexity"])
    True
    >>> bool(simple.score(X, y) > 0.9)
    True
    """

    _parameter_constraints = {
        "module": [None, HasMethods("forward"), callable],
        "hidden_layer_sizes": ["array-like"],
        "lam": [Interval(Real, 0, None, closed="left")],
        **PENALTY_CONSTRAINTS,
        "penalty_interval": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), type],
        "lr": [POSITIVE],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [None, Interval(RealNotInt, 0, 1, closed="neither")],
        "early_stopping": ["boolean"],
        "callbacks": [None, list],
        "checkpoint": [None, str, os.PathLike],
        "device": [str],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "net_params": [None, dict],
    }

    def __init__(
        self,
        module=None,
        *,
        hidden_layer_sizes=(256, 128),
        lam=1e-3,
        penalized_layers=None,
        penalty="ebm",
        sampler="flips",
        gate_sharpness=10.0,
        langevin_steps=5,
        langevin_step_size=1e-3,
        energy_lr=3e-3,
        penalty_interval=1,
        optimizer="adam",
        lr=1e-3,
        max_epochs=50,
        batch_size="auto",
        validation_fraction=None,
        early_stopping=False,
        callbacks=None,
        checkpoint=None,
        device="auto",
        random_state=None,
        verbose=0,
        warm_start=False,
        net_params=None,
    ):
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.lam = lam
        self.penalized_layers = penalized_layers
        self.penalty = penalty
        self.sampler = sampler
        self.gate_sharpness = gate_sharpness
        self.langevin_steps = langevin_steps
        self.langevin_step_size = langevin_step_size
        self.energy_lr = energy_lr
        self.penalty_interval = penalty_interval
        self.optimizer = optimizer
        self.lr = lr
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.net_params = net_params

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)
            Inputs of the network: images stay images. A network of the user's own receives them in
            the precision of its parameters.
        y : array-like of shape (n_samples,)
            Class labels of any type, two classes or more.

        Returns
        -------
        self : ComplexityRegularizedClassifier

        Raises
        ------
        ValueError
            Before training: if the data, the output of the network, ``penalized_layers``,
            ``batch_size`` or ``checkpoint`` do not fit together.
        FloatingPointError
            If the loss is no longer finite; the error names the batch, the layer and what to lower.
        """
        resume = self.warm_start and self.__sklearn_is_fitted__()
        if resume and self.net_._interrupted and self.checkpoint is not None:
            resume = False  # the file has the end of the last epoch, not the middle of one
        with (
            TORCH_LOCK,
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            torch.inference_mode(False),  # in which nothing could be trained
        ):
            new = copy.copy(self)  # an error before training leaves the last fit
            X, y = new._check_data(X, y, resume)
            data_hash = None if self.checkpoint is None else joblib.hash((X, y))
            new._prepare(X, y, data_hash, resume)
            X, y = InputCaster(new.module_, device="cpu")(X), torch.as_tensor(y)
            self.__dict__ = vars(new)
            self._train(X, y, data_hash)
        return self

    def _check_data(self, X, y, resume):
        """Return X as an array, and labels as positions in ``classes_``."""
        # a network of the user's own may look up integers
        dtype = [np.float64, np.float32] if self.module is None else "numeric"
        X, y = _as_array(X), to_numpy(y)
        refuse_missing(y)
        checked, y = validate_data(self, X, y, dtype=dtype, allow_nd=True, reset=not resume)
        X = checked if self.module is None else keep_integers(X, checked)
        check_classification_targets(y)
        classes, y_encoded = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if resume:
            if not np.isin(classes, self.classes_).all():
                raise ValueError(
                    f"y holds the classes {classes.tolist()}; warm_start resumes with "
                    f"{self.classes_.tolist()}. Set warm_start=False."
                )
            self._check_shape(X)
            return X, np.searchsorted(self.classes_, classes)[y_encoded]
        if len(classes) < 2:
            raise ValueError(
                f"y holds 1 class, {classes.tolist()[0]!r}; a classifier needs 2 classes or more."
            )
        self.classes_, self._input = classes, {"shape": X.shape[1:], "dtype": X.dtype.name}
        return X, y_encoded

    def _prepare(self, X, y, data_hash, resume):
        """Set ``net_``: the one of the last fit, the one in the checkpoint, or a new one."""
        settings, path = settings_of(self.get_params(deep=False)), self.checkpoint
        folder = os.path.dirname(os.path.abspath(path or "."))
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"checkpoint={str(path)!r}: no directory {folder}.")
        if resume:
            if changed := changed_settings(settings, self._settings):
                raise ValueError(
                    "warm_start resumes with the settings of the last fit, which had another "
                    f"{', '.join(changed)}. Restore them; or start a new training from these "
                    "parameters, with warm_start=False and module=classifier.module_."
                )
            return
        exists = self.warm_start and path is not None and os.path.exists(path)
        saved = read_checkpoint(path, settings, data_hash) if exists else None
        self._start(X, settings, saved and saved["seed"])
        self.net_.batch_size = batch_size_for(self.net_, X, y, self.batch_size)
        if saved is not None:
            self.net_.load_state_dict(saved["net"])

    def _start(self, X, settings, seed=None):
        """Set ``net_`` to a new, untrained net."""
        seed = self.random_state if seed is None else seed
        if not isinstance(seed, Integral):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        torch.manual_seed(seed)
        self.net_ = new_net(self.get_params(deep=False), X, len(self.classes_), seed)
        self._seed, self._settings = seed, settings

    def _train(self, X, y, data_hash):
        """Train the remaining epochs; write a checkpoint after each."""
        net, path = self.net_, self.checkpoint
        n_done = 0 if path is None else net.n_epochs_
        if n_done > self.max_epochs:
            warn_user(
                f"checkpoint={str(path)!r} holds {n_done} epochs, more than "
                f"max_epochs={self.max_epochs}: nothing is trained."
            )
        bar = tqdm(total=self.max_epochs, initial=n_done, disable=not self.verbose, unit="epoch")

        def after_epoch():
            row = net.history[-1]
            shown = ("train_loss", "valid_loss", "complexity")
            bar.set_postfix({key: row[key] for key in shown if key in row})
            bar.update()
            if path is not None:
                write_state(self._state(data_hash), path)

        with bar:
            net.max_epochs = self.max_epochs
            net.train(X, y, max(0, self.max_epochs - n_done), after_epoch=after_epoch)
        if path is not None and os.path.exists(path):
            write_state({**read_state(path), "outcome": net.outcome()}, path)

    def _state(self, data_hash=None):
        """Return everything that a file holds."""
        classes, names = self.classes_, getattr(self, "feature_names_in_", None)
        if (dtype := classes.dtype).kind == "M":
            classes = classes.astype(str)  # a file that is safe to load holds no dates
        return {
            "classes": classes.tolist(),
            "classes_dtype": dtype.str,
            "n_features": self.n_features_in_,
            "feature_names": None if names is None else names.tolist(),
            "input": self._input,
            "batch_size": self.net_.batch_size,
            "settings": settings_of(self.get_params(deep=False)),
            "seed": self._seed,
            "data": data_hash,
            "net": self.net_.state_dict(),
            "outcome": {},
        }

    def save_params(self, path):
        """Write the parameters, and everything needed to resume training, to a file.

        Parameters
        ----------
        path : str or path
            An existing file is replaced, all at once.
        """
        check_is_fitted(self)
        write_state(self._state(), path)

    def load_params(self, path):
        """Load a file that `save_params` wrote, or a checkpoint; the classifier is then fitted.

        Loading executes nothing in the file. With ``warm_start=True``, ``fit`` resumes from it.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        self : ComplexityRegularizedClassifier
            Its ``module`` and sizes must be those of the classifier that was saved.

        Raises
        ------
        ValueError
            If the file is anything else, or of another module.
        """
        self._validate_params()
        state, new = read_state(path), copy.copy(self)
        with TORCH_LOCK, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            new._load(state, path)
        self.__dict__ = vars(new)
        return self

    def _load(self, state, path):
        changed = changed_settings(settings_of(self.get_params(deep=False)), state["settings"])
        has_penalty = self.lam and state["net"]["complexity"]
        needed = ("optimizer", "penalty", "sampler") if has_penalty else ("optimizer",)
        if changed := [name for name in changed if name in needed]:
            raise ValueError(
                f"{path} is of another training, with another {', '.join(changed)}. Restore the "
                "settings that it had."
            )
        self.classes_ = np.array(state["classes"], dtype=state["classes_dtype"])
        self.n_features_in_, self._input = state["n_features"], state["input"]
        vars(self).pop("feature_names_in_", None)
        if state["feature_names"] is not None:
            self.feature_names_in_ = np.array(state["feature_names"], dtype=object)
        # random inputs stand in for the data, to find layers and shapes
        X = np.random.default_rng(0).normal(size=(10, *self._input["shape"]))
        X = X > 0 if np.dtype(self._input["dtype"]).kind in "biu" else X
        self._start(X.astype(self._input["dtype"]), state["settings"], state["seed"])
        self.net_.batch_size = state["batch_size"]
        self.net_.load_state_dict({**state["net"], **state["outcome"]})

    def decision_function(self, X):
        """Return the logits, or their difference for two classes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X):
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
        """
        return log_softmax(self._logits(X), axis=1)

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
        """
        return softmax(self._logits(X), axis=1)

    def predict(self, X):
        """Return the most probable class.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        logits = self._logits(X)  # raises before fit, when there are no classes_
        return self.classes_[logits.argmax(axis=1)]

    def _logits(self, X):
        check_is_fitted(self)
        X = _as_array(X)
        checked = validate_data(self, X, dtype="numeric", allow_nd=True, reset=False)
        X = checked if self.module is None else keep_integers(X, checked)
        self._check_shape(X)
        with TORCH_LOCK, torch.random.fork_rng(devices=[]):  # loaders draw from torch's generator
            logits = self.net_.forward(InputCaster(self.module_, device="cpu")(X))
        return to_numpy(logits).astype(np.float64)

    def _check_shape(self, X):
        if X.shape[1:] != self._input["shape"]:
            raise ValueError(
                f"X holds samples of shape {X.shape[1:]}; the network was trained on samples of "
                f"shape {self._input['shape']}."
            )

    @property
    def module_(self):
        """The trained network."""
        return self._fitted_net.module_

    @property
    def history_(self):
        """One record per epoch."""
        return [
            {
                key: value.item() if isinstance(value, np.generic) else value
                for key, value in row.items()
                if key != "batches" and not key.endswith(("_best", "_batch_count"))
            }
            for row in self._fitted_net.history
        ]

    @property
    def penalized_layers_(self):
        """Names of the penalised layers."""
        return list(self._fitted_net.penalized_layers)

    @property
    def _fitted_net(self):
        if not hasattr(self, "net_"):
            raise AttributeError(f"{type(self).__name__} is not fitted yet.")
        return self.net_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _as_array(X):
    """Return tensors as arrays; refuse other containers of samples."""
    tuples = isinstance(X, list) and X and isinstance(X[0], tuple) and np.ndim(X[0][0]) > 0
    container = isinstance(X, GatingStates | Mapping | Iterator) and not issparse(X)
    if tuples or container or is_stream(X) or holds_mappings(X):
        raise ValueError(
            f"Got a {'list of tuples' if tuples else type(X).__name__}; need X as one array or "
            "tensor of raw inputs, and y as an array of labels. Stack the samples, or write a "
            "training loop with ComplexityLoss."
        )
    return real_array(X)
