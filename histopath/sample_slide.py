"""The embedded synthetic slide: a seed comes in, a folder with a pyramid that OpenSlide reads goes out, its tumour known.

A piece of lymph node on glass with a focus of tumour, in the look of the sample of patches; drawn, not real: see `tissue`.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile

from histopath.config import MICRONS_PER_PIXEL
from histopath.sample import Layout, make_slide, table_bytes, write_whole
from histopath.tissue import CELLS, PAD, draw_cells, expose, fat, generator, glass, grain, lymph, scatter, stroma

VERSION = 1
SIZE = 1536  # pixels along the slide at PCam's resolution
LENGTH = SIZE + 2 * PAD
LOOK = 33  # number of a slide that the sample of patches does not have
BASE = 0.486  # micrometres a pixel of the finest level: twice as fine as PCam
MASK = 8  # patch pixels along one of the mask


def lay_out(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns where (LENGTH, LENGTH) bool each tissue is: `node`, `fat`, `stroma`, `glass` and, within the node, `tumour`."""
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    wavy = (grain(rng, 300, LENGTH) - 128) + (grain(rng, 60, LENGTH) - 128) // 4

    def blob(row: int, column: int, radius: int, bend: int) -> np.ndarray:
        return (rows - row) ** 2 + (columns - column) ** 2 < (radius + wavy * bend // 100) ** 2

    middle = LENGTH // 2
    piece, node = blob(middle, middle, 640, 90), blob(middle + 30, middle - 40, 500, 90)
    tumour = node & blob(middle - 120, middle - 190, 215, 70)
    capsule = piece & ~node
    fatty = capsule & (grain(rng, 160, LENGTH) > 128)
    return {"node": node & ~tumour, "fat": fatty, "stroma": capsule & ~fatty, "glass": ~piece, "tumour": tumour}


def render_slide(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the slide at PCam's resolution: uint8 (SIZE, SIZE, 3) RGB, and where the tumour is, bool (SIZE, SIZE)."""
    rng, cells = generator(seed, 30), draw_cells(seed, CELLS)
    where, turn = lay_out(rng), int(rng.integers(0, 16))
    canvas = lymph(rng, turn, LENGTH).astype(np.int32)
    for name, draw in (("fat", fat), ("stroma", stroma), ("glass", glass)):
        canvas[:, where[name]] = _draw_wide(rng, draw, turn)[:, where[name]]
    scatter(rng, canvas, cells, where["stroma"], 9, {"spindle": 14, "lymphocyte": 4}, turn)
    scatter(rng, canvas, cells, where["node"], 8, {"lymphocyte": 88, "histiocyte": 4})
    scatter(rng, canvas, cells, where["tumour"], 15, {"tumour": 96}, under="cytoplasm")
    inner = slice(PAD, PAD + SIZE)
    return expose(rng, canvas, make_slide(seed, LOOK)), where["tumour"][inner, inner]


def _draw_wide(rng: np.random.Generator, draw, turn: int) -> np.ndarray:
    """A tissue over the whole canvas, in squares of 256 where one drawing of all would need too much memory."""
    if draw is not fat:
        return draw(rng, turn, LENGTH)
    count = -(-LENGTH // 256)
    lines = [np.concatenate([draw(rng, turn, 256) for _ in range(count)], axis=2) for _ in range(count)]
    return np.concatenate(lines, axis=1)[:, :LENGTH, :LENGTH]


def pyramid_bytes(image: np.ndarray, microns_per_pixel: float) -> bytes:
    """A tiled TIFF with the image twice as large, as it is, and a quarter: three levels, with micrometres a pixel."""
    stream = io.BytesIO()
    how = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER", "metadata": None}
    levels = (image.repeat(2, 0).repeat(2, 1), image, cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    with tifffile.TiffWriter(stream) as file:
        for level, factor in zip(levels, (1, 2, 8), strict=True):
            dots = 1e4 / (microns_per_pixel * factor)
            file.write(level, subfiletype=int(factor > 1), resolution=(dots, dots), software=False, **how)
    return stream.getvalue()


README = """A synthetic slide, drawn by a program (histopath/sample_slide.py, version {version}, seed {seed}).

It shows no real tissue: nothing found here says anything about medicine.

slides/slide.tif   a pyramid of three levels, {base} micrometres a pixel at the finest, that OpenSlide opens
tumour.csv         where the tumour is: row and column of every {mask}×{mask} pixels (at 0.972 micrometres) that hold some
sample.json        what wrote this folder
"""


def draw_files(seed: int) -> Iterable[tuple[str, bytes]]:
    """Gives path and bytes of every file of the sample but sample.json."""
    image, tumour = render_slide(seed)
    yield "slides/slide.tif", pyramid_bytes(image, BASE)
    cells = tumour.reshape(SIZE // MASK, MASK, SIZE // MASK, MASK).mean(axis=(1, 3)) >= 0.5
    yield "tumour.csv", table_bytes(["row,column", *(f"{row},{column}" for row, column in np.argwhere(cells))])
    yield "README.txt", README.format(version=VERSION, seed=seed, base=BASE, mask=MASK).encode()


LAYOUT = Layout("slide", VERSION, ("slides",), ".tif", ("tumour.csv",), draw_files)


def slide_folder(home: Path) -> Path:
    """Returns where the synthetic slide stands under the project root `home`."""
    return home / "data" / "sample-slide"


def write_slide(folder: Path, seed: int = 0) -> Path:
    """Writes the slide as `folder`, whole or not at all; see `sample.write_whole`."""
    return write_whole(folder, seed, LAYOUT)


def slide_file(folder: Path) -> Path:
    """Returns the slide itself in a folder written by `write_slide`."""
    return folder / "slides" / "slide.tif"


def read_tumour(folder: Path) -> np.ndarray:
    """Where the tumour of a slide written by `write_slide` is: bool (192, 192) over the whole slide."""
    tumour = np.zeros((SIZE // MASK, SIZE // MASK), bool)
    places = pd.read_csv(folder / "tumour.csv")
    tumour[places["row"], places["column"]] = True
    return tumour


def label_tiles(folder: Path, scores: pd.DataFrame) -> np.ndarray:
    """Labels tiles of the slide as PCam does: 1 where the middle 32×32 pixels hold tumour.

    Args:
        folder: as written by `write_slide`.
        scores: `x`, `y`: upper left corner of each tile in pixels of the finest level, as in a slide's `scores.csv`.

    Returns:
        0 or 1, (N,).
    """
    sums = cv2.integral(read_tumour(folder).astype("uint8"))
    top, left = (np.rint(scores[axis].to_numpy() * BASE / MICRONS_PER_PIXEL + 32).astype(int) // MASK for axis in "yx")
    bottom, right = top + 32 // MASK, left + 32 // MASK
    return (sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] > 0).astype(int)
