"""Slides are read at PCam's resolution whatever their own, tissue is found, and a plan of tiles covers it in bounded memory."""

import shutil
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from histopath.config import MICRONS_PER_PIXEL
from histopath.slides.tiles import (
    TILE,
    Slide,
    find_tissue,
    open_slide,
    plan_tiles,
    read_area,
    read_overview,
    read_tiles,
    tile_corners,
)
from histopath.synthetic.slide import BASE, SIZE, render_slide


@pytest.fixture(scope="module")
def drawn():
    return render_slide(0)


@pytest.fixture
def real(shared):
    return open_slide(shared / "slides" / "CMU-1-Small-Region.svs")


def write_tiff(path, image, microns_per_pixel=None):
    kwargs = {"resolution": (1e4 / microns_per_pixel,) * 2, "resolutionunit": "CENTIMETER"} if microns_per_pixel else {}
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", compression="deflate", **kwargs)
    return path


def test_a_tile_is_what_was_drawn_there_at_pcams_resolution(slide, drawn):
    image, _ = drawn
    opened = open_slide(slide)
    assert opened.microns_per_pixel == pytest.approx(BASE) and opened.size == (SIZE, SIZE)
    corners = tile_corners(opened, np.array([[3, 5], [10, 2]]), 100)
    assert corners.tolist() == [[1000, 600], [400, 2000]]
    tiles = next(read_tiles(opened, corners, 2))
    assert (tiles[0] == image[300 : 300 + TILE, 500 : 500 + TILE]).all()
    assert (tiles[1] == image[1000 : 1000 + TILE, 200 : 200 + TILE]).all()


@pytest.mark.parametrize("microns", [0.25, 0.5, 0.972])
def test_the_same_tissue_is_the_same_tile_whatever_the_scanner(drawn, tmp_path, microns):
    image = drawn[0][300:700, 300:700]
    side = round(400 * MICRONS_PER_PIXEL / microns)
    scanned = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    opened = open_slide(write_tiff(tmp_path / "s.tif", scanned, microns))
    tile = next(read_tiles(opened, tile_corners(opened, np.array([[1, 1]]), 96), 1))[0]
    # Enlarging and reducing blurs the grain; the same a few pixels beside is another thing altogether.
    right, beside = (np.abs(tile.astype(int) - image[y : y + 96, 96:192]).mean() for y in (96, 100))
    assert right < 14 and beside > 2 * right


def test_the_real_slide_is_tiled_in_micrometers(real):
    assert real.microns_per_pixel == 0.499 and real.handle.dimensions == (2220, 2967)
    assert real.size == (int(2220 * 0.499 / 0.972), int(2967 * 0.499 / 0.972))
    tiles = plan_tiles(real, find_tissue(read_overview(real)), 96)
    corners = tile_corners(real, tiles, 96)
    # 96 pixels of 0.972 are 187 of 0.499.
    assert set(np.diff(np.unique(corners[:, 0])).tolist()) <= {187, 374} and 40 < len(tiles) < 120
    first = next(read_tiles(real, corners[:1], 1))[0]
    x, y = corners[0].tolist()
    direct = np.asarray(real.handle.read_region((x, y), 0, (187, 187)))[..., :3]
    assert (first == cv2.resize(direct, (96, 96), interpolation=cv2.INTER_AREA)).all()


def test_tissue_is_what_is_drawn_and_glass_is_not(slide, drawn):
    opened = open_slide(slide)
    tissue = find_tissue(read_overview(opened))
    gray = cv2.resize(drawn[0], tissue.shape[::-1], interpolation=cv2.INTER_AREA).min(axis=2)
    assert tissue[gray < 120].mean() > 0.97 and tissue[gray > 215].mean() < 0.05


def test_a_slide_without_tissue_has_none(tmp_path):
    opened = open_slide(write_tiff(tmp_path / "white.tif", np.full((600, 600, 3), 240, "uint8"), 0.972))
    assert not find_tissue(read_overview(opened)).any()


