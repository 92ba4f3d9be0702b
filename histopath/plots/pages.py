"""Pages of patches: uint8 patches in, matplotlib Figures out, in the style of `style`."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from histopath.plots.style import COLORS, DPI, FAINT, WIDTH, styled

CENTER = 32  # side in pixels of the square that the label speaks of
SIDE = 0.96  # inches, 96 pixels at the resolution of `style.export`; smaller patches are shown as large
LARGEST, BATCH = 1.7, 1.25  # inches, of a cell whatever its patch, and of one of a batch, which has many
LINE = 0.21  # inches of a line of a title
GAP = 0.06  # inches between two cells
RIGHT, WRONG = COLORS[4], COLORS[1]
PRETRAINED = "#ffd23f"
HAEMATOXYLIN = matplotlib.colors.LinearSegmentedColormap.from_list("hematoxylin", ["#ffffff", "#6f6bb5", "#241a52"])
EOSIN = matplotlib.colors.LinearSegmentedColormap.from_list("eosin", ["#ffffff", "#e27fae", "#8a1450"])


def _side(image: np.ndarray) -> float:
    """Inches that show a patch one to one, within bounds."""
    return float(np.clip(image.shape[0] / DPI, SIDE, LARGEST))


def _page(
    rows: int, columns: int, titles: Sequence[float], side: float, left: float = 0.0, gap: float = GAP
) -> tuple[Figure, np.ndarray]:
    """A page of square cells placed exactly, and their axes (rows, columns).

    Args:
        rows: rows of cells.
        columns: columns of cells.
        titles: inches kept above each row for titles, (rows,).
        side: inches of a cell where the page is wide enough.
        left: inches kept at the left for row names.
        gap: inches between two columns.
    """
    edge = max(0.05, gap / 2)
    side = min((WIDTH - 2 * edge - left - gap * (columns - 1)) / columns, side)
    width = 2 * edge + left + columns * side + gap * (columns - 1)
    height = 0.1 + rows * side + sum(titles) + GAP * (rows - 1)
    figure = Figure(figsize=(width, height))
    cells = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x = edge + left + column * (side + gap)
        y = height - 0.05 - (row + 1) * side - row * GAP - sum(titles[: row + 1])
        cells[row, column] = figure.add_axes((x / width, y / height, side / width, side / height))
        cells[row, column].set_axis_off()
    return figure, cells


def _show(axes: Axes, image: np.ndarray, title: str = "", box: bool = False, **options) -> None:
    """Draw one patch; with `box` the center that its label speaks of is framed."""
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT, linewidth=0.8)
    axes.imshow(image, interpolation="antialiased", aspect="auto", **options)
    if box:
        height, width = image.shape[:2]
        corner = ((width - CENTER) / 2 - 0.5, (height - CENTER) / 2 - 0.5)
        axes.add_patch(Rectangle(corner, CENTER, CENTER, fill=False, edgecolor=PRETRAINED, linewidth=1.6))
    if title:
        axes.set_title(title, size=10, weight="normal", loc="center", pad=3)


def _row_name(axes: Axes, name: str) -> None:
    """Write the name of a row at the left of its first cell."""
    axes.text(-0.08, 0.5, name, transform=axes.transAxes, ha="right", va="center", size=10.5)


def _name_width(names: Sequence[str]) -> float:
    """Inches that the longest of some row names needs, line by line."""
    return 0.2 + 0.088 * max((len(line) for name in names for line in str(name).split("\n")), default=0)


@styled
def patch_grid(images: np.ndarray, titles: Sequence[str] | None = None, columns: int = 8, box: bool = True) -> Figure:
    """Patches in rows, the labeled center framed.

    Args:
        images: uint8 (N, H, W, 3).
        titles: a title for each patch, or None.
        columns: patches in a row.
        box: whether to frame the center 32×32.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = 0 if titles is None else 1 + max(title.count("\n") for title in titles)
    figure, cells = _page(rows, columns, [lines * LINE] * rows, _side(images[0]))
    for number, image in enumerate(images):
        _show(cells.flat[number], image, "" if titles is None else titles[number], box)
    return figure


@styled
def strips(rows: Mapping[str, np.ndarray], box: bool = False) -> Figure:
    """Named rows of patches: slides, kinds of odd patches, transformations, one set of augmentations beside another.

    Args:
        rows: row name → uint8 (n, H, W, 3); rows may differ in length.
        box: whether to frame the center 32×32.
    """
    columns, side = max(len(images) for images in rows.values()), max(_side(images[0]) for images in rows.values() if len(images))
    figure, cells = _page(len(rows), columns, [0] * len(rows), side, _name_width(list(rows)))
    for axes, (name, images) in zip(cells, rows.items(), strict=True):
        _row_name(axes[0], name)
        for cell, image in zip(axes, images, strict=False):
            _show(cell, image, box=box)
    return figure


@styled
def transformation_page(patch: np.ndarray, draws: Mapping[str, np.ndarray], box: bool = True) -> Figure:
    """One patch and what each transformation makes of it, one row a transformation.

    Args:
        patch: the patch as it is, uint8 (H, W, 3).
        draws: name of the transformation → several draws, uint8 (n, H, W, 3).
        box: whether to frame the center 32×32.
    """
    columns = 1 + max(len(images) for images in draws.values())
    figure, cells = _page(len(draws), columns, [LINE] + [0] * (len(draws) - 1), _side(patch), _name_width(list(draws)))
    for axes, (name, images) in zip(cells, draws.items(), strict=True):
        _row_name(axes[0], name)
        _show(axes[0], patch, "original" if axes[0] is cells[0, 0] else "", box)
        for cell, image in zip(axes[1:], images, strict=False):
            _show(cell, image, box=box)
    return figure


