"""A run folder, read and written whole, and the small export of one."""

import functools
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from histopath.config import PROJECT, Config, in_checkout, read_config
from histopath.data.patches import PatchSet
from histopath.data.splits import find_near_duplicates
from histopath.data.tasks import Task, read_tasks
from histopath.files import InputError, make_folder, write_table, write_text
from histopath.models.backend import keras
from histopath.models.registry import read_model

FILES = ("config.json", "model.keras", "splits.csv", "history.csv", "metrics.json")
FOLDER = PROJECT / "pretrained" if in_checkout() else Path(__file__).resolve().parents[1] / "pretrained"
LARGEST = 5_000_000  # bytes of the whole folder
WEIGHTS = "model.weights.h5"


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
        """The network with the best val AUC: uint8 patches → probability of tumor."""
        return read_model(self.folder / "model.keras")

    @functools.cached_property
    def splits(self) -> pd.DataFrame:
        """Its train, val and holdout patches, as `splits.split_patches` made them."""
        types = {"id": str, "split": str, "slide": str, "pixel_hash": str, "perceptual_hash": "uint64"}
        read = functools.partial(pd.read_csv, dtype=types, keep_default_na=False)
        splits = _read(self.folder / "splits.csv", read, ("row", "label", *types))
        if (splits["split"] == "val").sum() != self.val["patches"]:  # else what it learned from might be scored
            raise InputError(f"{self.folder / 'splits.csv'} is cut off (patches of val are missing); train the run again.")
        return splits

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: losses, accuracies, val AUC, learning rate, seconds."""
        return _read(self.folder / "history.csv", pd.read_csv, ("epoch", "loss", "val_auc"))

    @property
    def metrics(self) -> dict:
        """How the training went; for each task `class_names`, `threshold`, `temperature`, `val`; `holdout` once evaluated."""
        return _read(
            self.folder / "metrics.json", lambda path: json.loads(path.read_text()), ("grouping", "class_names", "tasks")
        )

    @property
    def threshold(self) -> float | None:
        """Threshold of its first, or only, task, chosen on val; None where more than two classes are told apart."""
        return next(iter(self.metrics["tasks"].values()))["threshold"]

    @property
    def temperature(self) -> float:
        """Temperature of its first, or only, task, fitted on val; see `binary.tempered`."""
        return next(iter(self.metrics["tasks"].values()))["temperature"]

    @property
    def val(self) -> dict:
        """Scores of its first, or only, task on val, which chose the checkpoint and the threshold."""
        return next(iter(self.metrics["tasks"].values()))["val"]

    def check(self) -> None:
        """Reads every file of the run, so that a damaged one is found before long work begins.

        Raises:
            InputError: when a file is damaged; the text names it.
        """
        for name in ("config", "network", "splits", "history", "metrics"):
            getattr(self, name)

    def tasks(self, patches: PatchSet) -> tuple[Task, ...]:
        """What it tells apart, with the labels of these patches translated to its own classes.

        Raises:
            InputError: when the patches have a class that it does not know.
        """
        asked = read_tasks(self.config.task, patches.layout, patches.class_names)
        known = {name: tuple(task["class_names"]) for name, task in self.metrics["tasks"].items()}
        if len(asked) != len(known):
            raise InputError(f"The run {self.folder} tells {' and '.join(known)} apart; {patches.root} does not hold both.")
        return tuple(
            _translate(task, names, name, patches.root) for task, (name, names) in zip(asked, known.items(), strict=True)
        )

    def add_metrics(self, **scores) -> None:
        """Adds scores to `metrics.json`."""
        write_text(self.folder / "metrics.json", json.dumps(self.metrics | scores, indent=2) + "\n")

    def rows(self, split: str) -> pd.DataFrame:
        """Returns the part of the splits that belongs to `train`, `val` or `holdout`."""
        return self.splits[self.splits["split"] == split].reset_index(drop=True)


def _translate(task: Task, class_names: tuple[str, ...], name: str, root: Path) -> Task:
    """The same question with the classes of a run: two classes correspond in their order, more by their names."""
    if len(class_names) == len(task.class_names) == 2:
        return Task(name, class_names, task.of_label)
    unknown = [one for one in task.class_names if one not in class_names]
    if unknown:
        raise InputError(
            f"{root} has the class {unknown[0]}, which the run does not know; its classes are {', '.join(class_names)}."
        )
    places = np.array([class_names.index(one) for one in task.class_names])
    return Task(name, class_names, places[task.of_label])


def open_run(folder: Path, patches: PatchSet | None = None) -> Run:
    """Opens a finished run.

    Args:
        folder: the run folder.
        patches: the patches whose rows its splits are to be used with, or None.

    Raises:
        InputError: when there is no such folder, or no finished training in it; the text names
            the cure; when the run was trained on other patches, so that the rows of its splits mean
            other images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}; train one with `python -m histopath train --run {folder.name}`.")
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"The run {folder} has no {name}, so its training did not finish; run the same train again.")
    if patches is not None and read_identity(folder).get("data") != patches.fingerprint:
        raise InputError(f"The run {folder} was trained on other patches than {patches.root} holds now; train it again on these.")
    return Run(folder)


