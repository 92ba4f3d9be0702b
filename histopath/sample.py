"""The embedded synthetic sample: a seed comes in, a folder in the layout of the Kaggle competition goes out.

Every patch is drawn, none is real: `tissue` computes with integers alone and a TIFF is written by hand, so the files
are the same on every machine. `write_whole` writes this sample and the others of the project, whole or not at all.
"""

import hashlib
import json
import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histopath import tissue
from histopath.tissue import CANVAS, PAD, Look, drawings, expose, generator, grain, paste, scanner, spots, stain_colours

VERSION = 1
SIZE = 96  # pixels along a patch
INNER = slice(PAD, PAD + SIZE)
CENTRE = slice(32, 64)  # rows and columns that decide the label, as in PCam
TRAIN_SLIDES, TEST_SLIDES, TEST_PATCHES = 24, 8, 12
HEALTHY_SLIDES = (3, 10, 17, 26)
DUPLICATE_SUFFIX = b"duplicate"  # an exact duplicate is named by the SHA-1 of its pixels followed by this
SCENES = (  # first tissue, second tissue, weight where there is no tumour, weight around tumour
    ("lymph", "lymph", 46, 26), ("lymph", "stroma", 18, 26), ("lymph", "fat", 9, 10), ("stroma", "stroma", 9, 20),
    ("fat", "fat", 6, 4), ("stroma", "fat", 6, 8), ("stroma", "glass", 3, 6), ("stroma", "blood", 3, 0),
)  # fmt: skip
TISSUES = {"lymph": tissue.lymph, "stroma": tissue.stroma, "fat": tissue.fat, "glass": tissue.glass, "blood": tissue.glass}
NAMES = np.array([*TISSUES, "nest", "other"])  # what the numbers in a region stand for


@dataclass(frozen=True)
class Slide(Look):
    """Look and habits of one slide: density of cells in percent of places, percent of patches with tumour."""

    name: str
    density: int
    tumour_percent: int


@dataclass(frozen=True)
class Patch:
    """One patch: image (96, 96, 3) uint8 RGB, mask (96, 96) bool of tumour, and why it was drawn."""

    part: str
    id: str
    slide: str
    label: int
    image: np.ndarray
    mask: np.ndarray
    kind: str


