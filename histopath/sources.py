"""Recognises how a folder of patches is laid out and reads its table. In: a folder. Out: a Source, one row a patch.

Known layouts: the Kaggle competition's, PCam's HDF5 files, class folders of images, loose images without labels.
Every mistake in the tables is found here, before a pixel is read.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histopath import pcam
from histopath.tables import join_slides, read_csv, read_slides, refuse

PARTS = ("train", "valid", "test")
PART_FOLDERS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp"})
COLUMNS = ["id", "label", "slide", "part", "file", "index"]
TUMOR_NAMES = ("no_tumor", "tumor")
# `patch_id_wsi_full.csv` (columns id, wsi) is the map of patches to slides that the competition's community shares.
SLIDE_TABLES = ("slides.csv", "patch_id_wsi_full.csv", "patch_id_wsi.csv")
KAGGLE_INPUTS = (
    Path("/kaggle/input/histopathologic-cancer-detection"),
    Path("/kaggle/input/competitions/histopathologic-cancer-detection"),
)
PCAM_PATTERN = re.compile(r"camelyonpatch_level_2_split_(train|valid|test)_([xy])\.h5(\.gz)?")


TUMOUR_WORDS = re.compile("tumou?r|cancer|carcinoma|malign|metasta|positive")
HEALTHY_WORDS = re.compile(r"(^|[^a-z])(no|non|not|without)([^a-z]|$)|normal|benign|negative|healthy|^non|^no")


@dataclass(frozen=True)
class Source:
    """A folder of patches that has been understood.

    Attributes:
        root: the folder, absolute.
        layout: `kaggle`, `pcam-hdf5` or `class-folders`.
        table: one row a patch, in packing order: `id`, `label` (-1 = unknown), `slide` ("" = unknown), `part` (train,
            valid or test), `file` (relative to root), `index` (row in an HDF5 file, else 0).
        class_names: name of label 0, 1, …
    """

    root: Path
    layout: str
    table: pd.DataFrame
    class_names: tuple[str, ...]


def read_source(root: Path | str, slide_table: Path | str | None = None) -> Source:
    """Recognises a layout and reads its labels, slides and list of files; no image is opened.

    Args:
        root: the folder that holds the data.
        slide_table: CSV with the columns `id` and `slide` (or `wsi`); without it `slides.csv`, `patch_id_wsi_full.csv`
            or `patch_id_wsi.csv` is taken from the root when one is there.

    Returns:
        The source; its rows run over train, valid and test.

    Raises:
        FileNotFoundError: when the folder or a file that it must hold is missing.
        ValueError: when the layout is unknown or a table is wrong; the text names the file and the cure.
    """
    root = check_folder(root)
    for read in (_read_pcam, _read_kaggle, _read_folders):
        found = read(root)
        if found:
            break
    else:
        raise ValueError(
            f"{root} is no known layout: looked for train_labels.csv with train/ or test/ (Kaggle), "
            f"camelyonpatch_level_2_split_train_x.h5 (PCam), class folders such as 0/ and 1/ of images, or images "
            f"directly in it (.tif, .png, .jpg, .webp); give the folder that holds one of these."
        )
    layout, table, class_names = found
    slide_table = slide_table or find_slide_table(root)
    table = join_slides(table, read_slides(slide_table)) if slide_table else table
    return Source(root, layout, table.reset_index(drop=True), class_names)


def find_kaggle_data() -> Path | None:
    """Returns the competition's folder as mounted in a Kaggle notebook, or None elsewhere."""
    return next((folder for folder in KAGGLE_INPUTS if folder.is_dir()), None)


def find_slide_table(root: Path) -> Path | None:
    """Returns the slide table that stands in the folder, or None."""
    return next((root / name for name in SLIDE_TABLES if (root / name).is_file()), None)


def check_folder(root: Path | str) -> Path:
    """Returns the absolute path of an existing folder.

    Raises:
        FileNotFoundError: when there is none; the text says which path was looked at.
    """
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        kind = "is a file, not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"The data folder {path} {kind}; give the folder that holds the patches.")
    return path


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the sorted names of the images and of the folders in a folder; hidden entries are left out."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith((".", "__"))]
            folders = sorted(entry.name for entry in visible if entry.is_dir())
            known = set(folders)
            names = [e.name for e in visible if os.path.splitext(e.name)[1].lower() in SUFFIXES and e.name not in known]
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise ValueError(f"The folder {folder} cannot be read ({error.strerror}); allow reading it.") from None
    return sorted(names), folders


def _make_table(ids: Sequence, labels: Any, part: Any, files: Sequence, index: Any = 0) -> pd.DataFrame:
    """Puts the columns of a table together, each a sequence or one value for all rows; the slide is unknown."""
    table = pd.DataFrame({"id": pd.Series(ids, dtype="str"), "label": labels, "slide": "", "part": part})
    table["file"], table["index"] = pd.Series(files, dtype="str"), index
    return table.astype({"label": "int64", "index": "int64", "slide": "str", "part": "str"})[COLUMNS]


# Kaggle ---------------------------------------------------------------------------------------------------------------


