"""`Passes`: several passes over the same data, each for the gates of a few layers."""

from ..exceptions import warn_user
from ..states import GatingStates
from ..utils.memory import physical_memory
from ._inputs import is_shuffling

#: Bytes of this machine, and those that gating states may take; the rest is for measuring them.
MEMORY = physical_memory()
LIMIT = MEMORY / 2

#: What to do about states that do not fit.
REMEDIES = (
    "Take fewer layers (layers=, exclude=) or samples (max_samples= of a measure), or write the "
    "states to a folder once, by GateExtractor.transform_to, and measure these."
)


def layers_that_fit(n_bytes, wanted):
    """Return the indices of layers that are wanted, and of those that follow and fit beside them.

    ``n_bytes`` are those of all layers.
    """
    fitting = sorted(set(wanted))
    total = sum(n_bytes[index] for index in fitting)
    for index in range(fitting[-1] + 1, len(n_bytes)):
        total += n_bytes[index]
        if total > LIMIT:
            break
        fitting.append(index)
    return fitting


def count_passes(n_bytes):
    """Return in how many passes all pairs of neighbouring layers are read."""
    n_passes, last = 0, 0
    while last < len(n_bytes) - 1:
        last = layers_that_fit(n_bytes, [last, last + 1])[-1]
        n_passes += 1
    return n_passes


def first_pass(names, n_bytes, batches):
    """Return the layers to keep of a first pass, or None for all of them.

    ``n_bytes`` are those of each layer, None if the number of samples is not known. Raises if
    two layers do not fit in memory, or if passes would not see the same rows; warns if there will
    be several.
    """
    if n_bytes is None or (total := sum(n_bytes)) <= LIMIT:
        return None
    needed = (
        f"The gating states of {batches.n_samples} samples take about {gigabytes(total)}, more "
        "than half of this machine's memory"
    )
    for first in range(max(1, len(names) - 1)):
        if sum(n_bytes[first : first + 2]) > MEMORY:
            raise ValueError(
                f"{needed}, and those of layers {names[first : first + 2]} alone exceed it. "
                f"{REMEDIES}"
            )
    if len(names) <= 2:
        return None
    if is_shuffling(batches.X):
        raise ValueError(
            f"{needed}, and a shuffling DataLoader has another order in each pass over the data, "
            f"so that layers cannot be read in turn. Set shuffle=False. {REMEDIES}"
        )
    n_passes = count_passes(n_bytes)
    warn_user(
        f"{needed}. Their layers are read in turn: the module runs {n_passes} times on the data. "
        f"To have it run once: {REMEDIES[0].lower()}{REMEDIES[1:]}"
    )
    return layers_that_fit(n_bytes, range(len(n_bytes))[:2])


def require_room(n_bytes, n_samples):
    """Raise if the states of so many samples, of a number that is not known, are too large."""
    if n_bytes > LIMIT:
        raise ValueError(
            f"The gating states of the first {n_samples} samples take {gigabytes(n_bytes)}, more "
            "than half of this machine's memory, and the number of samples is not known, so that "
            "their layers cannot be read in turn. Pass an array, a Dataset with a length, or a "
            f"DataLoader of such that drops no batch. {REMEDIES}"
        )


def gigabytes(n_bytes):
    """Return a number of bytes as text."""
    return f"{n_bytes / 1e9:.3g} GB"


class Passes:
    """Reads layers of one data set when they are asked for, and keeps the last ones that it read.

    Parameters
    ----------
    run : callable
        Takes indices of layers, runs the module on all data and returns their packed gates, by
        index, and their checksums.
    layers, groups : as those of `GatingStates`
    n_bytes : list of int
        Bytes of each layer.
    kept : dict of int to packed gates
        Layers of the first pass.
    checksums : list of int
        Those of all layers in the first pass.
    """

    def __init__(self, run, layers, groups, n_bytes, kept, checksums):
        self._run, self._layers, self._groups, self._n_bytes = run, layers, groups, n_bytes
        self._kept, self._checksums = kept, checksums

    def __call__(self, indices):
        """Return the states of some layers."""
        if not set(indices) <= self._kept.keys():
            self._read(indices)
        packed = [self._kept[index] for index in indices]
        return GatingStates(packed, [self._layers[index] for index in indices], self._groups)

    def _read(self, indices):
        needed = sum(self._n_bytes[index] for index in set(indices))
        if len(set(indices)) > 2 and needed > LIMIT:
            raise ValueError(
                f"{len(set(indices))} layers were asked for at once, whose gating states take "
                f"about {gigabytes(needed)}, more than half of this machine's memory. Use a "
                f"density that takes layers one by one, such as density='auto'. {REMEDIES}"
            )
        self._kept = {}  # before others take their place
        kept, checksums = self._run(layers_that_fit(self._n_bytes, indices))
        changed = [
            self._layers[index].name
            for index, checksum in checksums.items()
            if checksum != self._checksums[index]
        ]
        if changed:
            raise ValueError(
                f"The gates of layers {changed} are not those of the first pass: the module or the "
                "data have changed since, or the data set draws at random what it yields. Gating "
                f"states that do not fit in memory need the same data in each pass. {REMEDIES}"
            )
        self._kept = kept

    def __getstate__(self):
        return {**vars(self), "_kept": {}}
