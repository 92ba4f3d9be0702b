"""The figures of one score: drawings of numbers, no patch. In: a Run, labels and probabilities. Out: PNG files."""

from pathlib import Path

import numpy as np
import pandas as pd

from histopath import figures
from histopath.evaluation import calibration, format_interval, roc
from histopath.intervals import roc_band
from histopath.runs import Run
from histopath.style import export
from histopath.temperature import tempered


def write_figures(run: Run, labels: np.ndarray, p: np.ndarray, scores: dict, slides: np.ndarray | None, folder: Path) -> None:
    """Draws the training of a run and its score on some patches.

    Args:
        run: a finished run of two classes.
        labels: 0 or 1 (N,).
        p: probability of class 1 (N,).
        scores: what `scoring.score_run` returns for them.
        slides: slide of each patch (N,), or None where unknown.
        folder: where `training.png`, `validation.png`, `roc.png`, `operating_points.png`, `calibration.png` and, where the
            scores have them, `shifts.png` are written.
    """
    text = format_interval("AUC", scores["auc"], scores["auc_low"], scores["auc_high"], scores["patches"])
    points = {point["name"]: (point["reached"], point["low"], point["high"]) for point in scores["operating_points"]}
    drawn = {
        "training": figures.loss_curves(run.history),
        "validation": figures.validation_curves(run.history),
        "roc": figures.roc_curves({f"{run.config.recipe}: {text}": roc(labels, p)[:2]}, roc_band(labels, p, slides)),
        "operating_points": figures.interval_dots(points, "share reached", False),
        "calibration": figures.calibration_plot(calibration(labels, p), calibration(labels, tempered(p, run.temperature))),
    }
    if "shifts" in scores:
        drawn["shifts"] = figures.shift_curves(pd.DataFrame(scores["shifts"]))
    for name, figure in drawn.items():
        export(figure, folder / f"{name}.png")
