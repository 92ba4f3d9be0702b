"""Augmented copies are the same whoever writes them, know their slice, and are never mixed with anything else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from test_patches import make_pixels, small_disk, write_image  # noqa: F401

from histopath.copies import vary, write_copies
from histopath.images import resize
from histopath.patches import open_patches
from histopath.splits import split_patches

PROJECT = Path(__file__).parents[1]
COUNTS = {"cancer": 4, "non_cancer": 2}

# Runs in another process: turning is slowed down so that there is time to kill it in the middle.
SLOW_COPYING = """
import sys, time
import cv2
turn = cv2.warpAffine
cv2.warpAffine = lambda *arguments, **options: (time.sleep(0.05), turn(*arguments, **options))[1]
from histopath.copies import write_copies
print(write_copies(sys.argv[1], sys.argv[2], copies=12, progress=False))
"""


def write_slices(root: Path, counts: dict[str, int] = COUNTS, shape: tuple[int, int] = (32, 40)) -> dict[str, np.ndarray]:
    """Writes class folders of slices; returns path without suffix → pixels."""
    written = {}
    for seed, (name, count) in enumerate(counts.items()):
        for row, pixels in enumerate(make_pixels(count, max(shape), seed)):
            written[f"{name}/{name[0]}{row}"] = pixels[: shape[0], : shape[1]]
            write_image(root / name / f"{name[0]}{row}.png", pixels[: shape[0], : shape[1]])
    return written


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def copy(root: Path, target: Path, **options) -> int:
    return write_copies(root, target, progress=False, **options)


def refusal(root: Path, target: Path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        copy(root, target, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "; " in text, text
    return text


def test_the_first_copy_is_the_slice_and_the_others_are_turned(tmp_path):
    slices = write_slices(tmp_path / "src")
    assert copy(tmp_path / "src", tmp_path / "dst", copies={"cancer": 3, "non_cancer": 2}) == 4 * 3 + 2 * 2
    for name, pixels in slices.items():
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "dst" / f"{name}_00.tif"), pixels)
        turned = tifffile.imread(tmp_path / "dst" / f"{name}_01.tif")
        assert turned.shape == pixels.shape and (turned != pixels).any()
    names = sorted(path.name for path in (tmp_path / "dst" / "cancer").iterdir())
    assert names == [f"c{row}_{number:02d}.tif" for row in range(4) for number in range(3)]


def test_without_numbers_the_classes_are_balanced_at_six_times_the_largest(tmp_path):
    """Published (system 2): 560 and 140 slices became 3,361 and 2,800; here 8 and 3 become 48 and 48."""
    write_slices(tmp_path / "src", {"cancer": 8, "non_cancer": 3})
    copy(tmp_path / "src", tmp_path / "dst")
    counts = {name: len(list((tmp_path / "dst" / name).iterdir())) for name in ("cancer", "non_cancer")}
    assert counts == {"cancer": 8 * 6, "non_cancer": 3 * 16}


def test_a_class_without_a_number_is_copied_as_it_is(tmp_path):
    slices = write_slices(tmp_path / "src")
    assert copy(tmp_path / "src", tmp_path / "dst", copies={"cancer": 2}) == 4 * 2 + 2
    assert not (tmp_path / "dst/non_cancer/n0_01.tif").exists() and "non_cancer/n0" in slices


def test_a_copy_depends_on_seed_id_and_number_alone(tmp_path):
    write_slices(tmp_path / "src")
    write_slices(tmp_path / "more", COUNTS | {"cancer": 3, "other": 1})
    copy(tmp_path / "src", tmp_path / "a", copies=3)
    copy(tmp_path / "more", tmp_path / "b", copies=5)
    copy(tmp_path / "src", tmp_path / "c", copies=3, seed=1)
    first, second, third = (read_all(tmp_path / name) for name in "abc")
    shared = [name for name in first if name in second and name.endswith(".tif")]
    assert len(shared) == 3 * 3 + 2 * 3 and all(first[name] == second[name] for name in shared)
    for name in shared:
        assert (first[name] == third[name]) == name.endswith("_00.tif"), name


def test_copies_are_turned_by_every_angle_and_half_are_mirrored():
    """A bright spot right of the middle, a dark one above: their places give the angle and the mirroring."""
    pixels = np.full((101, 101, 3), 128, np.uint8)
    cv2.circle(pixels, (80, 50), 6, (255, 255, 255), -1)
    cv2.circle(pixels, (50, 20), 6, (0, 0, 0), -1)
    angles, mirrored = [], []
    for number in range(400):
        grey = vary(pixels, "spot", number, 0)[..., 0].astype(float) - 128
        rows, columns = np.mgrid[-50:51, -50:51]
        parts = (grey * (grey > 9), grey * (grey < -9))
        bright, dark = (np.array([(part * columns).sum(), (part * rows).sum()]) for part in parts)
        mirrored.append(bright[0] * dark[1] - bright[1] * dark[0] < 0)
        angles.append(np.degrees(np.arctan2(bright[1], bright[0])) % 360)
    # 400 draws: the counts of quarters stay within 100 ± 40 (4.6 standard deviations), of halves within 200 ± 50 (5).
    assert all(60 < count < 140 for count in np.histogram(angles, 4, (0, 360))[0])
    assert 150 < sum(mirrored) < 250


def test_corners_repeat_the_border():
    white = np.full((64, 64, 3), 255, np.uint8)
    assert all((vary(white, "white", number, 0) == 255).all() for number in range(20))


def test_slides_csv_names_the_source_of_every_copy(tmp_path):
    write_slices(tmp_path / "src")
    (tmp_path / "src" / "slides.csv").write_text("id,slide\nc0,patient 7\nc1,patient 7\n")
    copy(tmp_path / "src", tmp_path / "dst", copies=2)
    rows = pd.read_csv(tmp_path / "dst" / "slides.csv").set_index("id")["slide"]
    assert rows["c0_00"] == rows["c0_01"] == rows["c1_01"] == "patient 7"
    assert rows["c2_00"] == rows["c2_01"] == "c2" and rows["n1_01"] == "n1" and len(rows) == 12


def test_equal_pixels_are_one_slide(tmp_path):
    """Copies of a slice that stands in the source twice must not fall on both sides of a split either."""
    slices = write_slices(tmp_path / "src")
    write_image(tmp_path / "src" / "cancer" / "again.tif", slices["cancer/c2"])
    write_image(tmp_path / "src" / "cancer" / "c9.tif", slices["cancer/c0"])
    (tmp_path / "src" / "slides.csv").write_text("id,slide\nc0,patient 7\n")
    copy(tmp_path / "src", tmp_path / "dst", copies=2)
    rows = pd.read_csv(tmp_path / "dst" / "slides.csv").set_index("id")["slide"]
    assert rows["c2_01"] == rows["again_00"] == rows["again_01"] == "again"
    assert rows["c9_01"] == rows["c0_00"] == "patient 7"


@pytest.mark.parametrize("same_stems", [False, True])
def test_copies_of_one_slice_never_cross_a_split(tmp_path, same_stems):
    write_slices(tmp_path / "src", {"cancer": 20, "non_cancer": 10}, (24, 24))
    if same_stems:  # then ids are paths
        for path in (tmp_path / "src" / "non_cancer").iterdir():
            path.rename(path.with_name(path.name.replace("n", "c", 1)))
    count = copy(tmp_path / "src", tmp_path / "dst")
    patches = open_patches(tmp_path / "dst", cache=tmp_path / "cache", progress=False)
    assert len(patches) == count == 20 * 6 + 10 * 12 and patches.class_names == ("non_cancer", "cancer")
    splits = split_patches(patches.table)
    source = patches.table["file"].str.replace(r"_\d+\.tif$", "", regex=True).to_numpy()[splits["row"]]
    assert len(set(source)) == 30 and splits["split"].nunique() == 3 and len(splits) == count
    assert splits.groupby(source)["split"].nunique().max() == 1
    assert (splits["slide"] != "").all()


def test_a_size_resizes_before_turning(tmp_path):
    slices = write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=2, size=24)
    for name, pixels in slices.items():
        small = resize(pixels, 24)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "dst" / f"{name}_00.tif"), small)
        expected = vary(small, Path(name).name, 1, 0)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "dst" / f"{name}_01.tif"), expected)


def test_slices_of_several_sizes_keep_them(tmp_path):
    write_slices(tmp_path / "src")
    write_image(tmp_path / "src" / "cancer" / "long.png", make_pixels(1, 64)[0][:20])
    copy(tmp_path / "src", tmp_path / "dst", copies=2)
    assert tifffile.imread(tmp_path / "dst" / "cancer" / "long_01.tif").shape == (20, 64, 3)
    assert open_patches(tmp_path / "dst", cache=tmp_path / "cache", progress=False, size=16).images.shape == (14, 16, 16, 3)


def test_folders_named_0_and_1_keep_their_names(tmp_path):
    write_slices(tmp_path / "src", {"0": 1, "1": 2})
    copy(tmp_path / "src", tmp_path / "dst", copies={"tumor": 2, "no_tumor": 4})
    assert {name: len(list((tmp_path / "dst" / name).iterdir())) for name in "01"} == {"0": 4, "1": 4}


def test_copying_goes_on_after_kill_9(tmp_path):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "whole", copies=12)
    target = tmp_path / "dst"
    command = [sys.executable, "-c", SLOW_COPYING, str(tmp_path / "src"), str(target)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(target.glob("*/[!.]*.tif"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat() for path in target.glob("*/[!.]*.tif")}
    assert 20 <= len(finished) < 72 and (target / "augment.json").is_file() and not (target / "slides.csv").exists()
    (target / "cancer" / ".c3_11.part.tif").write_bytes(b"II*")  # as if killed while writing it
    (target / "cancer" / "c3_11.tif").unlink(missing_ok=True)
    assert copy(tmp_path / "src", target, copies=12) == 72
    assert read_all(target) == read_all(tmp_path / "whole")
    kept = {path: status for path, status in finished.items() if path.name != "c3_11.tif"}
    assert all(path.stat().st_mtime_ns == s.st_mtime_ns and path.stat().st_ino == s.st_ino for path, s in kept.items())


def test_a_finished_folder_is_left_as_it_is_and_a_lost_copy_written_again(tmp_path):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=3)
    before, slides = read_all(tmp_path / "dst"), (tmp_path / "dst" / "slides.csv").stat().st_mtime_ns
    assert copy(tmp_path / "src", tmp_path / "dst", copies=3) == 18
    assert (tmp_path / "dst" / "slides.csv").stat().st_mtime_ns == slides
    (tmp_path / "dst" / "cancer" / "c1_02.tif").unlink()
    copy(tmp_path / "src", tmp_path / "dst", copies=3)
    assert read_all(tmp_path / "dst") == before


@pytest.mark.slow
def test_two_processes_write_one_folder(tmp_path):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "whole", copies=12)
    command = [sys.executable, "-c", SLOW_COPYING, str(tmp_path / "src"), str(tmp_path / "dst")]
    processes = [subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == ["72", "72"]
    assert read_all(tmp_path / "dst") == read_all(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"copies": 3, "seed": 4}, "was begun with seed 0, not 4"),
        ({"copies": 3, "size": 32}, "was begun with size None, not 32"),
        ({"copies": 2}, "was begun with copies {'non_cancer': 3, 'cancer': 3}, not {'non_cancer': 2, 'cancer': 2}"),
    ],
)
def test_other_settings_are_refused(tmp_path, options, expected):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=3)
    before = read_all(tmp_path / "dst")
    text = refusal(tmp_path / "src", tmp_path / "dst", **options)
    assert expected in text and str(tmp_path / "dst") in text
    assert read_all(tmp_path / "dst") == before


def edit_slice(root: Path) -> None:
    write_image(root / "cancer" / "c0.png", make_pixels(1, 32, seed=9)[0])


def add_slice(root: Path) -> None:
    write_image(root / "cancer" / "c9.png", make_pixels(1, 32, seed=9)[0])


def add_slides(root: Path) -> None:
    (root / "slides.csv").write_text("id,slide\nc0,s\nc1,s\n")


@pytest.mark.parametrize("change", [edit_slice, add_slice, add_slides])
def test_a_changed_source_is_refused(tmp_path, change):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=3)
    change(tmp_path / "src")
    assert "other images, or other slides of them" in refusal(tmp_path / "src", tmp_path / "dst", copies=3)


def test_a_folder_with_other_content_is_refused(tmp_path):
    write_slices(tmp_path / "src")
    write_slices(tmp_path / "dst")
    before = read_all(tmp_path / "dst")
    assert "dst holds cancer/c0.png, which is no copy" in refusal(tmp_path / "src", tmp_path / "dst")
    assert read_all(tmp_path / "dst") == before
    copy(tmp_path / "src", tmp_path / "new", copies=2)
    write_image(tmp_path / "new" / "cancer" / "mine.png", make_pixels(1, 16)[0])
    assert "new holds cancer/mine.png, which is no copy" in refusal(tmp_path / "src", tmp_path / "new", copies=2)


def test_damaged_settings_are_refused(tmp_path):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=2)
    for content in ("{", "{}", "[]", "3"):
        (tmp_path / "dst" / "augment.json").write_text(content)
        assert "augment.json is damaged; delete" in refusal(tmp_path / "src", tmp_path / "dst", copies=2)


def test_a_target_in_the_source_is_refused(tmp_path):
    write_slices(tmp_path / "src")
    (tmp_path / "link").symlink_to(tmp_path / "src")
    for target in ("src", "src/new", "src/cancer", "link", "link/new", "src/../src/new"):
        assert "lies in the source" in refusal(tmp_path / "src", tmp_path / target)
    assert "holds src/cancer/c0.png, which is no copy" in refusal(tmp_path / "src", tmp_path)  # the source in the target


def test_a_target_that_cannot_be_written_is_refused(tmp_path):
    write_slices(tmp_path / "src")
    (tmp_path / "file").touch()
    assert "is a file; give the name of a folder" in refusal(tmp_path / "src", tmp_path / "file")
    assert "cannot be written" in refusal(tmp_path / "src", tmp_path / "file" / "dst")


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        (0, "must be a whole number from 1 to 1,000 and are 0"),
        ({"cancer": 1001}, "The copies of cancer must be a whole number from 1 to 1,000 and are 1001"),
        ({"cancer": 2.5}, "and are 2.5"),
        ({"tumour": 2}, "no class 'tumour'"),
        (True, "and are True"),
    ],
)
def test_copies_out_of_range_are_refused(tmp_path, copies, expected):
    write_slices(tmp_path / "src")
    assert expected in refusal(tmp_path / "src", tmp_path / "dst", copies=copies)
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png"], "holds images outside of class folders"),
        (["train/cancer/a.png", "val/cancer/b.png"], "is divided into parts"),
        (["ALL/all_benign/a.png"], "is laid out as multi-cancer"),
    ],
)
def test_other_layouts_are_refused(tmp_path, names, expected):
    for name in names:
        write_image(tmp_path / "src" / name, make_pixels(1, 16)[0])
    assert expected in refusal(tmp_path / "src", tmp_path / "dst")


def test_a_bad_slice_is_refused_by_name_and_the_rest_kept(tmp_path):
    write_slices(tmp_path / "src")
    path = tmp_path / "src" / "non_cancer" / "n1.png"
    path.write_bytes(path.read_bytes()[:-90])
    assert refusal(tmp_path / "src", tmp_path / "dst", copies=2).startswith(f"{path} is truncated or damaged")
    assert not (tmp_path / "dst" / "slides.csv").exists()


def test_a_full_disk_is_one_sentence_and_copying_goes_on_after_it(tmp_path, small_disk):  # noqa: F811
    write_slices(tmp_path / "src", shape=(300, 400))
    text = refusal(tmp_path / "src", small_disk / "dst", copies=30)
    assert "There is no space left to write" in text and "run the same command again" in text
    assert not list((small_disk / "dst").glob("*/.*")) and not (small_disk / "dst" / "slides.csv").exists()
    shutil.copytree(small_disk / "dst", tmp_path / "dst")
    copy(tmp_path / "src", tmp_path / "dst", copies=30)
    copy(tmp_path / "src", tmp_path / "whole", copies=30)
    assert read_all(tmp_path / "dst") == read_all(tmp_path / "whole")


def test_progress_is_drawn_or_not(tmp_path, capfd):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "quiet", copies=2)
    assert capfd.readouterr() == ("", "")
    write_copies(tmp_path / "src", tmp_path / "loud", copies=2)
    assert "12/12" in capfd.readouterr().err.splitlines()[-1]


def test_settings_say_what_was_done(tmp_path):
    write_slices(tmp_path / "src")
    copy(tmp_path / "src", tmp_path / "dst", copies=2, size=16, seed=3)
    settings = json.loads((tmp_path / "dst" / "augment.json").read_text())
    assert settings.pop("images") and os.path.isabs(settings["source"])
    assert settings == {"source": str(tmp_path / "src"), "copies": {"non_cancer": 2, "cancer": 2}, "size": 16, "seed": 3}


def test_real_slices_are_copied(tmp_path, shared):
    for number, path in enumerate(sorted((shared / "gastric").iterdir())):
        folder = tmp_path / "src" / ("cancer", "non_cancer")[number]
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    assert copy(tmp_path / "src", tmp_path / "dst") == 12
    patches = open_patches(tmp_path / "dst", cache=tmp_path / "cache", progress=False, size=64)
    assert patches.images.shape == (12, 64, 64, 3) and patches.table["slide"].nunique() == 2
