"""Analysis of one uploaded image: tumor probability, heatmap, highest-scoring tiles, warnings."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from histopath.config import MICRONS_PER_PIXEL
from histopath.data.stains import BLACK, GLASS
from histopath.files import InputError
from histopath.models.gradcam import gradcam
from histopath.models.predict import predict
from histopath.models.runs import Run

TILE = 96  # pixels, as in PCam
STRIDE = 48  # pixels between tiles: neighbors overlap by half
CHUNK = 256  # tiles in memory at a time
TOP_TILES = 5
SCREEN = (480, 1400)  # shortest and longest side of a rendered image in pixels
LOWEST_SHARPNESS = 0.2


@dataclass(frozen=True)
class Analysis:
    """Result for one image.

    Attributes:
        pixels: the image at PCam's resolution, uint8 RGB (H, W, 3).
        scores: tumor probability of each tile, float32 (N,); a patch is one tile.
        top: tiles with the highest scores that do not overlap, as row and column of the upper
            left corner and score.
        heat: float32 (H, W) in [0, 1]: Grad-CAM of a patch, tile scores of a larger image.
        warnings: reasons to distrust the scores, one sentence each.
    """

    pixels: np.ndarray
    scores: np.ndarray
    top: list[tuple[int, int, float]]
    heat: np.ndarray
    warnings: list[str]


def analyze_image(
    run: Run,
    pixels: np.ndarray,
    microns_per_pixel: float,
    report: Callable[[float], None] = lambda share: None,
) -> Analysis:
    """Scores a patch, or a larger image tile by tile.

    Args:
        run: a binary classifier of 96×96 patches.
        pixels: uint8 RGB (H, W, 3).
        microns_per_pixel: resolution of the image, which is resized to PCam's 0.972.
        report: called with the share of tiles that are scored, in (0, 1].

    Raises:
        InputError: if the image is smaller than a patch or its resolution cannot be used.
    """
    pixels = _resize(pixels, microns_per_pixel)
    rows, columns = (tile_starts(length) for length in pixels.shape[:2])
    corners = [(row, column) for row in rows for column in columns]
    if len(corners) == 1:
        scores, heat = predict(run.network, pixels[None]), gradcam(run.network, pixels[None])[0]
    else:
        scores = _score_tiles(run, pixels, corners, report)
        heat = _heatmap(scores.reshape(len(rows), len(columns)), *pixels.shape[:2])
    return Analysis(pixels, scores, _top_tiles(corners, scores), heat, image_warnings(pixels))


def _resize(pixels: np.ndarray, microns_per_pixel: float) -> np.ndarray:
    """Resizes an image to PCam's resolution, unless they differ by less than 3%."""
    if not 0.05 <= microns_per_pixel <= 1.25:
        raise InputError(
            f"{microns_per_pixel:g} microns per pixel is outside the supported range of 0.05 to 1.25; "
            "typical values are 0.25 at 40×, 0.5 at 20× and 1 at 10×."
        )
    scale = microns_per_pixel / MICRONS_PER_PIXEL
    scale = 1 if abs(scale - 1) < 0.03 else scale
    height, width = (round(length * scale) for length in pixels.shape[:2])
    if min(height, width) < TILE:
        raise InputError(
            f"The image has {width}×{height} pixels at {MICRONS_PER_PIXEL} µm per pixel and needs at "
            f"least {TILE}×{TILE}; upload a larger region or correct the microns per pixel."
        )
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=resampling)


def tile_starts(length: int) -> list[int]:
    """Spaces tiles evenly from edge to edge, at most STRIDE pixels apart."""
    count = math.ceil((length - TILE) / STRIDE) + 1
    return np.linspace(0, length - TILE, count).round().astype(int).tolist()


