"""Charts: arrays and tables in, matplotlib Figures out, in the style of `style`.

`export` writes a figure as PNG and returns the very same picture for a notebook to show. Pages of patches are drawn
in `pages`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from histopath.style import COLOURS, FAINT, GREY, INK, SPLIT_COLOURS, WIDTH, export, legend_above, new_figure, styled

__all__ = [
    "calibration_plot",
    "centre_shift",
    "class_balance",
    "colour_histograms",
    "confusion_plot",
    "export",
    "interval_dots",
    "leak_chart",
    "loss_curves",
    "model_plot",
    "precision_recall_curves",
    "probability_histogram",
    "rate_curve",
    "roc_curves",
    "split_bars",
    "stain_scatter",
    "validation_curves",
]


def _class_colour(number: int, name: str) -> str:
    """Colour of a class; patches without a label are grey."""
    return GREY if name == "no label" else COLOURS[number % len(COLOURS)]


@styled
def class_balance(counts: pd.DataFrame) -> Figure:
    """Patches of each class in each part, as one stacked bar a part.

    Args:
        counts: one row a part or split (the index), one column a class; a column `no label` is drawn grey.
    """
    figure, axes = new_figure(1.15 + 0.5 * len(counts))
    axes = axes[0, 0]
    left, total = np.zeros(len(counts)), counts.to_numpy().sum(axis=1).max()
    for number, name in enumerate(counts.columns):
        values = counts[name].to_numpy()
        axes.barh(counts.index.astype(str), values, left=left, height=0.62, label=name, color=_class_colour(number, name))
        for row, value in enumerate(values):
            if value > 0.06 * total:
                axes.text(left[row] + value / 2, row, f"{value:,}", ha="center", va="center", color="white", weight="bold")
        left += values
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("patches")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    legend_above(axes)
    return figure


@styled
def colour_histograms(panels: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Distribution of one number a patch in each class, one panel a number.

    Args:
        panels: title → values (N,), such as mean red, green and blue, or mean haematoxylin and eosin.
        labels: class number of each patch, (N,).
        class_names: name of each class.
    """
    figure, axes = new_figure(2.7, 1, len(panels), sharey=True)
    labels = np.asarray(labels)
    for panel, (title, values) in zip(axes[0], panels.items(), strict=True):
        bins = np.histogram_bin_edges(values, bins=28)
        for number, name in enumerate(class_names):
            chosen, colour = np.asarray(values)[labels == number], _class_colour(number, name)
            heights = np.histogram(chosen, bins)[0] / max(len(chosen), 1)
            panel.stairs(heights, bins, fill=True, color=colour, alpha=0.28)
            panel.stairs(heights, bins, color=colour, linewidth=1.8, label=name)
        panel.set_xlabel(title)
        panel.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
        panel.locator_params(axis="x", nbins=8 // len(panels) + 1)
    axes[0, 0].set_ylabel("share of the class")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, handlelength=1.4)
    return figure


@styled
def stain_scatter(
    haematoxylin: np.ndarray,
    eosin: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    slides: np.ndarray | None = None,
) -> Figure:
    """Mean haematoxylin against mean eosin, one point a patch, coloured by class and, when known, by slide.

    Args:
        haematoxylin: mean optical density of each patch, (N,).
        eosin: the same of eosin, (N,).
        labels: class number of each patch, (N,).
        class_names: name of each class.
        slides: slide name of each patch (N,), or None for the panel by class alone.
    """
    panels = 1 if slides is None else 2
    figure, axes = new_figure(3.6, 1, panels, sharex=True, sharey=True)
    # One shuffled order, so that no class or slide is drawn on top of all others.
    order = np.random.default_rng(0).permutation(len(labels))
    points = {"s": float(np.clip(9000 / max(len(order), 1), 4, 26)), "alpha": 0.6, "linewidths": 0}
    x, y, labels = np.asarray(haematoxylin)[order], np.asarray(eosin)[order], np.asarray(labels)[order]
    colours = np.array([_class_colour(number, name) for number, name in enumerate(class_names)])
    axes[0, 0].scatter(x, y, c=colours[labels], **points)
    for number, name in enumerate(class_names):
        axes[0, 0].scatter([], [], color=colours[number], label=name)
    legend_above(axes[0, 0])
    axes[0, 0].set_ylabel("mean eosin (optical density)")
    if slides is not None:
        codes, names = pd.factorize(np.asarray(slides, dtype=object)[order], sort=True)
        axes[0, 1].scatter(x, y, c=matplotlib.colormaps["turbo"]((codes + 0.5) / len(names)), **points)
        axes[0, 1].set_title(f"one colour for each of {len(names)} slides", weight="normal", size=10.5)
    for panel in axes[0]:
        panel.set_xlabel("mean haematoxylin (optical density)")
    return figure


