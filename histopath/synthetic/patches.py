"""The sample of patches in the layout of the Kaggle competition."""

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng

from histopath.synthetic import drawing
from histopath.synthetic.drawing import CANVAS, PAD, Canvas, Exposure, noise
from histopath.synthetic.files import Sample, write_tiff

SIZE = 96  # pixels along a patch
CENTER = slice(32, 64)  # rows and columns that decide the label, as in PCam
TRAIN_SLIDES, TEST_SLIDES, TEST_PATCHES = 24, 8, 12
HEALTHY_SLIDES = (3, 10, 17, 26)
SCENES = [  # both tissues, weights of the pair without tumor and around tumor
    ("lymph", "lymph", 46, 26),
    ("lymph", "stroma", 18, 26),
    ("lymph", "fat", 9, 10),
    ("stroma", "stroma", 9, 20),
    ("fat", "fat", 6, 4),
    ("stroma", "fat", 6, 8),
    ("stroma", "glass", 3, 6),
    ("stroma", "blood", 3, 0),
]
CONTENTS = """train/, test/          patches named by the SHA-1 of their pixels
train_labels.csv       id,label: 1 when the center 32x32 pixels hold (drawn) tumor, else 0
sample_submission.csv  id,label: the rows a submission must have
slides.csv             id,slide: the (invented) slide of every patch
Planted in train/: two exact duplicates (the word "duplicate" is part of their SHA-1), three near
duplicates, three near-white and two near-black patches."""


class Slide(NamedTuple):
    """One slide: how it looks, percent of places with a cell, percent of patches with tumor."""

    name: str
    exposure: Exposure
    density: int
    tumor_percent: int


class Patch(NamedTuple):
    """One patch: image uint8 (96, 96, 3) RGB, mask bool (96, 96) of tumor, why it was drawn."""

    part: str
    id: str
    slide: str
    label: int
    image: np.ndarray
    mask: np.ndarray
    kind: str


def make_slide(seed: int, number: int) -> Slide:
    """Returns slide `number`: a blue-purple stain (odd numbers) or a brown-pink one."""
    rng, purple = default_rng([seed, 2, number]), number % 2
    colors = drawing.stain_colors(rng, purple)
    percent = 0 if number in HEALTHY_SLIDES else int(rng.integers(36, 72))
    exposure = Exposure(*colors, *drawing.scanner(rng, purple))
    return Slide(f"slide_{number + 1:02d}", exposure, int(rng.integers(84, 104)), percent)


