"""Kaggle's machines, in a folder laid out like theirs: data, weights and places are found, and a kernel's folder is whole."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

import nbformat
import pandas as pd
import pytest

from histopath import kaggle
from histopath.backbones import BACKBONES, _imagenet_file
from histopath.config import home
from histopath.files import InputError
from histopath.kaggle import COMPETITION, find_attached, find_competition, write_bundle
from histopath.models import build_model
from histopath.workspace import open_workspace


@pytest.fixture
def machine(tmp_path, sample, monkeypatch):
    """`input` with the competition (the sample) and a dataset of weights, `working`, and no home of its own."""
    (tmp_path / "working").mkdir()
    (tmp_path / "input").mkdir()
    shutil.copytree(sample, tmp_path / "input" / COMPETITION)
    monkeypatch.setenv("HISTOPATH_KAGGLE", str(tmp_path))
    monkeypatch.delenv("HISTOPATH_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_elsewhere_nothing_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HISTOPATH_KAGGLE", str(tmp_path / "absent"))
    assert find_competition() is None and find_attached("weights.h5") is None


@pytest.mark.parametrize("place", [COMPETITION, f"competitions/{COMPETITION}"])
def test_the_competition_is_found_in_both_places_where_it_is_mounted(place, tmp_path, monkeypatch):
    (tmp_path / "input" / place).mkdir(parents=True)
    monkeypatch.setenv("HISTOPATH_KAGGLE", str(tmp_path))
    assert find_competition() == tmp_path / "input" / place


def test_the_full_preset_reads_there_and_writes_where_kaggle_looks(machine):
    work = open_workspace("full", weights="none")
    assert work.patches.root == machine / "input" / COMPETITION and home() == machine / "working"
    assert work.submission == machine / "working" / "submission.csv"
    assert not (machine / "working" / "data").exists(), "packed patches would be uploaded"
    assert work.run_folder == machine / "working" / "runs" / "full"
    assert open_workspace("sample", data_dir=work.patches.root).submission.parent.name == "submission"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_of_an_attached_dataset_are_used_without_internet(machine, depth):
    folder = machine.joinpath("input", *(f"folder{number}" for number in range(depth)))
    folder.mkdir(parents=True)
    name = BACKBONES["mobilenet"].url.split("/")[-1]
    build_model("mobilenet").get_layer("mobilenet").save_weights(folder / "mobilenet.weights.h5")
    (folder / "mobilenet.weights.h5").rename(folder / name)
    assert _imagenet_file("mobilenet") == folder / name


def write_wheel(folder, name):
    """The smallest package that pip takes."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder of wheels in place of the package index."""
    for name in kaggle.LACKING:
        write_wheel(tmp_path / "index", name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_a_kernel_without_internet_has_the_project_and_its_wheels(tmp_path, wheels):
    kernel, package = write_bundle("somebody", tmp_path / "bundle")
    assert {path.name for path in (package / "wheels").iterdir()} == {path.name for path in wheels.iterdir()}
    told = json.loads((kernel / "kernel-metadata.json").read_text())
    assert told["id"] == "somebody/histopathologic-cancer-detector" and told["dataset_sources"] == ["somebody/histopath-package"]
    assert told["competition_sources"] == [COMPETITION] and told["enable_gpu"] and not told["enable_internet"]
    assert (kernel / told["code_file"]).is_file()
    assert json.loads((package / "dataset-metadata.json").read_text())["id"] == "somebody/histopath-package"
    assert (package / "detector" / "histopath" / "kaggle.py").is_file()
    assert (package / "detector" / "notebooks" / "05_submit.ipynb").is_file()
    notebook = nbformat.read(kernel / "detector.ipynb", 4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "--no-index" in text and "git clone" not in text and "05_submit" in text


def test_without_the_wheels_nothing_is_left(tmp_path, wheels):
    next(wheels.iterdir()).unlink()
    with pytest.raises(InputError, match="wheels for the kernel could not be fetched"):
        write_bundle("somebody", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def keep_some(folder, table, part, every):
    """Leaves one of some patches of a part, so that the whole story takes minutes."""
    rows = pd.read_csv(folder / table)
    rows[::every].to_csv(folder / table, index=False)
    for name in set(rows["id"]) - set(rows["id"][::every]):
        (folder / part / f"{name}.tif").unlink()


@pytest.mark.slow
def test_the_kernel_runs_from_03_to_the_submission(machine, wheels):
    """What the pushed notebook runs, from the attached package, on the sample as the competition: one short epoch."""
    keep_some(machine / "input" / COMPETITION, "train_labels.csv", "train", 8)
    keep_some(machine / "input" / COMPETITION, "sample_submission.csv", "test", 8)
    _, package = write_bundle("somebody", machine / "bundle")
    shutil.copytree(package, machine / "input" / kaggle.PACKAGE)
    command = [*kaggle.RUN.removeprefix("!python").split(), "--epochs", "1", "--weights", "none"]
    (machine / "lacking").mkdir()  # Kaggle's image is sent wheels of what the story needs, and has none of these
    (machine / "lacking" / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(dict.fromkeys(('openslide', 'gradio', 'pooch', 'distributed')))\n"
    )
    paths = f"{machine / 'input' / kaggle.PACKAGE / 'detector'}{os.pathsep}{machine / 'lacking'}"
    where = {"PYTHONPATH": paths, "HISTOPATH_KAGGLE": str(machine)}
    done = subprocess.run(
        [sys.executable, *command], cwd=machine / "working", env=os.environ | where, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sent = pd.read_csv(machine / "working" / "submission.csv")
    wanted = pd.read_csv(machine / "input" / COMPETITION / "sample_submission.csv")
    assert list(sent.columns) == ["id", "label"] and set(sent["id"]) == set(wanted["id"]) and sent["label"].between(0, 1).all()


def test_a_kernel_with_internet_clones_the_project(tmp_path):
    (kernel,) = write_bundle("some-body", tmp_path / "bundle", repository="https://example.org/detector.git")
    assert json.loads((kernel / "kernel-metadata.json").read_text())["enable_internet"]
    assert "git clone -q https://example.org/detector.git" in (kernel / "detector.ipynb").read_text()


def test_a_wrong_name_and_a_full_folder_are_refused(tmp_path):
    for name in ("a/b", "é", "a" * 300):
        with pytest.raises(ValueError, match="is no name on Kaggle"):
            write_bundle(name, tmp_path / "bundle")
    with pytest.raises(ValueError, match="lies in what is sent"):
        write_bundle("somebody", kaggle.ROOT / "histopath" / "bundle")
    with pytest.raises(ValueError, match="exists already"):
        write_bundle("somebody", tmp_path, repository="https://example.org/detector.git")
    assert not list(tmp_path.iterdir())


def test_the_readme_has_the_lines_that_push():
    readme = (kaggle.ROOT / "README.md").read_text()
    assert re.search(r"kaggle-bundle .*--out", readme) and "kaggle kernels push -p" in readme
