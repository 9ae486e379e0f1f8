"""Gradient checkpointing: what a module runs again in the backward pass runs as it did before."""

import contextlib
import threading
from types import SimpleNamespace

from torch.utils import checkpoint


class _Checkpoints:
    """The functions of torch that run a region, replaced while a thread needs it.

    ``make_context`` of a thread is called as each of its regions begins, and returns the context
    manager in which the backward pass runs the region again. Regions of other threads run as ever.
    Those with ``use_reentrant=True`` run as those without, which alone record the gradients of
    tensors that are kept from inside a region.
    """

    def __init__(self):
        self._lock, self._n_users, self._local = threading.Lock(), 0, threading.local()

    @property
    def make_context(self):
        return getattr(self._local, "make_context", None)

    @contextlib.contextmanager
    def recompute_within(self, make_context):
        outer = self.make_context
        with self._lock:
            if not self._n_users:
                self._replace()
            self._n_users += 1
        try:
            self._local.make_context = make_context
            yield
        finally:
            self._local.make_context = outer
            with self._lock:
                self._n_users -= 1
                if not self._n_users:
                    _set(self._kept.items())

    def _replace(self):
        self._kept = {
            name: getattr(checkpoint, name)
            for name in ("_checkpoint_without_reentrant_generator", "CheckpointFunction")
        }
        begin, reentrant = self._kept.values()

        def begin_within(function, preserve_rng_state, context_fn, *args, **kwargs):
            contexts = context_fn if self.make_context is None else self._contexts(context_fn)
            return begin(function, preserve_rng_state, contexts, *args, **kwargs)

        def apply(function, preserve_rng_state, *args):
            if self.make_context is None:
                return reentrant.apply(function, preserve_rng_state, *args)
            options = {"use_reentrant": False, "preserve_rng_state": preserve_rng_state}
            return checkpoint.checkpoint(function, *args, **options)

        _set(zip(self._kept, (begin_within, SimpleNamespace(apply=apply)), strict=True))

    def _contexts(self, context_fn):
        def contexts():
            first, again = context_fn()
            return first, _both(again, self.make_context())

        return contexts


def _set(functions):
    for name, function in functions:
        setattr(checkpoint, name, function)


@contextlib.contextmanager
def _both(outer, inner):
    with outer, inner:
        yield


recompute_within = _Checkpoints().recompute_within
