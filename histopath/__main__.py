"""The command line: `python -m histopath COMMAND --help`. Bad input ends in one sentence and exit status 2."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from histopath.config import get_config, home, parse_settings

# typer carries a click of its own since 0.2x, so the base of its usage errors is looked up rather than imported.
UsageMistake = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
INTERRUPTED = "Interrupted. What was finished is kept; the same command goes on from there."

app = typer.Typer(
    help="Detect metastatic cancer in 96×96 H&E patches. A research tool, not a medical device.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DATA = Annotated[Path, typer.Option("--data", help="Kaggle folder, PCam HDF5 folder or class folders.")]
RUN = Annotated[str, typer.Option("--run", help="Name of the run, a folder under runs/.")]
OUT = Annotated[Path, typer.Option("--out", help="CSV file to write.")]
SLIDES = Annotated[Path | None, typer.Option("--slides", help="CSV id,slide (or id,wsi): split by slide.")]
VIEWS = Annotated[int, typer.Option("--views", help="Views averaged a patch: 8 (flips and quarter turns) or 1.")]
SAMPLE = Annotated[Path, typer.Option("--sample", help="The sample_submission.csv with the wanted ids.")]


@app.command()
def sample(folder: Annotated[Path | None, typer.Argument(help="Where to write; data/sample by default.")] = None):
    """Write the embedded synthetic sample in the Kaggle layout."""
    from histopath.sample import sample_folder, write_sample

    written = write_sample(folder or sample_folder(home()))
    count = len(list(written.glob("*/*.tif")))
    print(f"wrote {count} synthetic patches to {_shown(written)}; they say nothing about medicine")


@app.command()
def pack(
    data: Annotated[Path, typer.Argument(help="Folder with the patches.")],
    slides: SLIDES = None,
    check: Annotated[bool, typer.Option("--check", help="Look at every file for changes, not at a part.")] = False,
):
    """Decode all patches of a folder once into one memory-mapped array."""
    from histopath.patches import check_patches, open_patches

    patches = open_patches(data, slides)
    if check:
        print(f"{check_patches(patches):,} files are as they were packed")
    labelled = int((patches.table["label"] >= 0).sum())
    print(f"{len(patches.table):,} patches ({labelled:,} labelled) of {patches.layout} are packed and ready")


@app.command()
def run(
    preset: Annotated[str, typer.Option(help="sample (minutes on two cores) or full (the competition).")] = "sample",
    data: Annotated[Path | None, typer.Option("--data", help="Your own data folder.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training patches.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a file or folder of weights.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A notebook to run, such as 01_explore; may be given often.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Refresh the committed notebooks themselves.")] = False,
):
    """Execute the notebooks in order: figures, trained run and submission."""
    from histopath.notebooks import FOLDER, list_notebooks, run_notebooks
    from histopath.workspace import open_workspace

    if in_place and (preset, data, epochs, weights) != ("sample", None, None, None):
        raise ValueError("--in-place refreshes the committed notebooks on the sample; leave the other options out.")
    work = open_workspace(preset, data, epochs, weights, progress=True)
    parameters = {"preset": preset, "data_dir": str(data.resolve()) if data else None, "epochs": epochs}
    parameters |= {"weights": _path_or_word(weights)}
    if parameters["preset"] == "sample":
        del parameters["preset"]
    if only is None and not work.sample_submission.is_file():
        only = [path.stem for path in list_notebooks() if path.stem != "05_submit"]
        print(f"05_submit is left out: {work.patches.root.name} has no sample_submission.csv")
    target = FOLDER if in_place else home() / "runs" / "notebooks" / work.name
    written = run_notebooks(parameters, target, only)
    print(f"{len(written)} executed notebooks: {_shown(target)}")
    print(f"figures: {_shown(work.figure('roc').parent)}; run: {_shown(work.run_folder)}")
    if only is None or "05_submit" in only:
        print(f"submission: {_shown(work.submission)}")
    print(f"data: {work.words}")


@app.command()
def train(
    data: DATA,
    run: RUN,
    preset: Annotated[str, typer.Option(help="sample or full: how much work.")] = "sample",
    recipe: Annotated[str, typer.Option(help="A recipe of config.py; `models` lists the networks.")] = "xception_nasnet",
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be given often.")] = None,
    slides: SLIDES = None,
):
    """Train a run, or go on with it where it was interrupted."""
    config = get_config(preset, recipe, parse_settings(settings or []))
    from histopath.patches import open_patches
    from histopath.training import train

    finished = train(open_patches(data, slides), config, _run_folder(run))
    best = finished.history["val_auc"].max()
    print(f"{_shown(finished.folder)} is trained: val AUC {best:.3f} chose the checkpoint; evaluate it on its holdout")


@app.command()
def evaluate(
    run: RUN,
    data: DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    views: VIEWS = 8,
    slides: SLIDES = None,
):
    """Score a run on labelled patches that it did not learn from."""
    from histopath.patches import open_patches
    from histopath.runs import open_run
    from histopath.scoring import describe_scores, score_run

    scores = score_run(open_run(_run_folder(run)), open_patches(data, slides), views, progress=True)
    print(json.dumps(scores, indent=2) if as_json else describe_scores(scores))


@app.command()
def predict(run: RUN, data: DATA, out: OUT, views: VIEWS = 8):
    """Write the probability of tumour of every patch under a folder (id,probability)."""
    from histopath.files import check_writable
    from histopath.patches import open_patches
    from histopath.runs import open_run
    from histopath.scoring import predict_table

    check_writable(out)
    table = predict_table(open_run(_run_folder(run)), open_patches(data), out, views, progress=True)
    print(f"wrote {len(table):,} probabilities to {out}")


@app.command()
def submit(run: RUN, data: DATA, out: OUT, views: VIEWS = 8):
    """Predict the competition's test patches and write the checked Kaggle CSV (id,label)."""
    from histopath.files import check_writable
    from histopath.patches import open_patches
    from histopath.runs import open_run
    from histopath.scoring import submit_run

    check_writable(out)
    checked = submit_run(open_run(_run_folder(run)), open_patches(data), out, views, progress=True)
    print(f"wrote {checked['rows']:,} rows to {out}; the submission is valid")


