"""Every figure shows what it was given, has its axes named, and exports to a small PNG."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from histopath import evaluation, figures

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 300)
PROBABILITIES = np.clip(0.3 * LABELS + 0.7 * RNG.random(300), 0, 1)
CLASSES = ("no_tumor", "tumor")
COUNTS = pd.DataFrame({"no_tumor": [700, 120], "tumor": [450, 95], "no label": [0, 300]}, index=["train", "test"])
SPLITS = pd.DataFrame({"patches": [840, 180, 190], "slides": [12, 2, 3]}, index=["train", "val", "holdout"])
EPOCHS = np.arange(1, 6)
HISTORY = pd.DataFrame(
    {
        "epoch": EPOCHS,
        "loss": 1 / EPOCHS,
        "val_loss": 1.2 / EPOCHS,
        "accuracy": 1 - 0.5 / EPOCHS,
        "val_accuracy": 1 - 0.6 / EPOCHS,
        "val_auc": [0.6, 0.8, 0.9, 0.85, 0.84],
        "learning_rate": 1e-3 / EPOCHS,
    }
)
BOXES = [[("input", "96×96×3")], [("left", "1"), ("right", "2")], [("pool", "3"), ("pool", "4")], [("dense", "5")]]
CURVE = {"AUC 0.80 (0.75-0.85), 300 patches": evaluation.roc(LABELS, PROBABILITIES)[:2]}
PRECISION = {"this model": evaluation.precision_recall(LABELS, PROBABILITIES)[:2]}
SLIDES = np.array([f"slide_{number:02d}" for number in RNG.integers(0, 16, 300)])

# name → (a function that draws, the labels of the x and y axis of its first panel)
DRAWN = {
    "class_balance": (lambda: figures.class_balance(COUNTS), "patches", ""),
    "colour_histograms": (
        lambda: figures.colour_histograms({"mean red": PROBABILITIES, "mean blue": PROBABILITIES}, LABELS, CLASSES),
        "mean red",
        "share of the class",
    ),
    "stain_scatter": (
        lambda: figures.stain_scatter(PROBABILITIES, PROBABILITIES, LABELS, CLASSES, SLIDES),
        "mean haematoxylin (optical density)",
        "mean eosin (optical density)",
    ),
    "leak_chart": (
        lambda: figures.leak_chart({"random": (15, 16), "by slide": (0, 16)}),
        "slides with patches on both sides of the split",
        "",
    ),
    "centre_shift": (figures.centre_shift, "shift (pixels)", "labelled centre left"),
    "loss_curves": (lambda: figures.loss_curves(HISTORY), "epoch", "binary cross-entropy"),
    "validation_curves": (lambda: figures.validation_curves(HISTORY), "epoch", "accuracy"),
    "rate_curve": (lambda: figures.rate_curve(HISTORY), "epoch", "learning rate"),
    "split_bars": (lambda: figures.split_bars(SPLITS), "", ""),
    "roc_curves": (
        lambda: figures.roc_curves(CURVE, evaluation.roc_band(LABELS, PROBABILITIES, replicates=20)),
        "false positive rate (1 - specificity)",
        "true positive rate (sensitivity)",
    ),
    "precision_recall_curves": (
        lambda: figures.precision_recall_curves(PRECISION, 0.5),
        "recall (sensitivity)",
        "precision",
    ),
    "calibration_plot": (
        lambda: figures.calibration_plot(evaluation.calibration(LABELS, PROBABILITIES)),
        "",
        "observed share of tumor",
    ),
    "confusion_plot": (lambda: figures.confusion_plot([[648, 93], [54, 405]], CLASSES), "predicted", "truth"),
    "probability_histogram": (
        lambda: figures.probability_histogram(PROBABILITIES, LABELS, CLASSES, 0.42),
        "predicted probability of tumor",
        "patches",
    ),
    "interval_dots": (
        lambda: figures.interval_dots({"eight views": (0.95, 0.94, 0.96), "single view": (0.93, 0.91, 0.95)}),
        "AUC on the holdout",
        "",
    ),
    "model_plot": (lambda: figures.model_plot(BOXES), "", ""),
}


def words(figure):
    """All text of a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_every_chart_is_tested():
    assert set(DRAWN) == set(figures.__all__) - {"export"}


