"""Fits a network to patches with Keras and writes a run folder; resumes an interrupted training."""

import dataclasses
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from histopath.config import Config
from histopath.data.patches import PatchSet
from histopath.data.splits import describe_grouping, known_slides, split_patches
from histopath.data.tasks import Task, read_tasks
from histopath.files import InputError, locked, say, write_table, write_text
from histopath.metrics.binary import best_threshold, fit_temperature
from histopath.metrics.multiclass import evaluate_task
from histopath.models import backend
from histopath.models.backend import from_first_process, join_processes, keras
from histopath.models.predict import check_size, predict_heads
from histopath.models.registry import REGISTRY, build_model, count_parameters, freeze_backbones
from histopath.models.runs import FILES, Run, open_run, read_identity
from histopath.training.augment import with_augmentation
from histopath.training.batches import Batches, ResidentPatches, draw_batches, is_resident
from histopath.training.callbacks import Backup, BestCheckpoint, EarlyStopping, LogLines, ValidateAverage, read_past
from histopath.training.optimizer import FlatAdam, kernel_channels, norm_layers

LOSSES = {True: keras.losses.BinaryCrossentropy, False: keras.losses.CategoricalCrossentropy}  # by whether it is a sigmoid
ACCURACIES = {True: keras.metrics.BinaryAccuracy, False: keras.metrics.CategoricalAccuracy}


class Setup(NamedTuple):
    """What is fitted, and to what."""

    network: keras.Model  # patches → probabilities
    model: keras.Model  # the network behind its augmentation: this one is fitted
    averaged: keras.Model  # a float32 copy of the network for the averaged weights: this one is validated and saved
    batches: Batches
    splits: pd.DataFrame
    tasks: tuple[Task, ...]  # one for each output

    def part(self, name: str) -> pd.DataFrame:
        """Returns the rows of `train`, `val` or `holdout`."""
        return self.splits[self.splits["split"] == name]


def train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None] = say) -> Run | None:
    """Trains a network, or resumes or opens the same training when the folder already holds it.

    A run of other settings or data in the folder is moved aside, never overwritten. Several processes
    (`backend.join_processes`) share every batch and do the rest alike; only process 0 writes to the folder.

    Args:
        patches: labeled patches.
        config: all settings.
        folder: the run folder to write.
        log: takes one line an epoch, and one every half minute within a long one.

    Returns:
        The finished run; None in a process other than 0.

    Raises:
        InputError: when the training diverges, or another process ended.
        ValueError: when the patches cannot be split or have the wrong size.
    """
    if join_processes()[0]:
        with tempfile.TemporaryDirectory(prefix="histopath-") as nowhere:
            _train(patches, config, Path(nowhere) / folder.name, log)
        return None
    with locked(folder, log):
        _train(patches, config, folder, log)
        return open_run(folder)


def _train(patches: PatchSet, config: Config, folder: Path, log: Callable[[str], None]) -> None:
    identity = {"data": patches.fingerprint, "patches": len(patches.table), **dataclasses.asdict(config)}
    process, processes = join_processes()
    if _is_finished(folder, identity):
        (folder / "state.npz").unlink(missing_ok=True)
        return None if process else log(f"{folder.name} is already trained with these settings on these patches")
    fractions, fold = (config.val_fraction, config.holdout_fraction), (config.fold, config.folds)
    splits = split_patches(patches.table, *fractions, config.seed, patches.class_names, fold)
    scope, devices = backend.several_devices(config.devices)
    with scope:
        setup = prepare(patches, splits, config, log, devices)
        _prepare_folder(folder, identity, config, splits, log)
        try:
            fit(setup, patches.images, config, folder, log)
        except (RuntimeError, ValueError) as error:
            if processes == 1 or not re.match("[A-Z_]+: ", str(error)):  # the code of an XLA status
                raise
            reason = f"The processes of this training lost each other (… {backend.first_line(error)[-120:]})"
            cure = "start all of them again, and the training goes on after its last finished epoch"
            raise InputError(f"{reason}; {cure}.") from None
    backend.leave_processes()
    if not process:
        metrics = summarize(setup, patches, config, folder)
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        (folder / "state.npz").unlink()


