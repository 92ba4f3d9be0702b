"""Draws grey scans of the organ sample: a generator and a kind come in, an MRI of a head or a CT of an abdomen goes out.

None is real. Everything is painted as integer grey levels on a square of SIZE pixels; lengths are in pixels, a turn is a
direction in steps of 11.25 degrees.
"""

import numpy as np

from histopath.tissue import ellipse, grain

SIZE = 128  # pixels along a scan


def blob(
    rng: np.random.Generator, middle: tuple[int, int], radius: int, percent: int, turn: int = 0, bend: int = 0
) -> np.ndarray:
    """Returns how far out (SIZE, SIZE) in a bent ellipse every pixel is, squared: 0 in the middle, 1024 at the border."""
    bends = ((grain(rng, 4 + radius // 2, SIZE) - 128) * bend // 12 for _ in range(2))
    rows, columns = (8 * (line - place) + next(bends) for line, place in zip(np.ogrid[:SIZE, :SIZE], middle, strict=True))
    return ellipse(rows, columns, 8 * radius, 8 * max(radius * percent // 100, 1), turn)


def lay(image: np.ndarray, out: np.ndarray, level: np.ndarray | int, limit: int = 1024, soft: int = 3) -> None:
    """Lays a grey level over the image (SIZE, SIZE) where `out` is below `limit`, with a border `soft` times softer."""
    image += (level - image) * np.clip((limit - out) * 4 // soft, 0, 256) >> 8


def paint_brain(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Paints an MRI of a head: bright scalp, dark skull, grey brain, dark ventricles and a bright lesion."""
    image, grey = np.zeros((SIZE, SIZE), np.int64), int(rng.integers(60, 96))
    upright, radius = bool(rng.integers(0, 2)), int(rng.integers(48, 58))
    turn = (8 if upright else 0) + int(rng.integers(-1, 2))
    middle = 64 + rng.integers(-3, 4, 2)
    head = blob(rng, middle, radius, int(rng.integers(76, 88)), turn % 16, 3)
    for limit, level in ((1024, int(rng.integers(90, 190))), (880, 14), (760, grey)):
        lay(image, head, level, limit)
    folds = np.abs(grain(rng, 9, SIZE) - 128) < 14
    image += (grain(rng, 12, SIZE) - 128) * grey * (head < 740) >> 9
    image -= folds * (head < 740) * np.clip(head - 200, 0, 500) * grey >> 10
    along, across = np.array([1, 0] if upright else [0, 1]), np.array([0, 1] if upright else [1, 0])
    for side in (-1, 1):
        lay(image, blob(rng, middle + side * 6 * across - 3 * along, 13, 34, turn % 16, 3), grey // 3)
    paint_lesion(rng, image, kind, grey, (middle, along, across), head < 750)
    return image


def paint_lesion(rng: np.random.Generator, image: np.ndarray, kind: str, grey: int, frame: tuple, brain: np.ndarray) -> None:
    """Paints a ragged ring (glioma), a bright ball at the skull (menin) or a small one on the middle line (tumor)."""
    middle, along, across = frame
    side, texture = 1 - 2 * int(rng.integers(0, 2)), grain(rng, 4, SIZE)
    if kind == "glioma":
        place, size = middle + side * across * int(rng.integers(12, 21)) + along * int(rng.integers(-18, 19)), (10, 17)
    elif kind == "menin":
        place, size = middle + side * across * int(rng.integers(21, 27)) + along * int(rng.integers(-16, 17)), (7, 13)
    else:
        place, size = middle + along * int(rng.integers(12, 24)) + across * int(rng.integers(-2, 3)), (5, 9)
    out = blob(rng, place, int(rng.integers(*size)), 86, int(rng.integers(0, 16)), 5 if kind == "glioma" else 2)
    out = np.where(brain, out, 1 << 20)
    if kind == "glioma":
        lay(image, out, grey * 3 // 5, 1800, 8)  # water around it
    lay(image, out, int(rng.integers(130, 220)) + texture // 7)
    if kind == "glioma":
        lay(image, out, grey - 24 + texture // 5, int(rng.integers(350, 700)))


def paint_kidney(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Paints a CT of an abdomen: fat, muscle, liver, bowel, spine, and kidneys with or without a mass."""
    image, middle = np.zeros((SIZE, SIZE), np.int64), 62 + rng.integers(-3, 4, 2)
    body = blob(rng, middle, int(rng.integers(50, 60)), int(rng.integers(68, 82)), 0, 3)
    table = blob(rng, middle + (-170, 0), 232, 100)
    image += 70 * (np.abs(table - 1024) < 10)
    for limit, level in ((1024, 90), (985, 52), (int(rng.integers(680, 860)), 118), (600, 48)):
        lay(image, body, level, limit)
    lay(image, blob(rng, middle + (-8, -24), int(rng.integers(15, 21)), 84, 4, 4), 138 + grain(rng, 3, SIZE) // 20)
    for _ in range(int(rng.integers(4, 8))):
        loop = blob(rng, middle + (int(rng.integers(-24, 4)), int(rng.integers(-6, 32))), int(rng.integers(4, 9)), 70, 3, 3)
        lay(image, loop, int(rng.integers(96, 150)))
        lay(image, loop, 8, int(rng.integers(-900, 420)))
    lay(image, blob(rng, middle + (12, 0), 8, 90, 0, 2), 205 + grain(rng, 3, SIZE) // 6)
    lay(image, blob(rng, middle + (23, 0), 9, 40, 8, 2), 190)
    lay(image, blob(rng, middle + (21, 0), 3, 100), 100)
    paint_kidneys(rng, image, kind, middle)
    return image


def paint_kidneys(rng: np.random.Generator, image: np.ndarray, kind: str, middle: np.ndarray) -> None:
    """Paints two bright kidneys beside the spine of the abdomen that is centred at `middle`, for a tumor a mass on one."""
    sick, bright = int(rng.integers(0, 2)) if kind == "tumor" else -1, int(rng.integers(165, 215))
    for side in (0, 1):
        place = middle + (int(rng.integers(5, 12)), (2 * side - 1) * int(rng.integers(23, 28)))
        kidney = blob(rng, place, int(rng.integers(9, 12)), 68, 10 - 4 * side, 2)
        lay(image, kidney, bright)
        lay(image, kidney, bright - 60, 260)
        if side == sick:
            mass = blob(rng, place + rng.integers(-7, 8, 2), int(rng.integers(8, 15)), 88, 0, 3)
            lay(image, mass, bright - int(rng.integers(10, 60)) + (grain(rng, 4, SIZE) - 128) // 4)
            lay(image, mass, 92, int(rng.integers(0, 500)))


SCANNED = {"brain": paint_brain, "kidney": paint_kidney}


def render_scan(rng: np.random.Generator, organ: str, kind: str) -> np.ndarray:
    """Draws one scan with the noise of its scanner.

    Args:
        rng: Where all chance comes from.
        organ: `brain` (MRI) or `kidney` (CT).
        kind: `glioma`, `menin` or `tumor` of the brain; `normal` or `tumor` of the kidney.

    Returns:
        The image (128, 128, 3) uint8 RGB with three equal channels.
    """
    grey = SCANNED[organ](rng, kind) + (grain(rng, 3, SIZE) - 128) // 24 + rng.integers(-5, 6, (SIZE, SIZE))
    return np.clip(grey, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)
