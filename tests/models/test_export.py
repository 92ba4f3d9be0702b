"""An exported run answers as the run did, is half as large, and knows what it learned from."""

import re
import shutil
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest

from histopath.data.patches import open_patches
from histopath.evaluation.evaluate import score_run
from histopath.models.predict import predict
from histopath.models.runs import FILES, FOLDER, LARGEST, Run, export_run, open_run, scored_rows


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("box") / "pretrained"
    size = export_run(run, folder)
    assert size == sum(path.stat().st_size for path in folder.iterdir())
    return open_run(folder)


def test_it_answers_as_the_run_did(run, exported, small):
    before, after = (predict(one.network, small.images, views=1) for one in (run, exported))
    # Half precision has 11 bits; through a dozen layers about one in a thousand is left of the rounding.
    np.testing.assert_allclose(after, before, atol=5e-3)
    assert (after != before).any()


def test_kernels_are_halves_and_statistics_are_not(run, exported):
    assert (exported.folder / "model.keras").stat().st_size < 0.6 * (run.folder / "model.keras").stat().st_size
    with zipfile.ZipFile(exported.folder / "model.keras") as file, h5py.File(file.open("model.weights.h5")) as weights:
        kinds = {}
        weights.visititems(lambda name, item: kinds.update({name: (item.dtype, item.ndim)}) if hasattr(item, "dtype") else None)
    assert {dtype for dtype, dimensions in kinds.values() if dimensions > 1} == {np.dtype("float16")}
    assert {dtype for dtype, dimensions in kinds.values() if dimensions == 1} == {np.dtype("float32")}


def test_it_is_whole_and_scores_only_what_it_did_not_learn_from(run, exported, small):
    assert all((exported.folder / name).is_file() for name in FILES)
    assert exported.threshold == run.threshold and exported.temperature == run.temperature
    rows, words = scored_rows(exported, small)
    assert set(rows["id"]) == set(run.rows("holdout")["id"]) and "holdout" in words


def test_exporting_again_gives_the_same_bytes(run, exported, tmp_path):
    export_run(run, tmp_path)
    for path in exported.folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_network_that_is_too_large_leaves_nothing(run, tmp_path):
    large = tmp_path / "large"
    shutil.copytree(run.folder, large)
    with zipfile.ZipFile(large / "model.keras", "a") as file:
        file.writestr("more", np.random.default_rng(0).bytes(6_000_000))
    with pytest.raises(ValueError, match="large is .* MB in half precision, .* export a smaller network"):
        export_run(Run(large), tmp_path / "box")
    assert not (tmp_path / "box").exists()


def test_a_run_in_full_precision_is_not_exported_over(run, exported, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    before = (copy / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="holds a run in full precision, which would be lost"):
        export_run(Run(copy), copy)
    assert (copy / "model.keras").read_bytes() == before


@pytest.mark.parametrize("name", ["model.keras", "metrics.json", "config.json", "splits.csv", "history.csv"])
def test_a_damaged_run_is_named_and_nothing_is_written(run, tmp_path, name):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    (copy / name).write_bytes((copy / name).read_bytes()[:40])
    with pytest.raises(ValueError, match=re.escape(str(copy / name))):
        export_run(Run(copy), tmp_path / "box")
    assert not (tmp_path / "box").exists()


def test_the_network_in_the_box_is_small_and_holds_no_pixels():
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {*FILES, "identity.json", "README.md"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LARGEST
    box = open_run(FOLDER)
    assert box.config.recipe == "compact" and box.network.count_params() == 280_465
    assert len(box.splits) == 20_000 and set(box.splits["split"]) == {"train", "val", "holdout"}


def test_the_network_in_the_box_answers_without_training(command, sample, tmp_path):
    status, out, _ = command("predict", "--run", "pretrained", "--data", sample, "--out", tmp_path / "p.csv")
    assert status == 0 and "wrote 538 probabilities" in out
    assert pd.read_csv(tmp_path / "p.csv")["probability"].between(0, 1).all()
    status, out, _ = command("evaluate", "--run", "pretrained", "--data", sample)
    assert status == 0 and "AUC" in out and "nothing about medicine" in out


@pytest.mark.slow
@pytest.mark.parametrize("data", ["pcam-jpeg/valid", "kaggle"])
def test_its_card_states_the_scores_that_it_reaches(shared, tmp_path, data):
    card = (FOLDER / "README.md").read_text()
    patches = open_patches(shared / data, cache=tmp_path, progress=False)
    scores = score_run(open_run(FOLDER), patches)
    line = next(line for line in card.splitlines() if line.startswith("| PCam valid" if "valid" in data else "| Kaggle TIFFs"))
    auc, count = line.split("|")[2].split()[0], line.split("|")[3].strip().replace(",", "")
    assert float(auc) == pytest.approx(scores["auc"], abs=6e-4) and int(count) == scores["patches"]
