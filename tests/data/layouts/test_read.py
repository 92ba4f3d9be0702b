"""Every layout is read in its order; every mistake in one is answered by a sentence with the file and the cure."""

import gzip
import shutil
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT
from helpers import refusal, touch_all
from hypothesis import given, settings
from hypothesis import strategies as st

from histopath.data.layouts.read import read_source

SHARED = PROJECT.parent / "shared" / "data"
PCAM_NAME = "camelyonpatch_level_2_split_{}_{}.h5"


def write_kaggle(root: Path, train: dict[str, int], test: list[str] = ()) -> Path:
    """Writes the competition's layout with empty image files: reading a source opens none."""
    tables = {"train": ("train_labels.csv", train), "test": ("sample_submission.csv", dict.fromkeys(test, 0))}
    for part, (name, labels) in tables.items():
        if labels:
            (root / part).mkdir(parents=True)
            for patch_id in labels:
                (root / part / f"{patch_id}.tif").touch()
            pd.DataFrame({"id": list(labels), "label": list(labels.values())}).to_csv(root / name, index=False)
    return root


def write_pcam(root: Path, part: str, count: int, labels: list[int] | None = None, shape=(96, 96, 3), dtype="uint8"):
    root.mkdir(exist_ok=True)
    with h5py.File(root / PCAM_NAME.format(part, "x"), "w") as file:
        file["x"] = np.zeros((count, *shape), dtype)
    if labels is not None:
        with h5py.File(root / PCAM_NAME.format(part, "y"), "w") as file:
            file["y"] = np.array(labels, "uint8").reshape(-1, 1, 1, 1)
    return root


def compress(path: Path) -> Path:
    with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    path.unlink()
    return Path(f"{path}.gz")


def test_kaggle_rows_follow_the_order_of_the_csv_files(tmp_path):
    source = read_source(write_kaggle(tmp_path / "k", {"b": 1, "a": 0}, ["d", "c"]))
    assert (source.layout, source.class_names) == ("kaggle", ("no_tumor", "tumor"))
    assert list(source.table.columns) == ["id", "label", "slide", "part", "file", "index"]
    assert source.table["id"].tolist() == ["b", "a", "d", "c"]
    assert source.table["label"].tolist() == [1, 0, -1, -1]
    assert source.table["part"].tolist() == ["train", "train", "test", "test"]
    assert source.table["file"].tolist() == ["train/b.tif", "train/a.tif", "test/d.tif", "test/c.tif"]
    assert source.table.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("lacking", ["train", "test"])
def test_kaggle_folder_may_lack_one_part(tmp_path, lacking):
    root = write_kaggle(tmp_path / "k", {"b": 1, "a": 0}, ["d", "c"])
    shutil.rmtree(root / lacking)
    assert lacking not in read_source(root).table["part"].tolist()
    assert len(read_source(root).table) == 2


def test_kaggle_test_folder_without_csv_is_read_in_sorted_order(tmp_path):
    root = touch_all(tmp_path, "test/b.tif", "test/a.tif", "test/.DS_Store", "test/._a.tif")
    source = read_source(root)
    assert source.layout == "kaggle" and source.table["id"].tolist() == ["a", "b"]


def test_kaggle_folder_without_parts_is_refused(tmp_path):
    root = write_kaggle(tmp_path, {"a": 0})
    shutil.rmtree(root / "train")
    assert "neither train/ nor test/" in refusal(root)


def test_train_images_without_labels_are_refused(tmp_path):
    assert "train_labels.csv does not exist" in refusal(touch_all(tmp_path, "train/a.tif"))


def test_slide_table_is_found_by_itself(tmp_path):
    root = write_kaggle(tmp_path / "k", {"b": 1, "a": 0, "c": 0})
    (root / "patch_id_wsi_full.csv").write_text("id,wsi\na,camelyon16_train_tumor_001\nz,other\nb,s2\n")
    assert read_source(root).table["slide"].tolist() == ["s2", "camelyon16_train_tumor_001", ""]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("id,label\n", "is empty"),
        ("id;label\na;0\n", "has no column id"),
        ("id,wrong\na,0\n", "has no column label"),
        ("id,label\na,0\nb,1\nb,1\n", "1 id (first: b) more than once"),
        ("id,label\na,0\n", "holds files for 1 id (first: b) not listed"),
        ("id,label\na,0\nb,1\nc,1\nd,1\n", "lists 2 ids (first: c) without a file"),
        ("id,label\na,0\nb,2\n", "1 id (first: b) labels other than 0 and 1, such as '2'"),
        ("id,label\na,0\nb,\n", "such as ''"),
        ("id,label\na,0\nb,tumor\n", "such as 'tumor'"),
        ("id,label\na,0\nb,1e-3\n", "such as '1e-3'"),
        ("id,label\na,0\nb,nan\n", "such as 'nan'"),
        ('id,label\na,0\nb,"1\n', "cannot be read"),
    ],
)
def test_wrong_label_table_is_refused(tmp_path, content, expected):
    root = write_kaggle(tmp_path / "k", {"a": 0, "b": 1})
    (root / "train_labels.csv").write_text(content)
    text = refusal(root)
    assert expected in text and str(root / "train_labels.csv") in text


