"""Opens a folder of patches as a PatchSet: the array of pixels and the table that all else takes.

The first call packs the folder into a cache; later calls open the pack in milliseconds. A pack is
a folder of three files: `images.npy` (pixels), `table.npz` (the table, and the size and time of
each patch's file) and `meta.json`.
"""

import errno
import functools
import hashlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from histopath.config import home, kaggle_folder
from histopath.data.images import check_size, read_image, resize
from histopath.data.layouts import pcam
from histopath.data.layouts.read import Source, check_folder, read_source, stamp_source
from histopath.data.layouts.tables import COLUMNS, join_slides, read_slides
from histopath.data.splits import perceptual_hashes
from histopath.files import NO_SPACE, InputError, find_changed, locked, progress_bar, stamp_paths

VERSION = 3
BLOCK_BYTES = 4 * 2**20  # of pixels that a thread holds
TEXTS = ("id", "slide", "part", "file", "pixel_hash")
DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class PatchSet:
    """Patches in memory order: row i of `images` is row i of `table`.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, memory-mapped and read-only.
        table: the columns of a source table; `pixel_hash`, the hex SHA-1 of the pixel bytes; and
            `perceptual_hash`, a perceptual hash (`splits.perceptual_hashes`).
        class_names: name of label 0, 1, …
        layout: how the data was laid out: `kaggle`, `pcam-hdf5`, `multi-cancer`, `class-folders`.
        root: the folder that it was packed from.
        fingerprint: 16 hex digits from all pixels, ids, labels and slides, the same on any machine.
    """

    images: np.ndarray
    table: pd.DataFrame
    class_names: tuple[str, ...]
    layout: str
    root: Path
    fingerprint: str

    def __len__(self) -> int:
        return len(self.table)


def open_patches(
    root: Path | str,
    slide_table: Path | str | None = None,
    cache: Path | str | None = None,
    workers: int | None = None,
    progress: bool = True,
    size: int | None = None,
) -> PatchSet:
    """Opens the patches of a data folder; packs them first when the folder is new or has changed.

    Changes are detected from the times of the folders, and from size and time of every CSV and HDF5
    file and of up to 1,024 evenly spaced images, because a stat of every file takes minutes on a
    network mount. An image edited in place can go unnoticed; `check_patches` compares all files.

    Args:
        root: folder in one of the layouts of `layouts.read.read_source`.
        slide_table: CSV `id,slide` or `id,wsi`; replaces the slides found in the folder.
        cache: folder of the packs; `data/packed` in the project by default.
        workers: threads that decode; by default one per core, from 4 to 8.
        progress: shows packing on stderr.
        size: side in pixels, 16 to 4,096, to which every image is resized regardless of its aspect
            ratio, as the published systems did; images may then have any size and be grayscale.
            None keeps their own size, which must be the same for all. Each size has its own pack.

    Returns:
        The patches. An interrupted packing starts over with the next call.

    Raises:
        FileNotFoundError: the folder or a file that it must hold is missing.
        InputError: bad data, a cache that cannot be written, or too little space.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}; leave it out for the default.")
    check_size(size)
    root = check_folder(root)
    slides = None if slide_table is None else read_slides(slide_table)
    folder = _locate_pack(root, cache, size)
    patches = _open_pack(folder, root)
    if patches is None:
        log = functools.partial(print, file=sys.stderr, flush=True) if progress else None
        with locked(folder, log):
            patches = _open_pack(folder, root)  # another process may have packed it meanwhile
            if patches is None:
                patches = _pack(read_source(root), folder, size, workers, progress)
    return patches if slides is None else _replace_slides(patches, slides)


def check_patches(patches: PatchSet) -> int:
    """Compares size and time of every source file, and all packed pixels, with what was recorded.

    Args:
        patches: an opened set; its source and its pack are read completely.

    Returns:
        How many patches were checked.

    Raises:
        InputError: files have changed since packing, or packed pixels are damaged.
    """
    pack = Path(patches.images.filename).parent
    cure = f"delete {pack} and pack again"
    with np.load(pack / "table.npz") as arrays:
        changed = find_changed(patches.root, patches.table["file"], arrays["stats"])
    if changed:
        count = f"{len(changed):,} of its files changed after packing (first: {changed[0]})"
        raise InputError(f"{patches.root} is no longer what was packed, {count}; {cure}.")
    hashes = [hashlib.sha1(pixels).hexdigest() for pixels in patches.images]
    damaged = np.flatnonzero(patches.table["pixel_hash"] != hashes)
    if len(damaged):
        count = f"{len(damaged):,} damaged patches (first: row {damaged[0]})"
        raise InputError(f"{pack / 'images.npy'} holds {count}; {cure}.")
    return len(patches)


def _locate_pack(root: Path, cache: Path | str | None, size: int | None) -> Path:
    """Returns the folder of a pack, named after the data folder, its path and the size."""
    if cache is None:
        on_kaggle = home() == kaggle_folder("working")  # which is uploaded as output
        cache = (Path(tempfile.gettempdir()) if on_kaggle else home() / "data") / "packed"
    digest = hashlib.sha1(os.fsencode(root)).hexdigest()[:10]
    name = f"{root.name or 'root'}-{digest}" + (f"-{size}" if size else "")
    return Path(cache).expanduser().resolve() / name


def _open_pack(folder: Path, root: Path) -> PatchSet | None:
    """Opens a pack; returns None when it is missing or damaged, or when its source has changed."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["version"] != VERSION or meta["stamp"] != stamp_paths(root, meta["stamp"]):
            return None
        images = np.load(folder / "images.npy", mmap_mode="r")
        with np.load(folder / "table.npz") as arrays:
            columns = {name: arrays[f"{name}s"] for name in (*COLUMNS, "pixel_hash", "perceptual_hash")}
    except DAMAGE:
        return None
    for name in TEXTS:
        texts = columns[name].tobytes().decode(errors="surrogateescape").split("\0")
        columns[name] = pd.Series(texts, dtype="str")
    names = tuple(meta["class_names"])
    return PatchSet(images, pd.DataFrame(columns), names, meta["layout"], root, meta["fingerprint"])


