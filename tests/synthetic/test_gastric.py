"""The gastric sample: equal pixels everywhere, classes four to one, not solved by color."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath.synthetic import gastric

pytestmark = pytest.mark.slow  # draws 60 large slices
# Of the pixels of VERSION 2; raise it with a change of this.
GOLDEN_SHA256 = "2624144d94d428fb5daeb7dda0e43a9bb4a8bb8734acd988b0d77472fa5389df"


@pytest.fixture(scope="module")
def slices():
    return list(gastric.render_slices(0))


@pytest.fixture(scope="module")
def folder(slices, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gastric, "render_slices", lambda seed: slices)
        return gastric.GASTRIC.write(tmp_path_factory.mktemp("home") / "sample-gastric")


def test_the_pixels_are_the_golden_ones(slices):
    digest = hashlib.sha256()
    for name, label, image in slices:
        digest.update(f"{label}/{name}".encode() + image.tobytes())
    assert digest.hexdigest() == GOLDEN_SHA256


def test_it_is_four_to_one_in_two_folders(folder):
    counts = {path.parent: len(list(path.parent.iterdir())) for path in folder.glob("*/*.tif")}
    assert counts == {folder / "cancer": 48, folder / "non_cancer": 12}


def test_files_hold_the_slices_drawn(folder, slices):
    for name, label, image in slices[::6]:
        assert np.array_equal(tifffile.imread(folder / label / f"{name}.tif"), image)


def test_every_image_is_a_slide_of_its_own(folder):
    table = pd.read_csv(folder / "slides.csv")
    assert sorted(table["id"]) == sorted(path.stem for path in folder.glob("*/*.tif"))
    assert table["slide"].is_unique


def test_a_name_does_not_tell_the_class(slices):
    healthy = [number for number, (_, label, _) in enumerate(slices) if label == "non_cancer"]
    assert healthy[0] < 20 and healthy[-1] >= 40


def score(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean AUC of a linear model over five divisions of the slices into four parts."""
    regression = LogisticRegression(max_iter=1000, class_weight="balanced")
    model = make_pipeline(StandardScaler(), regression)
    scores = []
    for seed in range(5):
        folds = StratifiedKFold(4, shuffle=True, random_state=seed)
        p = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
        scores.append(roc_auc_score(labels, p[:, 1]))
    return float(np.mean(scores))


def test_mean_color_does_not_solve_it_and_texture_does(slices):
    images = np.stack([image for _, _, image in slices])
    labels = np.array([label == "cancer" for _, label, _ in slices])
    # About the 224 pixels at which a network looks.
    gray = images.reshape(60, 256, 2, 256, 2, 3).mean((2, 4, 5))
    blurred = [gray.reshape(60, 256 // k, k, 256 // k, k).mean((2, 4)) for k in (1, 2, 4, 8, 16)]
    texture = np.log(np.stack([image.std((1, 2)) for image in blurred], 1))
    auc_color, auc_texture = score(images.mean((1, 2)), labels), score(texture, labels)
    print(f"AUC mean color {auc_color:.3f}, texture {auc_texture:.3f}, {len(images)} slices")
    assert auc_color < 0.8
    assert auc_texture > auc_color + 0.1
