"""Diagrams that need no data: the shape of a network, and what a shift leaves of the labeled center; Figures out."""

from collections.abc import Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from histopath.plots.style import COLORS, GRAY, INK, WIDTH, legend_above, new_figure, styled

ARROW = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}


@styled
def center_shift(ours: int = 4) -> Figure:
    """How much of the labeled center is still in the center after a shift: plain geometry of two squares.

    Args:
        ours: largest shift of this project, in pixels.
    """
    center, classic = 32, 0.3  # side of the labeled square in pixels; largest shift of system 1, as a share of 96 pixels
    figure, axes = new_figure(3.5)
    axes = axes[0, 0]
    shifts = np.arange(0, center + 5)
    kept = np.clip(1 - shifts / center, 0, 1)
    axes.plot(shifts, kept, color=COLORS[0], label="along one side")
    axes.plot(shifts, kept**2, color=COLORS[3], label="along both sides")
    for shift, name in ((ours, f"ours: at most {ours} px"), (classic * 96, f"classic: up to {classic:.0%}")):
        left = max(0.0, 1 - shift / center)
        axes.axvline(shift, color=GRAY, linestyle=":", linewidth=1.6)
        axes.scatter([shift, shift], [left, left**2], color=[COLORS[0], COLORS[3]], zorder=3, s=46)
        side = "left" if shift < center / 2 else "right"
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
    axes.set_ylabel("labeled center left")
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.02, 1.2)
    axes.set_yticks(np.linspace(0, 1, 6))
    legend_above(axes)
    return figure


def _box(axes: Axes, x: float, y: float, width: float, box: tuple[str, str], color: str) -> None:
    """One box of the block diagram, centered at x, y, with a title and a subtitle, which shrink where they would not fit."""
    outline = FancyBboxPatch(
        (x - width / 2, y - 0.29),
        width,
        0.58,
        boxstyle="round,pad=0,rounding_size=0.09",
        facecolor=matplotlib.colors.to_rgba(color, 0.12),
        edgecolor=color,
        linewidth=1.6,
    )
    axes.add_patch(outline)
    # A letter is about 0.62 of the size wide in bold and 0.56 in plain; 72 points are an inch.
    title, subtitle = (72 * (width - 0.1) / (wide * max(len(text), 1)) for wide, text in zip((0.67, 0.6), box, strict=True))
    axes.text(x, y + 0.11, box[0], ha="center", va="center", size=min(11, title), weight="bold")
    axes.text(x, y - 0.13, box[1], ha="center", va="center", size=min(9.5, subtitle), color="#50565f")


def _row_places(row: Sequence, middle: float, room: float) -> tuple[list[float], float]:
    """Where the boxes of a row are centered, and how wide they are, in inches."""
    width = min(3.2, (room - 0.3) / len(row) - (0.2 if len(row) > 1 or room == WIDTH else 0))
    step = width + (0.5 if len(row) == 2 and room == WIDTH else 0.2)
    return [middle + step * (column - (len(row) - 1) / 2) for column in range(len(row))], width


def _pairs(upper: Sequence, lower: Sequence) -> list[tuple]:
    """Which boxes of two rows are joined: each with its own where the rows are equally long, else all with all."""
    return list(zip(upper, lower, strict=True)) if len(upper) == len(lower) else [(a, b) for a in upper for b in lower]


def _turn(axes: Axes, start: tuple[float, float], end: tuple[float, float], gutter: float) -> None:
    """An arrow from the foot of one column, up the gutter, to the head of the next."""
    (x, y), (to_x, to_y) = start, end
    axes.plot(
        [x, x, gutter, gutter, to_x, to_x], [y, y - 0.1, y - 0.1, to_y + 0.16, to_y + 0.16, to_y + 0.1], color=INK, linewidth=1.3
    )
    axes.annotate("", end, (to_x, to_y + 0.16), arrowprops=ARROW)


@styled
def model_plot(rows: Sequence[Sequence[tuple[str, str]]]) -> Figure:
    """Block diagram of a network, from the input at the top to the output at the bottom (`model_plot.png`).

    More than 10 rows wrap into two columns, more than 24 into three, each read from top to bottom.

    Args:
        rows: rows of boxes, each a title and a subtitle. Rows of equal length are joined box by box, others every
            box with every box.
    """
    columns = 1 + (len(rows) > 10) + (len(rows) > 24)
    pitch, room, tall = 0.86 if columns == 1 else 0.76, WIDTH / columns, -(-len(rows) // columns)
    edge = 0.48 if columns == 1 else 0.56
    figure = Figure(figsize=(WIDTH, pitch * (tall - 1) + 2 * edge))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(-pitch * (tall - 1) - edge, edge))
    axes.axis("off")
    places = []
    for number, row in enumerate(rows):
        xs, width = _row_places(row, room * (number // tall + 0.5), room)
        y = -pitch * (number % tall)
        for column, (x, box) in enumerate(zip(xs, row, strict=True)):
            _box(axes, x, y, width, box, GRAY if len(row) == 1 else COLORS[column % len(COLORS)])
        places.append([(x, y) for x in xs])
    for number, (upper, lower) in enumerate(pairwise(places), start=1):
        for (x, y), (to_x, to_y) in _pairs(upper, lower):
            if number % tall:
                axes.annotate("", (to_x, to_y + 0.3), (x, y - 0.3), arrowprops=ARROW)
            else:
                _turn(axes, (x, y - 0.3), (to_x, to_y + 0.3), room * (number // tall))
    return figure
