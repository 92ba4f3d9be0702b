"""Charts: arrays and tables in, matplotlib Figures out, in the style of `style`.

`export` writes a figure as PNG and returns the very same picture for a notebook to show. Pages of patches are drawn
in `pages`, and what needs no data in `diagrams`.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from histopath.plots.diagrams import center_shift, model_plot
from histopath.plots.style import (
    COLORS,
    FAINT,
    GRAY,
    INK,
    LEGEND_ROW,
    SPLIT_COLORS,
    WIDTH,
    export,
    legend_above,
    legend_columns,
    new_figure,
    styled,
)

__all__ = [
    "calibration_plot",
    "center_shift",
    "class_balance",
    "color_histograms",
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
    "shift_curves",
    "slide_heatmap",
    "split_bars",
    "stain_scatter",
    "task_history",
    "validation_curves",
]


def _class_color(number: int, name: str) -> str:
    """Color of a class; patches without a label are gray."""
    return GRAY if name == "no label" else COLORS[number % len(COLORS)]


@styled
def class_balance(counts: pd.DataFrame) -> Figure:
    """Patches of each class in each part, as one stacked bar a part.

    Args:
        counts: one row a part or split (the index), one column a class; a column `no label` is drawn gray.
    """
    columns = legend_columns(counts.columns)
    figure, axes = new_figure(1.15 + 0.5 * len(counts) + LEGEND_ROW * ((counts.shape[1] - 1) // columns))
    axes = axes[0, 0]
    left, total = np.zeros(len(counts)), counts.to_numpy().sum(axis=1).max()
    for number, name in enumerate(counts.columns):
        values = counts[name].to_numpy()
        axes.barh(counts.index.astype(str), values, left=left, height=0.62, label=name, color=_class_color(number, name))
        for row, value in enumerate(values):
            if value > max(0.06, 0.02 * len(f"{value:,}")) * total:
                axes.text(left[row] + value / 2, row, f"{value:,}", ha="center", va="center", color="white", weight="bold")
        left += values
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("patches")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    legend_above(axes, columns)
    return figure


@styled
def color_histograms(panels: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Distribution of one number a patch in each class, one panel a number.

    Args:
        panels: title → values (N,), such as mean red, green and blue, or mean hematoxylin and eosin.
        labels: class number of each patch, (N,).
        class_names: name of each class.
    """
    columns = legend_columns(class_names)
    figure, axes = new_figure(2.7, 1, len(panels), sharey=True)
    labels = np.asarray(labels)
    for panel, (title, values) in zip(axes[0], panels.items(), strict=True):
        bins = np.histogram_bin_edges(values, bins=28)
        for number, name in enumerate(class_names):
            chosen, color = np.asarray(values)[labels == number], _class_color(number, name)
            heights = np.histogram(chosen, bins)[0] / max(len(chosen), 1)
            if len(class_names) <= 3:
                panel.stairs(heights, bins, fill=True, color=color, alpha=0.28)
            panel.stairs(heights, bins, color=color, linewidth=1.8, label=name)
        panel.set_xlabel(title)
        panel.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
        panel.locator_params(axis="x", nbins=8 // len(panels) + 1)
    axes[0, 0].set_ylabel("share of the class")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=columns, handlelength=1.4)
    return figure


