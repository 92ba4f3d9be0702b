"""The organ sample: equal pixels everywhere, the folders of Multi Cancer, organ easier than malignancy."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath import sample, sample_organs, tissue

# The pixels, before JPEG, that render_pictures(0) of VERSION 1 draws; a change must raise VERSION and this.
GOLDEN_SHA256 = "64fe58ad3e25d08eb9ecaed4b3f8c6cdb2f98024fb6e91999e77cc1d2ccff41b"
SUBCLASSES = [name for names in sample_organs.FOLDERS.values() for name in names]
BENIGN = {"all_benign", "breast_benign", "cervix_mep", "cervix_pab", "cervix_sfi", "kidney_normal", "colon_bnt", "lung_bnt",
          "oral_normal"}  # fmt: skip
DRAW_EACH = """
import hashlib
from histopath import sample_organs, tissue
cells = tissue.draw_cells(0, sample_organs.KINDS)
for names in sample_organs.FOLDERS.values():
    for name in names:
        print(hashlib.sha256(sample_organs.render_picture(tissue.generator(7), cells, name).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def pictures():
    """Draws the sample once for all tests that look at it, and for those that write it."""
    drawn = list(sample_organs.render_pictures(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_organs, "render_pictures", lambda seed: iter(drawn))
        yield drawn


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory) -> Path:
    return sample_organs.write_organs(tmp_path_factory.mktemp("home") / "data" / "sample-organs")


@pytest.fixture(scope="module")
def cells():
    return tissue.draw_cells(0, sample_organs.KINDS)


@pytest.mark.slow
def test_the_pixels_are_the_golden_ones(pictures):
    digest = hashlib.sha256()
    for one in pictures:
        digest.update(f"{one.organ}/{one.subclass}/{one.number}\0".encode() + one.image.tobytes())
    assert digest.hexdigest() == GOLDEN_SHA256


@pytest.mark.slow
def test_a_drawing_without_avx_is_the_same():
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    plain = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "PYTHONHASHSEED": "7"}
    command, root = [sys.executable, "-W", "ignore", "-c", DRAW_EACH], Path(sample_organs.__file__).parents[1]
    outputs = [
        subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout
        for environment in (plain, os.environ)
    ]
    assert outputs[0] == outputs[1] and len(set(outputs[0].split())) == 26


@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_no_float_is_computed(cells, subclass):
    organ, kind = subclass.split("_")
    rng = tissue.generator(2)
    stained = organ in sample_organs.STAINED
    painted = sample_organs.STAINED[organ](rng, cells, kind) if stained else sample_organs.SCANNED[organ](rng, kind)
    assert np.issubdtype(painted.dtype, np.integer)
    assert painted.shape == ((2, 160, 160) if stained else (128, 128))


@pytest.mark.slow
def test_folders_and_files_are_named_as_in_the_original(folder):
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "ALL", "Brain Cancer", "Breast Cancer", "Cervical Cancer", "Kidney Cancer", "Lung and Colon Cancer", "Lymphoma",
        "Oral Cancer"}  # fmt: skip
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"sample.json", "README.txt"}
    listing = {path.name: sorted(file.name for file in path.iterdir()) for path in folder.glob("*/*")}
    assert listing == {name: [f"{name}_{number:04d}.jpg" for number in range(1, 17)] for name in SUBCLASSES}
    assert len(listing) == 26
    assert (folder / "Lung and Colon Cancer" / "colon_bnt" / "colon_bnt_0001.jpg").is_file()


@pytest.mark.slow
def test_the_marker_counts_every_folder(folder):
    marker = json.loads((folder / "sample.json").read_text())
    assert (marker["made_by"], marker["version"], marker["seed"]) == ("histopath organ sample, synthetic", 1, 0)
    assert marker["Oral Cancer/oral_scc"] == 16 and len(marker) == 3 + 26
    assert sample.is_synthetic(folder)


@pytest.mark.slow
def test_files_are_jpegs_close_to_the_pictures_drawn(folder, pictures):
    for one in pictures[::5]:
        path = folder / one.organ / one.subclass / f"{one.subclass}_{one.number:04d}.jpg"
        decoded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert path.read_bytes()[:3] == b"\xff\xd8\xff" and decoded.shape == (128, 128, 3)
        assert np.abs(decoded.astype(int) - one.image).mean() < 6  # grey levels: quality 95, colour at half the size


@pytest.mark.slow
def test_readme_says_that_it_is_synthetic_and_what_is_malignant(folder):
    text = " ".join((folder / "README.txt").read_text().split())
    assert "synthetic" in text and "nothing found here says anything about medicine" in text
    for name in set(SUBCLASSES) - BENIGN:
        assert name in text or f"{name.split('_')[0]}_*" in text, name


@pytest.mark.slow
def test_no_two_images_are_equal(pictures):
    assert len(pictures) == 416 == len({one.image.tobytes() for one in pictures})


@pytest.mark.slow
def test_scans_are_grey_and_smears_and_sections_are_not(pictures):
    for one in pictures:
        spread = np.ptp(one.image.astype(int), axis=-1).mean()
        assert (spread == 0) == (one.organ in ("Brain Cancer", "Kidney Cancer")), one.subclass


@pytest.mark.slow
def test_lesions_are_bright(pictures):
    """The brightest pixels of a brain outside its scalp: lesions fill some, in every one of the brains."""
    rows, columns = np.ogrid[:128, :128]
    inner = (rows - 64) ** 2 + (columns - 64) ** 2 < 28**2
    brains = [one.image[..., 0][inner] for one in pictures if one.organ == "Brain Cancer"]
    assert all((brain > np.median(brain) + 30).sum() > 20 for brain in brains)


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of images that a linear model places rightly, each in a part it has not learned from."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=10))
    predicted = cross_val_predict(model, features, labels, cv=StratifiedKFold(4, shuffle=True, random_state=0))
    return float((predicted == labels).mean())


@pytest.mark.slow
def test_colour_gives_the_organ_away_but_not_the_malignancy(pictures):
    pixels = np.stack([one.image for one in pictures]).reshape(416, -1, 3).astype(float)
    features = np.concatenate([pixels.mean(1), pixels.std(1)], 1)
    organs = np.array([one.subclass.split("_")[0] for one in pictures])
    malignant = np.array([one.subclass not in BENIGN for one in pictures])
    organ, malignancy = accuracy(features, organs), accuracy(features, malignant)
    print(f"accuracy of mean and spread of colour: organ {organ:.3f}, malignancy {malignancy:.3f}, 416 images")
    assert organ > 0.85
    assert malignancy < 0.8  # 0.65 of the images are malignant


@pytest.mark.slow
def test_a_finished_sample_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sample_organs.write_organs(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["notes.txt", "sample.json"])
def test_a_folder_with_something_else_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="the whole synthetic organ sample .* but holds something else: move it away"):
        sample_organs.write_organs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.slow
def test_nothing_is_left_when_writing_fails(pictures, tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def full_disk(self, data):
        if len(written) == 100:
            raise OSError(28, "No space left on device")
        written.append(write(self, data))

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        sample_organs.write_organs(tmp_path / "sample-organs")
    assert len(written) == 100 and not list(tmp_path.iterdir())


def test_it_stands_under_data(tmp_path):
    assert sample_organs.organs_folder(tmp_path) == tmp_path / "data" / "sample-organs"
