"""DeLong against a published formula and against the bootstrap; operating points against a search through all thresholds."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from histopath.evaluation import bootstrap_auc
from histopath.intervals import delong_difference, delong_interval, operating_points


def scores(count=400, seed=0, shift=1.2, ties=False):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    p = norm.cdf(rng.normal(labels * shift - 0.6, 1))
    return labels, np.round(p, 1) if ties else p


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_the_formula_of_its_paper(ties):
    labels, p = scores(ties=ties)
    tumour, healthy = p[labels == 1], p[labels == 0]
    wins = (tumour[:, None] > healthy) + 0.5 * (tumour[:, None] == healthy)
    variance = wins.mean(1).var(ddof=1) / len(tumour) + wins.mean(0).var(ddof=1) / len(healthy)
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
