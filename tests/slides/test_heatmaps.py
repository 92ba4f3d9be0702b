"""A slide becomes scores, regions, a heatmap and one number; what is interrupted goes on, and a bad slide stops no other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from conftest import PROJECT

from histopath.config import MICRONS_PER_PIXEL
from histopath.files import InputError
from histopath.models.predict import predict
from histopath.slides.heatmaps import (
    extent_of,
    find_regions,
    list_slides,
    rank_slides,
    read_finished,
    read_labels,
    score_slide,
    score_slides,
    slide_score,
    write_pyramid,
)
from histopath.slides.tiles import open_slide, read_area

STRIDE = 96


@pytest.fixture(scope="module")
def scored(run, slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides") / "slide"
    return folder, score_slide(run, slide, folder, STRIDE, progress=False)


def test_every_file_is_there_and_says_the_same(scored, run):
    folder, numbers = scored
    written = {path.name for path in folder.iterdir()}
    assert written == {"scores.csv", "regions.geojson", "heatmap.png", "heatmap.tif", "slide.json"}
    scores = pd.read_csv(folder / "scores.csv")
    assert list(scores.columns) == ["x", "y", "side", "probability"] and len(scores) == numbers["tiles"] > 60
    assert numbers["tumor_share"] == pytest.approx((scores["probability"] >= run.threshold).mean(), abs=0.02)
    assert json.loads((folder / "slide.json").read_text()) == numbers
    assert cv2.imread(str(folder / "heatmap.png")).shape[0] > 200


def test_a_probability_is_that_of_the_patch_at_its_place(scored, run, slide):
    scores = pd.read_csv(scored[0] / "scores.csv").iloc[[0, 17, 40]]
    opened = open_slide(slide)
    patches = np.stack([read_area(opened, x, y, 96, 96, MICRONS_PER_PIXEL) for x, y in scores[["x", "y"]].to_numpy()])
    np.testing.assert_allclose(predict(run.network, patches, views=1), scores["probability"], atol=2e-4)


def test_a_finished_slide_is_kept_and_another_stride_is_not(scored, run, slide):
    folder, numbers = scored
    before = (folder / "scores.csv").stat().st_mtime_ns
    assert score_slide(run, slide, folder, STRIDE, progress=False) == numbers
    assert (folder / "scores.csv").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_file_that_is_gone_or_damaged_is_made_again(run, slide, scored, tmp_path):
    folder = tmp_path / "slide"
    shutil.copytree(scored[0], folder)
    for name, content in (("heatmap.tif", None), ("slide.json", "[]"), ("slide.json", "{"), ("slide.json", "{}")):
        (folder / name).unlink()
        if content:
            (folder / name).write_text(content)
        assert read_finished(folder) is None
        assert score_slide(run, slide, folder, STRIDE, progress=False) == scored[1] == read_finished(folder)
        assert (folder / "heatmap.tif").is_file()


def test_outputs_of_two_strides_are_never_taken_for_one(run, slide, scored, tmp_path):
    folder = tmp_path / "slide"
    shutil.copytree(scored[0], folder)
    (folder / "heatmap.tif").unlink()
    (folder / "heatmap.tif").mkdir()  # in the way: the writing of another stride ends half-way
    with pytest.raises(InputError, match="heatmap.tif cannot be written"):
        score_slide(run, slide, folder, 192, progress=False)
    (folder / "heatmap.tif").rmdir()
    assert score_slide(run, slide, folder, STRIDE, progress=False) == scored[1]
    assert len(pd.read_csv(folder / "scores.csv")) == scored[1]["tiles"]


def test_another_slide_of_the_same_name_overwrites_nothing(run, slide, scored, tmp_path):
    shutil.copytree(scored[0], tmp_path / "out" / slide.stem)
    other = tmp_path / slide.name
    shutil.copy(slide, other)
    os.utime(other, (1, 1))
    (row,) = score_slides(run, [other], tmp_path / "out", lambda line: None, stride=STRIDE, progress=False).to_dict("records")
    assert f"another slide, {slide.resolve()}" in row["error"]
    assert read_finished(tmp_path / "out" / slide.stem) == scored[1]


@pytest.mark.slow
def test_the_table_keeps_the_slides_of_other_commands(run, slide, scored, tmp_path):
    for name in ("b.tif", "a.tif"):
        (tmp_path / name).symlink_to(slide)
        score_slides(run, [tmp_path / name], tmp_path / "out", lambda line: None, stride=384, progress=False)
    table = pd.read_csv(tmp_path / "out" / "slides.csv")
    assert table["slide"].tolist() == ["a.tif", "b.tif"] and table["score"].nunique() == 1 and (table["tiles"] > 3).all()


@pytest.mark.parametrize("name", [b"pr\xe4parat.tif", b"dollar $x_$ {.tif"])
def test_a_slide_may_have_any_name(run, slide, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.symlink_to(slide)
    table = score_slides(run, [path], tmp_path / "out", stride=384, progress=False)
    assert table["error"].tolist() == [""] and (tmp_path / "out" / "slides.csv").is_file()


def test_regions_outline_whole_cells_with_their_holes(slide):
    opened = open_slide(slide)
    heat = np.zeros((16, 16), "float32")
    heat[2:7, 3:9] = 0.9
    heat[4, 5] = 0.1  # a hole
    heat[12, 12] = 0.8
    features = find_regions(opened, heat, 0.5, 96)["features"]
    assert len(features) == 2
    outer, hole = features[0]["geometry"]["coordinates"]
    drawn = np.zeros((3072, 3072), "uint8")
    for ring, value in ((outer, 1), (hole, 0), (features[1]["geometry"]["coordinates"][0], 1)):
        assert ring[0] == ring[-1]
        cv2.fillPoly(drawn, [np.array(ring)], value)
    wanted = (heat >= 0.5).repeat(192, 0).repeat(192, 1)  # 96 pixels are 192 of the finest level
    assert np.mean(drawn[:3072, :3072] != wanted) < 0.003  # edges belong to either side
    area = features[1]["properties"]["measurements"]["area um^2"]
    assert area == round((96 * MICRONS_PER_PIXEL) ** 2)


def test_the_pyramid_lies_over_the_slide(scored, slide):
    heat, own = openslide.OpenSlide(scored[0] / "heatmap.tif"), open_slide(slide)
    width, height = (side * float(heat.properties["openslide.mpp-x"]) for side in heat.dimensions)
    assert width == pytest.approx(own.handle.dimensions[0] * own.microns_per_pixel, rel=0.01) and width == height


@pytest.mark.parametrize("stride", [24, 48, 96, 192])
def test_a_hot_tile_is_hot_in_the_pyramid_around_its_middle(tmp_path, stride):
    size = (1536, 1200)
    heat = np.zeros(((1200 - 96) // stride + 1, (1536 - 96) // stride + 1), "float32")
    heat[3, 5] = 1
    write_pyramid(heat, stride, size, tmp_path / "h.tif")
    drawn = tifffile.imread(tmp_path / "h.tif", level=0)
    hot = np.argwhere((drawn > 200).any(axis=2) & (drawn.min(axis=2) < 250)) + 0.5
    middle = hot.mean(axis=0) * stride / 8  # in patch pixels
    np.testing.assert_allclose(middle, [3 * stride + 48, 5 * stride + 48], atol=stride / 16)
    assert len(hot) == 64 and drawn.shape[:2] == (round(1200 * 8 / stride), round(1536 * 8 / stride))


def test_a_large_pyramid_has_levels(tmp_path):
    write_pyramid(np.random.default_rng(0).random((200, 150), "float32"), 48, (150 * 48, 200 * 48), tmp_path / "h.tif")
    with openslide.OpenSlide(tmp_path / "h.tif") as file:
        assert file.level_count == 4 and file.level_downsamples[-1] == pytest.approx(8)


def test_one_tile_alone_is_no_focus():
    heat = np.full((9, 9), 0.1, "float32")
    heat[4, 4] = 1.0
    alone = slide_score(heat)
    heat[3:6, 3:6] = 1.0
    assert alone < 0.25 and slide_score(heat) == pytest.approx(1.0)
    assert slide_score(np.where(np.eye(9) > 0, heat, np.nan)) <= 1


def test_the_grid_lies_where_the_middles_of_the_tiles_are(slide):
    left, right, bottom, top = extent_of(open_slide(slide), np.zeros((15, 15)), 96)
    assert (left, top) == (0, 0) and right == bottom == pytest.approx(1440 / 1536)


def test_a_bad_slide_stops_no_other(run, slide, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_text("no slide")
    (tmp_path / "in" / "b.tif").write_bytes(slide.read_bytes())
    lines = []
    (tmp_path / "in" / "._b.tif").write_text("what macOS leaves")
    (tmp_path / "in" / "folder.svs").mkdir()
    found = list_slides(tmp_path / "in")
    table = score_slides(run, found, tmp_path / "out", log=lines.append, stride=192, progress=False)
    assert table["error"].str.contains("not a slide").tolist() == [True, False] and table["tiles"].tolist()[1] > 10
    assert pd.read_csv(tmp_path / "out" / "slides.csv")["slide"].tolist() == ["a.tif", "b.tif"] and len(lines) == 2


def test_slides_are_ranked_against_their_labels(tmp_path):
    table = pd.DataFrame({"slide": list("abcde"), "score": [0.1, 0.9, 0.4, 0.7, 0.2], "error": ["", "", "", "", "bad"]})
    (tmp_path / "l.csv").write_text("slide,label\na,0\nb,1\nc,1\nd,0\ne,1\n")
    said = rank_slides(table, read_labels(tmp_path / "l.csv"), tmp_path / "roc.png")
    assert re.fullmatch(r"AUC 0\.75 \(0\.\d\d-1\.00\), 4 slides", said)
    assert cv2.imread(str(tmp_path / "roc.png")).shape[0] > 200
    (tmp_path / "l.csv").write_text("slide,label\na,0\ne,1\nx,1\n")
    with pytest.raises(ValueError, match="the labels name 1, and a ROC needs one of each class"):
        rank_slides(table, read_labels(tmp_path / "l.csv"), tmp_path / "roc.png")


@pytest.mark.parametrize(
    "content, words",
    [
        ("name,label\na,0\n", "must be a CSV with the columns slide and label"),
        ("slide,label\na,0\na,0\n", "names a twice"),
        ("slide,label\na,tumor\n", "gives a the label tumor; labels are 0 and 1"),
        ("slide,label\na,\n", "gives a the label nan"),
        (None, "l.csv must be a CSV"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "l.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize("name, words", [("absent", "no slide or folder"), (".", "holds no slide")])
def test_where_no_slide_is_that_is_said(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        list_slides(tmp_path / name)


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_stopped(run, slide, scored, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(run.folder, home / "runs" / "small")
    monkeypatch.setenv("HISTOPATH_HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    arguments = ["slide", str(slide), "--run", "small", "--out", str(tmp_path / "o"), "--stride", "16"]
    command = [sys.executable, "-m", "histopath", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    unfinished = tmp_path / "o" / "slide" / "unfinished.npz"
    while not unfinished.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = np.isfinite(np.load(unfinished)["p"]).sum()
    assert 0 < kept < 3_500 and not (tmp_path / "o" / "slide" / "slide.json").exists()
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0 and "wrote 1 of 1 slides" in said.stdout and f"{kept}/" in said.stderr.splitlines()[0]
    scores = pd.read_csv(tmp_path / "o" / "slide" / "scores.csv").set_index(["x", "y"])["probability"]
    coarse = pd.read_csv(scored[0] / "scores.csv").set_index(["x", "y"])["probability"]
    both = coarse.index.intersection(scores.index)
    assert len(both) > 0.9 * len(coarse)
    np.testing.assert_allclose(scores[both], coarse[both], atol=2e-4)