def prepare(patches: PatchSet, splits: pd.DataFrame, config: Config, log: Callable[[str], None] = say, devices: int = 1) -> Setup:
    """Builds the networks and draws the batches, each of which is shared by so many devices."""
    keras.utils.set_random_seed(config.seed)
    tasks = read_tasks(config.task, patches.layout, patches.class_names)
    heads = {task.name if len(tasks) > 1 else "probability": len(task.class_names) for task in tasks}
    whole = {"dropout": config.dropout, "size": patches.images.shape[1], "heads": heads}
    train_rows = splits[splits["split"] == "train"]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choose_precision(config.precision))
    try:
        network = build_model(config.model, config.weights, **whole)
        check_size(network, patches.images)
        learned = np.unique(train_rows["row"])
        resident = is_resident(config.feed, len(learned) * patches.images[0].nbytes, log)
        feed = ResidentPatches(patches.images[learned], name="patches") if resident else None
        model = with_augmentation(network, heads, config, feed)
    finally:
        keras.config.set_dtype_policy(policy)
    with backend.on_one_device():
        averaged = build_model(config.model, **whole)
    if devices > 1:
        _share_batches(network, config.batch_size, devices, log)
    widths = [output.shape[1] for output in network.outputs]
    batches = draw_batches(patches, config, train_rows, tasks, widths, resident)
    return Setup(network, model, averaged, batches, splits, tasks)


def fit(setup: Setup, images: np.ndarray, config: Config, folder: Path, log: Callable[[str], None]) -> None:
    """Runs the epochs that are still to be run; writes the best network and the history."""
    counts = ", ".join(f"{len(setup.part(name)):,} {name}" for name in ("train", "val", "holdout"))
    log(f"{setup.network.count_params():,} parameters; patches: {counts}; {describe_grouping(setup.splits)}")
    past = read_past(folder)
    if len(past):
        log(f"resuming after epoch {len(past)} of {config.epochs}")
    validate = ValidateAverage(setup, images, config)
    callbacks = [  # in this order: each sees what those before it did
        validate,
        BestCheckpoint(folder / "model.keras", setup.averaged, past),
        EarlyStopping(config.patience, phases(config)[-1][1] + 1, past),
        keras.callbacks.CSVLogger(folder / "history.csv", append=True),
        *([keras.callbacks.TensorBoard(folder / "logs")] if config.tensorboard else []),
        Backup(folder, restore=len(past) > 0),
        LogLines(log, config.epochs, setup.batches.batch_size, past),
    ]
    for frozen, start, end in phases(config):
        if len(past) > end:
            continue
        compile_model(setup, config, frozen, end - start, log)
        done = max(start, len(past))
        setup.batches.start_epoch(done)
        setup.model.fit(  # epochs are counted from 1, as in history.csv
            setup.batches, initial_epoch=done + 1, epochs=end + 1, callbacks=callbacks, shuffle=False, verbose=0
        )
        if end < config.epochs:  # the next phase starts from the weights that were validated
            validate.average()
            setup.network.set_weights(setup.averaged.get_weights())


def phases(config: Config) -> list[tuple[bool | None, int, int]]:
    """Phases of the training: whether the backbones are frozen (None: as published), epochs before it, its last epoch."""
    start, epochs = config.unfreeze_epoch, config.epochs
    if not start or not REGISTRY[config.model].backbones:
        return [(None, 0, epochs)]
    head = min(start - 1, epochs)
    return [phase for phase in ((True, 0, head), (False, head, epochs)) if phase[1] < phase[2]]


