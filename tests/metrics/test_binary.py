"""Scores agree with scikit-learn, intervals cover what they claim, and bad input is refused in one sentence."""

import json
import math

import numpy as np
import pytest
from helpers import scored, simulated
from hypothesis import given, settings
from sklearn import metrics
from sklearn.calibration import calibration_curve

from histopath.metrics import binary, intervals


@settings(max_examples=12, deadline=None)
@given(scored())
def test_scores_equal_those_of_scikit_learn(case):
    labels, probabilities = case
    scores = binary.evaluate(labels, probabilities, threshold=0.3)
    predicted = probabilities >= 0.3
    expected = {
        "auc": metrics.roc_auc_score(labels, probabilities),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "average_precision": metrics.average_precision_score(labels, probabilities),
        "brier": metrics.brier_score_loss(labels, probabilities),
        "log_loss": metrics.log_loss(labels, probabilities),
        "sensitivity": metrics.recall_score(labels, predicted),
        "specificity": metrics.recall_score(labels, predicted, pos_label=0),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert np.array_equal(scores["confusion"], metrics.confusion_matrix(labels, predicted, labels=[0, 1]))
    assert (scores["patches"], scores["positives"]) == (len(labels), labels.sum())


@settings(max_examples=60, deadline=None)
@given(scored())
def test_best_threshold_has_the_largest_youden_index_of_all_thresholds(case):
    labels, probabilities = case

    def youden(threshold):
        predicted = probabilities >= threshold
        return predicted[labels == 1].mean() - predicted[labels == 0].mean()

    best = binary.best_threshold(labels, probabilities)
    assert 0 <= best <= 1
    assert youden(best) == pytest.approx(max(youden(score) for score in probabilities))


def test_best_threshold_lies_between_two_scores():
    assert binary.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7]) == pytest.approx(0.4)


@settings(max_examples=40, deadline=None)
@given(scored())
def test_calibration_equals_that_of_scikit_learn_and_counts_every_patch(case):
    labels, probabilities = case
    table = binary.calibration(labels, probabilities)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=10)
    assert np.allclose(table["observed"], observed) and np.allclose(table["predicted"], predicted)
    assert table["count"].sum() == len(labels)
    gaps = np.abs(observed - predicted) * table["count"] / len(labels)
    assert binary.calibration_error(labels, probabilities) == pytest.approx(gaps.sum())


@pytest.mark.parametrize(
    ("slides", "words", "known"),
    [
        (None, "95 % bootstrap over patches", 0),
        (["a"] * 60, "95 % bootstrap over patches", 1),
        ([""] * 60, "95 % bootstrap over patches", 0),
        (["a", "b", ""] * 20, "95 % bootstrap over slides", 2),
    ],
)
def test_result_says_what_the_interval_was_drawn_over(slides, words, known):
    labels, probabilities, _ = simulated(4, 60)
    scores = binary.evaluate(labels, probabilities, groups=slides)
    assert (scores["interval"], scores["slides"]) == (words, known)
    assert scores["auc_low"] <= scores["auc"] <= scores["auc_high"]


def test_scores_can_be_written_as_json():
    labels, probabilities, slides = simulated(5, 60, slides=5)
    scores = binary.evaluate(labels, probabilities.astype(np.float32), groups=slides)
    assert json.loads(json.dumps(scores)) == scores


def test_precision_recall_starts_at_the_share_of_tumor():
    labels, probabilities, _ = simulated(7)
    precision, recall, thresholds = binary.precision_recall(labels, probabilities)
    assert precision[0] == pytest.approx(labels.mean()) and recall[0] == 1
    assert len(thresholds) == len(precision) - 1


@pytest.mark.parametrize("score", [binary.auc, binary.evaluate, intervals.bootstrap_auc, binary.roc])
@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 0], [0.1, 0.2], "class 1 is missing"),
        ([1, 1], [0.1, 0.2], "class 0 is missing"),
        ([0, 1, 1], [0.1, 0.2], "one of each"),
        ([], [], "no patches"),
        ([0, 1, -1], [0.1, 0.2, 0.3], "neither 0 nor 1, the first is -1"),
        ([0, 1], [0.1, math.nan], "first is nan"),
        ([0, 1], [0.1, 1.5], "first is 1.5"),
        ([0, 1], [-0.1, 0.5], "first is -0.1"),
        ([[0, 1]], [[0.1, 0.5]], r"\(1, 2\)"),
    ],
)
def test_unfit_input_is_refused_in_one_sentence(score, labels, probabilities, words):
    with pytest.raises(ValueError, match=words) as caught:
        score(labels, probabilities)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_interval_is_written_as_the_style_asks():
    assert binary.format_interval("AUC", 0.9712, 0.961, 0.98, 3000) == "AUC 0.97 (0.96-0.98), 3,000 patches"


def test_worst_mistakes_come_most_confident_first_and_hold_no_correct_patch():
    labels, probabilities = np.array([0, 1, 0, 1, 0]), np.array([0.9, 0.05, 0.2, 0.8, 0.6])
    assert binary.worst_mistakes(labels, probabilities, 10).tolist() == [1, 0, 4]
    assert binary.worst_mistakes(labels, probabilities, 2).tolist() == [1, 0]
    assert binary.worst_mistakes(labels, probabilities, 10, threshold=0.7).tolist() == [1, 0]


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_mean_color_is_exact_for_any_batch(batch):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    rows = np.array([3, 3, 19, 0, 11])
    colors = binary.mean_color(images, rows, batch)
    assert colors.dtype == np.float32
    assert np.allclose(colors, images[rows].mean(axis=(1, 2)), atol=1e-4)


def test_color_baseline_learns_a_color_and_nothing_from_the_scored_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    images = rng.integers(100, 140, (200, 8, 8, 3), dtype=np.uint8)
    images[labels == 1, ..., 0] += 20
    fit, score = np.arange(150), np.arange(150, 200)
    probabilities = binary.mean_color_baseline(images, labels, fit, score)
    assert binary.auc(labels[score], probabilities) > 0.99
    hidden = np.where(np.arange(200) < 150, labels, -1)
    assert np.array_equal(probabilities, binary.mean_color_baseline(images, hidden, fit, score))


def test_color_baseline_needs_both_classes_to_fit():
    with pytest.raises(ValueError, match="class 1 is missing"):
        binary.mean_color_baseline(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), np.arange(3), [3])
