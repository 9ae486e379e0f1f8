"""How many samples go through a module at once, so that a batch takes bounded memory."""

from typing import NamedTuple

import numpy as np

from ..utils.arrays import to_numpy
from ..utils.parallel import slices
from ._inputs import n_samples_in, tree_map

#: Samples that are read, and that go through a module at once if their numbers are few.
MAX_BATCH = 256
#: Bytes of the largest output of a linear operation on a batch; a few of them are in memory at the
#: same time. A larger batch is no faster on a CPU: a ResNet at 224 pixels takes 20 samples at once.
#: A GPU needs more of them to be busy.
MAX_BYTES, MAX_BYTES_ON_GPU = 1 << 26, 1 << 30


class Part(NamedTuple):
    """Samples that run at once: their place in the data and their rows there, and labels."""

    position: int
    start: int
    stop: int
    inputs: object
    labels: object
    rows: np.ndarray
    checked: bool


class LargestOutput:
    """Notes outputs of a run on a few samples, to tell how many samples may run at once."""

    def __init__(self):
        self._share = 0.0  # of the bytes that an output may take

    def note(self, tensor):
        """Note an output."""
        limit = MAX_BYTES if tensor.device.type == "cpu" else MAX_BYTES_ON_GPU
        self._share = max(self._share, tensor.nbytes / limit)

    def samples_at_once(self, n_samples):
        """Return how many samples may run at once, if so many had the outputs that were noted."""
        share = self._share / n_samples
        return MAX_BATCH if share * MAX_BATCH <= 1 else max(1, int(1 / share))


def split(inputs, labels, n_at_once):
    """Yield ``(inputs, labels)`` of parts of a batch.

    Labels that are neither one a sample nor an array for each are None.
    """
    n_samples = n_samples_in(inputs)
    if n_samples <= n_at_once:
        yield inputs, labels
        return
    if labels is not None:
        labels = np.asarray(to_numpy(labels))
        labels = labels.ravel() if labels.size == n_samples else labels
        labels = labels if labels.shape[:1] == (n_samples,) else None
    for part in slices(0, n_samples, n_at_once):
        taken = tree_map(lambda a, part=part: a[part], inputs)
        yield taken, None if labels is None else labels[part]
