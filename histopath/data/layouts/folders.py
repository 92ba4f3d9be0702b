"""Reads folders of images whose names are the classes. In: a folder. Out: layout, table of patches, class names; or None.

Class folders: `<class>/`, or `<part>/<class>/` with the parts train, valid (or val) and test, or loose images without labels.
Multi Cancer (system 3): `<cancer>/<subclass>/`, as its archive comes; its 26 subclasses are those of `tasks.py`.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from histopath.data.layouts.tables import make_table, name_files, refuse
from histopath.data.tasks import SUBCLASSES
from histopath.files import InputError

PARTS = ("train", "valid", "test")
PART_FOLDERS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
ALL_PARTS = frozenset(name for names in PART_FOLDERS.values() for name in names)
SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".gif"})
TUMOR_NAMES = ("no_tumor", "tumor")
TUMOR_WORDS = re.compile("tumou?r|cancer|carcinoma|malign|metasta|positive")
HEALTHY_WORDS = re.compile(r"(^|[^a-z])(no|non|not|without)([^a-z]|$)|normal|benign|negative|healthy|^non|^no")
WRAPPER = "Multi Cancer"  # the folder, once or twice, in which the archive of the set keeps its eight


def scan_folder(folder: Path) -> tuple[list[str], list[str]]:
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
        raise InputError(f"The folder {folder} cannot be read ({error.strerror}); allow reading it.") from None
    return sorted(names), folders


# Multi Cancer ---------------------------------------------------------------------------------------------------------


def read_multi_cancer(root: Path) -> tuple | None:
    """Reads the Multi Cancer set; the class names are always all 26, so that a label means the same in a part of it."""
    outer, base = [], root
    folders = scan_folder(base)[1]
    while folders == [WRAPPER]:
        outer.append(base)
        base = base / WRAPPER
        folders = scan_folder(base)[1]
    cancers = [base / name for name in folders]
    if not any((cancer / name).is_dir() for cancer in cancers if cancer.name not in ALL_PARTS for name in SUBCLASSES):
        return None
    for folder in (*outer, base, *cancers):
        loose = scan_folder(folder)[0]
        if loose:
            raise InputError(f"{folder} holds loose images (first: {loose[0]}) beside folders of subclasses; move them away.")
    labels = {name: label for label, name in enumerate(SUBCLASSES)}
    rows = [
        (labels[name], "train", _prefix(root, cancer, name) + file)
        for cancer in cancers
        for name in scan_folder(cancer)[1]
        for file in _list_subclass(cancer / name)
    ]
    return "multi-cancer", _name_patches(root, rows), tuple(SUBCLASSES)


def _list_subclass(folder: Path) -> list[str]:
    """Returns the names of the images of one subclass; refuses an unknown name, an empty folder and folders in it."""
    if folder.name not in SUBCLASSES:
        close = get_close_matches(folder.name.lower(), SUBCLASSES, cutoff=0.7)
        known = f"close to {' and '.join(close)}" if close else f"known are {', '.join(SUBCLASSES)}"
        raise InputError(f"{folder} has the name of no Multi Cancer subclass ({known}); rename it or move it away.")
    names, folders = scan_folder(folder)
    if folders:
        raise InputError(f"{folder / folders[0]} is a folder among images; put all images of a class directly into its folder.")
    if not names:
        raise InputError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); restore them or remove the folder.")
    return names


# Class folders --------------------------------------------------------------------------------------------------------


def read_class_folders(root: Path) -> tuple | None:
    """Reads class folders at the root or under part folders; images that stand loose are unlabeled."""
    names, folders = scan_folder(root)
    parts = {part: root / name for part in PARTS for name in PART_FOLDERS[part] if name in folders}
    if len(parts) < sum(name in folders for name in ALL_PARTS):
        raise InputError(f"{root} holds two folders for one part, such as val and valid; keep one of them.")
    if not parts:
        parts = {"train" if any(scan_folder(root / name)[0] for name in folders) else "test": root}
    elif names:
        raise InputError(f"{root} holds loose images (first: {names[0]}) beside folders of parts; move them away.")
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
    """Numbers before names; of two names the one that says tumor comes second, so that it is class 1."""
    order = sorted(classes, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    if len(order) != 2 or order[1].isdecimal():
        return order
    tumor = [name for name in order if TUMOR_WORDS.search(name.lower()) and not HEALTHY_WORDS.search(name.lower())]
    if len(tumor) != 1:
        raise InputError(f"{root} has the classes {' and '.join(order)}; rename them 0 and 1 so that 1 is the tumor.")
    return [name for name in order if name != tumor[0]] + tumor


def _prefix(root: Path, part: Path, name: str | None) -> str:
    """Returns what stands before the image names of one class in the column `file`."""
    folder = part / name if name else part
    return "" if folder == root else folder.relative_to(root).as_posix() + "/"


def _list_classes(folder: Path) -> dict[str | None, list[str]]:
    """Returns class name → image names of one part; the key None holds images that stand loose."""
    loose, folders = scan_folder(folder)
    scans = {name: scan_folder(folder / name) for name in folders}
    listing = {name: names for name, (names, _) in scans.items() if names}
    nested = [folder / name / scans[name][1][0] for name in listing if scans[name][1]]
    if nested:
        raise InputError(f"{nested[0]} is a folder among images; put all images of a class directly into its folder.")
    if loose and listing:
        raise InputError(f"{folder} holds loose images (first: {loose[0]}) beside class folders; move them away.")
    return {None: loose} if loose else listing


def _name_patches(root: Path, rows: list[tuple[int, str, str]]) -> pd.DataFrame:
    """Turns (label, part, file) into a table; ids are stems, or paths without suffix when stems repeat."""
    labels, parts, files = (list(column) for column in zip(*rows, strict=True))
    ids = name_files(files)
    repeated = pd.Index(ids)[pd.Index(ids).duplicated()]
    refuse(repeated, f"{root} holds two files for", "with different suffixes; keep one of them")
    return make_table(ids, labels, parts, files)
