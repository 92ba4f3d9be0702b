"""Fits a network and writes a run folder; goes on where it was interrupted. In: PatchSet and Config. Out: Run."""

import dataclasses
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from histopath.augment import augmentation_layers
from histopath.backend import keras, ops
from histopath.config import Config
from histopath.evaluation import best_threshold, evaluate
from histopath.files import locked, replacing, write_table, write_text
from histopath.inference import accelerators, check_size, predict, uses_xla
from histopath.models import build_model, norm_layers
from histopath.optimizer import FlatAdam
from histopath.patches import PatchSet
from histopath.progress import say
from histopath.runs import FILES, Run, open_run, read_identity
from histopath.splits import describe_grouping, split_patches


def train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None] = say) -> Run:
    """Trains a network, or finishes or opens the same training when the folder already holds it.

    After every epoch the averaged weights get batch-normalisation statistics of their own (`reestimate_norm`), are scored
    on val, saved when they are the best so far, and the whole state is kept for resuming. A finished run of other settings
    or data in the folder is moved aside, never overwritten.

    Args:
        patches: labelled patches.
        config: all settings.
        folder: the run folder to write.
        log: takes one line an epoch, and one every half minute within a long one.

    Returns:
        The finished run.

    Raises:
        ValueError: when the patches cannot be split or have the wrong size.
    """
    with locked(folder, log):
        return _train(patches, config, folder, log)


def _train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None]) -> Run:
    identity = {"data": patches.fingerprint, "patches": len(patches.table), **dataclasses.asdict(config)}
    if _finished(folder, identity):
        (folder / "state.npz").unlink(missing_ok=True)
        log(f"{folder.name} is already trained with these settings on these patches")
        return open_run(folder)
    splits = split_patches(patches.table, config.val_fraction, config.holdout_fraction, config.seed)
    session = _Session(patches, config, folder, splits, log)
    _prepare_folder(folder, identity, config, splits, log)
    session.fit()
    write_text(folder / "metrics.json", json.dumps(session.summary(), indent=2) + "\n")
    session.state_file.unlink()
    return open_run(folder)


def reestimate_norm(network: keras.Model, batches: list[np.ndarray]) -> None:
    """Gives every trainable batch-normalisation layer the mean and variance of `batches` under the present weights.

    Running statistics with momentum 0.99 (Xception) or 0.9997 (NASNet) are still near their start after a short training,
    and they follow the live weights, not the averaged ones. Wu and Johnson 2021 (arXiv:2105.07576), "precise" statistics:
    mean of the batch means, and mean of the batch variances plus the variance of the batch means.

    Args:
        network: the network; only moving means and variances change.
        batches: uint8 patches (N, H, W, 3) each, of equal length.
    """
    layers = norm_layers(network)
    momenta = [layer.momentum for layer in layers]
    sums = [[0.0, 0.0] for _ in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        for batch in batches:
            network(batch, training=True)
            for layer, total in zip(layers, sums, strict=True):
                mean, variance = (ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance))
                total[0], total[1] = total[0] + mean, total[1] + variance + mean**2
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, (mean, square) in zip(layers, sums, strict=True):
        layer.moving_mean.assign(mean / len(batches))
        layer.moving_variance.assign(np.maximum(square / len(batches) - (mean / len(batches)) ** 2, 0))


class Batches(keras.utils.PyDataset):
    """Shuffled batches of one size; the order depends on seed and epoch alone, so that a resumed run sees the same."""

    def __init__(self, images, rows, labels, batch_size: int, seed: int, epoch: int = 0):
        """Args: memory-mapped uint8 images, the row numbers to draw, their labels, and the epoch that comes next."""
        super().__init__()
        self.images, self.rows, self.labels = images, rows, labels.astype("float32")
        self.batch_size, self.seed, self.epoch = min(batch_size, len(rows)), seed, epoch
        self._shuffle()

    def __len__(self):
        return len(self.rows) // self.batch_size

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[self.rows[chosen]], self.labels[chosen, None]

    def on_epoch_end(self):
        """Draws the order of the next epoch."""
        self.epoch += 1
        self._shuffle()

    def _shuffle(self):
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.rows))


