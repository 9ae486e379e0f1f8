"""Input checks of groups, whose samples depend on each other, and their encoding as integers."""

import numpy as np

from .arrays import to_numpy
from .labels import in_own_type, is_missing


def _encoded(groups):
    """Return groups as integers, which stay; raise for labels of several types, or missing ones."""
    # a list of None, numbers and text would become an array of text
    dtype = object if isinstance(groups, list | tuple) else None
    groups = np.asarray(to_numpy(groups), dtype)
    if groups.ndim != 1:
        raise ValueError(
            f"groups needs one label per sample; got an array of shape {groups.shape}. Pass that "
            "of the patient, the video or the image that each sample comes from."
        )
    is_float = groups.dtype.kind == "f"
    if np.isnan(groups).any() if is_float else _misses_labels(groups):
        raise ValueError(
            "groups misses labels (None, NA, NaN or NaT). A sample that depends on no other one "
            "needs a group of its own; leave out samples whose group is not known."
        )
    groups = in_own_type(groups)
    if groups.dtype.kind in "iu":
        return groups
    try:
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        types = sorted({type(group).__name__ for group in groups})
        raise ValueError(
            f"groups holds labels of several types, {types}, which have no order. Convert them to "
            "one type, for example with [str(group) for group in groups]."
        ) from None


def _misses_labels(groups):
    return groups.dtype.kind in "OmM" and any(map(is_missing, groups))


def check_groups(groups, n_rows, samples=None):
    """Return the group of each row as integers; raise unless each sample is in one group.

    With ``samples``, the ``groups`` of `GatingStates`, there is one label a row, or one a sample,
    in the order of ``np.unique(samples)``.
    """
    groups = _encoded(groups)
    if samples is None:
        if len(groups) != n_rows:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: groups has "
                f"{len(groups)} labels for {n_rows} samples. Pass one for each."
            )
        return groups
    names, of_rows = np.unique(samples, return_inverse=True)
    if len(groups) == n_rows:
        n_groups = np.bincount(np.unique([of_rows, groups], axis=1)[0])  # of each sample
        if n_split := np.sum(n_groups > 1):
            raise ValueError(
                f"groups splits {n_split} of the {len(names)} samples in states.groups, whose rows "
                "depend on each other. Pass one label per sample, in the order of "
                "np.unique(states.groups)."
            )
        return groups
    if len(groups) != len(names):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: groups has "
            f"{len(groups)} labels for {len(names)} samples of {n_rows} rows in all. Pass one for "
            "each sample that has rows, in the order of np.unique(states.groups), or one for each "
            "row."
        )
    return groups[of_rows]
