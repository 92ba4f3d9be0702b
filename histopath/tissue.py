"""Draws tissue: a generator comes in, amounts of stain on a canvas and then an image come out.

Amounts of haematoxylin and eosin are painted as integers and become colour by a stain: no float is computed, so an
image is the same on every machine. A canvas is (2, n, n) int32, haematoxylin before eosin, with PAD pixels around the
image so that its edge may cut cells. Lengths are in pixels of about 0.97 micrometres; amounts of stain, optical
densities and sines are in 1/256; a turn is a direction in steps of 11.25 degrees.
"""

import functools
from dataclasses import dataclass

import numpy as np

PAD = 16  # pixels painted around an image
CANVAS = 96 + 2 * PAD  # pixels along a canvas unless told otherwise
DRAWINGS = 96  # drawings of each kind of cell
QUARTER = (0, 50, 98, 142, 181, 213, 237, 251, 256)  # sines of multiples of 11.25 degrees

Cell = tuple[np.ndarray, np.ndarray]


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


@dataclass(frozen=True)
class Look:
    """Stain and scanner of a slide; `stains` (2, 3): density of haematoxylin and eosin in red, green and blue light."""

    stains: np.ndarray
    glass: np.ndarray
    blur: int
    sharpness: int


def generator(*key: int) -> np.random.Generator:
    """Returns a generator that depends on the whole key and on nothing else."""
    return np.random.Generator(np.random.PCG64(list(key)))


def direction(turn: int) -> tuple[int, int]:
    """Returns cosine and sine, in 1/256, of `turn` (0..15) times 11.25 degrees."""
    return (QUARTER[8 - turn], QUARTER[turn]) if turn <= 8 else (-QUARTER[turn - 8], QUARTER[16 - turn])


def sine(step: np.ndarray) -> np.ndarray:
    """Returns the sines, in 1/256, of angles in 1/256 of a circle."""
    half = np.array(QUARTER[:8] + QUARTER[:0:-1])
    circle = np.concatenate([half, -half])
    first, part = (step >> 3) & 31, step & 7
    return (circle[first] * (8 - part) + circle[(first + 1) & 31] * part) >> 3


def ellipse(rows: np.ndarray, columns: np.ndarray, half_length: int, half_width: int, turn: int) -> np.ndarray:
    """Returns how far out in an ellipse coordinates from its middle are, squared: 0 in the middle, 1024 at the border."""
    cosine, sine = direction(turn)
    along, across = (cosine * columns + sine * rows) >> 8, (cosine * rows - sine * columns) >> 8
    return along * along * 1024 // half_length**2 + across * across * 1024 // half_width**2


def lattice(rng: np.random.Generator, length: int) -> np.ndarray:
    """Returns random levels (n, n) in 0..255 for noise; more where 32 would be seen to repeat along `length` pixels."""
    points = 32 if length < 256 else 128
    return rng.integers(0, 256, (points, points)).astype(np.int32)


