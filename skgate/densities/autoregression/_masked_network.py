r"""`MaskedNetwork`: a network with a hidden layer whose logit of a gate depends on those before it.

With :math:`x` the centred gates in the order of the network,

.. math::

    z = a + A x + V \max(0, W x + c),

:math:`A` strictly lower triangular. A hidden unit has a degree :math:`k`: it sees the first
:math:`k` gates, and only later ones see it. Training begins at the linear solution, :math:`V = 0`,
and weights have a penalty, :math:`\lambda` times the sum of their absolute values.
"""

from dataclasses import dataclass

import numpy as np

_LEARNING_RATE, _WARM_UP = 3e-3, 50
#: Penalties of A, W and V, times :math:`\lambda`.
_PENALTIES = (1.0, 0.25, 0.25)
#: How often a network is judged in all its steps, and how often in vain before it ends.
_N_JUDGED, _PATIENCE = 40, 8


@dataclass
class MaskedNetwork:
    """A network that predicts columns from those before them.

    Attributes
    ----------
    order : ndarray of int
        Columns in the order of the network; as many as a has are predicted, the last ones.
    rates : ndarray
        What columns are centred at.
    weights : tuple of ndarray, float32
        a, c, A, W, V, as above; of a linear one a and A alone.
    """

    order: np.ndarray
    rates: np.ndarray
    weights: tuple

    def logits(self, columns):
        """Return the logits, (n_rows, n_predicted), by number of the column."""
        a, c, direct, inward, outward = self.weights
        x = columns.centred(self.rates)[:, self.order].astype(np.float32)
        z = a + x @ direct.T + np.maximum(c + x @ inward.T, 0) @ outward.T
        return z[:, np.argsort(self.order[-len(a) :])].astype(float)


@dataclass
class Schedule:
    """How networks are trained.

    Attributes
    ----------
    n_hidden, n_steps, batch : int
    """

    n_hidden: int
    n_steps: int
    batch: int


def train(columns, start, penalty, schedule, seed, judged=None, stop=None):
    """Return a `MaskedNetwork`, and the number of steps after which it is the best.

    The best on the ``judged`` columns; without them, the network after ``stop`` steps. ``start`` is
    the linear one. torch's own generator and gradient mode have no part in it.
    """
    import torch  # here, since it takes a second that only networks need

    rng = np.random.default_rng(seed)
    weights, masks = _initial(start, schedule.n_hidden, rng)
    weights, masks = ([torch.tensor(w, dtype=torch.float32) for w in x] for x in (weights, masks))
    optimizer = torch.optim.Adam(weights, fused=True)
    data, penalties = _tensors(columns, start), [penalty / len(columns) * p for p in _PENALTIES]

    def network():
        kept = tuple(w.numpy().copy() for w in weights)
        return MaskedNetwork(start.order, start.rates, kept)

    if judged is not None:
        best, found, stop, failures = network(), held_out(network(), judged), 0, 0
    limit = schedule.n_steps if judged is not None else stop
    batches = _batches(len(columns), schedule.batch, rng)
    for step in range(1, limit + 1):
        rate = _LEARNING_RATE * min(1, step / _WARM_UP) * (1 - (step - 1) / schedule.n_steps)
        optimizer.param_groups[0]["lr"] = rate
        rows = torch.from_numpy(next(batches))
        _set_gradients(weights, masks, penalties, *(x if x is None else x[rows] for x in data))
        optimizer.step()
        if judged is not None and step % -(-schedule.n_steps // _N_JUDGED) == 0:
            value = held_out(network(), judged)
            failures += 1
            if value > found:
                best, found, stop, failures = network(), value, step, 0
            if failures == _PATIENCE:
                break
    return (network() if judged is None else best), stop


def held_out(model, columns):
    """Return the mean log p of the columns that a model predicts."""
    logits = model.logits(columns)
    return columns.log_bernoulli(logits, columns.gates.shape[1] - logits.shape[1]).sum() / len(
        columns
    )


def _initial(start, n_hidden, rng):
    """Return the first a, c, A, W, V, and the masks of the last three."""
    a, direct = start.weights
    n_columns = direct.shape[1]
    first, places = n_columns - len(a), np.arange(n_columns)
    degrees = rng.permutation(np.linspace(max(first, 1), n_columns - 1, n_hidden).round())
    inward = rng.normal(size=(n_hidden, n_columns)) / np.sqrt(degrees)[:, None]
    masks = (
        places < places[first:, None],
        places < degrees[:, None],
        places[first:, None] >= degrees,
    )
    weights = a, np.zeros(n_hidden), direct, inward * masks[1], np.zeros((len(a), n_hidden))
    return weights, masks


def _tensors(columns, start):
    """Return the centred gates, the predicted ones and which of these are free (None: all)."""
    import torch

    predicted = start.order[-len(start.weights[0]) :]
    x = torch.tensor(columns.centred(start.rates)[:, start.order], dtype=torch.float32)
    gates = torch.tensor(columns.gates[:, predicted], dtype=torch.float32)
    return x, gates, None if columns.free is None else torch.tensor(columns.free[:, predicted])


def _batches(n, size, rng):
    """Yield rows without end, every row once before any comes again."""
    size = min(size, n)
    while True:
        rows = rng.permutation(n)
        yield from (rows[start : start + size] for start in range(0, n - size + 1, size))


def _set_gradients(weights, masks, penalties, x, gates, free):
    """Set the gradients of the mean loss of a batch with its penalties."""
    a, c, direct, inward, outward = weights
    hidden = (c + x @ inward.T).relu_()
    errors = (a + x @ direct.T).addmm_(hidden, outward.T).sigmoid_().sub_(gates).div_(len(x))
    if free is not None:
        errors *= free
    back = (errors @ outward).mul_(hidden > 0)
    a.grad, c.grad = errors.sum(0), back.sum(0)
    products = (errors, x), (back, x), (errors, hidden)
    for weight, mask, penalty, (left, right) in zip(
        weights[2:], masks, penalties, products, strict=True
    ):
        weight.grad = (left.T @ right).add_(weight.sign(), alpha=penalty).mul_(mask)
