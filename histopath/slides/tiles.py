"""Whole slides at the resolution of PCam. In: a file that OpenSlide reads. Out: where tissue is, a plan of tiles, the tiles.

Lengths are named by what they count: `base` pixels are those of the slide's finest level, `patch` pixels those of PCam, 0.972
micrometers wide.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openslide
from skimage.filters import threshold_otsu

from histopath.config import MICRONS_PER_PIXEL
from histopath.files import InputError

TILE = 96  # patch pixels
OVERVIEW = (2.0, 16.0)  # bounds of the micrometers a pixel of the overview in which tissue is looked for
OVERVIEW_SIDE = 1024  # pixels along the longer side of the overview, within these bounds
BLOCK = 2048  # pixels of a level that are read at once for the overview, so that memory stays bounded
POSSIBLE = (0.05, 20.0)  # bounds of a slide's micrometers a pixel; beyond them stands what a drawing program wrote
COARSEST = 1.3  # how much coarser than PCam's a slide's finest level may be
SATURATION = (0.04, 0.15)  # bounds of Otsu's threshold: glass is never tissue, pale tissue always is
SLIDE_FILES = (".svs", ".ndpi", ".tif", ".tiff", ".mrxs", ".scn", ".vms", ".svslide", ".bif")


@dataclass(frozen=True)
class Slide:
    """An open slide.

    Attributes:
        path: its file.
        handle: OpenSlide's own object; reading from several threads is safe.
        microns_per_pixel: of the finest level.
    """

    path: Path
    handle: openslide.OpenSlide
    microns_per_pixel: float

    @property
    def scale(self) -> float:
        """Base pixels in one patch pixel."""
        return MICRONS_PER_PIXEL / self.microns_per_pixel

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in patch pixels."""
        width, height = self.handle.dimensions
        return int(width / self.scale), int(height / self.scale)


def open_slide(path: Path, microns_per_pixel: float | None = None) -> Slide:
    """Opens a slide.

    Args:
        path: SVS, NDPI, pyramidal TIFF or another format of OpenSlide.
        microns_per_pixel: of the finest level; counts only where the file does not say it.

    Raises:
        InputError: when there is no such file; when OpenSlide cannot read it, its resolution is
            unknown, or it is coarser than PCam's.
    """
    if not path.is_file():
        raise InputError(f"There is no slide {path}.")
    try:
        handle = openslide.OpenSlide(path)
        handle.read_region((0, 0), handle.level_count - 1, (1, 1))
    except openslide.OpenSlideError as error:
        reason = " ".join(str(error).split()) or "an unknown format"
        raise InputError(f"{path} is not a slide that OpenSlide reads ({reason}); copy it again, or convert it.") from None
    if microns_per_pixel is not None and not POSSIBLE[0] <= microns_per_pixel <= POSSIBLE[1]:
        raise InputError(f"No slide has {microns_per_pixel} micrometers a pixel; give --microns-per-pixel, often 0.25 or 0.5.")
    found = float(handle.properties.get(openslide.PROPERTY_NAME_MPP_X) or 0)
    if not POSSIBLE[0] <= found <= POSSIBLE[1]:
        found = microns_per_pixel
    if found is None:
        raise InputError(f"{path} does not say how many micrometers a pixel is; give --microns-per-pixel, often 0.25 or 0.5.")
    if found > COARSEST * MICRONS_PER_PIXEL:
        raise InputError(
            f"{path} has {found:.2f} micrometers a pixel, and the networks here need {MICRONS_PER_PIXEL} or finer; "
            "scan it at 10x or more."
        )
    return Slide(path, handle, found)


