"""Scores of a choice between K classes: labels, one probability a class, class and slide names in, numbers and curves out.

Labels are integers 0 to K-1 of shape (N,), probabilities are floats of shape (N, K) whose rows sum to one, and groups
are slide names of shape (N,), where "" means that the slide is unknown. A class without any patch among the labels
is left out of every mean and named. Other input is refused with one sentence.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn import metrics

from histopath.files import InputError
from histopath.metrics.binary import both_classes, calibration_error, evaluate, format_interval, tempered
from histopath.metrics.intervals import resampled_weights, slide_codes

REPLICATES = 1000
SUM_TOLERANCE = 1e-3  # half precision rounds a sum by up to 5e-4


def checked_classes(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels int64 (N,), probabilities float64 (N, K) and the classes that occur, int64, once they are fit for scoring.

    Raises:
        ValueError: when shapes do not fit, nothing is given, a label names no class, a row of probabilities is no
            distribution, or fewer than two classes occur.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    expected = (len(labels) if labels.ndim == 1 else "N", len(class_names))
    if labels.ndim != 1 or probabilities.shape != expected:
        raise InputError(
            f"labels have shape {labels.shape} and probabilities {probabilities.shape}: give one label and "
            f"{len(class_names)} probabilities for every patch, of shapes (N,) and (N, {len(class_names)})."
        )
    if labels.size == 0:
        raise InputError("there are no patches to score: give at least one patch of two classes.")
    wrong = ~np.isin(labels, np.arange(len(class_names)))
    if wrong.any():
        raise InputError(
            f"{wrong.sum():,} labels are not whole numbers from 0 to {len(class_names) - 1}, the first is "
            f"{labels[wrong.argmax()]}: score labeled patches only."
        )
    _check_rows(probabilities)
    present = np.unique(labels).astype(np.int64)
    if len(present) == 1:
        raise InputError(f"all {len(labels):,} patches are {class_names[present[0]]}: an AUC needs patches of two classes.")
    return labels.astype(np.int64), probabilities, present


def _check_rows(probabilities: np.ndarray) -> None:
    """Refuse probabilities (N, K) of which a row is no distribution."""
    wrong = ~((probabilities >= 0) & (probabilities <= 1 + SUM_TOLERANCE))
    if wrong.any():
        raise InputError(
            f"{wrong.sum():,} probabilities are not finite numbers in [0, 1], the first is "
            f"{probabilities.flat[wrong.argmax()]}: pass the output of the softmax."
        )
    sums = probabilities.sum(axis=1)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if wrong.any():
        raise InputError(
            f"the probabilities of {wrong.sum():,} patches do not sum to one, the first sum is {sums[wrong.argmax()]:.4g}: "
            "pass the output of the softmax."
        )


def bootstrap_macro_auc(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the macro AUC, over slides when at least two are known, as `bootstrap_auc`.

    The scores of each class are sorted once, and each replicate only weights them. A class of which a replicate of
    slides holds no patch is left out of that replicate's mean: asking for all of nine classes would draw for ever.

    Args:
        labels: 0 to K-1, (N,).
        probabilities: rows sum to one, (N, K).
        class_names: name of each class, K of them.
        groups: slide names (N,), or None.
        replicates: number of bootstrap replicates.
        seed: seed of the draws.

    Returns:
        Lower and upper end of the interval.
    """
    labels, probabilities, present = checked_classes(labels, probabilities, class_names)
    codes, _ = slide_codes(groups, len(labels))
    ranked = []
    for number in present:
        order = np.argsort(probabilities[:, number], kind="stable")
        scores = probabilities[order, number]
        ranked.append((order, np.flatnonzero(np.r_[True, scores[1:] > scores[:-1]]), labels[order] == number))
    values = np.full((replicates, len(present)), np.nan)
    for row, weights in enumerate(resampled_weights(labels, codes, replicates, seed)):
        for column, (order, starts, own) in enumerate(ranked):
            drawn = weights[order]
            mine = np.add.reduceat(drawn * own, starts)
            if mine.any():
                others = np.add.reduceat(drawn * ~own, starts)
                values[row, column] = mine @ (np.cumsum(others) - others / 2) / (mine.sum() * others.sum())
    low, high = np.quantile(np.nanmean(values, axis=1), [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, `hits` of `count` (Wilson 1927); unlike the normal one it stays within [0, 1]."""
    z = NormalDist().inv_cdf(0.975)
    share, spread = hits / count, z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = (share * (1 - share) * spread + spread**2 / 4) ** 0.5 / (1 + spread)
    return middle - half, middle + half


def top_label_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the predicted class: the mean gap between confidence and accuracy over ten equal bins.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3, on the largest probability of each patch.

    Args:
        labels: 0 to K-1, (N,).
        probabilities: rows sum to one, (N, K).
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence)
    gaps = np.bincount(number, correct - confidence, minlength=10)
    return float(np.abs(gaps).sum() / len(labels))


def _class_rows(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], confusion: np.ndarray
) -> list[dict[str, object]]:
    """Scores of each class against all others; a share of no patches is None."""
    rows = []
    for number, name in enumerate(class_names):
        own, hits, predicted = confusion[number].sum(), confusion[number, number], confusion[:, number].sum()
        rows.append(
            {
                "name": str(name),
                "patches": int(own),
                "auc": float(metrics.roc_auc_score(labels == number, probabilities[:, number])) if own else None,
                "sensitivity": float(hits / own) if own else None,
                "precision": float(hits / predicted) if predicted else None,
                "f1": float(2 * hits / (own + predicted)) if own + predicted else None,
            }
        )
    return rows


def evaluate_classes(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Every score of one set of predictions of K classes, as plain numbers that JSON can hold.

    A patch counts as the class of its largest probability.

    Args:
        labels: 0 to K-1, (N,).
        probabilities: rows sum to one, (N, K).
        class_names: name of each class, K of them.
        groups: slide names (N,) or None; the interval of the AUC is over slides when at least two are known.
        seed: seed of the bootstrap.

    Returns:
        `auc` (mean over the classes of each one's AUC against all others), `auc_low`, `auc_high`, `interval` (in
        words), `accuracy`, `accuracy_low`, `accuracy_high` (Wilson, over patches), `balanced_accuracy` (mean
        sensitivity), `patches`, `slides` (known ones), `log_loss`, `ece`, `classes` (of each its `name`, `patches`,
        `auc`, `sensitivity`, `precision` and `f1`, None where there is nothing to divide by), `absent` (names of
        classes without a patch) and `confusion` (K, K), rows the truth.

    Raises:
        ValueError: for input that cannot be scored, such as patches of one class only.
    """
    labels, probabilities, present = checked_classes(labels, probabilities, class_names)
    codes, slides = slide_codes(groups, len(labels))
    auc_low, auc_high = bootstrap_macro_auc(labels, probabilities, class_names, groups, seed=seed)
    numbers = np.arange(len(class_names))
    confusion = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=numbers)
    accuracy_low, accuracy_high = wilson_interval(int(np.trace(confusion)), len(labels))
    rows = _class_rows(labels, probabilities, class_names, confusion)
    return {
        "auc": float(np.mean([rows[number]["auc"] for number in present])),
        "auc_low": auc_low,
        "auc_high": auc_high,
        "interval": f"95 % bootstrap over {'patches' if codes is None else 'slides'}",
        "accuracy": float(np.trace(confusion) / len(labels)),
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "balanced_accuracy": float(np.mean([rows[number]["sensitivity"] for number in present])),
        "patches": len(labels),
        "slides": slides,
        "log_loss": float(metrics.log_loss(labels, probabilities / probabilities.sum(axis=1, keepdims=True), labels=numbers)),
        "ece": top_label_error(labels, probabilities),
        "classes": rows,
        "absent": [row["name"] for row in rows if not row["patches"]],
        "confusion": confusion.tolist(),
    }


def evaluate_task(
    labels: np.ndarray,
    p: np.ndarray,
    class_names: Sequence[str],
    threshold: float | None,
    temperature: float,
    groups: np.ndarray | None,
) -> dict:
    """Scores one output of a network: `binary.evaluate` of the probability of class 1, (N,), else `evaluate_classes`.

    Returns:
        What these return, `temperature`, and `ece_tempered`: the calibration error after division by it.
    """
    scores = evaluate(labels, p, threshold, groups) if p.ndim == 1 else evaluate_classes(labels, p, class_names, groups)
    error = calibration_error if p.ndim == 1 else top_label_error
    return scores | {"temperature": temperature, "ece_tempered": error(labels, tempered(p, temperature))}


def mean_auc(labels: np.ndarray, p: np.ndarray) -> float:
    """AUC of class 1, (N,), or the mean over the classes that occur of each one's AUC against the rest, (N, K)."""
    p = both_classes(p)
    present = [1] if p.shape[1] == 2 else np.unique(labels)
    return float(np.mean([metrics.roc_auc_score(labels == number, p[:, number]) for number in present]))


def class_table(scores: dict) -> pd.DataFrame:
    """The scores of each class for showing: one row a class, two decimals, "-" where there is nothing to divide by.

    Args:
        scores: what `evaluate_classes` returns.

    Returns:
        Index the class names; `patches` (int) and, as text, `AUC`, `sensitivity`, `precision` and `F1`.
    """
    shown = {"auc": "AUC", "sensitivity": "sensitivity", "precision": "precision", "f1": "F1"}
    table = pd.DataFrame({"patches": [row["patches"] for row in scores["classes"]]})
    for key, title in shown.items():
        table[title] = ["-" if row[key] is None else f"{row[key]:.2f}" for row in scores["classes"]]
    return table.set_axis([row["name"] for row in scores["classes"]])


def describe_classes(scores: dict) -> str:
    """The scores in three lines, and a fourth when a class is absent: `macro AUC 0.97 (0.96-0.98), 600 patches of 3 classes …`.

    Args:
        scores: what `evaluate_classes` returns.
    """
    present = [row for row in scores["classes"] if row["patches"]]
    hardest = min(present, key=lambda row: row["sensitivity"])
    auc = format_interval("macro AUC", scores["auc"], scores["auc_low"], scores["auc_high"], scores["patches"])
    lines = [
        f"{auc} of {len(present)} classes ({scores['interval']})",
        f"accuracy {scores['accuracy']:.2f} ({scores['accuracy_low']:.2f}-{scores['accuracy_high']:.2f}), "
        f"balanced accuracy {scores['balanced_accuracy']:.2f}",
        f"hardest: {hardest['name']}, sensitivity {hardest['sensitivity']:.2f}, {hardest['patches']:,} patches",
    ]
    if scores["absent"]:
        lines.append(f"no patches of {', '.join(scores['absent'])}")
    return "\n".join(lines)