@styled
def stain_scatter(
    hematoxylin: np.ndarray,
    eosin: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    slides: np.ndarray | None = None,
) -> Figure:
    """Mean hematoxylin against mean eosin, one point a patch, colored by class and, when known, by slide.

    Args:
        hematoxylin: mean optical density of each patch, (N,).
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
    x, y, labels = np.asarray(hematoxylin)[order], np.asarray(eosin)[order], np.asarray(labels)[order]
    colors = np.array([_class_color(number, name) for number, name in enumerate(class_names)])
    axes[0, 0].scatter(x, y, c=colors[labels], **points)
    for number, name in enumerate(class_names):
        axes[0, 0].scatter([], [], color=colors[number], label=name)
    legend_above(axes[0, 0])
    axes[0, 0].set_ylabel("mean eosin (optical density)")
    if slides is not None:
        codes, names = pd.factorize(np.asarray(slides, dtype=object)[order], sort=True)
        axes[0, 1].scatter(x, y, c=matplotlib.colormaps["turbo"]((codes + 0.5) / len(names)), **points)
        axes[0, 1].set_title(f"one color for each of {len(names)} slides", weight="normal", size=10.5)
    for panel in axes[0]:
        panel.set_xlabel("mean hematoxylin (optical density)")
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
    axes.barh(names, values, height=0.6, color=[COLORS[1] if value else COLORS[4] for value in values])
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


def _curve(axes: Axes, history: pd.DataFrame, column: str, name: str, color: str) -> None:
    """One line of a training history, with a dot an epoch while there are few."""
    few = len(history) <= 30
    axes.plot(history["epoch"], history[column], color=color, label=name, marker="o" if few else None, markersize=4.5)


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
    _curve(axes[0, 0], history, "loss", "train", SPLIT_COLORS["train"])
    if "val_loss" in history:
        _curve(axes[0, 0], history, "val_loss", "val", SPLIT_COLORS["val"])
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
    _curve(left, history, "accuracy", "train", SPLIT_COLORS["train"])
    _curve(left, history, "val_accuracy", "val", SPLIT_COLORS["val"])
    _epochs(left, "accuracy")
    _curve(right, history, "val_auc", "val", SPLIT_COLORS["val"])
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
    _curve(axes[0, 0], history, "learning_rate", "learning rate", COLORS[0])
    _epochs(axes[0, 0], "learning rate")
    axes[0, 0].get_legend().remove()
    axes[0, 0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    axes[0, 0].set_ylim(bottom=0)
    return figure


@styled
def task_history(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Several trainings side by side: loss, accuracy and AUC of val, one color a training, train dashed and val solid.

    Args:
        histories: name of the training → columns `epoch`, `loss`, `val_loss`, `accuracy`, `val_accuracy`, `val_auc`;
            a column that is missing is not drawn.
    """
    columns = legend_columns([*histories, "train", "val"])
    figure, axes = new_figure(2.9 + LEGEND_ROW * ((len(histories) + 1) // columns), 1, 3)
    panels = {"loss": ("loss", "val_loss"), "accuracy": ("accuracy", "val_accuracy"), "AUC of val": ("val_auc",)}
    for panel, (title, kinds) in zip(axes[0], panels.items(), strict=True):
        for number, history in enumerate(histories.values()):
            style = {"color": COLORS[number % len(COLORS)], "linewidth": 1.8, "markersize": 3.5}
            for kind in history.columns.intersection(kinds):
                line, dot = "-" if kind.startswith("val_") else "--", "o" if len(history) <= 12 else None
                panel.plot(history["epoch"], history[kind], linestyle=line, marker=dot, **style)
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, nbins=5))
    names = [Line2D([], [], color=COLORS[number % len(COLORS)], label=name) for number, name in enumerate(histories)]
    kinds = [Line2D([], [], color=GRAY, linestyle=line, label=name) for name, line in (("train", "--"), ("val", "-"))]
    figure.legend(handles=names + kinds, loc="outside upper left", ncols=columns, handlelength=1.8)
    return figure


@styled
def split_bars(counts: pd.DataFrame) -> Figure:
    """Size of each split, one panel a column; more than four, such as classes, stand three a row on one scale.

    Args:
        counts: one row a split (the index), columns such as `patches` and `slides`.
    """
    many, limits = counts.shape[1] > 4, counts.max() * 1.2
    columns = 3 if many else counts.shape[1]
    rows = -(-counts.shape[1] // columns)
    figure, axes = new_figure(rows * (0.6 + 0.34 * len(counts)) if many else 1.0 + 0.42 * len(counts), rows, columns, sharey=True)
    names = counts.index.astype(str)
    for panel in axes.flat[counts.shape[1] :]:
        panel.set_axis_off()
    for panel, column in zip(axes.flat, counts.columns, strict=False):
        bars = panel.barh(names, counts[column], height=0.62, color=[SPLIT_COLORS.get(name, GRAY) for name in names])
        panel.bar_label(bars, fmt="{:,.0f}", padding=4)
        panel.set_title(column)
        panel.set_xlim(0, limits.max() if many else limits[column])
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
    """ROC curves, the first with the band of its bootstrap (`roc.png`); more than three stand beside their legend.

    Args:
        curves: legend text, such as `AUC 0.97 (0.96-0.98), 3,000 patches` → (false positive rates, true positive
            rates).
        band: grid of false positive rates, lower and upper true positive rate of the first curve, or None.
    """
    if len(curves) > 3:
        return _many_rocs(curves, band)
    figure, axes = new_figure(5.6, width=5.2)
    colors = (COLORS[1], COLORS[0], COLORS[2])
    for number, line in enumerate(_roc_panel(axes[0, 0], curves, band, colors)):
        line.set(linestyle="-" if number == 0 else "--", zorder=4 - number / 10)
    legend_above(axes[0, 0], columns=1)
    return figure


def _many_rocs(curves: Mapping, band: tuple | None) -> Figure:
    """More than three ROC curves in the colors of the classes; their legend is under the diagonal, or above where it is wide."""
    wide = max(map(len, curves)) > 34
    figure, axes = new_figure(5.0 + 0.19 * len(curves) * wide, width=5.2)
    for number, line in enumerate(_roc_panel(axes[0, 0], curves, band, COLORS)):
        line.set(linewidth=1.8, linestyle="-" if number < 5 else (0, (3, 1)))
    place = {"loc": "lower left", "bbox_to_anchor": (-0.12, 1.0)} if wide else {"loc": "lower right", "borderaxespad": 0.1}
    legend = axes[0, 0].legend(**place, fontsize=9 if wide else 9.5, labelspacing=0.35, handlelength=1.8, frameon=True)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.8)
    return figure