def paint_cells(canvas: Canvas, region: np.ndarray, density: int, turn: int) -> None:
    """Scatters cells by the tissue that `region` (CANVAS, CANVAS) names, at `density` percent."""
    rng, near = canvas.rng, np.zeros(region.shape, bool)
    near[PAD - 6 : 7 - PAD, PAD - 6 : 7 - PAD] = True
    places = drawing.jittered_grid(rng, int(rng.integers(7, 9)), 2, near)
    tissue, crowd = (field[tuple(places.T)] for field in (region, noise(rng, 22)))
    chance, which = rng.integers(0, 100, len(places)), drawing.choose_drawings(rng, len(places))
    lymphoid, fibrous = tissue == "lymph", tissue == "stroma"
    crowded = density - np.maximum(0, 80 - crowd) // 2
    stray = (fibrous | (tissue == "nest")) & (chance < 3)
    found = {
        "histiocyte": lymphoid & (chance < 4),
        "lymphocyte": np.where(lymphoid, chance < crowded, stray),
        "spindle": fibrous & (chance < 13),
        "red cell": (tissue == "blood") & (chance < 75),
    }
    kinds = np.select(list(found.values()), list(found), "")
    which = np.where(kinds == "spindle", which // 16 * 16 + turn, which)
    for index in np.flatnonzero(kinds != ""):
        canvas.paste(kinds[index], which[index], places[index])


def tumor_region(rng: Generator, mode: str) -> np.ndarray:
    """Returns where tumor may grow, bool (CANVAS, CANVAS): over the center, or on one side."""
    rows, columns = np.indices((CANVAS, CANVAS))
    if mode == "outside":
        return ((rows, columns)[rng.integers(0, 2)] > 64) ^ bool(rng.integers(0, 2))
    middle, radius = CANVAS // 2 + rng.integers(-14, 15, 2), int(rng.integers(16, 100))
    border = radius + (noise(rng, 20) - 128) // 6
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < border**2


def paint_tumor(canvas: Canvas, inside: np.ndarray, mode: str) -> np.ndarray:
    """Paints tumor cells where `inside` is true and returns their mask, bool (CANVAS, CANVAS).

    In mode "center" a cell covers the center; in mode "outside" none comes within 8 pixels of it.
    """
    rng, mask, allowed = canvas.rng, np.zeros_like(inside), inside.copy()
    if mode == "outside":
        near = slice(PAD + 32 - 23, PAD + 64 + 24)  # a cell reaches at most 16 pixels
        allowed[near, near] = False
    places = drawing.jittered_grid(rng, int(rng.integers(13, 18)), 2, allowed)
    if mode == "center":
        places = np.concatenate([places, CANVAS // 2 + rng.integers(-8, 9, (1, 2))])
    which = drawing.choose_drawings(rng, len(places))
    for kind in ("cytoplasm", "tumor"):
        for place, index in zip(places, which, strict=True):
            canvas.paste(kind, index, place, mask)
    return mask


def render_patch(rng: Generator, slide: Slide, cells: drawing.Cells, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws the image uint8 (96, 96, 3) RGB of a patch, and the mask bool (96, 96) of its tumor.

    `mode` is "none" for no tumor, "center" for tumor in the center, "outside" only outside it.
    """
    weights = np.cumsum([scene[2 if mode == "none" else 3] for scene in SCENES])
    first, second = SCENES[int((weights <= rng.integers(0, weights[-1])).sum())][:2]
    turn, density = int(rng.integers(0, 16)), slide.density - int(rng.integers(0, 30))
    border = noise(rng, 46) + noise(rng, 11) // 4 - int(rng.integers(110, 200))
    share = np.clip(border * 32, 0, 256)
    grounds = {"lymph": drawing.lymph, "stroma": partial(drawing.stroma, turn=turn)}
    grounds |= {"fat": drawing.fat, "glass": drawing.glass, "blood": drawing.glass}
    ground = grounds[first](rng) * share + grounds[second](rng) * (256 - share) >> 8
    canvas, region = Canvas(rng, cells, ground), np.where(share > 128, first, second)
    mask = np.zeros((CANVAS, CANVAS), bool)
    if mode == "none":
        paint_cells(canvas, region, density, turn)
    else:
        inside = tumor_region(rng, mode)
        paint_cells(canvas, np.where(inside, "", region), density, turn)
        mask = paint_tumor(canvas, inside, mode)
        paint_cells(canvas, np.where(mask, "nest", ""), density, turn)
    return canvas.expose(slide.exposure), mask[PAD:-PAD, PAD:-PAD]


def name_patch(part: str, slide: str, image: np.ndarray, mask: np.ndarray, kind: str, suffix: bytes = b"") -> Patch:
    """Returns a patch named by the SHA-1 of its pixels and labeled by the center of its mask."""
    name = hashlib.sha1(image.tobytes() + suffix).hexdigest()
    return Patch(part, name, slide, int(mask[CENTER, CENTER].any()), image, mask, kind)


def render_patches(seed: int) -> list[Patch]:
    """Draws every patch of the sample, in the order of the tables."""
    cells, parts = drawing.draw_cells(seed), {"train": [], "test": []}
    for number in range(TRAIN_SLIDES + TEST_SLIDES):
        slide, part = make_slide(seed, number), "train" if number < TRAIN_SLIDES else "test"
        for index in range(TEST_PATCHES if part == "test" else 17 + number % 3):
            rng = default_rng([seed, 3, number, index])
            dice = int(rng.integers(0, 100))
            near = dice >= 95 and slide.tumor_percent
            mode = "center" if dice < slide.tumor_percent else "outside" if near else "none"
            drawn = render_patch(rng, slide, cells, mode)
            parts[part].append(name_patch(part, slide.name, *drawn, mode))
    train = parts["train"] + plant_patches(seed, parts["train"])
    keys = default_rng([seed, 4]).integers(0, 1 << 40, len(train))
    train = [train[index] for index in np.argsort(keys, kind="stable")]
    return train + sorted(parts["test"], key=lambda patch: patch.id)


def plant_patches(seed: int, train: list[Patch]) -> list[Patch]:
    """Returns what notebook 01 finds: near and exact duplicates, near-white and near-black."""
    rng = default_rng([seed, 5])
    flipped, turned, touched, *exact = (train[index] for index in (20, 90, 160, 230, 300))
    image = touched.image.copy()
    image[0, 0, 0] ^= 1
    planted = [
        (flipped, flipped.image[:, ::-1], flipped.mask[:, ::-1], "flipped"),
        (turned, np.rot90(turned.image), np.rot90(turned.mask), "turned"),
        (touched, image, touched.mask, "touched"),
        *((patch, patch.image, patch.mask, "exact", b"duplicate") for patch in exact),
    ]
    for kind, base, spread, like in ("white", 243, 6, (10, 120, 250)), ("black", 4, 9, (50, 340)):
        for index in like:
            shade = base + (noise(rng, 32, SIZE)[..., None] * spread >> 8)
            image = (shade + rng.integers(0, 5, (SIZE, SIZE, 3))).astype(np.uint8)
            planted.append((train[index], image, np.zeros((SIZE, SIZE), bool), kind))
    return [name_patch("train", patch.slide, *rest) for patch, *rest in planted]


def draw_patches(folder: Path, seed: int) -> None:
    """Writes images and tables into an empty folder."""
    patches = render_patches(seed)
    for patch in patches:
        write_tiff(folder / patch.part / f"{patch.id}.tif", patch.image)
    table = pd.DataFrame([patch[:4] for patch in patches], columns=Patch._fields[:4])
    train, test = table[table["part"] == "train"], table[table["part"] == "test"].assign(label=0)
    train.to_csv(folder / "train_labels.csv", columns=["id", "label"], index=False)
    test.to_csv(folder / "sample_submission.csv", columns=["id", "label"], index=False)
    table.to_csv(folder / "slides.csv", columns=["id", "slide"], index=False)


PATCHES = Sample("sample", CONTENTS, draw_patches)
