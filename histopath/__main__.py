"""The command line: `python -m histopath COMMAND --help`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from histopath.config import get_config, home, parse_settings
from histopath.files import REFUSED, InputError, check_writable, make_folder

# What an environment such as Colab's may lack → what `pip install` needs to be told.
OPTIONAL = {
    "openslide": "openslide-python openslide-bin",
    "papermill": "papermill",
    "gradio": "gradio",
    "distributed": "distributed",
    "pooch": "pooch",
    "kagglehub": "kagglehub",
}
INTERRUPTED = "Interrupted. The same command goes on from there; only packing starts over."

app = typer.Typer(
    help="Detect metastatic cancer in 96×96 H&E patches. A research tool, not a medical device.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

DATA = Annotated[Path, typer.Option("--data", help="Kaggle folder, PCam HDF5 folder or class folders.")]
RUN = Annotated[str, typer.Option("--run", help="Name of the run, a folder under runs/.")]
OUT = Annotated[Path, typer.Option("--out", help="CSV file to write.")]
SLIDES = Annotated[Path | None, typer.Option("--slides", help="CSV id,slide (or id,wsi): split by slide.")]
VIEWS = Annotated[int, typer.Option("--views", help="Test-time augmentation: 8 (flips and rotations) or 1.")]
SIZE = Annotated[int | None, typer.Option("--size", help="Resize every image to this side, in pixels.")]


@app.command(rich_help_panel="Data")
def sample(
    folder: Annotated[Path | None, typer.Argument(help="Where to write; under data/ by default.")] = None,
    story: Annotated[
        str, typer.Option(help="pcam (Kaggle layout), gastric (slices), organs (Multi Cancer layout) or slide.")
    ] = "pcam",
):
    """Write an embedded synthetic sample in the layout of the real data."""
    from histopath.project import SAMPLES

    if story not in SAMPLES:
        raise InputError(f"There is no sample {story!r}; choose one of {', '.join(SAMPLES)}.")
    write, folder_of = SAMPLES[story]
    written = write(folder or folder_of(home()))
    count = sum(path.suffix in (".tif", ".jpg") for path in written.rglob("*"))
    print(f"wrote {count} synthetic images to {_shown(written)}; they say nothing about medicine")


@app.command(rich_help_panel="Data")
def download(
    what: Annotated[str, typer.Argument(help="kaggle (the competition, 6.3 GB, needs an account) or pcam (Zenodo, 7 GB).")],
    folder: Annotated[Path | None, typer.Argument(help="Where to write; data/kaggle or data/pcam by default.")] = None,
):
    """Download the real data; an interrupted download resumes."""
    from histopath.data.download import download_kaggle, download_pcam

    fetch = {"kaggle": download_kaggle, "pcam": download_pcam}.get(what)
    if fetch is None:
        raise InputError(f"There is no data set {what!r} to download; choose kaggle or pcam.")
    folder = folder or home() / "data" / what
    fetch(folder)
    print(f"{_shown(folder)} holds the data; next: python -m histopath pack {_shown(folder)}")


@app.command(rich_help_panel="Data")
def pack(
    data: Annotated[Path, typer.Argument(help="Folder with the patches.")],
    slides: SLIDES = None,
    size: SIZE = None,
    check: Annotated[bool, typer.Option("--check", help="Look at every file for changes, not at a part.")] = False,
):
    """Decode all patches of a folder once into one memory-mapped array."""
    from histopath.data.patches import check_patches, open_patches

    patches = open_patches(data, slides, size=size)
    if check:
        print(f"{check_patches(patches):,} files are as they were packed")
    labeled = int((patches.table["label"] >= 0).sum())
    print(f"{len(patches.table):,} patches ({labeled:,} labeled) of {patches.layout} are packed and ready")


@app.command(rich_help_panel="Training")
def train(
    data: DATA,
    run: RUN,
    preset: Annotated[str | None, typer.Option(help="sample or full; without it, full but for synthetic data.")] = None,
    recipe: Annotated[str, typer.Option(help="A recipe of config.py; `models` lists the networks.")] = "xception_nasnet",
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; may be given often.")] = None,
    slides: SLIDES = None,
    folds: Annotated[int, typer.Option(help="Train so many runs, each scored on a part of its own.")] = 0,
):
    """Train a run, or go on with it where it was interrupted."""
    from histopath.synthetic.files import is_synthetic

    preset = preset or ("sample" if is_synthetic(data) else "full")
    config = get_config(preset, recipe, parse_settings(settings or []) | ({"folds": folds} if folds else {}))
    from histopath.data.patches import open_patches
    from histopath.training.fit import train

    patches, folder = open_patches(data, slides, size=config.size or None), _run_folder(run)
    if config.folds and not config.fold:
        from histopath.evaluation.folds import describe_folds, train_folds

        print(describe_folds(train_folds(patches, config, folder)))
        print(f"wrote the scores of {config.folds} folds to {_shown(folder)}-folds.csv")
        return
    finished = train(patches, config, folder)
    if finished is None:
        print("this process has done its part; process 0 writes the run")
        return
    best = finished.history["val_auc"].max()
    print(f"{_shown(finished.folder)} is trained: val AUC {best:.3f} chose the checkpoint; evaluate it on its holdout")


@app.command(rich_help_panel="Training")
def models():
    """List the networks of the registry."""
    from histopath.models.registry import describe_registry

    print(describe_registry())


@app.command(rich_help_panel="Training")
def export(run: RUN, out: Annotated[Path, typer.Option("--out", help="Folder to write.")]):
    """Write a run as a small folder in half precision, at most 5 MB, that can be committed or sent."""
    from histopath.models.runs import export_run, open_run

    size = export_run(open_run(_run_folder(run)), out)
    print(f"wrote {_shown(out)}, {size / 1e6:.1f} MB")


@app.command(rich_help_panel="Results")
def evaluate(
    run: RUN,
    data: DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    views: VIEWS = 8,
    slides: SLIDES = None,
    shifts: Annotated[bool, typer.Option("--shifts", help="Also score under changed stain, focus, JPEG and brightness.")] = False,
    figures: Annotated[Path | None, typer.Option(help="Folder for figures of the training and the score.")] = None,
    batch: Annotated[Path | None, typer.Option(help="PNG of 16 scored patches with predicted and true label.")] = None,
):
    """Score a run on labeled patches that it did not learn from."""
    from histopath.evaluation.evaluate import describe_scores, score_run

    if figures:
        check_writable(make_folder(figures) / "roc.png")
    if batch:
        check_writable(batch)
    opened, patches = _open(run, data, slides)
    scores = score_run(opened, patches, views, progress=True, shifts=shifts, figures=figures)
    if batch:
        _draw_batch(opened, patches, batch)
    print(json.dumps(scores, indent=2) if as_json else describe_scores(scores))


def _draw_batch(run, patches, file: Path) -> None:
    """Draws patches that a run did not learn from, with predicted and true label."""
    from histopath.evaluation.evaluate import draw_batch
    from histopath.plots.pages import batch_page
    from histopath.plots.style import export

    drawn = draw_batch(run, patches)
    export(batch_page(patches.images[drawn["row"]], drawn["truth"], drawn["prediction"], drawn["probability"]), file)


@app.command(rich_help_panel="Results")
def predict(
    runs: Annotated[list[str], typer.Option("--run", help="Name of a run; give it several times for an ensemble.")],
    data: DATA,
    out: OUT,
    views: VIEWS = 8,
):
    """Write the probability of tumor of every patch under a folder (id,probability).

    Several runs are an ensemble: the file holds the mean probability, the mean rank and a column for
    each run. Where patches are labeled and no run learned from them, their scores are printed.
    """
    from histopath.data.patches import open_patches
    from histopath.evaluation.evaluate import ensemble_table, predict_table, score_ensemble
    from histopath.models.runs import open_run

    check_writable(out)
    opened = [open_run(_run_folder(name, shipped=True)) for name in runs]
    patches = open_patches(data, size=opened[0].config.size or None)
    if len(opened) == 1:
        table = predict_table(opened[0], patches, out, views, progress=True)
    else:
        table = ensemble_table(opened, patches, out, views, progress=True)
        scores = score_ensemble(opened, patches, table)
        unscored = "no score: there are no labeled patches of both classes that none of the runs learned from"
        print(unscored if scores is None else scores.round(3).to_string())
    print(f"wrote {len(table):,} probabilities to {out}")


@app.command(rich_help_panel="Results")
def submit(run: RUN, data: DATA, out: OUT, views: VIEWS = 8):
    """Predict the competition's test patches and write the checked Kaggle CSV (id,label)."""
    from histopath.evaluation.evaluate import submit_run

    check_writable(out)
    checked = submit_run(*_open(run, data), out, views, progress=True)
    print(f"wrote {checked['rows']:,} rows to {out}; the submission is valid")


