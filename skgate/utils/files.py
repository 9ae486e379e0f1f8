"""Files that are written whole or not at all."""

import contextlib
import os
from pathlib import Path

__all__ = ["written_whole"]


@contextlib.contextmanager
def written_whole(path):
    """Yield a file that takes the name ``path`` when all is written, and is gone otherwise."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
