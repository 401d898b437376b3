"""Rows of vectors in a .npy file, local or in an object store: only those that are asked for, and never a pickle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage


@dataclass(frozen=True, slots=True)
class VectorFile:
    """One .npy file."""

    name: str
    offset_bytes: int
    """Where its numbers begin."""
    dtype: str
    num_rows: int
    dim: int


def read_header(storage: Storage, name: str, size_bytes: int) -> VectorFile:
    """Read what a .npy file says of itself, and compare that with its size.

    Raises:
        ArtifactError: it is no .npy file of floating-point rows, or it is cut off.
    """
    try:
        with storage.open(name) as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
            offset = file.tell()
    except (ValueError, OSError, EOFError) as error:
        raise _error(storage, name, f"not a readable .npy file: {' '.join(str(error).split())[:200]}") from error
    if dtype.kind != "f" or len(shape) != 2 or is_fortran:
        layout = " in Fortran order" if is_fortran else ""
        raise _error(storage, name, f"holds {dtype} {list(shape)}{layout}; rows of floating-point numbers are wanted")
    wanted = offset + shape[0] * shape[1] * dtype.itemsize
    if size_bytes != wanted:
        raise _error(storage, name, f"has {size_bytes} bytes, but its header asks for {wanted}: cut off or damaged")
    return VectorFile(name, offset, dtype.str, shape[0], shape[1])


def read_vectors(storage: Storage, file: VectorFile, start: int, num_rows: int) -> NDArray[np.float32]:
    """Return rows of a .npy file as float32 [num_rows, D].

    Raises:
        ArtifactError: it ends before.
    """
    dtype = np.dtype(file.dtype)
    row_bytes = file.dim * dtype.itemsize
    with storage.open(file.name) as opened:
        opened.seek(file.offset_bytes + start * row_bytes)
        data = opened.read(num_rows * row_bytes)
    if len(data) != num_rows * row_bytes:
        raise _error(storage, file.name, "ends too soon; was it changed meanwhile?")
    with np.errstate(over="ignore"):
        return np.frombuffer(data, dtype).reshape(num_rows, file.dim).astype(np.float32)


def _error(storage: Storage, name: str, what: str) -> ArtifactError:
    path = storage.path(name)
    return ArtifactError(f"{path}: {what}", path=path)
