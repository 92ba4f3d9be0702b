"""Times the stages of the main job against what people use today. In: how much of it. Out: one table of medians and ratios."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from histopath.progress import say

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "stages.py"
WAYS = {  # stage → the ways in which it is done; the first two are the baselines
    "read": ("classic", "careful", "ours"),
    "feed": ("classic", "careful", "ours"),
    "train": ("classic", "careful", "ours", "constant"),
    "predict": ("classic", "careful", "ours", "eight"),
}
TITLES = {
    ("read", "patches_per_second"): "reading, patches/s",
    ("feed", "patches_per_second"): "augmented batches, patches/s",
    ("train", "first_step_seconds"): "first training step, s",
    ("train", "patches_per_second"): "training, patches/s",
    ("predict", "patches_per_second"): "predicting, patches/s",
}


def measure(
    patches: int,
    steps: int,
    repeats: int,
    stages: list[str] | None = None,
    log: Callable[[str], None] = say,
    batch: int = 16,
    precision: str = "auto",
) -> list[dict]:
    """Runs every stage in every way, each time in a process of its own, the ways in turn.

    Args:
        patches: how many to generate, read, feed and predict.
        steps: training steps, at least 5.
        repeats: how often each is run.
        stages: some of `WAYS`; None for all.
        log: takes a line a measurement.
        batch: patches in a training step.
        precision: of our training: `auto` or a Keras dtype policy. The baselines train as published, in float32.

    Returns:
        One dictionary a measurement: `stage`, `way`, and the figures that `benchmarks/stages.py` prints.

    Raises:
        FileNotFoundError: without the benchmarks beside the package.
        ValueError: when a stage is unknown, too little is asked for, or a measurement fails.
    """
    if not SCRIPT.is_file():
        raise FileNotFoundError(f"{SCRIPT} is missing: the benchmarks run from a checkout of the repository.")
    unknown = [stage for stage in stages or [] if stage not in WAYS]
    if unknown or patches < 512 or steps < 5 or repeats < 1:
        raise ValueError(f"Give stages of {', '.join(WAYS)}, at least 512 patches, 5 steps and 1 repeat.")
    measured = []
    with tempfile.TemporaryDirectory(prefix="histopath-bench-") as folder:
        size = ["--folder", folder, "--patches", str(patches), "--steps", str(steps)]
        size += ["--batch", str(batch), "--precision", precision]
        _run(["prepare", "ours", *size])
        for number in range(repeats):
            for stage in stages or WAYS:
                for way in WAYS[stage]:
                    if way == "careful" and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
                        continue  # its layers run inside tf.data
                    figures = _run([stage, way, *size])
                    log(f"{number + 1}/{repeats} {stage} {way}: {figures}")
                    measured.append({"stage": stage, "way": way, **figures})
    return measured


def _run(arguments: list[str]) -> dict:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise ValueError(f"The benchmark {' '.join(arguments[:2])} failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def summarise(measured: list[dict]) -> pd.DataFrame:
    """Puts measurements into a table: medians, and the median of the ratios of one round.

    Returns:
        One row a figure: `classic`, `careful` (on TensorFlow alone), `ours`, `ours / classic`, `ours / careful` (above 1 is
        better), `peak MB` of ours. For training also the share of a step that is not the network, in percent; for
        predicting also eight views.
    """
    rows = {}
    for (stage, key), title in TITLES.items():
        values = {way: [one[key] for one in measured if (one["stage"], one["way"]) == (stage, way)] for way in WAYS[stage]}
        if not values["ours"]:
            continue
        better = -1 if key.endswith("seconds") else 1
        baselines = [way for way in ("classic", "careful") if values[way]]
        rows[title] = {way: statistics.median(values[way]) for way in (*baselines, "ours")}
        for way in baselines:
            ratios = [(ours / other) ** better for ours, other in zip(values["ours"], values[way], strict=True)]
            rows[title][f"ours / {way}"] = statistics.median(ratios)
        peaks = [one["resident_mb"] for one in measured if (one["stage"], one["way"]) == (stage, "ours")]
        rows[title]["peak MB"] = max(peaks)
        if (stage, key) == ("train", "patches_per_second"):
            shares = [100 * (1 - ours / alone) for ours, alone in zip(values["ours"], values["constant"], strict=True)]
            rows["share of a step outside the network, by a step on one batch in memory, %"] = {"ours": statistics.median(shares)}
            fed = [one["patches_per_second"] for one in measured if (one["stage"], one["way"]) == ("feed", "ours")]
            if fed:  # the first share is the difference of two noisy rates, this one is not
                shares = [100 * ours / feeding for ours, feeding in zip(values["ours"], fed, strict=True)]
                rows["share of a step outside the network, by feeding alone, %"] = {"ours": statistics.median(shares)}
        if stage == "predict":
            passes = [8 * eight / ours for eight, ours in zip(values["eight"], values["ours"], strict=True)]
            rows["eight views, forward passes/s against one view's"] = {"ours": statistics.median(passes)}
    columns = ["classic", "careful", "ours", "ours / classic", "ours / careful", "peak MB"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)


def describe(table: pd.DataFrame) -> str:
    """The table in Markdown, three significant digits, empty where nothing was measured."""
    lines = ["| stage | " + " | ".join(table.columns) + " |", "| --- |" + " --- |" * len(table.columns)]
    for name, row in table.iterrows():
        cells = ["" if pd.isna(value) else f"{float(f'{value:.3g}'):,.10g}" for value in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
