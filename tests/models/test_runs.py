"""A run folder is whole or refused; what may be scored is chosen honestly."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from histopath.files import InputError
from histopath.models.runs import open_run, scored_rows


def test_a_run_opens_from_its_folder_alone(run, tmp_path):
    copy = open_run(shutil.copytree(run.folder, tmp_path / "elsewhere"))
    assert copy.config == run.config
    pd.testing.assert_frame_equal(copy.splits, run.splits)
    assert copy.network.count_params() == run.network.count_params()


def test_a_run_is_not_used_with_the_rows_of_other_patches(run, small):
    assert open_run(run.folder, small).folder == run.folder
    with pytest.raises(ValueError, match="trained on other patches"):
        open_run(run.folder, dataclasses.replace(small, fingerprint="other"))


def test_a_missing_folder_is_refused_with_the_command(tmp_path):
    with pytest.raises(InputError, match="no run folder .*absent; train one with"):
        open_run(tmp_path / "absent")


@pytest.mark.parametrize("name", ["model.keras", "config.json", "splits.csv", "metrics.json"])
def test_a_run_without_one_of_its_files_is_refused(run, tmp_path, name):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        open_run(copy)


def test_a_truncated_network_is_refused_in_one_sentence(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    (copy / "model.keras").write_bytes((run.folder / "model.keras").read_bytes()[:5000])
    with pytest.raises(ValueError, match="^[^\n]*model.keras is not a complete saved network[^\n]*$"):
        open_run(copy).network  # noqa: B018


def test_scores_are_kept_beside_those_of_training(run, tmp_path):
    copy = open_run(shutil.copytree(run.folder, tmp_path / "copy"))
    copy.add_metrics(holdout={"auc": 0.5})
    assert copy.metrics["holdout"] == {"auc": 0.5} and copy.val == run.val


def test_on_its_own_data_only_the_holdout_is_scored(run, small):
    rows, words = scored_rows(run, small)
    assert set(rows["id"]) == set(run.rows("holdout")["id"])
    assert "chose nothing" in words


def test_on_other_data_everything_is_scored(run, patches, small):
    other = patches.table.index[(patches.table["label"] >= 0) & ~patches.table["id"].isin(small.table["id"])]
    rest = dataclasses.replace(patches, images=patches.images[other], table=patches.table.loc[other].reset_index(drop=True))
    rows, words = scored_rows(run, rest)
    assert len(rows) == len(other) and words == "patches that were not in its training"


def other_data(run, small, **columns):
    """The patches of `small` as new ones (other pixels) but for ten that the run was trained on."""
    seen = run.rows("train").head(10)["id"]
    table = small.table.copy()
    fresh = table.index[~table["id"].isin(seen)]
    table.loc[fresh, "pixel_hash"] = [f"other {i}" for i in fresh]
    table["perceptual_hash"] = np.uint64(0)
    return seen, dataclasses.replace(small, table=table.assign(**columns), fingerprint="other")


def test_patches_it_learned_from_are_left_out_of_other_data(run, small):
    seen, other = other_data(run, small, slide="")
    rows, words = scored_rows(run, other)
    assert not set(rows["id"]) & set(seen) and len(rows) == len(other.table) - 10
    assert "10 that were, look like one that was, or whose slide was, are left out" in words


def test_new_patches_of_slides_it_learned_from_are_left_out_too(run, small):
    _, other = other_data(run, small)
    rows, words = scored_rows(run, other)
    learned = run.splits.loc[run.splits["split"] != "holdout", "slide"]
    assert len(rows) and not set(rows["slide"]) & set(learned)
    assert f"{len(other.table) - len(rows)} that were, look like one that was, or whose slide was" in words


def test_what_looks_like_a_patch_it_learned_from_is_left_out(run, small):
    seen, other = other_data(run, small, slide="")
    table = other.table.assign(
        perceptual_hash=small.table["perceptual_hash"], pixel_hash=[f"saved again {i}" for i in range(len(small))]
    )
    rows, _ = scored_rows(run, dataclasses.replace(other, table=table))
    learned = run.splits[(run.splits["split"] != "holdout") & (run.splits["perceptual_hash"] > 0)]
    assert not set(rows["id"]) & set(learned["id"]) and len(rows) >= len(run.rows("holdout"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("splits.csv", "x"), ("splits.csv", ""), ("metrics.json", "{}"), ("metrics.json", ""), ("history.csv", "a,b\n1,2\n")],
)
def test_a_damaged_file_of_a_run_is_named_with_the_cure(run, tmp_path, name, content):
    copy = open_run(shutil.copytree(run.folder, tmp_path / "copy"))
    (copy.folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"^[^\n]*{name} is damaged [^\n]*delete the run and train it again.$"):
        {"splits.csv": lambda: copy.splits, "metrics.json": lambda: copy.metrics, "history.csv": lambda: copy.history}[name]()


def test_data_that_was_all_learned_from_is_refused(run, small):
    table = small.table.loc[run.rows("train")["row"]].reset_index(drop=True)
    with pytest.raises(ValueError, match="did not learn from"):
        scored_rows(run, dataclasses.replace(small, table=table))
