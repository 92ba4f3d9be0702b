"""Packing keeps every pixel, survives kill -9, notices changes, and answers bad files with one sentence."""

import errno
import functools
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from histopath.images import resize
from histopath.packing import make_plan
from histopath.patches import check_patches, open_patches
from histopath.sources import read_source

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared" / "data"
PCAM_NAME = "camelyonpatch_level_2_split_{}_{}.h5"

# Runs in another process: `Image.open` is slowed down so that there is time to kill it in the middle.
SLOW_PACKING = """
import sys, time
from PIL import Image
open_image = Image.open
Image.open = lambda *arguments, **options: (time.sleep(float(sys.argv[3])), open_image(*arguments, **options))[1]
from histopath.patches import open_patches
try:
    size = int(sys.argv[4]) if sys.argv[4:] else None
    patches = open_patches(sys.argv[1], cache=sys.argv[2], workers=2, size=size)
    print(patches.fingerprint)
except ValueError as error:
    print(error)
"""


def make_pixels(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    """Returns smooth coloured noise, uint8 (count, size, size, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(patch, (size, size), interpolation=cv2.INTER_CUBIC) for patch in coarse])


@functools.cache
def make_tiff_header(shape: tuple[int, ...]) -> bytes:
    """Returns everything before the pixels of an uncompressed TIFF."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros(shape, np.uint8), photometric="rgb")
    return stream.getvalue()[: -int(np.prod(shape))]


def write_image(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":  # as in the competition: uncompressed, the pixels at the end
        path.write_bytes(make_tiff_header(rgb.shape) + rgb.tobytes())
    else:
        options = [cv2.IMWRITE_WEBP_QUALITY, 101] if path.suffix == ".webp" else []  # above 100 it is lossless
        cv2.imwrite(str(path), rgb[..., ::-1], options)


def write_kaggle(root: Path, pixels: np.ndarray, train_count: int | None = None) -> Path:
    """Writes patches in the competition's layout, the last ones as test patches."""
    train_count = len(pixels) if train_count is None else train_count
    ids = [hashlib.sha1(patch).hexdigest() for patch in pixels]
    for row, patch_id in enumerate(ids):
        write_image(root / ("train" if row < train_count else "test") / f"{patch_id}.tif", pixels[row])
    labels = pd.DataFrame({"id": ids, "label": np.arange(len(ids)) % 2})
    labels[:train_count].to_csv(root / "train_labels.csv", index=False)
    if train_count < len(ids):
        labels[train_count:].to_csv(root / "sample_submission.csv", index=False)
    return root


def write_classes(root: Path, count: int = 5, size: int = 16) -> np.ndarray:
    """Writes class folders 0/ of PNGs named in order; returns their pixels."""
    pixels = make_pixels(count, size)
    for row, patch in enumerate(pixels):
        write_image(root / "0" / f"p{row:04d}.png", patch)
    return pixels


def gzip_files(folder):
    for path in sorted(folder.iterdir()):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()


def write_pcam(root: Path, part: str, pixels: np.ndarray, labels: list[int]) -> None:
    root.mkdir(exist_ok=True)
    with h5py.File(root / PCAM_NAME.format(part, "x"), "w") as file:
        file.create_dataset("x", data=pixels, chunks=(1, 96, 96, 3), compression="gzip", compression_opts=1)
    with h5py.File(root / PCAM_NAME.format(part, "y"), "w") as file:
        file["y"] = np.array(labels, "uint8").reshape(-1, 1, 1, 1)


def pack(root: Path, cache: Path, **options):
    return open_patches(root, cache=cache, progress=False, **options)


def refusal(root: Path, cache: Path, **options) -> str:
    """Returns the sentence that answers a bad folder, and proves that no pack and no half of one is left."""
    with pytest.raises(ValueError) as caught:
        pack(root, cache, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "; " in text, text
    assert not cache.is_dir() or not list(cache.iterdir())
    return text


def start_slow_packing(root: Path, cache: Path, seconds_a_patch: float, *size: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOW_PACKING, str(root), str(cache), str(seconds_a_patch), *size]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )


def wait_for_chunk(process: subprocess.Popen, cache: Path) -> Path:
    """Waits until one chunk is finished; returns the folder of the unfinished pack."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for journal in cache.glob("*.partial/journal.txt"):
            if journal.stat().st_size:
                return journal.parent
        time.sleep(0.005)
    raise AssertionError(f"no chunk was finished: {process.communicate()}")


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """1,500 patches in the Kaggle layout: three chunks."""
    pixels = make_pixels(1500)
    return write_kaggle(tmp_path_factory.mktemp("kaggle"), pixels, 1300), pixels


@pytest.fixture(scope="module")
def kaggle_pack(kaggle, tmp_path_factory):
    return pack(kaggle[0], tmp_path_factory.mktemp("cache"), workers=1)


def test_kaggle_patches_come_back_pixel_exact(kaggle, kaggle_pack):
    root, pixels = kaggle
    assert kaggle_pack.images.shape == (1500, 96, 96, 3) and kaggle_pack.images.dtype == np.uint8
    assert isinstance(kaggle_pack.images, np.memmap) and not kaggle_pack.images.flags.writeable
    np.testing.assert_array_equal(kaggle_pack.images, pixels)
    assert (kaggle_pack.table["id"] == kaggle_pack.table["pixel_hash"]).all()
    assert (kaggle_pack.layout, kaggle_pack.root, len(kaggle_pack)) == ("kaggle", root, 1500)
    assert check_patches(kaggle_pack) == 1500


def test_opening_again_gives_the_same_without_packing(kaggle, kaggle_pack):
    pack_path = Path(kaggle_pack.images.filename)
    written = pack_path.stat().st_mtime_ns
    again = pack(kaggle[0], pack_path.parents[1])
    pd.testing.assert_frame_equal(again.table, kaggle_pack.table)
    assert again.fingerprint == kaggle_pack.fingerprint and again.class_names == kaggle_pack.class_names
    assert pack_path.stat().st_mtime_ns == written
    assert sorted(path.name for path in pack_path.parents[1].iterdir()) == [pack_path.parent.name]


def test_fingerprint_is_that_of_the_content(tmp_path):
    first = pack(write_kaggle(tmp_path / "first", make_pixels(5)), tmp_path / "cache")
    second = pack(write_kaggle(tmp_path / "second", make_pixels(5)), tmp_path / "cache")
    assert first.fingerprint == second.fingerprint
    slides = tmp_path / "slides.csv"
    slides.write_text(f"id,wsi\n{first.table['id'][0]},s1\n")
    with_slides = pack(tmp_path / "first", tmp_path / "cache", slide_table=slides)
    assert with_slides.table["slide"].tolist() == ["s1", "", "", "", ""]
    assert with_slides.fingerprint != first.fingerprint
    assert with_slides.images.filename == first.images.filename


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_lossless_class_folders_come_back_pixel_exact(tmp_path, suffix):
    pixels = make_pixels(6, 32)
    for row, patch in enumerate(pixels):
        write_image(tmp_path / "d" / str(row % 2) / f"{row}{suffix}", patch)
    patches = pack(tmp_path / "d", tmp_path / "cache")
    np.testing.assert_array_equal(patches.images, pixels[[0, 2, 4, 1, 3, 5]])
    assert patches.table["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_jpeg_class_folders_come_back_nearly(tmp_path):
    pixels = make_pixels(4, 32)
    for row, patch in enumerate(pixels):
        write_image(tmp_path / "d" / "a" / f"{row}.jpg", patch)
    images = pack(tmp_path / "d", tmp_path / "cache").images
    # Chroma is stored at half the resolution; swapped channels would differ by 60 and more.
    assert np.abs(images.astype(int) - pixels).mean() < 12


@pytest.mark.parametrize("packed", [False, True])
def test_pcam_files_come_back_pixel_exact(tmp_path, packed):
    pixels = make_pixels(700)  # more than one chunk, and a chunk that spans two files
    write_pcam(tmp_path / "p", "train", pixels[:610], [0, 1] * 305)
    write_pcam(tmp_path / "p", "test", pixels[610:], [1] * 90)
    if packed:
        gzip_files(tmp_path / "p")
    patches = pack(tmp_path / "p", tmp_path / "cache")
    np.testing.assert_array_equal(patches.images, pixels)
    assert patches.table["label"].tolist() == [0, 1] * 305 + [1] * 90
    assert check_patches(patches) == 700
    assert not list((tmp_path / "cache").glob("*/*.h5"))


def test_compressed_pcam_of_unequal_lengths_or_cut_off_is_refused(tmp_path):
    write_pcam(tmp_path / "p", "train", make_pixels(3), [0, 1])
    path = tmp_path / "p" / PCAM_NAME.format("train", "x")
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    Path(f"{path}.gz").write_bytes(whole)
    text = refusal(tmp_path / "p", tmp_path / "cache")
    assert f"{path}.gz holds 3 patches but its labels (y) are 2" in text
    Path(f"{path}.gz").write_bytes(whole[: len(whole) // 2])
    assert f"{path}.gz is cut off or damaged" in refusal(tmp_path / "p", tmp_path / "cache")


def encode(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, rgb)[1].tobytes()


def encode_tiff(rgb: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, rgb, **options)
    return stream.getvalue()


def damage_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


BAD_FILES = {
    "empty": (lambda rgb: b"", "is empty"),
    "text": (lambda rgb: b"not an image", "is not a complete image"),
    "cut_tiff": (lambda rgb: encode_tiff(rgb)[:-1], "is truncated or damaged"),
    "cut_png": (lambda rgb: encode(".png", rgb)[:-30], "is truncated or damaged"),
    "cut_jpeg": (lambda rgb: encode(".jpg", rgb)[:-30], "is truncated or damaged"),
    "damaged_png": (lambda rgb: damage_middle(encode(".png", rgb)), "is truncated or damaged"),
    "size": (lambda rgb: encode(".png", rgb[:9]), "is 16×9 pixels, expected 16×16 like 0/p0000.png; resize it, or remove it"),
    "grayscale": (lambda rgb: encode_tiff(rgb[..., 0]), "is grayscale, expected 8-bit RGB"),
    "16_bit": (lambda rgb: encode_tiff(rgb.astype("uint16")), "has 16 bits per channel"),
}


@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_image_is_refused_by_name(tmp_path, capfd, kind, row):
    pixels = write_classes(tmp_path / "d")
    path = tmp_path / "d" / "0" / f"p{row:04d}.png"
    make, expected = BAD_FILES[kind]
    path.write_bytes(make(pixels[row]))
    if kind == "size" and row == 0:  # then all the others are of another size than the first
        path, expected = path.with_name("p0001.png"), "is 16×16 pixels, expected 16×9 like 0/p0000.png; "
    text = refusal(tmp_path / "d", tmp_path / "cache")
    assert text.startswith(str(path)) and expected in text
    assert kind != "size" or text.endswith("or train with --set size= to resize all.")
    assert capfd.readouterr().err == ""  # the decoders' own complaints are kept back


def test_kaggle_patches_must_be_96_pixels_wide(tmp_path):
    root = write_kaggle(tmp_path / "k", make_pixels(3, 64))
    assert "is 64×64 pixels, expected 96×96" in refusal(root, tmp_path / "cache")


def write_mixed(root: Path) -> list[np.ndarray]:
    """Writes class folders of images of every size, one of them grey; returns their pixels."""
    shapes = [(40, 70), (16, 16), (96, 20), (200, 300)]
    pixels = [cv2.resize(make_pixels(1, 64, seed=row)[0], (wide, high)) for row, (high, wide) in enumerate(shapes)]
    for row, patch in enumerate(pixels):
        write_image(root / str(row % 2) / f"{row}.png", patch)
    (root / "1" / "grey.png").write_bytes(encode(".png", pixels[3][..., 0]))
    return [pixels[row] for row in (0, 2, 1, 3)] + [pixels[3][..., [0, 0, 0]]]


def test_a_size_makes_one_size_of_all(tmp_path):
    pixels = write_mixed(tmp_path / "d")
    patches = pack(tmp_path / "d", tmp_path / "cache", size=32)
    assert patches.images.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(patches.images, [resize(patch, 32) for patch in pixels])
    assert patches.table["label"].tolist() == [0, 0, 1, 1, 1]
    assert check_patches(patches) == 5


def test_each_size_is_a_pack_of_its_own(tmp_path):
    pixels = write_classes(tmp_path / "d")
    own, small, large = (pack(tmp_path / "d", tmp_path / "cache", size=size) for size in (None, 24, 32))
    assert len({patches.fingerprint for patches in (own, small, large)}) == 3
    folders = [Path(patches.images.filename).parent for patches in (own, small, large)]
    assert [folder.name.removeprefix(folders[0].name) for folder in folders] == ["", "-24", "-32"]
    inodes = [(folder / "images.npy").stat().st_ino for folder in folders]
    for size, inode in zip((None, 24, 32), inodes, strict=True):
        again = pack(tmp_path / "d", tmp_path / "cache", size=size)
        assert Path(again.images.filename).stat().st_ino == inode
    np.testing.assert_array_equal(own.images, pixels)
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("packed", [False, True])
def test_pcam_and_kaggle_patches_are_resized_too(tmp_path, packed):
    pixels = make_pixels(620)
    write_pcam(tmp_path / "p", "train", pixels[:610], [0, 1] * 305)
    write_pcam(tmp_path / "p", "test", pixels[610:], [1] * 10)
    if packed:
        gzip_files(tmp_path / "p")
    expected = [resize(patch, 48) for patch in pixels]
    np.testing.assert_array_equal(pack(tmp_path / "p", tmp_path / "cache", size=48).images, expected)
    kaggle = write_kaggle(tmp_path / "k", pixels[:3])
    np.testing.assert_array_equal(pack(kaggle, tmp_path / "cache", size=48).images, expected[:3])


@pytest.mark.slow
def test_resized_packing_goes_on_after_kill_9(kaggle, tmp_path):
    """At 160 pixels 218 patches are a chunk, so there are seven."""
    process = start_slow_packing(kaggle[0], tmp_path / "cache", 0.004, "160")
    partial = wait_for_chunk(process, tmp_path / "cache")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert partial.name.endswith("-160.partial")
    marked = int((partial / "journal.txt").read_text().split()[0]) * 218
    np.load(partial / "images.npy", mmap_mode="r+")[marked] = 77
    patches = pack(kaggle[0], tmp_path / "cache", size=160)
    assert (patches.images[marked] == 77).all()  # a finished chunk is not packed again
    for row in set(range(0, 1500, 7)) - {marked}:
        np.testing.assert_array_equal(patches.images[row], resize(kaggle[1][row], 160))


@pytest.mark.parametrize("size", [16, 96, 224, 512, 2048, 4096])
def test_a_chunk_stays_below_64_mib(kaggle, tmp_path, size):
    plan = make_plan(read_source(kaggle[0]), tmp_path, size)
    assert plan.shape == (1500, size, size, 3) and plan.chunk_patches >= 1
    assert plan.chunk_patches * size * size * 3 <= 64 * 2**20
    assert sum(len(plan.rows(chunk)) for chunk in range(plan.chunk_count)) == 1500


@pytest.mark.parametrize("size", [0, 15, 4097, -96, 96.0, "96", True])
def test_size_out_of_range_is_refused(tmp_path, size):
    write_classes(tmp_path / "d")
    text = refusal(tmp_path / "d", tmp_path / "cache", size=size)
    assert f"a whole number, 16 to 4,096 pixels, and is {size}; leave it out" in text


@pytest.mark.parametrize("kind", sorted(BAD_FILES.keys() - {"size", "grayscale"}))
def test_bad_image_is_refused_by_name_also_with_a_size(tmp_path, capfd, kind):
    pixels = write_classes(tmp_path / "d")
    path = tmp_path / "d" / "0" / "p0003.png"
    make, expected = BAD_FILES[kind]
    path.write_bytes(make(pixels[3]))
    text = refusal(tmp_path / "d", tmp_path / "cache", size=32)
    assert text.startswith(str(path)) and expected in text
    assert capfd.readouterr().err == ""


def test_unreadable_file_is_refused(tmp_path):
    write_classes(tmp_path / "d")
    path = tmp_path / "d" / "0" / "p0002.png"
    path.unlink()
    path.symlink_to("nowhere.png")
    assert f"{path} cannot be read" in refusal(tmp_path / "d", tmp_path / "cache")


def test_packing_goes_on_after_kill_9(kaggle, kaggle_pack, tmp_path):
    root, pixels = kaggle
    cache = tmp_path / "cache"
    process = start_slow_packing(root, cache, 0.004)
    partial = wait_for_chunk(process, cache)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = [int(line) for line in (partial / "journal.txt").read_text().split()]
    assert 0 < len(done) < 3
    with open(partial / "journal.txt", "a") as journal:
        journal.write("2")  # as if killed while writing the line of chunk 2
    # A mark in a finished chunk tells whether it is packed again; 606 patches are a chunk.
    marked = done[0] * 606
    np.load(partial / "images.npy", mmap_mode="r+")[marked] = 77
    patches = pack(root, cache)
    assert (patches.images[marked] == 77).all()
    rest = np.arange(1500) != marked
    np.testing.assert_array_equal(patches.images[rest], pixels[rest])
    pd.testing.assert_frame_equal(patches.table, kaggle_pack.table)
    assert patches.fingerprint == kaggle_pack.fingerprint
    with pytest.raises(ValueError, match=f"1 damaged patches .first: row {marked}."):
        check_patches(patches)


@pytest.mark.slow
def test_packing_goes_on_wherever_it_was_killed(kaggle, kaggle_pack, tmp_path):
    """Kills three processes one after the other, each a little later in its work; the pack is the same in the end."""
    root, pixels = kaggle
    for seconds in (0, 0.1, 0.25):
        process = start_slow_packing(root, tmp_path / "cache", 0)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("cache/*.lock")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for lock in tmp_path.glob("cache/*.lock"):
            lock.unlink()  # only so that the next round sees when its own process has begun
    patches = pack(root, tmp_path / "cache")
    np.testing.assert_array_equal(patches.images, pixels)
    pd.testing.assert_frame_equal(patches.table, kaggle_pack.table)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [Path(patches.images.filename).parent.name]


def test_ctrl_c_leaves_what_can_be_continued(kaggle, tmp_path):
    process = start_slow_packing(kaggle[0], tmp_path / "cache", 0.004)
    wait_for_chunk(process, tmp_path / "cache")
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in log
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".partial"]
    np.testing.assert_array_equal(pack(kaggle[0], tmp_path / "cache").images, kaggle[1])


@pytest.mark.slow
def test_changed_source_is_packed_anew_after_an_interruption(tmp_path):
    first, second = make_pixels(800), make_pixels(800, seed=1)
    root = tmp_path / "d"
    for row, patch in enumerate(first):
        write_image(root / "0" / f"{row:04d}.tif", patch)
    process = start_slow_packing(root, tmp_path / "cache", 0.004)
    wait_for_chunk(process, tmp_path / "cache")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for row, patch in enumerate(second):
        write_image(root / "0" / f"{row:04d}.tif", patch)
    np.testing.assert_array_equal(pack(root, tmp_path / "cache").images, second)


def test_two_processes_pack_the_same_folder(kaggle, kaggle_pack, tmp_path):
    processes = [start_slow_packing(kaggle[0], tmp_path / "cache", 0.0005) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [output.strip() for output, _ in outputs] == [kaggle_pack.fingerprint] * 2
    assert sum("waiting for it" in log for _, log in outputs) <= 1
    np.testing.assert_array_equal(pack(kaggle[0], tmp_path / "cache").images, kaggle[1])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_no_bar_is_drawn_without_progress_and_lines_in_a_log(tmp_path, capfd):
    write_classes(tmp_path / "d")
    pack(tmp_path / "d", tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    open_patches(tmp_path / "d", cache=tmp_path / "b")
    log = capfd.readouterr().err
    assert "\r" not in log and "100%" in log.splitlines()[-1] and "5/5" in log


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_is_noticed_before_packing(kaggle, small_disk):
    text = refusal(kaggle[0], small_disk / "cache")
    assert "needs 0.04 GB" in text and "0.01 GB are free; free some space" in text


def test_disk_that_fills_up_while_packing_leaves_nothing(kaggle, small_disk, monkeypatch):
    """The disk is asked for its space before: here the answer is too good, as when another program fills it."""
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    text = refusal(kaggle[0], small_disk / "cache")
    assert f"GB are free ({os.strerror(errno.ENOSPC)}); free some space" in text


def test_file_size_limit_leaves_nothing(kaggle, tmp_path):
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n" + SLOW_PACKING
    command = [sys.executable, "-c", script, str(kaggle[0]), str(tmp_path / "cache"), "0"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and f"GB are free ({os.strerror(errno.EFBIG)}); free some space" in result.stdout
    assert not list((tmp_path / "cache").iterdir())


def test_cache_that_cannot_be_written_is_refused(tmp_path):
    write_classes(tmp_path / "d")
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(tmp_path / "d", tmp_path / "file")


def test_workers_below_one_are_refused(tmp_path):
    write_classes(tmp_path / "d")
    assert "got 0" in refusal(tmp_path / "d", tmp_path / "cache", workers=0)


def add_file(root: Path) -> None:
    write_image(root / "0" / "p9999.png", make_pixels(1, 16, seed=5)[0])


def remove_file(root: Path) -> None:
    (root / "0" / "p0001.png").unlink()


def edit_file(root: Path) -> None:
    write_image(root / "0" / "p0001.png", make_pixels(1, 16, seed=5)[0])


def add_class(root: Path) -> None:
    write_image(root / "1" / "q.png", make_pixels(1, 16, seed=5)[0])


@pytest.mark.parametrize("change", [add_file, remove_file, edit_file, add_class])
def test_changed_images_are_packed_anew(tmp_path, change):
    write_classes(tmp_path / "d")
    before = pack(tmp_path / "d", tmp_path / "cache")
    change(tmp_path / "d")
    after = pack(tmp_path / "d", tmp_path / "cache")
    fresh = pack(tmp_path / "d", tmp_path / "fresh")
    assert after.fingerprint == fresh.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.images, fresh.images)
    assert len(before.images) == 5 and before.images[0].any()  # the old mapping stays readable
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_changed_tables_keep_the_packed_pixels(tmp_path):
    root = write_kaggle(tmp_path / "k", make_pixels(4))
    before = pack(root, tmp_path / "cache")
    inode = Path(before.images.filename).stat().st_ino
    rows = pd.read_csv(root / "train_labels.csv")
    rows.assign(label=1).to_csv(root / "train_labels.csv", index=False)
    relabelled = pack(root, tmp_path / "cache")
    assert relabelled.table["label"].tolist() == [1, 1, 1, 1]
    (root / "slides.csv").write_text("id,slide\n" + "".join(f"{patch_id},s\n" for patch_id in rows["id"]))
    with_slides = pack(root, tmp_path / "cache")
    assert with_slides.table["slide"].tolist() == ["s"] * 4
    assert len({before.fingerprint, relabelled.fingerprint, with_slides.fingerprint}) == 3
    assert Path(with_slides.images.filename).stat().st_ino == inode
    rows[::-1].to_csv(root / "train_labels.csv", index=False)
    turned = pack(root, tmp_path / "cache")
    np.testing.assert_array_equal(turned.images, before.images[::-1])


def test_changed_hdf5_file_is_packed_anew(tmp_path):
    write_pcam(tmp_path / "p", "train", make_pixels(3), [0, 1, 0])
    pack(tmp_path / "p", tmp_path / "cache")
    write_pcam(tmp_path / "p", "train", make_pixels(3, seed=1), [0, 1, 1])
    patches = pack(tmp_path / "p", tmp_path / "cache")
    np.testing.assert_array_equal(patches.images, make_pixels(3, seed=1))
    assert patches.table["label"].tolist() == [0, 1, 1]


def test_check_finds_an_edit_that_the_quick_look_misses(tmp_path):
    """Of 1,100 files the quick look skips 76; an edit in place of one of them leaves the folder's time as it was."""
    patch = encode(".png", make_pixels(1, 4)[0])
    (tmp_path / "d" / "0").mkdir(parents=True)
    for row in range(1100):
        (tmp_path / "d" / "0" / f"{row:04d}.png").write_bytes(patch)
    patches = pack(tmp_path / "d", tmp_path / "cache")
    stamp = json.loads((Path(patches.images.filename).parent / "meta.json").read_text())["stamp"]
    skipped = next(file for file in patches.table["file"] if file not in stamp)
    assert sum(name.endswith(".png") for name in stamp) == 1024
    (tmp_path / "d" / skipped).write_bytes(encode(".png", make_pixels(1, 4, seed=1)[0]))
    assert pack(tmp_path / "d", tmp_path / "cache").fingerprint == patches.fingerprint
    with pytest.raises(ValueError, match=f"1 of its files changed after packing .first: {skipped}."):
        check_patches(patches)


def cut_array(folder: Path) -> None:
    os.truncate(folder / "images.npy", (folder / "images.npy").stat().st_size - 1)


def cut_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"version": 1')


def lose_hashes(folder: Path) -> None:
    (folder / "hashes.npy").unlink()


def lose_rows(folder: Path) -> None:
    os.truncate(next(folder.glob("table-*.npz")), 300)


def garble_array(folder: Path) -> None:
    with open(folder / "images.npy", "r+b") as stream:
        stream.write(zlib.compress(b"x"))


@pytest.mark.parametrize("damage", [cut_array, cut_meta, lose_hashes, lose_rows, garble_array])
def test_damaged_pack_is_packed_anew(tmp_path, damage):
    pixels = write_classes(tmp_path / "d")
    folder = Path(pack(tmp_path / "d", tmp_path / "cache").images.filename).parent
    damage(folder)
    np.testing.assert_array_equal(pack(tmp_path / "d", tmp_path / "cache").images, pixels)


def test_what_a_killed_process_left_beside_a_pack_is_deleted(tmp_path):
    write_classes(tmp_path / "d")
    folder = Path(pack(tmp_path / "d", tmp_path / "cache").images.filename).parent
    for ending in (".old", ".partial"):
        shutil.copytree(folder, f"{folder}{ending}")
    pack(tmp_path / "d", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_pack_that_was_finished_but_not_put_in_place_is_taken(tmp_path):
    """As after kill -9 between the two renames that replace an old pack."""
    write_classes(tmp_path / "d")
    folder = Path(pack(tmp_path / "d", tmp_path / "cache").images.filename).parent
    inode = (folder / "images.npy").stat().st_ino
    folder.rename(f"{folder}.partial")
    shutil.copytree(f"{folder}.partial", f"{folder}.old")
    assert Path(pack(tmp_path / "d", tmp_path / "cache").images.filename).stat().st_ino == inode
    assert list((tmp_path / "cache").iterdir()) == [folder]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not here")
@pytest.mark.parametrize(("name", "count"), [("kaggle", 1500), ("pcam-jpeg/valid", 2000)])
def test_real_patches_come_back_as_another_reader_sees_them(tmp_path, name, count):
    patches = pack(SHARED / name, tmp_path)
    assert patches.images.shape == (count, 96, 96, 3)
    for row in range(0, count, 97):
        path = SHARED / name / patches.table["file"][row]
        expected = tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path))[..., ::-1]
        np.testing.assert_array_equal(patches.images[row], expected)
