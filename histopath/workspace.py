"""What one pass through the notebooks works on. In: preset and data folder. Out: settings, patches and the places to write."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histopath.config import Config, get_config, home
from histopath.patches import PatchSet, open_patches
from histopath.sample import is_synthetic, sample_folder, write_sample
from histopath.sources import find_kaggle_data

SYNTHETIC = "the embedded synthetic sample: it shows that the machinery works and says nothing about medicine"


@dataclass(frozen=True)
class Workspace:
    """Settings, patches and paths that the notebooks share.

    Attributes:
        name: names the run, the figures and the submission: the preset, and the data folder when it is the user's own.
        config: all settings of the run.
        patches: the packed images and their table.
        words: what the patches are, to be shown beside every result.
    """

    name: str
    config: Config
    patches: PatchSet
    words: str

    @property
    def run_folder(self) -> Path:
        """Where the training of these settings lives."""
        return home() / "runs" / self.name

    @property
    def submission(self) -> Path:
        """The Kaggle CSV of this workspace."""
        return home() / "submission" / f"{self.name}_submission.csv"

    @property
    def sample_submission(self) -> Path:
        """The competition's own list of ids beside the data."""
        return self.patches.root / "sample_submission.csv"

    def figure(self, name: str) -> Path:
        """Returns the file of a figure in this workspace's folder of `assets/`."""
        return home() / "assets" / self.name / f"{name}.png"

    def rows(self, part: str) -> pd.DataFrame:
        """Returns the table of `train` (labelled patches) or `test` (unlabelled), with `row`, the number of the image."""
        table = self.patches.table.assign(row=range(len(self.patches.table)))
        labelled = table["label"] >= 0
        return table[labelled if part == "train" else ~labelled].reset_index(drop=True)


def open_workspace(
    preset: str = "sample",
    data_dir: str | Path | None = None,
    epochs: int | None = None,
    weights: str | None = None,
    progress: bool = False,
) -> Workspace:
    """Finds, or writes, the data of a preset, packs it once and puts the settings together.

    Args:
        preset: `sample` (the synthetic sample unless `data_dir` is given) or `full`.
        data_dir: folder in a layout of `sources.read_source`; on Kaggle the competition is found by itself.
        epochs: passes over the training patches, when not the preset's.
        weights: `imagenet`, `none` or a path, when not the preset's.
        progress: show packing on stderr.

    Returns:
        The workspace.

    Raises:
        FileNotFoundError: when the full preset has no data.
        ValueError: for settings or data that cannot be used.
    """
    config = get_config(preset, settings={"epochs": epochs, "weights": weights})
    root = Path(data_dir).expanduser().resolve() if data_dir else _default_data(preset)
    own = preset == "sample" and root != sample_folder(home())
    name = f"{preset}-{root.name}" if own else preset
    patches = open_patches(root, progress=progress)
    return Workspace(name, config, patches, SYNTHETIC if is_synthetic(root) else f"the patches of {root.name}")


def _default_data(preset: str) -> Path:
    if preset == "sample":
        return write_sample(sample_folder(home()))
    found = find_kaggle_data()
    if found is None:
        raise FileNotFoundError(
            "The full preset needs the competition's data and found none under /kaggle/input; "
            "name its folder, as in `make run PRESET=full DATA=FOLDER`."
        )
    return found