def test_label_table_that_is_not_text_is_refused(tmp_path):
    root = write_kaggle(tmp_path / "k", {"a": 0})
    (root / "train_labels.csv").write_bytes(b"\xff\xfe\x00id")
    assert "train_labels.csv cannot be read" in refusal(root)


def test_label_table_from_a_spreadsheet_is_read(tmp_path):
    root = write_kaggle(tmp_path / "k", {"a": 0, "b": 1})
    (root / "train_labels.csv").write_bytes(b"\xef\xbb\xbfid,label\r\nb, 1\r\na,0.0\r\n")
    assert read_source(root).table["label"].tolist() == [1, 0]


def test_sample_submission_and_test_folder_must_agree(tmp_path):
    root = write_kaggle(tmp_path / "k", {"a": 0}, ["c", "d"])
    (root / "test" / "d.tif").unlink()
    assert "lists 1 id (first: d) without a file" in refusal(root)
    touch_all(root, "test/d.tif", "test/e.tif")
    assert "holds files for 1 id (first: e) not listed" in refusal(root)


def test_one_id_in_two_files_is_refused(tmp_path):
    root = write_kaggle(tmp_path / "k", {"a": 0}, ["c"])
    touch_all(root, "train/a.png")
    assert "two files for 1 id (first: a)" in refusal(root)
    (root / "train" / "a.png").rename(root / "test" / "a.png")
    (root / "sample_submission.csv").unlink()
    assert "in both train/ and test/" in refusal(root)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("id,slide\na,s1\na,s2\n", "puts 1 id (first: a) on two slides"),
        ("id,patient\na,s1\n", "has no column slide or wsi"),
        ("patch,slide\na,s1\n", "has no column id"),
    ],
)
def test_wrong_slide_table_is_refused(tmp_path, content, expected):
    root = write_kaggle(tmp_path / "k", {"a": 0})
    (root / "slides.csv").write_text(content)
    text = refusal(root)
    assert expected in text and str(root / "slides.csv") in text


def test_repeated_identical_row_of_a_slide_table_is_harmless(tmp_path):
    root = write_kaggle(tmp_path / "k", {"a": 0})
    (root / "slides.csv").write_text("id,slide\na,s1\na,s1\n")
    assert read_source(root).table["slide"].tolist() == ["s1"]


def test_missing_folder_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    touch_all(tmp_path, "file.tif")
    assert "is a file" in refusal(tmp_path / "file.tif")


def test_unknown_layout_says_what_was_looked_for(tmp_path):
    for root in (tmp_path, touch_all(tmp_path / "bitmaps", "a.bmp", "b/c.bmp", ".hidden/d.png")):
        text = refusal(root)
        assert str(root) in text
        known = ("train_labels.csv", "camelyonpatch_level_2_split_train_x.h5", "ALL/all_benign/", "class folders", ".gif")
        for looked_for in known:
            assert looked_for in text


def test_braces_in_a_path_do_not_break_a_sentence(tmp_path):
    root = write_kaggle(tmp_path / "{a}{}", {"a": 0, "b": 1})
    (root / "train" / "b.tif").unlink()
    assert str(root) in refusal(root)


def test_pcam_parts_are_read_in_order_with_their_slides(tmp_path):
    write_pcam(tmp_path, "test", 2)
    write_pcam(tmp_path, "train", 3, [0, 1, 1])
    write_pcam(tmp_path, "valid", 1, [1])
    rows = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi", "0,1,2,True,True,wsi_a", "1,1,2,True,False,wsi_b"]
    rows.append("2,3,4,False,False,wsi_a")
    (tmp_path / "camelyonpatch_level_2_split_train_meta.csv").write_text("\n".join(rows))
    source = read_source(tmp_path)
    table = source.table
    assert (source.layout, source.class_names) == ("pcam-hdf5", ("no_tumor", "tumor"))
    assert table["id"].tolist() == [f"train_{i:07d}" for i in range(3)] + [
        "valid_0000000",
        "test_0000000",
        "test_0000001",
    ]
    assert table["label"].tolist() == [0, 1, 1, 1, -1, -1]
    assert table["slide"].tolist() == ["wsi_a", "wsi_b", "wsi_a", "", "", ""]
    assert table["index"].tolist() == [0, 1, 2, 0, 0, 1]
    assert table["file"].unique().tolist() == [PCAM_NAME.format(part, "x") for part in ("train", "valid", "test")]