def read_identity(folder: Path) -> dict:
    """Returns the data and settings that a training was started with; empty when there was none."""
    try:
        return json.loads((folder / "identity.json").read_text())
    except (OSError, ValueError):
        return {}


def unseen_rows(run: Run, patches: PatchSet) -> pd.DataFrame:
    """Returns the labeled rows of the table, with `row`, that a run did not learn from; perhaps none.

    Left out are all that look like one, or are of a slide, in the train or val of its training. On
    the data of its training that leaves the holdout.
    """
    table = patches.table.assign(row=range(len(patches.table)))
    labeled = table[table["label"] >= 0]
    learned = run.splits[run.splits["split"] != "holdout"]
    slides = set(learned["slide"]) - {""}
    used = labeled["pixel_hash"].isin(learned["pixel_hash"]) | labeled["slide"].isin(slides)
    used |= find_near_duplicates(labeled["perceptual_hash"].to_numpy("uint64"), learned["perceptual_hash"].to_numpy("uint64"))
    return labeled[~used].reset_index(drop=True)


def scored_rows(run: Run, patches: PatchSet) -> tuple[pd.DataFrame, str]:
    """Chooses the labeled patches on which a run may be scored: those of `unseen_rows`.

    Returns:
        The rows of the table (with `row`, the number of the image) and words that say which they are.

    Raises:
        InputError: when nothing is left to score.
    """
    chosen = unseen_rows(run, patches)
    if chosen.empty:
        raise InputError(f"{patches.root} has no labeled patch that run {run.folder.name} did not learn from; give other data.")
    if chosen["pixel_hash"].isin(run.rows("holdout")["pixel_hash"]).all():
        return chosen, "the holdout of its training, which chose nothing"
    words = "patches that were not in its training"
    used = (patches.table["label"] >= 0).sum() - len(chosen)
    return chosen, words + (f"; {used:,} that were, look like one that was, or whose slide was, are left out" if used else "")


def _read(path: Path, read: Callable, needed: tuple[str, ...]):
    """Reads a file of a run and makes sure that it holds what is needed; one sentence when it does not."""
    try:
        content = read(path)
        missing = [name for name in needed if name not in content]
    except (ValueError, OSError) as error:
        missing = [" ".join(str(error).split())]
    if missing:
        raise InputError(f"{path} is damaged ({missing[0]} is wrong or missing); delete the run and train it again.")
    return content


def export_run(run: Run, folder: Path) -> int:
    """Writes a run as a folder that can be committed: kernels in half precision, the rest as it is.

    Probabilities change by what sixteen bits round away, about one in a thousand. The file stays a `.keras` file that loads in
    safe mode, and Keras turns the numbers into its own precision while loading.

    Args:
        run: a finished run.
        folder: where to write; what an earlier export left there is replaced, other files are kept.

    Returns:
        Bytes of what was written.

    Raises:
        InputError: when it would be larger than 5 MB (choose a smaller network), a file of the run is damaged, or the folder
            holds a run that was not exported.
    """
    if (folder / "model.keras").exists() and "exported" not in read_identity(folder):
        raise InputError(f"{folder} holds a run in full precision, which would be lost; name another folder with --out.")
    run.check()
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        part = Path(place)
        halve_weights(run.folder / "model.keras", part / "model.keras")
        for name in FILES:
            if name not in ("model.keras", "splits.csv"):
                shutil.copyfile(run.folder / name, part / name)
        write_text(part / "identity.json", json.dumps({"exported": run.folder.name}) + "\n")
        write_table(part / "splits.csv", run.splits[["row", "id", "split", "label", "slide", "pixel_hash", "perceptual_hash"]])
        size = sum(path.stat().st_size for path in part.iterdir())
        if size > LARGEST:
            raise InputError(
                f"{run.folder.name} is {size / 1e6:.1f} MB in half precision, and at most {LARGEST / 1e6:.0f} MB belong into a "
                "repository; export a smaller network."
            )
        make_folder(folder)
        for path in part.iterdir():
            path.replace(folder / path.name)
    return size


def halve_weights(source: Path, target: Path) -> None:
    """Copies a `.keras` file with every array of two and more dimensions in half precision.

    Vectors (biases, batch statistics) stay as they are: a variance may lie beyond what sixteen bits hold.
    """
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as half:
        for entry in whole.infolist():
            content = whole.read(entry)
            half.writestr(zipfile.ZipInfo(entry.filename), _halve(content) if entry.filename == WEIGHTS else content)


def _halve(content: bytes) -> bytes:
    written = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as whole, h5py.File(written, "w") as half:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                made = half.require_group(name)
            else:
                narrow = item.dtype == np.float32 and item.ndim > 1
                made = half.create_dataset(name, data=item[...].astype("float16") if narrow else item[...])
            for key, value in item.attrs.items():
                made.attrs[key] = value

        whole.visititems(copy)
        for key, value in whole.attrs.items():
            half.attrs[key] = value
    return written.getvalue()
