"""Scores agree with scikit-learn, intervals cover what they claim, and bad input is refused in one sentence."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from histopath import evaluation


@st.composite
def scored(draw):
    """Labels with both classes, and probabilities on a coarse grid so that ties are common."""
    size = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    assume(0 < labels.sum() < size)
    steps = draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    return labels, np.array(steps) / 20


def simulated(seed, patches=300, slides=None, spread=0.0):
    """Labels, probabilities and slide names; `spread` is how far the scores of a slide lie from the others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, patches)
    names = rng.integers(0, slides or 1, patches)
    offsets = rng.normal(0, spread, slides or 1)
    scores = rng.normal(0, 1, patches) + labels + offsets[names]
    return labels, 1 / (1 + np.exp(-scores)), np.char.add("slide_", names.astype(str))


@settings(max_examples=12, deadline=None)
@given(scored())
def test_scores_equal_those_of_scikit_learn(case):
    labels, probabilities = case
    scores = evaluation.evaluate(labels, probabilities, threshold=0.3)
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
def test_weighted_auc_of_the_bootstrap_equals_the_auc_of_the_drawn_patches(case):
    labels, probabilities = case
    # One replicate has one value, which is then both ends of its interval.
    low, high = evaluation.bootstrap_auc(labels, probabilities, replicates=1, seed=3)
    order = np.argsort(probabilities, kind="stable")
    weights = next(evaluation.resampled_weights(labels[order], None, 1, 3))
    drawn = np.repeat(order, weights.astype(int))
    assert low == high == pytest.approx(metrics.roc_auc_score(labels[drawn], probabilities[drawn]))


@settings(max_examples=60, deadline=None)
@given(scored())
def test_best_threshold_has_the_largest_youden_index_of_all_thresholds(case):
    labels, probabilities = case

    def youden(threshold):
        predicted = probabilities >= threshold
        return predicted[labels == 1].mean() - predicted[labels == 0].mean()

    best = evaluation.best_threshold(labels, probabilities)
    assert 0 <= best <= 1
    assert youden(best) == pytest.approx(max(youden(score) for score in probabilities))


def test_best_threshold_lies_between_two_scores():
    assert evaluation.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7]) == pytest.approx(0.4)


@settings(max_examples=40, deadline=None)
@given(scored())
def test_calibration_equals_that_of_scikit_learn_and_counts_every_patch(case):
    labels, probabilities = case
    table = evaluation.calibration(labels, probabilities)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=10)
    assert np.allclose(table["observed"], observed) and np.allclose(table["predicted"], predicted)
    assert table["count"].sum() == len(labels)
    gaps = np.abs(observed - predicted) * table["count"] / len(labels)
    assert evaluation.calibration_error(labels, probabilities) == pytest.approx(gaps.sum())


def test_quantile_bins_hold_equal_counts():
    labels, probabilities, _ = simulated(0, 1000)
    table = evaluation.calibration(labels, probabilities, bins=5, quantile=True)
    assert table["count"].tolist() == [200] * 5


def test_interval_covers_the_true_auc_about_as_often_as_it_claims():
    # Two normals one standard deviation apart: AUC = Phi(1 / sqrt 2). 80 % of 60 trials lies 5 standard errors
    # below 95 %, so only a wrong interval falls short; one that is far too wide fails the second claim.
    truth = 0.5 * (1 + math.erf(0.5))
    intervals = [evaluation.bootstrap_auc(*simulated(seed)[:2], replicates=200, seed=seed) for seed in range(60)]
    assert sum(low <= truth <= high for low, high in intervals) >= 48
    assert np.mean([high - low for low, high in intervals]) < 0.15


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_ends_are_the_quantiles_of_the_replicates(level):
    labels, probabilities, slides = simulated(8, 120, slides=9)
    order = np.argsort(probabilities, kind="stable")
    codes = evaluation.slide_codes(slides, 120)[0][order]
    values = [
        metrics.roc_auc_score(labels[order], probabilities[order], sample_weight=weights)
        for weights in evaluation.resampled_weights(labels[order], codes, 50, 0)
    ]
    ends = evaluation.bootstrap_auc(labels, probabilities, slides, replicates=50, level=level)
    assert ends == pytest.approx(np.quantile(values, [0.5 - level / 2, 0.5 + level / 2]))


def test_interval_over_slides_is_wider_when_slides_differ():
    labels, probabilities, slides = simulated(1, 2000, slides=20, spread=1.5)
    naive = np.diff(evaluation.bootstrap_auc(labels, probabilities))
    clustered = np.diff(evaluation.bootstrap_auc(labels, probabilities, slides))
    assert clustered > 1.3 * naive