@pytest.mark.parametrize("name", DRAWN)
def test_chart_names_its_axes_and_exports_to_a_small_png(name, tmp_path):
    draw, x, y = DRAWN[name]
    before = dict(matplotlib.rcParams)
    figure = draw()
    assert isinstance(figure, Figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == (x, y)
    file = tmp_path / f"{name}.png"
    figures.export(figure, file)
    assert dict(matplotlib.rcParams) == before
    with Image.open(file) as picture:
        assert picture.format == "PNG" and 400 <= picture.width <= 700
        assert len(picture.getcolors()) > 20
    assert 1_000 < file.stat().st_size < 40_000


def test_bars_have_the_lengths_and_numbers_of_the_counts():
    figure = figures.class_balance(COUNTS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [700, 120, 450, 95, 0, 300]
    assert {"700", "120", "450", "300"} <= set(words(figure)) and "95" in words(figure)
    assert {"840", "180", "190", "12", "2", "3", "patches", "slides"} <= set(words(figures.split_bars(SPLITS)))


def test_shares_of_a_class_add_up_to_one():
    values = {"mean red": PROBABILITIES}
    stairs = figures.colour_histograms(values, LABELS, CLASSES).axes[0].findobj(matplotlib.patches.StepPatch)
    assert len(stairs) == 4
    assert [step.get_data().values.sum() for step in stairs] == pytest.approx([1] * 4)


def test_scatter_without_slides_has_one_panel_and_all_points():
    figure = figures.stain_scatter(PROBABILITIES, PROBABILITIES, LABELS, CLASSES)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].collections[0].get_offsets()) == 300


def test_leak_chart_states_counts():
    text = words(DRAWN["leak_chart"][0]())
    assert "15 of 16 slides" in text and "0 of 16 slides" in text


def test_centre_shift_says_what_is_left_of_the_centre():
    # 4 of 32 pixels leave 28/32 = 88 % along one side and 77 % along both; 28.8 of 32 leave 10 % and 1 %.
    text = " ".join(words(figures.centre_shift()))
    assert "88% and 77% left" in text and "10% and 1% left" in text
    along, across = figures.centre_shift().axes[0].lines[:2]
    assert (along.get_ydata()[16], across.get_ydata()[16]) == (0.5, 0.25)
    assert "75% and 56% left" in " ".join(words(figures.centre_shift(ours=8)))


def test_validation_marks_the_best_epoch():
    right = figures.validation_curves(HISTORY).axes[1]
    assert right.collections[0].get_offsets()[0].tolist() == [3, 0.9]


def test_losses_without_a_val_split_are_one_line():
    assert len(figures.loss_curves(HISTORY.drop(columns="val_loss")).axes[0].lines) == 1
    assert len(figures.loss_curves(HISTORY).axes[0].lines) == 2


def test_roc_draws_the_curve_it_was_given_with_its_legend():
    axes = figures.roc_curves(CURVE).axes[0]
    (name, (false, true)), line = next(iter(CURVE.items())), axes.lines[1]
    assert np.array_equal(line.get_xdata(), false) and np.array_equal(line.get_ydata(), true)
    assert name in [text.get_text() for text in axes.get_legend().get_texts()]


def test_confusion_shows_counts_and_shares_of_the_truth():
    text = words(DRAWN["confusion_plot"][0]())
    assert {"648", "93", "54", "405", "87%", "13%", "12%", "88%"} <= set(text)


def test_histogram_counts_every_patch():
    bars = figures.probability_histogram(PROBABILITIES).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 300


def test_model_plot_joins_branches_box_by_box_and_forks_elsewhere():
    figure = figures.model_plot(BOXES)
    arrows = [note for note in figure.axes[0].texts if getattr(note, "arrow_patch", None)]
    assert len(arrows) == 2 + 2 + 2
    assert {"input", "left", "right", "dense", "96×96×3"} <= set(words(figure))


def test_the_leak_chart_of_unknown_slides_is_empty():
    assert isinstance(figures.leak_chart({"random split": (0, 0), "split by slide": (0, 0)}), Figure)
