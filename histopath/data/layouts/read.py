"""Recognizes how a folder of patches is laid out and reads its table. In: a folder. Out: a Source, one row a patch.

Known layouts: the Kaggle competition's, PCam's HDF5 files, the Multi Cancer set, class folders of images, loose images
without labels; the last three are read in `folders.py`.
Every mistake in the tables is found here, before a pixel is read.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histopath.data.layouts import pcam
from histopath.data.layouts.folders import PARTS, TUMOR_NAMES, read_class_folders, read_multi_cancer, scan_folder
from histopath.data.layouts.tables import join_slides, make_table, read_csv, read_slides, refuse
from histopath.files import InputError, stamp_paths

# `patch_id_wsi_full.csv` (columns id, wsi) is the map of patches to slides that the competition's community shares.
SLIDE_TABLES = ("slides.csv", "patch_id_wsi_full.csv", "patch_id_wsi.csv")
SAMPLED_FILES = 1024
PCAM_PATTERN = re.compile(r"camelyonpatch_level_2_split_(train|valid|test)_([xy])\.h5(\.gz)?")


@dataclass(frozen=True)
class Source:
    """A folder of patches that has been understood.

    Attributes:
        root: the folder, absolute.
        layout: `kaggle`, `pcam-hdf5`, `multi-cancer` or `class-folders`.
        table: one row a patch, in packing order: `id`, `label` (-1 = unknown), `slide` ("" = unknown), `part` (train,
            valid or test), `file` (relative to root), `index` (row in an HDF5 file, else 0).
        class_names: name of label 0, 1, …
    """

    root: Path
    layout: str
    table: pd.DataFrame
    class_names: tuple[str, ...]


def read_source(root: Path | str) -> Source:
    """Recognizes a layout and reads its labels, slides and list of files; no image is opened.

    Args:
        root: the folder that holds the data, and perhaps `slides.csv` (columns `id` and `slide`) or
            `patch_id_wsi_full.csv` (columns `id` and `wsi`).

    Returns:
        The source; its rows run over train, valid and test.

    Raises:
        InputError: when the folder or a file that it must hold is missing; when the layout is
            unknown or a table is wrong; the text names the file and the cure.
    """
    root = check_folder(root)
    for read in (_read_pcam, _read_kaggle, read_multi_cancer, read_class_folders):
        found = read(root)
        if found:
            break
    else:
        raise InputError(
            f"{root} is no known layout: looked for train_labels.csv with train/ or test/ (Kaggle), "
            f"camelyonpatch_level_2_split_train_x.h5 (PCam), folders such as ALL/all_benign/ of images (Multi Cancer), class "
            f"folders such as 0/ and 1/ of images, or images directly in it (.tif, .png, .jpg, .webp, .gif); give the folder "
            f"that holds one of these."
        )
    layout, table, class_names = found
    slide_table = find_slide_table(root)
    table = join_slides(table, read_slides(slide_table)) if slide_table else table
    return Source(root, layout, table.reset_index(drop=True), class_names)


def find_slide_table(root: Path) -> Path | None:
    """Returns the slide table that stands in the folder, or None."""
    return next((root / name for name in SLIDE_TABLES if (root / name).is_file()), None)


def check_folder(root: Path | str) -> Path:
    """Returns the absolute path of an existing folder.

    Raises:
        InputError: when there is none; the text says which path was looked at.
    """
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        kind = "is a file, not a folder" if path.exists() else "does not exist"
        raise InputError(f"The data folder {path} {kind}; give the folder that holds the patches.")
    return path


def stamp_source(source: Source) -> dict:
    """Returns path → [size, mtime in ns] of folders, tables, HDF5 files and some of the images."""
    files = source.table["file"].unique()
    sampled = files[np.linspace(0, len(files) - 1, min(len(files), SAMPLED_FILES)).astype(int)]
    innermost = {os.path.dirname(file) for file in files}
    folders = {str(parent) for folder in innermost for parent in Path(folder, "_").parents}
    tables = {path.name for path in source.root.iterdir() if path.suffix in (".csv", ".h5", ".gz")}
    return stamp_paths(source.root, sorted({*sampled, *folders, *tables, *SLIDE_TABLES}))


# Kaggle ---------------------------------------------------------------------------------------------------------------


def _read_kaggle(root: Path) -> tuple | None:
    """Reads train/ with train_labels.csv and test/ with sample_submission.csv; either part may be missing."""
    csvs = {"train": "train_labels.csv", "test": "sample_submission.csv"}
    scans = {part: scan_folder(root / part) for part in csvs}
    has_csv = any((root / name).is_file() for name in csvs.values())
    if not has_csv and (not any(names for names, _ in scans.values()) or any(folders for _, folders in scans.values())):
        return None
    parts = [_read_kaggle_part(root, part, scans[part][0], csvs[part]) for part in csvs if (root / part).is_dir()]
    if not parts:
        names = " or ".join(csvs.values())
        raise InputError(f"{root} holds {names} but neither train/ nor test/; unpack the images there.")
    table = pd.concat(parts, ignore_index=True)
    refuse(table["id"][table["id"].duplicated()], f"{root} holds", "in both train/ and test/; keep one file an id")
    return "kaggle", table, TUMOR_NAMES


def _read_kaggle_part(root: Path, part: str, names: list[str], csv_name: str) -> pd.DataFrame:
    """Joins the files of one folder with their CSV, in the order of the CSV."""
    path = root / csv_name
    stems = [os.path.splitext(name)[0] for name in names]
    files = pd.Series([f"{part}/{name}" for name in names], index=pd.Index(stems, dtype="str"), dtype="str")
    refuse(
        files.index[files.index.duplicated()],
        f"{root / part} holds two files for",
        "with different suffixes; keep one file an id",
    )
    if part == "test" and not path.is_file():
        return make_table(list(files.index), -1, part, files.to_numpy())
    rows = read_csv(path, ["id", "label"] if part == "train" else ["id"])
    ids = pd.Index(rows["id"])
    refuse(ids[ids.duplicated()], f"{path} lists", "more than once; keep one row an id")
    after = f"without a file in {root / part}; restore the files or remove the rows"
    refuse(ids[~ids.isin(files.index)], f"{path} lists", after)
    after = f"not listed in {path}; add the rows or remove the files"
    refuse(files.index[~files.index.isin(ids)], f"{root / part} holds files for", after)
    labels = _check_labels(rows, path) if part == "train" else -1
    return make_table(ids, labels, part, files.loc[ids].to_numpy())


def _check_labels(rows: pd.DataFrame, path: Path) -> np.ndarray:
    """Returns the labels as integers; refuses everything but 0 and 1."""
    labels = pd.to_numeric(rows["label"], errors="coerce")
    wrong = rows[~labels.isin([0, 1])]
    if len(wrong):
        example = wrong["label"].iloc[0]
        refuse(wrong["id"], f"{path} gives", f"labels other than 0 and 1, such as {example!r}; correct the rows")
    return labels.to_numpy("int64")


# PCam -----------------------------------------------------------------------------------------------------------------


def _read_pcam(root: Path) -> tuple | None:
    """Reads the HDF5 files of the parts that are there, plain ones before compressed ones."""
    files = {}
    for path in sorted(root.glob("camelyonpatch_*.h5*"), reverse=True):  # x.h5 comes after x.h5.gz and replaces it
        match = PCAM_PATTERN.fullmatch(path.name)
        if match and path.is_file():
            files[match[1], match[2]] = path
    if not files:
        return None
    tables = [_read_pcam_part(root, part, files) for part in PARTS if (part, "x") in files or (part, "y") in files]
    return "pcam-hdf5", pd.concat(tables, ignore_index=True), TUMOR_NAMES


def _read_pcam_part(root: Path, part: str, files: dict) -> pd.DataFrame:
    """Reads labels and slides of one part; test may lack its labels."""
    name = f"camelyonpatch_level_2_split_{part}"
    x, y = files.get((part, "x")), files.get((part, "y"))
    if x is None or (y is None and part != "test"):
        missing = root / f"{name}_{'x' if x is None else 'y'}.h5"
        raise InputError(f"{missing} is missing beside {(y or x).name}; download it into the same folder.")
    labels = -1 if y is None else pcam.read_labels(y)
    if x.suffix == ".gz" and y is not None:
        count = len(labels)  # the patches are counted when the file has been decompressed
    else:
        count = pcam.count_patches(x, None if y is None else len(labels))
    table = make_table([f"{part}_{row:07d}" for row in range(count)], labels, part, [x.name] * count, np.arange(count))
    meta = root / f"{name}_meta.csv"
    return table.assign(slide=_read_pcam_slides(meta, count)) if meta.is_file() else table


def _read_pcam_slides(path: Path, count: int) -> np.ndarray:
    """Reads the column `wsi` of a PCam meta file, one row a patch in the order of the HDF5 file."""
    slides = read_csv(path, ["wsi"])["wsi"]
    if len(slides) != count:
        raise InputError(f"{path} has {len(slides):,} rows for {count:,} patches; download the file again.")
    return slides.to_numpy()
