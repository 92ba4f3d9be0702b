"""Every patch is held out once, whole slides and twins together; each fold is trained, scored and not trained again."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from histopath.config import get_config
from histopath.data.splits import split_patches
from histopath.evaluation.folds import BUDGETS, describe_folds, fold_dots, train_folds, try_folds
from histopath.plots.charts import interval_dots

SMALL = {"epochs": 1, "batch_size": 8, "norm_patches": 16, "folds": 2, "views": 1}


def table(count=300, slides=15, part="train"):
    rng = np.random.default_rng(0)
    looks = rng.integers(1, 2**63, count, dtype="uint64")
    looks[1::10] = looks[::10]  # twins
    columns = {"id": [f"p{i}" for i in range(count)], "label": rng.integers(0, 2, count), "part": part, "perceptual_hash": looks}
    names = [f"s{i % slides}" if slides else "" for i in range(count)]
    return pd.DataFrame(columns | {"slide": names, "pixel_hash": [f"h{i}" for i in range(count)]})


@pytest.mark.parametrize("slides", [15, 0])
def test_every_patch_is_held_out_once(slides):
    patches = table(slides=slides)
    folds = [split_patches(patches, 0.1, 0.2, class_names=("a", "b"), fold=(fold, 5)) for fold in range(1, 6)]
    held = pd.concat([splits[splits["split"] == "holdout"] for splits in folds])
    assert sorted(held["row"]) == sorted(set(held["row"])) and len(held) == len(patches)
    shares = [(splits["split"] == "holdout").mean() for splits in folds]
    assert min(shares) > 0.12 and max(shares) < 0.3
    assert all(set(splits["split"]) == {"train", "val", "holdout"} for splits in folds)


@pytest.mark.parametrize("preset", ["sample", "full"])
def test_the_notebook_asks_for_five_short_trainings(preset):
    whole, short = get_config(preset, "compact"), get_config(preset, "compact", BUDGETS[preset])
    assert short.folds == 5 and short.epochs < whole.epochs and short.epoch_steps


def test_published_parts_are_pooled():
    patches = table(slides=0, part=np.where(np.arange(300) % 3, "train", "test"))
    held = [split_patches(patches, fold=(fold, 3)).query("split == 'holdout'")["row"] for fold in (1, 2, 3)]
    assert len(set(np.concatenate(held))) == 300


def test_too_few_slides_are_refused():
    with pytest.raises(ValueError, match="fewer than 5 slides .* take fewer --folds"):
        split_patches(table(slides=4), fold=(1, 5))


@pytest.mark.slow
def test_folds_are_trained_scored_and_kept(small, tmp_path):
    config, lines = get_config("sample", "compact", SMALL), []
    scores = train_folds(small, config, tmp_path / "cv", log=lines.append)
    assert list(scores["run"]) == ["cv-fold1", "cv-fold2"]
    assert scores["patches"].sum() == len(small.table)
    assert pd.read_csv(tmp_path / "cv-folds.csv")["auc"].tolist() == pytest.approx(scores["auc"].tolist())
    text = describe_folds(scores)
    assert f"mean {scores['auc'].mean():.3f}" in text and "across 2 folds" in text
    lines.clear()
    again = train_folds(small, config, tmp_path / "cv", log=lines.append)
    assert all("already trained" in line for line in lines) and len(lines) == 2
    pd.testing.assert_frame_equal(scores, again)


def test_too_few_patches_do_not_stop_a_notebook(small, tmp_path):
    table, words = try_folds(small, get_config("sample", "compact", SMALL | {"folds": 999}), tmp_path / "cv")
    assert words.startswith("no folds: A class stands in fewer than 999") and not list(tmp_path.glob("*/model.keras"))
    assert fold_dots(table) == {}
    interval_dots(fold_dots(table)).savefig(tmp_path / "empty.png")


def test_the_mean_stands_above_the_folds():
    table = pd.DataFrame({"fold": [1, 2], "auc": [0.8, 0.9], "auc_low": [0.7, 0.85], "auc_high": [0.9, 1.0]})
    dots = fold_dots(table)
    assert list(dots) == ["mean, ± standard deviation", "fold 1", "fold 2"] and dots["fold 2"] == (0.9, 0.85, 1.0)
    assert dots["mean, ± standard deviation"] == pytest.approx((0.85, 0.85 - 0.005**0.5, 0.85 + 0.005**0.5))


@pytest.mark.parametrize("settings", [{"folds": 1}, {"folds": 3, "fold": 4}, {"folds": -1}])
def test_folds_that_there_are_not_are_refused(settings):
    with pytest.raises(ValueError, match="folds"):
        get_config("sample", "compact", settings)


@pytest.mark.slow
def test_the_command_says_the_spread(command, sample):
    settings = [word for key, value in (SMALL | {"epoch_steps": 2}).items() for word in ("--set", f"{key}={value}")]
    status, out, _ = command("train", "--data", sample, "--run", "cv", "--recipe", "compact", "--folds", "2", *settings)
    assert status == 0 and "standard deviation" in out and "runs/cv-folds.csv" in out


def test_a_fold_is_part_of_the_settings():
    config = get_config("sample", "compact", {"folds": 3})
    assert dataclasses.replace(config, fold=2).to_json() != config.to_json()
