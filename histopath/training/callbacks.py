"""What happens after each epoch of a training: validation, checkpoint, early stopping, backup and log lines."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from histopath.config import Config
from histopath.files import InputError, replacing, write_text
from histopath.metrics.binary import both_classes
from histopath.metrics.multiclass import mean_auc
from histopath.models.backend import from_first_process, join_processes, keras, on_one_device, ops
from histopath.models.predict import predict_heads
from histopath.training.batches import ResidentPatches
from histopath.training.optimizer import draw_norm_rows, reestimate_norm

DAMAGE = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile)


class ValidateAverage(keras.callbacks.Callback):
    """Validates the averaged weights and adds the scores to the logs, for the callbacks after it."""

    def __init__(self, setup, images: np.ndarray, config: Config):
        """`setup` is a `fit.Setup` and `images` are all patches, uint8 (M, H, W, 3)."""
        super().__init__()
        self.network, self.averaged, self.tasks, self.val = setup.network, setup.averaged, setup.tasks, setup.part("val")
        self.images, self.batch_size = images, config.predict_batch
        self.norm_rows = draw_norm_rows(setup.batches.rows, config.norm_patches, self.batch_size, config.seed)

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of an epoch."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the mean accuracy of the outputs, the validation scores, the learning rate and the seconds to the logs.

        Raises:
            InputError: when the loss is not finite; lower the learning rate.
        """
        if not np.isfinite(logs["loss"]):
            raise InputError(f"The training diverged (loss {logs['loss']} in epoch {epoch}); lower --set learning_rate.")
        self.average()
        logs["accuracy"] = float(np.mean([value for name, value in logs.items() if name.endswith("accuracy")]))
        logs.update(self.score())
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["seconds"] = round(time.perf_counter() - self.started, 1)

    def average(self):
        """Copies the averaged weights into `averaged` and re-estimates its batch normalization for them."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)  # in mixed_float16 it is wrapped
        self.averaged.set_weights(self.network.get_weights())
        for variable, value in zip(self.averaged.trainable_variables, optimizer.averages(), strict=True):
            variable.assign(value)
        with on_one_device():
            reestimate_norm(self.averaged, [self.images[rows] for rows in self.norm_rows])

    def score(self) -> dict[str, float]:
        """Returns the loss summed over the outputs, as in training, and their mean accuracy and AUC, without augmentation."""
        with on_one_device():
            answers = predict_heads(self.averaged, self.images, self.val["row"], 1, self.batch_size)
        scores = [_score(task.answers(self.val["label"]), p) for task, p in zip(self.tasks, answers, strict=True)]
        scores = json.loads(from_first_process(json.dumps(scores))[0])  # all processes stop after the same epoch
        loss, accuracy, auc = np.array(scores).T
        logs = {"val_loss": float(loss.sum()), "val_accuracy": float(accuracy.mean()), "val_auc": float(auc.mean())}
        if len(self.tasks) > 1:
            logs |= {f"val_auc_{task.name}": float(value) for task, value in zip(self.tasks, auc, strict=True)}
        return logs


class BestCheckpoint(keras.callbacks.ModelCheckpoint):
    """Keras's checkpoint of the averaged network, without the augmentation around it, in a file that is complete or absent."""

    def __init__(self, file: Path, averaged: keras.Model, past: pd.DataFrame):
        best = max(past["val_auc"], default=None)  # of Python's floats: Keras compares those alike
        super().__init__(file, "val_auc", mode="max", save_best_only=True, initial_value_threshold=best)
        self.averaged = averaged

    def _save_model(self, epoch, batch, logs):
        if self._should_save_model(epoch, batch, logs, self.filepath):
            with replacing(Path(self.filepath)) as part:
                self.averaged.save(part)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's early stopping on the validation AUC, which also counts the epochs before an interruption."""

    def __init__(self, patience: int, start_from_epoch: int, past: pd.DataFrame):
        super().__init__("val_auc", mode="max", patience=patience, start_from_epoch=start_from_epoch)
        self.past = past

    def on_train_begin(self, logs=None):
        """Goes through the earlier epochs; after an early stop no epoch is run."""
        super().on_train_begin(logs)
        for row in self.past.itertuples():
            self.on_epoch_end(row.epoch, {"val_auc": row.val_auc})
        if self.model.stop_training:
            self.model._initial_epoch = self.params["epochs"]  # as BackupAndRestore passes over finished epochs


