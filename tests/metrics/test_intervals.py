"""DeLong against a published formula and against the bootstrap; operating points against a search through all thresholds."""

import math

import numpy as np
import pytest
from helpers import scored, simulated
from hypothesis import given, settings
from scipy.stats import norm
from sklearn import metrics
from sklearn.metrics import roc_auc_score

from histopath.metrics import intervals
from histopath.metrics.intervals import bootstrap_auc, delong_difference, delong_interval, operating_points


@settings(max_examples=60, deadline=None)
@given(scored())
def test_weighted_auc_of_the_bootstrap_equals_the_auc_of_the_drawn_patches(case):
    labels, probabilities = case
    # One replicate has one value, which is then both ends of its interval.
    low, high = intervals.bootstrap_auc(labels, probabilities, replicates=1, seed=3)
    order = np.argsort(probabilities, kind="stable")
    weights = next(intervals.resampled_weights(labels[order], None, 1, 3))
    drawn = np.repeat(order, weights.astype(int))
    assert low == high == pytest.approx(metrics.roc_auc_score(labels[drawn], probabilities[drawn]))


def test_interval_covers_the_true_auc_about_as_often_as_it_claims():
    # Two normals one standard deviation apart: AUC = Phi(1 / sqrt 2). 80 % of 60 trials lies 5 standard errors
    # below 95 %, so only a wrong interval falls short; one that is far too wide fails the second claim.
    truth = 0.5 * (1 + math.erf(0.5))
    ends = [bootstrap_auc(*simulated(seed)[:2], replicates=200, seed=seed) for seed in range(60)]
    assert sum(low <= truth <= high for low, high in ends) >= 48
    assert np.mean([high - low for low, high in ends]) < 0.15


def test_ends_are_the_quantiles_of_the_replicates():
    labels, probabilities, slides = simulated(8, 120, slides=9)
    order = np.argsort(probabilities, kind="stable")
    codes = intervals.slide_codes(slides, 120)[0][order]
    values = [
        metrics.roc_auc_score(labels[order], probabilities[order], sample_weight=weights)
        for weights in intervals.resampled_weights(labels[order], codes, 50, 0)
    ]
    ends = intervals.bootstrap_auc(labels, probabilities, slides, replicates=50)
    assert ends == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_interval_over_slides_is_wider_when_slides_differ():
    labels, probabilities, slides = simulated(1, 2000, slides=20, spread=1.5)
    naive = np.diff(intervals.bootstrap_auc(labels, probabilities))
    clustered = np.diff(intervals.bootstrap_auc(labels, probabilities, slides))
    assert clustered > 1.3 * naive


def test_whole_slides_are_drawn():
    labels, _, slides = simulated(2, 200, slides=8)
    codes, known = intervals.slide_codes(slides, 200)
    assert known == 8
    for weights in intervals.resampled_weights(labels, codes, 20, 0):
        assert all(len(set(weights[codes == code])) == 1 for code in range(8))


def test_replicates_hold_both_classes_even_when_one_slide_has_all_of_one():
    labels = np.r_[np.zeros(90, int), np.ones(10, int)]
    codes = np.r_[np.repeat(np.arange(9), 10), np.full(10, 9)]
    for weights in intervals.resampled_weights(labels, codes, 200, 0):
        assert weights[labels == 0].any() and weights[labels == 1].any()


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    labels, probabilities, _ = simulated(3)
    first, again, other = (intervals.bootstrap_auc(labels, probabilities, replicates=50, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_patch_without_a_slide_is_a_cluster_of_its_own():
    codes, known = intervals.slide_codes(["a", "", "b", "", None, "a"], 6)
    assert known == 2 and codes.tolist() == [0, 2, 1, 3, 4, 0]


def test_band_contains_the_curve_and_ends_in_the_corners():
    labels, probabilities, _ = simulated(6, 400)
    grid, low, high = intervals.roc_band(labels, probabilities, replicates=100)
    false, true, _ = metrics.roc_curve(labels, probabilities)
    inside = np.interp(grid, false, true)
    assert np.mean((low - 0.02 <= inside) & (inside <= high + 0.02)) > 0.97
    assert low[-1] == high[-1] == 1 and (low <= high).all()


def test_slide_names_of_another_length_are_refused():
    with pytest.raises(ValueError, match="3 slide names were given for 2 patches"):
        intervals.bootstrap_auc([0, 1], [0.1, 0.2], ["a", "b", "c"])


def scores(count=400, seed=0, shift=1.2, ties=False):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    p = norm.cdf(rng.normal(labels * shift - 0.6, 1))
    return labels, np.round(p, 1) if ties else p


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_the_formula_of_its_paper(ties):
    labels, p = scores(ties=ties)
    tumor, healthy = p[labels == 1], p[labels == 0]
    wins = (tumor[:, None] > healthy) + 0.5 * (tumor[:, None] == healthy)
    variance = wins.mean(1).var(ddof=1) / len(tumor) + wins.mean(0).var(ddof=1) / len(healthy)
    half = norm.ppf(0.975) * variance**0.5
    auc = roc_auc_score(labels, p)
    assert delong_interval(labels, p) == pytest.approx((auc - half, auc + half), abs=1e-12)


def test_delong_agrees_with_the_bootstrap_and_stays_within_0_and_1():
    labels, p = scores(2000)
    assert delong_interval(labels, p) == pytest.approx(bootstrap_auc(labels, p), abs=0.004)
    assert delong_interval(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])) == (1.0, 1.0)


def test_the_difference_of_two_scores_of_the_same_patches():
    labels, p = scores(2000)
    noise = np.random.default_rng(1).normal(size=len(p))
    worse = norm.cdf(norm.ppf(np.clip(p, 1e-9, 1 - 1e-9)) + noise)
    difference, low, high, p_value = delong_difference(labels, p, worse)
    assert difference == pytest.approx(roc_auc_score(labels, p) - roc_auc_score(labels, worse)) and low < difference < high
    assert p_value < 1e-6 and low > 0
    assert delong_difference(labels, p, p) == (0, 0, 0, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_operating_points_are_the_best_that_a_threshold_reaches(ties):
    labels, p = scores(500, ties=ties)
    points = operating_points(labels, p, replicates=50)
    thresholds = np.unique(np.r_[p, 2.0])
    sensitivity = np.array([(p[labels == 1] >= t).mean() for t in thresholds])
    specificity = np.array([(p[labels == 0] < t).mean() for t in thresholds])
    for row in points.itertuples():
        asked, other = (specificity, sensitivity) if row.asked == "specificity" else (sensitivity, specificity)
        assert row.reached == pytest.approx(other[asked >= row.at - 1e-12].max())
        assert row.low <= row.reached + 1e-12 and row.reached <= row.high + 1e-12
        at = {"sensitivity": (p[labels == 1] >= row.threshold).mean(), "specificity": (p[labels == 0] < row.threshold).mean()}
        assert at[row.asked] >= row.at - 1e-12
    assert len(points) == 6
