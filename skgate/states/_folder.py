"""Folders of memory-mapped arrays that are written batch by batch, for data beyond memory."""

import json
from pathlib import Path

import numpy as np

from ..utils.files import atomic_write

#: Header of a complete folder; it is written last.
HEADER = "header.json"
#: Header and number of rows of an incomplete folder.
PROGRESS = "progress.json"


def map_folder(path):
    """Return the arrays of a complete folder as read-only memory maps, by name, and its header."""
    path = Path(path)
    if not (path / HEADER).exists():
        raise ValueError("it is incomplete or not a folder of arrays")
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in path.glob("*.npy")}
    return arrays, json.loads((path / HEADER).read_text(encoding="utf-8"))


class GrowingFolder:
    """A folder of uint8 arrays that grow by rows; an interrupted run can resume in it.

    ``shapes`` has the final shape of each array; all rows are allocated at once. ``header`` is
    metadata for the reader. ``n_rows`` counts the rows on disk.
    """

    def __init__(self, path, shapes, header):
        self._path, self._header = Path(path), json.loads(json.dumps(header))
        self._path.mkdir(parents=True, exist_ok=True)
        n_rows = next(iter(shapes.values()))[0]
        if self._has(HEADER):
            self.n_rows = n_rows
        elif self._has(PROGRESS):
            self.n_rows = self._read(PROGRESS)["n_rows"]
        elif any(self._path.glob("*.npy")):
            raise ValueError(f"{self._path} holds other arrays. Choose an empty folder.")
        else:
            self.n_rows = 0
        mode = "r+" if self.n_rows else "w+"
        self._arrays = {
            name: np.lib.format.open_memmap(
                self._path / f"{name}.npy", mode, dtype=np.uint8, shape=shape
            )
            for name, shape in shapes.items()
        }

    def _has(self, name):
        """Return whether a file of this run exists; raise if it belongs to another run."""
        if not (self._path / name).exists():
            return False
        found = self._read(name)
        found = found["header"] if name == PROGRESS else found
        if found != self._header:
            raise ValueError(
                f"{self._path} holds {found}; this run writes {self._header}. Choose another "
                "folder, or pass the same module, layers and number of samples."
            )
        return True

    def _read(self, name):
        return json.loads((self._path / name).read_text(encoding="utf-8"))

    def _write(self, name, content):
        with atomic_write(self._path / name) as file:
            file.write(json.dumps(content).encode())

    def add(self, start, rows):
        """Write rows of each array from ``start`` to disk; raise if rows on disk differ."""
        stop = start + len(next(iter(rows.values())))
        on_disk = slice(start, max(start, min(stop, self.n_rows)))
        n_old = on_disk.stop - start
        if any((self._arrays[name][on_disk] != new[:n_old]).any() for name, new in rows.items()):
            raise ValueError(
                f"{str(self._path)!r} holds the states of another module or of other data: samples "
                f"{start} to {on_disk.stop} differ. Choose another folder."
            )
        if on_disk.stop == stop:
            return
        for name, new in rows.items():
            self._arrays[name][on_disk.stop : stop] = new[n_old:]
            self._arrays[name].flush()
        self.n_rows = stop
        self._write(PROGRESS, {"header": self._header, "n_rows": self.n_rows})

    def finish(self):
        """Mark the folder as complete."""
        self._write(HEADER, self._header)
        (self._path / PROGRESS).unlink(missing_ok=True)
