"""The embedded gastric sample: a seed comes in, two class folders of large biopsy slices go out, four to one cancer.

The layout is that of the second published system. Every slice is drawn, none is real: see `tissue` and `glands`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histopath.glands import GlandKind, paint_gland, paint_glands
from histopath.sample import Layout, table_bytes, tiff_bytes, write_whole
from histopath.tissue import (
    CELLS,
    PAD,
    CellKind,
    direction,
    draw_cells,
    expose,
    generator,
    glass,
    grain,
    make_look,
    scatter,
    spots,
    stroma,
)  # fmt: skip

VERSION = 1
SIZE = 512  # pixels along a slice
LENGTH = SIZE + 2 * PAD
CANCER, NON_CANCER = 48, 12
KINDS = CELLS | {"columnar": CellKind((26, 36), (46, 66), 8, (110, 210), (44, 70), 90, 30)}
NORMAL = GlandKind((22, 31), (76, 100), 5, 26, (34, 62), 84, "columnar", 6)
BROKEN = GlandKind((20, 42), (40, 90), 16, 40, (30, 74), 20, "tumour", 9, 2, 30)


@dataclass(frozen=True)
class Slice:
    """One slice: its name, its class, and its image (512, 512, 3) uint8 RGB."""

    id: str
    label: str
    image: np.ndarray


def lay_out(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns where (LENGTH, LENGTH) bool there is mucosa, and where glass; the rest is muscle."""
    cosine, sine = direction(int(rng.integers(0, 16)))
    cosine, sine = (cosine, sine) if rng.integers(0, 2) else (-cosine, -sine)
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    depth = (cosine * (columns - LENGTH // 2) + sine * (rows - LENGTH // 2)) >> 8
    depth = depth + (grain(rng, 120, LENGTH) - 128) // 2 + (grain(rng, 24, LENGTH) - 128) // 10
    return depth > -int(rng.integers(90, 240)), depth > int(rng.integers(170, 300))


def grow(rng: np.random.Generator) -> np.ndarray:
    """Returns where (LENGTH, LENGTH) bool a cancer has grown: a wavy blob over about half of the slice."""
    rows, columns = np.ogrid[:LENGTH, :LENGTH]
    middle, radius = LENGTH // 2 + rng.integers(-110, 111, 2), int(rng.integers(190, 300))
    edge = radius + (grain(rng, 90, LENGTH) - 128) // 2 + (grain(rng, 20, LENGTH) - 128) // 5
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < edge**2


def render_slice(rng: np.random.Generator, cells: dict, is_cancer: bool) -> np.ndarray:
    """Draws one slice: ordered glands in loose tissue above muscle, and for a cancer disorder in part of it.

    Args:
        rng: Where all chance comes from.
        cells: What `draw_cells` returned for KINDS.
        is_cancer: Whether there is cancer.

    Returns:
        The image (512, 512, 3) uint8 RGB.
    """
    look, turn, inflamed = make_look(rng), int(rng.integers(0, 16)), int(rng.integers(2, 34))
    mucosa, empty = lay_out(rng)
    cancer = grow(rng) & ~empty if is_cancer else np.zeros_like(mucosa)
    canvas = stroma(rng, turn, LENGTH).astype(np.int32)
    loose = np.where(cancer, int(rng.integers(4, 9)), np.where(mucosa, 5, 8))
    canvas = canvas * loose >> 3
    canvas[:, empty] = glass(rng, 0, LENGTH)[:, empty]
    scatter(rng, canvas, cells, ~mucosa & ~cancer & ~empty, 9, {"spindle": 32}, turn)
    scatter(rng, canvas, cells, mucosa & ~empty & ~cancer, 8, {"lymphocyte": inflamed, "histiocyte": 6, "spindle": 8})
    paint_glands(rng, canvas, cells, NORMAL, mucosa & ~empty & ~cancer, int(rng.integers(56, 70)), 4)
    if is_cancer:
        paint_cancer(rng, canvas, cells, cancer)
    return expose(rng, canvas, look)


def paint_cancer(rng: np.random.Generator, canvas: np.ndarray, cells: dict, inside: np.ndarray) -> None:
    """Paints nests of crowded cells and broken glands where `inside` is true."""
    nests = inside & (grain(rng, int(rng.integers(26, 44)), LENGTH) > int(rng.integers(76, 132)))
    scatter(rng, canvas, cells, inside & ~nests, 9, {"spindle": 14, "lymphocyte": 10})
    scatter(rng, canvas, cells, nests, int(rng.integers(14, 19)), {"tumour": 92}, under="cytoplasm")
    places = spots(rng, int(rng.integers(90, 130)), 30, LENGTH)
    for place in places[inside[places[:, 0], places[:, 1]]]:
        paint_gland(rng, canvas, cells, replace(BROKEN, lumen=int(rng.integers(20, 70))), place)


def render_slices(seed: int) -> Iterator[Slice]:
    """Draws every slice of the sample, in the order of its name."""
    cells, count = draw_cells(seed, KINDS), CANCER + NON_CANCER
    order = np.argsort(generator(seed, 10).integers(0, 1 << 40, count), kind="stable")
    for number in range(count):
        is_cancer = bool(order[number] < CANCER)
        image = render_slice(generator(seed, 11, number), cells, is_cancer)
        yield Slice(f"slice_{number + 1:03d}", "cancer" if is_cancer else "non_cancer", image)


README = """A synthetic sample in the layout of a set of gastric biopsies.

Every image was drawn by a program (histopath/sample_gastric.py, version {version}, seed {seed}). None shows real
tissue: nothing found here says anything about medicine, and a score on it says nothing about real biopsies.

cancer/, non_cancer/   {cancer} and {non_cancer} slices, {size}x{size} RGB, uncompressed TIFF
slides.csv             id,slide: every image is a slice of its own
sample.json            what wrote this folder

Non-cancer slices show glands in order; in the others crowded cells and broken glands have taken part of the slice.
"""


def draw_files(seed: int) -> Iterable[tuple[str, bytes]]:
    """Gives path and bytes of every file of the sample but sample.json."""
    names = []
    for drawn in render_slices(seed):
        names.append(drawn.id)
        yield f"{drawn.label}/{drawn.id}.tif", tiff_bytes(drawn.image)
    yield "slides.csv", table_bytes(["id,slide", *(f"{name},{name}" for name in names)])
    text = README.format(version=VERSION, seed=seed, cancer=CANCER, non_cancer=NON_CANCER, size=SIZE)
    yield "README.txt", text.encode()


LAYOUT = Layout("gastric sample", VERSION, ("cancer", "non_cancer"), ".tif", ("slides.csv",), draw_files)


def gastric_folder(home: Path) -> Path:
    """Returns where the gastric sample stands under the project root `home`."""
    return home / "data" / "sample-gastric"


def write_gastric(folder: Path, seed: int = 0) -> Path:
    """Writes the gastric sample as `folder`, whole or not at all; see `write_whole`. The same seed gives the same bytes."""
    return write_whole(folder, seed, LAYOUT)
