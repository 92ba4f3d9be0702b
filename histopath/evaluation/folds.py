"""One training a fold, each scored on the fold that it never saw. In: PatchSet and Config. Out: run folders and a table."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from histopath.config import Config
from histopath.data.patches import PatchSet
from histopath.evaluation.evaluate import score_run
from histopath.files import InputError, say, write_table
from histopath.training.fit import train

BUDGETS = {  # of the short trainings of `compact` in notebook 04, by preset; bounded, however many patches there are
    "sample": {"folds": 5, "epochs": 2, "epoch_steps": 100, "views": 1},
    "full": {"folds": 5, "epochs": 1, "epoch_steps": 500, "views": 1, "val_fraction": 0.2},
}
SCORES = ("auc", "auc_low", "auc_high", "accuracy", "ece", "patches")


def train_folds(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None] = say) -> pd.DataFrame:
    """Trains `config.folds` runs, FOLDER-fold1 and on, and scores each on its own fold; finished ones are not trained again.

    Args:
        patches: labeled patches; of the parts that a data set comes in none is kept, since each patch is held out once.
        config: all settings, `folds` 2 or more.
        folder: the run folder that a single training would write; its name begins theirs.
        log: takes one line an epoch.

    Returns:
        One row a fold, as written to `FOLDER-folds.csv`: `fold`, `run`, and for each task (its name before the score, where
        there are several) `auc`, `auc_low`, `auc_high`, `accuracy`, `ece` and `patches`.
    """
    rows = []
    for fold in range(1, config.folds + 1):
        run = train(patches, dataclasses.replace(config, fold=fold), folder.with_name(f"{folder.name}-fold{fold}"), log)
        if run is None:  # several processes: the first one scores
            continue
        scores = score_run(run, patches, config.views)
        run.add_metrics(holdout=scores)
        row = {"fold": fold, "run": run.folder.name}
        for name, of_task in scores.get("tasks", {"": scores}).items():
            row |= {f"{name} {key}".strip(): of_task[key] for key in SCORES}
        rows.append(row)
        write_table(folder.with_name(f"{folder.name}-folds.csv"), pd.DataFrame(rows))
    return pd.DataFrame(rows)


def try_folds(patches: PatchSet, config: Config, folder: Path) -> tuple[pd.DataFrame, str]:
    """`train_folds` for a notebook, which a refusal (such as patches too few to be divided) does not stop: no row, its words."""
    try:
        table = train_folds(patches, config, folder, [].append)
    except InputError as error:
        return pd.DataFrame(), f"no folds: {error}"
    scored = f"{table['patches'].sum():,} patches, each scored once, by a network that never learned from it"
    return table, f"{len(table)} folds: {scored}"


def fold_dots(table: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """What `charts.interval_dots` draws: the mean of the folds, one standard deviation to either side, and each fold."""
    if table.empty:
        return {}
    mean, spread = table["auc"].mean(), table["auc"].std()
    each = {f"fold {row.fold}": (row.auc, row.auc_low, row.auc_high) for row in table.itertuples()}
    return {"mean, ± standard deviation": (mean, mean - spread, mean + spread)} | each


def describe_folds(table: pd.DataFrame) -> str:
    """Says each fold's AUC, and the mean and the spread (standard deviation and range) across the folds, for each task."""
    lines = []
    for column in [column for column in table if column.split()[-1] == "auc"]:
        each = ", ".join(f"{value:.3f}" for value in table[column])
        values = table[column]
        lines.append(
            f"{column.upper() if column == 'auc' else column}: mean {values.mean():.3f}, standard deviation "
            f"{values.std():.3f}, {values.min():.3f}-{values.max():.3f} across {len(table)} folds ({each})"
        )
    return "\n".join(lines)
