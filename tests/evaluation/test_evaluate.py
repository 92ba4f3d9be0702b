"""A run's scores, tables of probabilities and submissions."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from histopath.evaluation.evaluate import describe_scores, draw_batch, find_rows, predict_table, score_run, submit_run
from histopath.evaluation.submission import read_ids
from histopath.files import InputError


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


def test_a_class_that_the_run_does_not_know_is_refused_before_predicting(run, small):
    with pytest.raises(ValueError, match="has the class a, which the run does not know; its classes are no_tumor, tumor"):
        score_run(run, dataclasses.replace(small, class_names=("a", "b", "c")))


@pytest.mark.slow
def test_a_run_of_three_classes_scores_predicts_and_draws(three_run, three, tmp_path):
    scores = score_run(three_run, three)
    assert scores["patches"] == len(three_run.rows("holdout")) and len(scores["confusion"]) == 3
    text = describe_scores(scores)
    assert "macro AUC" in text and [line.split()[0] for line in text.splitlines()[4:7]] == ["blue", "green", "red"]
    table = predict_table(three_run, three, tmp_path / "p.csv", views=1)
    assert list(table) == ["id", "label", "p_blue", "p_green", "p_red"] and len(table) == len(three)
    np.testing.assert_allclose(table[["p_blue", "p_green", "p_red"]].sum(axis=1), np.ones(len(table)), atol=1e-5)
    drawn = draw_batch(three_run, three, count=7)
    assert len(drawn) == 7 and set(drawn["row"]) <= set(three_run.rows("holdout")["row"])
    assert set(drawn["truth"]) | set(drawn["prediction"]) <= {"blue", "green", "red"}
    with pytest.raises(ValueError, match="more than two classes apart"):
        submit_run(three_run, three, tmp_path / "s.csv")


@pytest.mark.slow
def test_classes_are_matched_by_name_whatever_their_order(three_run, three):
    turned = three.table.assign(label=2 - three.table["label"])
    other = dataclasses.replace(three, table=turned, class_names=three.class_names[::-1])
    assert score_run(three_run, other, views=1) == score_run(three_run, three, views=1)


def test_data_without_a_sample_submission_is_refused(run, patches, tmp_path):
    with pytest.raises(InputError, match="sample_submission.csv"):
        submit_run(run, dataclasses.replace(patches, root=tmp_path), tmp_path / "s.csv")


def test_a_score_is_drawn_into_a_folder(run, small, tmp_path):
    scores = score_run(run, small, views=1, shifts=True, figures=tmp_path / "drawn")
    names = {"training", "validation", "roc", "operating_points", "calibration", "shifts"}
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == names
    assert scores == score_run(run, small, views=1, shifts=True)


def test_figures_of_three_classes_are_refused_before_predicting(three_run, three, tmp_path):
    with pytest.raises(ValueError, match="more than two classes apart; --figures draws runs of two"):
        score_run(three_run, three, figures=tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()
