"""A run folder: everything one training leaves, read and written whole. In: a folder. Out: settings, splits, network, scores."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histopath.backend import keras
from histopath.config import Config, read_config
from histopath.files import write_text
from histopath.models import read_model
from histopath.patches import PatchSet


@dataclass(frozen=True)
class Run:
    """One finished training. Everything is read from the folder when it is first asked for."""

    folder: Path

    @functools.cached_property
    def config(self) -> Config:
        """The settings it was trained with."""
        return read_config(self.folder / "config.json")

    @functools.cached_property
    def network(self) -> keras.Model:
        """The network with the best val AUC: uint8 patches → probability of tumour."""
        return read_model(self.folder / "model.keras")

    @functools.cached_property
    def splits(self) -> pd.DataFrame:
        """Its train, val and holdout patches, as `splits.split_patches` made them."""
        types = {"id": str, "split": str, "slide": str, "pixel_hash": str}
        return pd.read_csv(self.folder / "splits.csv", dtype=types, keep_default_na=False)

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: losses, accuracies, val AUC, learning rate, seconds."""
        return pd.read_csv(self.folder / "history.csv")

    @property
    def metrics(self) -> dict:
        """What is known of its scores so far; `val` and `threshold` from training, `holdout` once it is evaluated."""
        return json.loads((self.folder / "metrics.json").read_text())

    def add_metrics(self, **scores) -> None:
        """Adds scores to `metrics.json`."""
        write_text(self.folder / "metrics.json", json.dumps(self.metrics | scores, indent=2) + "\n")

    def rows(self, split: str) -> pd.DataFrame:
        """Returns the part of the splits that belongs to `train`, `val` or `holdout`."""
        return self.splits[self.splits["split"] == split].reset_index(drop=True)


def open_run(folder: Path) -> Run:
    """Opens a finished run.

    Raises:
        FileNotFoundError: when there is no such folder, or no finished training in it; the text names the cure.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no run folder {folder}; train one with `python -m histopath train --run {folder.name}`."
        )
    for name in ("config.json", "model.keras", "splits.csv", "metrics.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"The run {folder} has no {name}, so its training did not finish; run the same train again.")
    return Run(folder)


def scored_rows(run: Run, patches: PatchSet) -> tuple[pd.DataFrame, str]:
    """Chooses the labelled patches on which a run may be scored: none that it was trained on or that chose its checkpoint.

    On the data of its training these are the holdout; on other data all labelled patches but copies of train and val.

    Returns:
        The rows of the table (with `row`, the number of the image) and a sentence that says which they are.

    Raises:
        ValueError: when nothing is left to score.
    """
    table = patches.table.assign(row=range(len(patches.table)))
    labelled = table[table["label"] >= 0]
    used = labelled["pixel_hash"].isin(run.splits.loc[run.splits["split"] != "holdout", "pixel_hash"])
    holdout = labelled["pixel_hash"].isin(run.rows("holdout")["pixel_hash"])
    if used.any() and holdout.any():
        chosen, words = labelled[holdout], "the holdout of its training, which chose nothing"
    else:
        chosen, words = labelled[~used], "patches that were not in its training"
        words += f"; {used.sum():,} that were are left out" if used.any() else ""
    if chosen.empty:
        raise ValueError(f"{patches.root} has no labelled patch that run {run.folder.name} did not learn from; give other data.")
    return chosen.reset_index(drop=True), words
