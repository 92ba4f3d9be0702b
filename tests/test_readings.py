"""A run reads a patch, or a larger image by windows, and doubts what is no tissue."""

import numpy as np
import pytest

from histopath.config import MICRONS_PER_PIXEL
from histopath.metrics.binary import tempered
from histopath.models.predict import predict
from histopath.readings import find_doubts, read_tissue, window_corners


@pytest.fixture(scope="module")
def tissue(small):
    """A mosaic of sample patches, 288×384."""
    return np.concatenate([np.concatenate(list(small.images[start : start + 4]), axis=1) for start in (0, 4, 8)])


def test_a_patch_gets_what_predict_gives(run, small):
    reading = read_tissue(run, small.images[0])
    assert reading.probability == pytest.approx(float(predict(run.network, small.images, [0])[0]), abs=1e-5)
    assert reading.calibrated == pytest.approx(float(tempered(np.array([reading.probability]), run.temperature)[0]), abs=1e-6)
    assert reading.views.shape == (8,) and np.ptp(reading.views) > 0
    assert reading.windows is None and reading.heat.shape == (96, 96) and reading.warnings == ()


def test_windows_cover_an_image_to_its_edges():
    corners = window_corners(250, 96, 96)
    assert corners[:, 0].tolist() == [0, 48, 96, 144, 154] and set(corners[:, 1]) == {0}
    covered = np.zeros((250, 300), bool)
    for row, column in window_corners(250, 300, 96):
        covered[row : row + 96, column : column + 96] = True
    assert covered.all()


def test_a_larger_image_is_read_by_its_windows(run, tissue):
    told = []
    reading = read_tissue(run, tissue, tell=told.append)
    corners = window_corners(*tissue.shape[:2], 96)
    p = predict(run.network, np.stack([tissue[row : row + 96, column : column + 96] for row, column in corners]), views=1)
    assert reading.probability == pytest.approx(float(p.max()), abs=1e-5) and told[-1] == 1
    assert reading.heat.shape == tissue.shape[:2] and reading.heat.max() <= p.max() + 1e-6
    first = reading.windows.iloc[0]
    assert first["probability"] == pytest.approx(float(p.max()), abs=1e-5)
    gaps = [
        np.abs(a - b).max()
        for n, a in enumerate(reading.windows[["x", "y"]].to_numpy())
        for b in reading.windows[["x", "y"]].to_numpy()[:n]
    ]
    assert min(gaps) >= 96


def test_a_finer_image_is_brought_to_the_resolution_of_pcam(run, tissue):
    fine = tissue.repeat(2, axis=0).repeat(2, axis=1)
    reading = read_tissue(run, fine, MICRONS_PER_PIXEL / 2)
    np.testing.assert_allclose(reading.heat, read_tissue(run, tissue).heat, atol=1e-5)


def test_an_image_smaller_than_a_patch_and_a_resolution_too_coarse_are_refused(run, tissue):
    with pytest.raises(ValueError, match="The image has 384×90 pixels at 0.972 µm, and a patch has 96×96; give a larger part"):
        read_tissue(run, tissue[:90])
    with pytest.raises(ValueError, match="The image has 20×0 pixels"):
        read_tissue(run, tissue[:5], 0.05)
    for impossible in (0.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match="an image has 0.25 at 40x"):
            read_tissue(run, tissue, impossible)


def test_tissue_raises_no_doubt_and_other_pictures_do(tissue):
    assert find_doubts(tissue) == ()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 200, 3), dtype="uint8")
    sky = np.full((200, 200, 3), (90, 150, 230), "uint8")
    for picture in (
        noise,
        sky,
        tissue.mean(axis=2, keepdims=True).repeat(3, axis=2).astype("uint8"),
        np.roll(tissue, 1, axis=2),
    ):
        assert "does not look like H&E" in find_doubts(picture)[0]
    assert "empty glass" in find_doubts(np.full((200, 200, 3), 250, "uint8"))[0]


def test_nearly_all_real_patches_look_like_tissue(shared):
    import cv2

    files = sorted((shared / "pcam-jpeg" / "valid").rglob("*.jpg"))[::20]
    doubted = [file for file in files if any("H&E" in one for one in find_doubts(cv2.imread(str(file))[..., ::-1]))]
    assert len(files) == 100 and len(doubted) <= 2
