"""Reads PCam's HDF5 files, plain or compressed with gzip. In: a path. Out: counts, labels, an unpacked file."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from histopath.files import InputError

PATCH_SHAPE = (96, 96, 3)


def _read_dataset(path: Path, key: str, read: Callable[[h5py.Dataset], Any]) -> Any:
    """Calls `read` with a dataset of an HDF5 file that may be compressed; one sentence when it is not there."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream, h5py.File(stream, "r") as file:
            return read(file[key])
    except (OSError, EOFError, KeyError, RuntimeError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no HDF5 file with a dataset {key} ({reason}); download the file again.") from None


def count_patches(path: Path, count: int | None, name: Path | None = None) -> int:
    """Returns how many patches an HDF5 file holds.

    Args:
        path: a file whose dataset `x` must be N×96×96×3 uint8; a compressed one is read through to its end.
        count: how many labels there are; None when unknown.
        name: path to give in an error, when `path` is an unpacked copy of it.

    Raises:
        InputError: when the file is broken, of another shape or type, or of another length.
    """
    shape, dtype = _read_dataset(path, "x", lambda data: (data.shape, data.dtype))
    name = name or path
    if shape[1:] != PATCH_SHAPE or dtype != np.uint8 or shape[0] == 0:
        received = f"x of shape {shape} and type {dtype}"
        raise InputError(f"{name} holds {received}, expected (N, 96, 96, 3) uint8; download the file again.")
    if count is not None and count != shape[0]:
        received = f"{shape[0]:,} patches but its labels (y) are {count:,}"
        raise InputError(f"{name} holds {received}; download both files again.")
    return shape[0]


def read_labels(path: Path) -> np.ndarray:
    """Reads the labels of one part.

    Args:
        path: a file whose dataset `y` must be N×1×1×1, of 0 and 1.

    Returns:
        int64 (N,).

    Raises:
        InputError: when the file is broken or holds something else; download it again.
    """
    labels = np.asarray(_read_dataset(path, "y", lambda data: data[()]))
    if labels.ndim == 0 or labels.size != len(labels) or labels.size == 0:
        raise InputError(f"{path} holds y of shape {labels.shape}, expected (N, 1, 1, 1); download the file again.")
    labels = labels.reshape(-1)
    wrong = labels[~np.isin(labels, (0, 1))]
    if len(wrong):
        received = f"{len(wrong):,} labels other than 0 and 1 (first: {wrong[0]})"
        raise InputError(f"{path} holds {received}; download the file again.")
    return labels.astype("int64")


def inflate(path: Path, stream: BinaryIO) -> None:
    """Copies the content of a .gz file to a stream, a megabyte at a time."""
    with gzip.open(path) as source:
        while True:
            try:
                block = source.read(2**20)
            except (EOFError, zlib.error, OSError) as error:
                raise InputError(f"{path} is cut off or damaged ({error}); download the file again.") from None
            if not block:
                return
            stream.write(block)