def test_whole_slides_are_drawn():
    labels, _, slides = simulated(2, 200, slides=8)
    codes, known = evaluation.slide_codes(slides, 200)
    assert known == 8
    for weights in evaluation.resampled_weights(labels, codes, 20, 0):
        assert all(len(set(weights[codes == code])) == 1 for code in range(8))


def test_replicates_hold_both_classes_even_when_one_slide_has_all_of_one():
    labels = np.r_[np.zeros(90, int), np.ones(10, int)]
    codes = np.r_[np.repeat(np.arange(9), 10), np.full(10, 9)]
    for weights in evaluation.resampled_weights(labels, codes, 200, 0):
        assert weights[labels == 0].any() and weights[labels == 1].any()


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    labels, probabilities, _ = simulated(3)
    first, again, other = (evaluation.bootstrap_auc(labels, probabilities, replicates=50, seed=s) for s in (1, 1, 2))
    assert first == again != other


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
    scores = evaluation.evaluate(labels, probabilities, groups=slides)
    assert (scores["interval"], scores["slides"]) == (words, known)
    assert scores["auc_low"] <= scores["auc"] <= scores["auc_high"]


def test_patch_without_a_slide_is_a_cluster_of_its_own():
    codes, known = evaluation.slide_codes(["a", "", "b", "", None, "a"], 6)
    assert known == 2 and codes.tolist() == [0, 2, 1, 3, 4, 0]


def test_scores_can_be_written_as_json():
    labels, probabilities, slides = simulated(5, 60, slides=5)
    scores = evaluation.evaluate(labels, probabilities.astype(np.float32), groups=slides)
    assert json.loads(json.dumps(scores)) == scores


def test_band_contains_the_curve_and_ends_in_the_corners():
    labels, probabilities, _ = simulated(6, 400)
    grid, low, high = evaluation.roc_band(labels, probabilities, replicates=100)
    false, true, _ = evaluation.roc(labels, probabilities)
    inside = np.interp(grid, false, true)
    assert np.mean((low - 0.02 <= inside) & (inside <= high + 0.02)) > 0.97
    assert low[-1] == high[-1] == 1 and (low <= high).all()


def test_precision_recall_starts_at_the_share_of_tumor():
    labels, probabilities, _ = simulated(7)
    precision, recall, thresholds = evaluation.precision_recall(labels, probabilities)
    assert precision[0] == pytest.approx(labels.mean()) and recall[0] == 1
    assert len(thresholds) == len(precision) - 1


@pytest.mark.parametrize("score", [evaluation.auc, evaluation.evaluate, evaluation.bootstrap_auc, evaluation.roc])
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


def test_slide_names_of_another_length_are_refused():
    with pytest.raises(ValueError, match="3 slide names were given for 2 patches"):
        evaluation.bootstrap_auc([0, 1], [0.1, 0.2], ["a", "b", "c"])


def test_interval_is_written_as_the_style_asks():
    assert evaluation.format_interval("AUC", 0.9712, 0.961, 0.98, 3000) == "AUC 0.97 (0.96-0.98), 3,000 patches"


def test_worst_mistakes_come_most_confident_first_and_hold_no_correct_patch():
    labels, probabilities = np.array([0, 1, 0, 1, 0]), np.array([0.9, 0.05, 0.2, 0.8, 0.6])
    assert evaluation.worst_mistakes(labels, probabilities, 10).tolist() == [1, 0, 4]
    assert evaluation.worst_mistakes(labels, probabilities, 2).tolist() == [1, 0]
    assert evaluation.worst_mistakes(labels, probabilities, 10, threshold=0.7).tolist() == [1, 0]


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_mean_colour_is_exact_for_any_batch(batch):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    rows = np.array([3, 3, 19, 0, 11])
    colours = evaluation.mean_colour(images, rows, batch)
    assert colours.dtype == np.float32
    assert np.allclose(colours, images[rows].mean(axis=(1, 2)), atol=1e-4)


def test_colour_baseline_learns_a_colour_and_nothing_from_the_scored_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    images = rng.integers(100, 140, (200, 8, 8, 3), dtype=np.uint8)
    images[labels == 1, ..., 0] += 20
    fit, score = np.arange(150), np.arange(150, 200)
    probabilities = evaluation.mean_colour_baseline(images, labels, fit, score)
    assert evaluation.auc(labels[score], probabilities) > 0.99
    hidden = np.where(np.arange(200) < 150, labels, -1)
    assert np.array_equal(probabilities, evaluation.mean_colour_baseline(images, hidden, fit, score))


def test_colour_baseline_needs_both_classes_to_fit():
    with pytest.raises(ValueError, match="class 1 is missing"):
        evaluation.mean_colour_baseline(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), np.arange(3), [3])
