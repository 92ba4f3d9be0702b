"""Every figure shows what it was given, has its axes named, and exports to a small PNG."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from histopath.metrics import binary, intervals
from histopath.plots import charts
from histopath.plots.style import COLORS, legend_columns

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
CURVE = {"AUC 0.80 (0.75-0.85), 300 patches": binary.roc(LABELS, PROBABILITIES)[:2]}
PRECISION = {"this model": binary.precision_recall(LABELS, PROBABILITIES)[:2]}
ORGANS = ("Blood", "Brain", "Breast", "Cervix", "Colon", "Kidney", "Lung", "Lymph", "Mouth")
LONG = (
    "brain_glioma",
    "brain_menin",
    "breast_malignant",
    "cervix_koc",
    "non_cancer",
    "kidney_tumor",
    "lung_aca",
    "Lymph",
    "Mouth",
)
ORGAN_COUNTS = pd.DataFrame(RNG.integers(5, 900, (3, 9)), index=["train", "val", "holdout"], columns=ORGANS)
ORGAN_ROCS = {f"{name}: AUC 0.97, 1,120 patches": binary.roc(LABELS, PROBABILITIES)[:2] for name in ORGANS}
SLIDE, HEAT = RNG.integers(150, 255, (60, 80, 3), dtype="uint8"), RNG.random((6, 8), "float32")
SLIDES = np.array([f"slide_{number:02d}" for number in RNG.integers(0, 16, 300)])

# name → (a function that draws, the labels of the x and y axis of its first panel)
DRAWN = {
    "class_balance": (lambda: charts.class_balance(COUNTS), "patches", ""),
    "color_histograms": (
        lambda: charts.color_histograms({"mean red": PROBABILITIES, "mean blue": PROBABILITIES}, LABELS, CLASSES),
        "mean red",
        "share of the class",
    ),
    "stain_scatter": (
        lambda: charts.stain_scatter(PROBABILITIES, PROBABILITIES, LABELS, CLASSES, SLIDES),
        "mean hematoxylin (optical density)",
        "mean eosin (optical density)",
    ),
    "leak_chart": (
        lambda: charts.leak_chart({"random": (15, 16), "by slide": (0, 16)}),
        "slides with patches on both sides of the split",
        "",
    ),
    "center_shift": (charts.center_shift, "shift (pixels)", "labeled center left"),
    "loss_curves": (lambda: charts.loss_curves(HISTORY), "epoch", "binary cross-entropy"),
    "validation_curves": (lambda: charts.validation_curves(HISTORY), "epoch", "accuracy"),
    "rate_curve": (lambda: charts.rate_curve(HISTORY), "epoch", "learning rate"),
    "split_bars": (lambda: charts.split_bars(SPLITS), "", ""),
    "roc_curves": (
        lambda: charts.roc_curves(CURVE, intervals.roc_band(LABELS, PROBABILITIES, replicates=20)),
        "false positive rate (1 - specificity)",
        "true positive rate (sensitivity)",
    ),
    "precision_recall_curves": (
        lambda: charts.precision_recall_curves(PRECISION, 0.5),
        "recall (sensitivity)",
        "precision",
    ),
    "calibration_plot": (
        lambda: charts.calibration_plot(*[binary.calibration(LABELS, PROBABILITIES)] * 2),
        "",
        "observed share of tumor",
    ),
    "shift_curves": (
        lambda: charts.shift_curves(pd.DataFrame({"stain": [0.9, 0.8, 0.7], "blur": [0.9, 0.7, 0.5]})),
        "severity, 0 as it is",
        "AUC of one view",
    ),
    "confusion_plot": (lambda: charts.confusion_plot([[648, 93], [54, 405]], CLASSES), "predicted", "truth"),
    "probability_histogram": (
        lambda: charts.probability_histogram(PROBABILITIES, LABELS, CLASSES, 0.42),
        "predicted probability of tumor",
        "patches",
    ),
    "interval_dots": (
        lambda: charts.interval_dots({"eight views": (0.95, 0.94, 0.96), "single view": (0.93, 0.91, 0.95)}),
        "AUC on the holdout",
        "",
    ),
    "model_plot": (lambda: charts.model_plot([[("input", "96×96×3")], [("dense", "5")]] * 2), "", ""),
    "slide_heatmap": (
        lambda: charts.slide_heatmap(SLIDE, HEAT, (0.1, 0.9, 0.8, 0.1), "a.svs", truth=HEAT > 0.8),
        "",
        "",
    ),
    "task_history": (lambda: charts.task_history({"organ": HISTORY, "malignancy": HISTORY}), "epoch", ""),
}


def words(figure):
    """All text of a figure."""
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def all_inside(figure):
    """Whether everything that is drawn lies within the figure, to a tenth of a pixel."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return drawn.x0 > -1e-3 and drawn.y0 > -1e-3 and drawn.x1 < width + 1e-3 and drawn.y1 < height + 1e-3


