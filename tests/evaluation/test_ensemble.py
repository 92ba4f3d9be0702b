"""Means are plain, ranks share ties, and only what no member learned from is scored."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from histopath.config import get_config
from histopath.evaluation.evaluate import (
    MEAN,
    OWN,
    PRETRAINED,
    RANK,
    ensemble_table,
    join_members,
    join_pretrained,
    score_ensemble,
    unseen_by_all,
)
from histopath.models.predict import predict
from histopath.models.runs import FOLDER, open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def second(small, tmp_path_factory):
    """Another seed, so that its holdout is another, which shares some patches with that of `run`."""
    from histopath.training.fit import train

    config = get_config("sample", "compact", {"epochs": 1, "batch_size": 8, "norm_patches": 16, "seed": 4})
    return train(small, config, tmp_path_factory.mktemp("runs") / "second", log=lambda line: None)


def test_means_are_plain():
    joined = join_members({"a": np.array([0.1, 0.2, 0.2]), "b": np.array([0.9, 0.5, 0.7])})
    np.testing.assert_allclose(joined[MEAN], [0.5, 0.35, 0.45])
    np.testing.assert_allclose(joined[RANK], np.array([1 + 3, 2.5 + 1, 2.5 + 2]) / 8)
    assert list(joined) == ["a", "b", MEAN, RANK]


def test_the_file_holds_means_and_members(run, second, patches, tmp_path):
    table = ensemble_table([run, second], patches, tmp_path / "e.csv", views=1)
    read = pd.read_csv(tmp_path / "e.csv")
    assert list(read.columns) == ["id", "probability", "rank", run.folder.name, "second"]
    np.testing.assert_allclose(read["probability"], (read["second"] + read[run.folder.name]) / 2, atol=1e-6)
    np.testing.assert_allclose(table["second"], predict(second.network, patches.images, views=1), atol=1e-6)


@pytest.mark.parametrize("name", ["id", "probability", "rank"])
def test_a_run_named_like_a_column_is_refused(run, patches, tmp_path, name):
    other = shutil.copytree(run.folder, tmp_path / name)
    with pytest.raises(ValueError, match=f"The run {name} has the name of a column"):
        ensemble_table([run, open_run(other)], patches, tmp_path / "e.csv", views=1)
    assert not (tmp_path / "e.csv").exists()


def test_a_damaged_member_is_named_and_not_called_unscored(run, small, tmp_path):
    other = shutil.copytree(run.folder, tmp_path / "other")
    (other / "splits.csv").write_text("row,id\n0,a\n")
    with pytest.raises(ValueError, match="splits.csv is damaged"):
        unseen_by_all([run, open_run(other)], small)


def test_only_what_no_member_learned_from_is_scored(run, second, small, tmp_path):
    table = ensemble_table([run, second], small, tmp_path / "e.csv", views=1)
    both = set(run.rows("holdout")["id"]) & set(second.rows("holdout")["id"])
    scores = score_ensemble([run, second], small, table)
    assert 0 < len(both) < len(run.rows("holdout"))
    assert (scores["patches"] == len(both)).all() and list(scores.index) == [run.folder.name, "second", MEAN, RANK]


def test_nothing_is_scored_without_labels(run, second, small, tmp_path):
    unlabeled = dataclasses.replace(small, table=small.table.assign(label=-1))
    assert score_ensemble([run, second], unlabeled, ensemble_table([run, second], unlabeled, tmp_path / "e.csv", views=1)) is None


def test_other_data_is_scored_whole(run, second, small, tmp_path):
    count = len(small.table)
    new = {
        "slide": "",
        "pixel_hash": [f"n{i}" for i in range(count)],
        "perceptual_hash": np.arange(count, dtype="uint64") * 99991 + 7,
    }
    flipped = dataclasses.replace(small, images=np.ascontiguousarray(255 - small.images), table=small.table.assign(**new))
    scores = score_ensemble([run, second], flipped, ensemble_table([run, second], flipped, tmp_path / "e.csv", views=1))
    assert (scores["patches"] == len(small.table)).all()
    assert ((scores["auc_low"] <= scores["auc"]) & (scores["auc"] <= scores["auc_high"])).all()


def test_the_network_in_the_box_joins_a_run_on_its_holdout(run, small):
    rows = run.rows("holdout")
    p = predict(run.network, small.images, rows["row"])
    kept, members = join_pretrained(run, small, rows, p)
    assert kept.all() and list(members) == [OWN, PRETRAINED, MEAN, RANK]
    np.testing.assert_array_equal(members[OWN], p)
    np.testing.assert_allclose(members[MEAN], (p + members[PRETRAINED]) / 2, atol=1e-6)


def test_a_run_stays_alone_where_the_box_cannot_answer_or_learned_from_all(run, small):
    rows = run.rows("holdout")
    p = np.linspace(0, 1, len(rows))
    smaller = dataclasses.replace(small, images=small.images[:, :64, :64])
    known = np.resize(open_run(FOLDER).splits.query("split == 'train'")["pixel_hash"], len(small.table))
    learned = dataclasses.replace(small, table=small.table.assign(pixel_hash=known))
    for patches in (smaller, learned):
        kept, members = join_pretrained(run, patches, rows, p)
        assert kept.all() and list(members) == [OWN] and (members[OWN] == p).all()


def test_one_run_and_runs_of_several_classes_are_refused(run, three_run, small, tmp_path):
    with pytest.raises(ValueError, match="two or more different runs"):
        ensemble_table([run, run], small, tmp_path / "e.csv")
    with pytest.raises(ValueError, match="more than two classes"):
        ensemble_table([run, three_run], small, tmp_path / "e.csv")
    assert not (tmp_path / "e.csv").exists()
