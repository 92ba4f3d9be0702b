"""Pages show every patch once, in order, one to one, with its centre and its name."""

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from histopath import pages
from histopath.style import DPI, export

PATCHES = np.random.default_rng(0).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
DENSITY = np.random.default_rng(1).random((10, 96, 96)).astype(np.float32)
DRAWN = {
    "patch_grid": (lambda: pages.patch_grid(PATCHES, [f"title {n}" for n in range(10)], columns=4), 10),
    "strips": (lambda: pages.strips({"slide_01": PATCHES[:3], "slide_02": PATCHES[3:8]}), 8),
    "transformation_page": (lambda: pages.transformation_page(PATCHES[0], {"a": PATCHES[:3], "b": PATCHES[:2]}), 7),
    "stain_separation": (lambda: pages.stain_separation(PATCHES[:3], DENSITY[:3], DENSITY[3:6]), 9),
    "mistakes_page": (lambda: pages.mistakes_page(PATCHES[:4], [0, 1, 0, 1], [0.9, 0.1, 0.8, 0.2]), 4),
    "gradcam_page": (lambda: pages.gradcam_page(PATCHES[:7], DENSITY[:7], ["p 0.50"] * 7, columns=4), 14),
}


def pictures(figure):
    """The arrays drawn in a figure, in the order of its axes."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def words(figure):
    """All text of a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("name", DRAWN)
def test_page_holds_every_picture_and_exports_to_a_png(name, tmp_path):
    draw, count = DRAWN[name]
    figure = draw()
    assert len(pictures(figure)) == count
    export(figure, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.format == "PNG" and 200 < picture.width <= 700
        assert len(picture.getcolors()) > 20


def test_cells_are_square_do_not_overlap_and_never_enlarge_a_patch():
    for columns in (2, 4, 10):
        figure = pages.patch_grid(PATCHES, ["two\nlines"] * 10, columns=columns)
        boxes = [axes.get_window_extent() for axes in figure.axes]
        assert all(box.width == pytest.approx(box.height) and box.width * DPI / figure.dpi <= 96.001 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
        assert figure.bbox.y1 - boxes[0].y1 > 2 * 0.2 * figure.dpi  # room for two lines of 10 points
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)


def test_grid_shows_the_patches_in_order_with_the_centre_framed():
    figure = pages.patch_grid(PATCHES, columns=5)
    assert all(np.array_equal(shown, patch) for shown, patch in zip(pictures(figure), PATCHES, strict=True))
    (frame,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    # Pixel 32 begins at 31.5 in the coordinates of imshow.
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((31.5, 31.5), 32, 32)
    assert not pages.patch_grid(PATCHES, box=False).axes[0].patches


def test_strips_name_their_rows_and_leave_short_rows_open():
    figure = DRAWN["strips"][0]()
    assert {"slide_01", "slide_02"} <= set(words(figure))
    assert [bool(axes.images) for axes in figure.axes] == [True] * 3 + [False] * 2 + [True] * 5


def test_transformations_begin_with_the_original():
    figure = DRAWN["transformation_page"][0]()
    shown = [np.asarray(axes.images[0].get_array()) for axes in (figure.axes[0], figure.axes[4])]
    assert all(np.array_equal(image, PATCHES[0]) for image in shown)
    assert {"original", "a", "b"} <= set(words(figure))


def test_both_stains_share_one_scale():
    limits = {
        image.get_clim()
        for axes in DRAWN["stain_separation"][0]().axes
        for image in axes.images[:1]
        if image.norm.scaled() and image.get_array().ndim == 2
    }
    assert len(limits) == 1


def test_mistakes_state_truth_and_probability():
    assert {"no_tumor\np 0.90", "tumor\np 0.10"} <= set(words(DRAWN["mistakes_page"][0]()))


def test_heat_changes_the_patch_most_where_it_is_high():
    heatmaps = np.zeros((1, 96, 96))
    heatmaps[0, :48] = 1
    image = np.full((1, 96, 96, 3), 200, np.uint8)
    above, below = pictures(pages.gradcam_page(image, heatmaps))
    assert np.array_equal(above, image[0])
    change = np.abs(below - image[0] / 255).mean(axis=(1, 2))
    assert change[:48].min() > 0 and not np.allclose(change[:48].mean(), change[48:].mean())
    # The high end of the heat is yellow, so red stays and blue goes.
    assert below[0, 0, 0] > 1.2 * below[0, 0, 2]
