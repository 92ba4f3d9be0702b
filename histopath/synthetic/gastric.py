"""The sample of gastric biopsies: slices in two class folders, four with cancer to one without."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng

from histopath.synthetic import drawing
from histopath.synthetic.drawing import PAD, Canvas, CellKind, GlandKind, noise
from histopath.synthetic.files import Sample, write_tiff

SIZE = 512  # pixels along a slice
LENGTH = SIZE + 2 * PAD
CANCER, NON_CANCER = 48, 12
COLUMNAR = CellKind((26, 36), (46, 66), 8, (110, 210), (44, 70), 90, 30)
KINDS = drawing.CELLS | {"columnar": COLUMNAR}
NORMAL = GlandKind((22, 31), (76, 100), 5, (26, 40), (18, 34), "columnar", 6)
BROKEN = GlandKind((20, 42), (40, 90), 16, (20, 70), (30, 74), "tumor", 8, 400)
CONTENTS = """cancer/, non_cancer/   slices, 512x512 RGB, TIFF: with cancer, crowded cells and
                       broken glands have taken part of the slice
slides.csv             id,slide: every image is a slice of its own"""


def lay_out(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns where there is mucosa and where glass, bool (LENGTH, LENGTH); the rest is muscle."""
    cosine, sine = np.array(drawing.direction(int(rng.integers(0, 32))))
    rows, columns = (line - LENGTH // 2 for line in np.ogrid[:LENGTH, :LENGTH])
    depth = (cosine * columns + sine * rows >> 8) + (noise(rng, 120, LENGTH) - 128) // 2
    depth += (noise(rng, 24, LENGTH) - 128) // 10
    return depth > -rng.integers(90, 240), depth > rng.integers(170, 300)


def cancer_region(rng: Generator) -> np.ndarray:
    """Returns where a cancer has grown, bool (LENGTH, LENGTH): a wavy blob over about half."""
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    middle, radius = LENGTH // 2 + rng.integers(-110, 111, 2), rng.integers(190, 300)
    border = radius + (noise(rng, 90, LENGTH) - 128) // 2 + (noise(rng, 20, LENGTH) - 128) // 5
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < border**2


def paint_cancer(canvas: Canvas, inside: np.ndarray) -> None:
    """Paints nests of crowded cells and broken glands where `inside` is true."""
    rng = canvas.rng
    nests = inside & (noise(rng, int(rng.integers(26, 44)), LENGTH) > rng.integers(90, 132))
    canvas.scatter(inside & ~nests, 9, {"spindle": 14, "lymphocyte": 10})
    canvas.scatter(nests, int(rng.integers(14, 19)), {"tumor": 92}, under="cytoplasm")
    canvas.paint_glands(BROKEN, inside, int(rng.integers(90, 130)))


def render_slice(rng: Generator, cells: drawing.Cells, is_cancer: bool) -> np.ndarray:
    """Draws one slice, uint8 (SIZE, SIZE, 3) RGB: ordered glands in loose tissue above muscle."""
    purple, turn = int(rng.integers(0, 2)), int(rng.integers(0, 16))
    colors = drawing.stain_colors(rng, purple)
    mucosa, empty = lay_out(rng)
    cancer = cancer_region(rng) & ~empty & is_cancer
    mucosa, muscle = mucosa & ~empty & ~cancer, ~mucosa & ~empty & ~cancer
    ground = drawing.stroma(rng, LENGTH, turn) * np.where(muscle, 8, np.where(cancer, 3, 5)) >> 3
    canvas = Canvas(rng, cells, np.where(empty, drawing.glass(rng, LENGTH), ground))
    canvas.scatter(muscle, 9, {"spindle": 32}, turn)
    inflamed = int(rng.integers(2, 34))
    canvas.scatter(mucosa, 8, {"lymphocyte": inflamed, "histiocyte": 6, "spindle": 8})
    canvas.paint_glands(NORMAL, mucosa, int(rng.integers(56, 70)))
    if is_cancer:
        paint_cancer(canvas, cancer)
    return canvas.expose(drawing.Exposure(*colors, *drawing.scanner(rng, purple)))


def render_slices(seed: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Draws every slice of the sample: its name, its class and its image."""
    cells = drawing.draw_cells(seed, KINDS)
    keys = default_rng([seed, 10]).integers(0, 1 << 40, CANCER + NON_CANCER)
    for number, is_cancer in enumerate(np.argsort(keys) < CANCER):
        image = render_slice(default_rng([seed, 11, number]), cells, bool(is_cancer))
        yield f"slice_{number + 1:03d}", "cancer" if is_cancer else "non_cancer", image


def draw_gastric(folder: Path, seed: int) -> None:
    """Writes images and their table into an empty folder."""
    names = []
    for name, label, image in render_slices(seed):
        names.append(name)
        write_tiff(folder / label / f"{name}.tif", image)
    pd.DataFrame({"id": names, "slide": names}).to_csv(folder / "slides.csv", index=False)


GASTRIC = Sample("sample-gastric", CONTENTS, draw_gastric)