def _read_kaggle(root: Path) -> tuple | None:
    """Reads train/ with train_labels.csv and test/ with sample_submission.csv; either part may be missing."""
    csvs = {"train": "train_labels.csv", "test": "sample_submission.csv"}
    scans = {part: _scan(root / part) for part in csvs}
    has_csv = any((root / name).is_file() for name in csvs.values())
    if not has_csv and (not any(names for names, _ in scans.values()) or any(folders for _, folders in scans.values())):
        return None
    parts = [_read_kaggle_part(root, part, scans[part][0], csvs[part]) for part in csvs if (root / part).is_dir()]
    if not parts:
        names = " or ".join(csvs.values())
        raise FileNotFoundError(f"{root} holds {names} but neither train/ nor test/; unpack the images there.")
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
        return _make_table(list(files.index), -1, part, files.to_numpy())
    rows = read_csv(path, ["id", "label"] if part == "train" else ["id"])
    ids = pd.Index(rows["id"])
    refuse(ids[ids.duplicated()], f"{path} lists", "more than once; keep one row an id")
    after = f"without a file in {root / part}; restore the files or remove the rows"
    refuse(ids[~ids.isin(files.index)], f"{path} lists", after)
    after = f"not listed in {path}; add the rows or remove the files"
    refuse(files.index[~files.index.isin(ids)], f"{root / part} holds files for", after)
    labels = _check_labels(rows, path) if part == "train" else -1
    return _make_table(ids, labels, part, files.loc[ids].to_numpy())


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
        raise FileNotFoundError(f"{missing} is missing beside {(y or x).name}; download it into the same folder.")
    labels = -1 if y is None else pcam.read_labels(y)
    if x.suffix == ".gz" and y is not None:
        count = len(labels)  # the patches are counted when the file has been decompressed
    else:
        count = pcam.count_patches(x, None if y is None else len(labels))
    table = _make_table([f"{part}_{row:07d}" for row in range(count)], labels, part, [x.name] * count, np.arange(count))
    meta = root / f"{name}_meta.csv"
    return table.assign(slide=_read_pcam_slides(meta, count)) if meta.is_file() else table


def _read_pcam_slides(path: Path, count: int) -> np.ndarray:
    """Reads the column `wsi` of a PCam meta file, one row a patch in the order of the HDF5 file."""
    slides = read_csv(path, ["wsi"])["wsi"]
    if len(slides) != count:
        raise ValueError(f"{path} has {len(slides):,} rows for {count:,} patches; download the file again.")
    return slides.to_numpy()


# Class folders --------------------------------------------------------------------------------------------------------


def _read_folders(root: Path) -> tuple | None:
    """Reads class folders at the root or under part folders; images that stand loose are unlabelled."""
    names, folders = _scan(root)
    parts = {part: root / name for part in PARTS for name in PART_FOLDERS[part] if name in folders}
    if len(parts) < sum(name in folders for names in PART_FOLDERS.values() for name in names):
        raise ValueError(f"{root} holds two folders for one part, such as val and valid; keep one of them.")
    if not parts:
        parts = {"train" if any(_scan(root / name)[0] for name in folders) else "test": root}
    elif names:
        raise ValueError(f"{root} holds loose images (first: {names[0]}) beside folders of parts; move them away.")
    found = {part: _list_classes(folder) for part, folder in parts.items()}
    classes = {name for listing in found.values() for name in listing if name is not None}
    if not any(found.values()):
        return None
    order = _order_classes(root, classes)
    class_names = TUMOR_NAMES if classes <= {"0", "1"} else tuple(order)
    label_of = {"0": 0, "1": 1} if classes <= {"0", "1"} else {name: label for label, name in enumerate(order)}
    rows = [
        (label_of.get(name, -1), part, prefix + file)
        for part in PARTS
        for name in sorted(found.get(part, {}), key=str)
        for prefix in [_prefix(root, parts[part], name)]
        for file in found[part][name]
    ]
    return "class-folders", _name_patches(root, rows), class_names


def _order_classes(root: Path, classes: set[str]) -> list[str]:
    """Numbers before names; of two names the one that says tumour comes second, so that it is class 1."""
    order = sorted(classes, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if len(order) != 2 or order[1].isdecimal():
        return order
    tumour = [name for name in order if TUMOUR_WORDS.search(name.lower()) and not HEALTHY_WORDS.search(name.lower())]
    if len(tumour) != 1:
        raise ValueError(f"{root} has the classes {' and '.join(order)}; rename them 0 and 1 so that 1 is the tumour.")
    return [name for name in order if name != tumour[0]] + tumour


def _prefix(root: Path, part: Path, name: str | None) -> str:
    """Returns what stands before the image names of one class in the column `file`."""
    folder = part / name if name else part
    return "" if folder == root else folder.relative_to(root).as_posix() + "/"


def _list_classes(folder: Path) -> dict[str | None, list[str]]:
    """Returns class name → image names of one part; the key None holds images that stand loose."""
    loose, folders = _scan(folder)
    scans = {name: _scan(folder / name) for name in folders}
    listing = {name: names for name, (names, _) in scans.items() if names}
    nested = [folder / name / scans[name][1][0] for name in listing if scans[name][1]]
    if nested:
        raise ValueError(f"{nested[0]} is a folder among images; put all images of a class directly into its folder.")
    if loose and listing:
        raise ValueError(f"{folder} holds loose images (first: {loose[0]}) beside class folders; move them away.")
    return {None: loose} if loose else listing


def _name_patches(root: Path, rows: list[tuple[int, str, str]]) -> pd.DataFrame:
    """Turns (label, part, file) into a table; ids are stems, or paths without suffix when stems repeat."""
    labels, parts, files = (list(column) for column in zip(*rows, strict=True))
    ids = [os.path.splitext(os.path.basename(file))[0] for file in files]
    if len(set(ids)) < len(ids):
        ids = [os.path.splitext(file)[0] for file in files]
    repeated = pd.Index(ids)[pd.Index(ids).duplicated()]
    refuse(repeated, f"{root} holds two files for", "with different suffixes; keep one of them")
    return _make_table(ids, labels, parts, files)
