"""What a scanner, a stain or a codec may change: the same patches, changed more and more, and the AUC that is left.

In: uint8 patches (N, H, W, 3), RGB. Out: the same, changed, and a table of AUCs.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from histopath.metrics.multiclass import mean_auc
from histopath.models.predict import predict
from histopath.training.augment import STAINS

SEVERITIES = (0, 1, 2, 3, 4)


def stain(images: np.ndarray, severity: int) -> np.ndarray:
    """Hematoxylin up and eosin down, by 10 % a step, in optical density."""
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    scales = np.array([1 + 0.1 * severity, 1 - 0.1 * severity, 1.0])
    matrix = np.linalg.inv(unit) * scales @ unit
    density = -np.log((images.astype("float32") + 1) / 256)
    return _pixels(256 * np.exp(-(density @ matrix.astype("float32"))) - 1)


def blur(images: np.ndarray, severity: int) -> np.ndarray:
    """Out of focus: a Gaussian of 0.6 pixels a step."""
    return np.stack([cv2.GaussianBlur(image, (0, 0), 0.6 * severity) for image in images]) if severity else images


def jpeg(images: np.ndarray, severity: int) -> np.ndarray:
    """Saved as JPEG of quality 80, 60, 40, 20."""
    if not severity:
        return images
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100 - 20 * severity]
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR) for image in images])


def brightness(images: np.ndarray, severity: int) -> np.ndarray:
    """Darker by 8 % a step."""
    return _pixels(images * np.float32(1 - 0.08 * severity))


SHIFTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "stain": stain,
    "blur": blur,
    "JPEG": jpeg,
    "brightness": brightness,
}


class ShiftedPatches:
    """Patches that are changed when they are read, a batch at a time: stands where the array of patches stands."""

    def __init__(self, images: np.ndarray, change: Callable[[np.ndarray, int], np.ndarray], severity: int):
        self.images, self.change, self.severity, self.shape = images, change, severity, images.shape

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        return self.change(self.images[rows], self.severity)


def shifted_aucs(
    network, images: np.ndarray, rows: np.ndarray, labels: np.ndarray, batch_size: int = 64, unchanged: np.ndarray | None = None
) -> pd.DataFrame:
    """Scores one view of the same patches under every change and severity, with the first, or only, output of a network.

    Args:
        network: uint8 patches → probabilities.
        images: uint8 patches (M, H, W, 3), memory-mapped or not.
        rows: which of them are scored, (N,).
        labels: class numbers (N,).
        batch_size: patches in one step.
        unchanged: what the network says of one view of the unchanged patches, where that is known; None to ask it.

    Returns:
        The AUC (mean over the classes where there are more than two): index the severity, 0 unchanged, one column a change.
    """
    first = mean_auc(labels, predict(network, images, rows, 1, batch_size) if unchanged is None else unchanged)
    table = pd.DataFrame({name: first for name in SHIFTS}, index=pd.Index(SEVERITIES, name="severity"))
    for name, change in SHIFTS.items():
        for severity in SEVERITIES[1:]:
            p = predict(network, ShiftedPatches(images, change, severity), rows, 1, batch_size)
            table.loc[severity, name] = mean_auc(labels, p)
    return table


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype("uint8")
