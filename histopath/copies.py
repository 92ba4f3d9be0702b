"""Writes augmented copies of the images of class folders, as system 2 did on disk. In: class folders. Out: class folders.

The copies come with `slides.csv`, which says what was copied from where: opened with `open_patches`, they are split by slice,
so that no copy of a training image is ever scored. (In system 2 copies of one slice fell on both sides of the split.)
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from histopath.files import check_writable, locked, replacing, stamp_paths, write_table, write_text
from histopath.images import check_size, read_image
from histopath.progress import progress_bar
from histopath.sources import Source, read_source
from histopath.tables import name_files

SETTINGS = "augment.json"
SLIDES = "slides.csv"
LOCK = "augment.lock"
MOST_COPIES = 1000
# Written in a third of the time that LZW takes, read in a seventh, and by tifffile too.
TIFF_OPTIONS = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE]
PUBLISHED_FACTOR = 6  # system 2: 560 cancer slices became 3,361 files


@dataclass(frozen=True)
class CopyPlan:
    """What is to be copied: the source, the folder to write, the files each image becomes, the size and the seed."""

    source: Source
    target: Path
    files: list[list[str]]
    size: int | None
    seed: int

    @property
    def total(self) -> int:
        """How many files there will be."""
        return sum(map(len, self.files))


def write_copies(
    source_root: Path | str,
    target: Path | str,
    copies: Mapping[str, int] | int | None = None,
    size: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> int:
    """Writes each image of class folders as it is (`<id>_00.tif`) and augmented (`<id>_01.tif`, …), and `slides.csv` last.

    Augmented is what system 2 did: rotated by any angle, mirrored left to right for one half, the border repeated where the
    turned image leaves a corner empty. Each copy depends on the seed, the image's id and its number alone. The files are
    uncompressed TIFFs: 12.6 MB for a slice of 2048×2048, 78 GB for the published 6,161; with `size` 512 a sixteenth of that.

    Args:
        source_root: class folders without parts, as `sources.read_source` reads them.
        target: folder to write; absent, empty, or begun by an earlier call with the same settings, which is then continued.
        copies: class name → how many files an image becomes, the first of them the image itself; classes not named become one.
            One number stands for all classes. None balances them: 6 for the largest, the others as many as come closest to
            its count. System 2 took 6 for its 560 cancer slices (3,360) and 20 for its 140 others (2,800).
        size: side in pixels to which the images are resized before; None keeps their own.
        seed: seeds angles and mirroring.
        progress: shows a bar on stderr.

    Returns:
        How many images the target holds.

    Raises:
        FileNotFoundError: when the source is missing.
        ValueError: when the source is no class folders, an image is bad, a number is out of range, the target holds anything
            else or cannot be written; one sentence that names the cure.
    """
    check_size(size)
    source = _read_classes(source_root)
    target = _check_target(source.root, target)
    copies = _count_copies(source, copies)
    plan = CopyPlan(source, target, _name_copies(source, copies), size, seed)
    try:
        target.mkdir(parents=True, exist_ok=True)
        check_writable(target / SETTINGS)
        with locked(target / Path(LOCK).stem):
            _start(plan, copies)
            if not (target / SLIDES).is_file() or _count_written(plan) < plan.total:
                write_table(target / SLIDES, _list_slides(plan, _write_all(plan, progress)))
    except OSError as error:
        raise ValueError(f"{target} cannot be written ({error.strerror}); choose another folder.") from None
    return plan.total


def _read_classes(root: Path | str) -> Source:
    """Reads class folders; refuses other layouts, parts and images without a class."""
    source = read_source(root)
    if source.layout != "class-folders":
        found = f"is laid out as {source.layout}"
    elif (source.table["label"] < 0).any():
        found = "holds images outside of class folders"
    elif (source.table["part"] != "train").any():
        found = "is divided into parts"
    else:
        return source
    raise ValueError(f"{source.root} {found}, expected class folders such as cancer/ and non_cancer/; give the folder of these.")


def _check_target(root: Path, target: Path | str) -> Path:
    """Returns the absolute path of the target; refuses the source itself, a folder in it, and a file."""
    target = Path(target).expanduser().resolve()
    if target == root or root in target.parents:
        raise ValueError(f"{target} lies in the source {root}, whose copies would be copied again; give a folder outside of it.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; give the name of a folder to write.")
    return target


def _count_copies(source: Source, copies: Mapping[str, int] | int | None) -> dict[str, int]:
    """Returns class name → how many files an image of it becomes."""
    counts = {name: int((source.table["label"] == label).sum()) for label, name in enumerate(source.class_names)}
    if copies is None:
        wanted = PUBLISHED_FACTOR * max(counts.values())
        return {name: min(max(round(wanted / count), 1), MOST_COPIES) for name, count in counts.items() if count}
    copies = copies if isinstance(copies, Mapping) else dict.fromkeys(counts, copies)
    for name, number in copies.items():
        if name not in counts:
            raise ValueError(f"There is no class {name!r} in {source.root}; its classes are {', '.join(counts)}.")
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_COPIES:
            expected = f"a whole number from 1 to {MOST_COPIES:,}"
            raise ValueError(f"The copies of {name} must be {expected} and are {number!r}; 1 keeps the images as they are.")
    return {name: copies.get(name, 1) for name, count in counts.items() if count}


def _name_copies(source: Source, copies: Mapping[str, int]) -> list[list[str]]:
    """Returns the files, relative to the target, that each image of the source becomes."""
    numbers = [copies[source.class_names[label]] for label in source.table["label"]]
    stems = [f"{Path(file).parent.name}/{Path(file).stem}" for file in source.table["file"]]
    return [[f"{stem}_{copy:02d}.tif" for copy in range(number)] for stem, number in zip(stems, numbers, strict=True)]


def _start(plan: CopyPlan, copies: Mapping[str, int]) -> None:
    """Compares the target with the settings; writes them, and the folders, when it is new."""
    stamp = stamp_paths(plan.source.root, plan.source.table["file"])
    listing = zip(plan.source.table["slide"], stamp.items(), strict=True)
    digest = hashlib.sha1(json.dumps(list(listing)).encode()).hexdigest()
    settings = {"source": str(plan.source.root), "copies": dict(copies), "size": plan.size, "seed": plan.seed, "images": digest}
    path = plan.target / SETTINGS
    begun = path.is_file()
    if begun:
        _compare_settings(path, settings)
    _refuse_foreign(plan, begun)
    if not begun:
        write_text(path, json.dumps(settings, indent=2) + "\n")
    for folder in sorted({os.path.dirname(files[0]) for files in plan.files}):
        (plan.target / folder).mkdir(exist_ok=True)


def _refuse_foreign(plan: CopyPlan, begun: bool) -> None:
    """Refuses a target that holds what no earlier call can have written; hidden files are left alone."""
    own = {SETTINGS, SLIDES, LOCK, *(file for files in plan.files for file in files)} if begun else {LOCK}
    for folder, _, names in os.walk(plan.target):
        for name in sorted(names):
            file = Path(folder, name).relative_to(plan.target).as_posix()
            if file not in own and not name.startswith("."):
                raise ValueError(f"{plan.target} holds {file}, which is no copy; give a new or an empty folder, or move it away.")


def _compare_settings(path: Path, settings: dict) -> None:
    """Refuses to continue what was begun with other settings or from other images."""
    try:
        earlier = json.loads(path.read_text())
        changed = [name for name, value in settings.items() if earlier[name] != value]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; delete {path.parent} and run the command again.") from None
    if changed:
        name = changed[0]
        what = f"{name} {earlier[name]!r}, not {settings[name]!r}"
        what = "other images, or other slides of them, in the source" if name == "images" else what
        raise ValueError(f"{path.parent} was begun with {what}; give another folder, or delete it to begin anew.")


def _count_written(plan: CopyPlan) -> int:
    """Returns how many of the files are there; each is complete or absent."""
    return sum((plan.target / file).is_file() for files in plan.files for file in files)


def _write_all(plan: CopyPlan, progress: bool) -> list[str]:
    """Writes what is missing, in threads; returns the SHA-1 of each source image's pixels."""
    hashes = [""] * len(plan.files)
    written = _count_written(plan)
    with (
        progress_bar(f"augmenting {plan.source.root.name}", plan.total, written, progress) as bar,
        ThreadPoolExecutor(min(max(os.cpu_count() or 1, 4), 8)) as pool,
    ):
        pending = {pool.submit(_write_image, plan, row): row for row in range(len(plan.files))}
        try:
            for future in as_completed(pending):
                hashes[pending[future]], count = future.result()
                bar.update(count)
        finally:
            pool.shutdown(cancel_futures=True)
    return hashes


