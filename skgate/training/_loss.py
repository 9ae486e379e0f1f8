"""`ComplexityLoss`: the entropy of gating states as a penalty, for any training loop."""

import contextlib
import re
from dataclasses import dataclass
from functools import partial
from itertools import compress
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..capture import (
    THRESHOLD,
    TORCH_LOCK,
    GateRecorder,
    GateRelaxation,
    InputCaster,
    ModuleRunner,
    call,
    choose_layers,
    eval_mode_without_side_effects,
    inner_module,
    with_shapes_in_errors,
)
from ..utils.sklearn import POSITIVE, Interval, StrOptions, validate_parameter_constraints
from .energy import GateDensities

__all__ = ["ComplexityLoss"]

#: Constraints on the parameters that the loss and the classifier share.
PENALTY_CONSTRAINTS = {
    "penalized_layers": [None, str, type, re.Pattern, slice, list, tuple, Integral],
    "penalty": [StrOptions({"ebm", "product"})],
    "sampler": [StrOptions({"flips", "langevin"})],
    "gate_sharpness": [POSITIVE],
    "langevin_steps": [Interval(Integral, 1, None, closed="left")],
    "langevin_step_size": [POSITIVE],
    "energy_lr": [POSITIVE],
    "random_state": ["random_state"],
}


@dataclass(frozen=True)
class RelaxedGates:
    """Relaxed gates of one pass: a tensor (n_layers, n_samples, *shape) for each shape."""

    groups: list


