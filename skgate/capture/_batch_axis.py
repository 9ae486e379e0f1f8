"""`BatchAxis`: the place of the samples in the tensors of a layer."""

from dataclasses import dataclass, replace

import torch

#: Relative difference of the values of a sample in two batches that bfloat16 may cause; samples
#: in the wrong order differ by about 1.
ROUNDING = 0.1

#: Why a function of parameters alone is no layer.
CONSTANT = "its input does not depend on the batch"
#: Why an operation that the data may skip is no layer.
SKIPPED = "it does not run in every batch"


@dataclass(frozen=True)
class BatchAxis:
    """The axis of a tensor that holds the samples, each ``repeats`` times.

    The repeats of a sample are together if ``sample_major``, as after ``x.reshape(n * t, d)``;
    otherwise all samples follow each other ``repeats`` times.
    """

    axis: int
    repeats: int
    sample_major: bool

    def rows(self, tensor):
        """Return gates, or values, with the samples on the first axis."""
        if self.repeats == 1:
            return tensor.movedim(self.axis, 0)
        n = tensor.shape[self.axis] // self.repeats
        sizes = (n, self.repeats) if self.sample_major else (self.repeats, n)
        return tensor.unflatten(self.axis, sizes).movedim(self.axis + (not self.sample_major), 0)

    def mismatch(self, tensor, n_samples):
        """Return how the rows of a tensor differ in number from the samples, "" if they do not."""
        size = tensor.shape[self.axis] if self.axis < tensor.ndim else 1
        if size == n_samples * self.repeats:
            return ""
        each = f", {self.repeats} a sample" if self.repeats > 1 else ""
        return f"it has {size} rows{each}, in a batch of {n_samples} samples"

    def of_batch(self, tensor, n_samples):
        """Return the same axis, where samples may have another number of positions on it."""
        if self.repeats == 1 or not n_samples:
            return self
        repeats, rest = divmod(tensor.shape[self.axis], n_samples)
        return self if rest or not repeats else replace(self, repeats=repeats)

    def checked_rows(self, layer, tensor, n_samples):
        """Return `rows` of a tensor of a layer, if they are as many as the samples."""
        if mismatch := self.mismatch(tensor, n_samples):
            raise ValueError(
                f"Layer {layer!r} cannot be matched with the samples: {mismatch}. Samples must "
                "all have one shape, and the rows of a layer must not depend on the data."
            )
        return self.rows(tensor)


def find_batch_axis(two, three):
    """Return the `BatchAxis` of an event seen with two and with three samples, or why it has none.

    The axis is the one whose size differs between the runs, since networks put their samples
    first, second, or on one axis with positions; in that case, the values that both runs share
    give their order. If they agree in neither order, there is no such axis. ``two`` is the event
    on samples (a, b), ``three`` on (a, b, c); None stands for a run without it.
    """
    if two is None:
        return None, SKIPPED
    a, b = two.values, three.values
    if a.ndim != b.ndim:
        return None, "its number of axes depends on the batch"
    grown = [axis for axis in range(a.ndim) if a.shape[axis] != b.shape[axis]]
    if not grown:
        return None, CONSTANT
    if len(grown) > 1:
        return None, "more than one of its axes grows with the batch"
    (axis,) = grown
    repeats, rest = divmod(a.shape[axis], 2)
    if rest or b.shape[axis] != 3 * repeats or not a.numel():
        return None, "its axes do not grow in proportion to the batch"
    orders = [BatchAxis(axis, repeats, sample_major) for sample_major in (True, False)]
    gaps = [_gap(order.rows(a), order.rows(b)[:2]) for order in orders]
    if min(gaps) > ROUNDING:
        return None, "its values for two samples change when a third is in the batch"
    return orders[int(gaps[1] < gaps[0])], ""


def _gap(a, b):
    """Return the sum of differences, relative to that of values; equal infinities do not differ."""
    a, b = a.double(), b.double()
    gap = torch.where(a == b, 0, a - b).abs().nansum()
    return float(gap / b[b.isfinite()].abs().sum()) if gap else 0.0