def test_every_chart_is_tested():
    assert set(DRAWN) == set(charts.__all__) - {"export"}


@pytest.mark.parametrize("name", DRAWN)
def test_chart_names_its_axes_and_exports_to_a_small_png(name, tmp_path):
    draw, x, y = DRAWN[name]
    before = dict(matplotlib.rcParams)
    figure = draw()
    assert isinstance(figure, Figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == (x, y)
    file = tmp_path / f"{name}.png"
    charts.export(figure, file)
    assert dict(matplotlib.rcParams) == before
    with Image.open(file) as picture:
        assert picture.format == "PNG" and 400 <= picture.width <= 700
        assert len(picture.getcolors()) > 20
    assert 1_000 < file.stat().st_size < 40_000


def test_bars_have_the_lengths_and_numbers_of_the_counts():
    figure = charts.class_balance(COUNTS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [700, 120, 450, 95, 0, 300]
    assert {"700", "120", "450", "300"} <= set(words(figure)) and "95" in words(figure)
    assert {"840", "180", "190", "12", "2", "3", "patches", "slides"} <= set(words(charts.split_bars(SPLITS)))


def test_shares_of_a_class_add_up_to_one():
    values = {"mean red": PROBABILITIES}
    stairs = charts.color_histograms(values, LABELS, CLASSES).axes[0].findobj(matplotlib.patches.StepPatch)
    assert len(stairs) == 4
    assert [step.get_data().values.sum() for step in stairs] == pytest.approx([1] * 4)


def test_scatter_without_slides_has_one_panel_and_all_points():
    figure = charts.stain_scatter(PROBABILITIES, PROBABILITIES, LABELS, CLASSES)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].collections[0].get_offsets()) == 300


def test_leak_chart_states_counts():
    text = words(DRAWN["leak_chart"][0]())
    assert "15 of 16 slides" in text and "0 of 16 slides" in text


def test_validation_marks_the_best_epoch():
    right = charts.validation_curves(HISTORY).axes[1]
    assert right.collections[0].get_offsets()[0].tolist() == [3, 0.9]


def test_losses_without_a_val_split_are_one_line():
    assert len(charts.loss_curves(HISTORY.drop(columns="val_loss")).axes[0].lines) == 1
    assert len(charts.loss_curves(HISTORY).axes[0].lines) == 2


def test_roc_draws_the_curve_it_was_given_with_its_legend():
    axes = charts.roc_curves(CURVE).axes[0]
    (name, (false, true)), line = next(iter(CURVE.items())), axes.lines[1]
    assert np.array_equal(line.get_xdata(), false) and np.array_equal(line.get_ydata(), true)
    assert name in [text.get_text() for text in axes.get_legend().get_texts()]


def test_confusion_shows_counts_and_shares_of_the_truth():
    text = words(DRAWN["confusion_plot"][0]())
    assert {"648", "93", "54", "405", "87%", "13%", "12%", "88%"} <= set(text)


def test_histogram_counts_every_patch():
    bars = charts.probability_histogram(PROBABILITIES).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 300


def test_the_leak_chart_of_unknown_slides_is_empty():
    assert isinstance(charts.leak_chart({"random split": (0, 0), "split by slide": (0, 0)}), Figure)


def test_nine_classes_have_nine_colors():
    assert len(set(COLORS)) == len(COLORS) == len(ORGANS)
    colors = [bar.get_facecolor() for bar in charts.class_balance(ORGAN_COUNTS).axes[0].patches]
    assert len(set(colors)) == 9


@pytest.mark.parametrize("names", [ORGANS, LONG])
def test_texts_of_nine_classes_stay_inside_the_figure(names):
    counts, matrix = ORGAN_COUNTS.set_axis(names, axis=1), np.diag(np.full(9, 2900)) + 7
    rocs = dict(zip((f"{name}: AUC 0.97, 1,120 patches" for name in names), ORGAN_ROCS.values(), strict=True))
    for figure in (
        charts.class_balance(counts * 31),
        charts.split_bars(counts),
        charts.confusion_plot(matrix, names),
        charts.roc_curves(rocs),
        charts.roc_curves({text.replace("0.97,", "0.97 (0.96-0.98),"): curve for text, curve in rocs.items()}),
        charts.color_histograms({"mean red": PROBABILITIES}, LABELS, names),
        charts.task_history(dict.fromkeys(names, HISTORY)),
        charts.interval_dots({f"{name}_mobilenetv2": (0.9, 0.85, 0.95) for name in names}),
    ):
        assert all_inside(figure)