@app.command("check-submission", rich_help_panel="Results")
def check_submission(
    file: Annotated[Path, typer.Argument(help="The CSV to check.")],
    sample: Annotated[
        Path | None, typer.Option("--sample", help="The sample_submission.csv with the wanted ids; found by itself on Kaggle.")
    ] = None,
):
    """Check header, ids and probabilities of a submission before uploading it."""
    from histopath.data.kaggle import find_competition
    from histopath.evaluation.submission import check_submission

    if sample is None and (mounted := find_competition()):
        sample = mounted / "sample_submission.csv"
    if sample is None:
        raise InputError("The wanted ids are unknown; give --sample DATA/sample_submission.csv.")
    checked = check_submission(file, sample)
    print(f"{file} is valid: {checked['rows']:,} rows, mean probability {checked['mean']:.3f}")


@app.command(rich_help_panel="Slides and web page")
def slide(
    path: Annotated[Path, typer.Argument(help="A slide that OpenSlide reads (SVS, NDPI, pyramidal TIFF), or a folder of them.")],
    run: RUN,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; slides/NAME OF THE RUN by default.")] = None,
    stride: Annotated[int, typer.Option(help="Pixels between tiles, at PCam's resolution.")] = 48,
    views: Annotated[int, typer.Option("--views", help="Views averaged a tile: 1 or 8.")] = 1,
    microns: Annotated[float | None, typer.Option("--microns-per-pixel", help="Where a file does not say it.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV slide,label: the ROC of the slides' scores.")] = None,
    cluster: Annotated[str, typer.Option(help="Address of a Dask scheduler, or a number of workers on this machine.")] = "",
):
    """Lay a network over whole slides: heatmaps, scores, regions for QuPath; goes on where it was interrupted.

    A slide that cannot be read stops no other: slides.csv says what is wrong with it, and the status is 0 if one was written.
    """
    from histopath.models.runs import open_run
    from histopath.slides.heatmaps import list_slides, rank_slides, read_labels, score_slides

    if not 8 <= stride <= 960 or views not in (1, 8):
        raise InputError(f"--stride takes 8-960 pixels and --views 1 or 8; got {stride} and {views}.")
    given = None if labels is None else read_labels(labels)
    opened, slides = open_run(_run_folder(run, shipped=True)), list_slides(path)
    out = out or home() / "slides" / opened.folder.name
    table = score_slides(opened, slides, out, stride=stride, views=views, microns_per_pixel=microns, cluster=cluster)
    failed = int((table["error"] != "").sum())
    print(f"wrote {len(table) - failed} of {len(table)} slides to {_shown(out)}")
    if failed == len(table):
        raise InputError(table["error"].iloc[0])
    if given is not None:
        print(f"{rank_slides(table, given, out / 'roc.png')}; drawn in {_shown(out / 'roc.png')}")