def _score_tiles(run: Run, pixels: np.ndarray, corners: list[tuple[int, int]], report) -> np.ndarray:
    scores = np.empty(len(corners), "float32")
    for start in range(0, len(corners), CHUNK):
        chunk = corners[start : start + CHUNK]
        tiles = np.stack([pixels[row : row + TILE, column : column + TILE] for row, column in chunk])
        scores[start : start + CHUNK] = predict(run.network, tiles, views=1)
        report((start + len(chunk)) / len(corners))
    return scores


def _heatmap(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolates between the centers of tiles, which are what their labels describe."""
    edge = (TILE - STRIDE) // 2
    inner = cv2.resize(grid, (width - 2 * edge, height - 2 * edge))
    return cv2.copyMakeBorder(inner, edge, edge, edge, edge, cv2.BORDER_REPLICATE)


def _top_tiles(corners: list[tuple[int, int]], scores: np.ndarray) -> list[tuple[int, int, float]]:
    top = []
    for tile in np.argsort(-scores, kind="stable"):
        row, column = corners[tile]
        if all(max(abs(row - r), abs(column - c)) >= TILE for r, c, _ in top):
            top.append((row, column, float(scores[tile])))
        if len(top) == TOP_TILES:
            break
    return top


def image_warnings(pixels: np.ndarray) -> list[str]:
    """Lists reasons to distrust a prediction: little tissue, colors unlike H&E, blur.

    Sharpness is the variance of the Laplacian over that of the gray levels. It is below 0.2 for 1 of
    500 patches of PCam and Kaggle, and for 93% of them after a Gaussian blur of 1.5 pixels.

    Args:
        pixels: uint8 RGB (H, W, 3) at PCam's resolution.
    """
    tissue = (pixels.min(axis=2) < GLASS) & (pixels.max(axis=2) > BLACK)
    if tissue.mean() < 0.05:
        return ["The image is nearly empty: more than 95% of it is bare glass or black."]
    warnings, step = [], math.ceil(max(tissue.shape) / 1000)  # a sample of pixels bounds the memory
    colors = pixels[::step, ::step][tissue[::step, ::step]].astype("float32")
    red, green, blue = -np.log((colors.T + 1) / 256)
    # Hematoxylin and eosin absorb green most (Ruifrok and Johnston 2001).
    stained = ((green > 1.02 * red) & (green > 1.02 * blue)).mean() >= 0.6
    if not stained or np.ptp(colors, axis=1).mean() <= 12:
        warnings.append("The colors are unlike H&E, the only stain in the training data.")
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if cv2.Laplacian(gray, cv2.CV_32F)[tissue].var() < LOWEST_SHARPNESS * gray[tissue].var():
        warnings.append("The image looks blurred; check its focus and the microns per pixel.")
    return warnings


def render(analysis: Analysis) -> tuple[np.ndarray, np.ndarray]:
    """Draws the image at a size for the screen, plain and under its heatmap; frames the top tiles."""
    height, width = analysis.pixels.shape[:2]
    scale = np.clip(max(height, width), *SCREEN) / max(height, width)
    size = tuple(max(1, round(length * scale)) for length in (width, height))
    resampling = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    plain = cv2.resize(analysis.pixels, size, interpolation=resampling)
    heat = np.clip(cv2.resize(analysis.heat, size), 0, 1)
    colors = cv2.applyColorMap((255 * heat).astype("uint8"), cv2.COLORMAP_JET)[..., ::-1]
    weight = np.minimum(1.5 * heat, 0.45)[..., None]  # low values leave the tissue visible
    overlay = (plain * (1 - weight) + colors * weight).astype("uint8")
    framed = analysis.top if len(analysis.scores) > 1 else []
    for number, (row, column, _) in enumerate(framed, start=1):
        x, y, side = round(column * scale), round(row * scale), round(TILE * scale)
        for image in (plain, overlay):
            for color, line in (((0, 0, 0), 5), ((255, 255, 255), 2)):
                where, font = (x + 6, y + 24), cv2.FONT_HERSHEY_SIMPLEX
                cv2.rectangle(image, (x, y), (x + side, y + side), color, line)
                cv2.putText(image, str(number), where, font, 0.8, color, line)
    return plain, overlay