class _Session(keras.callbacks.Callback):
    """One training in progress: the network being fitted, what is scored after an epoch, and the state for resuming."""

    def __init__(self, patches, config, folder, splits, log):
        super().__init__()
        self.patches, self.config, self.folder, self.splits, self.log = patches, config, folder, splits, log
        self.state_file = folder / "state.npz"
        self.part = {name: group for name, group in splits.groupby("split")}
        keras.utils.set_random_seed(config.seed)
        self._build()
        self.variables = list(self.trainer.variables)
        self.rows = []
        self._compile()

    def _build(self):
        config, policy = self.config, keras.config.dtype_policy()
        keras.config.set_dtype_policy(choose_precision(config.precision))
        try:
            self.network = build_model(config.model, config.weights, config.dropout)
            layers = augmentation_layers(config.augmentation, config.seed, config.shift, config.stain)
            inputs = keras.Input(self.network.input_shape[1:], dtype="uint8")
            self.trainer = keras.Sequential([inputs, *layers, self.network])
        finally:
            keras.config.set_dtype_policy(policy)
        check_size(self.network, self.patches.images)
        mixed = self.trainer.dtype_policy != policy
        self.saved = build_model(config.model, dropout=config.dropout) if mixed else self.network

    def _compile(self):
        config, train_rows = self.config, self.part["train"]
        self.batches = Batches(
            self.patches.images,
            train_rows["row"].to_numpy(),
            train_rows["label"].to_numpy(),
            config.batch_size,
            config.seed,
        )
        steps = config.epochs * len(self.batches)
        warm = max(1, round(config.warmup * steps))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm), warmup_target=config.learning_rate, warmup_steps=warm
        )
        self.adam = FlatAdam(rate, clip_norm=config.clip_norm, ema_momentum=config.ema_momentum)
        self.trainer.compile(
            self.adam,
            keras.losses.BinaryCrossentropy(label_smoothing=config.label_smoothing),
            metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
            jit_compile=uses_xla(),
        )
        self.trainer.optimizer.build(self.trainer.trainable_variables)
        self.variables += self.trainer.optimizer.variables

    def fit(self):
        """Runs the epochs that are still to be run."""
        self._restore()
        parts = ", ".join(f"{len(self.part[name]):,} {name}" for name in ("train", "val", "holdout"))
        self.log(f"{self.network.count_params():,} parameters; patches: {parts}; {describe_grouping(self.splits)}")
        if not self._should_stop():
            callbacks = [self] + ([keras.callbacks.TensorBoard(self.folder / "logs")] if self.config.tensorboard else [])
            self.trainer.fit(
                self.batches,
                epochs=self.config.epochs,
                initial_epoch=len(self.rows),
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of an epoch."""
        self.started = self.spoke = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Says how far a long epoch is, every half minute."""
        now = time.perf_counter()
        if batch == 0:
            self.warm = now  # the first step of a run compiles; it says nothing about the rate
        elif now - self.spoke > 30:
            self.spoke = now
            rate = batch * self.batches.batch_size / (now - self.warm)
            progress = f"  step {batch + 1}/{len(self.batches)}  loss {logs['loss']:.3f}  {rate:,.1f} patches/s"
            self.log(f"epoch {len(self.rows) + 1}/{self.config.epochs}{progress}")

    def on_epoch_end(self, epoch, logs=None):
        """Scores the averaged weights on val, keeps them when they are the best, then keeps the state."""
        if not np.isfinite(logs["loss"]):
            raise ValueError(f"The training of {self.folder.name} diverged (loss {logs['loss']}); lower --set learning_rate.")
        live = self.network.get_weights()
        self._use_averages()
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(logs["accuracy"]),
            **self._score_val(),
        }
        row["learning_rate"] = float(ops.convert_to_numpy(self.adam.learning_rate))
        best = max((past["val_auc"] for past in self.rows), default=-1.0)
        if row["val_auc"] > best:
            self._save_network()
        self.network.set_weights(live)
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        self.rows.append(row)
        self._save_state()
        self.log(_line(row, self.config.epochs, better=row["val_auc"] > best))
        self.trainer.stop_training = self._should_stop()

    def summary(self) -> dict:
        """Scores of the saved network on val, the threshold chosen there, and how the training went."""
        best = max(self.rows, key=lambda row: row["val_auc"])
        val = self.part["val"]
        self.saved.load_weights(self.folder / "model.keras")
        p = predict(self.saved, self.patches.images, val["row"], self.config.views, self.config.predict_batch)
        slides = val["slide"].to_numpy() if (val["slide"] != "").all() else None
        threshold = best_threshold(val["label"].to_numpy(), p)
        return {
            "best_epoch": best["epoch"],
            "epochs": len(self.rows),
            "seconds": round(sum(row["seconds"] for row in self.rows), 1),
            "grouping": describe_grouping(self.splits),
            "threshold": threshold,
            "val": evaluate(val["label"].to_numpy(), p, threshold, slides),
        }

    def _use_averages(self):
        for variable, value in zip(self.network.trainable_variables, self.adam.averages(), strict=True):
            variable.assign(value)
        rows = self.batches.rows
        size = min(self.config.predict_batch, self.config.norm_patches, len(rows))
        count = max(1, min(self.config.norm_patches, len(rows)) // size)
        chosen = np.random.default_rng(self.config.seed).permutation(rows)[: count * size]
        reestimate_norm(self.network, [self.patches.images[part] for part in np.split(chosen, count)])

    def _score_val(self) -> dict:
        val = self.part["val"]
        p = predict(self.network, self.patches.images, val["row"], views=1, batch_size=self.config.predict_batch)
        labels = val["label"].to_numpy()
        loss = log_loss(labels, np.clip(p.astype(float), 1e-7, 1 - 1e-7))
        return {
            "val_loss": loss,
            "val_accuracy": float(np.mean((p >= 0.5) == labels)),
            "val_auc": roc_auc_score(labels, p),
        }

    def _should_stop(self) -> bool:
        scores = [row["val_auc"] for row in self.rows]
        stale = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(scores) >= self.config.epochs or stale >= self.config.patience

    def _save_network(self):
        if self.saved is not self.network:
            self.saved.set_weights(self.network.get_weights())
        with replacing(self.folder / "model.keras") as part:
            self.saved.save(part)

    def _save_state(self):
        values = [ops.convert_to_numpy(variable) for variable in self.variables]
        with replacing(self.state_file) as part:
            np.savez(part, rows=json.dumps(self.rows), **{f"v{i}": value for i, value in enumerate(values)})
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))

    def _restore(self):
        if not self.state_file.is_file():
            return
        try:
            with np.load(self.state_file) as state:
                self.rows = json.loads(str(state["rows"]))
                for i, variable in enumerate(self.variables):
                    variable.assign(state[f"v{i}"])
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.state_file} is damaged ({reason}); delete it to train this run from the start.") from None
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))
        self.batches.epoch = len(self.rows) - 1
        self.batches.on_epoch_end()
        self.log(f"resuming after epoch {len(self.rows)} of {self.config.epochs}")


