"""What one pass through the notebooks works on, and running them."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

from histopath.config import PROJECT, Config, get_config, home, in_checkout, kaggle_folder
from histopath.data.kaggle import COMPETITION, find_competition
from histopath.data.patches import PatchSet, open_patches
from histopath.files import InputError, make_folder, say
from histopath.models.runs import Run
from histopath.synthetic.files import is_synthetic
from histopath.synthetic.gastric import GASTRIC
from histopath.synthetic.organs import ORGANS
from histopath.synthetic.patches import PATCHES
from histopath.synthetic.slide import SLIDE
from histopath.training.fit import train

STORIES = {  # story → the sample that it is told on, where that lies, the recipe that it is about
    "pcam": (PATCHES.write, PATCHES.folder, "xception_nasnet"),
    "gastric": (GASTRIC.write, GASTRIC.folder, "simple_cnn"),
    "organs": (ORGANS.write, ORGANS.folder, "inceptionv3"),
}
SAMPLES = {story: entry[:2] for story, entry in STORIES.items()} | {"slide": (SLIDE.write, SLIDE.folder)}
FOLDER = PROJECT / "notebooks"
PCAM = ("01_explore", "02_augment", "03_train", "04_evaluate", "05_submit")  # the story that `make run` tells
STORY_OF = {"07_gastric": "gastric", "08_organs": "organs"}  # the others are told on PCam's patches
SYNTHETIC = "the embedded synthetic sample: it shows that the machinery works and says nothing about medicine"


@dataclass(frozen=True)
class Workspace:
    """Settings, patches and paths that the notebooks share.

    Attributes:
        name: names the run, the figures and the submission: the preset, and the data folder when it is the user's own.
        config: all settings of the run.
        patches: the packed images and their table.
        words: what the patches are, to be shown beside every result.
        settings: what the caller wants otherwise than the recipes, such as the number of epochs.
    """

    name: str
    config: Config
    patches: PatchSet
    words: str
    settings: dict

    @property
    def run_folder(self) -> Path:
        """Where the training of these settings lives."""
        return home() / "runs" / self.name

    def configure(self, recipe: str, **settings) -> Config:
        """Returns the settings of another recipe in this workspace; the caller's own wishes come last."""
        return get_config(self.config.preset, recipe, settings | self.settings)

    def train(self, config: Config, name: str, log: Callable[[str], None] = say) -> Run:
        """Trains, or opens, the run `<workspace>-<name>` on the same data, at the size that the settings ask for."""
        patches = self.patches if config.size == self.config.size else self.at_size(config.size)
        return train(patches, config, home() / "runs" / f"{self.name}-{name}", log)

    def at_size(self, size: int) -> PatchSet:
        """Returns the patches resized to a side in pixels; 0 for as they are."""
        return open_patches(self.patches.root, size=size or None, progress=False)

    @property
    def submission(self) -> Path:
        """The Kaggle CSV of this workspace; on Kaggle itself it has the place and name that are expected there."""
        if self.name == "full" and home() == kaggle_folder("working"):
            return home() / "submission.csv"
        return home() / "submission" / f"{self.name}_submission.csv"

    @property
    def sample_submission(self) -> Path:
        """The competition's own list of ids beside the data."""
        return self.patches.root / "sample_submission.csv"

    def figure(self, name: str) -> Path:
        """Returns the file of a figure in this workspace's folder of `assets/`."""
        return home() / "assets" / self.name / f"{name}.png"

    def rows(self, part: str) -> pd.DataFrame:
        """Returns the table of `train` (labeled patches) or `test` (unlabeled), with `row`, the number of the image."""
        table = self.patches.table.assign(row=range(len(self.patches.table)))
        labeled = table["label"] >= 0
        return table[labeled if part == "train" else ~labeled].reset_index(drop=True)


