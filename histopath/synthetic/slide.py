"""The sample slide: a lymph node with a focus of tumor, as a pyramid that OpenSlide reads."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
from numpy.random import Generator, default_rng

from histopath.synthetic import drawing
from histopath.synthetic.drawing import PAD, Canvas, noise
from histopath.synthetic.files import Sample
from histopath.synthetic.patches import make_slide

SIZE = 1536  # pixels along the slide at PCam's resolution
LENGTH = SIZE + 2 * PAD
LOOK = 33  # a number that no slide of the sample of patches has
MICRONS_PER_PIXEL = 0.972  # of PCam's patches: level 2 of CAMELYON16's slides, four times 0.243
BASE = MICRONS_PER_PIXEL / 2  # of the finest level
MASK = 8  # pixels at PCam's resolution along one of the mask
CONTENTS = """slides/slide.tif       a pyramid of three levels that OpenSlide opens
tumor.csv              row,column: every 8x8 pixels of 0.972 µm that hold tumor"""


def lay_out(rng: Generator) -> dict[str, np.ndarray]:
    """Returns where each tissue and the tumor lie, bool (LENGTH, LENGTH)."""
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    wavy = (noise(rng, 300, LENGTH) - 128) + (noise(rng, 60, LENGTH) - 128) // 4
    piece, node, tumor = (
        (rows - row) ** 2 + (columns - column) ** 2 < (radius + wavy * 4 // 5) ** 2
        for row, column, radius in ((784, 784, 640), (814, 744, 500), (664, 594, 215))
    )
    fatty = noise(rng, 160, LENGTH) > 128
    regions = {"node": node & ~tumor, "tumor": tumor, "glass": ~piece}
    return regions | {"fat": piece & ~node & fatty, "stroma": piece & ~node & ~fatty}


def render_slide(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the slide uint8 (SIZE, SIZE, 3) RGB, and where the tumor is, bool (SIZE, SIZE)."""
    rng = default_rng([seed, 30])
    where, turn = lay_out(rng), int(rng.integers(0, 16))
    ground = drawing.lymph(rng, LENGTH)
    ground = np.where(where["fat"], drawing.fat(rng, LENGTH), ground)
    ground = np.where(where["stroma"], drawing.stroma(rng, LENGTH, turn), ground)
    ground = np.where(where["glass"], drawing.glass(rng, LENGTH), ground)
    canvas = Canvas(rng, drawing.draw_cells(seed), ground)
    canvas.scatter(where["stroma"], 9, {"spindle": 14, "lymphocyte": 4}, turn)
    canvas.scatter(where["node"], 8, {"lymphocyte": 88, "histiocyte": 4})
    canvas.scatter(where["tumor"], 15, {"tumor": 96}, under="cytoplasm")
    return canvas.expose(make_slide(seed, LOOK).exposure), where["tumor"][PAD:-PAD, PAD:-PAD]


def write_pyramid(path: Path, image: np.ndarray) -> None:
    """Writes a tiled TIFF of three levels: the image twice as large, as it is, and a quarter."""
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
    options |= {"resolutionunit": "CENTIMETER", "metadata": None, "software": False}
    with tifffile.TiffWriter(path) as file:
        for factor, level in (1, image.repeat(2, 0).repeat(2, 1)), (2, image), (8, small):
            dots = 1e4 / (BASE * factor)
            file.write(level, subfiletype=int(factor > 1), resolution=(dots, dots), **options)


def draw_slide(folder: Path, seed: int) -> None:
    """Writes the slide and the places of its tumor into an empty folder."""
    image, tumor = render_slide(seed)
    slide_file(folder).parent.mkdir()
    write_pyramid(slide_file(folder), image)
    squares = tumor.reshape(SIZE // MASK, MASK, SIZE // MASK, MASK).mean(axis=(1, 3)) >= 0.5
    places = pd.DataFrame(np.argwhere(squares), columns=["row", "column"])
    places.to_csv(folder / "tumor.csv", index=False)


def slide_file(folder: Path) -> Path:
    """Returns the slide itself in a folder written by `SLIDE`."""
    return folder / "slides" / "slide.tif"


def read_tumor(folder: Path) -> np.ndarray:
    """Returns where the tumor of a slide written by `SLIDE` is: bool (192, 192)."""
    tumor, places = np.zeros((SIZE // MASK, SIZE // MASK), bool), pd.read_csv(folder / "tumor.csv")
    tumor[places["row"], places["column"]] = True
    return tumor


def label_tiles(folder: Path, scores: pd.DataFrame) -> np.ndarray:
    """Labels tiles of the slide as PCam does: 1 where the center 32×32 pixels hold tumor.

    Args:
        folder: Written by `SLIDE`.
        scores: `x`, `y`: upper left corner of each tile in pixels of the finest level.

    Returns:
        0 or 1, (N,).
    """
    tumor, side = read_tumor(folder), 32 // MASK
    corners = scores[["y", "x"]].to_numpy() * BASE / MICRONS_PER_PIXEL + 32
    squares = np.rint(corners).astype(int) // MASK
    return np.array([tumor[y : y + side, x : x + side].any() for y, x in squares], int)


SLIDE = Sample("sample-slide", CONTENTS, draw_slide)
