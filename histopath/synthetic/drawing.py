"""Draws cells, glands and tissue as amounts of stain, and turns them into an image.

Pixels are computed in integers (angles and distances are rounded first), so every processor draws
the same image. Lengths are in pixels of about 0.97 µm; stain, optical density and weights are in
1/256; a turn is a direction in steps of 11.25 degrees; pairs of numbers are ranges without their
end.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.spatial import KDTree

PAD = 16  # pixels around an image, so that its edge cuts cells
CANVAS = 96 + 2 * PAD  # pixels along a canvas unless told otherwise
DRAWINGS = 96  # of each kind of cell
# Light in 1/4096 that passes an optical density of index/256: 0.991046 is 10 ** (-1/256). No value
# but the first is nearer to an integer than 1e-4, so all processors truncate to the same table.
LIGHT = (4096 * 0.991046 ** np.arange(1024)).astype(np.int32)


class CellKind(NamedTuple):
    """How one kind of cell looks; its lengths are in 1/8 pixel."""

    half_length: tuple[int, int]
    width_percent: tuple[int, int]
    wobble: int  # how far the outline wanders
    hematoxylin: tuple[int, int]
    eosin: tuple[int, int]
    chromatin: int  # contrast of the texture
    rim: int = 0  # hematoxylin that the border has more
    nucleoli: int = 0  # at most


class GlandKind(NamedTuple):
    """How one kind of gland looks."""

    radius: tuple[int, int]
    width_percent: tuple[int, int]
    bend: int  # how far the outline wanders
    lumen: tuple[int, int]  # percent of the radius
    stain: tuple[int, int]  # hematoxylin and eosin of the cytoplasm
    nucleus: str  # kind of cell
    gap: int  # between nuclei; 0 for none
    inner: int = 600  # where nuclei begin, as `ellipse` measures it


class Exposure(NamedTuple):
    """Stain and scanner of an image."""

    stains: np.ndarray  # (2, 3): optical density of hematoxylin and eosin in RGB
    white: np.ndarray  # (3,): level of empty glass
    blur: int
    sharpness: int


CELLS = {
    "lymphocyte": CellKind((24, 31), (76, 101), 7, (190, 300), (50, 80), 150, 40),
    "histiocyte": CellKind((34, 41), (55, 80), 12, (90, 150), (50, 70), 90, 50),
    "spindle": CellKind((36, 58), (22, 38), 12, (130, 220), (50, 90), 80),
    "tumor": CellKind((47, 66), (68, 96), 16, (52, 128), (36, 80), 78, 50, 2),
    "cytoplasm": CellKind((76, 98), (80, 100), 30, (8, 42), (34, 100), 36),
    "red cell": CellKind((22, 29), (80, 100), 6, (0, 6), (130, 200), 0),
}
Cells = dict[str, list[tuple[np.ndarray, np.ndarray]]]


def noise_at(rng: Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns value noise in 0..255 at coordinates in 1/256 of a cell of its lattice."""
    points = 32 if max(rows.shape) < 256 else 128  # fewer would be seen to repeat
    levels = rng.integers(0, 256, points**2).astype(np.int32)
    top, left = rows >> 8, columns >> 8
    down, across = (part * part * (768 - 2 * part) >> 16 for part in (rows & 255, columns & 255))
    upper, lower = (
        levels.take(row + left % points) * (256 - across) + levels.take(row + (left + 1) % points) * across
        for row in (top % points * points, (top + 1) % points * points)
    )
    return (upper * (256 - down) + lower * down) >> 16


def noise(rng: Generator, cell: int, length: int = CANVAS) -> np.ndarray:
    """Returns value noise (length, length) in 0..255; the cells of its lattice are `cell` wide."""
    axis = np.arange(length, dtype=np.int32) * 256 // cell
    return noise_at(rng, axis[:, None], axis[None])


def direction(turn: int) -> tuple[int, int]:
    """Returns cosine and sine of a turn in 1/256; no value is near a tie of the rounding."""
    angle = turn * np.pi / 16
    return round(256 * np.cos(angle)), round(256 * np.sin(angle))


