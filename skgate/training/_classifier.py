"""`ComplexityRegularizedClassifier`: networks of little complexity, scikit-learn style."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
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

from ..capture import TORCH_LOCK, is_stream
from ..exceptions import warn_user
from ..states import GatingStates
from ..utils.arrays import to_numpy
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
from ._checkpoint import (
    add_outcome,
    check_same_training,
    classifier_state,
    other_settings,
    read_state,
    restore_net,
    restore_outcome,
    restore_run,
    run_state,
    settings,
    write_state,
)
from ._loss import PENALTY_CONSTRAINTS
from ._setup import OPTIMIZERS, batch_size, cast, new_net

__all__ = ["ComplexityRegularizedClassifier"]


class ComplexityRegularizedClassifier(ClassifierMixin, BaseEstimator):
    """Classifier that trains a network with ``task loss + lam * entropy of its gating states``.

    L = L_task + λ Σ H(Σ_l) (Eq. 8), where the task loss is the cross entropy and the sum is over
    the penalised layers. Entropies are those of densities that learn along with the network;
    see :class:`ComplexityLoss`, which has the same penalty for other training loops.

    Parameters
    ----------
    module : None, torch.nn.Module, or callable, default=None
        The network, with one logit a class. A class or function is called as
        ``module(n_features, n_classes)``, or without arguments if it takes none. An instance is
        copied, never changed: each ``fit`` starts from its parameters. ``None`` is a network of
        ``hidden_layer_sizes`` with ReLU, in the precision of ``X``.
    hidden_layer_sizes : tuple of int, default=(256, 128)
        Of the network that ``module=None`` stands for.
    lam : float, default=1e-3
        λ, the weight of the penalty in nats. 0 trains without it.
    penalized_layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to penalise, the last four by default; see :class:`ComplexityLoss`.
    penalty : {"ebm", "product"}, default="ebm"
        Density of the gates: an energy-based model, or independent gates.
    sampler : {"flips", "langevin"}, default="flips"
        What the energy-based model learns from.
    gate_sharpness : float, default=100
        Slope of the gates where they are relaxed, which they are in training only.
    langevin_steps : int, default=5
        Steps of the sampler for each batch.
    langevin_step_size : float, default=1e-3
        Of ``sampler="langevin"``.
    penalty_interval : int, default=1
        Every which batch has the penalty. The paper's code takes 10.
    energy_lr : float, default=1e-3
        Learning rate of the energy-based model.
    optimizer : {"adam", "adamw", "sgd"} or subclass of torch.optim.Optimizer, default="adam"
        Of the network.
    lr : float, default=1e-3
        Learning rate of the network.
    max_epochs : int, default=50
        Epochs to train; with a ``checkpoint``, in all.
    batch_size : int or "auto", default="auto"
        ``"auto"`` is ``min(128, n_samples)``.
    validation_fraction : float or None, default=None
        Share of ``X`` set aside, stratified by class, to follow loss and accuracy on.
    early_stopping : bool, default=False
        Whether to stop when the validation loss has not fallen for 10 epochs, and take the
        parameters of the best. Needs a ``validation_fraction``.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        More callbacks; they see ``net_``.
    checkpoint : str, path or None, default=None
        File that holds the state of the training after each epoch. With ``warm_start=True``,
        ``fit`` on the same data goes on from it if it exists, to the same parameters as a training
        that was never interrupted.
    device : str, default="auto"
        Where to train, as torch names it; ``"auto"`` is where the parameters are.
    random_state : int, RandomState instance or None, default=None
        Seed of initial parameters, order of batches, dropout and the penalty's own random
        numbers. Initial parameters and order do not depend on ``lam``.
    verbose : int, default=0
        Whether to show a progress bar.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the parameters, and all else, of the last one.
    net_params : dict or None, default=None
        More parameters of the skorch net, such as ``{"optimizer__weight_decay": 1e-4}``;
        ``module__...`` go to ``module`` where it is called.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    module_ : torch.nn.Module
        The trained network; it runs as its author wrote it.
    net_ : skorch.NeuralNetClassifier
    history_ : list of dict
        A record an epoch, which ``pandas.DataFrame(history_)`` makes a table of: ``train_loss``
        (of the task) and ``train_acc`` over the batches as they were trained on, ``valid_loss``,
        ``valid_acc`` and ``loss_gap``, the difference of the losses; ``penalty`` and
        ``penalty_<layer>`` in nats, as they are before λ; ``energy_loss``; ``complexity`` and
        ``complexity_<layer>``, the entropy in bits at the end of the epoch on one of its batches,
        by an estimate that is low in expectation, with ``complexity_<layer>_se``.
    penalized_layers_ : list of str
        Names of the penalised layers; empty with ``lam=0``.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only when ``X`` has names of columns.

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
        gate_sharpness=100.0,
        langevin_steps=5,
        langevin_step_size=1e-3,
        penalty_interval=1,
        energy_lr=1e-3,
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
        self.penalty_interval = penalty_interval
        self.energy_lr = energy_lr
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
            What the network takes: images stay images. A network of the user's own gets them in
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
            If the loss is no longer finite; it names batch, layer and what to lower.
        """
        goes_on = self.warm_start and self.__sklearn_is_fitted__()
        if goes_on and self._interrupted and self.checkpoint is not None:
            goes_on = False  # from within an epoch, but from the end of the last one
        with TORCH_LOCK, torch.random.fork_rng(devices=_cuda_devices()):
            with _unchanged_on_error(self):
                X, y = self._check_data(X, y, goes_on)
                data = self._prepare(X, y, goes_on)
            self._train(X, y, data)
        return self

    def _prepare(self, X, y, goes_on):
        """Set ``net_`` up, as it was left or anew; return what tells the data."""
        data = saved = None
        if self.checkpoint is not None:
            data = joblib.hash((X, y))
            if not os.path.isdir(folder := os.path.dirname(os.path.abspath(self.checkpoint))):
                raise FileNotFoundError(
                    f"checkpoint={str(self.checkpoint)!r}: there is no directory {folder}."
                )
        if goes_on:
            if differ := other_settings(self, self._trained_with):
                raise ValueError(
                    f"warm_start goes on with the settings it was trained with, which had another "
                    f"{', '.join(differ)}. Set them as they were; or start a new training from "
                    "these parameters, with warm_start=False and module=classifier.module_."
                )
            return data
        if self.warm_start and self.checkpoint is not None and os.path.exists(self.checkpoint):
            saved = read_state(self.checkpoint)
            check_same_training(self, saved, data)
        self._start(X, partial(batch_size, self, X, y), saved and saved["seed"])
        if saved is not None:
            restore_net(self.net_, saved["net"])
            self._run_state = saved["run"]
        return data

    def _check_data(self, X, y, goes_on):
        """Return X as an array, and labels as positions in ``classes_``."""
        # a network of the user's own may look up integers
        dtype = [np.float64, np.float32] if self.module is None else "numeric"
        X, y = _as_array(X), to_numpy(y)
        X, y = validate_data(self, X, y, dtype=dtype, allow_nd=True, reset=not goes_on)
        check_classification_targets(y)
        classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if goes_on:
            if not np.isin(classes, self.classes_).all():
                raise ValueError(
                    f"y holds the classes {classes.tolist()}; warm_start goes on with "
                    f"{self.classes_.tolist()}. Set warm_start=False."
                )
            self._check_shape(X)
            return X, np.searchsorted(self.classes_, classes)[codes]
        if len(classes) < 2:
            raise ValueError(
                f"y holds 1 class, {classes.tolist()[0]!r}; a classifier needs 2 classes or more."
            )
        self.classes_, self._input = classes, {"shape": X.shape[1:], "dtype": X.dtype.name}
        return X, codes

    def _start(self, X, choose_batch_size, seed=None):
        """Set ``net_`` up with a new network, tried on some samples; nothing is trained."""
        seed = self.random_state if seed is None else seed
        if not isinstance(seed, Integral):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        torch.manual_seed(seed)
        net = new_net(self, X, seed, choose_batch_size)
        self.net_, self._run_state, self._seed, self._interrupted = net, None, seed, False
        self._trained_with = settings(self)

    def _train(self, X, y, data):
        """Train the epochs that are left; write a checkpoint after each."""
        net, done = self.net_, self.net_.n_epochs_ if self.checkpoint is not None else 0
        if done > self.max_epochs:
            warn_user(
                f"checkpoint={str(self.checkpoint)!r} holds {done} epochs, more than "
                f"max_epochs={self.max_epochs}: nothing is trained."
            )
        net.set_params(max_epochs=self.max_epochs)
        bar = tqdm(total=self.max_epochs, initial=done, disable=not self.verbose, unit="epoch")

        def before():
            if self._run_state is not None:
                restore_run(net, self._run_state)

        def after_epoch():
            row = net.history[-1]
            shown = ("train_loss", "valid_loss", "complexity")
            bar.set_postfix({key: row[key] for key in shown if key in row})
            bar.update()
            if self.checkpoint is not None:
                self._run_state = run_state(net)
                write_state(classifier_state(self, data), self.checkpoint)

        self._interrupted, n_steps = True, net.n_steps_
        try:
            with bar:
                net.train(
                    cast(net.module_, X),
                    torch.as_tensor(y),
                    max(0, self.max_epochs - done),
                    before=before,
                    after_epoch=after_epoch,
                )
            self._interrupted = False
            if self.checkpoint is not None:
                add_outcome(net, self.checkpoint)
        finally:
            if net.n_steps_ > n_steps:  # an interrupted training can go on from where it is
                self._run_state = run_state(net)

    def save_params(self, path):
        """Write parameters and all that training goes on from to a file.

        Parameters
        ----------
        path : str or path
            Replaced if it exists, all at once.
        """
        check_is_fitted(self)
        write_state(classifier_state(self, None), path)

    def load_params(self, path):
        """Take parameters from a file that `save_params`, or a checkpoint, is; fits the classifier.

        Nothing in the file is executed. With ``warm_start=True``, ``fit`` goes on from them.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        self : ComplexityRegularizedClassifier
            Which must have the ``module`` and sizes of the one that was saved.

        Raises
        ------
        ValueError
            If the file is something else, or of another module.
        """
        self._validate_params()
        with TORCH_LOCK, torch.random.fork_rng(devices=_cuda_devices()), _unchanged_on_error(self):
            self._load(read_state(path), path)
        return self

    def _load(self, state, path):
        names = ["optimizer"]
        if self.lam and state["net"]["complexity"]:
            names += ["penalty", "sampler"]
        if differ := [name for name in other_settings(self, state["settings"]) if name in names]:
            raise ValueError(
                f"{path} is of another training, with another {', '.join(differ)}. Set them as "
                "they were."
            )
        self.classes_ = np.array(state["classes"], dtype=state["classes_dtype"])
        self.n_features_in_, self._input = state["n_features"], state["input"]
        self._input["shape"] = tuple(self._input["shape"])
        vars(self).pop("feature_names_in_", None)
        if state["feature_names"] is not None:
            self.feature_names_in_ = np.array(state["feature_names"], dtype=object)
        # stand-ins for the data, from which layers and shapes are found
        noise = np.random.default_rng(0).normal(size=(10, *self._input["shape"]))
        X = noise > 0 if np.dtype(self._input["dtype"]).kind in "biu" else noise
        X = X.astype(self._input["dtype"])
        self._start(X, lambda *_: state["batch_size"], state["seed"])
        restore_net(self.net_, state["net"])
        restore_outcome(self.net_, state)
        self._run_state, self._trained_with = state["run"], state["settings"]

    def decision_function(self, X):
        """Return logits, of two classes their difference.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) of two classes
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X):
        """Return the log of `predict_proba`.

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
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, _as_array(X), dtype="numeric", allow_nd=True, reset=False)
        self._check_shape(X)
        with TORCH_LOCK, torch.random.fork_rng(devices=[]):  # from which a loader draws
            return to_numpy(self.net_.forward(cast(self.module_, X))).astype(np.float64)

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
        """A record an epoch."""
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
        complexity = self._fitted_net.complexity
        return [] if complexity is None else list(complexity.layer_names_)

    @property
    def _fitted_net(self):
        try:
            return self.net_
        except AttributeError:  # as of any fitted attribute before fit
            raise AttributeError(f"{type(self).__name__} is not fitted yet.") from None

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@contextlib.contextmanager
def _unchanged_on_error(estimator):
    """Leave an estimator as it was if what it becomes turns out not to fit together."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _as_array(X):
    """Return tensors as arrays; refuse what holds samples in other ways."""
    tuples = isinstance(X, list) and X and isinstance(X[0], tuple) and np.ndim(X[0][0]) > 0
    kinds = isinstance(X, GatingStates | Mapping | Iterator) and not issparse(X)
    if is_stream(X) or tuples or kinds:
        what = "list of tuples" if tuples else type(X).__name__
        raise ValueError(
            f"Got a {what}; need X as one array or tensor of raw inputs, and y as an array of "
            "labels. Stack the samples, or write a training loop with ComplexityLoss."
        )
    return to_numpy(X)


def _cuda_devices():
    return range(torch.cuda.device_count()) if torch.cuda.is_available() else []