def compile_model(setup: Setup, config: Config, frozen: bool | None, epochs: int, log: Callable[[str], None] = say) -> None:
    """Compiles the model for a phase of so many epochs: what is frozen, a new optimizer, its learning-rate schedule."""
    network, steps = setup.network, epochs * len(setup.batches)
    if frozen is not None:
        freeze_backbones(network, frozen)
        freeze_backbones(setup.averaged, frozen)
    if frozen or (frozen is None and REGISTRY[config.model].frozen):
        log(f"the backbones are frozen: {count_parameters(network)['trainable']:,} parameters are trained")
    warm = max(1, round(config.warmup * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=config.learning_rate, warmup_steps=warm
    )
    channels = kernel_channels(network) if config.optimizer == "muon" else None
    sigmoids = [output.shape[1] == 1 for output in network.outputs]
    losses = [LOSSES[sigmoid](label_smoothing=config.label_smoothing) for sigmoid in sigmoids]
    metrics = [[ACCURACIES[sigmoid](name="accuracy")] for sigmoid in sigmoids]  # given by name, the step is traced twice
    single = len(sigmoids) == 1  # Keras before 3.14 takes no nested metrics for a single output
    setup.model.compile(
        optimizer=FlatAdam(rate, clip_norm=config.clip_norm, ema_momentum=config.ema_momentum, channels=channels),
        loss=losses[0] if single else losses,
        metrics=metrics[0] if single else metrics,
        steps_per_execution=config.steps_per_execution,
        jit_compile=backend.uses_xla(),
    )
    setup.model.optimizer.build(setup.model.trainable_variables)


def summarize(setup: Setup, patches: PatchSet, config: Config, folder: Path) -> dict:
    """Scores the saved network on val, chooses thresholds and temperatures there, and says how the training went."""
    history, val, tasks = pd.read_csv(folder / "history.csv"), setup.part("val"), {}
    setup.averaged.load_weights(folder / "model.keras")
    answers = predict_heads(setup.averaged, patches.images, val["row"], config.views, config.predict_batch)
    for task, p in zip(setup.tasks, answers, strict=True):
        labels = task.answers(val["label"])
        threshold = best_threshold(labels, p) if p.ndim == 1 else None
        temperature = fit_temperature(labels, p)
        tasks[task.name] = {
            "class_names": list(task.class_names),
            "threshold": threshold,
            "temperature": temperature,
            "val": evaluate_task(labels, p, task.class_names, threshold, temperature, known_slides(val)),
        }
    return {
        "best_epoch": int(history.loc[history["val_auc"].idxmax(), "epoch"]),
        "epochs": len(history),
        "seconds": round(history["seconds"].sum(), 1),
        "grouping": describe_grouping(setup.splits),
        "class_names": list(patches.class_names),
        "tasks": tasks,
    }


def choose_precision(name: str) -> str:
    """Returns the Keras dtype policy: on a GPU mixed bfloat16 where the hardware has it, else mixed float16; float32 on a CPU."""
    if name != "auto" or not backend.accelerators():
        return "float32" if name == "auto" else name
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "mixed_bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "mixed_float16"
    return "mixed_bfloat16"


def _share_batches(network: keras.Model, batch_size: int, devices: int, log: Callable[[str], None]) -> None:
    """Every device takes a part of each batch; batch normalization sees the whole, as on one device."""
    if devices % join_processes()[1] or batch_size % devices:
        raise InputError(
            f"The setting batch_size must be a multiple of the {devices} devices, and these of the processes; it is {batch_size}."
        )
    if keras.backend.backend() == "tensorflow":  # on JAX a batch is one array, wherever its parts lie
        for layer in norm_layers(network):
            layer.synchronized = True
    log(f"{devices} devices, each with {batch_size // devices} patches of a batch")


def _is_finished(folder: Path, identity: dict) -> bool:
    """Whether process 0 finds this training finished; all processes must ask for the same one."""
    finished = all((folder / name).is_file() for name in FILES) and read_identity(folder) == identity
    asked, finished = json.loads(from_first_process(json.dumps([identity, finished]))[0])
    if asked != json.loads(json.dumps(identity)):
        raise InputError("Process 0 trains with other settings or other patches; give every process the same ones.")
    return finished


def _prepare_folder(folder: Path, identity: dict, config: Config, splits: pd.DataFrame, log: Callable) -> None:
    """Makes the folder ready; a training of something else that stands there, finished or not, is moved aside."""
    if any((folder / name).is_file() for name in ("metrics.json", "state.npz")) and read_identity(folder) != identity:
        aside = folder.with_name(f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        log(f"kept the earlier run as {aside.name}")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "splits.csv", splits)
    write_text(folder / "config.json", config.to_json())
    write_text(folder / "identity.json", json.dumps(identity, indent=2) + "\n")