def test_numbers_of_a_bar_fit_into_their_segments():
    for factor in (1, 40, 500):
        figure = charts.class_balance(ORGAN_COUNTS * factor)
        figure.draw_without_rendering()
        axes = figure.axes[0]
        segments = [bar.get_window_extent() for bar in axes.patches]
        assert len(axes.texts) >= 3
        for text in axes.texts:
            box = text.get_window_extent()
            assert any(bar.x0 <= box.x0 and box.x1 <= bar.x1 and bar.y0 <= box.y0 and box.y1 <= bar.y1 for bar in segments)


def test_sizes_of_many_classes_share_one_scale_and_two_columns_do_not():
    panels = [axes for axes in charts.split_bars(ORGAN_COUNTS.iloc[:, :8]).axes if axes.axison]
    assert len(panels) == 8 and len({axes.get_xlim() for axes in panels}) == 1
    assert [axes.get_title("left") for axes in panels] == list(ORGANS[:8])
    assert len({axes.get_xlim() for axes in charts.split_bars(SPLITS).axes}) == 2


def test_nine_roc_curves_differ_in_color_and_stay_clear_of_their_legend():
    figure = charts.roc_curves(ORGAN_ROCS)
    axes, (legend,) = figure.axes[0], [figure.axes[0].get_legend()]
    figure.draw_without_rendering()
    lines = axes.lines[1:]
    assert len({line.get_color() for line in lines}) == 9 and len({line.get_linestyle() for line in lines}) == 2
    assert [text.get_text() for text in legend.get_texts()] == list(ORGAN_ROCS)
    corner = axes.transData.inverted().transform(legend.get_window_extent().min)
    top = axes.transData.inverted().transform(legend.get_window_extent().max)[1]
    # The upper left corner of the legend lies under the diagonal, and no ROC curve worth showing lies there.
    assert corner[0] > top - 0.03 and np.array_equal(lines[0].get_xdata(), next(iter(ORGAN_ROCS.values()))[0])


def test_up_to_three_roc_curves_are_drawn_as_ever():
    three = charts.roc_curves(dict(list(ORGAN_ROCS.items())[:3])).axes[0]
    assert [line.get_color() for line in three.lines[1:]] == [COLORS[1], COLORS[0], COLORS[2]]
    assert [line.get_linestyle() for line in three.lines[1:]] == ["-", "--", "--"]


@pytest.mark.parametrize(("classes", "largest"), [(9, 12_345), (9, 12), (6, 678), (4, 1_234_567)])
def test_counts_of_many_classes_fit_into_their_cells_and_empty_cells_have_no_share(classes, largest):
    matrix = np.full((classes, classes), largest)
    matrix[0, 1] = 0
    figure = charts.confusion_plot(matrix, LONG[:classes])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / classes
    assert all(text.get_window_extent().width < cell for text in axes.texts)
    assert [text.get_text() for text in axes.texts].count("0") == 1
    assert len(axes.texts) == 2 * classes**2 - 1


def test_trainings_have_a_color_each_train_is_dashed_and_val_solid():
    figure = charts.task_history({"organ": HISTORY, "malignancy": HISTORY.drop(columns="val_loss")})
    drawn = [[(line.get_color(), line.get_linestyle()) for line in axes.lines] for axes in figure.axes]
    organ, malignancy = COLORS[0], COLORS[1]
    assert drawn[0] == [(organ, "--"), (organ, "-"), (malignancy, "--")]
    assert drawn[1] == [(organ, "--"), (organ, "-"), (malignancy, "--"), (malignancy, "-")]
    assert drawn[2] == [(organ, "-"), (malignancy, "-")]
    assert np.array_equal(figure.axes[2].lines[0].get_ydata(), HISTORY["val_auc"])
    assert [axes.get_title("left") for axes in figure.axes] == ["loss", "accuracy", "AUC of val"]
    assert {"organ", "malignancy", "train", "val"} <= set(words(figure))


def test_a_training_of_one_epoch_is_seen():
    assert all(line.get_marker() == "o" for line in charts.task_history({"organ": HISTORY[:1]}).axes[0].lines)


@pytest.mark.parametrize(("names", "columns"), [(["tumor"] * 3, 5), (ORGANS, 5), (LONG, 4), (["x" * 80], 1), (["x" * 40] * 3, 1)])
def test_a_legend_has_as_many_columns_as_fit(names, columns):
    assert legend_columns(names) == columns
