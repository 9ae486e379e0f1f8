"""`Places`: windows at positions drawn at random, and their second moments in any training set."""

from dataclasses import dataclass

import numpy as np

#: Positions at most, bytes of their windows, and multiplications of their second moments.
_N_PLACES, PLACES_BYTES, _WORK = 200_000, 1 << 27, 4e11
#: Rows that share their positions: a mean over them is as cheap as a row.
_GROUP = 100
_CHUNK = 1 << 13


@dataclass
class Places:
    """Windows at positions of some rows.

    Rows come part by part. Rows of a group have the same positions, so that all places of a
    training set are centred at its rates, exactly, by one product of the size of the groups.

    Attributes
    ----------
    window : Window
    gates : ndarray of shape (n_rows, n_places, n_gates), uint8
    free : ndarray of shape (n_rows, n_places, n_channels), bool, or None
        Gates that do not follow from others; None if all.
    parts, groups : ndarray of shape (n_rows,)
    i, j : ndarray of shape (n_groups, n_places)
    """

    window: "Window"  # noqa: F821
    gates: np.ndarray
    free: np.ndarray | None
    parts: np.ndarray
    groups: np.ndarray
    i: np.ndarray
    j: np.ndarray

    @property
    def n_channels(self):
        return self.window.shape[0]

    @property
    def n_places(self):
        """Number of places of a row."""
        return self.gates.shape[1]

    def rows_of(self, parts):
        """Return the rows of some parts."""
        return np.flatnonzero(np.isin(self.parts, parts))

    def centres(self, rates, rates_before):
        """Return the rates of all windows, (n_groups, n_places, n_gates)."""
        before = None if rates_before is None else rates_before[None]
        found = [
            self.window.features(rates[None], before, i, j)[0]
            for i, j in zip(self.i, self.j, strict=True)
        ]
        return np.stack(found).astype(np.float32)

    def centred(self, rows, centres):
        """Return the windows of some rows less their rates, (n_rows * n_places, n_gates)."""
        found = np.empty((len(rows), *self.gates.shape[1:]), np.float32)
        for row, centred in zip(rows, found, strict=True):
            np.subtract(self.gates[row], centres[self.groups[row]], out=centred)
        return found.reshape(-1, found.shape[-1])

    def chunks(self, rows):
        """Yield some rows, a few at a time."""
        step = max(1, _CHUNK // self.gates.shape[1])
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    def targets(self, rows, offsets):
        """Return gates, logits of their rates and whether they are free, (n_places, n_channels)."""
        gates = self.gates[rows][:, :, -self.n_channels :].reshape(-1, self.n_channels)
        of_group = np.stack([offsets[:, i, j].T for i, j in zip(self.i, self.j, strict=True)])
        free = np.ones(gates.shape, bool) if self.free is None else self.free[rows]
        offsets = of_group[self.groups[rows]].reshape(gates.shape)
        return gates, offsets, free.reshape(gates.shape)


def n_places_of(window, n_available):
    """Return how many places are drawn."""
    limits = PLACES_BYTES // window.n_gates, int(_WORK / window.n_features**2)
    return max(1, min(_N_PLACES, n_available, *limits))


def draw_places(window, grids, channels, parts, n_parts, rng):
    """Return `Places` of rows drawn from all parts.

    ``grids`` are of the layer, and perhaps of the one before; ``channels`` those that vary in each.
    """
    _, height, width = window.shape
    n = n_places_of(window, len(parts) * height * width)
    n_places = min(height * width, max(64, n // len(parts)))
    rows = rng.permutation(len(parts))[: max(1, n // n_places)]
    rows = np.sort(rows[np.argsort(parts[rows], kind="stable")])
    n_groups = 1 if n_places == height * width else max(1, len(rows) // _GROUP)
    groups = rng.permutation(np.arange(len(rows)) % n_groups)
    drawn = np.stack([rng.permutation(height * width)[:n_places] for _ in range(n_groups)])
    i, j = np.divmod(drawn, width)
    order = np.lexsort([groups, parts[rows]])
    rows, groups = rows[order], groups[order]
    windows = np.empty((len(rows), n_places, window.n_gates), np.uint8)
    free = np.empty((len(rows), n_places, window.shape[0]), bool)
    for group in range(n_groups):
        inside = np.flatnonzero(groups == group)
        start = 0
        for block, gates in grids[0].blocks(rows[inside], 4):
            at = inside[start : start + len(block)]
            start += len(block)
            before = grids[1].gates(block)[:, channels[1]] if len(grids) > 1 else None
            own = gates[:, channels[0]]
            windows[at] = window.features(own, before, i[group], j[group])
            mask = grids[0].undetermined(gates)
            if mask is not None:
                of_places = mask[:, channels[0]][:, :, i[group], j[group]]
                free[at] = of_places.transpose(0, 2, 1)
    free = None if mask is None else free
    return Places(window, windows, free, parts[rows], groups, i, j)


class Moments:
    """Second moments of some gates of the windows in each part, and centred in any set of parts."""

    def __init__(self, places, columns, n_parts):
        self.columns = columns
        n_groups, n_places = places.i.shape
        d = len(columns)
        self.products = np.zeros((n_parts, d, d), np.float32)  # counts of pairs of open gates
        self.sums = np.zeros((n_parts, n_groups, n_places, d), np.float32)
        self.sizes = np.zeros((n_parts, n_groups), np.float32)
        for part in range(n_parts):
            of_part = places.rows_of([part])
            for group in range(n_groups):
                rows = of_part[places.groups[of_part] == group]
                self.sizes[part, group] = len(rows)
                sums = places.gates[rows].sum(axis=0, dtype=np.int32)
                self.sums[part, group] = sums[:, columns]
            for rows in places.chunks(of_part):
                chunk = places.gates[rows[0] : rows[-1] + 1]  # a part has rows side by side
                if d < chunk.shape[-1]:
                    chunk = chunk[:, :, columns]
                chunk = chunk.reshape(-1, d).astype(np.float32)
                self.products[part] += chunk.T @ chunk

    def centred(self, parts, centres):
        """Return the mean second moments in some parts, centred at rates, (n_columns,) * 2."""
        d = len(self.columns)
        # gates that hardly vary leave a difference far smaller than its terms
        centres = centres[:, :, self.columns].astype(np.float64)
        sizes = self.sizes[parts].sum(axis=0, dtype=np.float64)[:, None, None]
        sums = self.sums[parts].sum(axis=0, dtype=np.float64) - sizes / 2 * centres
        across = sums.reshape(-1, d).T @ centres.reshape(-1, d)
        total = self.products[parts].sum(axis=0, dtype=np.float64)
        total -= across
        total -= across.T
        return total / (sizes.sum() * self.sums.shape[2])
