"""`PenalizedLayers`: which layers of a module are penalised, and their gates as tensors."""

from functools import partial
from itertools import compress

from ..capture import (
    THRESHOLD,
    GateRecorder,
    GateRelaxation,
    Masks,
    ModuleRunner,
    SampleRows,
    choose_layers,
    with_shapes_in_errors,
    without_positions,
)


class PenalizedLayers:
    """The layers of a module to penalise, found by running it on a few samples.

    ``selection`` is None for the last four; ``samples`` and ``mask`` are as in `ComplexityLoss`.
    ``shapes`` has the shape of the gates of a row, by layer: (channels, height, width), or
    (n_gates,).
    """

    def __init__(self, module, inputs, selection, samples="sample", mask=None):
        with with_shapes_in_errors(inputs):
            record = partial(GateRecorder, sampling="off", smooth=False)
            two, three = ModuleRunner(module, record, train=False, seed=0).dry_run(inputs)
        self._layouts = _choose(two, three, selection, type(module).__name__)
        self._constant_first = {event.layer for event in three if event.constant_is_first}
        self._masks, self._by_position = Masks(module, mask), samples == "position"
        self._rows, self._has_warned = SampleRows(self._layouts, self._masks), False
        if self._by_position:
            missing = without_positions(self._layouts, self._masks, {}, True)
            if missing:
                raise ValueError(f"penalized_layers with samples='position': {missing}.")
        gates = {event.layer: event.gates for event in three}
        self.shapes = {n: tuple(self._shaped(n, gates[n], 3, {}).shape[1:]) for n in self._layouts}

    def _shaped(self, name, gates, n_samples, masks, lengths=()):
        """Return gates as (n_rows, channels, height, width), or (n_rows, n_gates)."""
        layout, mask = self._layouts[name], masks.get(self._masks.side_of(name))
        gates = layout.gates(gates, n_samples, lengths)  # (n_samples, *positions, n_units, ...)
        if self._by_position:
            return gates.flatten(-2)[layout.kept(gates, mask).to(gates.device)]
        gates = layout.masked(gates, mask)
        if layout.layer.spatial and len(layout.grid) == 2:
            return gates.movedim((-2, -1), (1, 2)).flatten(1, 2)
        return layout.by_sample(gates)

    def relaxation(self, module, sharpness):
        """Return the context manager that relaxes and keeps the gates of a run."""
        return GateRelaxation(module, self._layouts, sharpness, self._constant_first)

    def shaped(self, gates, inputs):
        """Return the gates of a run by layer, (n_rows, *shape), after checking their shapes.

        ``inputs`` are those of the run, by name.
        """
        if missing := [name for name in self.shapes if name not in gates]:
            raise ValueError(
                f"The penalised layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        tensors = [value for value in inputs.values() if getattr(value, "ndim", 0)]
        n_samples, lengths = len(tensors[0]), {size for t in tensors for size in t.shape[1:2]}
        masks = self._masks.of(inputs, n_samples)
        if not (self._has_warned or self._by_position):
            self._rows.count(masks)
            self._has_warned = bool(self._rows.n_masked)
            self._rows.warn()
        batch = n_samples, masks, lengths
        shaped = {name: self._shaped(name, gates[name], *batch) for name in self.shapes}
        for name, layer in shaped.items():
            if tuple(layer.shape[1:]) != self.shapes[name]:
                raise ValueError(
                    f"Layer {name!r} has gates of shape {tuple(layer.shape[1:])}, where it had "
                    f"{self.shapes[name]} at first. All samples need one shape, unless "
                    "samples='position'."
                )
        return shaped


def _choose(two, three, selection, module_name):
    """Return the layout of each layer to penalise, from runs on two and three samples."""
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
    return chosen
