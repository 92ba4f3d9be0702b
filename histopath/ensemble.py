"""Several runs as one: plain means, nothing fitted. In: runs and PatchSet. Out: a CSV, and the scores of members and means."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from histopath.evaluation import evaluate
from histopath.files import InputError, write_table
from histopath.inference import predict
from histopath.patches import PatchSet
from histopath.pretrained import FOLDER
from histopath.runs import Run, open_run, unseen_rows
from histopath.splits import known_slides

MEAN, RANK = "mean probability", "mean rank"
OWN, BOX = "this network", "network in the box"


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
        InputError: when a run tells more than two classes apart or has the name of another column, or fewer than two different
            runs are given.
    """
    names = [run.folder.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(f"An ensemble takes two or more different runs, and got {', '.join(names)}.")
    taken = {"id", "probability", "rank"} & set(names)
    if taken:
        raise InputError(f"The run {taken.pop()} has the name of a column of the file; give its folder another name.")
    for run in runs:
        if len(run.metrics["tasks"]) > 1 or run.threshold is None:
            raise InputError(f"The run {run.folder} tells more than two classes apart; an ensemble takes runs of two.")
    members = {}
    for run in runs:
        members[run.folder.name] = predict(run.network, patches.images, None, views, run.config.predict_batch, progress)
    joined = join_members(members)
    table = pd.DataFrame({"id": patches.table["id"], "probability": joined[MEAN], "rank": joined[RANK]})
    table = table.assign(**members)
    write_table(out, table)
    return table


def join_box(run: Run, patches: PatchSet, rows: pd.DataFrame, p: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Adds the network in the box (`pretrained`) to the probabilities of a run, on the patches that neither learned from.

    Args:
        run: a finished run of two classes.
        patches: those that it was trained on.
        rows: its holdout, with `row`.
        p: its probability of each of them, eight views, (N,).

    Returns:
        Which of the rows are kept, bool (N,), and the members as from `join_members`: `this network`, `network in the box` and
        their means. All rows and `this network` alone where the patches have another size than the box takes, or where it
        learned from too many of them.
    """
    box = open_run(FOLDER)
    fits = patches.images.shape[1:] == tuple(box.network.input_shape[1:])
    left = unseen_by_all([run, box], patches) if fits else None
    if left is None:
        return np.ones(len(rows), bool), {OWN: p}
    kept = rows["row"].isin(left).to_numpy()
    other = predict(box.network, patches.images, rows["row"][kept], batch_size=box.config.predict_batch)
    return kept, join_members({OWN: p[kept], BOX: other})


def unseen_by_all(runs: Sequence[Run], patches: PatchSet) -> pd.Index | None:
    """Rows of the labelled patches that no run learned from; None where none of both classes are left."""
    left = patches.table.index
    for run in runs:
        left = left.intersection(unseen_rows(run, patches)["row"])
    return left if patches.table.loc[left, "label"].nunique() == 2 else None


def score_ensemble(runs: Sequence[Run], patches: PatchSet, table: pd.DataFrame) -> pd.DataFrame | None:
    """Scores members and means on the labelled patches that no member learned from.

    Args:
        runs: the members.
        patches: what was predicted.
        table: as made by `ensemble_table`.

    Returns:
        One row a member and a mean: `auc`, `auc_low`, `auc_high`, `patches`; None where no such patch of both classes is left.
    """
    left = unseen_by_all(runs, patches)
    if left is None:
        return None
    rows = patches.table.loc[left]
    answers = {run.folder.name: table[run.folder.name] for run in runs} | {MEAN: table["probability"], RANK: table["rank"]}
    labels, slides = rows["label"].to_numpy(), known_slides(rows)
    scores = {name: evaluate(labels, p[left].to_numpy(), groups=slides) for name, p in answers.items()}
    return pd.DataFrame(scores).T[["auc", "auc_low", "auc_high", "patches"]].astype({"patches": int})
