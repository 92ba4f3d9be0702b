"""PatchSet, what everything downstream takes: one array of pixels and one table. In: a data folder. Out: a PatchSet.

The first call packs the folder into the cache; later ones open the pack in milliseconds and notice a changed source.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histopath.config import home
from histopath.files import find_changed, locked, stamp_paths, write_text
from histopath.images import check_size
from histopath.kaggle import kaggle_folder
from histopath.packing import VERSION, cleared_on_failure, make_plan, pack_pixels
from histopath.sources import SLIDE_TABLES, Source, check_folder, read_source
from histopath.tables import COLUMNS, join_slides, read_slides

SAMPLED_FILES = 1024
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class PatchSet:
    """Patches in memory order: row i of `images` is row i of `table`.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, memory-mapped and read-only.
        table: the columns of a source table, `pixel_hash`, the hex SHA-1 of the pixel bytes, and `look`, a perceptual hash
            (`duplicates.perceptual_hashes`).
        class_names: name of label 0, 1, …
        layout: how the data was laid out: `kaggle`, `pcam-hdf5`, `multi-cancer` or `class-folders`.
        root: the folder that it was packed from.
        fingerprint: 16 hex digits of all pixels, ids, labels and slides; the same data has the same anywhere.
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
    """Opens the patches of a data folder, packing them first when that has not been done or the folder has changed.

    A change is noticed by the times of the folders, the size and time of every CSV and HDF5 file and of up to 1,024
    evenly spaced images: a stat of every file takes minutes on a network mount. An image that was edited in place,
    without its folder's time changing, can escape; `check_patches` looks at all.

    Args:
        root: folder in one of the layouts of `sources.read_source`.
        slide_table: CSV `id,slide` or `id,wsi`; replaces the slides found in the folder.
        cache: folder of the packs; `data/packed` in the project by default.
        workers: threads that decode; by default one a core, from 4 to 8.
        progress: shows packing on stderr.
        size: side in pixels, 16 to 4,096, to which every image is resized on decoding, as the published systems did: to a
            square, whatever its aspect ratio. Images may then have any size and be grey. None keeps their own size, which
            must be the same for all. Each size is a pack of its own.

    Returns:
        The patches; an interrupted packing is continued with the next call.

    Raises:
        FileNotFoundError: when the folder or a file that it must hold is missing.
        ValueError: for bad data, a cache that cannot be written, or too little space; one sentence that names the cure.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}; leave it out for one a core.")
    check_size(size)
    root = check_folder(root)
    slides = None if slide_table is None else read_slides(slide_table)
    folder = _locate_pack(root, cache, size)
    patches = _open_pack(folder, root)
    if patches is None or _beside(folder, "old").exists():
        with locked(folder, functools.partial(print, file=sys.stderr, flush=True) if progress else None):
            patches = _open_pack(folder, root) or _update_pack(folder, root, size, workers, progress)
            for ending in ("partial", "old"):  # left by a process that was killed
                shutil.rmtree(_beside(folder, ending), ignore_errors=True)
    return patches if slides is None else _replace_slides(patches, slides)


def check_patches(patches: PatchSet) -> int:
    """Compares every source file's size and time, and every packed patch's pixels, with what was recorded.

    Args:
        patches: an opened set; its source and its pack are read completely.

    Returns:
        How many patches were checked.

    Raises:
        ValueError: when files changed since packing or packed pixels are damaged; the text says what to delete.
    """
    pack = Path(patches.images.filename).parent
    changed = find_changed(patches.root, patches.table["file"], np.load(pack / "stats.npy", mmap_mode="r"))
    cure = f"delete {pack} and pack again."
    if len(changed):
        count = f"{len(changed):,} of its files changed after packing (first: {changed[0]})"
        raise ValueError(f"{patches.root} is no longer what was packed, {count}; {cure}")
    recorded = patches.table["pixel_hash"]
    hashes = (hashlib.sha1(patch).hexdigest() for patch in patches.images)
    wrong = [row for row, pair in enumerate(zip(hashes, recorded, strict=True)) if pair[0] != pair[1]]
    if wrong:
        raise ValueError(f"{pack / 'images.npy'} holds {len(wrong):,} damaged patches (first: row {wrong[0]}); {cure}")
    return len(recorded)


def _locate_pack(root: Path, cache: Path | str | None, size: int | None) -> Path:
    """Returns where the pack of a data folder lies: named after the folder, its path and the size of resized patches."""
    if cache is None:  # what lies in Kaggle's working folder would be uploaded as output
        room = Path(tempfile.gettempdir()) if home() == kaggle_folder("working") else home() / "data"
        cache = room / "packed"
    cache = Path(cache).expanduser().resolve()
    ending = f"-{size}" if size else ""
    return cache / f"{root.name or 'root'}-{hashlib.sha1(os.fsencode(root)).hexdigest()[:10]}{ending}"


def _beside(folder: Path, ending: str) -> Path:
    """Returns the path of what lies beside a pack: `partial` while it is written, `old` until it is deleted."""
    return folder.with_name(f"{folder.name}.{ending}")


def _open_pack(folder: Path, root: Path) -> PatchSet | None:
    """Opens a pack when it is whole and its source has not changed since."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        fresh = meta["version"] == VERSION and meta["stamp"] == stamp_paths(root, meta["stamp"])
        return _load_pack(folder, root, meta) if fresh else None
    except DAMAGE:
        return None


