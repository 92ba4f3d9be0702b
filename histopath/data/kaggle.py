"""Finds data and weights on Kaggle's machines, and writes the kernel and the data set that are sent there."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import nbformat

from histopath.config import PROJECT, in_checkout, kaggle_folder
from histopath.files import InputError, write_text

COMPETITION = "histopathologic-cancer-detection"
KERNEL = "histopathologic-cancer-detector"
PACKAGE = "histopath-package"  # the dataset that holds this project, for kernels without internet
NAME = "[A-Za-z0-9_-]{1,50}"
RUN = "!python -m histopath run --preset full"
SOURCE = ("histopath", "notebooks", "pretrained", "pyproject.toml", "README.md", "MODEL_CARD.md", "LICENSE")


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


def write_bundle(user: str, folder: Path, repository: str = "", weights: str = "") -> list[Path]:
    """Writes what `kaggle kernels push` and, for a kernel without internet, `kaggle datasets create` take.

    Args:
        user: your name on Kaggle, as in the address of your profile.
        folder: where to write, whole or not at all; must not exist.
        repository: address of a git repository of this project: the kernel may then use the internet, clones the project and
            downloads ImageNet weights itself. Without it the project is sent along as a data set.
        weights: USER/NAME of a data set on Kaggle that holds the ImageNet weight files. Without it a kernel without internet
            trains from random weights.

    Returns:
        The folders written: `kernel`, and `package` for a kernel without internet.

    Raises:
        InputError: when the folder exists, or the name of the user or of the data set cannot be one.
    """
    if not re.fullmatch(NAME, user):
        raise InputError(f"{user!r} is not a Kaggle user name; give the one in the address of your profile.")
    if weights and not re.fullmatch(f"{NAME}/{NAME}", weights):
        raise InputError(f"{weights!r} is not a Kaggle data set; give USER/NAME, the end of its address.")
    if not in_checkout():
        raise InputError("The bundle is made of a checkout of the project; clone the repository and run this command there.")
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder with --out.")
    if any(folder.resolve().is_relative_to(PROJECT / name) for name in SOURCE):
        raise InputError(f"{folder} lies inside the project that is sent; name a folder beside it with --out.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as part:
        whole = Path(part) / "whole"
        (whole / "kernel").mkdir(parents=True)
        nbformat.write(_notebook(repository, weights), whole / "kernel" / "detector.ipynb")
        metadata = json.dumps(_kernel_metadata(user, repository, weights), indent=2) + "\n"
        write_text(whole / "kernel" / "kernel-metadata.json", metadata)
        if not repository:
            _write_package(user, whole / "package")
        whole.rename(folder)
    return [folder / "kernel"] if repository else [folder / "kernel", folder / "package"]


def _write_package(user: str, folder: Path) -> None:
    """The project itself, as a data set; Kaggle's image has every package that it needs."""
    project = folder / "detector"
    project.mkdir(parents=True)
    for name in SOURCE:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, project / name)
    write_text(folder / "dataset-metadata.json", json.dumps(_dataset_metadata(user), indent=2) + "\n")


def describe_push(user: str, folders: list[Path], weights: str, files: dict[str, str]) -> str:
    """The lines that send what `write_bundle` wrote, what is said of the weights, and a badge for a README.

    Args:
        user: your name on Kaggle.
        folders: as returned by `write_bundle`.
        weights: as given to `write_bundle`.
        files: name of each ImageNet weight file that the network can start from → its address.
    """
    address = f"https://www.kaggle.com/code/{user}/{KERNEL}"
    lines = [f"kaggle datasets create -p {package} --dir-mode zip" for package in folders[1:]]
    lines.append(f"kaggle kernels push -p {folders[0]}")
    lines.append(f"badge: [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]({address})")
    listed = "\n".join(f"  {name}  from {url}" for name, url in files.items())
    if weights:
        lines.append(f"The data set {weights} must hold these files:\n{listed}")
    elif len(folders) > 1:
        lines.append(
            "WARNING: the kernel has no internet and no weight files, so it trains from random weights and scores lower. "
            f"To start from ImageNet, put these files into a data set and name it with --weights-dataset USER/NAME:\n{listed}"
        )
    return "\n".join(lines)


def _kernel_metadata(user: str, repository: str, weights: str) -> dict:
    attached = [] if repository else [f"{user}/{PACKAGE}"]
    return {
        "id": f"{user}/{KERNEL}",
        "title": "Histopathologic Cancer Detector",
        "code_file": "detector.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": bool(repository),
        "dataset_sources": attached + [weights] * bool(weights),
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }


def _dataset_metadata(user: str) -> dict:
    return {"id": f"{user}/{PACKAGE}", "title": "Histopath package", "licenses": [{"name": "other"}]}


FETCH_CELL = """import os

!git clone -q {repository} /tmp/detector && pip install -q -e /tmp/detector
os.environ["PYTHONPATH"] = "/tmp/detector"
"""
PACKAGE_CELL = """import os
from pathlib import Path

places = ("{package}", "datasets/*/{package}")
package = next(folder for place in places for folder in Path("/kaggle/input").glob(place))
os.environ["PYTHONPATH"] = f"{{package}}/detector"
"""
CHECK_CELL = """import subprocess
import sys

check = subprocess.run(
    [sys.executable, "-m", "histopath", "check-submission", "/kaggle/working/submission.csv"], capture_output=True, text=True
)
print(check.stdout)
if check.returncode:
    raise RuntimeError(check.stderr)"""


def _notebook(repository: str, weights: str) -> nbformat.NotebookNode:
    """The kernel: finds the project, trains, submits, evaluates, and fails when there is no valid submission."""
    run = RUN if repository or weights else f"{RUN} --weights none"
    start = "ImageNet weights" if repository or weights else "random weights (attach ImageNet weight files for a better score)"
    fetch = FETCH_CELL.format(repository=repository) if repository else PACKAGE_CELL.format(package=PACKAGE)
    cells = [
        nbformat.v4.new_markdown_cell(
            f"# Histopathologic Cancer Detector\n\nTrains Xception + NASNetMobile from {start} on the competition's patches, "
            "writes `submission.csv`, then scores the network on held-out patches that were not used for model selection. A "
            "research tool, not a medical device."
        ),
        nbformat.v4.new_code_cell(fetch.strip()),
        nbformat.v4.new_markdown_cell("Train, then write the submission first, so that nothing after it can cost it."),
        nbformat.v4.new_code_cell(f"{run} --only 03_train --only 05_submit"),
        nbformat.v4.new_code_cell(f"{run} --only 04_evaluate"),
        nbformat.v4.new_markdown_cell("Check the submission. Without a valid one this cell, and so the kernel, fails."),
        nbformat.v4.new_code_cell(CHECK_CELL),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook
