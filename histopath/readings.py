"""What a run reads in one image. In: a Run and RGB pixels. Out: probability, calibrated probability, spread, where, warnings."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from histopath.config import MICRONS_PER_PIXEL
from histopath.data.stains import BLACK, GLASS
from histopath.metrics.binary import tempered
from histopath.models.equivariant import answers_views_alike
from histopath.models.gradcam import gradcam
from histopath.models.predict import eight_views, prediction_step
from histopath.models.runs import Run

STRIDE = 48  # pixels between two windows: half of one overlaps the next
SHIFT = 4  # pixels by which a patch is moved, as in training
HIGHEST = 5  # windows that are listed
BATCH = 64


@dataclass(frozen=True)
class Reading:
    """What was found in one image.

    Attributes:
        probability: of tumour in the centre of the patch; of a larger image, the highest of its windows.
        calibrated: the same at the temperature fitted on val.
        threshold: of the run, chosen on val.
        views: probability of each of eight views of that patch, (8,).
        views_are: what these views are, in words.
        pixels: the image as it was read, uint8 (H, W, 3).
        heat: 0-1 (H, W): Grad-CAM of a patch, probabilities of a larger image.
        windows: of a larger image the highest windows that do not overlap: `x`, `y` (left and upper edge), `probability`;
            None for a patch.
        warnings: sentences on why the reading may mean nothing.
    """

    probability: float
    calibrated: float
    threshold: float
    views: np.ndarray
    views_are: str
    pixels: np.ndarray
    heat: np.ndarray
    windows: pd.DataFrame | None
    warnings: tuple[str, ...]


def read_tissue(
    run: Run, pixels: np.ndarray, microns_per_pixel: float = MICRONS_PER_PIXEL, tell: Callable[[float], None] = lambda share: None
) -> Reading:
    """Reads a patch, or a larger image by overlapping windows.

    Args:
        run: a finished run of two classes.
        pixels: RGB, uint8 (H, W, 3).
        microns_per_pixel: of the image; it is resized to those of PCam, 0.972.
        tell: is given the share that is done, 0-1.

    Raises:
        ValueError: when the image is smaller than a patch, or the resolution is impossible.
    """
    side = run.network.input_shape[1]
    scale = _scale(microns_per_pixel)
    height, width = (round(length * scale) for length in pixels.shape[:2])
    if min(height, width) < side:
        raise ValueError(
            f"The image has {width}×{height} pixels at {MICRONS_PER_PIXEL} µm, and a patch has {side}×{side}; give a larger part."
        )
    if scale != 1:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if (height, width) == (side, side):
        corners, p = np.zeros((1, 2), int), _predict(run, pixels[None])
        heat, windows = gradcam(run.network, pixels[None])[0], None
    else:
        corners = window_corners(height, width, side)
        p = _predict_windows(run, pixels, corners, side, tell)
        heat, windows = _spread_out(p, corners, (height, width), side), _highest(corners, p, side)
    row, column = corners[int(p.argmax())]
    patch = pixels[row : row + side, column : column + side]
    views, views_are = _views(run, patch)
    of_views = windows is None and not answers_views_alike(run.network)
    probability = float(views.mean() if of_views else p.max())
    calibrated = float(tempered(np.array([probability]), run.temperature)[0])
    return Reading(probability, calibrated, run.threshold, views, views_are, pixels, heat, windows, find_doubts(pixels))


def find_doubts(pixels: np.ndarray) -> tuple[str, ...]:
    """Sentences on why an image does not look like H&E-stained tissue; none when it does.

    Of both stains green absorbs most (Ruifrok and Johnston 2001), which is so for few other things.
    """
    glass, black = pixels.min(axis=2) >= GLASS, pixels.max(axis=2) <= BLACK
    tissue = pixels[~(glass | black)].astype("float32")
    if len(tissue) < 0.05 * glass.size:
        return ("There is next to no tissue in this image: nearly all of it is empty glass or black.",)
    red, green, blue = -np.log((tissue.T + 1) / 256)
    stained = (green > 1.02 * red) & (green > 1.02 * blue)
    colourful = (tissue.max(axis=1) - tissue.min(axis=1)).mean() > 12
    if stained.mean() < 0.6 or not colourful:
        return ("This does not look like H&E-stained tissue, which is pink and violet; the network has seen nothing else.",)
    return ()


def window_corners(height: int, width: int, side: int) -> np.ndarray:
    """Upper left corners of overlapping windows that cover an image to its edges: int (N, 2), row and column."""
    rows, columns = ([*range(0, length - side, STRIDE), length - side] for length in (height, width))
    return np.array([(row, column) for row in rows for column in columns])


def _scale(microns_per_pixel: float) -> float:
    """Pixels of PCam in one of the image; 1 where they are nearly equal."""
    if not 0.05 <= microns_per_pixel <= 1.3 * MICRONS_PER_PIXEL:
        raise ValueError(
            f"{microns_per_pixel} micrometres a pixel cannot be brought to the {MICRONS_PER_PIXEL} of PCam; an image has 0.25 "
            "at 40x, 0.5 at 20x and 1.0 at 10x."
        )
    scale = microns_per_pixel / MICRONS_PER_PIXEL
    return 1.0 if abs(scale - 1) < 0.03 else scale


def _predict(run: Run, patches: np.ndarray) -> np.ndarray:
    return np.asarray(prediction_step(run.network)(patches))[:, -1]


def _predict_windows(run: Run, pixels: np.ndarray, corners: np.ndarray, side: int, tell) -> np.ndarray:
    """Probability of each window, one view."""
    p, size = np.empty(len(corners), "float32"), min(BATCH, len(corners))
    for start in range(0, len(corners), size):
        part = np.resize(corners[start : start + size], (size, 2))  # one shape, so that nothing is compiled twice
        batch = np.stack([pixels[row : row + side, column : column + side] for row, column in part])
        p[start : start + size] = _predict(run, batch)[: len(corners) - start]
        tell(min(1.0, (start + size) / len(corners)))
    return p


def _views(run: Run, patch: np.ndarray) -> tuple[np.ndarray, str]:
    if not answers_views_alike(run.network):
        return _predict(run, np.concatenate(list(eight_views(patch[None])))), "flips and quarter turns"
    height, width = patch.shape[:2]
    padded = np.pad(patch, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
    moves = [(y, x) for y in (0, SHIFT, 2 * SHIFT) for x in (0, SHIFT, 2 * SHIFT) if (y, x) != (0, 0)]
    moved = np.stack([padded[y : y + height, x : x + width] for y, x in moves])
    return _predict(run, moved), f"shifts by {SHIFT} pixels; flips and turns are answered alike by construction"


def _spread_out(p: np.ndarray, corners: np.ndarray, shape: tuple[int, int], side: int) -> np.ndarray:
    """The mean probability of the windows whose middle is near a pixel: the label speaks of a window's middle."""
    edge = (side - STRIDE) // 2
    sums, counts = np.zeros(shape, "float32"), np.zeros(shape, "float32")
    for (row, column), value in zip(corners, p, strict=True):
        top, left = (0 if at == 0 else at + edge for at in (row, column))
        bottom, right = (end if at + side == end else at + side - edge for at, end in zip((row, column), shape, strict=True))
        sums[top:bottom, left:right] += value
        counts[top:bottom, left:right] += 1
    return sums / np.maximum(counts, 1)


def _highest(corners: np.ndarray, p: np.ndarray, side: int) -> pd.DataFrame:
    """The windows with the highest probabilities; one that overlaps a higher one is left out."""
    chosen = []
    for number in np.argsort(-p, kind="stable"):
        if all(np.abs(corners[number] - corners[other]).max() >= side for other in chosen):
            chosen.append(number)
        if len(chosen) == HIGHEST:
            break
    return pd.DataFrame({"x": corners[chosen, 1], "y": corners[chosen, 0], "probability": p[chosen]})
