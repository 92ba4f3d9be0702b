"""How sure a score is: intervals of an AUC with and without resampling, and what a network reaches at a set specificity.

Labels are integers 0 (no tumor) or 1 (tumor) of shape (N,), probabilities are floats in [0, 1] of shape (N,), and
groups are slide names of shape (N,), where "" means that the slide is unknown. Every function here refuses other
input with one sentence.
"""

import itertools
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from histopath.files import InputError

SHARES = (0.90, 0.95, 0.99)


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 and probabilities as float64, both (N,), once they are known to be fit for scoring.

    Raises:
        ValueError: when the lengths differ, nothing is given, a label is not 0 or 1, a probability is not in [0, 1],
            or one of the two classes is missing.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise InputError(
            f"labels have shape {labels.shape} and probabilities {probabilities.shape}: give one of each for every "
            "patch, both of shape (N,)."
        )
    if labels.size == 0:
        raise InputError("there are no patches to score: give at least one patch of each class.")
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        raise InputError(
            f"{wrong.sum():,} labels are neither 0 nor 1, the first is {labels[wrong.argmax()]}: score labeled patches only."
        )
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        raise InputError(
            f"{wrong.sum():,} probabilities are not finite numbers in [0, 1], the first is "
            f"{probabilities[wrong.argmax()]}: pass the output of the sigmoid."
        )
    present = np.unique(labels)
    if len(present) == 1:
        raise InputError(
            f"all {len(labels):,} patches have label {present[0]} and class {1 - int(present[0])} is missing: "
            "an AUC needs both classes."
        )
    return labels.astype(np.int64), probabilities


def slide_codes(groups: np.ndarray | None, count: int) -> tuple[np.ndarray | None, int]:
    """Cluster number of each patch for the bootstrap, and how many slides are known.

    A patch whose slide is "" is a cluster of its own. With fewer than two known slides there is nothing to resample
    by slide, and the codes are None.

    Args:
        groups: slide names (N,), or None when no slide is known.
        count: N, the number of patches.

    Raises:
        ValueError: when groups has another length than the patches.
    """
    if groups is None:
        return None, 0
    names = pd.Series(np.asarray(groups, dtype=object)).fillna("").astype(str)
    if len(names) != count:
        raise InputError(f"{len(names):,} slide names were given for {count:,} patches: give one name a patch.")
    codes, slides = pd.factorize(names.where(names != ""))
    if len(slides) < 2:
        return None, len(slides)
    lonely = codes < 0
    codes[lonely] = len(slides) + np.arange(lonely.sum())
    return codes, len(slides)


