"""Flat records of what a measure found, and the lines of files that hold them."""

import json
import math
from pathlib import Path

import numpy as np

from ..exceptions import warn_user
from ._quantities import COLUMNS


def records_of(fitted, *, step=0, name=None):
    """Return the records of a fitted measure, one for each layer and one for the whole network.

    A record is a dict of ``step``, ``measure`` (``name``, or that of the class), ``layer``,
    ``base``, and the quantities that the measure has. The last one, with ``layer`` None, is left
    out if the measure has no values of the whole network. Those of layers have their ``density``,
    if the measure has one.
    """
    names = [*fitted.layer_names_, None]
    rows = [{"density": repr(c.density)} for c in getattr(fitted, "layer_densities_", [])]
    rows += [{} for _ in names[len(rows) :]]
    for key, column in COLUMNS.items():
        values = getattr(fitted, column.layers, None)
        if key.endswith("_corrected") and np.isnan(0.0 if values is None else values).all():
            continue  # only the kernel density has them
        if values is not None:
            for row, value in zip(rows[:-1], values.tolist(), strict=True):
                row[key] = value
        value = column.network and getattr(fitted, column.network, None)
        if value is not None:
            rows[-1][key] = value
    measure, base = name or type(fitted).__name__, float(fitted.base)
    return [
        {"step": step, "measure": measure, "layer": layer, "base": base, **row}
        for layer, row in zip(names, rows, strict=True)
        if row
    ]


def to_lines(records):
    """Return records as lines of JSON, which has no NaN (null) and no infinity (1e999)."""

    def encoded(value):
        if isinstance(value, float) and not math.isfinite(value):
            return "null" if math.isnan(value) else f"{value:+}".replace("inf", "1e999").lstrip("+")
        return json.dumps(value)

    return "".join(
        "{" + ", ".join(f'"{key}": {encoded(value)}' for key, value in record.items()) + "}\n"
        for record in records
    )


def parse_lines(lines):
    """Return the records in lines that `to_lines` made."""
    return [
        {k: math.nan if v is None and k != "layer" else v for k, v in json.loads(line).items()}
        for line in lines
    ]


def read_records(path):
    """Return the records in a file; see `ComplexityMonitor.read`."""
    *lines, torn = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            (record,) = parse_lines([line])
            record["step"], record["measure"], record["layer"]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"Line {number} of {str(path)!r} is no record of a ComplexityMonitor: "
                f"{line[:60]!r}."
            ) from error
        records.append(record)
    if torn:
        warn_user(f"The last line of {str(path)!r} is cut short and was left out: {torn[:60]!r}.")
    return records