def ellipse(rows: np.ndarray, columns: np.ndarray, half_length: int, half_width: int, turn: int) -> np.ndarray:
    """Returns the squared distance from the middle of an ellipse, 1024 at its border."""
    cosine, sine = direction(turn)
    along, across = (cosine * columns + sine * rows) >> 8, (cosine * rows - sine * columns) >> 8
    return along * along * 1024 // half_length**2 + across * across * 1024 // half_width**2


def jittered_grid(rng: Generator, spacing: int, jitter: int, inside: np.ndarray) -> np.ndarray:
    """Returns places (k, 2) of a hexagonal grid, moved by at most `jitter` pixels and shuffled.

    Only those where `inside`, bool (n, n), is true.
    """
    length, start, step = len(inside), int(rng.integers(0, spacing)), spacing * 7 // 8
    columns = [np.arange(start % step, length, spacing) + spacing // 2 * odd for odd in (0, 1)]
    rows = range(start, length, step)
    grid = np.array([(row, column) for row in rows for column in columns[row // step % 2]])
    places = np.clip(grid + rng.integers(-jitter, jitter + 1, grid.shape), 0, length - 1)
    places = places[np.argsort(rng.integers(0, 1 << 40, len(grid)), kind="stable")]
    return places[inside[tuple(places.T)]]


def draw_cell(rng: Generator, kind: CellKind, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a cell at four times its size and averages; a higher index is darker.

    Returns:
        Coverage (n, n) in 0..256, and stain times coverage (2, n, n).
    """
    length, percent = (int(rng.integers(*each)) for each in (kind.half_length, kind.width_percent))
    width, size = length * percent // 100, 2 * ((length + kind.wobble) // 8 + 2)
    blue, red = (a + (b - a) * index // DRAWINGS for a, b in (kind.hematoxylin, kind.eosin))
    axis = 2 * np.arange(4 * size) + 1 - 4 * size
    rows, columns = axis[:, None], axis[None]
    bends = [(noise(rng, 36, 4 * size) - 128) * kind.wobble // 96 for _ in range(2)]
    reach = ellipse(rows + bends[0], columns + bends[1], length, width, index % 16)
    texture = (noise(rng, 7, 4 * size) - 128) * kind.chromatin // 128
    amount = blue + kind.rim * (reach > 640) + texture
    for _ in range(int(rng.integers(0, kind.nucleoli + 1))):
        row, column = rng.integers(-width // 2, width // 2 + 1, 2)
        nucleolus = (rows - row) ** 2 + (columns - column) ** 2 < int(rng.integers(60, 160))
        amount = amount + 120 * nucleolus
    layers = np.stack([np.full_like(reach, 256), np.maximum(amount, 0), np.full_like(reach, red)])
    painted = (layers * (reach < 1024)).reshape(3, size, 4, size, 4).sum((2, 4)) >> 4
    return painted[0].astype(np.int32), painted[1:].astype(np.int32)


def draw_cells(seed: int, kinds: dict[str, CellKind] = CELLS) -> Cells:
    """Returns DRAWINGS drawings of each kind, from pale to dark; drawing i has turn i % 16."""
    rng = np.random.default_rng([seed, 1])
    return {name: [draw_cell(rng, kind, i) for i in range(DRAWINGS)] for name, kind in kinds.items()}


def choose_drawings(rng: Generator, count: int) -> np.ndarray:
    """Returns indices (count,) of drawings about equally dark, as the cells of one place are."""
    return int(rng.integers(0, DRAWINGS - 31)) + rng.integers(0, 32, count)


class Canvas:
    """Amounts of stain on which cells and glands are painted.

    Attributes:
        stain: int32 (2, n, n), hematoxylin before eosin.
        rng: Random generator.
        cells: From `draw_cells`.
    """

    def __init__(self, rng: Generator, cells: Cells, ground: np.ndarray):
        self.rng, self.cells, self.stain = rng, cells, ground.astype(np.int32)

    def paste(self, kind: str, index: int, place: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Paints a cell unless the edge cuts it, and marks it in `mask`, bool (n, n)."""
        coverage, stain = self.cells[kind][index]
        top, left = (int(at) - len(coverage) // 2 for at in place)
        bottom, right = top + len(coverage), left + len(coverage)
        if min(top, left) >= 0 and max(bottom, right) <= self.stain.shape[1]:
            window = self.stain[:, top:bottom, left:right]
            window += stain - (window * coverage >> 8)
            if mask is not None:
                mask[top:bottom, left:right] |= coverage >= 128

    def scatter(
        self,
        inside: np.ndarray,
        spacing: int,
        percents: dict[str, int],
        turn: int | None = None,
        under: str = "",
    ) -> None:
        """Scatters cells of several kinds, in percent of places, where `inside` (n, n) is true.

        They have the direction `turn`, or any. A cell of the kind `under` is painted below each.
        """
        places = jittered_grid(self.rng, spacing, 1 + spacing // 5, inside)
        chance, limits = self.rng.integers(0, 100, len(places)), np.cumsum(list(percents.values()))
        kinds = np.array([*percents, ""])[np.searchsorted(limits, chance, side="right")]
        which = choose_drawings(self.rng, len(places))
        which = which if turn is None else which // 16 * 16 + turn
        taken = np.flatnonzero(kinds != "")
        for index in taken if under else ():
            self.paste(under, which[index], places[index])
        for index in taken:
            self.paste(kinds[index], which[index], places[index])

    def paint_glands(self, kind: GlandKind, inside: np.ndarray, spacing: int) -> None:
        """Paints glands `spacing` pixels apart, their middles where `inside` (n, n) is true."""
        for place in jittered_grid(self.rng, spacing, spacing // 10, inside):
            self.paint_gland(kind, place)

    def paint_gland(self, kind: GlandKind, place: np.ndarray, cover: int = 256) -> None:
        """Paints a ring of nuclei that point to the lumen; less `cover` shows what lies below."""
        rng, length = self.rng, self.stain.shape[1]
        radius, percent, lumen = (int(rng.integers(*each)) for each in kind[:2] + kind[3:4])
        width, turn, reach = radius * percent // 100, int(rng.integers(0, 16)), radius + kind.bend
        axis = np.arange(-reach, reach + 1)
        bends = np.stack([noise(rng, 3 + radius * 3 // 4, len(axis)) for _ in range(2)])
        bends = (bends - 128) * kind.bend // 12  # in 1/8 pixel
        rows, columns = 8 * axis[:, None] + bends[0], 8 * axis + bends[1]
        out = ellipse(rows, columns, 8 * radius, 8 * width, turn)
        stain = np.array(kind.stain)[:, None, None] * (320 - noise(rng, 2, len(axis)) // 2) >> 8
        if lumen:
            stain = stain * np.clip((out - lumen**2 * 1024 // 10000) * 2, 0, 256) >> 8
        cover = np.clip((1024 - out) * 2, 0, cover)
        shown = [np.flatnonzero((axis + at >= 0) & (axis + at < length)) for at in place]
        part, (row, column) = np.ix_(*shown), place - reach
        target = np.ix_((0, 1), shown[0] + row, shown[1] + column)
        self.stain[target] += (stain[:, *part] - self.stain[target]) * cover[part] >> 8
        if not kind.gap:
            return
        spots = jittered_grid(rng, kind.gap, 1, (out > kind.inner) & (out < 900)) - reach
        turns = np.rint(np.arctan2(*spots.T) * 16 / np.pi).astype(int) % 16
        which = 16 * (rng.integers(0, 5) + rng.integers(0, 2, len(spots))) + turns
        for spot, index in zip(spots, which, strict=True):
            self.paste(kind.nucleus, index, place + spot)

    def expose(self, exposure: Exposure) -> np.ndarray:
        """Returns the image uint8 (n - 2 PAD, n - 2 PAD, 3) RGB.

        Light passes the stain, the scanner blurs and sharpens it, JPEG halves the resolution of
        the color, and noise is added.
        """
        rng, size = self.rng, self.stain.shape[1] - 2 * PAD
        stain = self.stain[:, PAD - 2 : PAD + size + 2, PAD - 2 : PAD + size + 2, None]
        stain = stain * (190 + noise(rng, 2, size + 4)[:, :, None] // 2) >> 8
        blue, red = exposure.stains.astype(np.int32)
        density = (stain[0] * blue + stain[1] * red) >> 8
        light = LIGHT.take(np.clip(density, 0, 1023)) * exposure.white.astype(np.int32) >> 8
        for weight in (exposure.blur, -exposure.sharpness):
            middle = 16 - 2 * weight
            light = (light[1:-1] * middle + (light[:-2] + light[2:]) * weight) >> 4
            light = (light[:, 1:-1] * middle + (light[:, :-2] + light[:, 2:]) * weight) >> 4
        gray = light.sum(2, keepdims=True) // 3
        color = (light - gray).reshape(size // 2, 2, size // 2, 2, 3).sum((1, 3)) >> 2
        grain = rng.integers(-40, 41, (size, size, 1)) + rng.integers(-24, 25, (size, size, 3))
        image = (gray + color.repeat(2, 0).repeat(2, 1) + grain) >> 4
        return np.clip(image, 0, 255).astype(np.uint8)


# Tissue without its cells: amounts of stain (2, length, length)


def lymph(rng: Generator, length: int = CANVAS) -> np.ndarray:
    """Returns what lies between lymphocytes: pink and granular, with pale gaps."""
    pale = np.clip((noise(rng, 7, length) - 30) * 3, 100, 256)
    hematoxylin = 14 + noise(rng, 3, length) // 7
    eosin = 20 + noise(rng, 2, length) // 5 + noise(rng, 20, length) // 6
    return np.stack([hematoxylin, eosin]) * pale >> 8


def stroma(rng: Generator, length: int = CANVAS, turn: int = 0) -> np.ndarray:
    """Returns wavy collagen fibers along a direction, with pale cracks between them."""
    cosine, sine = direction(turn)
    rows, columns = np.ogrid[:length, :length]
    wave = (noise(rng, 40, length) - 128) * 22
    along, across = cosine * columns + sine * rows, cosine * rows - sine * columns + wave
    fibers = noise_at(rng, across // 4, along // 18)
    fine = noise_at(rng, across * 2 // 3, along // 6)
    cracks = noise_at(rng, across * 2 // 5, along // 20) - int(rng.integers(10, 90))
    eosin = 10 + fibers // 5 + fine // 4 + noise(rng, 2, length) // 10
    eosin = eosin * np.clip(cracks * 6, 50, 256) >> 8
    return np.stack([eosin // 7 + noise(rng, 6, length) // 24, eosin])


def fat(rng: Generator, length: int = CANVAS) -> np.ndarray:
    """Returns empty vacuoles with thin walls: the borders of a Voronoi diagram."""
    everywhere = np.ones((length, length), bool)
    seeds = jittered_grid(rng, int(rng.integers(36, 60)), 13, everywhere)
    rows, columns = (8 * line + noise(rng, 20, length) // 2 + noise(rng, 6, length) // 14 for line in np.ogrid[:length, :length])
    distances = KDTree(8 * seeds).query(np.stack([rows, columns], -1), 3)[0]
    first, second, third = np.moveaxis(np.rint(distances**2).astype(int) >> 6, -1, 0)
    wall = 9000 // (second - first + 40) + 16000 // (third - first + 60)
    eosin = np.clip(wall - 66, 0, 105) * (70 + noise(rng, 4, length)) >> 8
    return np.stack([eosin // 3, eosin])


def glass(rng: Generator, length: int = CANVAS) -> np.ndarray:
    """Returns next to nothing."""
    return np.stack([noise(rng, 30, length) // 80, noise(rng, 30, length) // 60])


def stain_colors(rng: Generator, purple: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `stains` and `white` of a blue-purple stain (1) or a brown-pink one (0)."""
    blend = int(rng.integers(0, 90)) if purple else int(rng.integers(190, 257))
    stains = np.array([[186, 194, 64], [32, 196, 66]]) * (256 - blend)
    stains += np.array([[165, 200, 135], [18, 130, 85]]) * blend
    stains = vary_stains(rng, stains >> 8)
    return stains, 252 + (np.array([0, -3, 1]) - rng.integers(0, 22)) * purple


def vary_stains(rng: Generator, stains: np.ndarray) -> np.ndarray:
    """Returns stains (2, 3) of another hue and strength, as they differ from day to day."""
    return (stains + rng.integers(-10, 11, (2, 3))) * rng.integers(78, 128, (2, 1)) // 100


def scanner(rng: Generator, purple: int) -> tuple[int, int]:
    """Returns `blur` and `sharpness` of the scanner that goes with a stain."""
    return int(rng.integers(1, 3)), int(rng.integers(2, 4)) if purple else int(rng.integers(3, 6))
