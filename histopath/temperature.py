"""Probabilities that mean what they say: one temperature, fitted on val. In and out: probabilities (N,) or (N, K).

Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2: all logits are divided by one
number. It moves no patch past another of the same two classes, so AUC and ranks stay as they are.
"""

import numpy as np
from scipy.optimize import minimize_scalar

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
