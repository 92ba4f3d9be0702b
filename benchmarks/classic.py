"""System 1's recipe and ours, on the same patches, for the same epochs, from the same random weights' distribution.

    python benchmarks/classic.py TRAIN OTHER [--patches N] [--epochs N] [--batch N] [--rate R] [--out FOLDER]

TRAIN is divided once: both learn from the same part and choose their best epoch by the same val, system 1's by accuracy, ours
by AUC. Both are scored on OTHER, patches of other slides, which choose nothing. Keras's `fit` on `ImageDataGenerator`, Adam
1e-4 and moving batch statistics stand for system 1; no ImageNet weights for either, `--rate` gives system 1 another rate.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
from stages import classic_augmentation, plain_network

from histopath.config import get_config
from histopath.data.patches import PatchSet, open_patches
from histopath.data.splits import split_patches
from histopath.metrics.binary import evaluate, format_interval
from histopath.metrics.intervals import delong_difference
from histopath.models.backend import keras
from histopath.models.predict import predict
from histopath.training.fit import train

NETWORK = "xception_nasnet"


def draw(patches: PatchSet, count: int, seed: int = 0) -> PatchSet:
    """Labeled patches at random, as a PatchSet of their own."""
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(patches.table["label"] >= 0))[:count])
    return dataclasses.replace(patches, images=patches.images[rows], table=patches.table.loc[rows].reset_index(drop=True))


def train_classic(patches: PatchSet, config, rate: float, file: Path) -> keras.Model:
    """System 1's notebook: the network at its epoch of best val accuracy."""
    splits = split_patches(patches.table, config.val_fraction, config.holdout_fraction, config.seed, patches.class_names, (0, 0))
    rows = {name: part["row"].to_numpy() for name, part in splits.groupby("split")}
    labels = patches.table["label"].to_numpy("float32")
    images = patches.images[rows["train"]].astype("float32")
    batches = classic_augmentation().flow(images, labels[rows["train"]], batch_size=config.batch_size, seed=config.seed)
    network = plain_network()
    network.optimizer.learning_rate = rate
    kept = keras.callbacks.ModelCheckpoint(file, monitor="val_accuracy", save_best_only=True)
    val = patches.images[rows["val"]].astype("float32") / 255, labels[rows["val"]]
    network.fit(batches, epochs=config.epochs, validation_data=val, callbacks=[kept], verbose=2)
    return keras.saving.load_model(file)


def main() -> None:
    """Trains both and prints the scores and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--patches", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--out", type=Path, default=Path("build/classic"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    patches, other = draw(open_patches(arguments.train), arguments.patches), open_patches(arguments.other)
    config = get_config("sample", NETWORK, {"epochs": arguments.epochs, "batch_size": arguments.batch, "holdout_fraction": 0.02})
    rows, labels, answers = np.arange(len(other)), other.table["label"].to_numpy(), {}
    started = time.perf_counter()
    run = train(patches, config, arguments.out / "ours")
    print(f"ours: trained in {time.perf_counter() - started:.0f} s", flush=True)
    answers["ours"] = predict(run.network, other.images, rows, views=1)
    started = time.perf_counter()
    keras.utils.set_random_seed(config.seed)
    network = train_classic(patches, config, arguments.rate, arguments.out / "classic.keras")
    print(f"system 1: trained in {time.perf_counter() - started:.0f} s", flush=True)
    batches = (other.images[start : start + 64].astype("float32") / 255 for start in range(0, len(other), 64))
    answers["system 1"] = np.concatenate([network.predict_on_batch(batch)[:, 0] for batch in batches])
    for name, p in answers.items():
        scores = evaluate(labels, p)
        print(format_interval(f"{name}: AUC", scores["auc"], scores["auc_low"], scores["auc_high"], len(p)))
    difference, low, high, p_value = delong_difference(labels, answers["ours"], answers["system 1"])
    print(f"ours - system 1: {difference:+.3f} ({low:+.3f} to {high:+.3f}), p <= {max(p_value, 1e-16):.2g} (DeLong)")


if __name__ == "__main__":
    main()
