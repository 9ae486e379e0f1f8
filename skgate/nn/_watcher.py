"""A module under watch: a rehearsal to find its layers, then batches to be packed."""

import contextlib

from ._inputs import Caster, call, first_samples, tree_map
from ._recorder import GateRecorder, running

__all__ = ["Watcher", "noted"]


class Watcher:
    """Runs a module and reads what it does to the data.

    Parameters
    ----------
    module : nn.Module
    sampling : {"on", "off"}
    smooth : bool
    seed : int

    Attributes
    ----------
    layouts : dict of str to Layout
        The layers to pack, once a rehearsal has shown which there are.
    """

    def __init__(self, module, sampling, smooth, seed):
        self.module, self.sampling, self.smooth, self.seed = module, sampling, smooth, seed
        self.layouts, self._swapped = {}, set()

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
        self._swapped = {event.layer for event in three if event.swapped}
        return two, three

    def pack(self, inputs, batch, *, checked):
        """Return the packed gates of a batch, one array a layer.

        Parameters
        ----------
        inputs : raw inputs
        batch : int
            Position of the batch. Each has a seed of its own, so that what it draws does not
            hang on how it was reached.
        checked : bool
            Whether the inputs are known to hold no NaN.
        """
        packed = {}

        def keep(event):
            if event.layer in self.layouts:
                packed[event.layer] = self.layouts[event.layer].packed(event.gates)

        inputs = Caster(self.module)(inputs, check=not checked)
        self._run(
            inputs,
            (self.seed + batch) % 2**31,
            report=keep,
            wanted=self.layouts.__contains__,
            swapped=self._swapped,
        )
        missing = [name for name in self.layouts if name not in packed]
        if missing:
            raise ValueError(
                f"Layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        return [packed[name] for name in self.layouts]

    def _run(self, inputs, seed, **options):
        settings = {"sampling": self.sampling, "smooth": self.smooth}
        with (
            running(self.module, train=self.sampling == "on", seed=seed),
            GateRecorder(self.module, **settings, **options),
        ):
            call(self.module, inputs)


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