@styled
def leak_chart(shares: Mapping[str, tuple[int, int]]) -> Figure:
    """How many slides stand on both sides of a split, one bar a way of splitting.

    Args:
        shares: way of splitting → (slides with patches on both sides, all slides).
    """
    figure, axes = new_figure(0.95 + 0.55 * len(shares))
    axes = axes[0, 0]
    names = list(shares)
    values = [both / total if total else 0.0 for both, total in shares.values()]
    axes.barh(names, [1] * len(names), height=0.6, color=FAINT)
    axes.barh(names, values, height=0.6, color=[COLOURS[1] if value else COLOURS[4] for value in values])
    for row, (both, total) in enumerate(shares.values()):
        inside = both > 0.5 * total
        axes.text(
            values[row] - 0.015 if inside else values[row] + 0.015,
            row,
            f"{both} of {total} slides",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else INK,
            weight="bold",
        )
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("slides with patches on both sides of the split")
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    return figure


@styled
def centre_shift(ours: int = 4, classic: float = 0.3, size: int = 96, centre: int = 32) -> Figure:
    """How much of the labelled centre is still in the centre after a shift: plain geometry of two squares.

    Args:
        ours: largest shift of this project, in pixels.
        classic: largest shift of system 1, as a share of the patch's side.
        size: side of a patch, in pixels.
        centre: side of the labelled square, in pixels.
    """
    figure, axes = new_figure(3.5)
    axes = axes[0, 0]
    shifts = np.arange(0, centre + 5)
    kept = np.clip(1 - shifts / centre, 0, 1)
    axes.plot(shifts, kept, color=COLOURS[0], label="along one side")
    axes.plot(shifts, kept**2, color=COLOURS[3], label="along both sides")
    for shift, name in ((ours, f"ours: at most {ours} px"), (classic * size, f"classic: up to {classic:.0%}")):
        left = max(0.0, 1 - shift / centre)
        axes.axvline(shift, color=GREY, linestyle=":", linewidth=1.6)
        axes.scatter([shift, shift], [left, left**2], color=[COLOURS[0], COLOURS[3]], zorder=3, s=46)
        side = "left" if shift < centre / 2 else "right"
        axes.annotate(
            f"{name}\n{left:.0%} and {left**2:.0%} left",
            (shift, 1.19),
            (6 if side == "left" else -6, 0),
            textcoords="offset points",
            ha=side,
            va="top",
            size=10.5,
        )
    axes.set_xlabel("shift (pixels)")
    axes.set_ylabel("labelled centre left")
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.02, 1.2)
    axes.set_yticks(np.linspace(0, 1, 6))
    legend_above(axes)
    return figure


def _curve(axes: Axes, history: pd.DataFrame, column: str, name: str, colour: str) -> None:
    """One line of a training history, with a dot an epoch while there are few."""
    few = len(history) <= 30
    axes.plot(history["epoch"], history[column], color=colour, label=name, marker="o" if few else None, markersize=4.5)


def _epochs(axes: Axes, label: str) -> None:
    """Whole numbers on the epoch axis, and a legend above."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, nbins=10))
    legend_above(axes)


@styled
def loss_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss of each epoch (`training.png`).

    Args:
        history: columns `epoch`, `loss` and, when there is a val split, `val_loss`.
    """
    figure, axes = new_figure(3.2)
    _curve(axes[0, 0], history, "loss", "train", SPLIT_COLOURS["train"])
    if "val_loss" in history:
        _curve(axes[0, 0], history, "val_loss", "val", SPLIT_COLOURS["val"])
    _epochs(axes[0, 0], "binary cross-entropy")
    return figure


@styled
def validation_curves(history: pd.DataFrame) -> Figure:
    """Accuracy of train and val, and AUC of val with its best epoch (`validation.png`).

    Args:
        history: columns `epoch`, `accuracy`, `val_accuracy`, `val_auc`.
    """
    figure, axes = new_figure(3.2, 1, 2)
    left, right = axes[0]
    _curve(left, history, "accuracy", "train", SPLIT_COLOURS["train"])
    _curve(left, history, "val_accuracy", "val", SPLIT_COLOURS["val"])
    _epochs(left, "accuracy")
    _curve(right, history, "val_auc", "val", SPLIT_COLOURS["val"])
    best = history.loc[history["val_auc"].idxmax()]
    right.scatter(best["epoch"], best["val_auc"], s=150, facecolors="none", edgecolors=INK, linewidths=1.8, zorder=3)
    right.scatter([], [], s=80, facecolors="none", edgecolors=INK, linewidths=1.8, label="best epoch, kept")
    _epochs(right, "AUC")
    return figure


