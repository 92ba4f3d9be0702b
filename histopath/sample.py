"""The embedded synthetic sample: a seed comes in, a folder in the layout of the Kaggle competition goes out.

Every patch is drawn, none is real. Amounts of haematoxylin and eosin are painted as integers, become colour by the
stain of the slide, and are written as TIFF by hand: no float is computed, so the files are the same on every machine.
Lengths are in pixels of about 0.97 micrometres; amounts of stain, optical densities and sines are in 1/256.
"""

import functools
import hashlib
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VERSION = 1
SIZE, PAD = 96, 16  # pixels along a patch, and pixels painted around it so that its edge may cut cells
CANVAS = SIZE + 2 * PAD
INNER = slice(PAD, PAD + SIZE)
CENTRE = slice(32, 64)  # rows and columns that decide the label, as in PCam
TRAIN_SLIDES, TEST_SLIDES, TEST_PATCHES, DRAWINGS = 24, 8, 12, 96
HEALTHY_SLIDES = (3, 10, 17, 26)
DUPLICATE_SUFFIX = b"duplicate"  # an exact duplicate is named by the SHA-1 of its pixels followed by this
QUARTER = (0, 50, 98, 142, 181, 213, 237, 251, 256)  # sines of multiples of 11.25 degrees


@dataclass(frozen=True)
class CellKind:
    """How one kind of cell looks: lengths in 1/8 pixel, amounts of stain in 1/256, ranges without their end."""

    half_length: tuple[int, int]
    width_percent: tuple[int, int]
    wobble: int
    haematoxylin: tuple[int, int]
    eosin: tuple[int, int]
    chromatin: int
    rim: int = 0
    nucleoli: int = 0


