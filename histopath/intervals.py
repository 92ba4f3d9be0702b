"""Intervals and differences of AUCs without resampling, and sensitivity where a specificity is asked for.

Labels, probabilities and groups are those of `evaluation`.
"""

from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from histopath.evaluation import checked, resampled_weights, slide_codes

SHARES = (0.90, 0.95, 0.99)


def _placements(labels: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each tumour patch the share of healthy ones below it, (m,), and of each healthy one the share of tumours above, (n,)."""
    tumour, healthy = p[labels == 1], p[labels == 0]
    ranks = rankdata(np.concatenate([tumour, healthy]))
    above = (ranks[: len(tumour)] - rankdata(tumour)) / len(healthy)
    below = 1 - (ranks[len(tumour) :] - rankdata(healthy)) / len(tumour)
    return above, below


def delong_interval(labels: np.ndarray, probabilities: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Normal interval of the AUC (DeLong et al. 1988), by the ranks of Sun and Xu 2014; patches count as independent.

    Returns:
        Lower and upper end, within [0, 1].
    """
    labels, probabilities = checked(labels, probabilities)
    above, below = _placements(labels, probabilities)
    spread = _spread(above) / len(above) + _spread(below) / len(below)
    half = NormalDist().inv_cdf((1 + level) / 2) * spread**0.5
    return max(0.0, float(above.mean() - half)), min(1.0, float(above.mean() + half))


def _spread(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def delong_difference(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, level: float = 0.95
) -> tuple[float, float, float, float]:
    """The AUC of one set of probabilities minus that of another on the same patches (DeLong et al. 1988).

    Returns:
        The difference, the ends of its interval, and the two-sided p-value of there being none.
    """
    labels, first = checked(labels, first)
    _, second = checked(labels, second)
    (above, below), (other_above, other_below) = _placements(labels, first), _placements(labels, second)
    difference = float(above.mean() - other_above.mean())
    deviation = (_spread(above - other_above) / len(above) + _spread(below - other_below) / len(below)) ** 0.5
    half = NormalDist().inv_cdf((1 + level) / 2) * deviation
    p_value = 2 * NormalDist().cdf(-abs(difference) / deviation) if deviation else 1.0
    return difference, difference - half, difference + half, p_value


def operating_points(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None, replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Sensitivity at 90, 95 and 99 % specificity, and the reverse, with bootstrap intervals as of `bootstrap_auc`.

    Each is what a threshold between two scores reaches: the best of those that keep at least the share asked for.

    Returns:
        One row a point: `asked` (`specificity` or `sensitivity`), `at` (the share asked for), `reached` (the other share),
        `low`, `high`, `threshold` (a patch counts as tumour from it on).
    """
    labels, probabilities = checked(labels, probabilities)
    codes, _ = slide_codes(groups, len(labels))
    order = np.argsort(-probabilities, kind="stable")
    scores, positive = probabilities[order], labels[order] == 1
    ends = np.flatnonzero(np.r_[scores[1:] < scores[:-1], True])
    codes = None if codes is None else codes[order]

    def curve(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tumour = np.r_[0, np.cumsum(weights * positive)[ends]]
        healthy = np.r_[0, np.cumsum(weights * ~positive)[ends]]
        return 1 - healthy / healthy[-1], tumour / tumour[-1]

    whole = curve(np.ones(len(labels)))
    drawn = [curve(weights) for weights in resampled_weights(labels[order], codes, replicates, seed)]
    rows = []
    for asked, share in ((asked, share) for asked in ("specificity", "sensitivity") for share in SHARES):
        place, reached = _read_curve(*whole, asked, share)
        low, high = np.quantile([_read_curve(*one, asked, share)[1] for one in drawn], [0.025, 0.975])
        above = scores[ends[place - 1]] if place else 1.0
        below = scores[ends[place]] if place < len(ends) else 0.0
        rows.append((asked, share, reached, float(low), float(high), float((above + below) / 2)))
    return pd.DataFrame(rows, columns=["asked", "at", "reached", "low", "high", "threshold"])


def _read_curve(specificity: np.ndarray, sensitivity: np.ndarray, asked: str, share: float) -> tuple[int, float]:
    """Place on a curve, by falling specificity, where the share asked for is kept and the other is best; and that other."""
    if asked == "specificity":
        place = int(np.flatnonzero(specificity >= share - 1e-12)[-1])
        return place, float(sensitivity[place])
    place = int(np.flatnonzero(sensitivity >= share - 1e-12)[0])
    return place, float(specificity[place])