class Backup(keras.callbacks.BackupAndRestore):
    """Keras's backup after each epoch, in one file, `state.npz`, that is complete or absent.

    The stock class writes the weights and then the epoch, in place: killed in between, it resumes with weights of another
    epoch, and killed while writing, not at all. It omits the random state of augmentation and dropout, writes the patches
    on the device with every epoch, and each of several processes would read a file of its own.
    """

    def __init__(self, folder: Path, restore: bool):
        """`restore`: whether the first `fit` goes on from `state.npz`."""
        super().__init__(folder, delete_checkpoint=False)
        self.folder, self.restore = folder, restore

    def _variables(self) -> list:
        patches = {id(layer.images) for layer in self.model.layers if isinstance(layer, ResidentPatches)}
        return [one for one in self.model.variables + self.model.optimizer.variables if id(one) not in patches]

    def _save_model(self):
        values = {f"v{number}": ops.convert_to_numpy(variable) for number, variable in enumerate(self._variables())}
        with replacing(self.folder / "state.npz") as part:
            np.savez(part, history=(self.folder / "history.csv").read_text(), **values)

    def _load_model(self):
        if self.restore:
            self.restore = False
            variables = self._variables()
            values = _read_state(self.folder, [ops.convert_to_numpy(variable) for variable in variables])[1]
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


class LogLines(keras.callbacks.Callback):
    """Logs one line an epoch, and one every half minute within a long one."""

    def __init__(self, log: Callable[[str], None], epochs: int, batch_size: int, past: pd.DataFrame):
        super().__init__()
        self.log, self.epochs, self.batch_size = log, epochs, batch_size
        self.best = max(past["val_auc"], default=-1.0)

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of an epoch."""
        self.epoch, self.logged, self.first = epoch, time.perf_counter(), None

    def on_train_batch_end(self, batch, logs=None):
        """Logs how far a long epoch is."""
        now = time.perf_counter()
        if self.first is None:
            self.first = now, batch  # the first step includes the compilation, which would spoil the rate
        elif now - self.logged > 30:
            self.logged = now
            rate = (batch - self.first[1]) * self.batch_size / (now - self.first[0])
            progress = f"step {batch + 1}/{self.params['steps']}  loss {logs['loss']:.3f}  {rate:,.1f} patches/s"
            self.log(f"epoch {self.epoch}/{self.epochs}  {progress}")

    def on_epoch_end(self, epoch, logs=None):
        """Logs the scores of an epoch."""
        numbers = f"loss {logs['loss']:.3f}  val loss {logs['val_loss']:.3f}  val accuracy {logs['val_accuracy']:.3f}"
        star = "  best so far" if logs["val_auc"] > self.best else ""
        self.best = max(self.best, logs["val_auc"])
        self.log(f"epoch {epoch}/{self.epochs}  {numbers}  val AUC {logs['val_auc']:.3f}  {logs['seconds']:.0f} s{star}")


def read_past(folder: Path) -> pd.DataFrame:
    """Reads the epochs that an interrupted training finished, and makes `history.csv` hold these and no others."""
    text = _read_state(folder)[0]
    write_text(folder / "history.csv", text)
    return pd.read_csv(io.StringIO(text or "epoch,val_auc\n"), dtype=str).astype(float)


def _read_state(folder: Path, present: Sequence[np.ndarray] = ()) -> tuple[str, list[np.ndarray]]:
    """Reads in process 0, for all, the history and as many variables as there are at present; no text without a file."""
    file, text, values = folder / "state.npz", "", list(present)
    if not join_processes()[0] and file.is_file():
        try:
            with np.load(file) as state:
                text, values = str(state["history"]), [state[f"v{number}"] for number in range(len(values))]
            if [value.shape for value in values] != [value.shape for value in present]:
                raise ValueError("of another network than this commit's")
        except DAMAGE as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{file} is damaged ({reason}); delete it to train this run from the start.") from None
    return from_first_process(text, values)


def _score(labels: np.ndarray, p: np.ndarray) -> tuple[float, float, float]:
    """Loss, accuracy and AUC (one class against the rest, mean over the classes that occur) of one output."""
    each = np.clip(both_classes(p).astype(float), 1e-7, 1 - 1e-7)
    loss = log_loss(labels, each / each.sum(axis=1, keepdims=True), labels=range(each.shape[1]))
    return loss, float(np.mean(each.argmax(axis=1) == labels)), mean_auc(labels, p)
