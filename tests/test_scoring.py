"""A run's scores, tables of probabilities and submissions."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from histopath.scoring import describe_scores, find_rows, predict_table, score_run, submit_run
from histopath.submission import read_ids


def test_scores_say_what_they_are_of(run, small):
    scores = score_run(run, small)
    assert scores["patches"] == len(run.rows("holdout")) and scores["views"] == 8
    assert scores["auc_low"] <= scores["auc"] <= scores["auc_high"]
    text = describe_scores(scores)
    for words in (
        "AUC",
        f"{scores['patches']} patches",
        "over slides",
        "8 views",
        "threshold",
        "chose nothing",
        "no slide of its training",
    ):
        assert words in text
    assert "synthetic" in text.splitlines()[-1] and "nothing about medicine" in text


def test_data_of_unknown_slides_says_so(run, small):
    other = dataclasses.replace(small, table=small.table.assign(slide=""))
    assert "slides unknown" in describe_scores(score_run(run, other, views=1))


def test_every_patch_gets_a_probability(run, patches, tmp_path):
    table = predict_table(run, patches, tmp_path / "p.csv", views=1)
    read = pd.read_csv(tmp_path / "p.csv")
    assert list(read.columns) == ["id", "probability"] and list(read["id"]) == list(patches.table["id"])
    np.testing.assert_allclose(read["probability"], table["probability"], rtol=1e-6)
    assert read["probability"].between(0, 1).all()


def test_a_submission_has_the_ids_of_the_sample_in_its_order(run, patches, tmp_path):
    checked = submit_run(run, patches, tmp_path / "s.csv", views=1)
    ids = read_ids(patches.root / "sample_submission.csv")
    assert checked["rows"] == 96 and checked["same_order"]
    assert list(pd.read_csv(tmp_path / "s.csv")["id"]) == ids


def test_a_listed_id_without_a_patch_is_named(patches):
    fewer = dataclasses.replace(patches, table=patches.table.drop(index=patches.table.index[-1]))
    missing = patches.table["id"].iloc[-1]
    with pytest.raises(ValueError, match=f"1 ids without a patch .* the first {missing}"):
        find_rows(fewer, list(patches.table["id"][-3:]))


def test_three_classes_are_refused_before_predicting(run, small):
    with pytest.raises(ValueError, match="has 3 classes"):
        score_run(run, dataclasses.replace(small, class_names=("a", "b", "c")))


def test_data_without_a_sample_submission_is_refused(run, patches, tmp_path):
    with pytest.raises(FileNotFoundError, match="sample_submission.csv"):
        submit_run(run, dataclasses.replace(patches, root=tmp_path), tmp_path / "s.csv")
