"""Parts that displays share: axes, colours, units, and checks of records."""

import contextlib

import numpy as np

#: Okabe and Ito's colours without the yellow; colour-blind people can distinguish them.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^v<>"
DASHES = ["-", "--", "-.", ":"]
#: Inches: the width of a column of print.
WIDTH = 3.4
PRINT = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.handlelength": 1.6,
    "lines.markersize": 4,
    "lines.linewidth": 1,
}


@contextlib.contextmanager
def drawing(ax, n=1, *, height, width=WIDTH, shape=None, **shared):
    """Yield a figure and an array of ``n`` axes: the given ones, or new ones with sizes for print.

    ``height`` and ``width`` are those of a new figure, in inches; ``shape`` is the number of rows
    and columns of new axes, one row by default; ``**shared`` goes to `matplotlib.pyplot.subplots`.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Plots need matplotlib: pip install "skgate[plot]".') from error
    if ax is not None:
        given = np.asarray(ax, dtype=object).ravel()
        if len(given) != n:
            raise ValueError(
                f"ax holds {len(given)} axes; {n} are needed. Leave ax out to create them."
            )
        yield given[0].figure, given
        return
    rows, columns = shape or (1, n)
    options = {"figsize": (width, height), "layout": "constrained", "squeeze": False, **shared}
    with plt.rc_context(PRINT):
        figure, new = plt.subplots(rows, columns, **options)
        for spare in new.flat[n:]:
            spare.remove()
        yield figure, new.flat[:n]


def style(i):
    """Return colour, marker and line style of the i-th curve; curves differ in grey, too."""
    cycles = {"color": COLORS, "marker": MARKERS, "linestyle": DASHES}
    return {key: cycle[i % len(cycle)] for key, cycle in cycles.items()}


def unit(base):
    """Return the name of the unit of values."""
    return {2: "bits", np.e: "nats"}.get(base, f"units of log {base:g}")


def check_records(records):
    """Return records as a list; raise if they are not records of a monitor."""
    keys = {"step", "measure", "layer", "base"}
    records = list(records) if isinstance(records, list | tuple) else None
    if not records or not all(isinstance(r, dict) and keys <= r.keys() for r in records):
        raise ValueError(
            "Need records of a ComplexityMonitor, at least one: monitor.history_, or "
            "ComplexityMonitor.read(path)."
        )
    return records


def choose_measure(records, measure, quantities):
    """Return the records of a measure that has some quantities; by default the only such one."""
    having = [r for r in records if quantities <= r.keys()]
    names = list(dict.fromkeys(r["measure"] for r in having))
    if not names:
        there = sorted({key for r in records for key in r} - {"step", "measure", "layer", "base"})
        raise ValueError(f"No record has {sorted(quantities)}; records have {there}.")
    if measure is None and len(names) > 1:
        raise ValueError(f"Several measures have {sorted(quantities)}: {names}. Choose measure=...")
    if measure is not None and measure not in names:
        raise ValueError(f"measure={measure!r} has no {sorted(quantities)}; choose from {names}.")
    return [r for r in having if r["measure"] == (measure or names[0])]


def by_layer(records):
    """Return records by layer, in network order; those of a layer are in the order of steps."""
    layers = {}
    for record in sorted(records, key=lambda record: record["step"]):
        layers.setdefault(record["layer"], []).append(record)
    return layers


def steps_of(records):
    """Return the distinct steps in order."""
    return sorted({record["step"] for record in records})


def column(records, key, missing=np.nan):
    """Return a quantity of all records as an array."""
    return np.array([record.get(key, missing) for record in records], dtype=float)


def hollow(records, flag="saturated"):
    """Return which records are saturated."""
    return np.array([bool(record.get(flag, False)) for record in records])


def points(ax, x, y, records, *, color, marker, flag="saturated", **options):
    """Draw points, hollow ones where saturated; return the filled and the hollow ones."""
    empty = hollow(records, flag)
    common = {"linestyle": "none", "marker": marker, "color": color, "zorder": 3, **options}
    common["clip_on"] = False  # a ceiling may be the edge of the axes
    (full,) = ax.plot(x[~empty], y[~empty], **common)
    (open_,) = ax.plot(x[empty], y[empty], **{**common, "markerfacecolor": "white"})
    return full, open_