@app.command("check-submission")
def check_submission(file: Annotated[Path, typer.Argument(help="The CSV to check.")], sample: SAMPLE):
    """Check header, ids and probabilities of a submission before uploading it."""
    from histopath.submission import check_submission

    checked = check_submission(file, sample)
    print(f"{file} is valid: {checked['rows']:,} rows, mean probability {checked['mean']:.3f}")


@app.command()
def models():
    """List the networks of the registry."""
    from histopath.models import describe_registry

    print(describe_registry())


def main() -> None:
    """Runs a command; turns bad input into one sentence on stderr and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _stop(INTERRUPTED, 130)
    except UsageMistake as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, OSError) as error:
        if os.environ.get("HISTOPATH_TRACEBACK"):
            raise
        _stop(" ".join(str(error).split()), 2)
    if status == 130:
        _stop(INTERRUPTED, 130)
    sys.exit(status or 0)


def _stop(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(status)


def _run_folder(name: str) -> Path:
    runs = (home() / "runs").resolve()
    folder = (runs / name).resolve()
    if not name.strip() or folder == runs or not folder.is_relative_to(runs):
        raise ValueError(f"--run takes the name of a folder under runs/, such as --run mine, and got {name!r}.")
    return folder


def _shown(path: Path) -> str:
    """A path as the user would type it: relative to here where it lies below."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)


def _path_or_word(weights: str | None) -> str | None:
    """Notebooks run in their own folder, so a path is made absolute; `none` and `imagenet` stay."""
    return str(Path(weights).resolve()) if weights and weights not in ("none", "imagenet") else weights


if __name__ == "__main__":
    main()
