"""Diagrams say what they show, and networks of any depth stay on one page."""

import matplotlib
import pytest
from matplotlib.patches import FancyBboxPatch

from histopath.plots import charts, diagrams

BOXES = [[("input", "96×96×3")], [("left", "1"), ("right", "2")], [("pool", "3"), ("pool", "4")], [("dense", "5")]]


def words(figure):
    """All text of a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def arrows(figure):
    """Where each arrow starts and ends, in inches."""
    return [(note.xyann, note.xy) for note in figure.axes[0].texts if getattr(note, "arrow_patch", None)]


def chain(rows):
    """A network of so many layers, one after the other."""
    return [[(f"convolution {number}", "112×112×38, 13,034 parameters")] for number in range(rows)]


def test_center_shift_says_what_is_left_of_the_center():
    # 4 of 32 pixels leave 28/32 = 88 % along one side and 77 % along both; 28.8 of 32 leave 10 % and 1 %.
    text = " ".join(words(diagrams.center_shift()))
    assert "88% and 77% left" in text and "10% and 1% left" in text
    along, across = diagrams.center_shift().axes[0].lines[:2]
    assert (along.get_ydata()[16], across.get_ydata()[16]) == (0.5, 0.25)
    assert "75% and 56% left" in " ".join(words(diagrams.center_shift(ours=8)))


def test_model_plot_joins_branches_box_by_box_and_forks_elsewhere():
    figure = diagrams.model_plot(BOXES)
    assert len(arrows(figure)) == 2 + 2 + 2
    assert {"input", "left", "right", "dense", "96×96×3"} <= set(words(figure))


def test_charts_and_diagrams_come_from_one_place():
    assert charts.model_plot is diagrams.model_plot and charts.center_shift is diagrams.center_shift


def test_ten_rows_stand_in_one_column():
    figure = diagrams.model_plot(chain(10))
    assert figure.get_size_inches().tolist() == pytest.approx([7.0, 8.7])
    assert {end[0] for _, end in arrows(figure)} == {3.5}


@pytest.mark.parametrize(("rows", "columns"), [(11, 2), (12, 2), (18, 2), (24, 2), (25, 3), (46, 3)])
def test_a_long_chain_wraps_into_columns_read_from_top_to_bottom(rows, columns):
    figure = diagrams.model_plot(chain(rows))
    figure.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == rows and len({round(box.x0) for box in boxes}) == columns
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(box.x0 > 0 and box.y0 > 0 and box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1 for box in boxes)
    places = [(round(box.x0), -round(box.y0)) for box in boxes]
    assert places == sorted(places)
    assert len(arrows(figure)) == rows - 1 and len(figure.axes[0].lines) == columns - 1
    assert figure.get_size_inches()[1] < (9.5 if rows <= 24 else 13)


@pytest.mark.parametrize("rows", [8, 18, 46])
def test_texts_fit_into_their_boxes(rows):
    figure = diagrams.model_plot([[("a very long name of a layer " * 2, "3×3×2048, 20,861,480 parameters")]] * rows)
    figure.draw_without_rendering()
    (box, *_), texts = figure.axes[0].patches, [text for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) == 2 * rows
    assert all(text.get_window_extent().width < box.get_window_extent().width for text in texts)


def test_a_turn_leads_from_the_last_box_of_a_column_to_the_first_of_the_next():
    figure = diagrams.model_plot(chain(12))
    (turn,) = figure.axes[0].lines
    first, seventh = ((patch.get_x() + patch.get_width() / 2, patch.get_y()) for patch in figure.axes[0].patches[5:7])
    assert (turn.get_xdata()[0], turn.get_xdata()[-1]) == pytest.approx((first[0], seventh[0]))
    assert turn.get_ydata()[0] == pytest.approx(first[1], abs=0.02) and turn.get_ydata()[-1] > seventh[1] + 0.58
