"""Packing keeps every pixel, survives kill -9, detects changes and refuses bad files."""

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
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from conftest import PROJECT

from histopath.data import patches as patches_module
from histopath.data.patches import check_patches, open_patches

SHARED = PROJECT.parent / "shared" / "data"
PCAM_NAME = "camelyonpatch_level_2_split_{}_{}.h5"

# Runs in another process, slowed down so that it can be killed in the middle.
SLOW_PACKING = """
import sys, time
from histopath.data import patches
read_image = patches.read_image
def read_slowly(*arguments):
    time.sleep(float(sys.argv[3]))
    return read_image(*arguments)
patches.read_image = read_slowly
try:
    print(patches.open_patches(sys.argv[1], cache=sys.argv[2], workers=2).fingerprint)
except ValueError as error:
    print(error)
"""


def make_pixels(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    """Returns smooth colored noise, uint8 (count, size, size, 3)."""
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
        cv2.imwrite(str(path), rgb[..., ::-1])


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


def write_pcam(root: Path, part: str, pixels: np.ndarray, labels: list[int]) -> None:
    root.mkdir(exist_ok=True)
    with h5py.File(root / PCAM_NAME.format(part, "x"), "w") as file:
        file.create_dataset("x", data=pixels, chunks=(1, 96, 96, 3), compression="gzip", compression_opts=1)
    with h5py.File(root / PCAM_NAME.format(part, "y"), "w") as file:
        file["y"] = np.array(labels, "uint8").reshape(-1, 1, 1, 1)


def pack(root: Path, cache: Path, **options):
    return open_patches(root, cache=cache, progress=False, **options)


def pack_folder(patches) -> Path:
    return Path(patches.images.filename).parent


def refusal(root: Path, cache: Path, **options) -> str:
    """Returns the message for a bad folder, after checking that nothing is left in the cache."""
    with pytest.raises(ValueError) as caught:
        pack(root, cache, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "; " in text, text
    assert not cache.is_dir() or not list(cache.iterdir())
    return text


def start_slow_packing(root: Path, cache: Path, seconds_per_patch: float) -> subprocess.Popen:
    command = [sys.executable, "-c", SLOW_PACKING, str(root), str(cache), str(seconds_per_patch)]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # else ignored
    )


def wait_for_pixels(process: subprocess.Popen, cache: Path) -> None:
    """Waits until a process has written some of the pixels of a pack."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_blocks > 1000 for path in cache.glob("*.partial/images.npy")):
            return
        time.sleep(0.005)
    raise AssertionError(f"no pixels were written: {process.communicate()}")


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """1,500 patches in the Kaggle layout: ten blocks."""
    pixels = make_pixels(1500)
    return write_kaggle(tmp_path_factory.mktemp("kaggle"), pixels, 1300), pixels


@pytest.fixture(scope="module")
def kaggle_pack(kaggle, tmp_path_factory):
    return pack(kaggle[0], tmp_path_factory.mktemp("cache"), workers=1)


def check_is_kaggle(patches, kaggle, kaggle_pack) -> None:
    """Compares a pack with the pixels that were written, and with the pack of one thread."""
    np.testing.assert_array_equal(patches.images, kaggle[1])
    pd.testing.assert_frame_equal(patches.table, kaggle_pack.table)
    assert patches.fingerprint == kaggle_pack.fingerprint
    assert list(pack_folder(patches).parent.iterdir()) == [pack_folder(patches)]


# What a pack holds --------------------------------------------------------------------------------


def test_kaggle_patches_come_back_pixel_exact(kaggle, kaggle_pack):
    root, pixels = kaggle
    assert kaggle_pack.images.shape == (1500, 96, 96, 3) and kaggle_pack.images.dtype == np.uint8
    assert isinstance(kaggle_pack.images, np.memmap) and not kaggle_pack.images.flags.writeable
    np.testing.assert_array_equal(kaggle_pack.images, pixels)
    assert (kaggle_pack.table["id"] == kaggle_pack.table["pixel_hash"]).all()
    assert (kaggle_pack.layout, kaggle_pack.root, len(kaggle_pack)) == ("kaggle", root, 1500)
    assert check_patches(kaggle_pack) == 1500


def test_opening_again_gives_the_same_without_packing(kaggle, kaggle_pack, monkeypatch):
    monkeypatch.setattr(patches_module, "_pack", lambda *arguments: pytest.fail("was packed again"))
    again = pack(kaggle[0], pack_folder(kaggle_pack).parent)
    assert again.class_names == kaggle_pack.class_names and not again.images.flags.writeable
    check_is_kaggle(again, kaggle, kaggle_pack)


def test_hashes_and_fingerprint_are_those_that_runs_recorded(tmp_path):
    """Golden values: from pack format 2, commit 117cb12."""
    pixels = (np.arange(2 * 32 * 32 * 3) * 7 % 251).astype(np.uint8).reshape(2, 32, 32, 3)
    for row, patch in enumerate(pixels):
        write_image(tmp_path / "d" / str(row) / f"p{row}.png", patch)
    patches = pack(tmp_path / "d", tmp_path / "cache")
    assert patches.fingerprint == "74f9cc402a60f530"
    assert patches.table["perceptual_hash"].tolist() == [9071505154726966501, 2214943863050603159]
    assert patches.table["pixel_hash"].tolist() == [hashlib.sha1(patch).hexdigest() for patch in pixels]


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


def test_class_folders_come_back_in_order_whatever_their_names(tmp_path):
    pixels = make_pixels(4, 32)
    names = ["0/a.png", "0/b\n,c.png", "1/\xe4.png", os.fsdecode(b"1/\xff.png")]  # not UTF-8
    for name, patch in zip(names, pixels, strict=True):
        write_image(tmp_path / "d" / "x.png", patch)
        (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "d" / "x.png").rename(tmp_path / "d" / name)
    for _ in range(2):  # packed, then opened
        patches = pack(tmp_path / "d", tmp_path / "cache")
        np.testing.assert_array_equal(patches.images, pixels)
        assert patches.table["file"].tolist() == names
        assert patches.table["label"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("size", [None, 48])
@pytest.mark.parametrize("compressed", [False, True])
def test_pcam_files_come_back_pixel_exact_or_resized(tmp_path, compressed, size):
    pixels = make_pixels(200)  # a block spans two files: 151 patches of 96 pixels, 606 of 48
    write_pcam(tmp_path / "p", "train", pixels[:110], [0, 1] * 55)
    write_pcam(tmp_path / "p", "test", pixels[110:], [1] * 90)
    for path in list((tmp_path / "p").iterdir()) if compressed else ():
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    patches = pack(tmp_path / "p", tmp_path / "cache", size=size)
    expected = pixels if size is None else [cv2.resize(patch, (48, 48), interpolation=cv2.INTER_AREA) for patch in pixels]
    np.testing.assert_array_equal(patches.images, expected)
    assert patches.table["label"].tolist() == [0, 1] * 55 + [1] * 90
    assert check_patches(patches) == 200
    assert sorted(path.name for path in pack_folder(patches).iterdir()) == ["images.npy", "meta.json", "table.npz"]


def test_a_size_makes_one_size_of_all(tmp_path):
    shapes = [(40, 70), (16, 16), (96, 20), (200, 300)]
    for row, (height, width) in enumerate(shapes):
        patch = cv2.resize(make_pixels(1, 64, seed=row)[0], (width, height))
        write_image(tmp_path / "d" / str(row % 2) / f"{row}.png", patch)
    cv2.imwrite(str(tmp_path / "d" / "1" / "gray.png"), make_pixels(1, 50)[0, ..., 0])
    patches = pack(tmp_path / "d", tmp_path / "cache", size=32)
    assert patches.images.shape == (5, 32, 32, 3)
    wide = cv2.imread(str(tmp_path / "d" / "1" / "3.png"))[..., ::-1]
    np.testing.assert_array_equal(patches.images[3], cv2.resize(wide, (32, 32), interpolation=cv2.INTER_AREA))
    assert np.ptp(patches.images[4], axis=2).max() == 0 < patches.images[4].std()


def test_each_size_is_a_pack_of_its_own(tmp_path):
    pixels = write_classes(tmp_path / "d")
    own, small, large = (pack(tmp_path / "d", tmp_path / "cache", size=size) for size in (None, 24, 32))
    assert len({patches.fingerprint for patches in (own, small, large)}) == 3
    names = [pack_folder(patches).name for patches in (own, small, large)]
    assert names == [names[0], f"{names[0]}-24", f"{names[0]}-32"]
    np.testing.assert_array_equal(pack(tmp_path / "d", tmp_path / "cache").images, pixels)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not here")
@pytest.mark.parametrize(("name", "count"), [("kaggle", 1500), ("pcam-jpeg/valid", 2000)])
def test_real_patches_come_back_as_another_reader_sees_them(tmp_path, name, count):
    patches = pack(SHARED / name, tmp_path)
    assert patches.images.shape == (count, 96, 96, 3)
    for row in range(0, count, 97):
        path = SHARED / name / patches.table["file"][row]
        expected = tifffile.imread(path) if path.suffix == ".tif" else cv2.imread(str(path))[..., ::-1]
        np.testing.assert_array_equal(patches.images[row], expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
def test_memory_stays_flat_while_packing(kaggle, tmp_path):
    """The pack has 295 MB; held in memory, or written through a mapping, it would count."""
    script = """if True:
        import re, sys
        from histopath.data.patches import open_patches
        read_peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
        before = read_peak()
        open_patches(sys.argv[1], cache=sys.argv[2], size=256, workers=2, progress=False)
        print(read_peak() - before)"""
    command = [sys.executable, "-c", script, str(kaggle[0]), str(tmp_path / "cache")]
    used = int(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)
    assert next(tmp_path.glob("cache/*/images.npy")).stat().st_size > 290e6
    assert 1_000 < used < 100_000  # kB


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 3])
def test_bad_image_is_refused_by_name(tmp_path, capfd, row):
    write_classes(tmp_path / "d")
    path = tmp_path / "d" / "0" / f"p{row:04d}.png"
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(tmp_path / "d", tmp_path / "cache").startswith(f"{path} is ")
    assert capfd.readouterr().err == ""  # the decoders' own complaints are kept back


def test_image_of_another_size_is_refused(tmp_path):
    write_classes(tmp_path / "d")
    write_image(tmp_path / "d" / "0" / "p0003.png", make_pixels(1, 20)[0, :18])
    text = refusal(tmp_path / "d", tmp_path / "cache")
    assert "p0003.png is 20×18 pixels, expected 16×16 like 0/p0000.png; resize it" in text


def test_kaggle_patches_must_be_96_pixels_wide(tmp_path):
    root = write_kaggle(tmp_path / "k", make_pixels(3, 64))
    assert "is 64×64 pixels, expected 96×96 as in PatchCamelyon" in refusal(root, tmp_path / "cache")


def test_unreadable_file_is_refused(tmp_path):
    write_classes(tmp_path / "d")
    path = tmp_path / "d" / "0" / "p0002.png"
    path.unlink()
    path.symlink_to("nowhere.png")
    assert f"{path} cannot be read" in refusal(tmp_path / "d", tmp_path / "cache")


def test_compressed_pcam_of_unequal_lengths_or_cut_off_is_refused(tmp_path):
    write_pcam(tmp_path / "p", "train", make_pixels(3), [0, 1])
    path = tmp_path / "p" / PCAM_NAME.format("train", "x")
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    Path(f"{path}.gz").write_bytes(whole)
    text = refusal(tmp_path / "p", tmp_path / "cache")
    assert f"{path}.gz holds 3 patches but its labels (y) are 2" in text
    for damaged in (whole[: len(whole) // 2], b"not gzip", whole[:100] + b"\0" * 50 + whole[150:]):
        Path(f"{path}.gz").write_bytes(damaged)
        assert f"{path}.gz is cut off or damaged" in refusal(tmp_path / "p", tmp_path / "cache")


@pytest.mark.parametrize("size", [15, 4097, 96.0, True])
def test_size_out_of_range_is_refused(tmp_path, size):
    write_classes(tmp_path / "d")
    text = refusal(tmp_path / "d", tmp_path / "cache", size=size)
    assert f"a whole number, 16 to 4,096 pixels, and is {size}; leave it out" in text


def test_workers_below_one_are_refused(tmp_path):
    write_classes(tmp_path / "d")
    assert "got 0" in refusal(tmp_path / "d", tmp_path / "cache", workers=0)


def test_cache_that_cannot_be_written_is_refused(tmp_path):
    write_classes(tmp_path / "d")
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(tmp_path / "d", tmp_path / "file")


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
    assert "(0.04 GB needed, 0.01 GB free); free some space" in text


def test_disk_that_fills_up_while_packing_leaves_nothing(kaggle, small_disk, monkeypatch):
    """The check before packing passes, as when another program fills the disk later."""
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    text = refusal(kaggle[0], small_disk / "cache")
    assert f"({os.strerror(errno.ENOSPC)}); free some space" in text


def test_file_size_limit_leaves_nothing(kaggle, tmp_path):
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n" + SLOW_PACKING
    command = [sys.executable, "-c", script, str(kaggle[0]), str(tmp_path / "cache"), "0"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and f"({os.strerror(errno.EFBIG)}); free some space" in result.stdout
    assert not list((tmp_path / "cache").iterdir())


# Interruptions and neighbors ----------------------------------------------------------------------


def test_the_same_command_packs_everything_after_kill_9(kaggle, kaggle_pack, tmp_path):
    cache = tmp_path / "cache"
    process = start_slow_packing(kaggle[0], cache, 0.002)
    wait_for_pixels(process, cache)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".partial"]
    check_is_kaggle(pack(kaggle[0], cache), kaggle, kaggle_pack)


@pytest.mark.slow
def test_packing_succeeds_wherever_earlier_ones_were_killed(kaggle, kaggle_pack, tmp_path):
    """Kills one process after the other, each a little later in its work."""
    cache = tmp_path / "cache"
    for seconds in (0, 0.1, 0.25, 0.4):
        process = start_slow_packing(kaggle[0], cache, 0)
        deadline = time.monotonic() + 60
        while not list(cache.glob("*.lock")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for lock in cache.glob("*.lock"):
            lock.unlink()  # only so that the next round sees when its own process has begun
    check_is_kaggle(pack(kaggle[0], cache), kaggle, kaggle_pack)


def test_ctrl_c_leaves_nothing(kaggle, tmp_path):
    process = start_slow_packing(kaggle[0], tmp_path / "cache", 0.002)
    wait_for_pixels(process, tmp_path / "cache")
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in log
    assert not list((tmp_path / "cache").iterdir())


def test_two_processes_pack_the_same_folder(kaggle, kaggle_pack, tmp_path):
    processes = [start_slow_packing(kaggle[0], tmp_path / "cache", 0.0005) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [output.strip() for output, _ in outputs] == [kaggle_pack.fingerprint] * 2
    assert sum("packing" in log for _, log in outputs) == 1  # the other one waited
    check_is_kaggle(pack(kaggle[0], tmp_path / "cache"), kaggle, kaggle_pack)


def test_no_bar_is_drawn_without_progress_and_lines_in_a_log(tmp_path, capfd):
    write_classes(tmp_path / "d")
    pack(tmp_path / "d", tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    open_patches(tmp_path / "d", cache=tmp_path / "b")
    log = capfd.readouterr().err
    assert "\r" not in log and "100%" in log.splitlines()[-1] and "5/5" in log


# Changes and damage -------------------------------------------------------------------------------


def add_file(root: Path) -> None:
    write_image(root / "train" / "new.tif", make_pixels(1, seed=5)[0])
    with open(root / "train_labels.csv", "a") as labels:
        labels.write("new,1\n")


def edit_file(root: Path) -> None:
    write_image(next((root / "train").iterdir()), make_pixels(1, seed=5)[0])


def edit_labels(root: Path) -> None:
    (root / "train_labels.csv").write_text((root / "train_labels.csv").read_text().replace(",1", ",0"))


def turn_labels(root: Path) -> None:
    pd.read_csv(root / "train_labels.csv")[::-1].to_csv(root / "train_labels.csv", index=False)


def add_slides(root: Path) -> None:
    ids = pd.read_csv(root / "train_labels.csv")["id"]
    pd.DataFrame({"id": ids, "slide": "s"}).to_csv(root / "slides.csv", index=False)


def add_test_part(root: Path) -> None:
    write_image(root / "test" / "t.tif", make_pixels(1, seed=6)[0])


@pytest.mark.parametrize("change", [add_file, edit_file, edit_labels, turn_labels, add_slides, add_test_part])
def test_changed_source_is_packed_anew(tmp_path, change):
    root = write_kaggle(tmp_path / "k", make_pixels(5))
    before = pack(root, tmp_path / "cache")
    change(root)
    after = pack(root, tmp_path / "cache")
    fresh = pack(root, tmp_path / "fresh")
    assert after.fingerprint == fresh.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.images, fresh.images)
    pd.testing.assert_frame_equal(after.table, fresh.table)
    np.testing.assert_array_equal(before.images, make_pixels(5))  # the old mapping stays readable
    assert list((tmp_path / "cache").iterdir()) == [pack_folder(after)]


def test_changed_hdf5_file_is_packed_anew(tmp_path):
    write_pcam(tmp_path / "p", "train", make_pixels(3), [0, 1, 0])
    pack(tmp_path / "p", tmp_path / "cache")
    write_pcam(tmp_path / "p", "train", make_pixels(3, seed=1), [0, 1, 1])
    patches = pack(tmp_path / "p", tmp_path / "cache")
    np.testing.assert_array_equal(patches.images, make_pixels(3, seed=1))
    assert patches.table["label"].tolist() == [0, 1, 1]


def test_check_finds_an_edit_that_the_quick_look_misses(tmp_path):
    """Of 1,100 files the quick look skips 76; an edit in place leaves the folder's time alone."""
    patch = cv2.imencode(".png", make_pixels(1, 4)[0])[1].tobytes()
    (tmp_path / "d" / "0").mkdir(parents=True)
    for row in range(1100):
        (tmp_path / "d" / "0" / f"{row:04d}.png").write_bytes(patch)
    patches = pack(tmp_path / "d", tmp_path / "cache")
    stamp = json.loads((pack_folder(patches) / "meta.json").read_text())["stamp"]
    skipped = next(file for file in patches.table["file"] if file not in stamp)
    assert sum(name.endswith(".png") for name in stamp) == 1024
    (tmp_path / "d" / skipped).write_bytes(patch)
    assert pack(tmp_path / "d", tmp_path / "cache").fingerprint == patches.fingerprint
    with pytest.raises(ValueError, match=f"1 of its files changed after packing .first: {skipped}."):
        check_patches(patches)


def test_check_finds_damaged_pixels(tmp_path):
    write_classes(tmp_path / "d")
    patches = pack(tmp_path / "d", tmp_path / "cache")
    np.load(patches.images.filename, mmap_mode="r+")[3, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="1 damaged patches .first: row 3."):
        check_patches(patches)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garble(path: Path) -> None:
    with open(path, "r+b") as stream:
        stream.write(b"garbled bytes")


@pytest.mark.parametrize("name", ["images.npy", "table.npz", "meta.json"])
@pytest.mark.parametrize("damage", [cut, empty, garble, Path.unlink])
def test_damaged_pack_is_packed_anew(tmp_path, name, damage):
    pixels = write_classes(tmp_path / "d")
    damage(pack_folder(pack(tmp_path / "d", tmp_path / "cache")) / name)
    np.testing.assert_array_equal(pack(tmp_path / "d", tmp_path / "cache").images, pixels)


def test_pack_of_another_format_is_packed_anew(tmp_path, monkeypatch):
    pixels = write_classes(tmp_path / "d")
    monkeypatch.setattr(patches_module, "VERSION", 2)
    folder = pack_folder(pack(tmp_path / "d", tmp_path / "cache"))
    monkeypatch.undo()
    np.testing.assert_array_equal(pack(tmp_path / "d", tmp_path / "cache").images, pixels)
    assert json.loads((folder / "meta.json").read_text())["version"] == 3
