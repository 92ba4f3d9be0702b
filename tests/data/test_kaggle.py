"""Kaggle's machines, in a folder laid out like theirs: data, weights and places are found, and a kernel's folder is whole."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import nbformat
import pytest
from conftest import PROJECT

from histopath.config import home
from histopath.data.kaggle import COMPETITION, find_attached, find_competition, write_bundle
from histopath.evaluation.submission import upload_command
from histopath.models.backbones import BACKBONES, _imagenet_file
from histopath.models.registry import build_model
from histopath.project import open_workspace


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


def test_a_kernel_without_internet_has_the_project_and_needs_no_weights(tmp_path):
    kernel, package = write_bundle("somebody", tmp_path / "bundle")
    told = json.loads((kernel / "kernel-metadata.json").read_text())
    assert told["id"] == "somebody/histopathologic-cancer-detector" and told["dataset_sources"] == ["somebody/histopath-package"]
    assert told["competition_sources"] == [COMPETITION] and told["enable_gpu"] and not told["enable_internet"]
    assert (kernel / told["code_file"]).is_file()
    assert json.loads((package / "dataset-metadata.json").read_text())["id"] == "somebody/histopath-package"
    assert (package / "detector" / "histopath" / "data" / "kaggle.py").is_file()
    assert (package / "detector" / "notebooks" / "05_submit.ipynb").is_file()
    notebook = nbformat.read(kernel / "detector.ipynb", 4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "git clone" not in text and "pip" not in text and "--weights none" in text


def test_the_submission_is_written_before_the_evaluation_and_checked_last(tmp_path):
    notebook = nbformat.read(write_bundle("somebody", tmp_path / "bundle")[0] / "detector.ipynb", 4)
    sources = [cell.source for cell in notebook.cells]
    places = {word: next(i for i, text in enumerate(sources) if word in text) for word in ("05_submit", "04_evaluate")}
    assert places["05_submit"] < places["04_evaluate"] < len(sources) - 1
    assert "check-submission" in sources[-1] and "raise" in sources[-1]


def test_a_data_set_of_weights_is_attached_and_its_files_are_named(command, tmp_path):
    status, out, _ = command("kaggle-bundle", "somebody", "--out", tmp_path / "bundle", "--weights-dataset", "some-body/weights")
    assert status == 0 and "NASNet-mobile-no-top.h5  from https://" in out and "WARNING" not in out
    told = json.loads((tmp_path / "bundle" / "kernel" / "kernel-metadata.json").read_text())
    assert told["dataset_sources"] == ["somebody/histopath-package", "some-body/weights"]
    assert "--weights none" not in (tmp_path / "bundle" / "kernel" / "detector.ipynb").read_text()
    status, out, _ = command("kaggle-bundle", "somebody", "--out", tmp_path / "plain")
    assert status == 0 and "WARNING" in out and "--weights-dataset USER/NAME" in out


def run_last_cell(kernel, folder):
    """Runs the last cell of a kernel in a process of its own, with the folder in place of Kaggle's."""
    source = nbformat.read(kernel / "detector.ipynb", 4).cells[-1].source.replace("/kaggle", str(folder))
    where = {"PYTHONPATH": str(PROJECT), "HISTOPATH_KAGGLE": str(folder)}
    return subprocess.run([sys.executable, "-c", source], env=os.environ | where, capture_output=True, text=True)


def test_the_last_cell_fails_without_a_valid_submission(machine):
    kernel, _ = write_bundle("somebody", machine / "bundle")
    done = run_last_cell(kernel, machine)
    assert done.returncode and "submission.csv is not there" in done.stderr
    wanted = machine / "input" / COMPETITION / "sample_submission.csv"
    shutil.copy(wanted, machine / "working" / "submission.csv")
    done = run_last_cell(kernel, machine)
    assert not done.returncode and "is valid" in done.stdout
    lines = wanted.read_text().splitlines()
    (machine / "working" / "submission.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert "lacks 1 of" in run_last_cell(kernel, machine).stderr


def test_on_kaggle_an_error_names_what_the_user_can_do_there(machine):
    with pytest.raises(ValueError, match="Add Input, or run with --weights none"):
        build_model("mobilenet", "imagenet")
    shutil.rmtree(machine / "input" / COMPETITION)
    with pytest.raises(ValueError, match="add histopathologic-cancer-detection to this notebook with Add Input"):
        open_workspace("full")


def test_the_upload_command_fits_kaggles_working_folder(machine):
    assert " -f submission.csv " in upload_command(machine / "working" / "submission.csv")


def test_a_kernel_with_internet_clones_the_project(tmp_path):
    (kernel,) = write_bundle("some-body", tmp_path / "bundle", repository="https://example.org/detector.git")
    assert json.loads((kernel / "kernel-metadata.json").read_text())["enable_internet"]
    assert "git clone -q https://example.org/detector.git" in (kernel / "detector.ipynb").read_text()


def test_a_wrong_name_and_a_full_folder_are_refused(tmp_path):
    for name in ("a/b", "é", "a" * 300):
        with pytest.raises(ValueError, match="is not a Kaggle user name"):
            write_bundle(name, tmp_path / "bundle")
    with pytest.raises(ValueError, match="lies inside the project that is sent"):
        write_bundle("somebody", PROJECT / "histopath" / "bundle")
    with pytest.raises(ValueError, match="exists already"):
        write_bundle("somebody", tmp_path, repository="https://example.org/detector.git")
    assert not list(tmp_path.iterdir())


def test_the_readme_has_the_lines_that_push():
    readme = (PROJECT / "README.md").read_text()
    assert re.search(r"kaggle-bundle .*--out", readme) and "kaggle kernels push -p" in readme
