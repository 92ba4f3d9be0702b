"""Reads the CSV tables that come with patches, as text; refuses wrong ones in one sentence. In: a path. Out: rows.

Also makes the one table of patches that every layout is read into.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histopath.files import InputError

COLUMNS = ["id", "label", "slide", "part", "file", "index"]


def make_table(ids: Sequence, labels: Any, part: Any, files: Sequence, index: Any = 0) -> pd.DataFrame:
    """Puts the columns of a table together, each a sequence or one value for all rows; the slide is unknown."""
    table = pd.DataFrame({"id": pd.Series(ids, dtype="str"), "label": labels, "slide": "", "part": part})
    table["file"], table["index"] = pd.Series(files, dtype="str"), index
    return table.astype({"label": "int64", "index": "int64", "slide": "str", "part": "str"})[COLUMNS]


def name_files(files: Sequence[str]) -> list[str]:
    """Returns the ids of image files: their stems, or, when stems repeat, their paths without suffix."""
    ids = [os.path.splitext(os.path.basename(file))[0] for file in files]
    return ids if len(set(ids)) == len(ids) else [os.path.splitext(file)[0] for file in files]


def read_slides(slide_table: Path | str) -> pd.Series:
    """Reads which patch comes from which slide.

    Args:
        slide_table: CSV with the columns `id` and `slide` or `wsi`.

    Returns:
        Slide names with the patch ids as index.

    Raises:
        InputError: when the CSV is missing; when a column is missing or one id stands on two
            slides.
    """
    path = Path(slide_table).expanduser()
    rows = read_csv(path, ["id"], "id,slide")
    column = next((name for name in ("slide", "wsi") if name in rows), None)
    if column is None:
        raise InputError(f"{path} has no column slide or wsi, only {', '.join(rows)}; name one of its columns slide.")
    slides = rows[["id", column]].drop_duplicates().set_index("id")[column]
    refuse(slides.index[slides.index.duplicated()], f"{path} puts", "on two slides; keep one row an id")
    return slides


def join_slides(table: pd.DataFrame, slides: pd.Series) -> pd.DataFrame:
    """Fills the column `slide` by id; ids that the table lacks are ignored, patches without a slide get "".

    Raises:
        InputError: when not one id of the slide table is among the patches.
    """
    if not table["id"].isin(slides.index).any():
        raise InputError(
            f"None of the ids of the slide table (first: {slides.index[0]}) is a patch of this data; give its own table."
        )
    return table.assign(slide=table["id"].map(slides).fillna("").astype("str"))


def read_csv(path: Path, columns: list[str], wanted: str = "") -> pd.DataFrame:
    """Reads a CSV as text; refuses a missing, empty or unreadable file and missing columns in one sentence."""
    expected = f"it must be a CSV with the columns {wanted or ','.join(columns)} and a row a patch."
    try:
        rows = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {expected}") from None
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}); {expected}") from None
    missing = [name for name in columns if name not in rows]
    if rows.empty:
        raise InputError(f"{path} is empty; {expected}")
    if missing:
        raise InputError(f"{path} has no column {missing[0]}, only {', '.join(rows)}; {expected}")
    return rows.apply(lambda column: column.str.strip())


def refuse(wrong: Sequence[str] | pd.Index | pd.Series, before: str, after: str) -> None:
    """Raises an InputError when there are wrong ids; the sentence names how many and the first between its halves."""
    if len(wrong):
        ids = "1 id" if len(wrong) == 1 else f"{len(wrong):,} ids"
        raise InputError(f"{before} {ids} (first: {next(iter(wrong))}) {after}.")
