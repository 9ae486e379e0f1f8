r"""Many sets of labels at once: kernel sums over the rows of a class, information of single gates.

Distances are computed once for all sets, a block of columns at a time, so that no n x n matrix is
in memory; each set then is some rows of a matrix product with the block.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import xlogy

from ..states import to_packed
from ..utils.parallel import run, slices
from ..utils.samples import Samples
from ._distances import HammingDistances
from ._tiles import length, pair_bar

#: Kernels are exp(scale * z), where z is how much nearer than the average two rows are.
SCALES = 1, 2
# Beyond, one pair as near would outweigh all others.
_MAX_Z = 4
# The distances whose mean and spread stand for all are those of so many rows from all others.
_N_MEASURED = 128
_BLOCK_BYTES = 1 << 25
_MAX_COLUMNS = 512
_GATES = 2048
# Measured: with more classes, sums over the rows of each take less time than a product with zeros.
_MANY_CLASSES = 16
# Nanoseconds of one core for the product of a pair with a class, and for a gate of a class.
_PRODUCT_COST, _COUNT_COST = 0.03, 5.0


def work_of_class_sums(n_rows, n_ranges, n_sets, n_classes):
    """Return the nanoseconds of one core that `class_sums` take."""
    per_pair = len(SCALES) * n_ranges * n_sets * min(n_classes, _MANY_CLASSES) * _PRODUCT_COST
    return n_rows**2 / 2 * per_pair


def class_sums(states, mask, label_sets, engine):
    r"""Return standardised kernel values summed over the pairs of a class, for sets of labels.

    .. math::

        T_s = \sum_c \frac{1}{n_c} \sum_{j, k \in c}
            \frac{k_s(z_{jk}) - \bar k_s}{\mathrm{sd}(k_s)},
        \qquad k_s(z) = e^{s \min(z, 4)}, \qquad z_{jk} = \frac{\bar D - D_{jk}}{\mathrm{sd}(D)}

    over pairs of rows of different samples.

    Parameters
    ----------
    states : GatingStates
    mask : ndarray of shape (n_ranges, n_layers), dtype bool
        The layers whose distances are added.
    label_sets : ndarray of shape (n_sets, n_rows), dtype int
    engine : Engine

    Returns
    -------
    sums : ndarray of shape (n_scales, n_ranges, n_sets)
        0 where all distances are equal.
    """
    n, points = len(states), HammingDistances(states.packed)
    samples = Samples(states.groups, n).of_rows
    moments = _moments(states, points, mask, samples)
    n_classes = int(label_sets.max()) + 1
    sizes = np.stack([np.bincount(y, minlength=n_classes) for y in label_sets])
    tasks = _blocks_of_columns(n, mask.shape[1])
    shared = points, mask, moments, samples, label_sets, sizes
    work = work_of_class_sums(n, len(mask), len(label_sets), n_classes)
    sums = np.zeros((len(SCALES), len(mask), len(label_sets)))
    results = run(_class_sums_task, shared, tasks, engine.n_jobs, work)
    n_pairs = [length(block) * (n - block.start) for (block,) in tasks]
    with pair_bar(sum(n_pairs), engine.verbose) as bar:
        for found, done in zip(results, n_pairs, strict=True):
            sums += found
            bar.update(done)
    return sums


def own_class_masses(points, weights, label_sets, engine):
    """Return the sums of `kernel_masses` over the rows of the same class, for many sets of labels.

    They are (n_terms, n_sets, n_rows), and not logarithms.
    """
    n, label_sets = len(points), np.asarray(label_sets)
    n_classes = int(label_sets.max()) + 1
    tasks = _blocks_of_columns(n, weights.shape[1])
    shared = points, weights, label_sets, n_classes
    work = n**2 * len(weights) * len(label_sets) * min(n_classes, _MANY_CLASSES) * _PRODUCT_COST
    masses = np.empty((len(weights), *label_sets.shape))
    results = run(_own_class_masses_task, shared, tasks, engine.n_jobs, work)
    with pair_bar(n**2, engine.verbose) as bar:
        for (columns,), found in zip(tasks, results, strict=True):
            masses[..., columns] = found
            bar.update(n * length(columns))
    return masses


def _blocks_of_columns(n_rows, n_layers):
    width = int(np.clip(_BLOCK_BYTES // (8 * n_rows * n_layers), 64, _MAX_COLUMNS))
    return [(block,) for block in slices(0, n_rows, width)]


def _own_class_masses_task(points, weights, label_sets, n_classes, columns):
    """Return the masses of a block of columns."""
    rows = slice(0, len(points))
    distances = _distances(points, points, rows, columns)
    masses = np.empty((len(weights), len(label_sets), length(columns)))
    for term, found in zip(weights, masses, strict=True):
        layers = np.flatnonzero(term)
        kernel = np.exp(-np.tensordot(term[layers], distances[layers].astype(np.float64), 1))
        for some, own in _own_classes(kernel, label_sets, n_classes, rows, columns):
            found[some] = own
    return masses


def _distances(rows, points, some, columns):
    """Return the distances of ``some`` rows from columns, (n_layers, n_rows, n_columns)."""
    found = np.empty((len(points.packed), length(some), length(columns)), np.float32)
    scratch = {}
    for c in slices(columns.start, columns.stop, points.tile_columns):
        place = slice(c.start - columns.start, c.stop - columns.start)
        for layer, tile in enumerate(rows.between(some, points.prepare(c), scratch)):
            found[layer, :, place] = tile
    return found


def _moments(states, points, mask, samples):
    """Return the mean and spread of distances, and of each kernel: (n_ranges, 1 + n_scales, 2)."""
    rows = np.unique(np.linspace(0, len(states) - 1, _N_MEASURED).astype(int))
    queries = points.with_layers(states[rows].packed)
    distances = _distances(queries, points, slice(0, len(rows)), slice(0, len(states)))
    others = samples[rows, None] != samples
    moments = np.zeros((len(mask), 1 + len(SCALES), 2))
    for layers, found in zip(mask, moments, strict=True):
        values = distances[layers].sum(axis=0, dtype=np.float64)[others]
        if values.size and values.std() > 0:
            found[0] = values.mean(), values.std()
            kernels = list(_kernels(values, found))
            found[1:] = [(k.mean(), k.std()) for k in kernels]
    return moments


def _kernels(distances, moments):
    """Yield the kernel of each scale."""
    mean, spread = moments[0].astype(distances.dtype)
    kernel = np.exp(np.minimum((mean - distances) / spread, _MAX_Z))
    yield from (kernel**scale for scale in SCALES)


def _class_sums_task(points, mask, moments, samples, label_sets, sizes, columns):
    """Return the sums over the pairs of a block of columns with the rows from its first one on."""
    rows = slice(columns.start, len(points))
    distances = _distances(points, points, rows, columns)
    weights = np.full((length(rows), 1), 2, np.float32)  # of a pair and its reverse
    weights[: length(columns)] = 1
    weights = weights * (samples[rows, None] != samples[columns])
    sums = np.zeros((len(SCALES), len(mask), len(label_sets)))
    for r, layers in enumerate(mask):
        if moments[r, 0, 1] == 0:
            continue
        kernels = _kernels(distances[layers].sum(axis=0), moments[r])
        for s, (kernel, (mean, spread)) in enumerate(zip(kernels, moments[r, 1:], strict=True)):
            kernel -= np.float32(mean)
            kernel *= weights
            sums[s, r] = _own_class_sums(kernel, label_sets, sizes, rows, columns) / spread
    return sums


def _own_class_sums(kernel, label_sets, sizes, rows, columns):
    """Return the sums of a kernel over the pairs of a class, divided by its size, for each set."""
    sums = np.empty(len(label_sets))
    for some, own in _own_classes(kernel, label_sets, sizes.shape[1], rows, columns):
        labels = label_sets[some, columns].astype(np.intp)
        sums[some] = np.sum(own / np.take_along_axis(sizes[some], labels, axis=1), axis=1)
    return sums


def _own_classes(kernel, label_sets, n_classes, rows, columns):
    """Yield ``(sets, sums)``, the sums of a kernel over the rows of each column's class."""
    step = max(1, _BLOCK_BYTES // (kernel.itemsize * n_classes * sum(kernel.shape)))
    for some in slices(0, len(label_sets), step):
        labels = label_sets[some]
        products = _indicators(labels[:, rows], n_classes, kernel.dtype) @ kernel
        products = products.reshape(len(labels), n_classes, -1)  # (n_sets, n_classes, n_columns)
        own = labels[:, None, columns].astype(np.intp)
        yield some, np.take_along_axis(products, own, axis=1)[:, 0]


def _indicators(labels, n_classes, dtype):
    """Return which rows are of each class of each set, (n_sets * n_classes, n_rows)."""
    if n_classes <= _MANY_CLASSES:
        members = labels[:, None] == np.arange(n_classes, dtype=labels.dtype)[:, None]
        return members.reshape(-1, labels.shape[1]).astype(dtype)
    n_sets, n_rows = labels.shape
    places = labels + n_classes * np.arange(n_sets)[:, None]
    places = places.ravel(), np.tile(np.arange(n_rows), n_sets)
    ones = np.ones(labels.size, dtype)
    return csr_array((ones, places), shape=(n_sets * n_classes, n_rows))


def gate_information(states, label_sets, engine):
    r"""Return 2n times the information of single gates about the label, summed and at most.

    .. math::

        G_i = 2n \, \hat I(\sigma_i; Y) = 2 \sum_{s, c} n_{isc} \log \frac{n \, n_{isc}}{n_{is} n_c}

    from the counts of rows, in nats; also known as the G-statistic.

    Parameters
    ----------
    states : GatingStates
    label_sets : ndarray of shape (n_sets, n_rows), dtype int
    engine : Engine

    Returns
    -------
    sums, largest : ndarray of shape (n_layers, n_sets)
        Over the gates of each layer.
    """
    n_classes = int(label_sets.max()) + 1
    tasks = [
        (layer, bits, gates)
        for layer, bits in enumerate(map(to_packed, states.packed))
        for gates in slices(0, states.n_gates[layer], _GATES)
    ]
    work = _COUNT_COST * n_classes * len(label_sets) * states.shape[1]
    sums, largest = np.zeros((2, len(states.layers), len(label_sets)))
    results = run(_information_task, (label_sets, n_classes), tasks, engine.n_jobs, work)
    for (layer, _, _), (task_sums, task_largest) in zip(tasks, results, strict=True):
        sums[layer] += task_sums
        np.maximum(largest[layer], task_largest, out=largest[layer])
    return sums, largest


def _information_task(label_sets, n_classes, layer, packed, gates):
    """Return the sums and maxima over a slice of the gates of a layer, from distances of bits.

    With ``a`` and ``b`` bits set, of which ``m`` in both, two rows of bits differ in a + b - 2m.
    """
    n, table = len(packed), _n_log_n(len(packed))
    columns = packed[:, gates.start // 8 : -(-gates.stop // 8)]
    by_gate = np.packbits(np.unpackbits(columns, axis=1, count=length(gates)).T, axis=1)
    n_open = np.bitwise_count(by_gate).sum(axis=1, dtype=np.int64)
    points = HammingDistances([by_gate])
    tiles = [(c, points.prepare(c)) for c in slices(0, len(by_gate), points.tile_columns)]
    sums, largest = np.zeros((2, len(label_sets)))
    step = max(1, _BLOCK_BYTES // (n_classes * max(n, 8 * points.tile_columns)))
    for some in slices(0, len(label_sets), step):
        members = label_sets[some, None] == np.arange(n_classes, dtype=label_sets.dtype)[:, None]
        sizes = members.sum(axis=2)[..., None]  # (n_sets, n_classes, 1)
        bits = np.packbits(members, axis=2).reshape(-1, by_gate.shape[1])
        queries, scratch = points.with_layers([bits]), {}
        of_classes = table[n] - table[sizes].sum(axis=1)  # (n_sets, 1)
        for c, prepared in tiles:
            (differ,) = queries.between(slice(0, len(bits)), prepared, scratch)
            differ = differ.reshape(*sizes.shape[:2], -1)
            n_both = (sizes + n_open[c] - differ) // 2  # (n_sets, n_classes, n_gates)
            joint = (table[n_both] + table[sizes - n_both]).sum(axis=1)
            found = 2 * (joint + of_classes - table[n_open[c]] - table[n - n_open[c]])
            sums[some] += found.sum(axis=1)
            np.maximum(largest[some], found.max(axis=1), out=largest[some])
    return sums, largest


def _n_log_n(n):
    counts = np.arange(n + 1)
    return xlogy(counts, counts)