CELLS = {
    "lymphocyte": CellKind((24, 31), (76, 101), 7, (190, 300), (50, 80), 150, 40),
    "histiocyte": CellKind((34, 41), (55, 80), 12, (90, 150), (50, 70), 90, 50),
    "spindle": CellKind((36, 58), (22, 38), 12, (130, 220), (50, 90), 80),
    "tumour": CellKind((47, 66), (68, 96), 16, (52, 128), (36, 80), 78, 50, 2),
    "cytoplasm": CellKind((76, 98), (80, 100), 30, (8, 42), (34, 100), 36),
    "red cell": CellKind((22, 29), (80, 100), 6, (0, 6), (130, 200), 0),
}
SCENES = (  # first tissue, second tissue, weight where there is no tumour, weight around tumour
    ("lymph", "lymph", 46, 26), ("lymph", "stroma", 18, 26), ("lymph", "fat", 9, 10), ("stroma", "stroma", 9, 20),
    ("fat", "fat", 6, 4), ("stroma", "fat", 6, 8), ("stroma", "glass", 3, 6), ("stroma", "blood", 3, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Slide:
    """Habits of one slide; `stains` (2, 3): density of haematoxylin and eosin in red, green and blue light."""

    name: str
    stains: np.ndarray
    glass: np.ndarray
    blur: int
    sharpness: int
    density: int
    tumour_percent: int


@dataclass(frozen=True)
class Patch:
    """One patch: image (96, 96, 3) uint8 RGB, mask (96, 96) bool of tumour, and why it was drawn."""

    part: str
    id: str
    slide: str
    label: int
    image: np.ndarray
    mask: np.ndarray
    kind: str


def generator(*key: int) -> np.random.Generator:
    """Returns a generator that depends on the whole key and on nothing else."""
    return np.random.Generator(np.random.PCG64(list(key)))


def direction(turn: int) -> tuple[int, int]:
    """Returns cosine and sine, in 1/256, of `turn` (0..15) times 11.25 degrees."""
    return (QUARTER[8 - turn], QUARTER[turn]) if turn <= 8 else (-QUARTER[turn - 8], QUARTER[16 - turn])


def lattice_place(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the lattice points beside coordinates in 1/256 of a cell, and the smooth weight of the second."""
    part = axis & 255
    return (axis >> 8) & 31, ((axis >> 8) + 1) & 31, part * part * (768 - 2 * part) >> 16


def noise(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns smooth value noise in 0..255 at coordinates in 1/256 of a lattice cell that broadcast to any shape."""
    lattice = rng.integers(0, 256, (32, 32)).astype(np.int32)
    (top, bottom, down), (left, right, across) = lattice_place(rows), lattice_place(columns)
    upper = lattice[top, left] * (256 - across) + lattice[top, right] * across
    lower = lattice[bottom, left] * (256 - across) + lattice[bottom, right] * across
    return (upper * (256 - down) + lower * down) >> 16


def grain(rng: np.random.Generator, cell: int, length: int = CANVAS) -> np.ndarray:
    """Returns the same noise on a square of `length` pixels, its lattice cells `cell` pixels wide."""
    first, second, weight = lattice_place(np.arange(length, dtype=np.int32) * 256 // cell)
    lattice = rng.integers(0, 256, (32, 32)).astype(np.int32)
    bands = lattice[first] * (256 - weight[:, None]) + lattice[second] * weight[:, None]
    return (bands[:, first] * (256 - weight) + bands[:, second] * weight) >> 16


def draw_cell(rng: np.random.Generator, kind: CellKind, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns coverage (n, n) in 0..256 and stain times coverage (2, n, n) of a cell, drawn at 4x and averaged."""
    length, percent = int(rng.integers(*kind.half_length)), int(rng.integers(*kind.width_percent))
    blue, red = (low + (high - low) * index // DRAWINGS for low, high in (kind.haematoxylin, kind.eosin))
    width, pixels = length * percent // 100, 2 * ((length + kind.wobble) // 8 + 2)
    axis = 2 * np.arange(4 * pixels) + 1 - 4 * pixels
    rows, columns = axis[:, None], axis[None]
    bends = ((grain(rng, 36, 4 * pixels) - 128) * kind.wobble // 96 for _ in range(2))
    bent_rows, bent_columns = rows + next(bends), columns + next(bends)
    cosine, sine = direction(index % 16)
    along, across = (cosine * bent_columns + sine * bent_rows) >> 8, (cosine * bent_rows - sine * bent_columns) >> 8
    reach = along * along * 1024 // length**2 + across * across * 1024 // width**2
    amount = blue + kind.rim * (reach > 640) + (grain(rng, 7, 4 * pixels) - 128) * kind.chromatin // 128
    for _ in range(int(rng.integers(0, kind.nucleoli + 1))):
        row, column = rng.integers(-width // 2, width // 2 + 1, 2)
        amount = amount + 120 * ((rows - row) ** 2 + (columns - column) ** 2 < int(rng.integers(60, 160)))
    inside = (reach < 1024).astype(np.int64)
    painted = np.stack([inside * 256, np.maximum(amount, 0) * inside, red * inside])
    small = (painted.reshape(3, pixels, 4, pixels, 4).sum((2, 4)) >> 4).astype(np.int32)
    return small[0], small[1:]


def draw_cells(seed: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns DRAWINGS drawings of each kind of cell, from pale to dark, drawing i turned by i times 11.25 degrees."""
    rng = generator(seed, 1)
    return {name: [draw_cell(rng, kind, index) for index in range(DRAWINGS)] for name, kind in CELLS.items()}


def drawings(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns the numbers of `count` drawings that are about equally dark, as the cells of one place are."""
    return int(rng.integers(0, DRAWINGS - 31)) + rng.integers(0, 32, count)


def paste(canvas: np.ndarray, cell: tuple[np.ndarray, np.ndarray], place: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Paints a cell over the stain canvas (2, CANVAS, CANVAS), centred at `place`, and marks it in `mask`."""
    coverage, stain = cell
    size = len(coverage)
    row, column = int(place[0]) - size // 2, int(place[1]) - size // 2
    if min(row, column) >= 0 and max(row, column) + size <= CANVAS:
        window = canvas[:, row : row + size, column : column + size]
        window += stain - (window * coverage >> 8)
        if mask is not None:
            mask[row : row + size, column : column + size] |= coverage >= 128


def spots(rng: np.random.Generator, spacing: int, jitter: int) -> np.ndarray:
    """Returns places (n, 2) on a hexagonal grid of the canvas, each moved by at most `jitter` pixels, shuffled."""
    start, step = int(rng.integers(0, spacing)), spacing * 7 // 8
    grid = [(row, column + row // step % 2 * spacing // 2) for row in range(start, CANVAS, step)
            for column in range(start % step, CANVAS, spacing)]  # fmt: skip
    places = np.clip(np.array(grid) + rng.integers(-jitter, jitter + 1, (len(grid), 2)), 0, CANVAS - 1)
    return places[np.argsort(rng.integers(0, 1 << 40, len(grid)), kind="stable")]


def lymph(rng: np.random.Generator, turn: int) -> np.ndarray:
    """Returns the ground between lymphocytes, (2, CANVAS, CANVAS): pink, granular, with pale gaps."""
    pale = np.clip((grain(rng, 7) - 30) * 3, 100, 256)
    return np.stack([14 + grain(rng, 3) // 7, 20 + grain(rng, 2) // 5 + grain(rng, 20) // 6]) * pale >> 8


def stroma(rng: np.random.Generator, turn: int) -> np.ndarray:
    """Returns wavy fibres of collagen along a direction, with pale cracks between them."""
    cosine, sine = direction(turn)
    rows, columns = np.ogrid[:CANVAS, :CANVAS]
    along, across = cosine * columns + sine * rows, cosine * rows - sine * columns + (grain(rng, 40) - 128) * 22
    fibres, fine = noise(rng, across // 4, along // 18), noise(rng, across * 2 // 3, along // 6)
    cracks = np.clip((noise(rng, across * 2 // 5, along // 20) - int(rng.integers(10, 90))) * 6, 50, 256)
    eosin = (10 + fibres // 5 + fine // 4 + grain(rng, 2) // 10) * cracks >> 8
    return np.stack([eosin // 7 + grain(rng, 6) // 24, eosin])


def fat(rng: np.random.Generator, turn: int) -> np.ndarray:
    """Returns empty vacuoles with thin pink walls: the borders of a Voronoi diagram, thicker where three meet."""
    seeds = spots(rng, int(rng.integers(36, 60)), 13)
    rows, columns = (8 * line + grain(rng, 20) // 2 + grain(rng, 6) // 14 for line in np.ogrid[:CANVAS, :CANVAS])
    squares = ((rows - 8 * seeds[:, 0, None, None]) ** 2 + (columns - 8 * seeds[:, 1, None, None]) ** 2) >> 6
    first, second, third = np.partition(squares, (0, 1, 2), axis=0)[:3]
    wall = 9000 // (second - first + 40) + 16000 // (third - first + 60)
    eosin = np.clip(wall - 66, 0, 105) * (70 + grain(rng, 4)) >> 8
    return np.stack([eosin // 3, eosin])


def glass(rng: np.random.Generator, turn: int) -> np.ndarray:
    """Returns next to nothing: light that passes only glass."""
    return np.stack([grain(rng, 30) // 80, grain(rng, 30) // 60])


TISSUES = {"lymph": lymph, "stroma": stroma, "fat": fat, "glass": glass, "blood": glass}
NAMES = np.array([*TISSUES, "nest", "other"])  # what the numbers in a region stand for


def paint_cells(rng: np.random.Generator, canvas: np.ndarray, region: np.ndarray, cells: dict, density: int, turn: int) -> None:
    """Scatters cells by tissue: `region` (CANVAS, CANVAS) points into NAMES, `density` is in percent of places."""
    places = spots(rng, int(rng.integers(7, 9)), 2)
    places = places[((places > PAD - 7) & (places < PAD + SIZE + 7)).all(1)]
    tissue, crowd = (field[places[:, 0], places[:, 1]] for field in (region, grain(rng, 22)))
    tissue = NAMES[tissue]
    chance, which = rng.integers(0, 100, len(places)), drawings(rng, len(places))
    node, fibrous, crowded = tissue == "lymph", tissue == "stroma", density - np.maximum(0, 80 - crowd) // 2
    found = {
        "histiocyte": node & (chance < 4),
        "lymphocyte": np.where(node, chance < crowded, (fibrous | (tissue == "nest")) & (chance < 3)),
        "spindle": fibrous & (chance < 13),
        "red cell": (tissue == "blood") & (chance < 75),
    }
    kinds = np.select(list(found.values()), list(found), "")
    which = np.where(kinds == "spindle", which // 16 * 16 + turn, which)
    for index in np.flatnonzero(kinds != ""):
        paste(canvas, cells[kinds[index]][which[index]], places[index])


def nest(rng: np.random.Generator, mode: str) -> np.ndarray:
    """Returns where (CANVAS, CANVAS) tumour may grow: a wavy blob over the centre, or one side of the patch."""
    rows, columns = np.ogrid[:CANVAS, :CANVAS]
    if mode == "outside":
        return ((rows + 0 * columns, columns + 0 * rows)[int(rng.integers(0, 2))] > 64) ^ bool(rng.integers(0, 2))
    middle, radius = CANVAS // 2 + rng.integers(-14, 15, 2), int(rng.integers(16, 100))
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (radius + (grain(rng, 20) - 128) // 6) ** 2


def paint_tumour(rng: np.random.Generator, canvas: np.ndarray, cells: dict, inside: np.ndarray, mode: str) -> np.ndarray:
    """Paints tumour cells where `inside` is true and returns their mask (CANVAS, CANVAS).

    In mode "centre" a cell surely covers the centre; in mode "outside" none comes within 8 pixels of its square.
    """
    mask, places = np.zeros((CANVAS, CANVAS), bool), spots(rng, int(rng.integers(13, 18)), 2)
    places = places[inside[places[:, 0], places[:, 1]]]
    if mode == "outside":  # cells reach at most 16 pixels
        places = places[~((places > PAD + 32 - 8 - 16) & (places < PAD + 64 + 8 + 16)).all(1)]
    else:
        places = np.concatenate([places, CANVAS // 2 + rng.integers(-8, 9, (1, 2))])
    which = drawings(rng, len(places))
    for kind in ("cytoplasm", "tumour"):
        for place, index in zip(places, which, strict=True):
            paste(canvas, cells[kind][index], place, mask)
    return mask


def render_patch(rng: np.random.Generator, slide: Slide, cells: dict, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws one patch.

    Args:
        rng: Where all chance comes from.
        slide: Whose stain and habits to use.
        cells: What `draw_cells` returned.
        mode: "none" for no tumour, "centre" for tumour in the centre, "outside" for tumour only outside it.

    Returns:
        The image (96, 96, 3) uint8 RGB, and the mask (96, 96) bool of tumour.
    """
    weights = np.cumsum([scene[2 if mode == "none" else 3] for scene in SCENES])
    first, second = SCENES[int((weights <= rng.integers(0, weights[-1])).sum())][:2]
    turn, density = int(rng.integers(0, 16)), slide.density - int(rng.integers(0, 30))
    split = np.clip((grain(rng, 46) + grain(rng, 11) // 4 - int(rng.integers(110, 200))) * 32, 0, 256)
    canvas = (TISSUES[first](rng, turn) * split + TISSUES[second](rng, turn) * (256 - split) >> 8).astype(np.int32)
    region = np.where(split > 128, *(int(np.flatnonzero(NAMES == name)[0]) for name in (first, second)))
    inside = nest(rng, mode) if mode != "none" else np.zeros((CANVAS, CANVAS), bool)
    paint_cells(rng, canvas, np.where(inside, -1, region), cells, density, turn)
    mask = inside
    if mode != "none":
        mask = paint_tumour(rng, canvas, cells, inside, mode)
        paint_cells(rng, canvas, np.where(mask, -2, -1), cells, density, turn)
    return expose(rng, canvas, slide), mask[INNER, INNER]


@functools.cache
def light_table() -> np.ndarray:
    """Returns the light, in 1/4096, that passes optical density index/256, for 1024 densities, without a float."""
    light = [1 << 60]
    while len(light) < 1024:
        light.append(light[-1] * 991046 // 1000000)  # 10 to the power of -1/256
    return np.array([level >> 48 for level in light], np.int32)


def expose(rng: np.random.Generator, canvas: np.ndarray, slide: Slide) -> np.ndarray:
    """Turns stain into an image: light, the blur and sharpening of a scanner, the soft colour of a JPEG, noise."""
    stain = canvas[:, PAD - 2 : PAD + SIZE + 2, PAD - 2 : PAD + SIZE + 2, None]
    stain = stain * (190 + grain(rng, 2, SIZE + 4)[:, :, None] // 2) >> 8  # nothing in tissue is smooth
    density = (stain[0] * slide.stains[0] + stain[1] * slide.stains[1]) >> 8
    light = light_table()[np.clip(density, 0, 1023)] * slide.glass >> 8  # in 1/16 of a grey level
    for weight in (slide.blur, -slide.sharpness):
        light = (light[1:-1] * (16 - 2 * weight) + (light[:-2] + light[2:]) * weight) >> 4
        light = (light[:, 1:-1] * (16 - 2 * weight) + (light[:, :-2] + light[:, 2:]) * weight) >> 4
    grey = light.sum(-1, keepdims=True) // 3
    colour = (light - grey).reshape(SIZE // 2, 2, SIZE // 2, 2, 3).sum((1, 3)) >> 2
    rough = rng.integers(-40, 41, (SIZE, SIZE, 1)) + rng.integers(-24, 25, (SIZE, SIZE, 3))
    return np.clip((grey + colour.repeat(2, 0).repeat(2, 1) + rough) >> 4, 0, 255).astype(np.uint8)


def make_slide(seed: int, number: int) -> Slide:
    """Returns slide `number`: a blue-purple stain (odd numbers) or a brown-pink one, varied, of its own strength."""
    rng, purple = generator(seed, 2, number), number % 2
    blend = int(rng.integers(0, 90)) if purple else int(rng.integers(190, 257))
    stains = np.array([[186, 194, 64], [32, 196, 66]]) * (256 - blend)
    stains += np.array([[165, 200, 135], [18, 130, 85]]) * blend
    stains = ((stains >> 8) + rng.integers(-10, 11, (2, 3))) * rng.integers(78, 128, (2, 1)) // 100
    white = (252 - int(rng.integers(0, 22)) * purple) + np.array([0, -3, 1]) * purple
    percent = 0 if number in HEALTHY_SLIDES else int(rng.integers(36, 72))
    blur, sharpness = int(rng.integers(1, 3)), int(rng.integers(2, 4)) if purple else int(rng.integers(3, 6))
    return Slide(f"slide_{number + 1:02d}", stains, white, blur, sharpness, int(rng.integers(84, 104)), percent)


def named(part: str, slide: str, image: np.ndarray, mask: np.ndarray, kind: str, suffix: bytes = b"") -> Patch:
    """Returns a patch named by the SHA-1 of its pixels and labelled by the centre of its mask."""
    name = hashlib.sha1(image.tobytes() + suffix).hexdigest()
    return Patch(part, name, slide, int(mask[CENTRE, CENTRE].any()), image, mask, kind)


def render_sample(seed: int) -> list[Patch]:
    """Draws every patch of the sample, in the order in which the tables list them."""
    cells, patches = draw_cells(seed), []
    for number in range(TRAIN_SLIDES + TEST_SLIDES):
        slide, part = make_slide(seed, number), "train" if number < TRAIN_SLIDES else "test"
        count = TEST_PATCHES if part == "test" else 17 + number % 3
        for index in range(count):
            rng = generator(seed, 3, number, index)
            dice = int(rng.integers(0, 100))
            tumour, near = dice < slide.tumour_percent, dice >= 95 and slide.tumour_percent
            mode = "centre" if tumour else "outside" if near else "none"
            patches.append(named(part, slide.name, *render_patch(rng, slide, cells, mode), mode))
    train = [patch for patch in patches if patch.part == "train"]
    train += planted(seed, train)
    order = np.argsort(generator(seed, 4).integers(0, 1 << 40, len(train)), kind="stable")
    tests = sorted((patch for patch in patches if patch.part == "test"), key=lambda patch: patch.id)
    return [train[index] for index in order] + tests


def planted(seed: int, train: list[Patch]) -> list[Patch]:
    """Returns what notebook 01 has to find: near and exact duplicates, near-white and near-black patches."""
    rng = generator(seed, 5)
    flipped, turned, touched, *exact = (train[index] for index in (20, 90, 160, 230, 300))
    image = touched.image.copy()
    image[0, 0, 0] ^= 1
    extra = [
        named("train", flipped.slide, flipped.image[:, ::-1], flipped.mask[:, ::-1], "flipped"),
        named("train", turned.slide, np.rot90(turned.image), np.rot90(turned.mask), "turned"),
        named("train", touched.slide, image, touched.mask, "touched"),
    ]
    extra += [named("train", patch.slide, patch.image, patch.mask, "exact", DUPLICATE_SUFFIX) for patch in exact]
    for base, spread, kind, slides in ((243, 6, "white", (10, 120, 250)), (4, 9, "black", (50, 340))):
        for index in slides:
            shade = base + (grain(rng, 32, SIZE)[..., None] * spread >> 8)
            image = (shade + rng.integers(0, 5, (SIZE, SIZE, 3))).astype(np.uint8)
            extra.append(named("train", train[index].slide, image, np.zeros((SIZE, SIZE), bool), kind))
    return extra


def tiff_bytes(image: np.ndarray) -> bytes:
    """Returns the bytes of an uncompressed TIFF with the tags of the competition's files (27,935 bytes for 96x96 RGB).

    Only the software and the date differ; the date is fixed.
    """
    rows, columns, bands = image.shape
    shape = b'{"shape": [%d, %d, %d]}' % (rows, columns, bands)
    tags = [  # number, type, count, value or its place
        (254, 4, 1, 0), (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 3, 194), (259, 3, 1, 1), (262, 3, 1, 2),
        (270, 2, 23, 200), (273, 4, 1, 287), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, 1, image.size),
        (284, 3, 1, 1), (305, 2, 12, 255), (306, 2, 20, 267), (339, 3, 1, 1),
    ]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head += struct.pack("<I3H", 0, 8, 8, 8) + shape
    return head.ljust(255, b"\0") + b"histopath.1\0" + b"2018:11:15 00:00:00\0" + np.ascontiguousarray(image, np.uint8).tobytes()


README = """A synthetic sample in the layout of Kaggle's Histopathologic Cancer Detection.

Every image was drawn by a program (histopath/sample.py, version {version}, seed {seed}). None shows real tissue:
nothing found here says anything about medicine, and a score on it says nothing about real slides.

train/, test/          {train} and {test} patches, 96x96 RGB, uncompressed TIFF, named by the SHA-1 of their pixels
train_labels.csv       id,label: 1 when the centre 32x32 pixels hold (drawn) tumour, else 0
sample_submission.csv  id,label: the rows a submission must have, every label 0
slides.csv             id,slide: the (invented) slide of every patch
sample.json            what wrote this folder

Planted in train/, to be found: two exact duplicates (named by the SHA-1 of their pixels followed by the word
"duplicate", since equal names cannot stand in one folder), three near duplicates (flipped, turned, one pixel one
level off), three near-white and two near-black patches, both labelled 0.
"""


def sample_folder(home: Path) -> Path:
    """Returns where the sample stands under the project root `home`."""
    return home / "data" / "sample"


def write_sample(folder: Path, seed: int = 0) -> Path:
    """Writes the sample as `folder`, whole or not at all; returns at once when it is already there.

    Args:
        folder: The folder to make, with its parents; it is also what is returned.
        seed: Any integer from 0 on; the same seed gives the same bytes.

    Raises:
        ValueError: `folder` holds something else; nothing in it is touched.
    """
    folder = Path(folder)
    if holds_sample(folder, seed):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fill_folder(partial, seed)
        if folder.exists():
            folder.rmdir()  # empty: holds_sample has looked
        os.replace(partial, folder)
    except OSError:
        if not holds_sample(folder, seed):  # unless another process has just written the same
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def holds_sample(folder: Path, seed: int) -> bool:
    """Says whether `folder` holds this sample (True) or is absent or empty (False); raises ValueError otherwise."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
        counts = {part: sum(1 for _ in (folder / part).glob("*.tif")) for part in ("train", "test")}
        tables = all((folder / name).stat().st_size for name in ("train_labels.csv", "sample_submission.csv", "slides.csv"))
        whole = tables and found == marker(seed, counts["train"], counts["test"])
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise ValueError(
            f"{folder} should be absent, empty or the whole synthetic sample (version {VERSION}, seed {seed}) "
            "but holds something else: move it away or name another folder."
        )
    return True


def is_synthetic(folder: Path) -> bool:
    """Says whether a data folder is a copy of the embedded sample, wherever it lies."""
    return (Path(folder) / "sample.json").is_file()


def marker(seed: int, train: int, test: int) -> dict:
    """Returns what sample.json holds."""
    made_by = "histopath sample, synthetic"
    return {"made_by": made_by, "version": VERSION, "seed": seed, "train": train, "test": test}


def fill_folder(folder: Path, seed: int) -> None:
    """Draws the sample and writes all its files into the new folder `folder`."""
    patches = render_sample(seed)
    train, test = ([patch for patch in patches if patch.part == part] for part in ("train", "test"))
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
    for patch in patches:
        (folder / patch.part / f"{patch.id}.tif").write_bytes(tiff_bytes(patch.image))
    tables = {
        "train_labels.csv": ["id,label", *(f"{patch.id},{patch.label}" for patch in train)],
        "sample_submission.csv": ["id,label", *(f"{patch.id},0" for patch in test)],
        "slides.csv": ["id,slide", *(f"{patch.id},{patch.slide}" for patch in patches)],
        "sample.json": [json.dumps(marker(seed, len(train), len(test)), indent=1)],
        "README.txt": [README.format(version=VERSION, seed=seed, train=len(train), test=len(test)).rstrip()],
    }
    for name, lines in tables.items():
        (folder / name).write_bytes(("\n".join(lines) + "\n").encode())