def resampled_weights(labels: np.ndarray, codes: np.ndarray | None, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each patch stands in each bootstrap replicate: float64 (N,), two classes at least always present.

    Without codes patches are drawn within each class; with them whole slides are drawn, again while fewer than two
    classes are drawn.
    """
    rng = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    for _ in range(replicates):
        weights = np.zeros(len(labels))
        if codes is None:
            for rows in classes:
                weights[rows] = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
        while sum(weights[rows].any() for rows in classes) < 2:
            clusters = int(codes.max()) + 1
            weights = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)[codes].astype(float)
        yield weights


def bootstrap_auc(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUC.

    Patches of one slide resemble each other, so an interval over patches is too narrow. With slide names whole slides
    are drawn with replacement (a replicate with one class only is drawn again); without them patches are drawn
    within each class. The scores are sorted once, and each replicate only weights them.

    Args:
        labels: 0 or 1, (N,).
        probabilities: in [0, 1], (N,).
        groups: slide names (N,), or None.
        replicates: number of bootstrap replicates.
        seed: seed of the draws.

    Returns:
        Lower and upper end of the interval.
    """
    labels, probabilities = checked(labels, probabilities)
    codes, _ = slide_codes(groups, len(labels))
    order = np.argsort(probabilities, kind="stable")
    scores, positive = probabilities[order], labels[order] == 1
    starts = np.flatnonzero(np.r_[True, scores[1:] > scores[:-1]])
    codes = None if codes is None else codes[order]
    values = np.empty(replicates)
    for number, weights in enumerate(resampled_weights(labels[order], codes, replicates, seed)):
        tumor = np.add.reduceat(weights * positive, starts)
        healthy = np.add.reduceat(weights * ~positive, starts)
        below = np.cumsum(healthy) - healthy / 2
        values[number] = tumor @ below / (tumor.sum() * healthy.sum())
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _drawn_curves(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None, replicates: int, seed: int
) -> tuple[np.ndarray, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """The scores at which a ROC curve bends, falling, (K,), and the curves: first that of all patches, then each replicate's.

    A curve is the false and the true positive rates from (0, 0) to (1, 1), each (K + 1,).
    """
    labels, probabilities = checked(labels, probabilities)
    codes, _ = slide_codes(groups, len(labels))
    order = np.argsort(-probabilities, kind="stable")
    scores, positive = probabilities[order], labels[order] == 1
    ends = np.flatnonzero(np.r_[scores[1:] < scores[:-1], True])
    drawn = resampled_weights(labels[order], None if codes is None else codes[order], replicates, seed)

    def curve(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tumor = np.r_[0, np.cumsum(weights * positive)[ends]]
        healthy = np.r_[0, np.cumsum(weights * ~positive)[ends]]
        return healthy / healthy[-1], tumor / tumor[-1]

    return scores[ends], map(curve, itertools.chain([np.ones(len(labels))], drawn))


def roc_band(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray | None = None,
    replicates: int = 300,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pointwise 95 % bootstrap band around the ROC curve, resampled as `bootstrap_auc` does.

    Returns:
        A grid of 201 false positive rates, and the lower and upper true positive rate at each, each (201,).
    """
    _, curves = _drawn_curves(labels, probabilities, groups, replicates, seed)
    grid = np.linspace(0, 1, 201)
    rates = [np.interp(grid, false, true) for false, true in itertools.islice(curves, 1, None)]
    low, high = np.quantile(rates, [0.025, 0.975], axis=0)
    return grid, low, high


def _placements(labels: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each tumor patch the share of healthy ones below it, (m,), and of each healthy one the share of tumors above, (n,)."""
    tumor, healthy = p[labels == 1], p[labels == 0]
    ranks = rankdata(np.concatenate([tumor, healthy]))
    above = (ranks[: len(tumor)] - rankdata(tumor)) / len(healthy)
    below = 1 - (ranks[len(tumor) :] - rankdata(healthy)) / len(tumor)
    return above, below


def delong_interval(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """95 % normal interval of the AUC (DeLong et al. 1988), by the ranks of Sun and Xu 2014; patches count as independent.

    Returns:
        Lower and upper end, within [0, 1].
    """
    labels, probabilities = checked(labels, probabilities)
    above, below = _placements(labels, probabilities)
    spread = _spread(above) / len(above) + _spread(below) / len(below)
    half = NormalDist().inv_cdf(0.975) * spread**0.5
    return max(0.0, float(above.mean() - half)), min(1.0, float(above.mean() + half))


def _spread(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def delong_difference(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """The AUC of one set of probabilities minus that of another on the same patches (DeLong et al. 1988).

    Returns:
        The difference, the ends of its 95 % interval, and the two-sided p-value of there being none.
    """
    labels, first = checked(labels, first)
    _, second = checked(labels, second)
    (above, below), (other_above, other_below) = _placements(labels, first), _placements(labels, second)
    difference = float(above.mean() - other_above.mean())
    deviation = (_spread(above - other_above) / len(above) + _spread(below - other_below) / len(below)) ** 0.5
    half = NormalDist().inv_cdf(0.975) * deviation
    p_value = 2 * NormalDist().cdf(-abs(difference) / deviation) if deviation else 1.0
    return difference, difference - half, difference + half, p_value


def operating_points(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None, replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Sensitivity at 90, 95 and 99 % specificity, and the reverse, with bootstrap intervals as of `bootstrap_auc`.

    Each is what a threshold between two scores reaches: the best of those that keep at least the share asked for.

    Returns:
        One row a point: `name`, such as `sensitivity at 95 % specificity`, `asked` (`specificity` or `sensitivity`), `at`
        (the share asked for), `reached` (the other share), `low`, `high`, `threshold` (a patch counts as tumor from it on).
    """
    scores, curves = _drawn_curves(labels, probabilities, groups, replicates, seed)
    points = [(asked, share) for asked in ("specificity", "sensitivity") for share in SHARES]
    whole = next(curves)
    drawn = np.array([[_read_curve(*curve, *point)[1] for point in points] for curve in curves])  # one curve in memory at a time
    rows = []
    for (asked, share), (low, high) in zip(points, np.quantile(drawn, [0.025, 0.975], axis=0).T, strict=True):
        place, reached = _read_curve(*whole, asked, share)
        above = scores[place - 1] if place else 1.0
        below = scores[place] if place < len(scores) else 0.0
        name = f"{'specificity' if asked == 'sensitivity' else 'sensitivity'} at {100 * share:.0f} % {asked}"
        rows.append((name, asked, share, reached, float(low), float(high), float((above + below) / 2)))
    return pd.DataFrame(rows, columns=["name", "asked", "at", "reached", "low", "high", "threshold"])


def _read_curve(false: np.ndarray, true: np.ndarray, asked: str, share: float) -> tuple[int, float]:
    """Place on a ROC curve where the share asked for is kept and the other is best; and that other."""
    if asked == "specificity":
        place = int(np.flatnonzero(1 - false >= share - 1e-12)[-1])
        return place, float(true[place])
    place = int(np.flatnonzero(true >= share - 1e-12)[0])
    return place, float(1 - false[place])
