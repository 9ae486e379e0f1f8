"""`ModuleRunner`: runs a module and reads its layers, once to find them, then batch by batch."""

import contextlib
import sys
import threading

import torch
from torch import nn

from ..utils.arrays import to_numpy
from ._caster import InputCaster, call, input_device, parameters_of, without_loss
from ._inputs import first_samples, n_samples_in, tree_map

#: All threads share the flags and hooks of a module and torch's generator: one runs at a time.
TORCH_LOCK = threading.RLock()


class ModuleRunner:
    """Runs a module under a tracer and reads the events of its layers.

    ``make_tracer`` takes the module and options, ``report`` among them, and returns a recorder.
    With ``train``, parts of the module that draw random numbers do so.
    """

    def __init__(self, module, make_tracer, *, train, seed):
        self.module, self.make_tracer, self.train, self.seed = module, make_tracer, train, seed

    def dry_run(self, inputs):
        """Return the events of a run on two samples of a batch, and of one on three, in pairs.

        Where an operation ran in one of them only, as experts do that no token is sent to, the
        second list has its event and the first has None.
        """
        two, three = [], []
        # without random numbers, samples that both runs share have the same values in both
        self.trial(first_samples(inputs, 2), report=two.append)
        self.trial(first_samples(inputs, 3), report=three.append)
        names = {event.layer for event in three}
        by_name = {event.layer: event for event in two}
        alone = [event for event in two if event.layer not in names]
        return [by_name.get(e.layer) for e in three] + [None] * len(alone), three + alone

    def trial(self, inputs, **options):
        """Run without random numbers, with options of the recorder."""
        self._run(self._cast(inputs), self.seed, dry_run=True, **options)

    def read(self, inputs, position, convert, *, checked, **options):
        """Return an array for each layer, by name, from a run on a batch.

        ``convert`` holds the functions of (event, n_samples) that make the arrays, by layer. Each
        ``position`` of a batch has its own seed, so that random numbers do not depend on earlier
        batches. ``checked`` inputs are known to hold no NaN; ``options`` are the recorder's.
        """
        arrays, n_samples = {}, n_samples_in(inputs)

        def keep(event):
            if event.layer in convert:
                arrays[event.layer] = convert[event.layer](event, n_samples)

        inputs = self._cast(inputs, check=not checked)
        seed = (self.seed + position) % 2**31
        self._run(inputs, seed, report=keep, wanted=convert.__contains__, **options)
        missing = [name for name in convert if name not in arrays]
        if missing:
            raise ValueError(
                f"Layers {missing} ran on the first samples but not on others. Take "
                "data-dependent control flow out of forward."
            )
        return {name: arrays[name] for name in convert}

    def _cast(self, inputs, **options):
        return InputCaster(self.module)(without_loss(self.module, inputs), **options)

    def _run(self, inputs, seed, **options):
        with (
            TORCH_LOCK,
            eval_mode_without_side_effects(self.module, train=self.train, seed=seed),
            self.make_tracer(self.module, **options),
        ):
            call(self.module, inputs)


def each_batch(batches, *, seed):
    """Yield ``(inputs, labels)`` of each batch, drawn with random numbers of their own.

    The lock and torch's generator, from which a loader draws its order, are taken for each batch
    and given back before it is yielded, so that the caller may stop at any of them. Raises if there
    is no batch.
    """
    batch, state = iter(batches), None
    while True:
        with TORCH_LOCK, torch.random.fork_rng(devices=[]):
            if state is None:
                torch.default_generator.manual_seed(seed)
            else:
                torch.set_rng_state(state)
            found = next(batch, None)
            if found is None:
                break
            state = torch.get_rng_state()
        yield found[0], to_numpy(found[1])
    if state is None:
        raise ValueError("Found 0 sample(s) in the data while a minimum of 1 is required.")


@contextlib.contextmanager
def eval_mode_without_side_effects(module, *, train, seed):
    """Run a module without gradients and from a seed; restore it, and torch, afterwards.

    It runs in evaluation mode. With ``train``, all but its normalisation runs in training mode,
    so that calls such as dropout draw.

    Training flags, buffers and the states of the random number generators are restored after an
    error or an interruption too.
    """
    parts = list(module.modules())
    flags = [(m, m.training) for m in parts]
    buffers = [
        (m, name, b, b.clone())
        for m in parts
        for name, b in m._buffers.items()
        if b is not None and not nn.parameter.is_lazy(b) and not b.is_meta
    ]
    devices = {input_device(parts), *(p.device for p in parameters_of(parts))}
    devices = {device for device in devices if device.type == "cuda"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[d.index for d in devices]))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # or nothing was compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for m, _ in flags:
                training = train and not isinstance(m, nn.modules.batchnorm._NormBase)
                if m.training != training:  # setting attributes of a module takes time
                    m.training = training
            # torch.manual_seed is slow, and seeds devices that fork_rng does not restore
            cuda = [torch.cuda.default_generators[d.index] for d in devices]
            for generator in (torch.default_generator, *cuda):
                generator.manual_seed(seed)
            yield
        finally:
            for m, training in flags:
                if m.training != training:
                    m.training = training
            for m, name, buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                m._buffers[name] = buffer


@contextlib.contextmanager
def with_shapes_in_errors(inputs):
    """Add a note with the shapes of the inputs to any error."""
    try:
        yield
    except Exception as error:
        shapes = tree_map(lambda a: tuple(a.shape), inputs)
        error.add_note(
            f"This came up on the first samples of a batch of shape {shapes}. If the module raised "
            "it, check that X has the shape that its forward takes."
        )
        raise
