"""The embedded organ sample: a seed comes in, eight organ folders with 26 subclass folders of JPEG images go out.

The layout is that of the Kaggle set Multi Cancer, which the third published system used. Every image is drawn, none
is real: H&E, blood and Pap smears are stain (see `tissue`), MRI and CT grey levels (see `scans`). Lengths are in pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from histopath.glands import GlandKind, paint_gland, paint_glands
from histopath.sample import Layout, write_whole
from histopath.scans import SCANNED, SIZE, render_scan
from histopath.tissue import (
    CELLS,
    PAD,
    CellKind,
    Look,
    draw_cells,
    expose,
    fat,
    generator,
    glass,
    grain,
    lymph,
    paste,
    scatter,
    spots,
    stroma,
    vary,
)  # fmt: skip

VERSION = 1
IMAGES = 16  # of a subclass
LENGTH = SIZE + 2 * PAD
EVERYWHERE = np.ones((LENGTH, LENGTH), bool)
FOLDERS = {
    "ALL": ("all_benign", "all_early", "all_pre", "all_pro"),
    "Brain Cancer": ("brain_glioma", "brain_menin", "brain_tumor"),
    "Breast Cancer": ("breast_benign", "breast_malignant"),
    "Cervical Cancer": ("cervix_dyk", "cervix_koc", "cervix_mep", "cervix_pab", "cervix_sfi"),
    "Kidney Cancer": ("kidney_normal", "kidney_tumor"),
    "Lung and Colon Cancer": ("colon_aca", "colon_bnt", "lung_aca", "lung_bnt", "lung_scc"),
    "Lymphoma": ("lymph_cll", "lymph_fl", "lymph_mcl"),
    "Oral Cancer": ("oral_normal", "oral_scc"),
}
STAINS = {  # what the two stains of a canvas absorb of red, green and blue light, by the first word of a subclass
    "all": ((176, 196, 70), (40, 190, 50)), "breast": ((120, 196, 90), (20, 170, 70)), "cervix": ((176, 84, 48), (14, 116, 108)),
    "colon": ((170, 200, 90), (24, 160, 80)), "lung": ((190, 200, 52), (60, 200, 50)),
    "lymph": ((150, 200, 140), (30, 150, 110)), "oral": ((180, 186, 84), (80, 160, 70)),
}  # fmt: skip
KINDS = {name: CELLS[name] for name in ("lymphocyte", "spindle", "cytoplasm", "red cell")} | {
    "columnar": CellKind((24, 34), (46, 66), 8, (120, 220), (44, 70), 90, 30),
    "small": CellKind((15, 21), (76, 101), 6, (150, 300), (40, 90), 120, 30),
    "medium": CellKind((22, 29), (66, 96), 10, (90, 190), (40, 80), 100, 40, 1),
    "large": CellKind((44, 62), (62, 92), 16, (70, 170), (40, 90), 90, 50, 2),
    "ring": CellKind((36, 44), (84, 101), 5, (6, 20), (8, 30), 0, 34),
    "mature": CellKind((38, 52), (80, 101), 8, (170, 240), (60, 110), 60),
    "blast": CellKind((54, 78), (80, 101), 12, (130, 210), (60, 150), 70, 20, 2),
    "body": CellKind((66, 92), (84, 101), 14, (40, 90), (20, 70), 24),
    "squame nucleus": CellKind((16, 24), (76, 101), 5, (170, 250), (80, 130), 60),
    "basal nucleus": CellKind((28, 40), (74, 101), 9, (150, 240), (80, 150), 60),
}
CRYPT = GlandKind((18, 27), (76, 100), 5, 26, (30, 60), 84, "columnar", 6)
DUCT = GlandKind((14, 23), (60, 100), 5, 44, (34, 74), 30, "medium", 7, 2)
TUMOUR_GLAND = GlandKind((16, 30), (45, 95), 12, 36, (30, 66), 50, "large", 11, 2, 25)
PEARL = GlandKind((9, 15), (70, 100), 3, 0, (10, 150), 0, "spindle", 9)
SQUAMES = {  # cells of a Pap smear, drawn as glands without a ring: the lumen is the halo, the gap the spacing
    "dyk": GlandKind((13, 21), (60, 100), 6, 0, (22, 104), 0, "basal nucleus", 23),
    "koc": GlandKind((20, 29), (70, 100), 5, 40, (74, 20), 0, "basal nucleus", 36),
    "mep": GlandKind((14, 20), (70, 100), 4, 0, (92, 20), 60, "basal nucleus", 30),
    "pab": GlandKind((10, 14), (84, 100), 2, 0, (104, 34), 20, "basal nucleus", 26),
    "sfi": GlandKind((22, 32), (66, 100), 6, 0, (50, 16), 0, "squame nucleus", 40),
}


@dataclass(frozen=True)
class Picture:
    """One image: organ folder, subclass, number from 1 on, and pixels (128, 128, 3) uint8 RGB."""

    organ: str
    subclass: str
    number: int
    image: np.ndarray


def patchy(rng: np.random.Generator, cell: int, percent: int) -> np.ndarray:
    """Returns wavy patches (LENGTH, LENGTH) bool about `cell` pixels wide over about `percent` percent of a canvas."""
    field = grain(rng, cell, LENGTH) * 8 + grain(rng, 9, LENGTH)
    return field < np.sort(field, axis=None)[field.size * percent // 100 - 1]


# Smears ---------------------------------------------------------------------------------------------------------------


def paint_all(rng: np.random.Generator, cells: dict, stage: str) -> np.ndarray:
    """Paints a blood smear: red cells as pale rings; white cells by stage more, larger and paler."""
    canvas = glass(rng, 0, LENGTH).astype(np.int32)
    scatter(rng, canvas, cells, EVERYWHERE, int(rng.integers(12, 17)), {"ring": int(rng.integers(45, 85))})
    few, many = {"benign": (2, 6), "early": (3, 8), "pre": (6, 12), "pro": (4, 9)}[stage]
    places = spots(rng, 22, 7, LENGTH)
    places = places[((places > PAD - 2) & (places < LENGTH - PAD + 2)).all(1)][: int(rng.integers(few, many))]
    shade = {"benign": 48, "early": 32, "pre": 16, "pro": 64}[stage] + rng.integers(0, 24, len(places))
    for place, index in zip(places, shade, strict=True):
        young = stage != "benign" and rng.integers(0, 100) < 85
        if young:
            paste(canvas, cells["body"][index], place + rng.integers(-2, 3, 2))
        paste(canvas, cells["blast" if young else "mature"][index], place)
    if stage == "pro":
        canvas[0] = canvas[0] * int(rng.integers(55, 90)) // 100
    return canvas


def paint_cervix(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints a Pap smear: large translucent cells, blue-green or orange, each with a dark nucleus, and stray leukocytes."""
    canvas, squame = glass(rng, 0, LENGTH).astype(np.int32) * 3, SQUAMES[kind]
    dense = patchy(rng, 44, int(rng.integers(50, 96)))
    places = spots(rng, squame.gap, squame.gap // 4, LENGTH)
    for place in places[dense[places[:, 0], places[:, 1]]]:
        blue, red = squame.stain[::-1] if rng.integers(0, 100) < 14 else squame.stain
        stain = (blue * int(rng.integers(60, 140)) // 100, red * int(rng.integers(60, 140)) // 100)
        sheet = np.zeros_like(canvas)
        paint_gland(rng, sheet, cells, replace(squame, stain=stain, layers=0), place)
        canvas += sheet - (np.minimum(canvas, 200) * sheet.max(0) >> 9)
        for _ in range(1 + (kind in ("koc", "dyk") and rng.integers(0, 100) < 35)):
            paste(canvas, cells[squame.nucleus][int(rng.integers(0, 96))], place + rng.integers(-4, 5, 2))
    scatter(rng, canvas, cells, patchy(rng, 30, int(rng.integers(5, 60))), 11, {"small": 24})
    return canvas


# H&E ------------------------------------------------------------------------------------------------------------------


def paint_breast(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints breast: ducts of two layers in collagen and fat, or nests of medium cells that crowd the collagen."""
    turn, firm = int(rng.integers(0, 16)), EVERYWHERE
    canvas = stroma(rng, turn, LENGTH).astype(np.int32)
    if rng.integers(0, 3) == 0:
        firm = patchy(rng, 60, 65)
        canvas = np.where(firm, canvas, fat(rng, 0, LENGTH)).astype(np.int32)
    scatter(rng, canvas, cells, firm, 9, {"spindle": 22, "small": 4}, turn)
    if kind == "benign":
        paint_glands(rng, canvas, cells, DUCT, firm, int(rng.integers(44, 60)))
    else:
        nests = firm & patchy(rng, int(rng.integers(18, 34)), int(rng.integers(45, 85)))
        canvas[1] += nests * 24
        scatter(rng, canvas, cells, nests, int(rng.integers(7, 9)), {"medium": 92})
    return canvas


def paint_colon(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints colon: round crypts in order, or crowded, broken glands with large dark nuclei."""
    canvas = stroma(rng, int(rng.integers(0, 16)), LENGTH).astype(np.int32) * 5 // 8
    scatter(rng, canvas, cells, EVERYWHERE, 8, {"lymphocyte": int(rng.integers(4, 44)), "spindle": 10})
    if kind == "bnt":
        paint_glands(rng, canvas, cells, CRYPT, EVERYWHERE, int(rng.integers(48, 58)))
    else:
        paint_glands(rng, canvas, cells, TUMOUR_GLAND, EVERYWHERE, int(rng.integers(46, 58)))
    return canvas


def paint_lung(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints lung: thin walls around air, or a carcinoma: with air and gaps (aca), or in sheets with keratin (scc)."""
    walls = fat(rng, 0, LENGTH).astype(np.int32)
    if kind == "bnt":
        canvas = walls * 2
        scatter(rng, canvas, cells, canvas[1] > 70, 7, {"spindle": 28, "lymphocyte": 16, "red cell": 30})
        return canvas
    canvas = stroma(rng, int(rng.integers(0, 16)), LENGTH).astype(np.int32) + 20
    gaps = patchy(rng, 22, int(rng.integers(14, 30))) if kind == "aca" else patchy(rng, 40, 4)
    canvas = np.where(gaps, glass(rng, 0, LENGTH), canvas).astype(np.int32)
    scatter(rng, canvas, cells, ~gaps, int(rng.integers(14, 17)), {"large": 86, "lymphocyte": 8}, under="cytoplasm")
    if kind == "scc":
        paint_glands(rng, canvas, cells, PEARL, EVERYWHERE, int(rng.integers(52, 90)))
    return canvas


def paint_lymph(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints a lymph node from afar: small cells side by side (cll), in follicles (fl), or medium ones in drifts (mcl)."""
    canvas = lymph(rng, 0, LENGTH).astype(np.int32)
    vessels = patchy(rng, 30, int(rng.integers(2, 10)))
    canvas[1] += vessels * 90
    if kind == "fl":
        pale = patchy(rng, 40, 45)
        scatter(rng, canvas, cells, pale & ~vessels, 7, {"medium": 66})
        scatter(rng, canvas, cells, ~pale & ~vessels, 5, {"small": 90})
    elif kind == "cll":
        scatter(rng, canvas, cells, ~vessels, 5, {"small": 88, "medium": 5})
    else:
        scatter(rng, canvas, cells, ~vessels & patchy(rng, 26, 88), 6, {"medium": 84, "small": 8})
    return canvas


def paint_oral(rng: np.random.Generator, cells: dict, kind: str) -> np.ndarray:
    """Paints the lining of the mouth under empty glass: layers in order, or nests with keratin that break downwards."""
    canvas = stroma(rng, int(rng.integers(0, 16)), LENGTH).astype(np.int32) * 6 // 8
    depth = np.arange(LENGTH)[:, None] - int(rng.integers(24, 62)) - (grain(rng, 50, LENGTH) >> 4)
    base = int(rng.integers(44, 70)) + (grain(rng, 26, LENGTH) - 128) // 8
    scatter(rng, canvas, cells, depth > base, 9, {"spindle": 20, "lymphocyte": 10})
    lining = (depth >= 0) & (depth < base)
    if kind == "scc":
        lining = (depth >= 0) & (lining & (depth > 14) | patchy(rng, 24, int(rng.integers(50, 75))))
    canvas[:, lining] = np.stack([26 + grain(rng, 3, LENGTH) // 9, 62 + grain(rng, 12, LENGTH) // 6])[:, lining]
    if kind == "scc":
        scatter(rng, canvas, cells, lining, int(rng.integers(11, 14)), {"large": 90})
        paint_glands(rng, canvas, cells, PEARL, lining, 60)
    else:
        scatter(rng, canvas, cells, lining & (depth > 12) & (depth < base - 9), 9, {"medium": 90})
        scatter(rng, canvas, cells, lining & (depth >= base - 9), 6, {"columnar": 92}, 8)
    canvas = np.where(depth < 0, glass(rng, 0, LENGTH), canvas).astype(np.int32)
    return np.rot90(canvas, int(rng.integers(0, 4)), (1, 2))


# The set --------------------------------------------------------------------------------------------------------------

STAINED = {"all": paint_all, "breast": paint_breast, "cervix": paint_cervix, "colon": paint_colon, "lung": paint_lung,
           "lymph": paint_lymph, "oral": paint_oral}  # fmt: skip


def render_picture(rng: np.random.Generator, cells: dict, subclass: str) -> np.ndarray:
    """Draws one image of a subclass.

    Args:
        rng: Where all chance comes from.
        cells: What `draw_cells` returned for KINDS.
        subclass: Such as `brain_glioma`.

    Returns:
        The image (128, 128, 3) uint8 RGB; MRI and CT have three equal channels.
    """
    organ, kind = subclass.split("_")
    if organ in SCANNED:
        return render_scan(rng, organ, kind)
    stains = vary(rng, np.array(STAINS[organ]))
    look = Look(stains, np.full(3, int(rng.integers(240, 256))) - rng.integers(0, 6, 3), 2, int(rng.integers(1, 4)))
    return expose(rng, STAINED[organ](rng, cells, kind), look)


def render_pictures(seed: int) -> Iterator[Picture]:
    """Draws every image of the sample, in the order of its path."""
    cells, subclasses = draw_cells(seed, KINDS), [(organ, name) for organ in FOLDERS for name in FOLDERS[organ]]
    for order, (organ, subclass) in enumerate(subclasses):
        for number in range(1, IMAGES + 1):
            yield Picture(organ, subclass, number, render_picture(generator(seed, 20, order, number), cells, subclass))


README = """A synthetic sample in the layout of the Kaggle set Multi Cancer.

Every image was drawn by a program (histopath/sample_organs.py, version {version}, seed {seed}). None shows a real
patient: nothing found here says anything about medicine, and a score on it says nothing about real images.

Eight organ folders with {subclasses} subclass folders of {images} images each, {size}x{size} RGB, JPEG of quality 95.
Malignant are all_early, all_pre, all_pro, brain_*, breast_malignant, cervix_dyk, cervix_koc, kidney_tumor, colon_aca,
lung_aca, lung_scc, lymph_* and oral_scc; the others are benign. sample.json says what wrote this folder.

As in the original, the kind of imaging gives the organ away: blood smear, MRI, H&E, Pap smear or CT.
"""


def draw_files(seed: int) -> Iterable[tuple[str, bytes]]:
    """Gives path and bytes of every file of the sample but sample.json."""
    for drawn in render_pictures(seed):
        _, data = cv2.imencode(".jpg", drawn.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        yield f"{drawn.organ}/{drawn.subclass}/{drawn.subclass}_{drawn.number:04d}.jpg", data.tobytes()
    subclasses = sum(len(names) for names in FOLDERS.values())
    text = README.format(version=VERSION, seed=seed, subclasses=subclasses, images=IMAGES, size=SIZE)
    yield "README.txt", text.encode()


PATHS = tuple(f"{organ}/{subclass}" for organ in FOLDERS for subclass in FOLDERS[organ])
LAYOUT = Layout("organ sample", VERSION, PATHS, ".jpg", (), draw_files)


def organs_folder(home: Path) -> Path:
    """Returns where the organ sample stands under the project root `home`."""
    return home / "data" / "sample-organs"


def write_organs(folder: Path, seed: int = 0) -> Path:
    """Writes the organ sample as `folder`, whole or not at all; see `write_whole`. The same seed gives the same pixels."""
    return write_whole(folder, seed, LAYOUT)
