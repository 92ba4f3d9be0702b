"""Training: it learns, it is right at prediction, it goes on where it was killed, it loses nothing."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, SMALL
from sklearn.metrics import roc_auc_score

from histopath.backend import keras, ops
from histopath.config import get_config
from histopath.files import locked
from histopath.inference import predict
from histopath.models import build_model, norm_layers
from histopath.runs import open_run
from histopath.training import Batches, choose_precision, reestimate_norm, train


def quiet(line):
    """Takes a line of progress and drops it."""


def test_a_run_folder_holds_everything(run):
    files = {file.name for file in run.folder.iterdir()}
    assert files == {"config.json", "history.csv", "identity.json", "metrics.json", "model.keras", "splits.csv"}
    assert list(run.history["epoch"]) == [1, 2]
    assert run.metrics["best_epoch"] == run.history["val_auc"].idxmax() + 1
    assert set(run.metrics["val"]) >= {"auc", "auc_low", "auc_high", "patches"}
    assert 0 <= run.metrics["threshold"] <= 1


def test_the_saved_network_gives_the_val_auc_of_its_epoch(run, small):
    val = run.rows("val")
    p = predict(run.network, small.images, val["row"], views=1, batch_size=run.config.predict_batch)
    assert roc_auc_score(val["label"], p) == pytest.approx(run.history["val_auc"].max(), abs=0.02)


def test_the_same_training_is_opened_and_not_repeated(run, small):
    before = (run.folder / "model.keras").stat().st_mtime_ns
    lines = []
    again = train(small, run.config, run.folder, lines.append)
    assert (again.folder / "model.keras").stat().st_mtime_ns == before
    assert lines == ["small is already trained with these settings on these patches"]


def test_two_trainings_into_one_folder_come_one_after_the_other(run, small):
    lines = []
    with ThreadPoolExecutor(1) as pool:
        with locked(run.folder):
            waiting = pool.submit(train, small, run.config, run.folder, lines.append)
            while not lines:
                time.sleep(0.01)
            assert lines == [f"another process is writing {run.folder}: waiting for it"] and not waiting.done()
        waiting.result(timeout=60)
    assert lines[1:] == ["small is already trained with these settings on these patches"]


@pytest.mark.slow
def test_another_training_moves_a_finished_run_aside(small, tmp_path):
    config = get_config("sample", "compact", SMALL | {"epochs": 1})
    folder = tmp_path / "one"
    train(small, config, folder, quiet)
    lines = []
    train(small, dataclasses.replace(config, seed=3), folder, lines.append)
    aside = [other for other in tmp_path.iterdir() if other != folder]
    assert len(aside) == 1 and open_run(aside[0]).config.seed == 0 and open_run(folder).config.seed == 3
    assert f"kept the earlier run as {aside[0].name}" in lines


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.9997])
def test_inference_agrees_with_training_after_a_short_run(small, momentum):
    """With NASNet's momentum a few steps leave the running statistics near their start; re-estimation puts that right."""
    keras.utils.set_random_seed(0)
    network = build_model("compact")
    for layer in norm_layers(network):
        layer.momentum = momentum
    network.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", jit_compile=False)
    labels = small.table["label"].to_numpy(dtype="float32")[:, None]
    for start in range(0, 160, 16):
        network.train_on_batch(small.images[start : start + 16], labels[start : start + 16])
    batch = np.array(small.images[:48])
    reached = ops.convert_to_numpy(network(batch, training=True))[:, 0]
    stale = predict(network, batch, views=1)
    reestimate_norm(network, [batch])
    right = predict(network, batch, views=1)
    np.testing.assert_allclose(right, reached, atol=1e-3)
    assert abs(stale - reached).max() > 0.05


def test_reestimated_statistics_are_those_of_all_batches_together():
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    norm = keras.layers.BatchNormalization(name="norm")
    network = keras.Model(inputs, norm(keras.layers.Rescaling(1.0)(inputs)))
    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype="uint8")
    reestimate_norm(network, np.split(images, 3))
    np.testing.assert_allclose(norm.moving_mean, images.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, images.var(axis=(0, 1, 2)), rtol=1e-4)
    assert norm.momentum == 0.99


def test_batches_hang_on_seed_and_epoch_alone(small):
    rows, labels = np.arange(100), np.arange(100)
    first, resumed = Batches(small.images, rows, labels, 16, seed=1), Batches(small.images, rows, labels, 16, seed=1, epoch=1)
    start = [label for _, part in (first[i] for i in range(len(first))) for label in part[:, 0]]
    first.on_epoch_end()
    assert (first[0][1] == resumed[0][1]).all() and (first[2][0] == resumed[2][0]).all()
    assert len(start) == len(set(start)) == 96
    assert first[0][0].dtype == np.uint8 and first[0][1].shape == (16, 1)


@pytest.mark.slow
def test_a_run_is_the_same_for_the_same_seed(run, small, tmp_path):
    again = train(small, run.config, tmp_path / "again", quiet)
    np.testing.assert_allclose(again.history["loss"], run.history["loss"], rtol=1e-3)


@pytest.mark.slow
def test_early_stopping_and_tensorboard(small, tmp_path):
    config = get_config("sample", "compact", SMALL | {"epochs": 6, "patience": 1, "learning_rate": 1e-7, "tensorboard": True})
    finished = train(small, config, tmp_path / "stops", quiet)
    scores = finished.history["val_auc"]
    assert len(scores) - 1 - scores.idxmax() == 1 or len(scores) == 6
    assert list((tmp_path / "stops" / "logs").rglob("events*"))


@pytest.mark.slow
def test_mixed_precision_trains_and_saves_in_float32(small, tmp_path):
    config = get_config("sample", "compact", SMALL | {"epochs": 1, "precision": "mixed_float16"})
    finished = train(small, config, tmp_path / "mixed", quiet)
    assert {layer.compute_dtype for layer in finished.network.layers} <= {"float32", "uint8"}
    assert np.isfinite(finished.history["loss"]).all()
    assert keras.config.dtype_policy().name == "float32"


def test_precision_is_float32_without_an_accelerator():
    assert choose_precision("auto") == "float32" and choose_precision("mixed_bfloat16") == "mixed_bfloat16"


KILL_TRAINING = """
import sys
from pathlib import Path
from histopath.config import get_config
from histopath.patches import open_patches
from histopath.training import train
settings = {"epochs": 4, "batch_size": 16, "norm_patches": 32, "val_fraction": 0.2}
patches = open_patches(sys.argv[1], cache=sys.argv[2], progress=False)
train(patches, get_config("sample", "compact", settings), Path(sys.argv[3]), lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_result_of_an_uninterrupted_one(sample, tmp_path):
    def start(folder):
        arguments = [sys.executable, "-c", KILL_TRAINING, sample, tmp_path / "packed", folder]
        return subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    assert whole.communicate(timeout=900) and whole.returncode == 0
    broken = start(tmp_path / "broken")
    while not broken.stdout.readline().startswith("epoch 2/4"):
        assert broken.poll() is None
    time.sleep(1)  # well inside the third epoch
    os.kill(broken.pid, signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / "broken" / "metrics.json").exists()
    resumed = start(tmp_path / "broken")
    lines = resumed.communicate(timeout=900)[0].splitlines()
    assert resumed.returncode == 0 and any(line.startswith("resuming after epoch") for line in lines)
    histories = [pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in ("whole", "broken")]
    np.testing.assert_allclose(*histories, rtol=0.02, atol=0.02)  # threads add floats in another order
    assert not list((tmp_path / "broken").glob("*.part*")) and not (tmp_path / "broken" / "state.npz").exists()