def open_workspace(
    preset: str = "sample",
    data_dir: str | Path | None = None,
    epochs: int | None = None,
    weights: str | None = None,
    progress: bool = False,
    story: str = "pcam",
) -> Workspace:
    """Finds, or writes, the data of a preset, packs it once and puts the settings together.

    Args:
        preset: `sample` (the synthetic sample unless `data_dir` is given) or `full`.
        data_dir: folder in a layout of `layouts.read.read_source`; on Kaggle the competition is found by itself.
        epochs: passes over the training patches, when not the preset's.
        weights: `imagenet`, `none` or a path, when not the preset's.
        progress: show packing on stderr.
        story: a key of `STORIES`: which sample, and which recipe.

    Returns:
        The workspace.

    Raises:
        InputError: when the full preset has no data, or settings or data cannot be used.
    """
    write, folder_of, recipe = STORIES[story]
    settings = {key: value for key, value in (("epochs", epochs), ("weights", weights)) if value is not None}
    config = get_config(preset, recipe, settings)
    if data_dir:
        root = Path(data_dir).expanduser().resolve()
    else:
        root = write(folder_of(home())) if preset == "sample" else _find_data(story)
    own = preset == "sample" and root != folder_of(home())
    name = preset if story == "pcam" else f"{preset}-{story}"
    patches = open_patches(root, size=config.size or None, progress=progress)
    words = SYNTHETIC if is_synthetic(root) else f"the patches of {root.name}"
    return Workspace(f"{name}-{root.name}" if own else name, config, patches, words, settings)


def synthetic_slide() -> Path:
    """Returns the folder of the synthetic slide, which is written when it is not there; see `synthetic.slide`."""
    return SLIDE.write(SLIDE.folder(home()))


def _find_data(story: str) -> Path:
    found = find_competition() if story == "pcam" else None
    if found is None and story == "pcam" and kaggle_folder("input"):
        raise InputError(f"The competition's data is not attached; add {COMPETITION} to this notebook with Add Input.")
    if found is None:
        wanted = "the competition's data" if story == "pcam" else f"the {story} data"
        raise InputError(f"The full preset needs {wanted}; name its folder, as in `make run PRESET=full DATA=FOLDER`.")
    return found


def list_notebooks(only: list[str] | None = None) -> list[Path]:
    """Returns the project's notebooks in the order in which they run.

    Args:
        only: names of those that are wanted, such as `01_explore`; None for all.

    Raises:
        InputError: when there is no notebook of such a name.
    """
    if not in_checkout():
        raise InputError("The notebooks are not part of the installed package; clone the repository and run this command there.")
    found = {path.stem: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}
    if not set(only or ()) <= set(found):
        raise InputError(f"There is no notebook for one of {', '.join(only)}; the notebooks are {', '.join(found)}.")
    return [path for name, path in found.items() if only is None or name in only]


def run_notebooks(
    parameters: dict[str, object], target: Path, only: list[str] | None = None, log: Callable[[str], None] = say
) -> list[Path]:
    """Executes every notebook, showing what it prints as it prints it.

    Args:
        parameters: values for the cell tagged `parameters`; None values are left at the notebook's own.
        target: folder for the executed notebooks; each appears there when it is complete.
        only: names of the notebooks to run, such as `01_explore`; None for all.
        log: takes a line before and after each notebook.

    Returns:
        The executed notebooks.

    Raises:
        InputError: when there is no such notebook, or a cell fails; the text names the notebook, the cell and the error.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    written, sources = [], list_notebooks(only)
    make_folder(target)
    for number, source in enumerate(sources, start=1):
        log(f"[{number}/{len(sources)}] {source.stem}")
        started = time.perf_counter()
        written.append(_execute(source, target / source.name, given))
        log(f"[{number}/{len(sources)}] {source.stem} done in {time.perf_counter() - started:.0f} s")
    return written


def _execute(source: Path, target: Path, parameters: dict[str, object]) -> Path:
    import papermill  # not everywhere at hand, and not needed to open a workspace

    part = target.with_name(f"part_{target.name}")
    try:
        papermill.execute_notebook(
            source,
            part,
            parameters,
            cwd=FOLDER,
            progress_bar=False,
            stdout_file=sys.stdout,
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not its notice about local TCP ports
        )
    except papermill.PapermillExecutionError as error:
        reason = str(error.evalue).splitlines()[0] if error.evalue else ""
        raise InputError(
            f"{source.name} stopped at cell {error.exec_count} with {error.ename}: {reason} The notebook up to there is {part}."
        ) from None
    clean_notebook(part)
    part.replace(target)
    return target


def clean_notebook(path: Path) -> None:
    """Takes the clock times and the machine's own marks out of an executed notebook, and keeps its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.write(notebook, path)
