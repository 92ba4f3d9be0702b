"""The competition's CSV: ids and probabilities in, a checked file `id,label` out, where label is the probability.

The sample submission gives the ids and their order. Files may be plain or gzipped (`.gz`).
"""

import csv
import gzip
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from histopath.config import home
from histopath.data.kaggle import COMPETITION
from histopath.files import InputError, make_folder, replacing

HEADER = ["id", "label"]


def _read_rows(file: Path) -> list[list[str]]:
    """Lines of a CSV after the header `id,label`, each split in two fields.

    Raises:
        InputError: when there is no such file; when it is a folder, or not a CSV text with the
            header `id,label`, a row, and two fields on every line.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder: give the path of a CSV file with the columns id,label.")
    if not file.is_file():
        raise InputError(f"{file} is not there: give the path of an existing CSV file with the columns id,label.")
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error, OSError, zlib.error, EOFError) as error:
        raise InputError(f"{file} is no CSV text ({error}): write it again with `histopath submit`.") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or lines[0] != HEADER:
        found = ",".join(lines[0])[:80] if lines else ""
        raise InputError(f"{file} begins with '{found}' where 'id,label' was expected: make this its first line.")
    if len(lines) == 1:
        raise InputError(f"{file} has a header and no rows: write it again with one row a test patch.")
    wrong = [number for number, line in enumerate(lines, 1) if len(line) != 2]
    if wrong:
        raise InputError(
            f"{file} has {len(wrong):,} lines without exactly two fields, the first is line {wrong[0]}: "
            "write every line as id,probability."
        )
    return lines[1:]


def read_ids(file: Path | str) -> list[str]:
    """Ids of a sample submission, in its order.

    Raises:
        InputError: when there is no such file; when it is no `id,label` CSV, or repeats an id.
    """
    ids = [line[0] for line in _read_rows(Path(file))]
    _require_unique(ids, str(file))
    return ids


def _require_unique(ids: list[str], where: str) -> None:
    """Raises an InputError when an id stands twice; `where` opens the sentence."""
    repeated = pd.Series(ids, dtype=object).duplicated().to_numpy()
    if repeated.any():
        raise InputError(
            f"{where} repeats {repeated.sum():,} ids, the first is {ids[int(repeated.argmax())]}: keep each id once."
        )


def _require_same_ids(ids: list[str], expected: list[str], where: str, sample: Path) -> None:
    """Raises an InputError when the ids are not those of the sample submission; `where` opens the sentence."""
    given, wanted = set(ids), set(expected)
    missing = [name for name in expected if name not in given]
    if missing:
        raise InputError(
            f"{where} lacks {len(missing):,} of the {len(expected):,} ids of {sample}, the first is {missing[0]}: "
            "predict the test patches that this sample submission belongs to."
        )
    other = [name for name in ids if name not in wanted]
    if other:
        raise InputError(
            f"{where} has {len(other):,} ids that are not in {sample}, the first is {other[0]}: "
            "predict only the test patches that this sample submission belongs to."
        )


def write_submission(ids: list[str], probabilities: np.ndarray, sample_file: Path | str, out: Path | str) -> Path:
    """Write the probabilities as a submission, with the rows and the order of the sample submission.

    Args:
        ids: N ids, in any order.
        probabilities: probability of tumor for each id, (N,), in [0, 1]; written with 6 decimals.
        sample_file: the competition's `sample_submission.csv`.
        out: file to write; it is complete or absent, also after an interruption.

    Returns:
        The path of the file written.

    Raises:
        InputError: when the sample submission is not there; when ids and probabilities do not
            fit each other or the sample, or a probability is out of range.
    """
    ids, probabilities = [str(name) for name in ids], np.asarray(probabilities, dtype=np.float64)
    expected = read_ids(sample_file)
    if probabilities.shape != (len(ids),):
        raise InputError(f"there are {len(ids):,} ids and probabilities of shape {probabilities.shape}: give one for each id.")
    _require_unique(ids, "the prediction")
    _require_same_ids(ids, expected, "the prediction", Path(sample_file))
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"the prediction has {wrong.sum():,} probabilities that are not in [0, 1], the first is "
            f"{probabilities[first]} for {ids[first]}: pass the output of the sigmoid."
        )
    by_id = dict(zip(ids, probabilities, strict=True))
    lines = [",".join(HEADER), *(f"{name},{by_id[name]:.6f}" for name in expected)]
    content = ("\n".join(lines) + "\n").encode()
    out = Path(out)
    make_folder(out.parent)
    with replacing(out) as part:
        part.write_bytes(gzip.compress(content, mtime=0) if out.suffix == ".gz" else content)
    return out


def check_submission(file: Path | str, sample: Path | str) -> dict:
    """Check a submission as the competition does, and sum it up.

    Args:
        file: the submission.
        sample: the competition's `sample_submission.csv`.

    Returns:
        `rows`, `lowest`, `mean` and `highest` probability, `positives` (rows at 0.5 or above), and `same_order`
        (whether the rows stand in the order of the sample; the competition accepts any).

    Raises:
        InputError: when one of the files is not there; naming the file, what is wrong, how
            often, and the first line where it is.
    """
    file, sample = Path(file), Path(sample)
    expected = read_ids(sample)
    rows = _read_rows(file)
    ids = [row[0] for row in rows]
    _require_unique(ids, str(file))
    _require_same_ids(ids, expected, str(file), sample)
    values = pd.to_numeric(pd.Series([row[1] for row in rows]), errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{file} has {wrong.sum():,} labels that are not numbers in [0, 1], the first is '{rows[first][1]}' in "
            f"line {first + 2}: write the probability of tumor."
        )
    return {
        "rows": len(rows),
        "lowest": float(values.min()),
        "mean": float(values.mean()),
        "highest": float(values.max()),
        "positives": int((values >= 0.5).sum()),
        "same_order": ids == expected,
    }


def upload_command(file: Path) -> str:
    """Returns the Kaggle command that uploads a submission, to be run in `config.home()`."""
    place = file.relative_to(home()) if file.is_relative_to(home()) else file
    return f'kaggle competitions submit -c {COMPETITION} -f {place} -m "Histopathologic Cancer Detector"'
