"""The drawing of tissue: integers alone, shapes as asked for, nothing outside the place it was meant for."""

import numpy as np
import pytest

from histopath import tissue

KINDS = {name: tissue.CELLS[name] for name in ("lymphocyte", "spindle", "cytoplasm")}
LENGTH = 160


@pytest.fixture(scope="module")
def cells():
    return tissue.draw_cells(0, KINDS)


def blank() -> np.ndarray:
    return np.zeros((2, LENGTH, LENGTH), np.int32)


@pytest.mark.parametrize("paint", [tissue.lymph, tissue.stroma, tissue.fat, tissue.glass])
@pytest.mark.parametrize("length", [tissue.CANVAS, LENGTH, 300])
def test_a_ground_fills_its_canvas_with_integers(paint, length):
    ground = paint(tissue.generator(1), 3, length)
    assert ground.shape == (2, length, length) and np.issubdtype(ground.dtype, np.integer)
    assert ground.min() >= 0 and ground.max() < 400


def test_light_follows_beer_and_lambert():
    exact = 4096 * 10.0 ** (-np.arange(1024) / 256)
    assert np.abs(tissue.light_table() - exact).max() < 2  # in 1/4096: truncation and a six-digit ratio


def test_sines_are_those_of_the_circle():
    steps = np.arange(-64, 400)
    exact = 256 * np.sin(steps * np.pi / 128)
    assert tissue.sine(steps).dtype == np.int64
    assert np.abs(tissue.sine(steps) - exact).max() < 3  # in 1/256: straight lines between multiples of 11.25 degrees


def test_an_ellipse_ends_where_it_should():
    line = np.arange(-400, 401)
    out = tissue.ellipse(0 * line, line, 320, 160, 0), tissue.ellipse(line, 0 * line, 320, 160, 0)
    ends = [np.abs(line[reach < 1024]).max() for reach in out]
    assert ends == [319, 159]
    assert np.array_equal(tissue.ellipse(line, 0 * line, 320, 160, 8), out[0])  # turned by a right angle


def test_long_noise_does_not_repeat_within_an_image():
    short, long = (tissue.grain(tissue.generator(1), 4, length) for length in (250, 500))
    assert np.array_equal(short[:64, :64], short[128:192, 128:192])  # 32 points of 4 pixels
    assert not np.array_equal(long[:64, :64], long[128:192, 128:192])


def test_a_kind_of_cell_is_drawn_alike_whatever_comes_after_it(cells):
    alone = tissue.draw_cells(0, {"lymphocyte": tissue.CELLS["lymphocyte"]})["lymphocyte"]
    assert len(alone) == tissue.DRAWINGS
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(alone, cells["lymphocyte"], strict=True))


def test_cells_are_scattered_only_where_they_may_stand(cells):
    canvas, inside = blank(), np.zeros((LENGTH, LENGTH), bool)
    inside[40:80, 60:120] = True
    tissue.scatter(tissue.generator(3), canvas, cells, inside, 8, {"lymphocyte": 90})
    painted = np.argwhere(canvas[0] > 0)
    assert len(painted) > 500
    assert painted.min(0).min() >= 40 - 8 and (painted.max(0) < (80 + 8, 120 + 8)).all()  # a lymphocyte reaches 4 pixels


def test_percents_say_how_many_cells_and_under_paints_below_them(cells):
    counts = []
    for percent in (0, 20, 80):
        canvas = blank()
        tissue.scatter(tissue.generator(3), canvas, cells, canvas[0] == 0, 12, {"lymphocyte": percent}, 3, "cytoplasm")
        counts.append((canvas[1] > 0).sum())
    assert counts[0] == 0 and 1.5 * counts[1] < counts[2]  # they overlap, so not four times as much
    assert counts[2] > 0.6 * LENGTH**2  # lymphocytes alone would cover a quarter


def test_an_image_is_what_lies_inside_the_margin(cells):
    look, canvas = tissue.make_look(tissue.generator(5)), blank()
    canvas[0, tissue.PAD : tissue.PAD + 10, :] = 250
    image = tissue.expose(tissue.generator(6), canvas, look)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert image[2:8].mean() < 150 < 220 < image[14:].mean()
