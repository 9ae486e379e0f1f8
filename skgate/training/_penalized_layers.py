"""`PenalizedLayers`: which layers of a module are penalised, and their gates as tensors."""

from functools import partial
from itertools import compress

from ..capture import (
    THRESHOLD,
    GateRecorder,
    GateRelaxation,
    ModuleRunner,
    choose_layers,
    with_shapes_in_errors,
)


class PenalizedLayers:
    """The layers of a module to penalise, found by running it on a few samples.

    ``selection`` is None for the last four. ``shapes`` has the shape of the gates of a sample, by
    layer: (channels, height, width), or (n_gates,).
    """

    def __init__(self, module, inputs, selection):
        with with_shapes_in_errors(inputs):
            record = partial(GateRecorder, sampling="off", smooth=False)
            two, three = ModuleRunner(module, record, train=False, seed=0).dry_run(inputs)
        self._axes = _choose(two, three, selection, type(module).__name__)
        self._constant_first = {event.layer for event in three if event.constant_is_first}
        gates = {event.layer: event.gates for event in three}
        self.shapes = {n: tuple(self._shaped(n, gates[n]).shape[1:]) for n in self._axes}

    def _shaped(self, name, gates):
        """Return gates as (n_samples, channels, height, width), or (n_samples, n_gates)."""
        rows = self._axes[name].rows(gates)  # (n_samples, ..., gates of a unit)
        if rows.ndim == 5 and rows.shape[2] * rows.shape[3] > 1:
            return rows.movedim(-1, 2).flatten(1, 2)
        return rows.flatten(1)

    def relaxation(self, module, sharpness):
        """Return the context manager that relaxes and keeps the gates of a run."""
        return GateRelaxation(module, self._axes, sharpness, self._constant_first)

    def shaped(self, gates):
        """Return the gates of a run by layer, (n_samples, *shape), after checking their shapes."""
        if missing := [name for name in self.shapes if name not in gates]:
            raise ValueError(
                f"The penalised layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        shaped = {name: self._shaped(name, gates[name]) for name in self.shapes}
        for name, layer in shaped.items():
            if tuple(layer.shape[1:]) != self.shapes[name]:
                raise ValueError(
                    f"Layer {name!r} has gates of shape {tuple(layer.shape[1:])}, where it had "
                    f"{self.shapes[name]} at first. All samples need one shape."
                )
        return shaped


def _choose(two, three, selection, module_name):
    """Return the batch axis of each layer to penalise, from runs on two and three samples."""
    candidates = [event.operation in THRESHOLD and event.gates is not None for event in three]
    two, three = list(compress(two, candidates)), list(compress(three, candidates))
    try:
        chosen, _ = choose_layers(two, three, slice(-4, None) if selection is None else selection)
    except ValueError as error:
        raise ValueError(
            f"penalized_layers: {error} Only ReLU and its relatives can be penalised, whose gates "
            "become sigmoids; not comparisons such as z > 0, top-k, max pooling or dropout."
        ) from None
    if not chosen:
        raise ValueError(
            f"{module_name} has no layer that could be penalised: none of its operations is a ReLU "
            "or a relative, whose gates become sigmoids; comparisons such as z > 0, top-k, max "
            "pooling and dropout do not. Use F.relu or nn.ReLU, or lam=0."
        )
    return {name: layout.batch_axis for name, layout in chosen.items()}