def _roc_panel(axes: Axes, curves: Mapping, band: tuple | None, colors: Sequence[str]) -> list[Line2D]:
    """Draw the diagonal, the band in the first color and the curves, and return the lines of the curves."""
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1.2, linestyle=":")
    if band is not None:
        axes.fill_between(*band, color=colors[0], alpha=0.16, linewidth=0, label="95 % bootstrap band")
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return [
        axes.plot(*rates, color=colors[number % len(colors)], label=name)[0]
        for number, (name, rates) in enumerate(curves.items())
    ]


@styled
def precision_recall_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], prevalence: float) -> Figure:
    """Precision over recall, with the share of tumor as the floor that a coin reaches.

    Args:
        curves: legend text → (precision, recall), as `binary.precision_recall` returns them.
        prevalence: share of tumor patches, in [0, 1].
    """
    figure, axes = new_figure(3.9, width=5.6)
    axes = axes[0, 0]
    for number, (name, (precision, recall)) in enumerate(curves.items()):
        color = COLORS[(1, 0, 2, 3)[number % 4]]
        axes.step(recall, precision, where="post", color=color, label=name, linestyle="-" if number == 0 else "--")
    axes.axhline(prevalence, color=GRAY, linewidth=1.2, linestyle=":", label=f"share of tumor: {prevalence:.2f}")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    axes.legend(loc="lower left")
    return figure


@styled
def calibration_plot(table: pd.DataFrame, tempered: pd.DataFrame | None = None) -> Figure:
    """Observed share of tumor over the predicted probability, with the count of each bin below.

    Args:
        table: what `binary.calibration` returns.
        tempered: the same after division by a temperature, or None; its counts are not shown.
    """
    figure, axes = new_figure(4.9, 2, 1, width=5.6, sharex=True, height_ratios=(3.2, 1))
    above, below = axes[:, 0]
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1.2, linestyle=":", label="perfect")
    above.plot(table["predicted"], table["observed"], color=COLORS[1], marker="o", markersize=6, label="as predicted")
    if tempered is not None:
        above.plot(tempered["predicted"], tempered["observed"], color=COLORS[0], marker="s", label="tempered")
    above.set(ylabel="observed share of tumor", xlim=(-0.01, 1.01), ylim=(-0.03, 1.03))
    legend_above(above)
    widths = table["high"] - table["low"]
    below.bar(table["low"] + widths / 2, table["count"], width=widths * 0.92, color=COLORS[0])
    below.set(ylabel="patches", xlabel="predicted probability of tumor")
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.locator_params(axis="y", nbins=3)
    figure.align_ylabels()
    return figure


@styled
def shift_curves(table: pd.DataFrame) -> Figure:
    """AUC over the severity of each change.

    Args:
        table: what `robustness.shifted_aucs` returns.
    """
    figure, axes = new_figure(3.6, width=5.6)
    axes = axes[0, 0]
    for (name, values), color, marker in zip(table.items(), COLORS, "osD^", strict=False):
        axes.plot(table.index, values, color=color, marker=marker, markersize=5, label=name)
    axes.set(xlabel="severity, 0 as it is", ylabel="AUC of one view", xticks=list(table.index))
    legend_above(axes)
    return figure