def lattice_place(axis: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the lattice points beside coordinates in 1/256 of a cell, and the smooth weight of the second."""
    part, last = axis & 255, points - 1
    return (axis >> 8) & last, ((axis >> 8) + 1) & last, part * part * (768 - 2 * part) >> 16


def noise(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns smooth value noise in 0..255 at coordinates in 1/256 of a lattice cell that broadcast to any shape."""
    levels = lattice(rng, max(rows.shape))
    axes = (axis.astype(np.int32) for axis in (rows, columns))
    (top, bottom, down), (left, right, across) = (lattice_place(axis, len(levels)) for axis in axes)
    upper, lower = (
        levels.take(row * len(levels) + left) * (256 - across) + levels.take(row * len(levels) + right) * across
        for row in (top, bottom)
    )
    return (upper * (256 - down) + lower * down) >> 16


def grain(rng: np.random.Generator, cell: int, length: int = CANVAS) -> np.ndarray:
    """Returns the same noise on a square of `length` pixels, its lattice cells `cell` pixels wide."""
    levels = lattice(rng, length)
    first, second, weight = lattice_place(np.arange(length, dtype=np.int32) * 256 // cell, len(levels))
    bands = levels[first] * (256 - weight[:, None]) + levels[second] * weight[:, None]
    return (bands[:, first] * (256 - weight) + bands[:, second] * weight) >> 16


def draw_cell(rng: np.random.Generator, kind: CellKind, index: int) -> Cell:
    """Returns coverage (n, n) in 0..256 and stain times coverage (2, n, n) of a cell, drawn at 4x and averaged."""
    length, percent = int(rng.integers(*kind.half_length)), int(rng.integers(*kind.width_percent))
    blue, red = (low + (high - low) * index // DRAWINGS for low, high in (kind.haematoxylin, kind.eosin))
    width, pixels = length * percent // 100, 2 * ((length + kind.wobble) // 8 + 2)
    axis = 2 * np.arange(4 * pixels) + 1 - 4 * pixels
    rows, columns = axis[:, None], axis[None]
    bends = ((grain(rng, 36, 4 * pixels) - 128) * kind.wobble // 96 for _ in range(2))
    bent_rows, bent_columns = rows + next(bends), columns + next(bends)
    reach = ellipse(bent_rows, bent_columns, length, width, index % 16)
    amount = blue + kind.rim * (reach > 640) + (grain(rng, 7, 4 * pixels) - 128) * kind.chromatin // 128
    for _ in range(int(rng.integers(0, kind.nucleoli + 1))):
        row, column = rng.integers(-width // 2, width // 2 + 1, 2)
        amount = amount + 120 * ((rows - row) ** 2 + (columns - column) ** 2 < int(rng.integers(60, 160)))
    inside = (reach < 1024).astype(np.int64)
    painted = np.stack([inside * 256, np.maximum(amount, 0) * inside, red * inside])
    small = (painted.reshape(3, pixels, 4, pixels, 4).sum((2, 4)) >> 4).astype(np.int32)
    return small[0], small[1:]


def draw_cells(seed: int, kinds: dict[str, CellKind] = CELLS) -> dict[str, list[Cell]]:
    """Returns DRAWINGS drawings of each kind of cell, from pale to dark, drawing i turned by i times 11.25 degrees."""
    rng = generator(seed, 1)
    return {name: [draw_cell(rng, kind, index) for index in range(DRAWINGS)] for name, kind in kinds.items()}


def drawings(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns the numbers of `count` drawings that are about equally dark, as the cells of one place are."""
    return int(rng.integers(0, DRAWINGS - 31)) + rng.integers(0, 32, count)


def paste(canvas: np.ndarray, cell: Cell, place: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Paints a cell over the canvas (2, n, n), centred at `place`, and marks it in `mask` (n, n) bool."""
    coverage, stain = cell
    size = len(coverage)
    row, column = int(place[0]) - size // 2, int(place[1]) - size // 2
    if min(row, column) >= 0 and max(row, column) + size <= canvas.shape[1]:
        window = canvas[:, row : row + size, column : column + size]
        window += stain - (window * coverage >> 8)
        if mask is not None:
            mask[row : row + size, column : column + size] |= coverage >= 128


def spots(rng: np.random.Generator, spacing: int, jitter: int, length: int = CANVAS) -> np.ndarray:
    """Returns places (n, 2) on a hexagonal grid of the canvas, each moved by at most `jitter` pixels, shuffled."""
    start, step = int(rng.integers(0, spacing)), spacing * 7 // 8
    grid = [(row, column + row // step % 2 * spacing // 2) for row in range(start, length, step)
            for column in range(start % step, length, spacing)]  # fmt: skip
    places = np.clip(np.array(grid) + rng.integers(-jitter, jitter + 1, (len(grid), 2)), 0, length - 1)
    return places[np.argsort(rng.integers(0, 1 << 40, len(grid)), kind="stable")]


def scatter(rng: np.random.Generator, canvas: np.ndarray, cells: dict, inside: np.ndarray, spacing: int,
            percents: dict[str, int], turn: int | None = None, under: str = "") -> None:  # fmt: skip
    """Scatters cells on a canvas.

    Args:
        rng: Where all chance comes from.
        canvas: What to paint on.
        cells: What `draw_cells` returned.
        inside: Where (n, n) bool cells may stand.
        spacing: Pixels between the places where one may stand.
        percents: Percent of places by kind of cell; what they leave of 100 stays empty.
        turn: Direction of all cells, or None for any.
        under: Kind of cell that is painted first, under all of them.
    """
    places = spots(rng, spacing, 1 + spacing // 5, canvas.shape[1])
    places = places[inside[places[:, 0], places[:, 1]]]
    chosen = np.searchsorted(np.cumsum(list(percents.values())), rng.integers(0, 100, len(places)), side="right")
    which, names = drawings(rng, len(places)), list(percents)
    which = which if turn is None else which // 16 * 16 + turn
    taken = np.flatnonzero(chosen < len(names))
    for index in taken if under else ():
        paste(canvas, cells[under][which[index]], places[index])
    for index in taken:
        paste(canvas, cells[names[chosen[index]]][which[index]], places[index])


def lymph(rng: np.random.Generator, turn: int, length: int = CANVAS) -> np.ndarray:
    """Returns the ground between lymphocytes, a canvas: pink, granular, with pale gaps."""
    pale = np.clip((grain(rng, 7, length) - 30) * 3, 100, 256)
    haematoxylin = 14 + grain(rng, 3, length) // 7
    return np.stack([haematoxylin, 20 + grain(rng, 2, length) // 5 + grain(rng, 20, length) // 6]) * pale >> 8


def stroma(rng: np.random.Generator, turn: int, length: int = CANVAS) -> np.ndarray:
    """Returns wavy fibres of collagen along a direction, a canvas, with pale cracks between them."""
    cosine, sine = direction(turn)
    rows, columns = np.ogrid[:length, :length]
    rows, columns = rows.astype(np.int32), columns.astype(np.int32)  # half the memory of the default is faster
    along, across = cosine * columns + sine * rows, cosine * rows - sine * columns + (grain(rng, 40, length) - 128) * 22
    fibres, fine = noise(rng, across // 4, along // 18), noise(rng, across * 2 // 3, along // 6)
    cracks = np.clip((noise(rng, across * 2 // 5, along // 20) - int(rng.integers(10, 90))) * 6, 50, 256)
    eosin = (10 + fibres // 5 + fine // 4 + grain(rng, 2, length) // 10) * cracks >> 8
    return np.stack([eosin // 7 + grain(rng, 6, length) // 24, eosin])


def fat(rng: np.random.Generator, turn: int, length: int = CANVAS) -> np.ndarray:
    """Returns empty vacuoles with thin pink walls: the borders of a Voronoi diagram, thicker where three meet."""
    seeds = spots(rng, int(rng.integers(36, 60)), 13, length)
    bends = (grain(rng, 20, length) // 2 + grain(rng, 6, length) // 14 for _ in range(2))
    rows, columns = (8 * line + next(bends) for line in np.ogrid[:length, :length])
    squares = ((rows - 8 * seeds[:, 0, None, None]) ** 2 + (columns - 8 * seeds[:, 1, None, None]) ** 2) >> 6
    first, second, third = np.partition(squares, (0, 1, 2), axis=0)[:3]
    wall = 9000 // (second - first + 40) + 16000 // (third - first + 60)
    eosin = np.clip(wall - 66, 0, 105) * (70 + grain(rng, 4, length)) >> 8
    return np.stack([eosin // 3, eosin])


def glass(rng: np.random.Generator, turn: int, length: int = CANVAS) -> np.ndarray:
    """Returns next to nothing, a canvas: light that passes only glass."""
    return np.stack([grain(rng, 30, length) // 80, grain(rng, 30, length) // 60])


@functools.cache
def light_table() -> np.ndarray:
    """Returns the light, in 1/4096, that passes optical density index/256, for 1024 densities, without a float."""
    light = [1 << 60]
    while len(light) < 1024:
        light.append(light[-1] * 991046 // 1000000)  # 10 to the power of -1/256
    return np.array([level >> 48 for level in light], np.int32)


def expose(rng: np.random.Generator, canvas: np.ndarray, look: Look) -> np.ndarray:
    """Turns a canvas (2, n, n) into an image (n - 2 PAD, n - 2 PAD, 3) uint8 RGB.

    Light passes the stain, a scanner blurs and sharpens it, a JPEG softens its colour, and noise is added.
    """
    size = canvas.shape[1] - 2 * PAD
    stain = canvas[:, PAD - 2 : PAD + size + 2, PAD - 2 : PAD + size + 2, None]
    stain = stain * (190 + grain(rng, 2, size + 4)[:, :, None] // 2) >> 8  # nothing in tissue is smooth
    blue, red = look.stains.astype(np.int32)
    density = (stain[0] * blue + stain[1] * red) >> 8
    light = light_table().take(np.clip(density, 0, 1023)) * look.glass.astype(np.int32) >> 8  # in 1/16 of a grey level
    for weight in (look.blur, -look.sharpness):
        light = (light[1:-1] * (16 - 2 * weight) + (light[:-2] + light[2:]) * weight) >> 4
        light = (light[:, 1:-1] * (16 - 2 * weight) + (light[:, :-2] + light[:, 2:]) * weight) >> 4
    grey = (light[..., :1] + light[..., 1:2] + light[..., 2:]) // 3
    colour = light - grey
    colour = (colour[::2, ::2] + colour[::2, 1::2] + colour[1::2, ::2] + colour[1::2, 1::2]) >> 2
    rough = rng.integers(-40, 41, (size, size, 1)) + rng.integers(-24, 25, (size, size, 3))
    return np.clip((grey + colour.repeat(2, 0).repeat(2, 1) + rough) >> 4, 0, 255).astype(np.uint8)


def stain_colours(rng: np.random.Generator, purple: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `stains` (2, 3) and `glass` (3,) of a look: a blue-purple stain (`purple` 1) or a brown-pink one (0), varied."""
    blend = int(rng.integers(0, 90)) if purple else int(rng.integers(190, 257))
    stains = np.array([[186, 194, 64], [32, 196, 66]]) * (256 - blend)
    stains += np.array([[165, 200, 135], [18, 130, 85]]) * blend
    return vary(rng, stains >> 8), (252 - int(rng.integers(0, 22)) * purple) + np.array([0, -3, 1]) * purple


def vary(rng: np.random.Generator, stains: np.ndarray) -> np.ndarray:
    """Returns stains (2, 3) of another hue and strength, as another day in the laboratory makes them."""
    return (stains + rng.integers(-10, 11, (2, 3))) * rng.integers(78, 128, (2, 1)) // 100


def scanner(rng: np.random.Generator, purple: int) -> tuple[int, int]:
    """Returns `blur` and `sharpness` of a look."""
    return int(rng.integers(1, 3)), int(rng.integers(2, 4)) if purple else int(rng.integers(3, 6))


def make_look(rng: np.random.Generator) -> Look:
    """Returns a stain and a scanner drawn at random."""
    purple = int(rng.integers(0, 2))
    return Look(*stain_colours(rng, purple), *scanner(rng, purple))
