"""The sample of organs in the layout of the Kaggle set Multi Cancer: 26 subclasses in 8 folders.

H&E, blood and Pap smears are amounts of stain; MRI and CT are levels of gray.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from histopath.synthetic import drawing
from histopath.synthetic.drawing import PAD, Canvas, CellKind, GlandKind, noise
from histopath.synthetic.files import Sample

SIZE = 128  # pixels along an image
LENGTH = SIZE + 2 * PAD
IMAGES = 16  # of a subclass
EVERYWHERE = np.ones((LENGTH, LENGTH), bool)
SUBJECTS = {  # organ: folder, optical density of both stains in red, green and blue light
    "all": ("ALL", ((176, 196, 70), (40, 190, 50))),
    "brain": ("Brain Cancer", None),
    "breast": ("Breast Cancer", ((120, 196, 90), (20, 170, 70))),
    "cervix": ("Cervical Cancer", ((176, 84, 48), (14, 116, 108))),
    "colon": ("Lung and Colon Cancer", ((170, 200, 90), (24, 160, 80))),
    "kidney": ("Kidney Cancer", None),
    "lung": ("Lung and Colon Cancer", ((190, 200, 52), (60, 200, 50))),
    "lymph": ("Lymphoma", ((150, 200, 140), (30, 150, 110))),
    "oral": ("Oral Cancer", ((180, 186, 84), (80, 160, 70))),
}
KINDS = drawing.CELLS | {
    "columnar": CellKind((24, 34), (46, 66), 8, (120, 220), (44, 70), 90, 30),
    "small": CellKind((15, 21), (76, 101), 6, (150, 300), (40, 90), 120, 30),
    "medium": CellKind((22, 29), (66, 96), 10, (90, 190), (40, 80), 100, 40, 1),
    "large": CellKind((44, 62), (62, 92), 16, (70, 170), (40, 90), 90, 50, 2),
    "ring": CellKind((36, 44), (84, 101), 5, (6, 20), (8, 30), 0, 34),
    "blast": CellKind((54, 78), (80, 101), 12, (130, 210), (60, 150), 70, 20, 2),
    "body": CellKind((66, 92), (84, 101), 14, (40, 90), (20, 70), 24),
}
CRYPT = GlandKind((18, 27), (76, 100), 5, (26, 40), (24, 50), "columnar", 6)
DUCT = GlandKind((14, 23), (60, 100), 5, (40, 50), (34, 74), "medium", 5, 300)
BROKEN = GlandKind((16, 30), (45, 95), 12, (30, 42), (30, 66), "large", 7, 400)
PEARL = GlandKind((9, 15), (70, 100), 3, (0, 1), (10, 150), "spindle", 9)
SQUAMES = {  # cells of a Pap smear, painted as glands: the lumen is the halo of a koilocyte
    "dyk": GlandKind((13, 21), (60, 100), 6, (0, 1), (26, 140), "medium", 0),
    "koc": GlandKind((20, 29), (70, 100), 5, (38, 46), (84, 20), "medium", 0),
    "mep": GlandKind((14, 20), (70, 100), 4, (0, 1), (100, 22), "medium", 0),
    "pab": GlandKind((10, 14), (84, 100), 2, (0, 1), (120, 34), "medium", 0),
    "sfi": GlandKind((22, 32), (66, 100), 6, (0, 1), (60, 16), "small", 0),
}
WHITE_CELLS = {"benign": (2, 6), "early": (2, 4), "pre": (5, 8), "pro": (9, 14)}  # in an image
LESIONS = {"glioma": (16, 13), "menin": (24, 10), "tumor": (0, 7)}  # off the middle line, radius
CONTENTS = """ORGAN/SUBCLASS/        16 images each, 128x128 RGB, JPEG of quality 95
Malignant are all_early, all_pre, all_pro, brain_*, breast_malignant, cervix_dyk, cervix_koc,
kidney_tumor, colon_aca, lung_aca, lung_scc, lymph_* and oral_scc; the others are benign."""


def patchy(rng: Generator, cell: int, percent: int) -> np.ndarray:
    """Returns wavy patches, bool (LENGTH, LENGTH), about `cell` wide over `percent` of a canvas."""
    field = noise(rng, cell, LENGTH) * 8 + noise(rng, 9, LENGTH)
    return field < np.sort(field, axis=None)[field.size * percent // 100]


def paint_blood(rng: Generator, cells: drawing.Cells, stage: str) -> Canvas:
    """Paints a blood smear: red cells as pale rings, and lymphocytes or more and more blasts."""
    canvas = Canvas(rng, cells, drawing.glass(rng, LENGTH))
    canvas.scatter(EVERYWHERE, int(rng.integers(12, 17)), {"ring": int(rng.integers(45, 85))})
    places = drawing.jittered_grid(rng, 22, 7, EVERYWHERE)
    places = places[((places > PAD) & (places < LENGTH - PAD)).all(1)]
    for place in places[: int(rng.integers(*WHITE_CELLS[stage]))]:
        for kind in ["lymphocyte"] if stage == "benign" else ["body", "blast"]:
            canvas.paste(kind, int(rng.integers(20, 70)), place)
    return canvas


def paint_cervix(rng: Generator, cells: drawing.Cells, kind: str) -> Canvas:
    """Paints a Pap smear: large translucent cells, blue or orange, and stray leukocytes."""
    canvas, squame = Canvas(rng, cells, drawing.glass(rng, LENGTH) * 3), SQUAMES[kind]
    spacing, dense = squame.radius[1] * 5 // 4, patchy(rng, 44, int(rng.integers(50, 96)))
    for place in drawing.jittered_grid(rng, spacing, spacing // 4, dense):
        stain = squame.stain[::-1] if rng.integers(0, 100) < 14 else squame.stain
        stain = np.array(stain) * rng.integers(60, 140, 2) // 100
        canvas.paint_gland(squame._replace(stain=stain), place, cover=190)
        canvas.paste(squame.nucleus, int(rng.integers(48, 96)), place)
    canvas.scatter(patchy(rng, 30, int(rng.integers(5, 60))), 11, {"small": 24})
    return canvas


def paint_section(
    rng: Generator,
    cells: drawing.Cells,
    gland: GlandKind | None = None,
    nests: tuple[int, str, int] = (0, "medium", 8),
    gaps: int = 0,
) -> Canvas:
    """Paints H&E: collagen with glands or nests of crowded cells, `gaps` percent of it empty.

    `nests` are percent of the canvas, kind of cell, pixels between cells.
    """
    turn, empty = int(rng.integers(0, 16)), patchy(rng, 24, gaps)
    ground = np.where(empty, drawing.glass(rng, LENGTH), drawing.stroma(rng, LENGTH, turn))
    canvas, nest = Canvas(rng, cells, ground), patchy(rng, 28, nests[0]) & ~empty
    canvas.stain[1] += nest * 24
    canvas.scatter(~empty & ~nest, 9, {"lymphocyte": int(rng.integers(4, 30)), "spindle": 14}, turn)
    canvas.scatter(nest, nests[2], {nests[1]: 90})
    if gland:
        canvas.paint_glands(gland, EVERYWHERE, int(rng.integers(46, 58)))
    return canvas


def paint_alveoli(rng: Generator, cells: drawing.Cells) -> Canvas:
    """Paints normal lung: thin walls around air."""
    canvas = Canvas(rng, cells, drawing.fat(rng, LENGTH) * 2)
    canvas.scatter(canvas.stain[1] > 70, 7, {"spindle": 28, "lymphocyte": 16, "red cell": 30})
    return canvas


def paint_lymphoma(rng: Generator, cells: drawing.Cells, percent: int) -> Canvas:
    """Paints a lymphoma: small cells side by side, and medium ones over `percent` of the canvas."""
    canvas, pale = Canvas(rng, cells, drawing.lymph(rng, LENGTH)), patchy(rng, 40, percent)
    canvas.scatter(~pale, 5, {"small": 90})
    canvas.scatter(pale, 7, {"medium": 80})
    return canvas


def paint_lining(rng: Generator, cells: drawing.Cells) -> Canvas:
    """Paints the normal lining of the mouth: layers of cells between glass and collagen."""
    depth = np.arange(LENGTH)[:, None] - int(rng.integers(24, 62)) - noise(rng, 50, LENGTH) // 16
    ground = np.where(depth < 0, drawing.glass(rng, LENGTH), drawing.stroma(rng, LENGTH))
    ground = np.where((depth >= 0) & (depth < 56), [[[40]], [[84]]], ground)
    canvas = Canvas(rng, cells, ground)
    canvas.scatter((depth > 12) & (depth < 50), 9, {"medium": 90})
    canvas.scatter((depth >= 50) & (depth < 56), 6, {"columnar": 92}, turn=8)
    canvas.scatter(depth > 60, 9, {"spindle": 20, "lymphocyte": 10})
    return canvas


def blob(rng: Generator, place: np.ndarray, radius: int, percent: int, turn: int = 0) -> np.ndarray:
    """Returns how far out in a bent ellipse every pixel is, squared: 1024 at its border."""
    rows, columns = (
        8 * (line - at) + (noise(rng, 4 + radius // 2, SIZE) - 128) // 4
        for line, at in zip(np.ogrid[:SIZE, :SIZE], place, strict=True)
    )
    return drawing.ellipse(rows, columns, 8 * radius, 8 * radius * percent // 100, turn)


def fill(image: np.ndarray, out: np.ndarray, level: int | np.ndarray, limit: int = 1024) -> None:
    """Fills the image with a level of gray where `out` is below `limit`, with a soft border."""
    image += (level - image) * np.clip((limit - out) * 4 // 3, 0, 256) >> 8


def paint_brain(rng: Generator, kind: str) -> np.ndarray:
    """Paints an MRI of a head: scalp, skull, brain, ventricles and a lesion."""
    image, gray = np.zeros((SIZE, SIZE), int), int(rng.integers(60, 96))
    turn, middle = 8 * int(rng.integers(0, 2)), 64 + rng.integers(-3, 4, 2)
    head = blob(rng, middle, int(rng.integers(48, 58)), 82, turn)
    for limit, level in (1024, int(rng.integers(90, 190))), (880, 14), (760, gray):
        fill(image, head, level, limit)
    along = np.array([turn // 8, 1 - turn // 8])
    for side in (-6, 6):
        fill(image, blob(rng, middle + side * along[::-1], 13, 34, turn), gray // 3)
    away, radius = LESIONS[kind]
    side, shift = 1 - 2 * rng.integers(0, 2), rng.integers(-18, 19)
    place = middle + side * away * along[::-1] + shift * along
    lesion = blob(rng, place, radius + int(rng.integers(-2, 3)), 86)
    lesion = np.where(head < 750, lesion, 1 << 20)
    fill(image, lesion, int(rng.integers(140, 220)) + noise(rng, 4, SIZE) // 7)
    if kind == "glioma":  # a ring
        fill(image, lesion, gray - 10, int(rng.integers(350, 700)))
    return image


def paint_kidney(rng: Generator, kind: str) -> np.ndarray:
    """Paints a CT of an abdomen: fat, muscle, liver, spine, kidneys and a mass on one of them."""
    image, middle = np.zeros((SIZE, SIZE), int), 62 + rng.integers(-3, 4, 2)
    body = blob(rng, middle, int(rng.integers(50, 60)), int(rng.integers(68, 82)))
    for limit, level in (1024, 52), (int(rng.integers(680, 860)), 118), (600, 48):
        fill(image, body, level, limit)
    for shift, radius, percent, turn, level in (
        ((-8, -24), 18, 84, 4, 138),
        ((-8, 14), 15, 60, 0, 100),
        ((14, 0), 8, 90, 0, 230),
    ):
        organ = blob(rng, middle + shift, radius + int(rng.integers(-2, 3)), percent, turn)
        fill(image, organ, level)
    sick, bright = int(rng.integers(0, 2)), int(rng.integers(165, 215))
    for side in (0, 1):
        place = middle + (rng.integers(5, 12), (2 * side - 1) * rng.integers(23, 28))
        kidney = blob(rng, place, int(rng.integers(9, 12)), 68, 10 - 4 * side)
        fill(image, kidney, bright)
        fill(image, kidney, bright - 60, 260)
        if side == sick and kind == "tumor":
            mass = blob(rng, place + rng.integers(-7, 8, 2), int(rng.integers(8, 15)), 88)
            fill(image, mass, bright - int(rng.integers(10, 60)) + noise(rng, 4, SIZE) // 4 - 32)
            fill(image, mass, 92, int(rng.integers(0, 500)))
    return image


PAINTERS = {
    **{f"all_{stage}": partial(paint_blood, stage=stage) for stage in WHITE_CELLS},
    **{f"brain_{kind}": partial(paint_brain, kind=kind) for kind in LESIONS},
    **{f"cervix_{kind}": partial(paint_cervix, kind=kind) for kind in SQUAMES},
    "breast_benign": partial(paint_section, gland=DUCT),
    "breast_malignant": partial(paint_section, nests=(65, "medium", 8)),
    "colon_aca": partial(paint_section, gland=BROKEN),
    "colon_bnt": partial(paint_section, gland=CRYPT),
    "kidney_normal": partial(paint_kidney, kind="normal"),
    "kidney_tumor": partial(paint_kidney, kind="tumor"),
    "lung_aca": partial(paint_section, nests=(99, "large", 14), gaps=24),
    "lung_bnt": paint_alveoli,
    "lung_scc": partial(paint_section, nests=(96, "large", 14), gland=PEARL),
    "lymph_cll": partial(paint_lymphoma, percent=4),
    "lymph_fl": partial(paint_lymphoma, percent=45),
    "lymph_mcl": partial(paint_lymphoma, percent=96),
    "oral_normal": paint_lining,
    "oral_scc": partial(paint_section, nests=(70, "large", 12), gland=PEARL),
}


def render_image(rng: Generator, cells: drawing.Cells, subclass: str) -> np.ndarray:
    """Draws one image, uint8 (SIZE, SIZE, 3) RGB; MRI and CT have three equal channels."""
    paint, (_, stains) = PAINTERS[subclass], SUBJECTS[subclass.split("_")[0]]
    if stains is None:
        image = np.clip(paint(rng) + rng.integers(-5, 6, (SIZE, SIZE)), 0, 255)
        return image.astype(np.uint8)[..., None].repeat(3, -1)
    stains, white = drawing.vary_stains(rng, np.array(stains)), rng.integers(235, 256)
    exposure = drawing.Exposure(stains, np.full(3, white), 2, int(rng.integers(1, 4)))
    return paint(rng, cells).expose(exposure)


def render_images(seed: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Draws every image of the sample: its subclass, number and pixels."""
    cells = drawing.draw_cells(seed, KINDS)
    for order, subclass in enumerate(sorted(PAINTERS)):
        for number in range(1, IMAGES + 1):
            rng = default_rng([seed, 20, order, number])
            yield subclass, number, render_image(rng, cells, subclass)


def draw_organs(folder: Path, seed: int) -> None:
    """Writes all images into an empty folder."""
    for subclass, number, image in render_images(seed):
        organ, _ = SUBJECTS[subclass.split("_")[0]]
        path = folder / organ / subclass / f"{subclass}_{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=95)


ORGANS = Sample("sample-organs", CONTENTS, draw_organs)
