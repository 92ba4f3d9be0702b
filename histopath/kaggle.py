"""Kaggle's machines. In: the folders they mount. Out: data, weights and places found by themselves; a folder to push.

`HISTOPATH_KAGGLE` names another folder than `/kaggle`, to try all this elsewhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from histopath.files import InputError, make_folder, write_text

COMPETITION = "histopathologic-cancer-detection"
KERNEL = "histopathologic-cancer-detector"
PACKAGE = "histopath-package"  # the dataset that holds this project, for kernels without internet
LACKING = ("typer", "papermill", "tifffile")  # what Kaggle's image has not always had
ROOT = Path(__file__).resolve().parents[1]
RUN = "!python -m histopath run --preset full --only 03_train --only 04_evaluate --only 05_submit"
SOURCE = ("histopath", "notebooks", "pretrained", "pyproject.toml", "README.md", "MODEL_CARD.md", "LICENSE")


def kaggle_folder(name: str) -> Path | None:
    """Returns Kaggle's `input` or `working` folder, or None on another machine."""
    folder = Path(os.environ.get("HISTOPATH_KAGGLE", "/kaggle")) / name
    return folder if folder.is_dir() else None


def find_competition() -> Path | None:
    """Returns the competition's data as mounted, or None."""
    return _first(f"{COMPETITION}", f"competitions/{COMPETITION}")


def find_attached(name: str) -> Path | None:
    """Returns a file of that name in an attached dataset, at most three folders deep, or None."""
    return _first(*("*/" * depth + name for depth in (1, 2, 3, 4)))


def _first(*patterns: str) -> Path | None:
    inputs = kaggle_folder("input")
    found = (path for pattern in patterns for path in sorted(inputs.glob(pattern))) if inputs else ()
    return next(iter(found), None)


def write_bundle(user: str, folder: Path, repository: str = "") -> list[Path]:
    """Writes what `kaggle kernels push` and, for a kernel without internet, `kaggle datasets create` take.

    Args:
        user: your name on Kaggle, as in the address of your profile.
        folder: where to write, whole or not at all; must not exist.
        repository: address of a git repository of this project: the kernel may then use the internet, clones it and fetches
            ImageNet weights itself. Without it the project goes along as a dataset, and so must the weights.

    Returns:
        The folders written: `kernel`, and `package` for a kernel without internet.

    Raises:
        InputError: when the folder exists, or the user's name cannot be one; when the wheels
            cannot be fetched.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", user):
        raise InputError(f"{user!r} is no name on Kaggle; give the one in the address of your profile.")
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder with --out.")
    if any(folder.resolve().is_relative_to(ROOT / name) for name in SOURCE):
        raise InputError(f"{folder} lies in what is sent; name a folder beside the project with --out.")
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as part:
        whole = Path(part) / "whole"
        (whole / "kernel").mkdir(parents=True)
        write_text(whole / "kernel" / "detector.ipynb", _notebook(repository) + "\n")
        write_text(whole / "kernel" / "kernel-metadata.json", json.dumps(_kernel_metadata(user, repository), indent=2) + "\n")
        if not repository:
            _write_package(user, whole / "package")
        whole.rename(folder)
    return [folder / "kernel"] if repository else [folder / "kernel", folder / "package"]


def _write_package(user: str, folder: Path) -> None:
    """The project itself and the wheels that it needs, as a dataset."""
    project = folder / "detector"
    project.mkdir(parents=True)
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, project / name)
    _fetch_wheels(folder / "wheels")
    write_text(folder / "dataset-metadata.json", json.dumps(_dataset_metadata(user), indent=2) + "\n")


def _fetch_wheels(folder: Path) -> None:
    """Wheels for what Kaggle's image may lack, for Python 3.11 and newer: all three are pure Python."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *LACKING]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed"
        raise InputError(f"The wheels for the kernel could not be fetched ({reason}); try again with a connection.")


def describe_push(user: str, folders: list[Path]) -> str:
    """The lines that send what `write_bundle` wrote, and a badge that leads to the kernel, for a README."""
    address = f"https://www.kaggle.com/code/{user}/{KERNEL}"
    lines = [f"kaggle datasets create -p {package} --dir-mode zip" for package in folders[1:]]
    badge = f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]({address})"
    return "\n".join([*lines, f"kaggle kernels push -p {folders[0]}", f"then, as a badge: {badge}"])


def _kernel_metadata(user: str, repository: str) -> dict:
    return {
        "id": f"{user}/{KERNEL}",
        "title": "Histopathologic Cancer Detector",
        "code_file": "detector.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": bool(repository),
        "dataset_sources": [] if repository else [f"{user}/{PACKAGE}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }


def _dataset_metadata(user: str) -> dict:
    return {"id": f"{user}/{PACKAGE}", "title": "Histopath package", "licenses": [{"name": "other"}]}


def _notebook(repository: str) -> str:
    """A kernel of a few cells: the project, the run, the submission."""
    import nbformat  # takes seconds to import, and every command reads this module

    wanted = " ".join(LACKING)
    if repository:
        fetch = f"!git clone -q {repository} /tmp/detector && pip install -q {wanted}\n%env PYTHONPATH=/tmp/detector"
    else:
        fetch = (
            f"from pathlib import Path\n\ninputs = Path({'/kaggle/input'!r})\n"
            f"package = next(found for place in ({PACKAGE!r}, {f'datasets/*/{PACKAGE}'!r}) for found in inputs.glob(place))\n"
            f"!pip install -q --no-index --no-deps --find-links {{package}}/wheels {wanted}\n%env PYTHONPATH={{package}}/detector"
        )
    text = (
        "# Histopathologic Cancer Detector\n\nTrains Xception + NASNetMobile on the competition's patches, scores it on a "
        "holdout that chose nothing, and writes `submission.csv`. A research tool, not a medical device."
    )
    cells = [
        nbformat.v4.new_markdown_cell(text),
        *(nbformat.v4.new_code_cell(source) for source in (fetch, RUN, "!head -3 /kaggle/working/submission.csv")),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(notebook)