@styled
def rate_curve(history: pd.DataFrame) -> Figure:
    """Learning rate over the epochs: the warm-up and the cosine.

    Args:
        history: columns `epoch` and `learning_rate`.
    """
    figure, axes = new_figure(2.4)
    _curve(axes[0, 0], history, "learning_rate", "learning rate", COLOURS[0])
    _epochs(axes[0, 0], "learning rate")
    axes[0, 0].get_legend().remove()
    axes[0, 0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    axes[0, 0].set_ylim(bottom=0)
    return figure


@styled
def split_bars(counts: pd.DataFrame) -> Figure:
    """Size of each split, one panel a column.

    Args:
        counts: one row a split (the index), columns such as `patches` and `slides`.
    """
    figure, axes = new_figure(1.0 + 0.42 * len(counts), 1, counts.shape[1], sharey=True)
    names = counts.index.astype(str)
    for panel, column in zip(axes[0], counts.columns, strict=True):
        bars = panel.barh(names, counts[column], height=0.62, color=[SPLIT_COLOURS.get(name, GREY) for name in names])
        panel.bar_label(bars, fmt="{:,.0f}", padding=4)
        panel.set_title(column)
        panel.set_xlim(0, counts[column].max() * 1.2)
        panel.set_xticks([])
        panel.grid(visible=False)
        panel.spines["bottom"].set_visible(False)
    axes[0, 0].invert_yaxis()
    return figure


@styled
def roc_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """ROC curves, the first with the band of its bootstrap (`roc.png`).

    Args:
        curves: legend text, such as `AUC 0.97 (0.96-0.98), 3,000 patches` → (false positive rates, true positive
            rates).
        band: grid of false positive rates, lower and upper true positive rate of the first curve, or None.
    """
    figure, axes = new_figure(5.6, width=5.2)
    axes = axes[0, 0]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=":")
    colours = (COLOURS[1], COLOURS[0], COLOURS[2], COLOURS[3])
    if band is not None:
        axes.fill_between(*band, color=colours[0], alpha=0.16, linewidth=0, label="95 % bootstrap band")
    for number, (name, (false, true)) in enumerate(curves.items()):
        style = {"linestyle": "-" if number == 0 else "--", "zorder": 4 - number / 10}
        axes.plot(false, true, color=colours[number % 4], label=name, **style)
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    legend_above(axes, columns=1)
    return figure


@styled
def precision_recall_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], prevalence: float) -> Figure:
    """Precision over recall, with the share of tumor as the floor that a coin reaches.

    Args:
        curves: legend text → (precision, recall), as `evaluation.precision_recall` returns them.
        prevalence: share of tumor patches, in [0, 1].
    """
    figure, axes = new_figure(3.9, width=5.6)
    axes = axes[0, 0]
    for number, (name, (precision, recall)) in enumerate(curves.items()):
        colour = COLOURS[(1, 0, 2, 3)[number % 4]]
        axes.step(recall, precision, where="post", color=colour, label=name, linestyle="-" if number == 0 else "--")
    axes.axhline(prevalence, color=GREY, linewidth=1.2, linestyle=":", label=f"share of tumor: {prevalence:.2f}")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    axes.legend(loc="lower left")
    return figure


@styled
def calibration_plot(table: pd.DataFrame) -> Figure:
    """Observed share of tumor over the predicted probability, with the count of each bin below.

    Args:
        table: what `evaluation.calibration` returns.
    """
    figure, axes = new_figure(4.9, 2, 1, width=5.6, sharex=True, height_ratios=(3.2, 1))
    above, below = axes[:, 0]
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=":", label="perfectly calibrated")
    above.plot(table["predicted"], table["observed"], color=COLOURS[1], marker="o", markersize=6, label="this model")
    above.set(ylabel="observed share of tumor", xlim=(-0.01, 1.01), ylim=(-0.03, 1.03))
    legend_above(above)
    widths = table["high"] - table["low"]
    below.bar(table["low"] + widths / 2, table["count"], width=widths * 0.92, color=COLOURS[0])
    below.set(ylabel="patches", xlabel="predicted probability of tumor")
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.locator_params(axis="y", nbins=3)
    figure.align_ylabels()
    return figure


