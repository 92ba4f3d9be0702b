"""Cells, glands and tissue are drawn in integers, in the shape and place that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from histopath.synthetic import drawing
from histopath.synthetic.drawing import CELLS, LIGHT, PAD, Canvas, Exposure, GlandKind

KINDS = {name: CELLS[name] for name in ("lymphocyte", "spindle", "cytoplasm")}
GLAND = GlandKind((24, 25), (80, 81), 4, (40, 41), (30, 60), "lymphocyte", 7)
LENGTH = 160
DRAW_SOME = """
import hashlib
from numpy.random import default_rng
from histopath.synthetic import drawing, gastric, organs, patches
cells, slide = drawing.draw_cells(0, organs.KINDS), patches.make_slide(0, 5)
modes = ("none", "center")
images = [patches.render_patch(default_rng(1), slide, cells, mode)[0] for mode in modes]
images += [gastric.render_slice(default_rng(2), cells, True)]
images += [organs.render_image(default_rng(3), cells, name) for name in organs.PAINTERS]
for image in images:
    print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def cells():
    return drawing.draw_cells(0, KINDS)


@pytest.fixture
def canvas(cells):
    return Canvas(rng(), cells, np.zeros((2, LENGTH, LENGTH)))


@pytest.mark.slow
def test_processors_without_avx_draw_the_same():
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    plain = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "ignore", "-c", DRAW_SOME]
    kwargs = {"cwd": Path(drawing.__file__).parents[2], "capture_output": True, "text": True}
    outputs = [subprocess.run(command, env=env, check=True, **kwargs).stdout for env in (plain, os.environ)]
    assert outputs[0] == outputs[1] and len(set(outputs[0].split())) == 29


@pytest.mark.parametrize("draw", [drawing.lymph, drawing.stroma, drawing.fat, drawing.glass])
@pytest.mark.parametrize("length", [drawing.CANVAS, 300])
def test_a_ground_fills_its_canvas_with_integers(draw, length):
    ground = draw(rng(), length)
    assert ground.shape == (2, length, length) and np.issubdtype(ground.dtype, np.integer)
    assert ground.min() >= 0 and ground.max() < 400


def test_light_follows_beer_and_lambert_alike_on_every_processor():
    exact = [1 << 60]  # in integers: 10 ** (-1/256) to six digits
    while len(exact) < len(LIGHT):
        exact.append(exact[-1] * 991046 // 1000000)
    assert LIGHT.tolist() == [level >> 48 for level in exact]


def test_an_ellipse_ends_where_it_should():
    line = np.arange(-400, 401)
    along = drawing.ellipse(0 * line, line, 320, 160, 0)
    across = drawing.ellipse(line, 0 * line, 320, 160, 0)
    assert [np.abs(line[out < 1024]).max() for out in (along, across)] == [319, 159]
    assert np.array_equal(drawing.ellipse(line, 0 * line, 320, 160, 8), along)  # a quarter turn


def test_long_noise_does_not_repeat_within_an_image():
    short, long = (drawing.noise(rng(), 4, length) for length in (250, 500))
    assert np.array_equal(short[:64, :64], short[128:192, 128:192])  # 32 points of 4 pixels
    assert not np.array_equal(long[:64, :64], long[128:192, 128:192])


def test_cells_are_scattered_only_where_they_may_lie(canvas):
    inside = np.zeros((LENGTH, LENGTH), bool)
    inside[40:80, 60:120] = True
    canvas.scatter(inside, 8, {"lymphocyte": 90})
    painted = np.argwhere(canvas.stain[0] > 0)
    assert len(painted) > 500
    assert painted.min(0).min() >= 40 - 8 and (painted.max(0) < (80 + 8, 120 + 8)).all()


def test_percents_say_how_many_cells_and_under_paints_below_them(cells):
    counts = []
    for percent in (0, 20, 80):
        canvas = Canvas(rng(3), cells, np.zeros((2, LENGTH, LENGTH)))
        everywhere = np.ones((LENGTH, LENGTH), bool)
        canvas.scatter(everywhere, 12, {"lymphocyte": percent}, 3, "cytoplasm")
        counts.append((canvas.stain[1] > 0).sum())
    assert counts[0] == 0 and 1.5 * counts[1] < counts[2]  # they overlap, so not four times as much
    assert counts[2] > 0.6 * LENGTH**2  # lymphocytes alone would cover a quarter


def test_an_image_is_what_lies_inside_the_margin(canvas):
    stains, white = drawing.stain_colors(rng(5), 1)
    canvas.stain[0, PAD : PAD + 10, :] = 250
    image = canvas.expose(Exposure(stains, white, 1, 2))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert image[2:8].mean() < 150 < 220 < image[14:].mean()


def test_a_gland_is_a_ring_of_nuclei_around_pale_cytoplasm_around_a_lumen(canvas):
    canvas.stain += 50
    canvas.paint_gland(GLAND, np.array([80, 80]))
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    away = np.hypot(rows - 80, columns - 80)
    rings = [(away >= low) & (away < high) for low, high in ((0, 4), (9, 13), (16, 20))]
    lumen, cytoplasm, ring = (canvas.stain[0][ring].mean() for ring in rings)
    assert lumen < 6 < cytoplasm < 60 < ring
    assert (canvas.stain[:, away > 24 + 4 + 6] == 50).all()  # radius, bend, half of a nucleus


@pytest.mark.parametrize("place", [(0, 0), (159, 30), (80, 159)])
def test_a_gland_may_be_cut_by_the_edge(canvas, place):
    canvas.paint_gland(GLAND, np.array(place))
    assert canvas.stain.dtype == np.int32 and canvas.stain.min() >= 0 and canvas.stain.any()


def test_glands_have_their_middles_only_where_they_may_lie(canvas):
    inside = np.zeros((LENGTH, LENGTH), bool)
    inside[:, 100:] = True
    canvas.paint_glands(GLAND, inside, 50)
    reach = 24 + 4 + 6  # radius, bend, half of a nucleus
    assert canvas.stain[:, :, 110:].any() and not canvas.stain[:, :, : 100 - reach].any()
