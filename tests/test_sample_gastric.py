"""The gastric sample: equal pixels everywhere, two class folders four to one, and mean colour does not solve it."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath import glands, sample, sample_gastric, tissue

# The pixels that render_slices(0) of VERSION 1 draws; a change of the drawing must raise VERSION and this.
GOLDEN_SHA256 = "7991656ce7a220788a6c390e36ab0a18010d173a8ef6222718d86575e1f34205"
DRAW_TWO = """
import hashlib
from histopath import sample_gastric, tissue
cells = tissue.draw_cells(0, sample_gastric.KINDS)
for is_cancer in (False, True):
    print(hashlib.sha256(sample_gastric.render_slice(tissue.generator(7), cells, is_cancer).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def slices():
    """Draws the sample once for all tests that look at it, and for those that write it."""
    drawn = list(sample_gastric.render_slices(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_gastric, "render_slices", lambda seed: iter(drawn))
        yield drawn


@pytest.fixture(scope="module")
def folder(slices, tmp_path_factory) -> Path:
    return sample_gastric.write_gastric(tmp_path_factory.mktemp("home") / "data" / "sample-gastric")


@pytest.fixture(scope="module")
def arrays(slices):
    """Images (60, 512, 512, 3) and whether each is cancer (60,)."""
    return np.stack([one.image for one in slices]), np.array([one.label == "cancer" for one in slices])


@pytest.mark.slow
def test_the_pixels_are_the_golden_ones(slices):
    digest = hashlib.sha256()
    for one in slices:
        digest.update(f"{one.label}/{one.id}\0".encode() + one.image.tobytes())
    assert digest.hexdigest() == GOLDEN_SHA256


@pytest.mark.slow
def test_a_drawing_without_avx_is_the_same():
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    plain = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "PYTHONHASHSEED": "7"}
    command, root = [sys.executable, "-W", "ignore", "-c", DRAW_TWO], Path(sample_gastric.__file__).parents[1]
    outputs = [
        subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout
        for environment in (plain, os.environ)
    ]
    assert outputs[0] == outputs[1] and len(set(outputs[0].split())) == 2


def test_no_float_is_computed():
    rng, cells = tissue.generator(1), tissue.draw_cells(0, sample_gastric.KINDS)
    canvas, everywhere = np.zeros((2, 544, 544), np.int32), np.ones((544, 544), bool)
    glands.paint_glands(rng, canvas, cells, sample_gastric.NORMAL, everywhere, 60)
    sample_gastric.paint_cancer(rng, canvas, cells, everywhere)  # numpy refuses to add a float to these integers in place
    assert canvas.dtype == np.int32 and canvas.any()
    assert {field.dtype for field in (*sample_gastric.lay_out(rng), sample_gastric.grow(rng))} == {np.dtype(bool)}


@pytest.mark.slow
def test_it_is_four_to_one_in_two_folders(folder):
    counts = {path.name: len(list(path.glob("*.tif"))) for path in folder.iterdir() if path.is_dir()}
    assert counts == {"cancer": 48, "non_cancer": 12}
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"slides.csv", "sample.json", "README.txt"}
    assert json.loads((folder / "sample.json").read_text()) == {
        "made_by": "histopath gastric sample, synthetic", "version": 1, "seed": 0, "cancer": 48, "non_cancer": 12}  # fmt: skip
    assert sample.is_synthetic(folder)


@pytest.mark.slow
def test_files_are_large_tiffs_that_hold_the_slices_drawn(folder, slices):
    for one in slices[::6]:
        with tifffile.TiffFile(folder / one.label / f"{one.id}.tif") as file:
            page = file.pages[0]
            assert (page.compression.name, page.photometric.name, page.bitspersample) == ("NONE", "RGB", 8)
            assert json.loads(page.description) == {"shape": [512, 512, 3]}
            assert np.array_equal(page.asarray(), one.image)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6


@pytest.mark.slow
def test_every_image_is_a_slide_of_its_own(folder):
    with (folder / "slides.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "slide"]
    assert sorted(name for name, _ in rows) == sorted(path.stem for path in folder.glob("*/*.tif"))
    assert len({slide for _, slide in rows}) == len(rows) == 60


@pytest.mark.slow
def test_a_name_does_not_tell_the_class(slices):
    assert [one.id for one in slices] == [f"slice_{number:03d}" for number in range(1, 61)]
    healthy = [number for number, one in enumerate(slices) if one.label == "non_cancer"]
    assert healthy[0] < 20 and healthy[-1] >= 40


@pytest.mark.slow
def test_readme_says_that_it_is_synthetic(folder):
    text = (folder / "README.txt").read_text()
    assert "synthetic" in text and "nothing found here says anything about medicine" in " ".join(text.split())


@pytest.mark.slow
def test_no_two_images_are_equal(slices):
    assert len({one.image.tobytes() for one in slices}) == len(slices)


def test_another_seed_draws_other_slices():
    cells = tissue.draw_cells(0, sample_gastric.KINDS)
    one, other = (sample_gastric.render_slice(tissue.generator(seed, 11, 0), cells, True) for seed in (0, 1))
    assert np.mean(one != other) > 0.9


def score(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean AUC of a linear model over five divisions of the slices into four parts."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = [StratifiedKFold(4, shuffle=True, random_state=seed) for seed in range(5)]
    return float(np.mean([
        roc_auc_score(labels, cross_val_predict(model, features, labels, cv=fold, method="predict_proba")[:, 1])
        for fold in folds
    ]))  # fmt: skip


@pytest.mark.slow
def test_mean_colour_does_not_solve_it_and_texture_does(arrays):
    images, labels = arrays
    colour = images.mean((1, 2))
    grey = images.reshape(60, 256, 2, 256, 2, 3).mean((2, 4, 5))  # about the 224 pixels at which a network looks
    blurred = [grey.reshape(60, 256 // k, k, 256 // k, k).mean((2, 4)) for k in (1, 2, 4, 8, 16)]
    texture = np.log(np.stack([image.std((1, 2)) for image in blurred], 1))
    auc_colour, auc_texture = score(colour, labels), score(texture, labels)
    print(f"AUC mean colour {auc_colour:.3f}, texture {auc_texture:.3f}, {len(images)} slices")
    assert auc_colour < 0.8
    assert auc_texture > auc_colour + 0.1


@pytest.mark.slow
def test_a_finished_sample_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sample_gastric.write_gastric(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["notes.txt", "sample.json"])
def test_a_folder_with_something_else_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="the whole synthetic gastric sample .* but holds something else: move it away"):
        sample_gastric.write_gastric(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_another_sample_is_refused(tmp_path):
    (tmp_path / "sample.json").write_text(json.dumps(sample.LAYOUT.marker(0, {"train": 0, "test": 0})))
    with pytest.raises(ValueError, match="holds something else"):
        sample_gastric.write_gastric(tmp_path)


@pytest.mark.slow
def test_a_sample_that_lost_a_slice_is_refused(folder):
    lost = folder / "cancer" / f"{next(folder.glob('cancer/*.tif')).stem}.tif"
    content = lost.read_bytes()
    lost.unlink()
    try:
        with pytest.raises(ValueError, match="holds something else"):
            sample_gastric.write_gastric(folder)
    finally:
        lost.write_bytes(content)


@pytest.mark.slow
def test_nothing_is_left_when_writing_fails(slices, tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def full_disk(self, data):
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(write(self, data))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        sample_gastric.write_gastric(tmp_path / "sample-gastric")
    assert len(written) == 5 and not list(tmp_path.iterdir())


def test_it_stands_under_data(tmp_path):
    assert sample_gastric.gastric_folder(tmp_path) == tmp_path / "data" / "sample-gastric"
