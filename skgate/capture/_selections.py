"""`Selections`: which comparisons and orders of data select data, found out in a first run."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from . import _operations as ops
from ._masks import named_arguments


class Candidate:
    """An operation whose outcome is a layer's gates if it goes on to multiply or select data.

    ``fields`` are those of its event in that case. ``input`` has the numbers of an order, such as
    a top-k. ``thresholds`` are the orders from whose values the threshold of this candidate comes:
    they have the same gates.
    """

    def __init__(self, event, input, fields, thresholds=()):
        self.event, self.input, self.fields, self.thresholds = event, input, fields, thresholds

    def select(self):
        """Make the event what it is once its outcome selects data."""
        self._change(**self.fields)
        for candidate in self.thresholds:
            candidate.drop(f"its values are the threshold of {self.event.layer}")

    def drop(self, reason):
        """Make the event no layer, which is no loss."""
        self._change(gates=None, kind="ordering", reason=reason)

    def _change(self, **fields):
        for name, value in fields.items():
            setattr(self.event, name, value)


class Origin(NamedTuple):
    """What a tensor was computed from.

    ``batch``: inputs of the module; ``learned``: parameters; ``data``: real numbers among the
    inputs, or what parameters make of any. ``outcome_of`` are the candidates of whose outcomes it
    consists, and ``values_of`` those whose largest or smallest values it has. ``places`` are
    indices of rows that were found in the batch, as by a sort, and ``back`` says that they undo
    one. ``moved`` counts how often rows were put where such indices, or a mask, say, or multiplied
    by weights that are ``chosen`` by the data, as an expert's are.
    """

    batch: bool = False
    learned: bool = False
    data: bool = False
    outcome_of: frozenset = frozenset()
    values_of: frozenset = frozenset()
    places: bool = False
    back: bool = False
    moved: int = 0
    chosen: bool = False


class Selections:
    """Follows tensors through a run, from a comparison to the product or choice that uses it.

    A mask may be cast, reshaped, combined with other masks and scaled on its way. ``hide`` is
    called with an operation in which data that are no known comparison select data.
    """

    def __init__(self, module, hide):
        self.hide = hide
        self._candidates, self._made = [], None
        # weak, so that a run needs no more memory than without
        self._origins = WeakTensorKeyDictionary()
        held = _tensors([vars(m) for m in module.modules()])  # buffers and plain attributes
        self._origins.update({_root(x): Origin() for x in held})
        self._origins.update({_root(p): Origin(learned=True) for p in module.parameters()})

    def note_inputs(self, module, args, kwargs):
        """Note the inputs that are called masks: these are no data, whatever their type."""
        for name, value in named_arguments(module, args, kwargs).items():
            if "mask" in str(name):
                self._origins.update({_root(x): Origin(batch=True) for x in _tensors(value)})

    def is_data(self, x):
        """Return whether an operand depends on real numbers of the batch."""
        return isinstance(x, torch.Tensor) and self._origin(x).data

    def any_data(self, *nested):
        """Return whether any of nested operands depends on real numbers of the batch."""
        return any(self.is_data(x) for x in _tensors(nested))

    def knows(self, nested):
        """Return whether all tensors come from operations that were followed."""
        return all(_root(x) in self._origins for x in _tensors(nested))

    def is_outcome(self, x):
        """Return whether an operand is a mask, or another outcome of candidates."""
        return isinstance(x, torch.Tensor) and bool(self._origin(x).outcome_of)

    def is_moved(self, x):
        """Return whether the data put the rows of an operand where they are."""
        return self._origin(x).moved > 0

    def threshold_is_first(self, first, second):
        """Return whether the first of two operands is what the second, data, is compared with."""
        if not (self.is_data(first) and self.is_data(second)):
            return self.is_data(second)
        # such as the k-th largest number
        return bool(self._origin(first).values_of) and not self._origin(second).values_of

    def add(self, event, input, threshold=None, **fields):
        """Take the operation that runs as a `Candidate`, and return it."""
        of = self._origin(threshold).values_of if isinstance(threshold, torch.Tensor) else ()
        self._made = Candidate(event, input, fields, of)
        self._candidates.append(self._made)
        return self._made

    def finish(self):
        """Keep one of several orders of the same numbers that have the same gates.

        A router may take the index from ``argmax`` and the number from ``max``.
        """
        orders = [c for c in self._candidates if c.input is not None and "gates" in c.fields]
        for first, candidate in combinations(
            sorted(orders, key=lambda c: c.event.gates is None), 2
        ):
            same_numbers = candidate.input is first.input and first.event.gates is not None
            if same_numbers and torch.equal(candidate.fields["gates"], first.fields["gates"]):
                candidate.drop(f"its gates are those of {first.event.layer}")

    def follow(self, operation, args, kwargs, run):
        """Run an operation, note what it uses, and what its output comes from."""
        tensors = list(_tensors((args, kwargs)))
        if operation in ops.CASTS:  # the others lend a shape or a type
            tensors = tensors[:1]
        origins = [self._origin(x) for x in tensors]  # before they are overwritten
        self._made = None
        output = run()
        if operation in ops.UNINITIALISED:  # unknown until it is written to
            return output
        if self._made is None:
            origin = Origin()
            if operation not in ops.UNRELATED:
                origin = self._combined(operation, tensors, origins)
        rows = _rows(operation, args, kwargs, tensors, origins)
        for x in _tensors(args[:1] if operation == "__setitem__" else output):
            made = origin if self._made is None else self._result(operation, x)
            places = rows if not x.is_floating_point() else {k: rows[k] for k in _OF_NUMBERS}
            self._origins[_root(x)] = made._replace(**places)
        return output

    def _combined(self, operation, tensors, origins):
        """Select the candidates that an operation uses; return the origin of its output."""
        outcomes = frozenset().union(*(origin.outcome_of for origin in origins))
        numbers = [
            origin
            for x, origin in zip(tensors, origins, strict=True)
            if x.is_floating_point() and x.numel() > 1  # one number scales, and a constant too
            if (origin.data or origin.learned) and not origin.outcome_of
        ]
        if uses := bool(numbers) or operation in ops.LINEAR:
            for candidate in outcomes:
                candidate.select()
            if any(
                x.dtype is torch.bool and origin.data and not origin.outcome_of
                for x, origin in zip(tensors, origins, strict=True)
            ):
                self.hide(operation)
        if operation in ops.SUBTRACTIONS and len(origins) == 2:
            for candidate in origins[1].values_of:
                if candidate.input is tensors[0]:
                    candidate.drop("subtracted from its own input, it shifts all numbers alike")
        batch = any(origin.batch for origin in origins)
        learned = any(origin.learned for origin in origins)
        data = any(origin.data for origin in origins)
        data |= batch and (learned or operation in ops.LINEAR)
        kept = not uses and operation not in ops.REDUCTIONS
        values = frozenset().union(*(origin.values_of for origin in origins))
        return Origin(
            batch=batch,
            learned=learned,
            data=data and operation not in ops.GUARDS,
            outcome_of=outcomes if kept else frozenset(),
            values_of=values if all(origin.values_of for origin in numbers) else frozenset(),
        )

    def _result(self, operation, x):
        """Return the origin of one of the outputs of the last candidate."""
        of = frozenset([self._made])
        if x.is_floating_point() and operation not in ops.COMPARISONS:
            of |= self._origin(self._made.input).values_of
            return Origin(batch=True, data=True, values_of=of)
        return Origin(batch=True, data=True, outcome_of=of)

    def _origin(self, x):
        origin = self._origins.get(_root(x))
        if origin is None:  # an input, or made where nothing is seen: by a kernel or NumPy
            return Origin(batch=True, data=x.is_floating_point())
        return origin


#: What an output of real numbers has of `_rows`.
_OF_NUMBERS = "moved", "chosen"


def _rows(operation, args, kwargs, tensors, origins):
    """Return what the output of an operation has of ``places``, ``back``, ``moved``, ``chosen``."""
    rows = {"places": False, "back": False, "moved": 0, "chosen": False}
    if not tensors or operation in ops.UNRELATED:
        return rows
    rows |= _places(operation, args, kwargs, tensors, origins)
    first, *others = origins
    if operation in ops.GATHERS and first.learned and not first.batch:
        rows["chosen"] = any(  # a single index takes the weights of one expert for all rows
            x.ndim > 0 and (origin.outcome_of or origin.places)
            for x, origin in zip(tensors[1:], others, strict=True)
        )
    elif not others:  # a view or the like
        rows["chosen"] = first.chosen
    elif operation in ops.LINEAR and any(origin.chosen for origin in origins):
        rows["moved"] += any(origin.batch and not origin.chosen for origin in origins)
    return rows


def _places(operation, args, kwargs, tensors, origins):
    """Return what the output of an operation has of ``places``, ``back`` and ``moved``."""
    first = origins[0]
    chooses = [  # a single index takes one row, and leaves the others
        x.ndim > 0 and (o.places or (x.dtype is torch.bool and o.batch))
        for x, o in zip(tensors, origins, strict=True)
    ]
    back = any(origin.back for origin in origins)
    moved = max(origin.moved for origin in origins)
    if operation in ops.SCATTERS and any(chooses[1:]):  # the way back, of places too
        others = zip(origins[1:], chooses[1:], strict=True)
        put = max((origin.moved - 1 for origin, chooses in others if not chooses), default=0)
        written = any(origin.places for origin in origins[1:])
        return {"places": written, "back": written, "moved": max(first.moved, put)}
    if operation in ops.GATHERS and any(chooses[1:]) and first.batch:
        moved = max(first.moved - 1, 0) if back else first.moved + 1
        return {"places": first.places, "back": False, "moved": moved}
    if operation in ops.SORTS and _along_rows(tensors[0], args[1:], kwargs):
        return {"places": first.batch, "back": first.places, "moved": moved + first.batch}
    finds = operation in ops.PLACES or (operation == "where" and len(args) + len(kwargs) == 1)
    places = (finds and first.batch) or any(origin.places for origin in origins)
    return {"places": places, "back": back, "moved": moved}


def _along_rows(x, args, kwargs):
    """Return whether a sort is along the first axis."""
    dims = [a for a in (kwargs.get("dim"), *args[::-1]) if type(a) is int]
    return x.ndim == 1 or (bool(dims) and dims[0] in (0, -x.ndim))


def first_k(x, indices, dim):
    """Return which entries of numbers are the first k along an axis, and the numbers.

    Of one entry, these are the gates of one unit, (*x.shape with 1 on the axis, length of the
    axis), and the number is that entry.
    """
    if indices.shape[dim] == 1:
        positions = torch.arange(x.shape[dim], device=x.device)
        return indices.unsqueeze(-1) == positions, x.gather(dim, indices)
    is_first = torch.zeros_like(x, dtype=torch.bool).scatter_(dim, indices, True)
    return is_first.unsqueeze(-1), x


def _root(x):
    """Return the tensor of which another is a view, since what is written to one is in both."""
    return x if x._base is None else x._base


def _tensors(nested):
    """Yield the tensors in nested arguments or outputs."""
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        yield from _tensors(list(nested.values()))
    elif isinstance(nested, list | tuple):
        for each in nested:
            yield from _tensors(each)
