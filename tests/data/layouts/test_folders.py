"""Folders of classes are read in a fixed order, the Multi Cancer set with all its subclasses; unclear ones are refused."""

import cv2
import numpy as np
import pytest
from helpers import refusal, touch_all

from histopath.data.layouts.read import read_source
from histopath.data.patches import open_patches
from histopath.data.tasks import SUBCLASSES

# The folders of the set as its archive holds them.
CANCERS = {
    "ALL": "all", "Brain Cancer": "brain", "Breast Cancer": "breast", "Cervical Cancer": "cervix", "Kidney Cancer": "kidney",
    "Lung and Colon Cancer": "lung colon", "Lymphoma": "lymph", "Oral Cancer": "oral",
}  # fmt: skip


def multi_cancer_files() -> list[str]:
    """One image of each subclass, by its path in the archive."""
    place = {prefix: cancer for cancer, prefixes in CANCERS.items() for prefix in prefixes.split()}
    return [f"{place[name.split('_')[0]]}/{name}/{name}_0001.jpg" for name in SUBCLASSES]


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png", ".jpg", ".JPEG", ".webp", ".gif"])
def test_class_folders_of_every_format_are_read(tmp_path, suffix):
    source = read_source(touch_all(tmp_path, f"1/c{suffix}", f"0/b{suffix}", f"0/a{suffix}", "0/notes.txt"))
    assert (source.layout, source.class_names) == ("class-folders", ("no_tumor", "tumor"))
    assert source.table["id"].tolist() == ["a", "b", "c"]
    assert source.table["label"].tolist() == [0, 0, 1]
    assert source.table["part"].unique().tolist() == ["train"]


def test_only_folder_1_is_still_tumor(tmp_path):
    assert read_source(touch_all(tmp_path, "1/a.png")).table["label"].tolist() == [1]


def test_named_classes_under_parts_share_their_labels(tmp_path):
    names = ("train/scc/a.png", "train/aca/b.png", "val/scc/c.png", "test/d.png", "val/norm/a.png")
    source = read_source(touch_all(tmp_path, *names))
    assert source.class_names == ("aca", "norm", "scc")
    assert source.table["part"].tolist() == ["train", "train", "valid", "valid", "test"]
    assert source.table["label"].tolist() == [0, 2, 1, 2, -1]
    # The stem `a` stands in two folders, so all ids are paths without their suffix.
    assert source.table["id"].tolist() == ["train/aca/b", "train/scc/a", "val/norm/a", "val/scc/c", "test/d"]


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    names = [str(number) for number in range(11)]
    assert read_source(touch_all(tmp_path, *(f"{name}/{name}.png" for name in names))).class_names == tuple(names)


def test_loose_images_are_unlabeled_test_patches(tmp_path):
    source = read_source(touch_all(tmp_path, "b.JPG", "a.webp", "c.bmp", "empty/x.txt"))
    assert source.layout == "class-folders"
    assert source.table[["id", "label", "part"]].values.tolist() == [["a", -1, "test"], ["b", -1, "test"]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0/a.png", "b.png"], "loose images (first: b.png)"),
        (["train/0/a.png", "train/b.png", "val/1/c.png"], "loose images (first: b.png)"),
        (["train/0/a.png", "b.png"], "loose images (first: b.png)"),
        (["0/a.png", "0/patient/b.png"], "is a folder among images"),
        (["0/a.png", "0/a.jpg"], "two files for 1 id (first: 0/a)"),
    ],
)
def test_ambiguous_class_folders_are_refused(tmp_path, names, expected):
    assert expected in refusal(touch_all(tmp_path, *names))


@pytest.mark.parametrize("healthy", ["healthy", "normal", "no_tumor", "benign", "non_cancer", "zebra"])
def test_the_class_folder_that_says_tumor_is_class_1(tmp_path, healthy):
    for name in (healthy, "cancer"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"of_{name}.png"), np.zeros((8, 8, 3), np.uint8))
    source = read_source(tmp_path)
    assert source.class_names == (healthy, "cancer")
    assert dict(zip(source.table["id"], source.table["label"], strict=True)) == {f"of_{healthy}": 0, "of_cancer": 1}


def test_two_names_that_do_not_say_which_is_the_tumor_are_refused(tmp_path):
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="rename them 0 and 1"):
        read_source(tmp_path)


def test_gastric_slices_are_read_with_cancer_as_class_1(tmp_path):
    slices = np.random.default_rng(0).integers(0, 256, (2, 2048, 2048, 3), dtype=np.uint8)
    for name, pixels in zip(("cancer", "non_cancer"), slices, strict=True):
        (tmp_path / "d" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "d" / name / f"{name}.tiff"), pixels[..., ::-1])
    patches = open_patches(tmp_path / "d", cache=tmp_path / "cache", progress=False)
    assert patches.class_names == ("non_cancer", "cancer")
    assert patches.table[["id", "label"]].values.tolist() == [["cancer", 1], ["non_cancer", 0]]
    np.testing.assert_array_equal(patches.images, slices)