def read_area(slide: Slide, x: int, y: int, width: int, height: int, microns_per_pixel: float) -> np.ndarray:
    """Reads a rectangle at any resolution.

    Args:
        slide: an open slide.
        x: left edge, base pixels.
        y: upper edge, base pixels.
        width: of the answer, in its own pixels.
        height: of the answer.
        microns_per_pixel: of the answer.

    Returns:
        uint8 (height, width, 3) RGB; white where the slide has nothing.

    Raises:
        InputError: when the file is damaged there.
    """
    wanted = microns_per_pixel / slide.microns_per_pixel
    level = slide.handle.get_best_level_for_downsample(wanted * 1.01)  # rounding must not choose a level twice as fine
    shrink = wanted / slide.handle.level_downsamples[level]
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    try:
        region = np.asarray(slide.handle.read_region((x, y), level, size))
    except openslide.OpenSlideError as error:
        raise InputError(f"{slide.path} is damaged at {x}, {y} ({' '.join(str(error).split())}); copy it again.") from None
    solid = region[..., 3:].astype("uint16")
    pixels = ((region[..., :3] * solid + 255 * (255 - solid)) // 255).astype("uint8")
    return pixels if size == (width, height) else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def read_overview(slide: Slide) -> np.ndarray:
    """Reads the whole slide small, block by block, so that a slide of one huge level needs no more memory: uint8 (H, W, 3)."""
    microns_per_pixel = float(np.clip(max(slide.handle.dimensions) * slide.microns_per_pixel / OVERVIEW_SIDE, *OVERVIEW))
    ratio = microns_per_pixel / slide.microns_per_pixel  # base pixels in one of the overview
    width, height = (max(1, int(side / ratio)) for side in slide.handle.dimensions)
    level = slide.handle.get_best_level_for_downsample(ratio * 1.01)
    step = max(1, int(BLOCK * slide.handle.level_downsamples[level] / ratio))
    overview = np.empty((height, width, 3), "uint8")
    for top in range(0, height, step):
        for left in range(0, width, step):
            rows, columns = min(step, height - top), min(step, width - left)
            block = read_area(slide, round(left * ratio), round(top * ratio), columns, rows, microns_per_pixel)
            overview[top : top + rows, left : left + columns] = block
    return overview


def find_tissue(overview: np.ndarray) -> np.ndarray:
    """Says where tissue is: bool (H, W) of an overview uint8 (H, W, 3).

    Tissue has color and glass has none: Otsu's threshold (1979) of the saturation, smoothed, within bounds. What is black
    (folds, the slide's edge) is none.
    """
    smooth = cv2.GaussianBlur(overview, (0, 0), 2.0).astype("float32")
    brightest = smooth.max(axis=2)
    saturation = (brightest - smooth.min(axis=2)) / np.maximum(brightest, 1)
    threshold = np.clip(threshold_otsu(saturation), *SATURATION) if np.ptp(saturation) > 0 else 1.0
    return (saturation > threshold) & (brightest > 40)


def plan_tiles(slide: Slide, tissue: np.ndarray, stride: int) -> np.ndarray:
    """Lists the tiles whose center, 32×32 patch pixels, is tissue for at least a quarter.

    Args:
        slide: an open slide.
        tissue: bool (H, W) over the whole slide, at any resolution.
        stride: patch pixels between neighboring tiles.

    Returns:
        int32 (N, 2): row and column of each tile in the grid; a tile's upper left corner is `stride` times that, in patch
        pixels. By rows.

    Raises:
        InputError: when the slide is smaller than one tile.
    """
    width, height = slide.size
    if min(width, height) < TILE:
        raise InputError(f"{slide.path} is {width}×{height} pixels at PCam's resolution, less than one tile of {TILE}×{TILE}.")
    sums = cv2.integral(tissue.astype("uint8"))
    rows, columns = (np.arange((side - TILE) // stride + 1) for side in (height, width))
    top, bottom = (_places(rows * stride + edge, height, tissue.shape[0]) for edge in (32, 64))
    left, right = (_places(columns * stride + edge, width, tissue.shape[1]) for edge in (32, 64))
    bottom, right = np.maximum(bottom, top + 1), np.maximum(right, left + 1)
    kept = []
    for row in rows:  # a row at a time: the grid of a large slide has millions of places
        upper, lower = sums[top[row]], sums[bottom[row]]
        covered = lower[right] - lower[left] - upper[right] + upper[left]
        chosen = columns[covered >= 0.25 * (bottom[row] - top[row]) * (right - left)]
        kept.append(np.stack([np.full(len(chosen), row), chosen], axis=1))
    return np.concatenate(kept).astype("int32")


def _places(positions: np.ndarray, length: int, cells: int) -> np.ndarray:
    """Cells of an overview at positions along a side of `length` patch pixels, at most the last."""
    return np.minimum((positions * (cells / length)).astype(int), cells - 1)


def tile_corners(slide: Slide, tiles: np.ndarray, stride: int) -> np.ndarray:
    """Upper left corners of tiles, (N, 2): x and y in base pixels, int64."""
    return np.rint(tiles[:, ::-1].astype("float64") * stride * slide.scale).astype("int64")


def read_tiles(slide: Slide, corners: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields tiles in batches uint8 (n, 96, 96, 3), read by four threads while the batch before is at work."""

    def read(corner: np.ndarray) -> np.ndarray:
        return read_area(slide, int(corner[0]), int(corner[1]), TILE, TILE, MICRONS_PER_PIXEL)

    starts = range(0, len(corners), batch_size)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(read, corner) for corner in corners[:batch_size]]
        for start in starts:
            following = [pool.submit(read, corner) for corner in corners[start + batch_size : start + 2 * batch_size]]
            yield np.stack([one.result() for one in waiting])
            waiting = following