@styled
def stain_separation(patches: np.ndarray, hematoxylin: np.ndarray, eosin: np.ndarray) -> Figure:
    """Patches with their hematoxylin and eosin beside them: three cells a patch, two patches a row.

    Args:
        patches: uint8 (N, H, W, 3).
        hematoxylin: optical density (N, H, W).
        eosin: optical density (N, H, W).
    """
    rows = -(-len(patches) // 2)
    figure, cells = _page(rows, 6, [LINE] + [0] * (rows - 1), _side(patches[0]))
    limit = max(float(np.quantile(hematoxylin, 0.995)), float(np.quantile(eosin, 0.995)), 1e-6)
    for number, patch in enumerate(patches):
        left, middle, right = cells[number // 2, 3 * (number % 2) : 3 * (number % 2) + 3]
        first = number < 2
        _show(left, patch, "patch" if first else "")
        _show(middle, hematoxylin[number], "hematoxylin" if first else "", cmap=HAEMATOXYLIN, vmin=0, vmax=limit)
        _show(right, eosin[number], "eosin" if first else "", cmap=EOSIN, vmin=0, vmax=limit)
    return figure


@styled
def mistakes_page(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str] = ("no_tumor", "tumor"),
    box: bool = True,
) -> Figure:
    """Misjudged patches, each with its true class and the probability of tumor that it got.

    Args:
        images: uint8 (N, H, W, 3), in the order of `binary.worst_mistakes`.
        labels: true class of each, (N,).
        probabilities: in [0, 1], (N,).
        class_names: name of each class.
        box: whether to frame the center 32×32.
    """
    titles = [f"{class_names[label]}\np {p:.2f}" for label, p in zip(labels, probabilities, strict=True)]
    return patch_grid(images, titles, 6, box)


@styled
def batch_page(
    images: np.ndarray, truths: Sequence[str], predictions: Sequence[str], probabilities: np.ndarray, columns: int = 4
) -> Figure:
    """A batch with what was predicted and what is true above each picture; mistakes have another color and a wider frame.

    Args:
        images: uint8 (N, H, W, 3).
        truths: name of the true class of each, (N,).
        predictions: name of the predicted class of each, (N,).
        probabilities: of the predicted class, in [0, 1], (N,).
        columns: pictures in a row, fewer where names are long.
    """
    lines = [(f"{said} {p:.2f}", f"truth: {true}") for said, true, p in zip(predictions, truths, probabilities, strict=True)]
    text = 0.1 + max(max(0.088 * len(above), 0.076 * len(below)) for above, below in lines)  # inches
    columns, fitting = min(columns, len(images)), max(1, int((WIDTH - 0.1) / (0.85 * text)))
    if columns > fitting:
        columns = -(-len(images) // -(-len(images) // fitting))
    rows = -(-len(images) // columns)
    pitch = min((WIDTH - 0.1) / columns, max(min(_side(images[0]), BATCH) + GAP, text))
    side = min(_side(images[0]), BATCH, pitch - GAP)
    figure, cells = _page(rows, columns, [2 * LINE + 0.06] * rows, side, gap=pitch - side)
    right = [said == true for said, true in zip(predictions, truths, strict=True)]
    for cell, image, said, correct in zip(cells.flat, images, lines, right, strict=False):
        _show(cell, image)
        _verdict(cell, said, correct, min(10, 10 * pitch / text))
    return figure


def _verdict(axes: Axes, lines: tuple[str, str], correct: bool, size: float) -> None:
    """Write two lines above a picture and frame it, in the color of right or wrong; a mistake has the wider frame."""
    color = RIGHT if correct else WRONG
    axes.spines[:].set(color=color, linewidth=1.2 if correct else 3)
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "bottom", "size": size}
    axes.annotate(lines[0], (0.5, 1), (0, 18), color=color, weight="bold", **place)
    axes.annotate(lines[1], (0.5, 1), (0, 4), **place)


@styled
def gradcam_page(images: np.ndarray, heatmaps: np.ndarray, box: bool = True) -> Figure:
    """Patches above, and below each the same patch under its heatmap.

    Args:
        images: uint8 (N, H, W, 3).
        heatmaps: (N, H, W) in [0, 1], 1 where the network looked most.
        box: whether to frame the center 32×32.
    """
    columns = min(6, len(images))
    blocks = -(-len(images) // columns)
    figure, cells = _page(2 * blocks, columns, [0, 0] * blocks, _side(images[0]))
    heat = matplotlib.colormaps["inferno"]
    for number, (image, heatmap) in enumerate(zip(images, heatmaps, strict=True)):
        row, column = 2 * (number // columns), number % columns
        _show(cells[row, column], image, box=box)
        weight = (0.25 + 0.45 * np.clip(heatmap, 0, 1))[..., None]
        mixed = (1 - weight) * image / 255 + weight * heat(np.clip(heatmap, 0, 1))[..., :3]
        _show(cells[row + 1, column], mixed, box=box)
    return figure
