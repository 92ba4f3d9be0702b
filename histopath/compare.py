"""Several networks on one split with one budget. In: a workspace. Out: runs, and one table of them."""

from collections.abc import Callable

import pandas as pd

from histopath.evaluation import evaluate, roc
from histopath.inference import predict
from histopath.models import REGISTRY, count_parameters
from histopath.progress import say
from histopath.runs import Run
from histopath.splits import known_slides
from histopath.workspace import Workspace

NETWORKS = ("xception_nasnet", "simple_cnn", "resnet50v2", "inceptionv3", "xception_mobilenetv2", "densenet121")
BUDGETS = {  # what all networks share, by preset: small enough for two cores, or worth a GPU
    "sample": {"epochs": 1, "epoch_steps": 6, "batch_size": 16, "views": 1},
    "full": {"epochs": 4, "batch_size": 64, "views": 1},
}


def train_networks(work: Workspace, log: Callable[[str], None] = say) -> dict[str, Run]:
    """Trains the networks of the five systems on the same patches, split, augmentation and number of steps.

    Args:
        work: whose patches; every run is called after it and its network.
        log: takes the lines of the trainings.

    Returns:
        Network → its run.
    """
    same = {key: getattr(work.config, key) for key in ("seed", "val_fraction", "holdout_fraction", "norm_patches")}
    same |= {"size": 0, "copies": "1", "augmentation": "dihedral"} | BUDGETS[work.config.preset]
    runs = {}
    for name in NETWORKS:
        log(f"{name}, system {REGISTRY[name].system}")
        runs[name] = work.train(work.configure(name, **same), name, log)
    return runs


def compare_networks(work: Workspace, runs: dict[str, Run]) -> tuple[pd.DataFrame, dict[str, tuple]]:
    """Scores every run on the holdout, which chose nothing, one view a patch.

    Returns:
        A table, one row a network: `system`, `parameters`, `trained` (of them), `auc`, `low`, `high` (95 % interval),
        `accuracy` at the threshold chosen on val, `patches`, `seconds` of training, `megabytes` of the saved network; and
        its ROC curve, network → (false positive rates, true positive rates).
    """
    rows, curves = {}, {}
    for name, run in runs.items():
        holdout = run.rows("holdout")
        p = predict(run.network, work.patches.images, holdout["row"], 1, run.config.predict_batch)
        scores = evaluate(holdout["label"].to_numpy(), p, run.threshold, known_slides(holdout))
        counts = count_parameters(run.network)
        rows[name] = {
            "system": REGISTRY[name].system,
            "parameters": counts["parameters"],
            "trained": counts["trainable"],
            "auc": scores["auc"],
            "low": scores["auc_low"],
            "high": scores["auc_high"],
            "accuracy": scores["accuracy"],
            "patches": scores["patches"],
            "seconds": run.metrics["seconds"],
            "megabytes": (run.folder / "model.keras").stat().st_size / 1e6,
        }
        curves[name] = roc(holdout["label"].to_numpy(), p)[:2]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network"), curves
