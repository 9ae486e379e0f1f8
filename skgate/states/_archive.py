"""npz archives whose arrays can be mapped into memory."""

import os
import zipfile

import numpy as np

from ..utils.files import atomic_write


def write_members(path, members):
    """Write arrays to an archive."""
    with atomic_write(path) as file:
        np.savez(file, **members)


def read_members(path):
    """Return the arrays of an archive, by name."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def map_members(path):
    """Return the arrays of an archive, by name, as read-only memory maps."""
    # np.load(mmap_mode=...) does not map members of an npz; np.savez stores them uncompressed,
    # so that each is a plain npy file at a known offset.
    members = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"member {info.filename!r} is compressed and cannot be mapped")
            file.seek(info.header_offset + 26)
            name_length = int.from_bytes(file.read(2), "little")
            extra_length = int.from_bytes(file.read(2), "little")
            file.seek(name_length + extra_length, os.SEEK_CUR)
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
            shape, _, dtype = getattr(np.lib.format, reader)(file)
            if dtype.hasobject:
                raise ValueError(f"member {info.filename!r} holds pickled objects")
            members[info.filename.removesuffix(".npy")] = np.memmap(
                path, dtype=dtype, mode="r", offset=file.tell(), shape=shape
            )
    return members
