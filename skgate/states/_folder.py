"""Folders of arrays that grow by rows and can be mapped, for what does not fit in memory."""

import json
from pathlib import Path

import numpy as np

from ..utils.files import written_whole

#: Written last: what a folder holds that is whole.
HEADER = "header.json"
#: There until then: what it is going to hold, and how many rows it has.
PROGRESS = "progress.json"


def map_folder(path):
    """Return the arrays of a whole folder, by name, mapped and read only, and its header."""
    path = Path(path)
    if not (path / HEADER).exists():
        raise ValueError("it is not finished, or no folder of arrays")
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in path.glob("*.npy")}
    return arrays, json.loads((path / HEADER).read_text(encoding="utf-8"))


class GrowingFolder:
    """A folder of arrays that grow by rows, where a run that was interrupted goes on.

    Parameters
    ----------
    path : path-like
        Made if it is not there.
    shapes : dict of str to tuple of int
        Shape of each array, of type uint8. All rows are allocated at once.
    header : dict
        What a reader needs to know.

    Attributes
    ----------
    n_rows : int
        Rows that are on disk.
    """

    def __init__(self, path, shapes, header):
        self._path, self._header = Path(path), json.loads(json.dumps(header))
        self._path.mkdir(parents=True, exist_ok=True)
        n_rows = next(iter(shapes.values()))[0]
        if self._holds(HEADER):
            self.n_rows = n_rows
        elif self._holds(PROGRESS):
            self.n_rows = self._read(PROGRESS)["n_rows"]
        elif any(self._path.glob("*.npy")):
            raise ValueError(f"{self._path} holds other arrays. Give a folder that is empty.")
        else:
            self.n_rows = 0
        mode = "r+" if self.n_rows else "w+"
        self._arrays = {
            name: np.lib.format.open_memmap(
                self._path / f"{name}.npy", mode, dtype=np.uint8, shape=shape
            )
            for name, shape in shapes.items()
        }

    def _holds(self, name):
        """Whether a file of this run is there; raise if it is of another one."""
        if not (self._path / name).exists():
            return False
        found = self._read(name)
        found = found["header"] if name == PROGRESS else found
        if found != self._header:
            raise ValueError(
                f"{self._path} holds {found}; this run is about {self._header}. Give another "
                "folder, or the same module, layers and number of samples."
            )
        return True

    def _read(self, name):
        return json.loads((self._path / name).read_text(encoding="utf-8"))

    def _write(self, name, content):
        with written_whole(self._path / name) as file:
            file.write(json.dumps(content).encode())

    def add(self, start, rows):
        """Write rows from ``start`` on, an array a name; they are on disk when this returns.

        Raises
        ------
        ValueError
            If some of them are there already, and are others.
        """
        stop = start + len(next(iter(rows.values())))
        held = slice(start, max(start, min(stop, self.n_rows)))
        n_held = held.stop - start
        if any((self._arrays[name][held] != new[:n_held]).any() for name, new in rows.items()):
            raise ValueError(
                f"{str(self._path)!r} holds the states of another module or of other data, as "
                f"samples {start} to {held.stop} show. Give another folder."
            )
        if held.stop == stop:
            return
        for name, new in rows.items():
            self._arrays[name][held.stop : stop] = new[n_held:]
            self._arrays[name].flush()
        self.n_rows = stop
        self._write(PROGRESS, {"header": self._header, "n_rows": self.n_rows})

    def finish(self):
        """Say that all rows are there."""
        self._write(HEADER, self._header)
        (self._path / PROGRESS).unlink(missing_ok=True)