def test_compressed_pcam_reads_like_plain(tmp_path):
    write_pcam(tmp_path, "train", 3, [0, 1, 1])
    write_pcam(tmp_path, "test", 2)
    plain = read_source(tmp_path).table
    for path in sorted(tmp_path.iterdir()):
        compress(path)
    packed = read_source(tmp_path).table
    assert packed["file"].str.endswith(".gz").all()
    pd.testing.assert_frame_equal(packed.drop(columns="file"), plain.drop(columns="file"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"count": 3, "labels": [0, 1]}, "holds 3 patches but its labels (y) are 2"),
        ({"count": 2, "labels": [0, 7]}, "holds 1 labels other than 0 and 1 (first: 7)"),
        ({"count": 2, "labels": [0, 1], "shape": (64, 64, 3)}, "x of shape (2, 64, 64, 3)"),
        ({"count": 2, "labels": [0, 1], "dtype": "float32"}, "type float32"),
        ({"count": 0, "labels": [0]}, "x of shape (0, 96, 96, 3)"),
    ],
)
def test_wrong_pcam_content_is_refused(tmp_path, options, expected):
    assert expected in refusal(write_pcam(tmp_path / "p", "valid", **options))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["x", "y"])
def test_truncated_pcam_file_is_refused(tmp_path, kind, packed):
    path = write_pcam(tmp_path / "p", "test", 4, [0, 1, 0, 1]) / PCAM_NAME.format("test", kind)
    path = compress(path) if packed else path
    if packed and kind == "x":
        (tmp_path / "p" / PCAM_NAME.format("test", "y")).unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = refusal(tmp_path / "p")
    assert str(path) in text and "download the file again" in text


def test_pcam_file_without_its_partner_or_dataset_is_refused(tmp_path):
    root = write_pcam(tmp_path / "p", "train", 2)
    assert "split_train_y.h5 is missing" in refusal(root)
    write_pcam(root, "train", 2, [0, 1])
    (root / PCAM_NAME.format("train", "x")).unlink()
    assert "split_train_x.h5 is missing" in refusal(root)
    with h5py.File(root / PCAM_NAME.format("train", "x"), "w") as file:
        file["images"] = np.zeros(2)
    assert "no HDF5 file with a dataset x" in refusal(root)


def test_pcam_meta_of_another_length_is_refused(tmp_path):
    root = write_pcam(tmp_path / "p", "train", 2, [0, 1])
    (root / "camelyonpatch_level_2_split_train_meta.csv").write_text("coord_y,wsi\n1,a\n")
    assert "has 1 rows for 2 patches" in refusal(root)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("abc19._-é ", min_size=1, max_size=5), st.sampled_from([0, 1]), min_size=1, max_size=6))
def test_any_ids_come_back_in_their_order(tmp_path_factory, labels):
    labels = {f"x{patch_id}x": label for patch_id, label in labels.items()}
    table = read_source(write_kaggle(tmp_path_factory.mktemp("k"), labels)).table
    assert table["id"].tolist() == list(labels)
    assert table["label"].tolist() == list(labels.values())


def test_a_full_size_table_is_read_in_seconds(tmp_path):
    """The mistakes are searched for with sets, not row by row: 30,000 files and rows take well under a second."""
    root = write_kaggle(tmp_path, {f"{number:040x}": number % 2 for number in range(30_000)})
    started = time.perf_counter()
    assert len(read_source(root).table) == 30_000
    assert time.perf_counter() - started < 5  # 0.2 s on two idle cores


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not here")
@pytest.mark.parametrize(("name", "counts"), [("kaggle", [741, 459, 300]), ("pcam-jpeg", [11000, 11000, 0])])
def test_real_folders_are_read(name, counts):
    labels = read_source(SHARED / name).table["label"]
    assert [(labels == label).sum() for label in (0, 1, -1)] == counts


def test_a_slide_table_of_other_data_is_refused(tmp_path):
    for name in ("0", "1"):
        (tmp_path / "data" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / name / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "data" / "slides.csv").write_text("id,slide\nabc,s1\n")
    with pytest.raises(ValueError, match="None of the ids of the slide table"):
        read_source(tmp_path / "data")