class ComplexityLoss:
    """Entropy of the gating states of a network, as a penalty for any training loop.

    The sum over layers of -E[log p(gates)], where p is a density of the gates that learns along
    with the network, up to its constant log Z (Eq. 9 to 12). Gates are relaxed to
    ``sigmoid(gate_sharpness * z)`` in these layers while the penalty runs the module, so that
    there is a gradient; otherwise the module runs as its author wrote it.

    Parameters
    ----------
    module : torch.nn.Module
        The network in training. Nothing about it is changed.
    penalized_layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to penalise, as ``layers`` of :class:`GateExtractor`, among those whose gates compare
        a number with a threshold: ReLU and its relatives. Max pooling and dropout have no such
        gates. ``None``: the last four, or as many as there are; ``"*"``: all.
    penalty : {"ebm", "product"}, default="ebm"
        ``"ebm"``: the density is an energy-based model (Eq. 10). ``"product"``: gates are
        independent, which bounds the entropy from above and costs next to nothing.
    sampler : {"flips", "langevin"}, default="flips"
        What the energy-based model learns from. ``"flips"``: chains on whole gates that go on
        from batch to batch. ``"langevin"``: the paper's steps from the data (Eq. 36); they
        leave the values 0 and 1, and what the model learns is to tell these apart.
    gate_sharpness : float, default=100
        Slope of the relaxed gates.
    langevin_steps : int, default=5
        Steps that the sampler takes each time.
    langevin_step_size : float, default=1e-3
        Of ``"langevin"``. Flips adjust their own.
    energy_lr : float, default=1e-3
        Learning rate of the energy-based model.
    random_state : int, RandomState instance or None, default=None
        Seed of the energy-based model and its samples. They leave torch's own random numbers
        alone.

    Attributes
    ----------
    layer_names_ : list of str
        The penalised layers, in the order in which they run. Known after the first pass.

    See Also
    --------
    ComplexityRegularizedClassifier : Trains with this penalty.

    Notes
    -----
    Of gates with two axes of positions, as those after ``nn.Conv2d``, the penalty is the mean over
    positions. All others count one by one.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgate import ComplexityLoss
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(64, 4)
    >>> y = (X[:, 0] > 0).long()
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    >>> penalty = ComplexityLoss(net, random_state=0)
    >>> for step in range(100):
    ...     output, gates = penalty.run(X)
    ...     _ = penalty.energy_step(gates)
    ...     loss = nn.functional.cross_entropy(output, y) + 0.01 * penalty(gates)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> penalty.layer_names_
    ['1']
    >>> bits, error = penalty.complexity(X)
    >>> bool(bits[0] < 8)
    True
    """

    def __init__(
        self,
        module,
        penalized_layers=None,
        *,
        penalty="ebm",
        sampler="flips",
        gate_sharpness=100.0,
        langevin_steps=5,
        langevin_step_size=1e-3,
        energy_lr=1e-3,
        random_state=None,
    ):
        options = {name: value for name, value in locals().items() if name in PENALTY_CONSTRAINTS}
        validate_parameter_constraints(PENALTY_CONSTRAINTS, options, type(self).__name__)
        self.module = inner_module(module)
        self.penalized_layers = penalized_layers
        self.penalty = penalty
        self.sampler = sampler
        self.gate_sharpness = gate_sharpness
        self.langevin_steps = langevin_steps
        self.langevin_step_size = langevin_step_size
        self.energy_lr = energy_lr
        self.random_state = random_state

    def find_layers(self, inputs):
        """Find the layers to penalise and start their densities.

        Any method that runs the module does it when it is the first; calling it before training
        brings errors early.

        Parameters
        ----------
        inputs : tensor, array, dict or tuple of these
            Raw inputs of the module; three samples are run.

        Returns
        -------
        self : ComplexityLoss

        Raises
        ------
        ValueError
            If ``penalized_layers`` names no layer that can be penalised; the error lists them.
        """
        with TORCH_LOCK, with_shapes_in_errors(inputs):
            record = partial(GateRecorder, sampling="off", smooth=False)
            two, three = ModuleRunner(self.module, record, train=False, seed=0).dry_run(inputs)
        self._layouts = self._choose(two, three)
        self._swapped = {event.layer for event in three if event.constant_is_first}
        self.layer_names_ = list(self._layouts)
        gates = {event.layer: event.gates for event in three}
        shapes = {n: tuple(self._shaped(n, gates[n]).shape[1:]) for n in self.layer_names_}
        caster = InputCaster(self.module)
        self._densities = GateDensities(
            shapes,
            penalty=self.penalty,
            sampler=self.sampler,
            n_steps=self.langevin_steps,
            step_size=self.langevin_step_size,
            lr=self.energy_lr,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            dtype=torch.promote_types(caster.dtype, torch.float32),  # more than half precision
            device=caster.device,
        )
        return self

    def _choose(self, two, three):
        """Return the layout of each layer to penalise."""
        kinds = [event.operation in THRESHOLD and event.gates is not None for event in three]
        two, three = list(compress(two, kinds)), list(compress(three, kinds))
        asked = slice(-4, None) if self.penalized_layers is None else self.penalized_layers
        try:
            chosen, _ = choose_layers(two, three, asked)
        except ValueError as error:
            raise ValueError(
                f"penalized_layers: {error} Only layers whose gates compare a number with a "
                "threshold can be penalised: ReLU and its relatives, no max pooling, no dropout."
            ) from None
        if not chosen:
            raise ValueError(
                f"{type(self.module).__name__} has no layer that could be penalised: none of its "
                "operations compares a number with a threshold, as ReLU and its relatives do. Use "
                "F.relu or nn.ReLU, or lam=0."
            )
        return {name: layout for name, (_, layout) in chosen.items()}

    def _shaped(self, name, gates):
        """Return gates as (n_samples, channels, height, width), or (n_samples, n_gates)."""
        rows = self._layouts[name].rows(gates)  # (n_samples, ..., gates of a unit)
        if rows.ndim == 5 and rows.shape[2] * rows.shape[3] > 1:
            return rows.movedim(-1, 2).flatten(1, 2)
        return rows.flatten(1)

    @contextlib.contextmanager
    def relaxed(self):
        """Relax the gates of the penalised layers while something runs the module, once.

        For where `run` is of no use: another object that calls the module. The context manager
        yields a list, which holds the `RelaxedGates` when the block is done.
        """
        self._found_layers()
        options = self._layouts, self.gate_sharpness, self._swapped
        with TORCH_LOCK, GateRelaxation(self.module, *options) as relaxation:
            found = []
            yield found
        missing = [name for name in self.layer_names_ if name not in relaxation.gates]
        if missing:
            raise ValueError(
                f"The penalised layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        groups = self._densities.groups
        found.append(RelaxedGates([self._stacked(g, relaxation.gates) for g in groups]))

    def _stacked(self, group, gates):
        layers = [self._shaped(name, gates[name]) for name in group.names]
        for name, layer in zip(group.names, layers, strict=True):
            if tuple(layer.shape[1:]) != group.shape:
                raise ValueError(
                    f"Layer {name!r} has gates of shape {tuple(layer.shape[1:])}, where it had "
                    f"{group.shape} at first. All samples need one shape."
                )
        return torch.stack(layers).to(self._densities.dtype)

    def run(self, x):
        """Return what the module makes of ``x``, and its relaxed gates.

        Parameters
        ----------
        x : tensor, array, dict or tuple of these
            Raw inputs of the module, a batch.

        Returns
        -------
        output : Tensor
            Of the module with relaxed gates in the penalised layers.
        gates : RelaxedGates
            For `energy_step` and the penalty itself.
        """
        if not hasattr(self, "layer_names_"):
            self.find_layers(x)
        with self.relaxed() as found:
            output = call(self.module, InputCaster(self.module)(x))
        return output, found[0]

    def energy_step(self, x):
        """Teach the densities the gates of a batch; the module is not changed.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these
            What `run` returned, or raw inputs of the module.

        Returns
        -------
        loss : float
            Mean of f over samples of the model less that over the batch (Eq. 37), and a pull
            of f towards 0, summed over layers; 0.0 with ``penalty="product"``.

        Raises
        ------
        FloatingPointError
            If the energies are no longer finite.
        """
        with torch.no_grad():
            gates = self._gates(x)
        if not gates.groups[0].shape[1]:
            raise ValueError("Got a batch of 0 samples, from which nothing can be learned.")
        return self._densities.learn(self._densities.whole(gates.groups))

    def layer_penalties(self, x):
        """Return the penalty of each layer, in nats.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these

        Returns
        -------
        penalties : Tensor of shape (n_layers,)
            Mean over the batch of -f - log q, over the number of positions; with a gradient.
        """
        gates = self._gates(x)
        self._require_batches()
        return self._densities.penalties(gates.groups)

    def _require_batches(self):
        if not self._densities.n_batches:
            raise ValueError(
                "The densities have seen no gates yet. Call energy_step with each batch, before "
                "the penalty."
            )

    def __call__(self, x):
        """Return the penalty, the sum of `layer_penalties`.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these
            What `run` returned, or raw inputs of the module; these cost another pass through it,
            which leaves its buffers alone and takes the random numbers that come next without
            using them up.

        Returns
        -------
        penalty : Tensor of shape ()
            In nats, to be multiplied by λ and added to the loss of the task.
        """
        return self.layer_penalties(x).sum()

    def _gates(self, x):
        if isinstance(x, RelaxedGates):
            return x
        with _buffers_apart(self.module):
            return self.run(x)[1]

    def complexity(self, x, *, n_particles=128):
        """Return the entropy of the gates of each layer under the densities as they are.

        H = E[-f - log q] + log Z, over samples in evaluation mode with whole gates.

        Parameters
        ----------
        x : tensor, array, dict or tuple of these
            Raw inputs of the module.
        n_particles : int, default=128
            Of the annealed importance sampling that estimates log Z. The estimate is too low in
            expectation, and so is the entropy; more particles bring it nearer.

        Returns
        -------
        entropies : ndarray of shape (n_layers,)
            In bits.
        standard_errors : ndarray of shape (n_layers,)
            Of log Z and of the mean over samples.
        """
        if not isinstance(n_particles, Integral) or n_particles < 1:
            raise ValueError(f"n_particles needs to be 1 or more, an integer; got {n_particles!r}.")
        with TORCH_LOCK, eval_mode_without_side_effects(self.module, train=False, seed=0):
            _, gates = self.run(x)
            self._require_batches()
            gates = self._densities.whole(gates.groups)
            nats = self._densities.entropies(gates, n_particles)
        entropies, errors = (values.cpu().numpy() / np.log(2) for values in nats)
        return entropies, errors

    def state_dict(self):
        """Return all that the penalty goes on from: tensors, numbers and text."""
        return {"layer_names": self._found_layers(), **self._densities.state_dict()}

    def load_state_dict(self, state):
        """Go on from a state that `state_dict` returned; `find_layers` comes first.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ValueError
            If it is of other layers.
        """
        if state["layer_names"] != self._found_layers():
            raise ValueError(
                f"The state is of the layers {state['layer_names']}; these are {self.layer_names_}."
            )
        self._densities.load_state_dict(state)

    def _found_layers(self):
        if not hasattr(self, "layer_names_"):
            raise ValueError("The layers are not known yet. Call find_layers with a batch first.")
        return self.layer_names_


@contextlib.contextmanager
def _buffers_apart(module):
    """Let a module run on copies of its buffers, with random numbers of its own."""
    kept = [(m, name, b) for m in module.modules() for name, b in m._buffers.items()]
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            for m, name, buffer in kept:
                m._buffers[name] = None if buffer is None else buffer.clone()
            yield
        finally:
            for m, name, buffer in kept:
                m._buffers[name] = buffer
