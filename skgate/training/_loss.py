"""`ComplexityLoss`: the entropy of gating states as a penalty, for any training loop."""

import contextlib
import re
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..capture import (
    TORCH_LOCK,
    InputCaster,
    call,
    eval_mode_without_side_effects,
    inner_module,
    named_arguments,
    require_one_device,
)
from ..utils.sklearn import POSITIVE, Interval, StrOptions, validate_parameter_constraints
from ._penalized_layers import PenalizedLayers
from .energy import GateDensities

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
#: Sharpness with which relaxed gates, and outputs, are those of the plain module.
HARD = 1e30


class RelaxedGates(list):
    """Relaxed gates of one pass: a tensor (n_layers, n_samples, *shape) for each shape."""


class ComplexityLoss:
    """Entropy of the gating states of a network, as a penalty for any training loop.

    The penalty is the sum over layers of -E[log p(gates)], up to the constant log Z (Eq. 9 to 12);
    the density p of the gates is learned along with the network. While the penalty runs the module,
    gates of these layers are relaxed to ``sigmoid(gate_sharpness * z)``, so that there is a
    gradient; otherwise the module runs as its author wrote it.

    Parameters
    ----------
    module : torch.nn.Module
        The network in training. It is not changed.
    penalized_layers : None, str, type, re.Pattern, slice, or sequence of these, default=None
        Layers to penalise, selected as by ``layers`` of :class:`GateExtractor`, among those whose
        gates compare a number with a threshold: ReLU and its relatives, not max pooling or dropout.
        ``None``: the last four, or as many as there are; ``"*"``: all.
    samples : {"sample", "position"}, default="sample"
        What has an entropy: the gates of a sample at all its positions, or, for tokens and feature
        maps, the units at a position. Batches may then have different lengths.
    mask : "auto", None or str, default="auto"
        Input of the module that says which positions are data, as in :class:`GateExtractor`. The
        others do not count if ``samples="position"``. Otherwise their gates are closed, without
        a gradient, and lengths are part of the entropy; a warning says so.
    penalty : {"ebm", "product"}, default="ebm"
        ``"ebm"``: the density is an energy-based model (Eq. 10). ``"product"``: gates are
        independent, which bounds the entropy from above and costs next to nothing.
    sampler : {"flips", "langevin"}, default="flips"
        Source of the samples that the energy-based model is trained against. ``"flips"``:
        persistent chains on binary gates (a discrete Langevin proposal). ``"langevin"``: the
        paper's steps from the data (Eq. 36); they leave the values 0 and 1, and the model mostly
        learns whether gates are binary.
    gate_sharpness : float, default=10
        Slope of the relaxed gates; the paper's code has 100. A batch has more samples near a flat
        threshold than near a steep one, so that its gradient is closer to that of the entropy. A
        relaxed ReLU differs from the plain one by at most 0.28 / gate_sharpness.
    langevin_steps : int, default=5
        Steps of the sampler for each batch.
    langevin_step_size : float, default=1e-3
        Step size of ``sampler="langevin"``; ``"flips"`` adapts its own.
    energy_lr : float, default=3e-3
        Learning rate of the energy-based model.
    random_state : int, RandomState instance or None, default=None
        Seed of the energy-based model and its samples. torch's global generator is not used.

    Attributes
    ----------
    layer_names_ : list of str
        The penalised layers, in the order in which they run; set by the first pass.

    See Also
    --------
    ComplexityRegularizedClassifier : Trains with this penalty.

    Notes
    -----
    If gates have two axes of positions, as after ``nn.Conv2d``, the penalty is divided by their
    number.

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
        samples="sample",
        mask="auto",
        penalty="ebm",
        sampler="flips",
        gate_sharpness=10.0,
        langevin_steps=5,
        langevin_step_size=1e-3,
        energy_lr=3e-3,
        random_state=None,
    ):
        constraints = {
            **PENALTY_CONSTRAINTS,
            "samples": [StrOptions({"sample", "position"})],
            "mask": [None, str],
        }
        options = {name: value for name, value in locals().items() if name in constraints}
        validate_parameter_constraints(constraints, options, type(self).__name__)
        self.module = inner_module(module)
        self.penalized_layers = penalized_layers
        self.samples = samples
        self.mask = mask
        self.penalty = penalty
        self.sampler = sampler
        self.gate_sharpness = gate_sharpness
        self.langevin_steps = langevin_steps
        self.langevin_step_size = langevin_step_size
        self.energy_lr = energy_lr
        self.random_state = random_state

    def find_layers(self, inputs):
        """Find the layers to penalise and initialise their densities.

        The first method that runs the module does this; called earlier, it brings errors earlier.

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
            If ``penalized_layers`` selects no layer that can be penalised; the error lists them.
        """
        _require_autograd()
        require_one_device(self.module)
        with TORCH_LOCK:
            self._layers = PenalizedLayers(
                self.module, inputs, self.penalized_layers, self.samples, self.mask
            )
        self.layer_names_ = list(self._layers.shapes)
        caster = InputCaster(self.module)
        self._densities = GateDensities(
            self._layers.shapes,
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

    def relaxed(self):
        """Relax the gates of the penalised layers while another object runs the module, once.

        The context manager yields a list, which holds the `RelaxedGates` after the block.
        """
        return self._relaxed(self.gate_sharpness)

    @contextlib.contextmanager
    def _relaxed(self, sharpness):
        self._require_layers()
        inputs, found = {}, []

        def keep(module, args, kwargs):
            inputs.update(named_arguments(module, args, kwargs))

        hook = self.module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            relaxation = self._layers.relaxation(self.module, sharpness)
            with TORCH_LOCK, relaxation:
                yield found
        finally:
            hook.remove()
        gates, densities = self._layers.shaped(relaxation.gates, inputs), self._densities
        stacks = (torch.stack([gates[name] for name in g.names]) for g in densities.groups)
        found.append(RelaxedGates(stack.to(densities.dtype) for stack in stacks))

    def run(self, x):
        """Return the output of the module for a batch, and its relaxed gates.

        Parameters
        ----------
        x : tensor, array, dict or tuple of these
            Raw inputs of the module.

        Returns
        -------
        output : Tensor
            Output with relaxed gates in the penalised layers.
        gates : RelaxedGates
            Input of `energy_step` and of the penalty.
        """
        if not hasattr(self, "layer_names_"):
            self.find_layers(x)
        with self.relaxed() as found:
            output = call(self.module, InputCaster(self.module)(x))
        return output, found[0]

    def energy_step(self, x):
        """Update the densities with the gates of a batch; the module is not changed.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these
            As in the penalty itself.

        Returns
        -------
        loss : float
            Mean of f over samples of the model minus that over the batch (Eq. 37), plus an L2
            penalty on f, summed over layers; 0.0 with ``penalty="product"``.

        Raises
        ------
        FloatingPointError
            If the energies are no longer finite.
        """
        _require_autograd()
        with torch.no_grad():
            gates = self._gates(x)
        if not gates[0].shape[1]:
            raise ValueError("Got a batch of 0 samples; need 1 or more.")
        return self._densities.step(self._densities.hard_gates(gates))

    def layer_penalties(self, x):
        """Return the penalty of each layer, in nats.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these

        Returns
        -------
        penalties : Tensor of shape (n_layers,)
            Mean over the batch of -f - log q, divided by the number of positions, with a gradient.
        """
        gates = self._gates(x)
        self._require_batches()
        return self._densities.penalties(gates)

    def _require_batches(self):
        if not self._densities.n_batches:
            raise ValueError("The densities have seen no gates yet. Call energy_step with a batch.")

    def __call__(self, x):
        """Return the penalty, the sum of `layer_penalties`.

        Parameters
        ----------
        x : RelaxedGates, or tensor, array, dict or tuple of these
            Gates that `run` returned, or raw inputs of the module. Raw inputs cost another pass,
            which changes neither its buffers nor the state of the random numbers.

        Returns
        -------
        penalty : Tensor of shape ()
            In nats; multiply it by λ and add it to the task loss.
        """
        return self.layer_penalties(x).sum()

    def _hard_gates(self, x):
        """Return the gates of a batch, as booleans, in the module as it runs by itself."""
        if not hasattr(self, "layer_names_"):
            self.find_layers(x)
        self._require_batches()
        with torch.no_grad(), self._relaxed(HARD) as found:
            call(self.module, InputCaster(self.module)(x))
        if not found[0][0].shape[1]:
            raise ValueError("Got a batch of 0 samples; need 1 or more.")
        return [states > 0.5 for states in found[0]]

    def _gates(self, x):
        if isinstance(x, RelaxedGates):
            _require_autograd(*x)
            return x
        with _without_side_effects(self.module):
            return self.run(x)[1]

    def complexity(self, *batches, n_particles=128):
        """Return the entropy of the gates of each layer under the current densities.

        H = E[-f - log q] + log Z, for the gates of the module as its author wrote it, in evaluation
        mode. The activation rates in q are those of these gates. If independent gates, or the
        shares of the states among the samples, have a smaller cross entropy, that is returned. The
        value is therefore at most the number of gates; and it is at least the entropy of the states
        of the samples, since the estimate of Z contains their exact sum.

        Parameters
        ----------
        *batches : tensor, array, dict or tuple of these
            Raw inputs of the module, in one batch or in several that are measured together.
        n_particles : int, default=128
            Particles of the annealed importance sampling that estimates the rest of Z. The
            estimate of log Z is biased low, and so is the entropy; more particles reduce the bias.
            With few samples it is low, too, since their rates are fitted to them.

        Returns
        -------
        entropies : ndarray of shape (n_layers,)
            In bits.
        standard_errors : ndarray of shape (n_layers,)
            From the estimate of log Z and the mean over samples.

        Raises
        ------
        ValueError
            If there is no batch, or one without samples, or no batch was learned from.
        """
        if not batches:
            raise ValueError("Got no batch; need raw inputs of the module.")
        if not isinstance(n_particles, Integral) or n_particles < 1:
            raise ValueError(f"n_particles needs to be 1 or more, an integer; got {n_particles!r}.")
        with TORCH_LOCK, eval_mode_without_side_effects(self.module, train=False, seed=0):
            gates = [self._hard_gates(x) for x in batches]
            nats = self._densities.entropies(gates, n_particles)
        return tuple(values.cpu().numpy() / np.log(2) for values in nats)

    def state_dict(self):
        """Return everything needed to resume training: tensors, numbers and text."""
        self._require_layers()
        return {"layer_names": self.layer_names_, **self._densities.state_dict()}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned; call `find_layers` first.

        Parameters
        ----------
        state : dict

        Raises
        ------
        ValueError
            If the state is of other layers.
        """
        self._require_layers()
        if state["layer_names"] != self.layer_names_:
            raise ValueError(
                f"The state is of the layers {state['layer_names']}; these are {self.layer_names_}."
            )
        self._densities.load_state_dict(state)

    def _require_layers(self):
        if not hasattr(self, "layer_names_"):
            raise ValueError("The layers are not known yet. Call find_layers with a batch first.")


def _require_autograd(*gates):
    """Raise where torch records nothing that could train a density."""
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in gates):
        raise RuntimeError(
            "ComplexityLoss trains densities, and torch.inference_mode() records nothing to train "
            "them on. Call it outside of that block; torch.no_grad() is fine for evaluation."
        )


@contextlib.contextmanager
def _without_side_effects(module):
    """Run a module on copies of its buffers, and restore torch's random numbers."""
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
