"""Pages show every patch once, in order, one to one, with its center and its name."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from histopath.plots import pages
from histopath.plots.style import DPI, INK, export

PATCHES = np.random.default_rng(0).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
DENSITY = np.random.default_rng(1).random((10, 96, 96)).astype(np.float32)
SLICES = np.random.default_rng(2).integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
TRUTHS = ["Lymph", "lung_aca", "non_cancer", "Brain"] * 4
SAID = ["Lymph", "lung_scc", "non_cancer", "Brain"] * 4
SHARES = np.linspace(0.5, 0.97, 16)
DRAWN = {
    "batch_page": (lambda: pages.batch_page(SLICES, TRUTHS, SAID, SHARES), 16),
    "patch_grid": (lambda: pages.patch_grid(PATCHES, [f"title {n}" for n in range(10)], columns=4), 10),
    "strips": (lambda: pages.strips({"slide_01": PATCHES[:3], "slide_02": PATCHES[3:8]}), 8),
    "transformation_page": (lambda: pages.transformation_page(PATCHES[0], {"a": PATCHES[:3], "b": PATCHES[:2]}), 7),
    "stain_separation": (lambda: pages.stain_separation(PATCHES[:3], DENSITY[:3], DENSITY[3:6]), 9),
    "mistakes_page": (lambda: pages.mistakes_page(PATCHES[:4], [0, 1, 0, 1], [0.9, 0.1, 0.8, 0.2]), 4),
    "gradcam_page": (lambda: pages.gradcam_page(PATCHES[:7], DENSITY[:7]), 14),
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


def cell_inches(figure):
    """Sides of the first cell in inches."""
    box = figure.axes[0].get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


@pytest.mark.parametrize(("size", "inches"), [(32, 0.96), (96, 0.96), (128, 1.28), (256, 1.7), (512, 1.7)])
def test_larger_patches_have_larger_cells_up_to_a_bound(size, inches):
    images = np.zeros((3, size, size, 3), np.uint8)
    for figure in (
        pages.patch_grid(images, columns=3, box=False),
        pages.strips({"a": images[:2], "b": images}),
        pages.transformation_page(images[0], {"a": images[:2]}),
        pages.gradcam_page(images, np.zeros(images.shape[:3]), box=False),
    ):
        assert cell_inches(figure) == pytest.approx((inches, inches))
        assert figure.get_size_inches()[0] <= 7


def test_many_large_patches_shrink_to_the_width_of_the_page():
    figure = pages.patch_grid(SLICES, columns=8, box=False)
    assert figure.get_size_inches()[0] == pytest.approx(7) and cell_inches(figure)[0] < 0.85


def test_every_page_can_leave_the_center_unframed():
    for page in (
        pages.mistakes_page(PATCHES[:2], [0, 1], [0.9, 0.1], box=False),
        pages.gradcam_page(PATCHES[:2], DENSITY[:2], box=False),
        DRAWN["batch_page"][0](),
    ):
        assert not any(axes.patches for axes in page.axes)


def test_batch_says_what_was_predicted_and_what_is_true_in_order():
    figure = DRAWN["batch_page"][0]()
    said = [tuple(text.get_text() for text in axes.texts) for axes in figure.axes]
    assert said[:2] == [("Lymph 0.50", "truth: Lymph"), ("lung_scc 0.53", "truth: lung_aca")] and len(said) == 16
    assert all(np.array_equal(shown, image) for shown, image in zip(pictures(figure), SLICES, strict=True))


def test_mistakes_of_a_batch_differ_in_color_and_frame():
    figure = DRAWN["batch_page"][0]()
    looks = [(axes.texts[0].get_color(), axes.spines["left"].get_linewidth()) for axes in figure.axes]
    right, wrong = looks[0], looks[1]
    assert looks == [right, wrong, right, right] * 4
    assert right[0] != wrong[0] and wrong[1] > 2 * right[1]
    assert all(axes.spines["top"].get_edgecolor() == to_rgba(color) for axes, (color, _) in zip(figure.axes, looks, strict=True))


def test_colors_of_right_and_wrong_survive_the_smallest_palette(tmp_path):
    export(DRAWN["batch_page"][0](), tmp_path / "page.png", limit=1)
    with Image.open(tmp_path / "page.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors()}
    assert len(colors) <= 40
    assert {tuple(bytes.fromhex(color[1:])) for color in (pages.RIGHT, pages.WRONG, "#ffffff", INK)} <= colors


@pytest.mark.parametrize("names", [["tumor", "no_tumor"] * 8, ["breast_malignant", "brain_glioma"] * 8], ids=["short", "long"])
@pytest.mark.parametrize("size", [96, 224, 512])
@pytest.mark.parametrize("columns", [3, 4, 8])
def test_texts_of_a_batch_neither_touch_nor_leave_the_page(names, size, columns):
    figure = pages.batch_page(np.zeros((16, size, size, 3), np.uint8), names, names[::-1], SHARES, columns)
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in axes.texts]
    boxes = [text.get_window_extent() for text in texts] + [axes.get_window_extent() for axes in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert all(text.get_size() >= 8 for text in texts)
    assert figure.get_size_inches()[0] <= 7 + 1e-6 and len(pictures(figure)) == 16


def test_a_batch_with_other_counts_is_refused():
    with pytest.raises(ValueError):
        pages.batch_page(SLICES, TRUTHS, SAID[:3], SHARES)


def test_grid_shows_the_patches_in_order_with_the_center_framed():
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
