"""Several runs as one: plain means, nothing fitted. In: runs and PatchSet. Out: a CSV, and the scores of members and means."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from histopath.evaluation import evaluate
from histopath.files import write_table
from histopath.inference import predict
from histopath.patches import PatchSet
from histopath.runs import Run, scored_rows
from histopath.splits import known_slides

MEAN, RANK = "mean probability", "mean rank"


def join_members(members: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the two plain means to the probabilities of the members.

    Args:
        members: name → probability of class 1, (N,) of the same patches in the same order.

    Returns:
        The members, then `mean probability`, and `mean rank`: the mean of each member's ranks, divided by N + 1, ties sharing
        theirs. Ranks count as much from a member that is never sure, but they depend on which patches are predicted together.
    """
    each = list(members.values())
    ranks = [rankdata(p) / (len(p) + 1) for p in each]
    return dict(members) | {MEAN: np.mean(each, axis=0), RANK: np.mean(ranks, axis=0)}


def ensemble_table(runs: Sequence[Run], patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> pd.DataFrame:
    """Predicts every patch with every run and writes `id,probability,rank` and one column a run.

    Args:
        runs: finished runs of two classes, two or more.
        patches: labelled or not.
        out: CSV file to write.
        views: 8 or 1.
        progress: show a progress bar.

    Returns:
        The table as written, one row a patch in the order of the data.

    Raises:
        ValueError: when a run tells more than two classes apart, or fewer than two different runs are given.
    """
    names = [run.folder.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"An ensemble takes two or more different runs, and got {', '.join(names)}.")
    for run in runs:
        if len(run.metrics["tasks"]) > 1 or run.threshold is None:
            raise ValueError(f"The run {run.folder} tells more than two classes apart; an ensemble takes runs of two.")
    members = {}
    for run in runs:
        members[run.folder.name] = predict(run.network, patches.images, None, views, run.config.predict_batch, progress)
    joined = join_members(members)
    table = pd.DataFrame({"id": patches.table["id"], "probability": joined[MEAN], "rank": joined[RANK]})
    table = table.assign(**members)
    write_table(out, table)
    return table


def score_ensemble(runs: Sequence[Run], patches: PatchSet, table: pd.DataFrame) -> pd.DataFrame | None:
    """Scores members and means on the labelled patches that no member learned from.

    Args:
        runs: the members.
        patches: what was predicted.
        table: as made by `ensemble_table`.

    Returns:
        One row a member and a mean: `auc`, `auc_low`, `auc_high`, `patches`; None where no such patch of both classes is left.
    """
    left = patches.table.index[patches.table["label"] >= 0]
    for run in runs:
        try:
            left = left.intersection(scored_rows(run, patches)[0]["row"])
        except ValueError:  # this run learned from all that have a label
            return None
    rows = patches.table.loc[left]
    if rows["label"].nunique() < 2:
        return None
    answers = {run.folder.name: table[run.folder.name] for run in runs} | {MEAN: table["probability"], RANK: table["rank"]}
    labels, slides = rows["label"].to_numpy(), known_slides(rows)
    scores = {name: evaluate(labels, p[left].to_numpy(), groups=slides) for name, p in answers.items()}
    return pd.DataFrame(scores).T[["auc", "auc_low", "auc_high", "patches"]].astype({"patches": int})
