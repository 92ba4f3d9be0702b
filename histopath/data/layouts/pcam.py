"""Reads PCam's HDF5 files, plain or compressed with gzip. In: a path. Out: labels, patches."""

import gzip
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

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


def unpack(root: Path, counts: dict[str, int], folder: Path) -> dict[str, Path]:
    """Decompresses the .gz files among some files below `root`.

    Args:
        root: folder of the data.
        counts: name of each file, and the number of patches it must hold.
        folder: where the decompressed files are written.

    Returns:
        Name of each file → path of a plain HDF5 file.

    Raises:
        InputError: when a .gz file is damaged or holds something else; download it again.
    """
    paths = {name: root / name for name in counts}
    for name in (name for name in counts if name.endswith(".gz")):
        paths[name] = folder / name.removesuffix(".gz")
        try:
            with gzip.open(root / name) as source, open(paths[name], "wb") as stream:
                shutil.copyfileobj(source, stream, 2**20)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"is cut off or damaged ({error})"
            raise InputError(f"{root / name} {reason}; download the file again.") from None
        count_patches(paths[name], counts[name], root / name)
    return paths


def read_patches(root: Path, paths: dict[str, Path], rows: pd.DataFrame) -> Iterator[tuple]:
    """Yields each patch, uint8 (96, 96, 3), and a tuple: size in bytes and mtime in ns of its file.

    Args:
        root: folder of the data.
        paths: as from `unpack`.
        rows: `file` and `index` of each patch; consecutive rows of a file are consecutive in it.

    Raises:
        InputError: when a file cannot be read; download it again.
    """
    for name, part in rows.groupby("file", sort=False):
        try:
            status = os.stat(root / name)
            with h5py.File(paths[name], "r") as file:
                patches = file["x"][part["index"].iloc[0] : part["index"].iloc[-1] + 1]
        except (OSError, KeyError) as error:
            reason = f"cannot be read ({error})"
            raise InputError(f"{root / name} {reason}; download the file again.") from None
        for patch in patches:
            yield patch, (status.st_size, status.st_mtime_ns)
