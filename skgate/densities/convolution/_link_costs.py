"""What a fit of a link by `LinkFitter` costs, from its shapes."""

import numpy as np

from ._grids import grid_shape
from ._link_fits import JUDGED_GATES, N_JUDGED, largest_window, n_refined
from ._places import PLACES_BYTES, n_places_of
from ._windows import related

# Seconds of one core, measured on an AMD EPYC of 2024, of a multiplication in a matrix product, in
# one that is symmetric, in a convolution, and in a Cholesky factor in double precision.
_PRODUCT, _SYMMETRIC, _CONVOLVED, _CHOLESKY = 2.5e-11, 1.5e-11, 2.5e-11, 1.5e-11
# Of a gate that is counted or drawn; scored; in a fit of curves.
_COUNTED, _SCORED, _CURVE = 5e-9, 1e-8, 1e-7
# Settings that are tried for a term.
_N_TRIED = 5


def link_cost(layers, n_rows, n_fits, max_radius, max_iter):
    """Return seconds of two cores, and bytes, of ``n_fits`` fits and of scoring each row once."""
    shapes = [grid_shape(layer) for layer in layers][::-1]
    if len(shapes) == 2 and not related(*shapes):
        shapes = shapes[:1]
    sizes = [float(np.prod(shape)) for shape in shapes]
    channels, n_places = shapes[0][0], n_rows * sizes[0] / shapes[0][0]
    n_parts, n_terms = max(5, n_fits - 1), len(shapes)
    seconds = n_rows * (_COUNTED * sum(sizes) + n_terms * _SCORED * sizes[0])
    n_bytes = 4.0 * sum(sizes) * (n_parts + 8) + 5e8
    window = largest_window(shapes, max_radius)
    if window is None:
        return seconds / 2, n_bytes
    d, drawn = window.n_features, n_places_of(window, int(n_places))
    n_inner = n_fits / 2 + 1
    # windows: their products, shared or of each training set, and factors
    if window.rank is None:
        seconds += drawn * d**2 * _SYMMETRIC
    else:
        shared = channels + (shapes[1][0] if n_terms > 1 else 0)
        seconds += drawn * shared**2 * _SYMMETRIC
        of_set = window.n_gates * (window.rank * _PRODUCT + 1e-9) + (d - channels) * d * _PRODUCT
        seconds += (n_fits + n_inner) * drawn * of_set
    n_factors = n_terms * (n_fits + _N_TRIED * n_inner)
    seconds += n_factors * _CHOLESKY * d**3 / n_terms
    # choices, and refinements
    judged = min(min(N_JUDGED, drawn / 5) * channels, JUDGED_GATES)
    seconds += n_fits * n_terms * _N_TRIED * judged * (_CURVE + d * _PRODUCT)
    if max_iter:
        refined = min(drawn, n_refined(d, max_iter)) * d * channels
        seconds += n_terms * (n_fits / 4 + n_inner) * 1.2 * max_iter * 2 * refined * _PRODUCT
    # convolutions; the factor 1.2: the positions of a kernel that are masked
    rank, near = (channels, 0) if window.rank is None else (window.rank, window.rank)
    of_place = n_terms * (channels + near + 1.2 * len(window.steps) * rank) * channels
    of_place += window.n_before * channels
    seconds += n_places * of_place * _CONVOLVED
    n_bytes += min(PLACES_BYTES, drawn * window.n_gates) * 1.5 + (n_parts + 12) * 4.0 * d**2
    return seconds / 2, n_bytes