def test_tiles_lie_on_tissue_and_all_tissue_has_tiles(slide):
    opened = open_slide(slide)
    tissue = np.zeros((SIZE // 8, SIZE // 8), bool)
    tissue[40:60, 80:120] = True  # 320-480 by 640-960 patch pixels
    tiles = plan_tiles(opened, tissue, 32)
    middle = tiles * 32 + TILE // 2
    assert (middle[:, 0] >= 320 - 16).all() and (middle[:, 0] <= 480 + 16).all()
    assert (middle[:, 1] >= 640 - 16).all() and (middle[:, 1] <= 960 + 16).all()
    assert len(tiles) >= 5 * 10
    assert len(np.unique(tiles, axis=0)) == len(tiles)


def test_a_huge_slide_is_planned_in_little_memory():
    huge = Slide(None, SimpleNamespace(dimensions=(100_000, 100_000)), 0.25)  # only its size is asked for
    tissue = np.zeros((1562, 1562), bool)
    tissue[200:1300, 200:1300] = True
    tracemalloc.start()
    tiles = plan_tiles(huge, tissue, 48)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 120_000 < len(tiles) < 150_000 and peak < 60e6, (len(tiles), peak)


def test_beyond_the_edge_is_white(slide):
    area = read_area(open_slide(slide), -200, -200, 96, 96, MICRONS_PER_PIXEL)
    assert (area == 255).all()


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda path, slide: path.write_text("no slide"), "is not a slide that OpenSlide reads .*; copy it again, or convert it"),
        (lambda path, slide: path.write_bytes(slide.read_bytes()[:20_000]), "is not a slide that OpenSlide reads|is damaged"),
        (lambda path, slide: write_tiff(path, np.zeros((300, 300, 3), "uint8")), "does not say how many micrometers"),
        (lambda path, slide: write_tiff(path, np.zeros((300, 300, 3), "uint8"), 84.7), "does not say how many micrometers"),
        (lambda path, slide: write_tiff(path, np.zeros((300, 300, 3), "uint8"), 4.0), "4.00 micrometers a pixel, .* 10x or more"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(slide, tmp_path, write, words):
    write(tmp_path / "bad.tif", slide)
    with pytest.raises(ValueError, match=words) as error:
        read_overview(open_slide(tmp_path / "bad.tif"))
    assert "bad.tif" in str(error.value) and "\n" not in str(error.value)


def test_the_resolution_can_be_given(tmp_path):
    path = write_tiff(tmp_path / "s.tif", np.zeros((300, 300, 3), "uint8"))
    assert open_slide(path, 0.486).size == (150, 150)


def test_a_slide_smaller_than_a_tile_is_refused(tmp_path):
    opened = open_slide(write_tiff(tmp_path / "small.tif", np.zeros((90, 200, 3), "uint8"), 0.972))
    with pytest.raises(ValueError, match="200×90 pixels at PCam's resolution, less than one tile"):
        plan_tiles(opened, np.ones((9, 20), bool), 48)


def test_a_slide_damaged_in_the_middle_says_where(slide, tmp_path):
    path = tmp_path / "damaged.tif"
    shutil.copy(slide, path)
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[1].dataoffsets[10], file.pages[1].databytecounts[10]
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(b"\x00" * length)
    with pytest.raises(ValueError, match="damaged.tif is damaged at .* copy it again"):
        read_overview(open_slide(path))


def test_what_a_file_says_of_its_resolution_counts_more_than_what_is_given(slide, tmp_path):
    assert open_slide(slide, 0.25).microns_per_pixel == pytest.approx(BASE)
    silent = write_tiff(tmp_path / "s.tif", np.zeros((300, 300, 3), "uint8"))
    assert open_slide(silent, 0.25).microns_per_pixel == 0.25
    for impossible in (-1, 0.0, 0.04, float("nan"), 300):
        with pytest.raises(ValueError, match=f"No slide has {impossible} micrometers a pixel"):
            open_slide(silent, impossible)