def _load_pack(folder: Path, root: Path, meta: dict) -> PatchSet:
    """Maps the pixels of a pack and builds its table; any damage raises an error."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    hashes, looks = np.load(folder / "hashes.npy"), np.load(folder / "looks.npy")
    table = _restore_table(folder / meta["table"])
    count = images.shape[0]
    if list(images.shape) != meta["shape"] or hashes.shape != (count, 20) or not len(table) == len(looks) == count:
        raise ValueError("the parts of the pack do not fit each other")
    table["pixel_hash"] = pd.Series(hashes.tobytes().hex("\n", 20).split("\n"), dtype="str")
    table["look"] = looks
    return PatchSet(images, table, tuple(meta["class_names"]), meta["layout"], root, meta["fingerprint"])


def _store_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a source table as one .npz: texts joined by NUL, which no file name holds; those that repeat as codes."""
    arrays = {"labels": table["label"].to_numpy(), "indices": table["index"].to_numpy()}
    arrays |= {"ids": _join_texts(table["id"]), "files": _join_texts(table["file"])}
    for name in ("slide", "part"):
        codes, texts = pd.factorize(table[name])
        arrays |= {f"{name}_codes": codes, f"{name}_texts": _join_texts(texts)}
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _restore_table(path: Path) -> pd.DataFrame:
    """Reads the table that `_store_table` wrote."""
    with np.load(path) as arrays:
        texts = {"id": _split_texts(arrays["ids"]), "file": _split_texts(arrays["files"])}
        for name in ("slide", "part"):
            names = np.array(_split_texts(arrays[f"{name}_texts"]), dtype=object)
            texts[name] = names[arrays[f"{name}_codes"]]
        columns = {name: pd.Series(values, dtype="str") for name, values in texts.items()}
        columns |= {"label": arrays["labels"], "index": arrays["indices"]}
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def _join_texts(texts: Iterable[str]) -> np.ndarray:
    """Returns texts as UTF-8 bytes, NUL between them; faster to read than JSON or fixed widths."""
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _split_texts(joined: np.ndarray) -> list[str]:
    """Returns the texts that `_join_texts` joined."""
    return joined.tobytes().decode(errors="surrogateescape").split("\0")


def _update_pack(folder: Path, root: Path, size: int | None, workers: int | None, progress: bool) -> PatchSet:
    """Packs a source; when only its tables changed, the pixels of the pack that exists are kept."""
    source = read_source(root)
    stamp = _stamp_source(source)
    try:
        if _holds_pixels(folder, source):
            meta = _finish(source, folder, stamp)
        else:
            meta = _pack(source, folder, stamp, size, workers, progress)
        return _load_pack(folder, root, meta)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}); choose another cache folder.") from None


def _pack(source: Source, folder: Path, stamp: dict, size: int | None, workers: int | None, progress: bool) -> dict:
    """Packs beside the folder, then takes its place; returns the content of `meta.json`."""
    workers = workers or min(max(os.cpu_count() or 1, 4), 8)
    partial, old = _beside(folder, "partial"), _beside(folder, "old")
    plan = make_plan(source, partial, size)
    with cleared_on_failure(plan):
        pack_pixels(plan, stamp, workers, progress)
        meta = _finish(source, partial, stamp)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(partial, folder)
    return meta


def _holds_pixels(folder: Path, source: Source) -> bool:
    """Tells whether a pack exists whose pixels are those of the source: same files in the same order, none changed."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        packed = _load_pack(folder, source.root, meta).table
        if meta["version"] != VERSION or not packed[["file", "index"]].equals(source.table[["file", "index"]]):
            return False
        return not len(find_changed(source.root, packed["file"], np.load(folder / "stats.npy", mmap_mode="r")))
    except DAMAGE:
        return False


def _finish(source: Source, folder: Path, stamp: dict) -> dict:
    """Writes the table and, last, `meta.json`, which makes a pack whole; returns its content."""
    digest = hashlib.sha1((folder / "hashes.npy").read_bytes())
    for texts in (*(source.table[name].astype("str") for name in ("id", "label", "slide", "part")), source.class_names):
        digest.update(_join_texts(texts))
    meta = {
        "version": VERSION,
        "root": str(source.root),
        "layout": source.layout,
        "class_names": source.class_names,
        "shape": np.load(folder / "images.npy", mmap_mode="r").shape,
        "stamp": stamp,
        "fingerprint": digest.hexdigest()[:16],
        "table": f"table-{digest.hexdigest()[:16]}.npz",
    }
    _store_table(folder / meta["table"], source.table)
    write_text(folder / "meta.json", json.dumps(meta))
    for path in folder.glob("table-*"):
        if path.name != meta["table"]:
            path.unlink()
    return json.loads(json.dumps(meta))


def _stamp_source(source: Source) -> dict:
    """Returns path → [size, mtime in ns] of what tells a change: folders, tables, HDF5 files and some of the images."""
    files = source.table["file"].unique()
    sampled = files[np.unique(np.linspace(0, len(files) - 1, min(len(files), SAMPLED_FILES)).astype(int))]
    folders = {os.path.dirname(file) for file in files}
    folders |= {str(parent) for folder in folders for parent in Path(folder).parents if parent.name} | {""}
    tables = {path.name for path in source.root.iterdir() if path.suffix in (".csv", ".h5", ".gz") and path.is_file()}
    names = {*sampled.tolist(), *folders, *tables, *SLIDE_TABLES}
    return stamp_paths(source.root, sorted(names))


def _replace_slides(patches: PatchSet, slides: pd.Series) -> PatchSet:
    """Returns the same pixels with the slides of another table."""
    table = join_slides(patches.table, slides)
    digest = hashlib.sha1("\n".join([patches.fingerprint, *table["slide"]]).encode()).hexdigest()
    return PatchSet(patches.images, table, patches.class_names, patches.layout, patches.root, digest[:16])
