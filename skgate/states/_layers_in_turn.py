"""`LayersInTurn`: states of which a few layers at a time fit in memory."""

import numpy as np

from ._layered import Layered


class LayersInTurn(Layered):
    """Gating states of which :meth:`select` gets a few layers at a time, from where they come.

    Rows are indexed as those of `GatingStates`, which gets no gates either.

    Parameters
    ----------
    layers : sequence of GateLayer
    groups : ndarray of shape (n_rows,) or None
        As those of `GatingStates`.
    n_rows : int
    read : callable
        Takes indices of layers and returns their `GatingStates`, with these rows.
    """

    def __init__(self, layers, groups, n_rows, read):
        self.layers, self.groups = tuple(layers), groups
        self._n_rows, self._read, self._rows = n_rows, read, None

    def __len__(self):
        return self._n_rows

    def __getitem__(self, rows):
        all_rows = np.arange(len(self)) if self._rows is None else self._rows
        groups = None if self.groups is None else self.groups[rows]
        part = LayersInTurn(self.layers, groups, len(all_rows[rows]), self._read)
        part._rows = all_rows[rows]
        return part

    def select(self, layers):
        """Return the `GatingStates` of selected layers, which are neighbours as a rule.

        Parameters
        ----------
        layers : str, int, slice, or sequence of str or int
            As in :meth:`GatingStates.select`.

        Returns
        -------
        states : GatingStates

        Raises
        ------
        ValueError
            If these are more than two layers, and do not fit in memory.
        """
        states = self._read(self._chosen(layers))
        states = states if self._rows is None else states[self._rows]
        states.groups = self.groups  # which may hold more rows than those that were read
        return states
