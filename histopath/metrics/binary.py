"""Scores of predicted probabilities: labels, probabilities and slide names in, numbers and curves out.

Labels are integers 0 (no tumor) or 1 (tumor) of shape (N,), probabilities are floats in [0, 1] of shape (N,), and
groups are slide names of shape (N,), where "" means that the slide is unknown. Every function here refuses other
input with one sentence.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath.files import InputError
from histopath.metrics.intervals import bootstrap_auc, checked, delong_interval, operating_points, slide_codes


def auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a tumor patch scores above one without tumor, ties counting half."""
    return float(metrics.roc_auc_score(*checked(labels, probabilities)))


def roc(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rates, true positive rates and thresholds of the ROC curve, each (K,)."""
    return metrics.roc_curve(*checked(labels, probabilities))


def precision_recall(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision (K+1,), recall (K+1,) and thresholds (K,) of the precision-recall curve."""
    return metrics.precision_recall_curve(*checked(labels, probabilities))


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """What was predicted beside what was observed, in bins of the predicted probability.

    Args:
        labels: 0 or 1, (N,).
        probabilities: in [0, 1], (N,).
        bins: number of bins over [0, 1].

    Returns:
        One row a non-empty bin: `low`, `high` (its edges), `predicted` (mean probability), `observed` (share of
        tumor), `count` (patches).
    """
    labels, probabilities = checked(labels, probabilities)
    edges = np.linspace(0, 1, bins + 1)
    number = np.searchsorted(edges[1:-1], probabilities)
    count = np.bincount(number, minlength=bins)
    full = count > 0
    predicted, observed = (np.bincount(number, values, minlength=bins)[full] / count[full] for values in (probabilities, labels))
    return pd.DataFrame({"low": edges[:-1][full], "high": edges[1:][full], "predicted": predicted, "observed": observed}).assign(
        count=count[full]
    )


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: the mean gap between predicted and observed over ten equal bins, weighted by count.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3, on the probability of tumor.
    """
    table = calibration(labels, probabilities)
    return float(((table.predicted - table.observed).abs() * table["count"]).sum() / table["count"].sum())


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Threshold with the largest sensitivity + specificity - 1 (Youden 1950), to be chosen on val.

    It lies halfway between two scores, so that rounding of either does not move a patch across it; a patch counts as
    tumor when its probability is at least the threshold.
    """
    labels, probabilities = checked(labels, probabilities)
    false, true, thresholds = metrics.roc_curve(labels, probabilities, drop_intermediate=False)
    best = 1 + int(np.argmax(true[1:] - false[1:]))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else 0.0
    return float((thresholds[best] + below) / 2)


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    threshold: float = 0.5,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Every score of one set of predictions, as plain numbers that JSON can hold.

    Args:
        labels: 0 or 1, (N,).
        probabilities: in [0, 1], (N,).
        threshold: a patch counts as tumor when its probability is at least this; choose it on val.
        groups: slide names (N,) or None; the interval is over slides when at least two are known.
        seed: seed of the bootstrap.

    Returns:
        `auc`, `auc_low`, `auc_high`, `interval` (in words), `delong_low`, `delong_high` (patches as independent),
        `operating_points` (rows of `intervals.operating_points`), `accuracy`, `patches`, `positives`, `slides` (known
        ones), `average_precision`, `brier`, `ece`, `log_loss`, `threshold`, `sensitivity`, `specificity`, and `confusion`
        as [[tn, fp], [fn, tp]].

    Raises:
        InputError: for input that cannot be scored, such as one class only; the sentence names the missing class.
    """
    labels, probabilities = checked(labels, probabilities)
    codes, slides = slide_codes(groups, len(labels))
    low, high = bootstrap_auc(labels, probabilities, groups, seed=seed)
    delong_low, delong_high = delong_interval(labels, probabilities)
    confusion = metrics.confusion_matrix(labels, probabilities >= threshold, labels=[0, 1])
    return {
        "auc": auc(labels, probabilities),
        "auc_low": low,
        "auc_high": high,
        "interval": f"95 % bootstrap over {'patches' if codes is None else 'slides'}",
        "delong_low": delong_low,
        "delong_high": delong_high,
        "operating_points": operating_points(labels, probabilities, groups, seed=seed).to_dict("records"),
        "accuracy": float(np.trace(confusion) / len(labels)),
        "patches": len(labels),
        "positives": int(labels.sum()),
        "slides": slides,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)),
        "brier": float(metrics.brier_score_loss(labels, probabilities)),
        "ece": calibration_error(labels, probabilities),
        "log_loss": float(metrics.log_loss(labels, probabilities)),
        "threshold": float(threshold),
        "sensitivity": float(confusion[1, 1] / confusion[1].sum()),
        "specificity": float(confusion[0, 0] / confusion[0].sum()),
        "confusion": confusion.tolist(),
    }


def format_interval(name: str, value: float, low: float, high: float, count: int, unit: str = "patches") -> str:
    """A score as this project writes it: `AUC 0.97 (0.96-0.98), 3,000 patches`."""
    return f"{name} {value:.2f} ({low:.2f}-{high:.2f}), {count:,} {unit}"


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int, threshold: float = 0.5) -> np.ndarray:
    """Positions of the most confident mistakes, the most confident first: int64 (at most `count`,)."""
    labels, probabilities = checked(labels, probabilities)
    distance = np.abs(probabilities - labels)
    wrong = np.flatnonzero((probabilities >= threshold) != (labels == 1))
    return wrong[np.argsort(-distance[wrong], kind="stable")][:count]


def mean_color(images: np.ndarray, rows: np.ndarray, batch: int = 4096) -> np.ndarray:
    """Mean red, green and blue of patches, read `batch` at a time so that memory stays bounded.

    Args:
        images: uint8 (M, H, W, 3), memory-mapped or not.
        rows: row numbers (N,).
        batch: patches in memory at once.

    Returns:
        float32 (N, 3), in 0-255.
    """
    rows = np.asarray(rows, dtype=np.int64)
    means = np.empty((len(rows), 3), dtype=np.float32)
    for start in range(0, len(rows), batch):
        part = images[rows[start : start + batch]]
        sums = part.reshape(len(part), -1, 3).sum(axis=1, dtype=np.uint32)
        means[start : start + batch] = sums / (part.shape[1] * part.shape[2])
    return means


def mean_color_baseline(images: np.ndarray, labels: np.ndarray, fit_rows: np.ndarray, score_rows: np.ndarray) -> np.ndarray:
    """Probabilities from nothing but the mean color of a patch: what any model has to beat.

    Args:
        images: uint8 (M, H, W, 3).
        labels: class number for every row of images, (M,); only `fit_rows` are looked at.
        fit_rows: rows that the logistic regression of the standardized mean color is fitted on (train).
        score_rows: rows to predict (N,).

    Returns:
        float64 in [0, 1]: of class 1 (N,) where there are two classes, else of each class (N, K).

    Raises:
        InputError: when the rows to fit hold one class only, or one of several classes is missing among them.
    """
    fit_labels = np.asarray(labels)[fit_rows]
    count = max(2, int(fit_labels.max()) + 1)
    present = np.unique(fit_labels)
    if len(present) < count:
        missing = sorted(set(range(count)) - set(present.tolist()))[0]
        raise InputError(f"class {missing} is missing among the patches to fit: give patches of every class.")
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(mean_color(images, fit_rows), fit_labels)
    p = model.predict_proba(mean_color(images, score_rows))
    return p[:, 1] if count == 2 else p


LEAST = 1e-12  # what a probability of 0 is taken for, so that it has a logarithm
RANGE = (0.05, 20.0)


def both_classes(p: np.ndarray) -> np.ndarray:
    """Probabilities of every class, (N, K): of class 1 alone, (N,), become those of both, (N, 2)."""
    return p if p.ndim == 2 else np.stack([1 - p, p], axis=1)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits behind probabilities by a temperature: above 1 they become less sure.

    Args:
        probabilities: of class 1 (N,), or of each class (N, K).
        temperature: above 0; 1 changes nothing.

    Returns:
        float64, of the same shape.
    """
    logits = np.log(np.clip(both_classes(np.asarray(probabilities, "float64")), LEAST, None)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    return p[:, 1] if np.ndim(probabilities) == 1 else p


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Finds the temperature, in 0.05-20, with the least log loss; to be fitted on val.

    Args:
        labels: class numbers (N,).
        probabilities: of class 1 (N,), or of each class (N, K).
    """
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        p = both_classes(tempered(probabilities, np.exp(logarithm)))
        return -np.log(np.clip(p[rows, labels], LEAST, None)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))
