"""Fits a network and writes a run folder; goes on where it was interrupted. In: PatchSet and Config. Out: Run."""

import dataclasses
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from histopath.config import Config
from histopath.data.patches import PatchSet
from histopath.data.splits import describe_grouping, known_slides, split_patches
from histopath.data.tasks import read_tasks
from histopath.files import locked, replacing, say, write_table, write_text
from histopath.metrics.binary import best_threshold, both_classes, fit_temperature
from histopath.metrics.multiclass import evaluate_task, mean_auc
from histopath.models.backend import (
    accelerators,
    device_memory,
    first_line,
    from_first_process,
    join_processes,
    keras,
    leave_processes,
    on_one_device,
    ops,
    several_devices,
    uses_xla,
)
from histopath.models.predict import check_size, predict_heads
from histopath.models.registry import REGISTRY, build_model, freeze_backbones
from histopath.models.runs import FILES, Run, open_run, read_identity
from histopath.training.augment import augmentation_layers
from histopath.training.batches import Batches, ResidentPatches, one_of, repeat_rows
from histopath.training.optimizer import FlatAdam, kernel_channels, norm_layers, reestimate_norm

LOSSES = {True: keras.losses.BinaryCrossentropy, False: keras.losses.CategoricalCrossentropy}  # by whether it is a sigmoid
ACCURACIES = {True: keras.metrics.BinaryAccuracy, False: keras.metrics.CategoricalAccuracy}
DAMAGE = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile)


def train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None] = say) -> Run | None:
    """Trains a network, or finishes or opens the same training when the folder already holds it.

    After every epoch the averaged weights get batch-normalisation statistics of their own (`reestimate_norm`), are scored
    on val, saved when they are the best so far, and the whole state is kept for resuming. A finished run of other settings
    or data in the folder is moved aside, never overwritten. Several processes (`backend.join_processes`) share every batch
    and do the rest alike; process 0 alone writes, and tells the others where an interrupted training goes on.

    Args:
        patches: labelled patches.
        config: all settings.
        folder: the run folder to write.
        log: takes one line an epoch, and one every half minute within a long one.

    Returns:
        The finished run; None in a process other than 0.

    Raises:
        ValueError: when the patches cannot be split or have the wrong size, or another process ended.
    """
    if join_processes()[0]:
        with tempfile.TemporaryDirectory(prefix="histopath-") as nowhere:
            _train(patches, config, Path(nowhere) / folder.name, log)
        return None
    with locked(folder, log):
        return _train(patches, config, folder, log)


def _train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None]) -> Run | None:
    identity = {"data": patches.fingerprint, "patches": len(patches.table), **dataclasses.asdict(config)}
    told, _ = from_first_process(json.dumps({"identity": identity, "finished": _finished(folder, identity)}))
    if json.loads(told)["identity"] != json.loads(json.dumps(identity)):
        raise ValueError("Process 0 trains with other settings or other patches; give every process the same ones.")
    if json.loads(told)["finished"]:
        if join_processes()[0]:
            return None
        (folder / "state.npz").unlink(missing_ok=True)
        log(f"{folder.name} is already trained with these settings on these patches")
        return open_run(folder)
    splits = split_patches(
        patches.table,
        config.val_fraction,
        config.holdout_fraction,
        config.seed,
        patches.class_names,
        (config.fold, config.folds),
    )
    scope, devices = several_devices(config.devices)
    with scope:
        session = Session(patches, config, folder, splits, log, devices)
        _prepare_folder(folder, identity, config, splits, log)
        try:
            session.fit()
        except (RuntimeError, ValueError) as error:
            if session.processes == 1 or not re.match("[A-Z_]+: ", str(error)):  # the code of an XLA status
                raise
            cure = "start all of them again, and the training goes on after its last finished epoch"
            raise ValueError(f"The processes of this training lost each other (… {first_line(error)[-120:]}); {cure}.") from None
    leave_processes()
    if session.process:
        return None
    write_text(folder / "metrics.json", json.dumps(session.summary(), indent=2) + "\n")
    session.state_file.unlink()
    finished = open_run(folder)
    vars(finished)["network"] = session.saved  # at hand already: `summary` has just read it back from the file
    return finished