@pytest.mark.parametrize("wrapper", ["", "Multi Cancer/", "Multi Cancer/Multi Cancer/"])
def test_multi_cancer_is_read_as_its_archive_comes(tmp_path, wrapper):
    files = [wrapper + file for file in multi_cancer_files()]
    source = read_source(touch_all(tmp_path, *files, wrapper + ".cache/all_benign/x.jpg", wrapper + "ALL/notes.txt"))
    assert (source.layout, source.class_names) == ("multi-cancer", tuple(SUBCLASSES))
    assert sorted(source.table["file"]) == sorted(files)
    assert source.table["id"].tolist() == [f"{source.class_names[label]}_0001" for label in source.table["label"]]
    assert sorted(source.table["label"]) == list(range(26))
    assert set(source.table["part"]) == {"train"} and set(source.table["slide"]) == {""}


def test_a_part_of_multi_cancer_keeps_the_labels_of_the_whole(tmp_path):
    source = read_source(touch_all(tmp_path, "Oral Cancer/oral_scc/1.jpg", "ALL/all_pro/1.jpg"))
    assert source.class_names == tuple(SUBCLASSES) and source.table["label"].tolist() == [3, 25]
    # The stem 1 stands in two folders.
    assert source.table["id"].tolist() == ["ALL/all_pro/1", "Oral Cancer/oral_scc/1"]


@pytest.mark.parametrize(
    "names",
    [
        ["lung_aca/a.jpg", "lung_n/b.jpg", "lung_scc/c.jpg"],
        ["train/lung_aca/a.jpg", "train/lung_bnt/b.jpg", "val/lung_aca/c.jpg", "val/lung_scc/d.jpg"],
    ],
)
def test_class_folders_named_like_subclasses_stay_class_folders(tmp_path, names):
    source = read_source(touch_all(tmp_path, *names))
    assert source.layout == "class-folders" and len(source.class_names) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ALL/all_beningn/a.jpg", "all_beningn has the name of no Multi Cancer subclass (close to all_benign"),
        ("ALL/zebra/a.jpg", "zebra has the name of no Multi Cancer subclass (known are all_benign, all_early, "),
        ("ALL/all_pre/notes.txt", "all_pre holds no images (.gif, .jpeg, .jpg, "),
        ("ALL/all_pre/more/a.jpg", "all_pre/more is a folder among images"),
        ("ALL/a.jpg", "ALL holds loose images (first: a.jpg) beside folders of subclasses"),
        ("a.jpg", "holds loose images (first: a.jpg) beside folders of subclasses"),
        ("lung_n/a.jpg", "lung_n holds loose images (first: a.jpg)"),
        ("ALL/all_benign/all_benign_0001.png", "two files for 1 id (first: "),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "Multi Cancer/"])
def test_unclear_multi_cancer_folders_are_refused(tmp_path, name, expected, wrapper):
    root = touch_all(tmp_path, *(wrapper + file for file in multi_cancer_files()))
    if name.endswith("notes.txt"):
        (root / wrapper / "ALL" / "all_pre" / "all_pre_0001.jpg").unlink()
    assert expected in refusal(touch_all(root, wrapper + name))


def test_images_beside_the_folder_that_wraps_multi_cancer_are_refused(tmp_path):
    root = touch_all(tmp_path, "Multi Cancer/ALL/all_pro/1.jpg", "b.jpg")
    assert "holds loose images (first: b.jpg)" in refusal(root)


def test_a_new_cancer_folder_is_noticed_in_a_packed_set(tmp_path):
    def write(name: str, value: int) -> None:
        path = tmp_path / "d" / "Multi Cancer" / name
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((16, 16, 3), value, np.uint8))

    write("ALL/all_pro/a.png", 10)
    assert len(open_patches(tmp_path / "d", cache=tmp_path / "cache", progress=False)) == 1
    write("Lymphoma/lymph_fl/b.png", 20)
    patches = open_patches(tmp_path / "d", cache=tmp_path / "cache", progress=False)
    assert patches.layout == "multi-cancer" and patches.images[:, 0, 0, 0].tolist() == [10, 20]
    assert [patches.class_names[label] for label in patches.table["label"]] == ["all_pro", "lymph_fl"]


def test_real_lung_tiles_are_three_classes(shared):
    source = read_source(shared / "lung")
    assert (source.layout, source.class_names) == ("class-folders", ("lung_aca", "lung_n", "lung_scc"))
    assert source.table["label"].value_counts().to_dict() == {0: 200, 1: 200, 2: 200}
