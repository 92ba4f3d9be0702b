"""Writes the pixels of a source into one array file, in parallel and resumably. In: a Source. Out: files in a folder.

The folder holds `images.npy` (N, H, W, 3), `hashes.npy` (N, 20: SHA-1 of each patch's pixels), `looks.npy` (N: perceptual
hashes), `stats.npy` (N, 2: size in bytes and mtime in ns of each patch's file), `state.json` (what is being packed) and
`journal.txt` (the chunks whose bytes are on the disk). Chunks are written with plain writes, not through a mapping, so that
memory stays flat.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from histopath import pcam
from histopath.duplicates import perceptual_hashes
from histopath.files import write_text
from histopath.images import read_image, resize
from histopath.progress import progress_bar
from histopath.sources import Source

VERSION = 2
CHUNK_BYTES = 16 * 2**20
CHUNK_PATCHES = 1024
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Plan:
    """What is to be written where: the source, the folder, the array's shape (N, H, W, 3), patches in a chunk.

    `size` is the side in pixels to which every patch is resized; None when all keep their own.
    """

    source: Source
    folder: Path
    shape: tuple[int, int, int, int]
    chunk_patches: int
    size: int | None = None

    @property
    def chunk_count(self) -> int:
        """How many chunks there are; the last may be shorter."""
        return -(-self.shape[0] // self.chunk_patches)

    def rows(self, chunk: int) -> range:
        """Returns the rows of one chunk."""
        return range(chunk * self.chunk_patches, min((chunk + 1) * self.chunk_patches, self.shape[0]))


def make_plan(source: Source, folder: Path, size: int | None = None) -> Plan:
    """Plans the packing of a source into a folder.

    Args:
        source: what to pack.
        folder: where to write.
        size: side in pixels of all patches; None for the size of the first, which the others must have too.

    Returns:
        The plan; a chunk of it holds 16 MiB of pixels, or one patch when that is larger.

    Raises:
        ValueError: when the first patch is no 8-bit RGB image; the text names the file and the cure.
    """
    if size:
        shape = (size, size, 3)
    elif source.layout in ("kaggle", "pcam-hdf5"):
        shape = pcam.PATCH_SHAPE
    else:
        shape = read_image(source.root / source.table["file"].iloc[0])[0].shape
    chunk_patches = min(max(CHUNK_BYTES // int(np.prod(shape)), 1), CHUNK_PATCHES)
    return Plan(source, folder, (len(source.table), *shape), chunk_patches, size)


def pack_pixels(plan: Plan, stamp: dict, workers: int, progress: bool) -> None:
    """Writes the array files of a plan, going on where an earlier call stopped.

    Args:
        plan: what to pack into which folder; what the folder holds is kept when it was begun for the same stamp.
        stamp: state of the source's files, compared with that of the earlier call.
        workers: threads that read and decode.
        progress: shows a progress bar on stderr.

    Raises:
        ValueError: when a file is not an image of the right kind, or the space does not suffice.
        OSError: when the folder cannot be written; `cleared_on_failure` puts that into a sentence.
    """
    done = _start(plan, stamp)
    if len(done) < plan.chunk_count:
        _write_chunks(plan, done, _decompress(plan), workers, progress)
    for path in plan.folder.glob("*.h5"):  # what was unpacked, also by a call that was killed before it came here
        path.unlink()


@contextmanager
def cleared_on_failure(plan: Plan) -> Iterator[None]:
    """Deletes the folder of a plan when packing fails for good, and says in one sentence why.

    An interruption leaves it, to be continued.
    """
    try:
        yield
    except (OSError, MemoryError, ValueError) as error:
        shutil.rmtree(plan.folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise ValueError(_no_space(plan, f" ({error.strerror})")) from None
        if isinstance(error, MemoryError):
            raise ValueError(f"Packing {plan.source.root} ran out of memory; pack with fewer workers.") from None
        raise


def _no_space(plan: Plan, reason: str = "") -> str:
    """Says how much space a plan needs and how much there is."""
    free = shutil.disk_usage(plan.folder.parent).free
    return (
        f"Packing {plan.source.root} needs {_needed_bytes(plan) / 1e9:.2f} GB in {plan.folder.parent}, where "
        f"{free / 1e9:.2f} GB are free{reason}; free some space or choose another cache folder."
    )


def _needed_bytes(plan: Plan) -> int:
    """Estimates the size of a pack, with the decompressed HDF5 files that exist while it is written."""
    pixels = int(np.prod(plan.shape[1:], dtype=np.int64))
    compressed = plan.source.table["file"].str.endswith(".gz").sum()
    return plan.shape[0] * (pixels + 300) + int(compressed) * pixels


def _start(plan: Plan, stamp: dict) -> set[int]:
    """Returns the chunks that an earlier call finished; otherwise makes the folder and reserves the space."""
    files = plan.source.table["file"].str.cat(plan.source.table["index"].astype("str"), "|")
    listing = hashlib.sha1("\n".join(files).encode(errors="surrogateescape")).hexdigest()
    size = {"shape": list(plan.shape), "chunk": plan.chunk_patches}
    state = {"version": VERSION, **size, "stamp": stamp, "files": listing}
    state_path = plan.folder / "state.json"
    try:
        if json.loads(state_path.read_text()) == state:
            return _read_journal(plan)
    except (OSError, ValueError):
        pass
    shutil.rmtree(plan.folder, ignore_errors=True)
    if _needed_bytes(plan) > shutil.disk_usage(plan.folder.parent).free:
        raise ValueError(_no_space(plan))
    plan.folder.mkdir()
    _reserve(plan.folder / "images.npy", plan.shape, np.uint8)
    _reserve(plan.folder / "hashes.npy", (plan.shape[0], 20), np.uint8)
    _reserve(plan.folder / "looks.npy", (plan.shape[0],), np.uint64)
    _reserve(plan.folder / "stats.npy", (plan.shape[0], 2), np.int64)
    write_text(state_path, json.dumps(state))
    return set()


def _reserve(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """Makes an .npy file whose blocks exist on the disk, so that a full disk shows now."""
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
    if hasattr(os, "posix_fallocate"):  # macOS has none: there the writes themselves report a full disk
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _read_journal(plan: Plan) -> set[int]:
    """Returns the finished chunks; a last line without its end was cut off by a crash and is dropped."""
    path = plan.folder / "journal.txt"
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole))
    return {int(line) for line in whole.split()}


def _decompress(plan: Plan) -> dict[str, Path]:
    """Unpacks the .gz files of the source into the folder and checks them; returns file → unpacked path."""
    unpacked = {}
    counts = plan.source.table["file"].value_counts()
    for name in (name for name in counts.index if name.endswith(".gz")):
        path, target = plan.source.root / name, plan.folder / name.removesuffix(".gz")
        if not target.exists():
            temporary = target.with_suffix(".tmp")
            with open(temporary, "wb") as stream:
                pcam.inflate(path, stream)
            os.replace(temporary, target)
        pcam.count_patches(target, int(counts[name]), path)
        unpacked[name] = target
    return unpacked


def _write_chunks(plan: Plan, done: set[int], unpacked: dict[str, Path], workers: int, progress: bool) -> None:
    """Packs the chunks that are not done in threads; at most one chunk more than workers is under way."""
    todo = iter([chunk for chunk in range(plan.chunk_count) if chunk not in done])
    finished = sum(len(plan.rows(chunk)) for chunk in done)
    with (
        open(plan.folder / "journal.txt", "a") as journal,
        _open_arrays(plan.folder) as arrays,
        progress_bar(f"packing {plan.source.root.name}", plan.shape[0], finished, progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def submit(count: int) -> set:
            return {pool.submit(_pack_chunk, plan, chunk, arrays, unpacked) for chunk in islice(todo, count)}

        pending = submit(workers + 1)
        try:
            while pending:
                ready, pending = wait(pending, return_when=FIRST_COMPLETED)
                for chunk in sorted(future.result() for future in ready):
                    journal.write(f"{chunk}\n")
                    journal.flush()
                    bar.update(len(plan.rows(chunk)))
                pending |= submit(len(ready))
        finally:
            pool.shutdown(cancel_futures=True)


def _pack_chunk(plan: Plan, chunk: int, arrays: dict, unpacked: dict[str, Path]) -> int:
    """Reads, checks, hashes and writes one chunk; returns its number when its bytes are on the disk."""
    rows = plan.rows(chunk)
    pixels = np.empty((len(rows), *plan.shape[1:]), np.uint8)
    stats = np.empty((len(rows), 2), np.int64)
    read = _read_hdf5 if plan.source.layout == "pcam-hdf5" else _read_images
    read(plan, rows, pixels, stats, unpacked)
    hashes = np.frombuffer(b"".join(hashlib.sha1(patch).digest() for patch in pixels), np.uint8)
    for name, part in (("images", pixels), ("hashes", hashes), ("looks", perceptual_hashes(pixels)), ("stats", stats)):
        descriptor, start, row_bytes = arrays[name]
        _write_at(descriptor, part, start + rows.start * row_bytes)
        getattr(os, "fdatasync", os.fsync)(descriptor)
    return chunk


def _write_at(descriptor: int, array: np.ndarray, offset: int) -> None:
    """Writes all bytes of an array at an offset of a file."""
    view = memoryview(np.ascontiguousarray(array)).cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_images(plan: Plan, rows: range, pixels: np.ndarray, stats: np.ndarray, _) -> None:
    """Fills pixels (n, H, W, 3) and stats (n, 2) from image files."""
    files = plan.source.table["file"].to_numpy()
    for slot, row in enumerate(rows):
        path = plan.source.root / files[row]
        image, stats[slot] = read_image(path, plan.size)
        if image.shape != pixels.shape[1:]:
            (height, width), (high, wide) = image.shape[:2], pixels.shape[1:3]
            reason = "as in PatchCamelyon" if plan.source.layout == "kaggle" else f"like {files[0]}"
            cure = "resize it, or remove it and its label, or train with --set size= to resize all"
            raise ValueError(f"{path} is {width}×{height} pixels, expected {wide}×{high} {reason}; {cure}.")
        pixels[slot] = image


def _read_hdf5(plan: Plan, rows: range, pixels: np.ndarray, stats: np.ndarray, unpacked: dict[str, Path]) -> None:
    """Fills pixels and stats from HDF5 files; the rows of one file lie one after the other."""
    part = plan.source.table.iloc[rows.start : rows.stop]
    stored = np.empty((len(rows), *pcam.PATCH_SHAPE), np.uint8) if plan.size else pixels
    for name in part["file"].unique():
        chosen = np.flatnonzero(part["file"] == name)
        first, last = part["index"].iloc[chosen[[0, -1]]]
        path = plan.source.root / name
        try:
            with h5py.File(unpacked.get(name, path), "r") as file:
                file["x"].read_direct(stored, np.s_[first : last + 1], np.s_[chosen[0] : chosen[-1] + 1])
            status = path.stat()
        except (OSError, KeyError) as error:
            raise ValueError(f"{path} cannot be read ({error}); download the file again.") from None
        stats[chosen] = status.st_size, status.st_mtime_ns
    if plan.size:
        for slot, patch in enumerate(stored):
            pixels[slot] = resize(patch, plan.size)


@contextmanager
def _open_arrays(folder: Path) -> Iterator[dict[str, tuple[int, int, int]]]:
    """Yields name → (file descriptor, offset of the first row, bytes a row) of the four arrays."""
    arrays = {}
    try:
        for name in ("images", "hashes", "looks", "stats"):
            array = np.load(folder / f"{name}.npy", mmap_mode="r")
            descriptor = os.open(folder / f"{name}.npy", os.O_RDWR)
            arrays[name] = (descriptor, array.offset, array.strides[0])
        yield arrays
    finally:
        for descriptor, *_ in arrays.values():
            os.close(descriptor)
