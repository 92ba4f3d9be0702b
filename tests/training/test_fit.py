"""Training: it learns, it is right at prediction, it goes on where it was killed, it loses nothing."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, SMALL
from sklearn.metrics import roc_auc_score

from histopath.config import get_config
from histopath.data.patches import open_patches
from histopath.data.splits import split_patches
from histopath.data.tasks import SUBCLASSES
from histopath.evaluation.evaluate import describe_scores, predict_table, score_run
from histopath.files import locked
from histopath.models import backend
from histopath.models.backend import keras, ops
from histopath.models.predict import predict
from histopath.models.registry import build_model
from histopath.models.runs import open_run
from histopath.training import batches
from histopath.training.batches import Batches, count_seen, is_resident, repeat_rows
from histopath.training.fit import choose_precision, train
from histopath.training.optimizer import FlatAdam, norm_layers, reestimate_norm


def quiet(line):
    """Takes a line of progress and drops it."""


def test_a_run_folder_holds_everything(run):
    files = {file.name for file in run.folder.iterdir()}
    assert files == {"config.json", "history.csv", "identity.json", "metrics.json", "model.keras", "splits.csv"}
    assert list(run.history["epoch"]) == [1, 2]
    assert run.metrics["best_epoch"] == run.history["val_auc"].idxmax() + 1
    assert set(run.val) >= {"auc", "auc_low", "auc_high", "patches"}
    assert 0 <= run.threshold <= 1


def test_the_saved_network_gives_the_val_auc_of_its_epoch(run, small):
    val = run.rows("val")
    p = predict(open_run(run.folder).network, small.images, val["row"], views=1, batch_size=run.config.predict_batch)
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
    rows, targets = np.arange(100), [np.arange(100)[:, None]]
    first, resumed = Batches(small.images, rows, targets, 16, seed=1), Batches(small.images, rows, targets, 16, seed=1, epoch=1)
    start = [label for _, part in (first[i] for i in range(len(first))) for label in part[:, 0]]
    first.on_epoch_end()
    assert (first[0][1] == resumed[0][1]).all() and (first[2][0] == resumed[2][0]).all()
    assert len(start) == len(set(start)) == 96
    assert first[0][0].dtype == np.uint8 and first[0][1].shape == (16, 1)


@pytest.mark.slow
def test_resident_patches_are_trained_on_as_streamed_ones_are(run, small, tmp_path):
    lines = []
    resident = train(small, dataclasses.replace(run.config, feed="resident"), tmp_path / "resident", lines.append)
    np.testing.assert_allclose(resident.history["loss"], run.history["loss"], rtol=1e-3)
    assert resident.splits.equals(run.splits)
    saved = open_run(resident.folder).network
    assert saved.count_params() == run.network.count_params() and saved.input_shape == run.network.input_shape


@pytest.mark.slow
def test_several_steps_an_execution_are_the_same_training(run, small, tmp_path):
    grouped = train(small, dataclasses.replace(run.config, steps_per_execution=3), tmp_path / "grouped", quiet)
    np.testing.assert_allclose(grouped.history["loss"], run.history["loss"], rtol=1e-3)


def test_patches_that_do_not_fit_the_device_are_streamed_and_it_is_said(monkeypatch):
    lines = []
    assert is_resident("resident", 10**15, lines.append) and not is_resident("stream", 1, lines.append)
    assert not is_resident("auto", 1, lines.append) and lines == []  # no accelerator: nothing to be said
    monkeypatch.setattr(batches, "accelerators", lambda: ["gpu:0"])
    monkeypatch.setattr(batches, "device_memory", lambda: 16 * 10**9)
    assert is_resident("auto", 8 * 10**9, lines.append) and lines == []
    assert not is_resident("auto", 9 * 10**9, lines.append)
    assert lines == ["streaming the patches: 9.0 GB do not fit into half of the device's 16.0 GB"]


TRAIN = """
import json, sys
from pathlib import Path
from histopath.config import get_config
from histopath.data.patches import open_patches
from histopath.training.fit import train
patches = open_patches(Path(sys.argv[1]), progress=False)
settings = json.loads(sys.argv[2])
train(patches, get_config("sample", "compact", settings), Path(sys.argv[3]), lambda line: print(line, flush=True))
"""


def start_training(data, folder, home, settings, **variables):
    """Starts a training in a process of its own, with these settings and environment variables."""
    environment = {**os.environ, "HISTOPATH_HOME": str(home), "PYTHONPATH": str(PROJECT), **variables}
    command = [sys.executable, "-c", TRAIN, str(data), json.dumps(SMALL | settings), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_two_devices_train_to_the_losses_of_one(sample, tmp_path):
    settings = {"augmentation": "none", "views": 1, "epoch_steps": 4}
    losses = {}
    for devices in (1, 2):
        folder = tmp_path / f"on_{devices}"
        process = start_training(sample, folder, tmp_path, settings | {"devices": devices})
        said, complaint = process.communicate()
        assert process.returncode == 0, complaint[-2000:]
        losses[devices] = open_run(folder).history[["loss", "val_loss"]]
    assert "2 devices, each with 8 patches of a batch" in said
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-3)


def can_be_reached_by_name():
    """Whether this machine's own name leads to it, as Gloo, by which JAX's processes talk, needs it."""
    with socket.socket() as one:
        try:
            one.bind((socket.gethostbyname(socket.gethostname()), 0))
        except OSError:
            return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not can_be_reached_by_name(), reason="the name of this machine does not lead to it")
def test_two_processes_train_to_the_losses_of_one_and_resume_when_one_was_killed(three, tmp_path):
    settings = {"augmentation": "none", "views": 1, "epochs": 4, "epoch_steps": 4}
    jax = {"KERAS_BACKEND": "jax", "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    one = start_training(three.root, tmp_path / "one", tmp_path, settings | {"feed": "resident"}, KERAS_BACKEND="jax")
    assert one.wait() == 0, one.communicate()[1][-2000:]

    def start_two():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        told = jax | {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
        folders = tmp_path / "two", tmp_path / "other machine" / "two"
        return [
            start_training(three.root, folder, tmp_path, settings, **told, KERAS_DISTRIBUTION_PROCESS_ID=str(number))
            for number, folder in enumerate(folders)
        ]

    first, second = start_two()
    lines = iter(first.stdout.readline, "")
    assert any(line.startswith("epoch 2/4  loss") for line in lines)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    _, complaint = first.communicate()
    assert first.returncode and "start all of them again, and the training goes on after its last finished epoch" in complaint
    for process in start_two():
        said, complaint = process.communicate()
        assert process.returncode == 0, complaint[-2000:]
        assert "2 devices, each with 8 patches of a batch" in said and "resuming after epoch" in said
    histories = [open_run(tmp_path / name).history[["loss", "val_loss"]] for name in ("one", "two")]
    np.testing.assert_allclose(*histories, rtol=1e-3)
    assert not (tmp_path / "other machine").exists()


def test_processes_need_a_backend_that_can_do_it(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="Several processes train together with KERAS_BACKEND=jax alone"):
        train(small, get_config("sample", "compact", SMALL), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_devices_must_share_a_batch_evenly_and_be_there(small, tmp_path, monkeypatch):
    ops.zeros(1)  # TensorFlow has set up its devices
    with pytest.raises(ValueError, match="cannot be split into 3 any more; start a new process"):
        train(small, get_config("sample", "compact", SMALL | {"devices": 3}), tmp_path / "three", quiet)
    monkeypatch.setattr(backend, "accelerators", lambda: ["gpu:0", "gpu:1"])
    with pytest.raises(ValueError, match="2 accelerators here, not 3; give --set devices=2"):
        train(small, get_config("sample", "compact", SMALL | {"devices": 3}), tmp_path / "three", quiet)
    assert not (tmp_path / "three" / "config.json").exists()


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


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_result_of_an_uninterrupted_one(sample, tmp_path):
    def start(folder):
        return start_training(sample, folder, tmp_path / "home", {"epochs": 4, "norm_patches": 32})

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


@pytest.mark.slow
def test_three_classes_are_learned_with_a_softmax(three_run):
    assert three_run.network.output_shape == (None, 3) and three_run.threshold is None
    assert three_run.metrics["tasks"]["label"]["class_names"] == ["blue", "green", "red"]
    assert three_run.val["auc"] > 0.8 and len(three_run.val["classes"]) == 3


@pytest.fixture(scope="module")
def cancers(tmp_path_factory):
    """Four images of 32×32 pixels of every subclass, in the Multi Cancer layout: the malignant ones bright."""
    root, rng = tmp_path_factory.mktemp("data") / "cancers", np.random.default_rng(0)
    for name, subclass in SUBCLASSES.items():
        folder = root / subclass.organ / name
        folder.mkdir(parents=True)
        for number in range(6):
            low = 120 if subclass.malignancy == "Malignant" else 20
            cv2.imwrite(str(folder / f"{name}_{number}.png"), rng.integers(low, low + 90, (32, 32, 3), dtype="uint8"))
    return open_patches(root, cache=tmp_path_factory.mktemp("packed"), progress=False)


@pytest.mark.slow
def test_two_tasks_are_learned_by_one_network_with_two_heads(cancers, tmp_path):
    config = get_config("sample", "compact", SMALL | {"task": "organ+malignancy", "epochs": 2})
    both = train(cancers, config, tmp_path / "both", quiet)
    assert [output.shape[1] for output in both.network.outputs] == [9, 1]
    assert list(both.metrics["tasks"]) == ["organ", "malignancy"]
    assert both.metrics["tasks"]["malignancy"]["val"]["auc"] > 0.8
    assert {"val_auc_organ", "val_auc_malignancy"} <= set(both.history)
    scores = score_run(both, cancers)
    assert set(scores["tasks"]) == {"organ", "malignancy"} and "organ:" in describe_scores(scores)
    table = predict_table(both, cancers, tmp_path / "p.csv", views=1)
    assert len(table) == len(cancers) and {"organ", "p_Brain", "malignancy", "p_Malignant"} <= set(table)
    alone = train(cancers, dataclasses.replace(config, task="malignancy", epochs=1), tmp_path / "alone", quiet)
    assert alone.rows("holdout")["id"].tolist() == both.rows("holdout")["id"].tolist()


def test_copies_repeat_the_images_of_train_alone_and_balance_them(three):
    splits = split_patches(three.table).assign(slide="")
    train_rows = splits[splits["split"] == "train"]
    seen = repeat_rows(train_rows, "1,2,3", 3)
    counts, times = train_rows["label"].value_counts(), seen["label"].value_counts()
    assert [times[label] for label in range(3)] == [counts[0], 2 * counts[1], 3 * counts[2]]
    assert set(seen["row"]) == set(train_rows["row"])
    table = count_seen(splits, "1,2,3", three.class_names)
    assert table["seen"].tolist() == [times[label] for label in range(3)]
    published = pd.DataFrame({"split": "train", "label": [0] * 140 + [1] * 560})
    assert count_seen(published, get_config("full", "simple_cnn").copies, ("non_cancer", "cancer"))["seen"].tolist() == [
        2800,
        3360,
    ]
    with pytest.raises(ValueError, match="gives 2 numbers for 3 classes"):
        repeat_rows(train_rows, "6,20", 3)


@pytest.mark.slow
def test_frozen_first_then_everything_and_the_same_when_resumed_between(small, tmp_path):
    config = get_config("sample", "mobilenet", SMALL | {"epochs": 3, "unfreeze_epoch": 2, "views": 1})
    lines = []
    whole = train(small, config, tmp_path / "whole", lines.append)
    assert "the backbones are frozen: 769 parameters are trained" in lines
    for stop in (1, 2):
        folder = tmp_path / f"cut_{stop}"
        with pytest.raises(KeyboardInterrupt):
            train(small, config, folder, StopAfter(stop))
        lines.clear()
        resumed = train(small, config, folder, lines.append)
        assert f"resuming after epoch {stop} of 3" in lines
        np.testing.assert_allclose(resumed.history["loss"], whole.history["loss"], rtol=2e-2)


class StopAfter:
    """Interrupts a training when the line of an epoch is logged."""

    def __init__(self, epoch):
        self.start = f"epoch {epoch}/"

    def __call__(self, line):
        if line.startswith(self.start) and "val loss" in line:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_epoch_can_end_after_some_steps_and_a_step_is_traced_once(three, tmp_path, monkeypatch):
    config = get_config("sample", "compact", SMALL | {"epochs": 1, "epoch_steps": 2, "views": 1})
    apply, traces = FlatAdam._backend_apply_gradients, []
    monkeypatch.setattr(FlatAdam, "_backend_apply_gradients", lambda *given: (traces.append(given), apply(*given)))
    assert len(Batches(three.images, np.arange(100), [np.zeros((100, 1))], 16, seed=0, steps=2)) == 2
    assert len(train(three, config, tmp_path / "short", quiet).history) == 1
    assert len(traces) == 1