@app.command(rich_help_panel="Slides and web page")
def demo(
    run: Annotated[str, typer.Option("--run", help="Name of the run to use; the pretrained one by default.")] = "pretrained",
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at.")] = 7860,
):
    """Serve a web page that analyzes uploaded patches and larger images."""
    from histopath.app.page import serve
    from histopath.models.runs import open_run
    from histopath.project import synthetic_slide

    opened = open_run(_run_folder(run, shipped=True))
    if not 0 < port < 65536:
        raise InputError(f"--port takes a number of 1-65535, and got {port}.")
    serve(opened, synthetic_slide(), host, port)


@app.command(rich_help_panel="Notebooks and Kaggle")
def run(
    preset: Annotated[str, typer.Option(help="sample (minutes on two cores) or full (the competition).")] = "sample",
    data: Annotated[Path | None, typer.Option("--data", help="Your own data folder.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training patches.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a file or folder of weights.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A notebook to run, such as 01_explore; may be given often.")] = None,
    every: Annotated[bool, typer.Option("--all", help="The notebooks on the other systems as well.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Refresh the committed notebooks themselves.")] = False,
):
    """Execute the notebooks in order: figures, trained run and submission."""
    from histopath.project import FOLDER, PCAM, STORY_OF, list_notebooks, open_workspace, run_notebooks

    if in_place and (preset, data, epochs, weights) != ("sample", None, None, None):
        raise InputError("--in-place refreshes the committed notebooks on the sample; leave the other options out.")
    names = [path.stem for path in list_notebooks(only) if only or every or path.stem in PCAM]
    stories = list(dict.fromkeys(STORY_OF.get(name, "pcam") for name in names))
    if data and len(stories) > 1:
        raise InputError(f"--data fits one of {', '.join(stories)}; name the notebooks of one of them with --only.")
    works = [open_workspace(preset, data, epochs, weights, progress=True, story=story) for story in stories]
    if "05_submit" in names and not works[0].sample_submission.is_file():
        names.remove("05_submit")
        print(f"05_submit is left out: {works[0].patches.root.name} has no sample_submission.csv")
    parameters = {"preset": preset if preset != "sample" else None, "data_dir": str(data.resolve()) if data else None}
    parameters |= {"epochs": epochs, "weights": _path_or_word(weights)}
    target = FOLDER if in_place else home() / "runs" / "notebooks" / works[0].name
    written = run_notebooks(parameters, target, names)
    print(f"{len(written)} executed notebooks: {_shown(target)}")
    figures = dict.fromkeys(_shown(work.figure("any").parent) for work in works)
    print(f"figures: {', '.join(figures)}; run: {', '.join(_shown(work.run_folder) for work in works)}")
    if "05_submit" in names:
        print(f"submission: {_shown(works[0].submission)}")
    print(f"data: {works[0].words}")