@styled
def confusion_plot(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Counts of the confusion matrix, shaded by the share of each true class.

    Args:
        matrix: counts (K, K), rows the truth, columns the prediction.
        class_names: name of each class.
    """
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(0.9 + 1.15 * len(matrix), width=1.7 + 1.5 * len(matrix))
    axes = axes[0, 0]
    tones = matplotlib.colors.LinearSegmentedColormap.from_list("blues", ["#f3f7f9", COLOURS[0]])
    axes.pcolormesh(shares, cmap=tones, vmin=0, vmax=1, edgecolors="white", linewidth=4)
    for (row, column), count in np.ndenumerate(matrix):
        colour, share = "white" if shares[row, column] > 0.55 else INK, shares[row, column]
        axes.text(column + 0.5, row + 0.44, f"{count:,}", ha="center", va="center", color=colour, size=17, weight="bold")
        axes.text(column + 0.5, row + 0.7, f"{share:.0%}", ha="center", va="center", color=colour, size=11)
    ticks = np.arange(len(matrix)) + 0.5
    axes.set_xticks(ticks, class_names)
    axes.set_yticks(ticks, class_names, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="truth")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


@styled
def probability_histogram(
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] = ("no_tumor", "tumor"),
    threshold: float | None = None,
) -> Figure:
    """Distribution of the predicted probabilities, by class where labels are known.

    Args:
        probabilities: in [0, 1], (N,).
        labels: class number of each patch (N,), or None.
        class_names: name of each class.
        threshold: drawn as a line, or None.
    """
    figure, axes = new_figure(2.9)
    axes, bins = axes[0, 0], np.linspace(0, 1, 26)
    if labels is None:
        axes.hist(probabilities, bins, color=COLOURS[0], rwidth=0.9)
    else:
        for number, name in enumerate(class_names):
            chosen = np.asarray(probabilities)[np.asarray(labels) == number]
            axes.hist(chosen, bins, color=COLOURS[number], alpha=0.28)
            axes.hist(chosen, bins, color=COLOURS[number], histtype="step", linewidth=2, label=name)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.6, linestyle="--", label=f"threshold {threshold:.2f}")
    axes.set(xlabel="predicted probability of tumor", ylabel="patches", xlim=(0, 1))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if axes.get_legend_handles_labels()[0]:
        legend_above(axes)
    return figure


@styled
def interval_dots(scores: Mapping[str, tuple[float, float, float]], label: str = "AUC on the holdout") -> Figure:
    """Scores with their intervals, one line each: single view beside eight views, model beside baseline.

    Args:
        scores: name → (value, low, high).
        label: what the numbers are.
    """
    figure, axes = new_figure(0.95 + 0.5 * len(scores))
    axes = axes[0, 0]
    for row, (value, low, high) in enumerate(scores.values()):
        colour = COLOURS[1] if row == 0 else COLOURS[0]
        axes.plot([low, high], [row, row], color=colour, linewidth=7, alpha=0.3, solid_capstyle="butt")
        axes.scatter(value, row, s=80, color=colour, zorder=3)
        axes.annotate(f"{value:.2f}", (value, row), (0, 9), textcoords="offset points", ha="center", weight="bold")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.75)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    return figure


def _box(axes: Axes, x: float, y: float, width: float, box: tuple[str, str], colour: str) -> None:
    """One box of the block diagram, centred at x, y, with a title and a subtitle."""
    outline = FancyBboxPatch(
        (x - width / 2, y - 0.29),
        width,
        0.58,
        boxstyle="round,pad=0,rounding_size=0.09",
        facecolor=matplotlib.colors.to_rgba(colour, 0.12),
        edgecolor=colour,
        linewidth=1.6,
    )
    axes.add_patch(outline)
    axes.text(x, y + 0.11, box[0], ha="center", va="center", size=11, weight="bold")
    axes.text(x, y - 0.13, box[1], ha="center", va="center", size=9.5, color="#50565f")


@styled
def model_plot(rows: Sequence[Sequence[tuple[str, str]]]) -> Figure:
    """Block diagram of a network, from the input at the top to the output at the bottom (`model_plot.png`).

    Args:
        rows: rows of boxes, each a title and a subtitle. Rows of equal length are joined box by box, others every
            box with every box.
    """
    figure = Figure(figsize=(WIDTH, 0.86 * len(rows) + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(-0.86 * (len(rows) - 1) - 0.48, 0.48))
    axes.axis("off")
    places = []
    for number, row in enumerate(rows):
        width = min(3.2, (WIDTH - 0.3) / len(row) - 0.2)
        step = width + (0.5 if len(row) == 2 else 0.2)
        xs = [WIDTH / 2 + step * (column - (len(row) - 1) / 2) for column in range(len(row))]
        for column, (x, box) in enumerate(zip(xs, row, strict=True)):
            _box(axes, x, -0.86 * number, width, box, GREY if len(row) == 1 else COLOURS[column % len(COLOURS)])
        places.append(xs)
    for number, (upper, lower) in enumerate(pairwise(places)):
        pairs = zip(upper, lower, strict=True) if len(upper) == len(lower) else [(a, b) for a in upper for b in lower]
        for start, end in pairs:
            axes.annotate(
                "",
                (end, -0.86 * (number + 1) + 0.3),
                (start, -0.86 * number - 0.3),
                arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0},
            )
    return figure
