"""A module under watch: a rehearsal to find its layers, then batches to be read."""

import contextlib
import threading

import torch
from tqdm import tqdm

from ..utils.arrays import to_numpy
from ._inputs import Caster, call, first_samples, n_batches, tree_map
from ._recorder import running

__all__ = ["LOCK", "NO_SAMPLES", "Watcher", "each_batch", "noted"]

# Modes and hooks of a module and torch's generator are shared by all threads: one runs at a time.
LOCK = threading.RLock()
NO_SAMPLES = "Found 0 sample(s) in the data while a minimum of 1 is required."


class Watcher:
    """Runs a module and reads what it does to the data.

    Parameters
    ----------
    module : nn.Module
    record : callable
        Takes the module and options, ``report`` among them; returns a recorder, such as a
        `GateRecorder`.
    train : bool
        Whether parts of the module that draw random numbers are to do so.
    seed : int
    """

    def __init__(self, module, record, *, train, seed):
        self.module, self.record, self.train, self.seed = module, record, train, seed

    def rehearse(self, inputs):
        """Return the events of a run on two samples of a batch, and of one on three."""
        inputs = Caster(self.module)(inputs)
        two, three = [], []
        # nothing random may blur what the two runs share
        self._run(first_samples(inputs, 2), self.seed, report=two.append, rehearse=True)
        self._run(first_samples(inputs, 3), self.seed, report=three.append, rehearse=True)
        if [event.layer for event in two] != [event.layer for event in three]:
            raise ValueError(
                "The module runs other operations on two samples than on three, so that its "
                "layers cannot be told. Take data-dependent control flow out of forward."
            )
        return two, three

    def read(self, inputs, batch, convert, *, checked, **options):
        """Return what layers did to a batch, one array a layer.

        Parameters
        ----------
        inputs : raw inputs
        batch : int
            Position of the batch. Each has a seed of its own, so that what it draws does not
            hang on how it was reached.
        convert : dict of str to callable
            The layers to read, and what makes an array of the event of each.
        checked : bool
            Whether the inputs are known to hold no NaN.
        **options
            Of the recorder.
        """
        arrays = {}

        def keep(event):
            if event.layer in convert:
                arrays[event.layer] = convert[event.layer](event)

        inputs = Caster(self.module)(inputs, check=not checked)
        self._run(
            inputs,
            (self.seed + batch) % 2**31,
            report=keep,
            wanted=convert.__contains__,
            **options,
        )
        missing = [name for name in convert if name not in arrays]
        if missing:
            raise ValueError(
                f"Layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        return [arrays[name] for name in convert]

    def _run(self, inputs, seed, **options):
        with running(self.module, train=self.train, seed=seed), self.record(self.module, **options):
            call(self.module, inputs)


def each_batch(batches, consume, *, seed, verbose, desc):
    """Call ``consume(inputs, labels)`` with each batch, the random numbers of torch set aside."""
    with LOCK, torch.random.fork_rng(devices=[]):  # from which a loader draws its order
        torch.manual_seed(seed)
        total, empty = n_batches(batches), True
        for inputs, labels in tqdm(batches, total=total, disable=not verbose, desc=desc):
            consume(inputs, to_numpy(labels))
            empty = False
    if empty:
        raise ValueError(NO_SAMPLES)


@contextlib.contextmanager
def noted(inputs):
    """Note on any error what the inputs looked like."""
    try:
        yield
    except Exception as error:
        shapes = tree_map(lambda a: tuple(a.shape), inputs)
        error.add_note(
            f"This came up on the first samples of a batch of shape {shapes}. If the module raised "
            "it, see that X is what its forward takes."
        )
        raise