def _pack(source: Source, folder: Path, size: int | None, workers: int | None, progress: bool):
    """Packs a source beside `folder`, then renames the pack: `folder` is complete or absent."""
    partial, names = folder.with_name(f"{folder.name}.partial"), source.class_names
    try:
        for path in (partial, folder):  # left by a killed process; out of date
            shutil.rmtree(path, ignore_errors=True)
        partial.mkdir()
        meta = {"version": VERSION, "stamp": stamp_source(source), "layout": source.layout}
        table, stats = _write_pixels(source, partial, size, workers, progress)
        meta |= {"class_names": names, "fingerprint": _fingerprint(table, names)}
        columns = {f"{name}s": column.to_numpy() for name, column in table.items()}
        columns |= {f"{name}s": _join_texts(table[name]) for name in TEXTS}
        np.savez(partial / "table.npz", stats=stats, **columns)
        (partial / "meta.json").write_text(json.dumps(meta))
        os.rename(partial, folder)
        images = np.load(folder / "images.npy", mmap_mode="r")
    except OSError as error:
        cure = "free some space" if error.errno in NO_SPACE else "check the permissions of both"
        reason = f"{source.root} cannot be packed into {folder.parent} ({error.strerror or error})"
        raise InputError(f"{reason}; {cure}, or choose another cache folder.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PatchSet(images, table, names, source.layout, source.root, meta["fingerprint"])


def _write_pixels(
    source: Source, folder: Path, size: int | None, workers: int | None, progress: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Writes `images.npy`; returns the table with hashes, and size and mtime of files (N, 2)."""
    path, count, shape = folder / "images.npy", len(source.table), _patch_shape(source, size)
    needed, free = count * (math.prod(shape) + 300), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
    np.lib.format.open_memmap(path, "w+", np.uint8, (count, *shape))
    length = max(BLOCK_BYTES // math.prod(shape), 1)
    blocks = []
    with (
        tempfile.TemporaryDirectory(dir=folder) as room,
        progress_bar(f"packing {source.root.name}", count, 0, progress) as bar,
        ThreadPoolExecutor(workers or min(max(os.cpu_count() or 1, 4), 8)) as pool,
    ):
        counts = source.table["file"].value_counts() if source.layout == "pcam-hdf5" else {}
        hdf5 = pcam.unpack(source.root, dict(counts), Path(room))
        write = functools.partial(_write_block, source, path, shape, size, hdf5)
        for block in pool.map(write, (slice(row, row + length) for row in range(0, count, length))):
            blocks.append(block)
            bar.update(len(block[1]))
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
    hashes, looks, stats = zip(*blocks, strict=True)
    hashes = pd.Series(b"".join(hashes).hex(" ", 20).split(), dtype="str")
    table = source.table.assign(pixel_hash=hashes, perceptual_hash=np.concatenate(looks))
    return table, np.concatenate(stats)


def _write_block(
    source: Source, path: Path, shape: tuple, size: int | None, hdf5: dict[str, Path], rows: slice
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Writes some rows of `images.npy`; returns their hashes, looks, and size and mtime of files.

    The file is not mapped for writing: mapped pages count as memory of the process, and a full
    disk would kill it.
    """
    table = source.table.iloc[rows]
    pixels, stats = np.empty((len(table), *shape), np.uint8), np.empty((len(table), 2), np.int64)
    if hdf5:
        images = pcam.read_patches(source.root, hdf5, table)
        images = ((resize(patch, size) if size else patch, stat) for patch, stat in images)
    else:
        images = (read_image(source.root / file, size) for file in table["file"])
    for row, (image, stats[row]) in enumerate(images):
        if image.shape != shape:
            raise InputError(_wrong_size(source, table["file"].iloc[row], image.shape, shape))
        pixels[row] = image
    with open(path, "r+b") as stream:
        stream.seek((rows.start - len(source.table)) * math.prod(shape), os.SEEK_END)
        stream.write(pixels)
    hashes = b"".join(hashlib.sha1(patch).digest() for patch in pixels)
    return hashes, perceptual_hashes(pixels), stats


def _wrong_size(source: Source, file: str, found: tuple, expected: tuple) -> str:
    """Returns the message for an image of another size than the rest."""
    first = source.table["file"].iloc[0]
    rest = "as in PatchCamelyon" if source.layout == "kaggle" else f"like {first}"
    sizes = f"{found[1]}×{found[0]} pixels, expected {expected[1]}×{expected[0]} {rest}"
    cure = "resize it, or remove it and its label, or train with --set size= to resize all"
    return f"{source.root / file} is {sizes}; {cure}."


def _patch_shape(source: Source, size: int | None) -> tuple[int, int, int]:
    """Returns the shape (H, W, 3) of all patches, which is that of the first where none is set."""
    if size:
        return size, size, 3
    if source.layout in ("kaggle", "pcam-hdf5"):
        return pcam.PATCH_SHAPE
    return read_image(source.root / source.table["file"].iloc[0])[0].shape


def _fingerprint(table: pd.DataFrame, class_names: Iterable[str]) -> str:
    """Returns the fingerprint of a packed table. Runs record it: what is hashed must not change."""
    hashes = np.frombuffer(bytes.fromhex("".join(table["pixel_hash"])), np.uint8)
    stream = io.BytesIO()
    np.save(stream, hashes.reshape(-1, 20))
    digest = hashlib.sha1(stream.getvalue())
    for name in ("id", "label", "slide", "part"):
        digest.update(_join_texts(table[name].astype("str")))
    digest.update(_join_texts(class_names))
    return digest.hexdigest()[:16]


def _join_texts(texts: Iterable[str]) -> np.ndarray:
    """Returns texts as UTF-8 bytes separated by NUL, read three times as fast as CSV."""
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _replace_slides(patches: PatchSet, slides: pd.Series) -> PatchSet:
    """Returns the same pixels with the slides of another table."""
    table = join_slides(patches.table, slides)
    digest = hashlib.sha1("\n".join([patches.fingerprint, *table["slide"]]).encode())
    return replace(patches, table=table, fingerprint=digest.hexdigest()[:16])
