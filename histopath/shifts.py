"""What a scanner, a stain or a codec may change: the same patches, changed more and more. In and out: uint8 patches."""

from collections.abc import Callable

import cv2
import numpy as np

from histopath.augment import STAINS

SEVERITIES = (0, 1, 2, 3, 4)


def stain(images: np.ndarray, severity: int) -> np.ndarray:
    """Haematoxylin up and eosin down, by 10 % a step, in optical density."""
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


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype("uint8")
