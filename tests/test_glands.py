"""The drawing of glands: rings around a lumen, cut by the edge, only where they may lie."""

import numpy as np
import pytest

from histopath import glands, tissue

GLAND = glands.GlandKind((24, 25), (80, 81), 4, 40, (30, 60), 50, "lymphocyte", 7)
LENGTH = 160


@pytest.fixture(scope="module")
def cells():
    return tissue.draw_cells(0, {"lymphocyte": tissue.CELLS["lymphocyte"]})


def blank() -> np.ndarray:
    return np.zeros((2, LENGTH, LENGTH), np.int32)


def test_a_gland_is_a_ring_of_nuclei_around_pale_cytoplasm_around_a_lumen(cells):
    canvas = blank() + 50
    glands.paint_gland(tissue.generator(4), canvas, cells, GLAND, np.array([80, 80]))
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    away = np.sqrt((rows - 80) ** 2 + (columns - 80) ** 2)
    lumen, cytoplasm, ring = (canvas[0][(away >= low) & (away < high)].mean() for low, high in ((0, 4), (9, 13), (16, 20)))
    assert lumen < 6 < cytoplasm < 60 < ring
    assert (canvas[:, away > 24 + 4 + 6] == 50).all()  # radius, bend, and the half of a nucleus


@pytest.mark.parametrize("place", [(0, 0), (-10, 80), (159, 30), (80, 175), (-60, -60)])
def test_a_gland_may_be_cut_by_the_edge(cells, place):
    canvas = blank()
    glands.paint_gland(tissue.generator(4), canvas, cells, GLAND, np.array(place))
    assert canvas.dtype == np.int32 and canvas.min() >= 0
    assert canvas.any() == (min(place) > -40)


def test_a_missing_share_of_nuclei_is_missing(cells):
    amounts = []
    for missing in (0, 100):
        canvas = blank()
        kind = glands.GlandKind((24, 25), (80, 81), 4, 40, (30, 60), 50, "lymphocyte", 7, 1, missing)
        glands.paint_gland(tissue.generator(4), canvas, cells, kind, np.array([80, 80]))
        amounts.append((canvas[0] > 120).sum())
    assert amounts[0] > 300 and amounts[1] == 0


def test_glands_have_their_middles_only_where_they_may_lie(cells):
    canvas, inside = blank(), np.zeros((LENGTH, LENGTH), bool)
    inside[:, 100:] = True
    glands.paint_glands(tissue.generator(5), canvas, cells, GLAND, inside, 50)
    reach = 24 + 4 + 6  # radius, bend, and the half of a nucleus
    assert canvas[:, :, 110:].any() and not canvas[:, :, : 100 - reach].any()


@pytest.mark.parametrize(("jitter", "same"), [(6, True), (0, False)])
def test_glands_are_moved_by_an_eighth_of_their_spacing_unless_told_otherwise(cells, jitter, same):
    canvases = [blank(), blank()]
    for canvas, how in zip(canvases, ((), (jitter,)), strict=True):
        glands.paint_glands(tissue.generator(5), canvas, cells, GLAND, canvas[0] == 0, 50, *how)
    assert np.array_equal(*canvases) == same
