"""Analysis of uploaded images: patches, larger images, resolutions, warnings."""

import cv2
import numpy as np
import pytest

from histopath.app.analyze import TILE, analyze_image, image_warnings, render, tile_starts
from histopath.config import MICRONS_PER_PIXEL
from histopath.files import InputError
from histopath.models.predict import predict


@pytest.fixture(scope="module")
def tissue(small):
    """A mosaic of sample patches, 288×384."""
    return np.concatenate([np.concatenate(list(small.images[start : start + 4]), axis=1) for start in (0, 4, 8)])


@pytest.fixture(scope="module")
def analysis(run, tissue):
    return analyze_image(run, tissue, MICRONS_PER_PIXEL)


def test_a_patch_gets_the_probability_that_predict_gives(run, small):
    found = analyze_image(run, small.images[0], MICRONS_PER_PIXEL)
    np.testing.assert_allclose(found.scores, predict(run.network, small.images, [0]), atol=1e-5)
    assert found.heat.shape == (96, 96) and found.warnings == []


@pytest.mark.parametrize("length", [96, 97, 144, 250, 1000])
def test_tiles_cover_an_image_from_edge_to_edge(length):
    starts = tile_starts(length)
    assert starts[0] == 0 and starts[-1] == length - TILE and max(np.diff(starts), default=0) <= 49


def test_a_larger_image_is_scored_tile_by_tile(run, tissue, analysis):
    corners = [(row, column) for row in tile_starts(288) for column in tile_starts(384)]
    tiles = np.stack([tissue[row : row + 96, column : column + 96] for row, column in corners])
    np.testing.assert_allclose(analysis.scores, predict(run.network, tiles, views=1), atol=1e-5)
    for row, column, score in analysis.top:
        assert analysis.heat[row + 48, column + 48] == pytest.approx(score, abs=0.02)
    assert analysis.top[0][2] == analysis.scores.max()


def test_top_tiles_do_not_overlap(analysis):
    corners = np.array([(row, column) for row, column, _ in analysis.top])
    gaps = np.abs(corners[:, None] - corners).max(axis=2)
    assert len(corners) == 5 and gaps[~np.eye(5, dtype=bool)].min() >= TILE


def test_progress_is_reported_up_to_the_last_tile(run, tissue, monkeypatch):
    monkeypatch.setattr("histopath.app.analyze.CHUNK", 20)
    shares = []
    analyze_image(run, tissue, MICRONS_PER_PIXEL, shares.append)
    assert shares == pytest.approx([20 / 35, 1])


def test_a_finer_image_is_resized_to_the_resolution_of_pcam(run, tissue, analysis):
    fine = analyze_image(run, tissue.repeat(2, axis=0).repeat(2, axis=1), MICRONS_PER_PIXEL / 2)
    np.testing.assert_allclose(fine.scores, analysis.scores, atol=1e-5)


def test_images_that_are_too_small_or_too_coarse_are_rejected(run, tissue):
    with pytest.raises(InputError, match="The image has 384×90 pixels at 0.972 µm per pixel and needs at least 96×96"):
        analyze_image(run, tissue[:90], MICRONS_PER_PIXEL)
    with pytest.raises(InputError, match="The image has 20×0 pixels"):
        analyze_image(run, tissue[:5], 0.05)
    for impossible in (0.0, 2.0, float("nan")):
        with pytest.raises(InputError, match="outside the supported range of 0.05 to 1.25; typical values are 0.25 at 40×"):
            analyze_image(run, tissue, impossible)


def test_images_unlike_sharp_stained_tissue_get_a_warning(tissue):
    assert image_warnings(tissue) == []
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype="uint8")
    gray = tissue.mean(axis=2, keepdims=True).repeat(3, axis=2).astype("uint8")
    for picture in (noise, gray, np.roll(tissue, 1, axis=2)):
        assert "unlike H&E" in image_warnings(picture)[0]
    assert "blurred" in image_warnings(cv2.GaussianBlur(tissue, (0, 0), 2))[0]
    glass = np.full((200, 200, 3), 250, "uint8")
    assert "nearly empty" in image_warnings(glass)[0]


def test_warnings_are_rare_on_real_patches_and_usual_on_blurred_ones(shared):
    files = sorted((shared / "pcam-jpeg" / "valid").rglob("*.jpg"))[::20]
    patches = [cv2.imread(str(file))[..., ::-1].copy() for file in files]
    blurred = [any("blurred" in one for one in image_warnings(cv2.GaussianBlur(patch, (0, 0), 1.5))) for patch in patches]
    assert len(files) == 100 and sum(bool(image_warnings(patch)) for patch in patches) <= 3 and sum(blurred) >= 85


@pytest.mark.parametrize(("side", "shown"), [(96, 480), (700, 700)])
def test_small_images_are_enlarged_for_the_screen(run, tissue, side, shown):
    pixels = np.tile(tissue, (3, 2, 1))[:side, :side]
    plain, overlay = render(analyze_image(run, pixels, MICRONS_PER_PIXEL))
    assert plain.shape == overlay.shape == (shown, shown, 3) and (plain != overlay).any()