def paint_cells(rng: np.random.Generator, canvas: np.ndarray, region: np.ndarray, cells: dict, density: int, turn: int) -> None:
    """Scatters cells by tissue: `region` (CANVAS, CANVAS) points into NAMES, `density` is in percent of places."""
    places = spots(rng, int(rng.integers(7, 9)), 2)
    places = places[((places > PAD - 7) & (places < PAD + SIZE + 7)).all(1)]
    numbers, crowd = (field[places[:, 0], places[:, 1]] for field in (region, grain(rng, 22)))
    ground = NAMES[numbers]
    chance, which = rng.integers(0, 100, len(places)), drawings(rng, len(places))
    node, fibrous, crowded = ground == "lymph", ground == "stroma", density - np.maximum(0, 80 - crowd) // 2
    found = {
        "histiocyte": node & (chance < 4),
        "lymphocyte": np.where(node, chance < crowded, (fibrous | (ground == "nest")) & (chance < 3)),
        "spindle": fibrous & (chance < 13),
        "red cell": (ground == "blood") & (chance < 75),
    }
    kinds = np.select(list(found.values()), list(found), "")
    which = np.where(kinds == "spindle", which // 16 * 16 + turn, which)
    for index in np.flatnonzero(kinds != ""):
        paste(canvas, cells[kinds[index]][which[index]], places[index])


def nest(rng: np.random.Generator, mode: str) -> np.ndarray:
    """Returns where (CANVAS, CANVAS) tumour may grow: a wavy blob over the centre, or one side of the patch."""
    rows, columns = np.ogrid[:CANVAS, :CANVAS]
    if mode == "outside":
        return ((rows + 0 * columns, columns + 0 * rows)[int(rng.integers(0, 2))] > 64) ^ bool(rng.integers(0, 2))
    middle, radius = CANVAS // 2 + rng.integers(-14, 15, 2), int(rng.integers(16, 100))
    return (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (radius + (grain(rng, 20) - 128) // 6) ** 2


def paint_tumour(rng: np.random.Generator, canvas: np.ndarray, cells: dict, inside: np.ndarray, mode: str) -> np.ndarray:
    """Paints tumour cells where `inside` is true and returns their mask (CANVAS, CANVAS).

    In mode "centre" a cell surely covers the centre; in mode "outside" none comes within 8 pixels of its square.
    """
    mask, places = np.zeros((CANVAS, CANVAS), bool), spots(rng, int(rng.integers(13, 18)), 2)
    places = places[inside[places[:, 0], places[:, 1]]]
    if mode == "outside":  # cells reach at most 16 pixels
        places = places[~((places > PAD + 32 - 8 - 16) & (places < PAD + 64 + 8 + 16)).all(1)]
    else:
        places = np.concatenate([places, CANVAS // 2 + rng.integers(-8, 9, (1, 2))])
    which = drawings(rng, len(places))
    for kind in ("cytoplasm", "tumour"):
        for place, index in zip(places, which, strict=True):
            paste(canvas, cells[kind][index], place, mask)
    return mask


def render_patch(rng: np.random.Generator, slide: Slide, cells: dict, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws one patch.

    Args:
        rng: Where all chance comes from.
        slide: Whose stain and habits to use.
        cells: What `draw_cells` returned.
        mode: "none" for no tumour, "centre" for tumour in the centre, "outside" for tumour only outside it.

    Returns:
        The image (96, 96, 3) uint8 RGB, and the mask (96, 96) bool of tumour.
    """
    weights = np.cumsum([scene[2 if mode == "none" else 3] for scene in SCENES])
    first, second = SCENES[int((weights <= rng.integers(0, weights[-1])).sum())][:2]
    turn, density = int(rng.integers(0, 16)), slide.density - int(rng.integers(0, 30))
    split = np.clip((grain(rng, 46) + grain(rng, 11) // 4 - int(rng.integers(110, 200))) * 32, 0, 256)
    canvas = (TISSUES[first](rng, turn) * split + TISSUES[second](rng, turn) * (256 - split) >> 8).astype(np.int32)
    region = np.where(split > 128, *(int(np.flatnonzero(NAMES == name)[0]) for name in (first, second)))
    inside = nest(rng, mode) if mode != "none" else np.zeros((CANVAS, CANVAS), bool)
    paint_cells(rng, canvas, np.where(inside, -1, region), cells, density, turn)
    mask = inside
    if mode != "none":
        mask = paint_tumour(rng, canvas, cells, inside, mode)
        paint_cells(rng, canvas, np.where(mask, -2, -1), cells, density, turn)
    return expose(rng, canvas, slide), mask[INNER, INNER]


def make_slide(seed: int, number: int) -> Slide:
    """Returns slide `number`: a blue-purple stain (odd numbers) or a brown-pink one, of its own strength."""
    rng, purple = generator(seed, 2, number), number % 2
    stains, white = stain_colours(rng, purple)
    percent = 0 if number in HEALTHY_SLIDES else int(rng.integers(36, 72))
    blur, sharpness = scanner(rng, purple)
    return Slide(stains, white, blur, sharpness, f"slide_{number + 1:02d}", int(rng.integers(84, 104)), percent)


def named(part: str, slide: str, image: np.ndarray, mask: np.ndarray, kind: str, suffix: bytes = b"") -> Patch:
    """Returns a patch named by the SHA-1 of its pixels and labelled by the centre of its mask."""
    name = hashlib.sha1(image.tobytes() + suffix).hexdigest()
    return Patch(part, name, slide, int(mask[CENTRE, CENTRE].any()), image, mask, kind)


def render_sample(seed: int) -> list[Patch]:
    """Draws every patch of the sample, in the order in which the tables list them."""
    cells, patches = tissue.draw_cells(seed), []
    for number in range(TRAIN_SLIDES + TEST_SLIDES):
        slide, part = make_slide(seed, number), "train" if number < TRAIN_SLIDES else "test"
        count = TEST_PATCHES if part == "test" else 17 + number % 3
        for index in range(count):
            rng = generator(seed, 3, number, index)
            dice = int(rng.integers(0, 100))
            tumour, near = dice < slide.tumour_percent, dice >= 95 and slide.tumour_percent
            mode = "centre" if tumour else "outside" if near else "none"
            patches.append(named(part, slide.name, *render_patch(rng, slide, cells, mode), mode))
    train = [patch for patch in patches if patch.part == "train"]
    train += planted(seed, train)
    order = np.argsort(generator(seed, 4).integers(0, 1 << 40, len(train)), kind="stable")
    tests = sorted((patch for patch in patches if patch.part == "test"), key=lambda patch: patch.id)
    return [train[index] for index in order] + tests


def planted(seed: int, train: list[Patch]) -> list[Patch]:
    """Returns what notebook 01 has to find: near and exact duplicates, near-white and near-black patches."""
    rng = generator(seed, 5)
    flipped, turned, touched, *exact = (train[index] for index in (20, 90, 160, 230, 300))
    image = touched.image.copy()
    image[0, 0, 0] ^= 1
    extra = [
        named("train", flipped.slide, flipped.image[:, ::-1], flipped.mask[:, ::-1], "flipped"),
        named("train", turned.slide, np.rot90(turned.image), np.rot90(turned.mask), "turned"),
        named("train", touched.slide, image, touched.mask, "touched"),
    ]
    extra += [named("train", patch.slide, patch.image, patch.mask, "exact", DUPLICATE_SUFFIX) for patch in exact]
    for base, spread, kind, slides in ((243, 6, "white", (10, 120, 250)), (4, 9, "black", (50, 340))):
        for index in slides:
            shade = base + (grain(rng, 32, SIZE)[..., None] * spread >> 8)
            image = (shade + rng.integers(0, 5, (SIZE, SIZE, 3))).astype(np.uint8)
            extra.append(named("train", train[index].slide, image, np.zeros((SIZE, SIZE), bool), kind))
    return extra


def tiff_bytes(image: np.ndarray) -> bytes:
    """Returns the bytes of an uncompressed TIFF with the tags of the competition's files (27,935 bytes for 96x96 RGB).

    Only the software and the date differ; the date is fixed.
    """
    rows, columns, bands = image.shape
    shape = b'{"shape": [%d, %d, %d]}\0' % (rows, columns, bands)
    tags = [  # number, type, count, value or its place
        (254, 4, 1, 0), (256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 3, 194), (259, 3, 1, 1), (262, 3, 1, 2),
        (270, 2, len(shape), 200), (273, 4, 1, 287), (277, 3, 1, 3), (278, 4, 1, rows), (279, 4, 1, image.size),
        (284, 3, 1, 1), (305, 2, 12, 255), (306, 2, 20, 267), (339, 3, 1, 1),
    ]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head += struct.pack("<I3H", 0, 8, 8, 8) + shape
    return head.ljust(255, b"\0") + b"histopath.1\0" + b"2018:11:15 00:00:00\0" + np.ascontiguousarray(image, np.uint8).tobytes()


README = """A synthetic sample in the layout of Kaggle's Histopathologic Cancer Detection.

Every image was drawn by a program (histopath/sample.py, version {version}, seed {seed}). None shows real tissue:
nothing found here says anything about medicine, and a score on it says nothing about real slides.

train/, test/          {train} and {test} patches, 96x96 RGB, uncompressed TIFF, named by the SHA-1 of their pixels
train_labels.csv       id,label: 1 when the centre 32x32 pixels hold (drawn) tumour, else 0
sample_submission.csv  id,label: the rows a submission must have, every label 0
slides.csv             id,slide: the (invented) slide of every patch
sample.json            what wrote this folder

Planted in train/, to be found: two exact duplicates (named by the SHA-1 of their pixels followed by the word
"duplicate", since equal names cannot stand in one folder), three near duplicates (flipped, turned, one pixel one
level off), three near-white and two near-black patches, both labelled 0.
"""


@dataclass(frozen=True)
class Layout:
    """What a kind of sample is made of.

    Attributes:
        title: what it is called, such as `sample`; stands in sample.json and in errors.
        version: number of the way in which it is drawn.
        folders: the folders of images, relative to its own.
        suffix: how the name of an image ends.
        tables: the other files that it must hold.
        draw: takes a seed and gives the path, relative to the sample's folder, and the bytes of every file but sample.json.
    """

    title: str
    version: int
    folders: tuple[str, ...]
    suffix: str
    tables: tuple[str, ...]
    draw: Callable[[int], Iterable[tuple[str, bytes]]]

    def marker(self, seed: int, counts: dict[str, int]) -> dict:
        """Returns what sample.json holds: `counts` gives the number of images in every folder."""
        made_by = {"made_by": f"histopath {self.title}, synthetic", "version": self.version, "seed": seed}
        return made_by | {folder: counts[folder] for folder in self.folders}


def write_whole(folder: Path, seed: int, layout: Layout) -> Path:
    """Writes a sample as `folder`, whole or not at all; returns at once when it is already there.

    Args:
        folder: The folder to make, with its parents; it is also what is returned.
        seed: Any integer from 0 on; the same seed gives the same pixels.
        layout: What to draw and where.

    Raises:
        ValueError: `folder` holds something else; nothing in it is touched.
    """
    folder = Path(folder)
    if holds_sample(folder, seed, layout):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fill_folder(partial, seed, layout)
        if folder.exists():
            folder.rmdir()  # empty: holds_sample has looked
        os.replace(partial, folder)
    except OSError:
        if not holds_sample(folder, seed, layout):  # unless another process has just written the same
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def holds_sample(folder: Path, seed: int, layout: Layout) -> bool:
    """Says whether `folder` holds this sample (True) or is absent or empty (False); raises ValueError otherwise."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
        counts = {name: sum(1 for _ in (folder / name).glob(f"*{layout.suffix}")) for name in layout.folders}
        whole = all((folder / name).stat().st_size for name in layout.tables) and found == layout.marker(seed, counts)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise ValueError(
            f"{folder} should be absent, empty or the whole synthetic {layout.title} (version {layout.version}, seed {seed}) "
            "but holds something else: move it away or name another folder."
        )
    return True


def fill_folder(folder: Path, seed: int, layout: Layout) -> None:
    """Draws a sample and writes all its files into the new folder `folder`."""
    for name in layout.folders:
        (folder / name).mkdir(parents=True)
    counts = Counter()
    for name, content in layout.draw(seed):
        (folder / name).write_bytes(content)
        counts[name.rpartition("/")[0]] += 1
    (folder / "sample.json").write_bytes((json.dumps(layout.marker(seed, counts), indent=1) + "\n").encode())


def is_synthetic(folder: Path) -> bool:
    """Says whether a data folder is a copy of one of the embedded samples, wherever it lies."""
    return (Path(folder) / "sample.json").is_file()


def table_bytes(lines: Iterable[str]) -> bytes:
    """Returns the bytes of a text file with these lines."""
    return ("\n".join(lines) + "\n").encode()


def draw_files(seed: int) -> Iterable[tuple[str, bytes]]:
    """Gives path and bytes of every file of the sample but sample.json."""
    patches = render_sample(seed)
    train, test = ([patch for patch in patches if patch.part == part] for part in ("train", "test"))
    for patch in patches:
        yield f"{patch.part}/{patch.id}.tif", tiff_bytes(patch.image)
    yield "train_labels.csv", table_bytes(["id,label", *(f"{patch.id},{patch.label}" for patch in train)])
    yield "sample_submission.csv", table_bytes(["id,label", *(f"{patch.id},0" for patch in test)])
    yield "slides.csv", table_bytes(["id,slide", *(f"{patch.id},{patch.slide}" for patch in patches)])
    yield "README.txt", README.format(version=VERSION, seed=seed, train=len(train), test=len(test)).encode()


TABLES = ("train_labels.csv", "sample_submission.csv", "slides.csv")
LAYOUT = Layout("sample", VERSION, ("train", "test"), ".tif", TABLES, draw_files)


def sample_folder(home: Path) -> Path:
    """Returns where the sample stands under the project root `home`."""
    return home / "data" / "sample"


def write_sample(folder: Path, seed: int = 0) -> Path:
    """Writes the sample as `folder`, whole or not at all; see `write_whole`. The same seed gives the same bytes."""
    return write_whole(folder, seed, LAYOUT)