@app.command("kaggle-bundle", rich_help_panel="Notebooks and Kaggle")
def kaggle_bundle(
    user: Annotated[str, typer.Argument(help="Your name on Kaggle.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; must not exist.")],
    repository: Annotated[
        str, typer.Option(help="Address of a git repository of this project; the kernel then uses the internet.")
    ] = "",
    weights_dataset: Annotated[str, typer.Option(help="USER/NAME of a Kaggle data set with the ImageNet weight files.")] = "",
):
    """Write the folders that `kaggle datasets create` and `kaggle kernels push` take."""
    from histopath.data.kaggle import describe_push, write_bundle
    from histopath.models.backbones import BACKBONES
    from histopath.models.registry import REGISTRY

    folders = write_bundle(user, out, repository, weights_dataset)
    urls = [BACKBONES[name].url for name in REGISTRY["xception_nasnet"].backbones]
    print(describe_push(user, folders, weights_dataset, {url.split("/")[-1]: url for url in urls}))


def main() -> None:
    """Runs a command. What the user can mend ends in one sentence and status 2; a bug keeps its traceback and status 1."""
    try:
        app()
    except InputError as error:
        _stop(" ".join(str(error).split()), 2)
    except ModuleNotFoundError as error:
        # OpenSlide's own error, where its library is missing, names no module.
        module = (error.name or "openslide" * ("OpenSlide" in str(error))).split(".")[0]
        if module not in OPTIONAL:
            raise
        _stop(f"This command needs {module}, which is not installed; run `pip install {OPTIONAL[module]}`.", 2)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _stop(f"{error.filename or 'A file'} cannot be used ({error.strerror}); allow it or free some space.", 2)
    except SystemExit as status:
        if status.code == 130:  # Ctrl-C
            _stop(INTERRUPTED, 130)
        raise


def _stop(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    if os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES"):  # else JAX waits at the exit for processes that may be gone
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _open(run: str, data: Path, slides: Path | None = None) -> tuple:
    """A run, and patches at the size that it was trained at."""
    from histopath.data.patches import open_patches
    from histopath.models.runs import open_run

    opened = open_run(_run_folder(run, shipped=True))
    return opened, open_patches(data, slides, size=opened.config.size or None)


def _run_folder(name: str, shipped: bool = False) -> Path:
    """The folder of a run; `pretrained` is the pretrained one, which can be read and not trained."""
    if name == "pretrained":
        from histopath.models.runs import FOLDER

        if not shipped:
            raise InputError("pretrained is the pretrained model, which only answers; name another run with --run.")
        if not FOLDER.is_dir():
            raise InputError(f"{FOLDER} is missing, which holds the pretrained model; restore it from the repository.")
        return FOLDER
    runs = (home() / "runs").resolve()
    folder = (runs / name).resolve()
    if not name.strip() or folder == runs or not folder.is_relative_to(runs):
        raise InputError(f"--run takes the name of a folder under runs/, such as --run mine, and got {name!r}.")
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
