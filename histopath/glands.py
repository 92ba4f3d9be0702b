"""Draws glands: kinds and places come in, rings of nuclei around cytoplasm around a lumen are painted on a canvas.

A canvas, its units and the generator are those of `tissue`; lengths are in pixels.
"""

from dataclasses import dataclass

import numpy as np

from histopath.tissue import direction, ellipse, grain, paste, sine, spots


@dataclass(frozen=True)
class GlandKind:
    """How one kind of gland looks: lengths in pixels, ranges without their end.

    `bend` is how far the border wanders; `lumen` is in percent of the radius; `stain` is what the cytoplasm holds of
    haematoxylin and eosin, less where there are `goblets` (percent); nuclei are `gap` apart in `layers` rings, and
    `missing` percent of them are not there.
    """

    radius: tuple[int, int]
    width_percent: tuple[int, int]
    bend: int
    lumen: int
    stain: tuple[int, int]
    goblets: int
    nucleus: str
    gap: int
    layers: int = 1
    missing: int = 0


def paint_glands(rng: np.random.Generator, canvas: np.ndarray, cells: dict, kind: GlandKind, inside: np.ndarray,
                 spacing: int, jitter: int | None = None) -> None:  # fmt: skip
    """Paints glands side by side on a canvas.

    Args:
        rng: Where all chance comes from.
        canvas: What to paint on.
        cells: What `draw_cells` returned.
        kind: What the glands look like.
        inside: Where (n, n) bool the middle of a gland may lie.
        spacing: Pixels between the middles.
        jitter: Pixels by which each is moved at most; an eighth of the spacing when None.
    """
    places = spots(rng, spacing, spacing // 8 if jitter is None else jitter, canvas.shape[1])
    for place in places[inside[places[:, 0], places[:, 1]]]:
        paint_gland(rng, canvas, cells, kind, place)


def paint_gland(rng: np.random.Generator, canvas: np.ndarray, cells: dict, kind: GlandKind, place: np.ndarray) -> None:
    """Paints a gland on a canvas, centred at `place`: a ring of nuclei around pale cytoplasm around an empty lumen."""
    radius = int(rng.integers(*kind.radius))
    width, turn, reach = radius * int(rng.integers(*kind.width_percent)) // 100, int(rng.integers(0, 16)), radius + kind.bend
    size, corner, length = 2 * reach + 1, place - reach, canvas.shape[1]
    bends = np.stack([(grain(rng, 3 + radius * 3 // 4, size) - 128) * kind.bend // 12 for _ in range(2)])  # in 1/8 pixel
    axis = 8 * (np.arange(size) - reach)
    out = ellipse(axis[:, None] + bends[0], axis[None] + bends[1], 8 * radius, 8 * width, turn)
    cover = np.clip((1024 - out) * 2, 0, 256)
    goblets = np.clip((grain(rng, 6, size) - 96) * 4, 0, 256)  # pale vacuoles between the lumen and the nuclei
    stain = np.array(kind.stain)[:, None, None] * (384 - goblets * kind.goblets // 100 - grain(rng, 2, size) // 2) >> 8
    if kind.lumen:
        stain = stain * np.clip((out - kind.lumen * kind.lumen * 1024 // 10000) * 2, 0, 256) >> 8
    top, left = np.maximum(corner, 0)
    bottom, right = np.maximum(np.minimum(corner + size, length), (top, left))
    part = (slice(top - corner[0], bottom - corner[0]), slice(left - corner[1], right - corner[1]))
    window = canvas[:, top:bottom, left:right]
    window += (stain[:, *part] - window) * cover[part] >> 8
    paint_ring(rng, canvas, cells, kind, (radius, width, turn), bends, place)


def paint_ring(rng: np.random.Generator, canvas: np.ndarray, cells: dict, kind: GlandKind,
               shape: tuple[int, int, int], bends: np.ndarray, place: np.ndarray) -> None:  # fmt: skip
    """Paints the nuclei of a gland with this half length, half width and turn, each pointing to the lumen."""
    (radius, width, turn), dark = shape, int(rng.integers(0, 5))
    cosine, sinus = direction(turn)
    for layer in range(kind.layers):
        inset = 4 + 6 * layer
        steps = np.arange(max(1, 3 * (radius + width - 2 * inset) // kind.gap))
        steps = steps * 256 // len(steps) + rng.integers(-2, 3, len(steps)) + int(rng.integers(0, 256))
        steps = steps[rng.integers(0, 100, len(steps)) >= kind.missing]
        along, across = (radius - inset) * sine(steps + 64), (width - inset) * sine(steps)
        local = np.stack([sinus * along + cosine * across, cosine * along - sinus * across], 1) >> 16
        spot = np.clip(local + bends.shape[1] // 2, 0, bends.shape[1] - 1)
        local -= bends[:, spot[:, 0], spot[:, 1]].T >> 3
        local += rng.integers(-kind.layers, kind.layers + 1, local.shape)
        which = 16 * (dark + rng.integers(0, 2, len(steps))) + ((steps >> 3) + turn + rng.integers(-1, 2, len(steps))) % 16
        for one, index in zip(local, which, strict=True):
            paste(canvas, cells[kind.nucleus][index], place + one)
