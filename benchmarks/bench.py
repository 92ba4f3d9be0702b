"""Times reading, feeding, training and predicting against a classic and a careful notebook; prints one table of medians.

    python benchmarks/bench.py [--patches 2000] [--steps 24] [--repeats 1] [--only read] [--batch 16] [--precision auto]

Every measurement is a process of its own (`stages.py`), and the ways take turns, so that a noisy machine disturbs all alike.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

SCRIPT = Path(__file__).resolve().with_name("stages.py")
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
COLUMNS = ["classic", "careful", "ours", "ours / classic", "ours / careful", "peak MB"]


def measure(stages: list[str], repeats: int, size: list[str]) -> pd.DataFrame:
    """Runs every stage in every way, the ways in turn.

    Args:
        stages: keys of `WAYS`.
        repeats: how often each is run.
        size: options of `stages.py` that say how much is done.

    Returns:
        One row per measurement: `stage`, `way`, `round`, and the figures that `stages.py` prints.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="histopath-bench-") as folder:
        size = ["--folder", folder, *size]
        run_stage("prepare", "ours", size)
        for number in range(repeats):
            for stage in stages:
                for way in WAYS[stage]:
                    if way == "careful" and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
                        continue  # its layers run inside tf.data
                    figures = run_stage(stage, way, size)
                    print(f"{number + 1}/{repeats} {stage} {way}: {figures}", file=sys.stderr)
                    rows.append({"stage": stage, "way": way, "round": number, **figures})
    return pd.DataFrame(rows)


def run_stage(stage: str, way: str, size: list[str]) -> dict:
    """Runs `stages.py` in a process of its own and reads the figures that it prints last."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), stage, way, *size]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{stage} {way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def summarize(measured: pd.DataFrame) -> pd.DataFrame:
    """Puts measurements into a table: medians, and the medians of the ratios of each round (above 1: ours is better).

    Returns:
        One row per figure. For training also the share of a step that is not the network, in percent; for predicting also
        eight views.
    """
    rows = {}
    for (stage, key), title in TITLES.items():
        one = measured[measured["stage"] == stage]
        if one.empty:
            continue
        values = one.pivot(index="round", columns="way", values=key)
        baselines = [way for way in ("classic", "careful") if way in values]
        rows[title] = values[[*baselines, "ours"]].median().to_dict()
        for way in baselines:
            better = -1 if key.endswith("seconds") else 1
            rows[title][f"ours / {way}"] = ((values["ours"] / values[way]) ** better).median()
        rows[title]["peak MB"] = one.loc[one["way"] == "ours", "resident_mb"].max()
        if (stage, key) == ("train", "patches_per_second"):
            fed = measured[(measured["stage"] == "feed") & (measured["way"] == "ours")].set_index("round")
            rows |= training_shares(values, fed)
        if stage == "predict":
            passes = 8 * values["eight"] / values["ours"]
            rows["eight views, forward passes/s against one view's"] = {"ours": passes.median()}
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=COLUMNS)


def training_shares(train: pd.DataFrame, fed: pd.DataFrame) -> dict[str, dict]:
    """The share of a training step that is not the network, in percent, measured in two ways."""
    share = "share of a step outside the network, by"
    rows = {f"{share} a step on one batch in memory, %": {"ours": (100 * (1 - train["ours"] / train["constant"])).median()}}
    if len(fed):  # the first share is the difference of two noisy rates, this one is not
        rows[f"{share} feeding alone, %"] = {"ours": (100 * train["ours"] / fed["patches_per_second"]).median()}
    return rows


def describe(table: pd.DataFrame) -> str:
    """The table in Markdown, three significant digits, empty where nothing was measured."""
    lines = ["| stage | " + " | ".join(table.columns) + " |", "| --- |" + " --- |" * len(table.columns)]
    for name, row in table.iterrows():
        cells = ["" if pd.isna(value) else f"{float(f'{value:.3g}'):,.10g}" for value in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", default=2000, type=int, help="patches to generate, read, feed and predict")
    parser.add_argument("--steps", default=24, type=int, help="training steps of each measurement")
    parser.add_argument("--repeats", default=1, type=int, help="measurements of each stage; the table holds medians")
    parser.add_argument("--only", choices=WAYS, action="append", help="a stage; may be given several times")
    parser.add_argument("--batch", default=16, type=int, help="patches in a training step")
    parser.add_argument("--precision", default="auto", help="of our training: auto or a Keras dtype policy")
    wanted = parser.parse_args()
    if wanted.patches < 512 or wanted.steps < 5 or wanted.repeats < 1:
        parser.error("at least 512 patches, 5 steps and 1 repeat are needed")
    size = [f"--{name}={getattr(wanted, name)}" for name in ("patches", "steps", "batch", "precision")]
    print(describe(summarize(measure(wanted.only or list(WAYS), wanted.repeats, size))))


if __name__ == "__main__":
    main()