def choose_precision(name: str) -> str:
    """Returns the Keras dtype policy: on a GPU mixed bfloat16 where the hardware has it, else mixed float16; float32 on a CPU."""
    if name != "auto" or not accelerators():
        return "float32" if name == "auto" else name
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "mixed_bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "mixed_float16"
    return "mixed_bfloat16"


def _finished(folder: Path, identity: dict) -> bool:
    return all((folder / name).is_file() for name in FILES) and read_identity(folder) == identity


def _prepare_folder(folder: Path, identity: dict, config: Config, splits: pd.DataFrame, log) -> None:
    """Makes the folder ready; a training of something else that stands there, finished or not, is moved aside."""
    if any((folder / name).is_file() for name in ("metrics.json", "state.npz")) and read_identity(folder) != identity:
        aside = folder.with_name(f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        log(f"kept the earlier run as {aside.name}")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "splits.csv", splits)
    write_text(folder / "config.json", config.to_json())
    write_text(folder / "identity.json", json.dumps(identity, indent=2) + "\n")


def _line(row: dict, epochs: int, better: bool) -> str:
    numbers = f"loss {row['loss']:.3f}  val loss {row['val_loss']:.3f}  val accuracy {row['val_accuracy']:.3f}"
    star = "  best so far" if better else ""
    return f"epoch {row['epoch']}/{epochs}  {numbers}  val AUC {row['val_auc']:.3f}  {row['seconds']:.0f} s{star}"
