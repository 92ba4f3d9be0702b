"""Stain separation and color statistics: patches in, densities and one row of numbers a patch out.

Hematoxylin stains nuclei blue and eosin stains the rest pink. Images are uint8 (M, H, W, 3) RGB, memory-mapped or
not; `rows` are row numbers (N,), and patches are read in batches so that memory stays bounded.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from skimage.color import rgb2hed
from skimage.util import img_as_float32

GLASS = 220  # a pixel whose darkest channel is at least this shows empty glass
BLACK = 40  # a pixel whose brightest channel is at most this shows no light: a fold, ink, or the slide's edge
SHARE = 0.95  # share of such pixels from which a whole patch counts as near-white or near-black


def separate(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hematoxylin and eosin of each pixel, by the color deconvolution of Ruifrok and Johnston 2001.

    Args:
        images: uint8 (N, H, W, 3).

    Returns:
        Hematoxylin and eosin, each float32 (N, H, W), as decadic optical density: 0 on white glass, about 1 where a
        stain is strong, never negative.
    """
    # rgb2hed counts in powers of 1e-6, which makes one unit of its result 6 of optical density.
    stains = 6 * rgb2hed(img_as_float32(images))
    return stains[..., 0].astype(np.float32), stains[..., 1].astype(np.float32)


def _batches(images: np.ndarray, rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """The patches of the given rows, at most `batch` at a time."""
    rows = np.asarray(rows, dtype=np.int64)
    for start in range(0, len(rows), batch):
        yield images[rows[start : start + batch]]


def _statistics(patches: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `stain_statistics` for one batch, each (N,)."""
    hematoxylin, eosin = separate(patches)
    brightest = patches.max(axis=3).astype(np.float32)
    darkest = patches.min(axis=3).astype(np.float32)
    saturation = (brightest - darkest) / np.maximum(brightest, 1)
    return {
        "hematoxylin": hematoxylin.mean(axis=(1, 2)),
        "eosin": eosin.mean(axis=(1, 2)),
        "brightness": patches.mean(axis=(1, 2, 3)) / 255,
        "saturation": saturation.mean(axis=(1, 2)),
    }


def stain_statistics(images: np.ndarray, rows: np.ndarray, batch: int = 256) -> pd.DataFrame:
    """Mean stain and color of each patch.

    Returns:
        One row a patch, in the order of `rows`: `row`, `hematoxylin` and `eosin` (mean optical density),
        `brightness` (mean of the three channels, 0 black to 1 white), `saturation` (mean HSV saturation, 0 to 1).
    """
    parts = [pd.DataFrame(_statistics(patches)) for patches in _batches(images, rows, batch)]
    if not parts:
        parts = [pd.DataFrame(columns=["hematoxylin", "eosin", "brightness", "saturation"], dtype=float)]
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "row", np.asarray(rows, dtype=np.int64))
    return table


def _share(images: np.ndarray, rows: np.ndarray, pixels, batch: int = 1024) -> np.ndarray:
    """Share of the pixels of each patch for which `pixels` (patches in, booleans out) is true: float64 (N,)."""
    shares = [pixels(patches).mean(axis=(1, 2)) for patches in _batches(images, rows, batch)]
    return np.concatenate(shares) if shares else np.empty(0)


def near_white(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which patches are empty glass: at least 95 % of their pixels have every channel at 220 or above. Bool (N,)."""
    return _share(images, rows, lambda patches: patches.min(axis=3) >= GLASS) >= SHARE


def near_black(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which patches hold no light: at least 95 % of their pixels have every channel at 40 or below. Bool (N,)."""
    return _share(images, rows, lambda patches: patches.max(axis=3) <= BLACK) >= SHARE


def duplicates(table: pd.DataFrame) -> list[np.ndarray]:
    """Groups of patches with equal pixels.

    Args:
        table: a table with a `pixel_hash` column, one row a patch.

    Returns:
        The positions of each group of two or more in the table, in the order of their first member.
    """
    hashes = table["pixel_hash"].to_numpy()
    repeated = np.flatnonzero(pd.Series(hashes).duplicated(keep=False))
    groups = pd.Series(repeated).groupby(hashes[repeated], sort=False)
    return [group.to_numpy() for _, group in groups]