def _write_image(plan: CopyPlan, row: int) -> tuple[str, int]:
    """Writes the missing files of one image; returns the SHA-1 of its pixels, and how many files were missing."""
    image_id, file = plan.source.table["id"].iloc[row], plan.source.root / plan.source.table["file"].iloc[row]
    pixels, _ = read_image(file, plan.size)
    missing = [(copy, plan.target / name) for copy, name in enumerate(plan.files[row]) if not (plan.target / name).is_file()]
    for copy, path in missing:
        try:
            changed = vary(pixels, image_id, copy, plan.seed) if copy else pixels
            encoded = cv2.imencode(".tif", changed[..., ::-1], TIFF_OPTIONS)[1]
        except (cv2.error, MemoryError):  # of a side over 32,766 pixels, or out of memory
            height, width = pixels.shape[:2]
            raise ValueError(
                f"{file} of {width:,}×{height:,} pixels is too large to turn; give a size or smaller images."
            ) from None
        with replacing(path) as part:
            part.write_bytes(encoded.data)
    return hashlib.sha1(pixels).hexdigest(), len(missing)


def vary(pixels: np.ndarray, image_id: str, copy: int, seed: int) -> np.ndarray:
    """Mirrors an image left to right, or not, and rotates it by any angle about its middle; the border is repeated.

    Args:
        pixels: uint8 (H, W, 3).
        image_id: which image it is.
        copy: which copy of it is wanted.
        seed: together with the other two, decides angle and mirroring.

    Returns:
        uint8 (H, W, 3).
    """
    digest = hashlib.sha256(f"{seed}/{copy}/{image_id}".encode(errors="surrogateescape")).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    angle, mirrored = random.uniform(0, 360), random.random() < 0.5
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    pixels = cv2.flip(pixels, 1) if mirrored else pixels
    return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _list_slides(plan: CopyPlan, hashes: list[str]) -> pd.DataFrame:
    """Returns id and slide of every copy: the slide of its source, else the first id among the sources of equal pixels."""
    table = plan.source.table[["id", "slide"]].assign(pixels=hashes)
    equal = table.groupby("pixels", sort=False)
    slides = table["slide"].where(table["slide"] != "", equal["slide"].transform("max"))
    slides = slides.where(slides != "", equal["id"].transform("first"))
    of_file = [(file, slide) for files, slide in zip(plan.files, slides, strict=True) for file in files]
    ids = name_files([file for file, _ in of_file])
    return pd.DataFrame({"id": ids, "slide": [slide for _, slide in of_file]})
