"""A temperature undoes what it did, ranks stay, and a fit on one half calibrates the other."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from histopath.metrics.binary import calibration_error, fit_temperature, tempered
from histopath.metrics.multiclass import top_label_error


def overconfident(count=4000, sharpness=3.0, seed=0):
    """Labels drawn from honest probabilities, and those probabilities with their logits multiplied."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(int)
    return labels, 1 / (1 + np.exp(-sharpness * logits))


def test_temperature_is_what_the_logits_were_multiplied_by():
    labels, p = overconfident(40_000)
    # 40,000 labels leave a standard error of about 0.05 on 3.
    assert fit_temperature(labels, p) == pytest.approx(3.0, abs=0.2)


def test_other_half_is_calibrated_and_ranked_as_before():
    labels, p = overconfident()
    temperature = fit_temperature(labels[:2000], p[:2000])
    after = tempered(p[2000:], temperature)
    assert calibration_error(labels[2000:], after) < 0.5 * calibration_error(labels[2000:], p[2000:])
    assert roc_auc_score(labels[2000:], after) == roc_auc_score(labels[2000:], p[2000:])


def test_several_classes_are_calibrated_and_stay_distributions():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (4000, 4))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random(4000)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    sharp = tempered(honest, 1 / 3)
    after = tempered(sharp, fit_temperature(labels[:2000], sharp[:2000]))
    np.testing.assert_allclose(after.sum(axis=1), 1)
    assert (after.argmax(axis=1) == sharp.argmax(axis=1)).all()
    assert top_label_error(labels[2000:], after[2000:]) < 0.3 * top_label_error(labels[2000:], sharp[2000:])


@pytest.mark.parametrize("p", [np.array([0.0, 0.2, 1.0]), np.array([[0.0, 1.0], [0.3, 0.7]], "float32")])
def test_one_changes_nothing_and_certainty_stays_finite(p):
    np.testing.assert_allclose(tempered(p, 1.0), p, atol=2e-7)
    assert np.isfinite(tempered(p, 0.05)).all() and np.isfinite(tempered(p, 20)).all()


def test_perfect_answers_end_at_the_edge_of_the_range():
    assert fit_temperature(np.array([0, 1, 0, 1]), np.array([0.4, 0.6, 0.3, 0.7])) == pytest.approx(0.05, abs=0.01)
