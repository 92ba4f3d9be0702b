"""Callbacks of a training: what they restore, what they keep, and when they stop."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT

from histopath.config import get_config
from histopath.files import InputError
from histopath.models.backend import keras, ops
from histopath.training.augment import RandomDihedral
from histopath.training.batches import ResidentPatches
from histopath.training.callbacks import Backup, BestCheckpoint, EarlyStopping, ValidateAverage, read_past
from histopath.training.optimizer import FlatAdam

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (48, 8, 8, 3), dtype="uint8"), RNG.integers(0, 2, (48, 1)).astype("float32")


class Scores(keras.callbacks.Callback):
    """Gives each epoch the next validation AUC; interrupts the training after epoch `stop`."""

    def __init__(self, scores, stop=0):
        super().__init__()
        self.scores, self.stop = scores, stop

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.stop + 1 and self.stop:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        logs["val_auc"] = self.scores[epoch - 1]


def fit(folder, scores, stop=0, patience=9):
    """Trains a small network with random layers on patches on the device, or resumes it; returns all its variables."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((), dtype="int32")
    x = RandomDihedral(seed=1)(ResidentPatches(IMAGES)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x)))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))
    model.compile(FlatAdam(keras.optimizers.schedules.CosineDecay(0.1, 12), ema_momentum=0.9), "binary_crossentropy")
    model.optimizer.build(model.trainable_variables)
    past = read_past(folder)
    callbacks = [Scores(scores, stop), EarlyStopping(patience, 1, past)]
    callbacks += [keras.callbacks.CSVLogger(folder / "history.csv", append=True), Backup(folder, len(past) > 0)]
    rows = np.arange(48, dtype="int32")
    epochs = {"initial_epoch": len(past) + 1, "epochs": len(scores) + 1}
    model.fit(rows, LABELS, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks, **epochs)
    return [ops.convert_to_numpy(variable) for variable in model.variables + model.optimizer.variables]


def test_an_interrupted_training_resumes_with_its_random_states_its_optimizer_and_its_history(tmp_path):
    (tmp_path / "whole").mkdir(), (tmp_path / "broken").mkdir()
    whole = fit(tmp_path / "whole", [0.5] * 4)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", [0.5] * 4, stop=2)
    resumed = fit(tmp_path / "broken", [0.5] * 4)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "broken")]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    assert list(histories[1]["epoch"]) == [1, 2, 3, 4]


def test_patches_on_the_device_are_not_in_the_backup(tmp_path):
    fit(tmp_path, [0.5])
    with np.load(tmp_path / "state.npz") as state:
        assert all(state[name].shape != IMAGES.shape for name in state)


def test_epochs_without_a_better_score_count_across_an_interruption(tmp_path):
    scores = [0.7, 0.6, 0.6, 0.6, 0.6, 0.6]
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, scores, stop=2, patience=3)
    fit(tmp_path, scores, patience=3)
    assert list(read_past(tmp_path)["val_auc"]) == [0.7, 0.6, 0.6, 0.6]
    stopped = fit(tmp_path, scores, patience=3)  # killed after its last epoch: none is added
    assert len(read_past(tmp_path)) == 4 and np.isfinite(stopped[-1]).all()


@pytest.mark.slow
def test_a_training_killed_while_it_writes_its_backup_resumes_from_the_one_before(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
import numpy as np
sys.path[:0] = ["tests", "tests/training"]
import test_callbacks
write, calls = np.savez, []
def savez(file, **values):
    write(file, **values)
    calls.append(file)
    if len(calls) == 2:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
np.savez = savez
test_callbacks.fit(Path(sys.argv[1]), [0.5] * 3)
"""
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=PROJECT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2 and len(read_past(tmp_path)) == 1
    fit(tmp_path, [0.5] * 3)
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1, 2, 3]


def test_only_a_network_better_than_all_before_the_interruption_is_saved(tmp_path):
    saved = []
    network = SimpleNamespace(save=lambda path: (saved.append(path), path.write_bytes(b"network")))
    checkpoint = BestCheckpoint(tmp_path / "model.keras", network, pd.DataFrame({"val_auc": [0.7, 0.8]}))
    for epoch, score in ((3, 0.75), (4, 0.8), (5, 0.9)):
        checkpoint.on_epoch_end(epoch, {"val_auc": score})
        assert (tmp_path / "model.keras").exists() == (epoch == 5)
    assert len(saved) == 1 and [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_a_diverged_training_is_ended_with_the_cure():
    nothing = SimpleNamespace(rows=np.arange(48))
    setup = SimpleNamespace(network=None, averaged=None, tasks=(), batches=nothing, part=lambda name: nothing)
    validate = ValidateAverage(setup, IMAGES, get_config())
    with pytest.raises(InputError, match=r"diverged \(loss nan in epoch 2\); lower --set learning_rate"):
        validate.on_epoch_end(2, {"loss": float("nan")})