class Session(keras.callbacks.Callback):
    """One training in progress: the network being fitted, what is scored after an epoch, and the state for resuming."""

    def __init__(self, patches, config, folder, splits, log, devices=1):
        super().__init__()
        self.devices, (self.process, self.processes) = devices, join_processes()
        self.patches, self.config, self.folder, self.splits, self.log = patches, config, folder, splits, log
        self.state_file = folder / "state.npz"
        self.part = {name: group for name, group in splits.groupby("split")}
        self.tasks = read_tasks(config.task, patches.layout, patches.class_names)
        self.rows = []
        keras.utils.set_random_seed(config.seed)
        self._build()
        self._draw_batches()

    def _build(self):
        config, policy, size = self.config, keras.config.dtype_policy(), self.patches.images.shape[1]
        heads = {task.name: len(task.class_names) for task in self.tasks} if len(self.tasks) > 1 else None
        heads = heads or {"probability": len(self.tasks[0].class_names)}
        whole = {"dropout": config.dropout, "size": size, "heads": heads}
        keras.config.set_dtype_policy(choose_precision(config.precision))
        try:
            self.network = build_model(config.model, config.weights, **whole)
            layers = augmentation_layers(config.augmentation, config.seed, config.shift, config.stain, config.light, config.focus)
            x, inputs = self._feed()
            for layer in layers:
                x = layer(x)
            answers = zip(heads, keras.tree.flatten(self.network(x)), strict=True)
            named = [keras.layers.Identity(name=name, dtype="float32")(answer) for name, answer in answers]
            self.trainer = keras.Model(inputs, named if len(named) > 1 else named[0])
            held = {id(variable) for variable in self.resident.variables} if self.resident else set()
            # Weights and seeds, but neither the patches nor anything that compiling adds.
            self.network_state = [variable for variable in self.trainer.variables if id(variable) not in held]
        finally:
            keras.config.set_dtype_policy(policy)
        check_size(self.network, self.patches.images)
        mixed = self.trainer.dtype_policy != policy
        with on_one_device():
            self.saved = build_model(config.model, **whole) if mixed or self.devices > 1 else self.network
        if self.devices > 1:
            self._share_batches()

    def _share_batches(self):
        """Every device takes a part of each batch; batch normalisation sees the whole, as on one device."""
        if self.devices % self.processes or self.config.batch_size % self.devices:
            raise ValueError(
                f"The setting batch_size must be a multiple of the {self.devices} devices, and these of the processes; it is "
                f"{self.config.batch_size}."
            )
        if keras.backend.backend() == "tensorflow":  # on JAX a batch is one array, wherever its parts lie
            for layer in norm_layers(self.network):
                layer.synchronized = True
        self.log(f"{self.devices} devices, each with {self.config.batch_size // self.devices} patches of a batch")

    def _feed(self):
        """Where patches enter the step, and the input of the step: patches themselves, or row numbers of resident ones."""
        learned = np.unique(self.part["train"]["row"])
        self.resident = None
        if is_resident(self.config.feed, len(learned) * self.patches.images[0].nbytes, self.log):
            self.resident = ResidentPatches(self.patches.images[learned], name="patches")
            inputs = keras.Input((), dtype="int32")
            return self.resident(inputs), inputs
        inputs = keras.Input(self.network.input_shape[1:], dtype="uint8")
        return inputs, inputs

    def _draw_batches(self):
        """Rows to train on, each as often as `copies` says, and what each output should answer."""
        config = self.config
        drawn = repeat_rows(self.part["train"], config.copies, len(self.patches.class_names))
        targets = [
            one_of(task.answers(drawn["label"]), output.shape[1])
            for task, output in zip(self.tasks, self.network.outputs, strict=True)
        ]
        rows, images = drawn["row"].to_numpy(), self.patches.images
        if self.resident:  # the network is given where a patch lies on the device
            images = np.searchsorted(np.unique(rows), np.arange(len(images))).astype("int32")
        share = (self.process, self.processes)
        self.batches = Batches(images, rows, targets, config.batch_size, config.seed, 0, config.epoch_steps, share)

    def _phases(self) -> list[tuple[bool | None, int, int]]:
        """Phases of the training: whether the backbones are frozen (None: as published), epochs before it, its last epoch."""
        start, epochs = self.config.unfreeze_epoch, self.config.epochs
        if not start or not REGISTRY[self.config.model].backbones:
            return [(None, 0, epochs)]
        head = min(start - 1, epochs)
        return [phase for phase in ((True, 0, head), (False, head, epochs)) if phase[1] < phase[2]]

    def fit(self):
        """Runs the epochs that are still to be run; each phase has an optimiser and a rate schedule of its own."""
        parts = ", ".join(f"{len(self.part[name]):,} {name}" for name in ("train", "val", "holdout"))
        self.log(f"{self.network.count_params():,} parameters; patches: {parts}; {describe_grouping(self.splits)}")
        phases, done = self._phases(), self._count_finished()
        for frozen, before, last in phases:
            if done > last:
                continue
            if self.rows:
                self._average()  # the next phase starts from the weights that were scored
                self.network.set_weights(self.saved.get_weights())
            self.compile(frozen, before, last)
            if not self.rows and done > before:
                self._restore()
            self.first, self.last, self.patient = before, last, last == phases[-1][2]
            if not self._should_stop():
                self._run_epochs()

    def compile(self, frozen: bool | None, before: int, last: int):
        """Prepares one of the `_phases`: what is frozen, the rate schedule, a new optimiser."""
        config, steps = self.config, (last - before) * len(self.batches)
        if frozen is not None:
            freeze_backbones(self.network, frozen)
            freeze_backbones(self.saved, frozen)
        trained = sum(int(ops.size(weight)) for weight in self.network.trainable_weights)
        if frozen or (frozen is None and REGISTRY[config.model].frozen):
            self.log(f"the backbones are frozen: {trained:,} parameters are trained")
        warm = max(1, round(config.warmup * steps))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm), warmup_target=config.learning_rate, warmup_steps=warm
        )
        channels = kernel_channels(self.network) if config.optimizer == "muon" else None
        self.adam = FlatAdam(rate, clip_norm=config.clip_norm, ema_momentum=config.ema_momentum, channels=channels)
        sigmoids = [output.shape[1] == 1 for output in self.network.outputs]
        losses = [LOSSES[sigmoid](label_smoothing=config.label_smoothing) for sigmoid in sigmoids]
        metrics = [[ACCURACIES[sigmoid](name="accuracy")] for sigmoid in sigmoids]
        if len(sigmoids) == 1:  # Keras before 3.14 takes no nested metrics for a single output
            losses, metrics = losses[0], metrics[0]
        self.trainer.compile(
            self.adam,
            losses,
            metrics=metrics,
            steps_per_execution=self.config.steps_per_execution,
            jit_compile=uses_xla(),
        )
        self.trainer.optimizer.build(self.trainer.trainable_variables)
        self.variables = self.network_state + self.trainer.optimizer.variables

    def _run_epochs(self):
        self.batches.start_epoch(len(self.rows))
        callbacks = [self] + ([keras.callbacks.TensorBoard(self.folder / "logs")] if self.config.tensorboard else [])
        self.trainer.fit(
            self.batches, epochs=self.last, initial_epoch=len(self.rows), callbacks=callbacks, shuffle=False, verbose=0
        )

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of an epoch."""
        self.started = self.spoke = time.perf_counter()
        self.warm = None

    def on_train_batch_end(self, batch, logs=None):
        """Says how far a long epoch is, every half minute."""
        now = time.perf_counter()
        if self.warm is None:
            self.warm = now, batch  # the first step of a run compiles; it says nothing about the rate
        elif now - self.spoke > 30:
            self.spoke = now
            rate = (batch - self.warm[1]) * self.batches.batch_size / (now - self.warm[0])
            progress = f"  step {batch + 1}/{len(self.batches)}  loss {logs['loss']:.3f}  {rate:,.1f} patches/s"
            self.log(f"epoch {len(self.rows) + 1}/{self.config.epochs}{progress}")

    def on_epoch_end(self, epoch, logs=None):
        """Scores the averaged weights on val, keeps them when they are the best, then keeps the state."""
        if not np.isfinite(logs["loss"]):
            raise ValueError(f"The training of {self.folder.name} diverged (loss {logs['loss']}); lower --set learning_rate.")
        live = self.network.get_weights() if self.saved is self.network else None
        self._average()
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(np.mean([value for name, value in logs.items() if name.endswith("accuracy")])),
            **self._score_val(),
        }
        row["learning_rate"] = float(ops.convert_to_numpy(self.adam.learning_rate))
        best = max((past["val_auc"] for past in self.rows), default=-1.0)
        if row["val_auc"] > best:
            self._save_network()
        if live is not None:
            self.network.set_weights(live)
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        self.rows.append(row)
        self._save_state()
        self.log(_line(row, self.config.epochs, better=row["val_auc"] > best))
        self.trainer.stop_training = self._should_stop()

    def summary(self) -> dict:
        """Scores of the saved network on val, the thresholds and temperatures chosen there, and how the training went."""
        best = max(self.rows, key=lambda row: row["val_auc"])
        val, names = self.part["val"], self.patches.class_names
        self.saved.load_weights(self.folder / "model.keras")
        answers = predict_heads(self.saved, self.patches.images, val["row"], self.config.views, self.config.predict_batch)
        slides = known_slides(val)
        tasks = {}
        for task, p in zip(self.tasks, answers, strict=True):
            labels = task.answers(val["label"])
            threshold = best_threshold(labels, p) if p.ndim == 1 else None
            temperature = fit_temperature(labels, p)
            scores = evaluate_task(labels, p, task.class_names, threshold, temperature, slides)
            tasks[task.name] = {"class_names": list(task.class_names), "threshold": threshold, "temperature": temperature}
            tasks[task.name]["val"] = scores
        return {
            "best_epoch": best["epoch"],
            "epochs": len(self.rows),
            "seconds": round(sum(row["seconds"] for row in self.rows), 1),
            "grouping": describe_grouping(self.splits),
            "class_names": list(names),
            "tasks": tasks,
        }

    def _average(self):
        """Gives the network that is scored and saved the averaged weights, and batch statistics of their own."""
        averages = self.adam.averages()
        if self.saved is not self.network:
            self.saved.set_weights(self.network.get_weights())
        for variable, value in zip(self.saved.trainable_variables, averages, strict=True):
            variable.assign(value)
        rows = self.batches.rows
        size = min(self.config.predict_batch, self.config.norm_patches, len(rows))
        count = max(1, min(self.config.norm_patches, len(rows)) // size)
        chosen = np.random.default_rng(self.config.seed).permutation(rows)[: count * size]
        with on_one_device():
            reestimate_norm(self.saved, [self.patches.images[part] for part in np.split(chosen, count)])

    def _score_val(self) -> dict:
        """Loss (the sum over the outputs, as in training), accuracy and AUC (their means) of one view of val."""
        val = self.part["val"]
        with on_one_device():
            answers = predict_heads(self.saved, self.patches.images, val["row"], 1, self.config.predict_batch)
        scores = [_score(task.answers(val["label"]), p) for task, p in zip(self.tasks, answers, strict=True)]
        loss, accuracy, auc = np.array(scores).T
        row = {"val_loss": float(loss.sum()), "val_accuracy": float(accuracy.mean()), "val_auc": float(auc.mean())}
        if len(scores) > 1:
            row |= {f"val_auc_{task.name}": float(value) for task, value in zip(self.tasks, auc, strict=True)}
        return json.loads(from_first_process(json.dumps(row))[0])  # all processes stop at the same epoch

    def _should_stop(self) -> bool:
        scores = [row["val_auc"] for row in self.rows][self.first :]
        stale = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(self.rows) >= self.last or (self.patient and stale >= self.config.patience)

    def _save_network(self):
        with replacing(self.folder / "model.keras") as part:
            self.saved.save(part)

    def _save_state(self):
        values = [ops.convert_to_numpy(variable) for variable in self.variables]
        with replacing(self.state_file) as part:
            np.savez(part, rows=json.dumps(self.rows), **{f"v{i}": value for i, value in enumerate(values)})
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))

    def _count_finished(self) -> int:
        """Epochs that an interrupted training of these settings finished."""
        rows = "[]"
        if self.state_file.is_file():
            try:
                with np.load(self.state_file) as state:
                    rows = str(state["rows"])
            except DAMAGE as error:
                raise self._damaged(error) from None
        return len(json.loads(from_first_process(rows)[0]))

    def _damaged(self, error: Exception) -> ValueError:
        reason = " ".join(str(error).split())
        return ValueError(f"{self.state_file} is damaged ({reason}); delete it to train this run from the start.")

    def _restore(self):
        rows, values = "", [ops.convert_to_numpy(variable) for variable in self.variables]
        if not self.process:
            try:
                with np.load(self.state_file) as state:
                    rows, values = str(state["rows"]), [state[f"v{i}"] for i in range(len(self.variables))]
            except DAMAGE as error:
                raise self._damaged(error) from None
            if [value.shape for value in values] != [tuple(variable.shape) for variable in self.variables]:
                raise self._damaged(ValueError("of another network than this commit's"))
        rows, values = from_first_process(rows, values)
        self.rows = json.loads(rows)
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))
        self.log(f"resuming after epoch {len(self.rows)} of {self.config.epochs}")


def is_resident(feed: str, size: int, log: Callable[[str], None]) -> bool:
    """Whether training patches are kept on the device: as told, else on an accelerator of which they fill at most half.

    Args:
        feed: the setting of that name.
        size: bytes of the patches.
        log: takes one line where the patches would be resident but do not fit.
    """
    if feed != "auto" or not accelerators():
        return feed == "resident"
    room = device_memory()
    if room is not None and size <= room / 2:
        return True
    log(f"streaming the patches: {size / 1e9:.1f} GB do not fit into half of the device's {(room or 0) / 1e9:.1f} GB")
    return False


def choose_precision(name: str) -> str:
    """Returns the Keras dtype policy: on a GPU mixed bfloat16 where the hardware has it, else mixed float16; float32 on a CPU."""
    if name != "auto" or not accelerators():
        return "float32" if name == "auto" else name
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "mixed_bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "mixed_float16"
    return "mixed_bfloat16"


def _score(labels: np.ndarray, p: np.ndarray) -> tuple[float, float, float]:
    """Loss, accuracy and AUC (one class against the rest, mean over the classes that occur) of one output."""
    each = np.clip(both_classes(p).astype(float), 1e-7, 1 - 1e-7)
    loss = log_loss(labels, each / each.sum(axis=1, keepdims=True), labels=range(each.shape[1]))
    return loss, float(np.mean(each.argmax(axis=1) == labels)), mean_auc(labels, p)


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