@styled
def slide_heatmap(
    overview: np.ndarray, heat: np.ndarray, extent: Sequence[float], title: str, truth: np.ndarray | None = None
) -> Figure:
    """A slide, and beside it the probability of tumor of its tiles.

    Args:
        overview: uint8 (H, W, 3), the whole slide small.
        heat: float (rows, columns), NaN where no tile is.
        extent: where the grid lies, as shares of width and height: left, right, bottom, top.
        title: name of the slide.
        truth: where tumor is known to be, bool of any shape over the whole slide; outlined on both.
    """
    height, width = overview.shape[:2]
    figure, axes = new_figure(min(7.0, 0.46 * WIDTH * height / width + 0.4), 1, 2)
    left, right = axes[0]
    whole = (0, width, height, 0)
    right.imshow(overview.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=whole, alpha=0.35)
    place = (extent[0] * width, extent[1] * width, extent[2] * height, extent[3] * height)
    shown = right.imshow(heat, cmap="inferno", vmin=0, vmax=1, extent=place, interpolation="nearest", alpha=0.85)
    left.imshow(overview, extent=whole)
    left.set_title(title.encode("utf-8", "replace").decode(), parse_math=False)  # a file's name may hold anything
    right.set_title("probability of tumor")
    for panel in (left, right):
        panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        panel.grid(False)
        if truth is not None:
            panel.contour(truth, [0.5], colors=[COLORS[0]], linewidths=1.5, extent=(0, width, 0, height), origin=None)
    figure.colorbar(shown, ax=right, fraction=0.046, pad=0.02)
    return figure


@styled
def confusion_plot(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Counts of the confusion matrix, shaded by the share of each true class.

    Args:
        matrix: counts (K, K), rows the truth, columns the prediction.
        class_names: name of each class.
    """
    matrix, count = np.asarray(matrix), len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    height, width = (0.9 + 1.15 * count, 1.7 + 1.5 * count) if count <= 3 else (0.9 + min(0.75 * count, 4.7), WIDTH)
    figure, axes = new_figure(height, width=width)
    axes = axes[0, 0]
    tones = matplotlib.colors.LinearSegmentedColormap.from_list("blues", ["#f3f7f9", COLORS[0]])
    axes.pcolormesh(shares, cmap=tones, vmin=0, vmax=1, edgecolors="white", linewidth=4 if count <= 3 else 2)
    _write_counts(axes, matrix, shares)
    axes.set_xticks(np.arange(count) + 0.5, class_names)
    axes.set_yticks(np.arange(count) + 0.5, class_names, rotation=90 if count <= 3 else 0, va="center")
    longest = 0.09 * max(map(len, class_names))  # inches
    if count > 3 and longest > (WIDTH - longest - 0.5) / count:
        axes.tick_params(axis="x", rotation=35)
        for name in axes.get_xticklabels():
            name.set(ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted", ylabel="truth")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    """The count of each cell and its share of the row; smaller beyond three classes, and faint where there is nothing."""
    many, digits = len(matrix) > 3, len(f"{matrix.max():,}")
    (size, small), (above, below) = ((min(14, 54 / digits), 9), (0.4, 0.74)) if many else ((17, 11), (0.44, 0.7))
    for (row, column), count in np.ndenumerate(matrix):
        share, style = shares[row, column], {"ha": "center", "va": "center"}
        if many and not count:
            axes.text(column + 0.5, row + 0.5, "0", color=GRAY, size=small, **style)
            continue
        style["color"] = "white" if share > 0.55 else INK
        axes.text(column + 0.5, row + above, f"{count:,}", size=size, weight="bold", **style)
        axes.text(column + 0.5, row + below, f"{share:.0%}", size=small, **style)


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
        axes.hist(probabilities, bins, color=COLORS[0], rwidth=0.9)
    else:
        for number, name in enumerate(class_names):
            chosen = np.asarray(probabilities)[np.asarray(labels) == number]
            axes.hist(chosen, bins, color=COLORS[number], alpha=0.28)
            axes.hist(chosen, bins, color=COLORS[number], histtype="step", linewidth=2, label=name)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.6, linestyle="--", label=f"threshold {threshold:.2f}")
    axes.set(xlabel="predicted probability of tumor", ylabel="patches", xlim=(0, 1))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if axes.get_legend_handles_labels()[0]:
        legend_above(axes)
    return figure


@styled
def interval_dots(
    scores: Mapping[str, tuple[float, float, float]], label: str = "AUC on the holdout", first_stands_out: bool = True
) -> Figure:
    """Scores with their intervals, one line each: single view beside eight views, model beside baseline.

    Args:
        scores: name → (value, low, high).
        label: what the numbers are.
        first_stands_out: whether the first line has a color of its own.
    """
    figure, axes = new_figure(0.95 + 0.5 * len(scores))
    axes = axes[0, 0]
    for row, (value, low, high) in enumerate(scores.values()):
        color = COLORS[1] if row == 0 and first_stands_out else COLORS[0]
        axes.plot([low, high], [row, row], color=color, linewidth=7, alpha=0.3, solid_capstyle="butt")
        axes.scatter(value, row, s=80, color=color, zorder=3)
        axes.annotate(f"{value:.2f}", (value, row), (0, 9), textcoords="offset points", ha="center", weight="bold")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.75)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    return figure
