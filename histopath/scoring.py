"""A run meets patches: scores, tables of probabilities, submissions. In: Run and PatchSet. Out: numbers and CSV files."""

from pathlib import Path

import numpy as np
import pandas as pd

from histopath.evaluation import evaluate, format_interval
from histopath.files import write_table
from histopath.inference import predict
from histopath.patches import PatchSet
from histopath.runs import Run, scored_rows
from histopath.sample import is_synthetic
from histopath.submission import check_submission, read_ids, write_submission


def score_run(run: Run, patches: PatchSet, views: int = 8, progress: bool = False) -> dict:
    """Scores a run on labelled patches that neither trained it nor chose its checkpoint or threshold.

    Args:
        run: a finished run.
        patches: labelled patches: those of its training (only the holdout is scored) or others.
        views: 8 or 1.
        progress: show a progress bar.

    Returns:
        `run`, `data`, `scored` (which patches, in words), `grouping`, `synthetic`, `views`, and everything that
        `evaluation.evaluate` returns.

    Raises:
        ValueError: when no such patch is left, or one class only.
    """
    if len(patches.class_names) > 2:
        raise ValueError(f"{patches.root} has {len(patches.class_names)} classes and this network tells two apart.")
    rows, words = scored_rows(run, patches)
    p = predict(run.network, patches.images, rows["row"], views, run.config.predict_batch, progress)
    slides = rows["slide"].to_numpy() if (rows["slide"] != "").all() else None
    scores = evaluate(rows["label"].to_numpy(), p, run.metrics["threshold"], slides)
    about = {"run": run.folder.name, "data": patches.root.name, "scored": words, "grouping": _describe_slides(run, rows)}
    about |= {"synthetic": is_synthetic(patches.root)}
    return {**about, "views": views, **scores}


def describe_scores(scores: dict) -> str:
    """Says the scores of `score_run` in three lines, or four, with counts and interval."""
    auc = format_interval("AUC", scores["auc"], scores["auc_low"], scores["auc_high"], scores["patches"])
    sides = f"sensitivity {scores['sensitivity']:.3f}, specificity {scores['specificity']:.3f}"
    synthetic = ["the data is the synthetic sample: this score says nothing about medicine"] * scores["synthetic"]
    return "\n".join(
        [
            f"{auc}, {scores['positives']:,} of them tumour ({scores['interval']}; {_count_views(scores['views'])})",
            f"accuracy {scores['accuracy']:.3f}, {sides} at threshold {scores['threshold']:.3f}, chosen on val",
            f"run {scores['run']} on {scores['data']}: {scores['scored']}; {scores['grouping']}",
            *synthetic,
        ]
    )


def _count_views(views: int) -> str:
    return "1 view" if views == 1 else f"{views} views"


def _describe_slides(run: Run, rows: pd.DataFrame) -> str:
    """Says whether slides are known to be kept apart between what was learned and what is scored."""
    if (rows["slide"] != "").all() and (run.splits["slide"] != "").all():
        return f"no slide of its training among them ({rows['slide'].nunique()} slides)"
    return "slides unknown: some may be those of its training, so the score may be too high"


def predict_table(run: Run, patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> pd.DataFrame:
    """Predicts every patch, labelled or not, and writes `id,probability`.

    Returns:
        The table as written, one row a patch in the order of the data.
    """
    p = predict(run.network, patches.images, None, views, run.config.predict_batch, progress)
    table = pd.DataFrame({"id": patches.table["id"], "probability": p})
    write_table(out, table)
    return table


def submit_run(run: Run, patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> dict:
    """Predicts the patches that `sample_submission.csv` lists and writes a checked Kaggle CSV.

    Returns:
        What `submission.check_submission` found in the file.

    Raises:
        FileNotFoundError: when the data has no `sample_submission.csv`.
        ValueError: when a listed id has no patch.
    """
    sample = patches.root / "sample_submission.csv"
    ids = read_ids(sample)
    rows = find_rows(patches, ids)
    p = predict(run.network, patches.images, rows, views, run.config.predict_batch, progress)
    write_submission(ids, p, sample, out)
    return check_submission(out, sample)


def find_rows(patches: PatchSet, ids: list[str]) -> np.ndarray:
    """Returns the row of each test id, in the order of `ids`.

    Raises:
        ValueError: when an id has no patch in the test part.
    """
    test = patches.table.index[patches.table["part"] == "test"]
    place = pd.Series(test, index=patches.table.loc[test, "id"]).reindex(ids)
    if place.isna().any():
        missing = place.index[place.isna()]
        raise ValueError(
            f"sample_submission.csv lists {len(missing):,} ids without a patch under {patches.root / 'test'}, the first "
            f"{missing[0]}; complete that folder."
        )
    return place.to_numpy(dtype=np.int64)
