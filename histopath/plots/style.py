"""One palette and one style for every figure, and the export that puts a figure in a file and in a notebook.

No function touches pyplot or any other global state of matplotlib.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path

import matplotlib
import numpy as np
from IPython.display import Image as DisplayImage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from histopath.files import InputError, make_folder, replacing

WIDTH = 7.0  # inches
DPI = 100
LEGEND_ROW = 0.22  # inches
INK, GRAY, FAINT = "#22262e", "#8a8f98", "#d9dce1"
COLORS = (  # class 0, class 1, and further classes or series
    *("#23799c", "#c2317d", "#d3922a", "#6a4c93", "#4d8b57", "#8f5a3c"),
    *("#52aacf", "#97992f", "#3b414c"),
)
SPLIT_COLORS = {"train": "#6a4c93", "val": "#d3922a", "holdout": "#4d8b57", "test": "#8a8f98"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Picture(DisplayImage):
    """A PNG that a notebook shows; as text it is its file name, which is the same on every machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(data=path.read_bytes(), format="png")
        self.name = path.name

    def __repr__(self) -> str:
        return self.name


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under STYLE without changing matplotlib's settings for anyone else."""

    @wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def _own_colors(rgb: np.ndarray, candidates: Sequence[str]) -> np.ndarray:
    """Colors that keep their own places in a palette, uint8 (n, 3): paper, ink, and those candidates that are drawn with.

    A mean of white and pale tissue would tint the whole page, and one of a thin colored letter and tissue would lose it.
    """
    drawn = [np.array(list(bytes.fromhex(color[1:])), dtype=np.uint8) for color in candidates]
    used = [color for color in drawn if np.count_nonzero((rgb == color).all(axis=2)) >= 200]
    return np.array([[255, 255, 255], list(bytes.fromhex(INK[1:])), *used], dtype=np.uint8)


def _reduced(pixels: Image.Image, colors: int) -> bytes:
    """The picture as a PNG with a palette; below 256 colors the palette is fitted to a sample of its pixels."""
    rgb = np.asarray(pixels)
    own = _own_colors(rgb, COLORS if colors < 256 else ())
    if colors == 256:
        fitted = pixels.quantize(254, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    else:
        sample = rgb.reshape(-1, 3)[np.random.default_rng(0).integers(pixels.width * pixels.height, size=30_000)]
        # kmeans counts the pixels that may still change their color when the fit stops.
        palette = Image.fromarray(sample[None]).quantize(colors - len(own), method=Image.Quantize.MEDIANCUT, kmeans=100)
        fitted = pixels.quantize(palette=palette, dither=Image.Dither.NONE)
    index, free = np.array(fitted), colors - len(own)
    for number, color in enumerate(own):
        index[(rgb == color).all(axis=2)] = free + number
    image = Image.fromarray(index)
    image.putpalette([*(fitted.getpalette() + [0] * 768)[: 3 * free], *own.ravel().tolist()])
    encoded = io.BytesIO()
    image.save(encoded, format="png", optimize=True)
    return encoded.getvalue()


def export(figure: Figure, path: Path | str, limit: int = 46_000) -> Picture:
    """Write a figure as PNG and return that PNG for a notebook to show.

    The file has a palette, and as many colors as keep it under the limit, so that notebooks stay small. A page costs
    about 3.5 kB a patch at the fewest colors: 12 patches fit the default limit.

    Args:
        figure: what the functions of `figures` and `pages` return.
        path: file to write, ending in `.png`; complete or absent.
        limit: size in bytes above which fewer colors are used, down to 40.

    Returns:
        The picture, for the last line of a cell.

    Raises:
        InputError: when the path does not end in `.png`.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise InputError(f"{path} does not end in .png: give the figure a name that does.")
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=DPI)
    pixels = Image.open(drawn).convert("RGB")
    for colors in (256, 128, 96, 64, 40):
        content = _reduced(pixels, colors)
        if len(content) <= limit:
            break
    make_folder(path.parent)
    with replacing(path) as part:
        part.write_bytes(content)
    return Picture(path)


def new_figure(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **options) -> tuple[Figure, np.ndarray]:
    """A figure of the given size in inches, and its axes as an array (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend_above(axes: Axes, columns: int = 4) -> None:
    """A legend above one panel, at its left, clear of the data."""
    place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0)}
    axes.legend(**place, ncols=columns, columnspacing=1.4, handlelength=1.4)


def legend_columns(names: Iterable[str]) -> int:
    """How many columns of a legend, from five down to one, fit above a figure."""
    widths = [0.55 + 0.085 * len(str(name)) for name in names]
    for columns in (5, 4, 3, 2):
        if sum(part.max(initial=0) for part in np.array_split(widths, columns)) <= WIDTH - 0.6:
            return columns
    return 1
