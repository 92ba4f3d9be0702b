"""One stage of the main job, done one way, timed in a process of its own; prints a line of JSON.

    python benchmarks/stages.py STAGE WAY --folder DIR --patches N [--batch N] [--precision POLICY] [--profile DIR]

WAY is `classic` (as the classic Kaggle notebook does it: files opened one at a time, `ImageDataGenerator` with system 1's
augmentation, one `predict` call an image), `careful` (as a careful user does it today: `tf.data` with parallel decoding,
Keras augmentation layers, Keras's Adam, batched `predict`) or `ours`. DIR holds the patches that `bench` writes.
Files are warm: they are read once before the clock starts. `python -m histopath bench` runs the stages and prints a table.
`--profile` writes a trace of our training, for TensorBoard or Perfetto.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from pack import write_patches

PREDICTED = 64


@dataclass(frozen=True)
class Job:
    """How much is to be done: where the patches lie, how many, training steps, batch, precision, where a trace goes."""

    folder: Path
    patches: int
    steps: int
    batch: int
    precision: str
    profile: Path | None


def list_files(job: Job) -> tuple[list[str], np.ndarray]:
    """Paths and labels of the patches."""
    labels = pd.read_csv(job.folder / "data" / "train_labels.csv").head(job.patches)
    return [str(job.folder / "data" / "train" / f"{name}.tif") for name in labels["id"]], labels["label"].to_numpy()


def read_image(path: str) -> np.ndarray:
    """One patch, RGB uint8."""
    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def rate(items: Iterable[int], seconds: float) -> float:
    """Patches a second of an endless iterator of batch sizes, after its first."""
    items = iter(items)
    next(items)
    started, patches = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        patches += next(items)
    return patches / (time.perf_counter() - started)


# Reading


def read_classic(job: Job) -> float:
    """Opens the files one after the other."""
    files, _ = list_files(job)
    started = time.perf_counter()
    for path in files:
        read_image(path)
    return job.patches / (time.perf_counter() - started)


def read_careful(job: Job) -> float:
    """Opens the files in parallel by tf.data."""
    files = list_files(job)[0]
    for _ in decoded(files[:256]).batch(256):  # TensorFlow sets itself up
        pass
    started = time.perf_counter()
    for _ in decoded(files).batch(256):
        pass
    return job.patches / (time.perf_counter() - started)


def read_ours(job: Job) -> float:
    """Gathers shuffled batches from the packed array, which was packed before: this is every pass over the data but the first."""
    images = packed(job).images
    order = np.random.default_rng(0).permutation(len(images))[: job.patches]
    started = time.perf_counter()
    for start in range(0, job.patches, 256):
        images[order[start : start + 256]]
    return job.patches / (time.perf_counter() - started)


# Feeding: what a step is given, read, shuffled, augmented and scaled


def classic_augmentation():
    """System 1's ImageDataGenerator."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # that of `tf.keras`, without TensorFlow

    augmentation = {"rotation_range": 180, "zoom_range": 0.4, "width_shift_range": 0.3, "height_shift_range": 0.3}
    augmentation |= {"shear_range": 0.3, "channel_shift_range": 0.3, "horizontal_flip": True, "vertical_flip": True}
    return ImageDataGenerator(rescale=1 / 255, **augmentation)


def generator(job: Job):
    """It, on Kaggle's table of files."""
    files, labels = list_files(job)
    table = pd.DataFrame({"path": files, "label": labels.astype(str)})
    return classic_augmentation().flow_from_dataframe(
        table, x_col="path", y_col="label", target_size=(96, 96), class_mode="binary", batch_size=job.batch, seed=0
    )


def decoded(files: list[str]):
    """A tf.data set of decoded patches, in parallel."""
    import tensorflow as tf

    def decode(path):
        image = tf.numpy_function(lambda name: read_image(name.decode()), [path], tf.uint8)
        return tf.ensure_shape(image, (96, 96, 3))

    return tf.data.Dataset.from_tensor_slices(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def careful_batches(job: Job):
    """Shuffled batches of tf.data, augmented by Keras layers like system 1's, in the range of Xception."""
    import keras
    import tensorflow as tf

    files, labels = list_files(job)
    layers = keras.Sequential(
        [
            keras.layers.RandomFlip(),
            keras.layers.RandomRotation(0.5, fill_mode="nearest"),
            keras.layers.RandomZoom(0.4, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.3, 0.3, fill_mode="nearest"),
            keras.layers.Rescaling(1 / 127.5, -1),
        ]
    )
    pairs = tf.data.Dataset.zip((decoded(files), tf.data.Dataset.from_tensor_slices(labels.astype("float32")[:, None])))
    batches = pairs.shuffle(1024, seed=0).repeat().batch(job.batch)
    varied = batches.map(lambda x, y: (layers(tf.cast(x, "float32"), training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return varied.prefetch(tf.data.AUTOTUNE)


def packed(job: Job):
    """The patches, packed at the first call."""
    from histopath.data.patches import open_patches

    return open_patches(job.folder / "data", cache=job.folder / "cache", progress=False)


def our_batches(job: Job):
    """Shuffled batches of raw patches, as `training` draws them."""
    from histopath.training.batches import Batches

    patches = packed(job)
    rows = np.arange(min(job.patches, len(patches)))
    targets = [patches.table["label"].to_numpy("float32")[rows, None]]
    return Batches(patches.images, rows, targets, job.batch, seed=0)


def feed_classic(job: Job) -> float:
    """Batches of ImageDataGenerator."""
    return rate((len(x) for x, _ in generator(job)), 10)


def feed_careful(job: Job) -> float:
    """Batches of tf.data and Keras layers."""
    return rate((x.shape[0] for x, _ in careful_batches(job)), 10)


def feed_ours(job: Job) -> float:
    """Our batches through our layers, compiled as in the step."""
    import keras

    from histopath.training.augment import augmentation_layers

    inputs = x = keras.Input((96, 96, 3), dtype="uint8")
    for layer in augmentation_layers("dihedral", 0):
        x = layer(x, training=True)
    step = keras.Model(inputs, x)
    step.jit_compile = False
    batches = our_batches(job)

    def sizes() -> Iterator[int]:
        for number in itertools.count():
            yield len(step.predict_on_batch(batches[number % len(batches)][0]))

    return rate(sizes(), 10)


# Training: system 1's network; seconds to the first step, and the rate after it


class Clock:
    """Measures a training in batches: a callback's work, whoever fits."""

    def __init__(self):
        import keras

        self.times, clock = [], self

        class Callback(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                clock.times.append(time.perf_counter())

            def on_train_batch_end(self, batch, logs=None):
                clock.times.append(time.perf_counter())

        self.callback = Callback()

    def figures(self, started: float, batch: int) -> dict[str, float]:
        """Seconds from building the network to the end of the first step, and patches a second after the second."""
        steps = len(self.times) - 3
        return {
            "first_step_seconds": self.times[1] - started,
            "patches_per_second": steps * batch / (self.times[-1] - self.times[2]),
        }


def plain_network():
    """System 1's graph on scaled inputs, as the classic notebook builds it."""
    import keras

    inputs = keras.Input((96, 96, 3))
    parts = [
        keras.applications.Xception(include_top=False, weights=None, input_shape=(96, 96, 3))(inputs),
        keras.applications.NASNetMobile(include_top=False, weights=None, input_shape=(96, 96, 3))(inputs),
    ]
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(part) for part in parts])
    network = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.5)(x)))
    network.compile(
        keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"], jit_compile=keras.backend.backend() == "jax"
    )
    return network


def train_plainly(batches, job: Job) -> dict[str, float]:
    """Keras's Adam and `fit` on the given batches."""
    clock, started = Clock(), time.perf_counter()
    plain_network().fit(batches, steps_per_epoch=job.steps, epochs=1, verbose=0, callbacks=[clock.callback])
    return clock.figures(started, job.batch)


def train_classic(job: Job) -> dict[str, float]:
    """Fed by ImageDataGenerator."""
    return train_plainly(generator(job), job)


def train_careful(job: Job) -> dict[str, float]:
    """Fed by tf.data."""
    return train_plainly(careful_batches(job), job)


def train_ours(job: Job, constant: bool = False) -> dict[str, float]:
    """Our step: raw patches in, augmentation inside, FlatAdam; `constant` repeats one batch that is already in memory."""
    from histopath.config import get_config
    from histopath.data.splits import split_patches
    from histopath.training import fit

    clock, started = Clock(), time.perf_counter()
    patches = packed(job)
    settings = {"epochs": 1, "epoch_steps": job.steps, "batch_size": job.batch, "precision": job.precision}
    settings |= {"augmentation": "none" if constant else "dihedral"}
    config = get_config("sample", "xception_nasnet", settings)
    splits = split_patches(patches.table, config.val_fraction, config.holdout_fraction, config.seed, patches.class_names)
    setup = fit.prepare(patches, splits, config, lambda line: None)
    fit.compile_model(setup, config, None, 1)
    batches = constant_batches(setup.batches) if constant else setup.batches
    with traced(job.profile):
        setup.model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[clock.callback])
    return clock.figures(started, job.batch)


def traced(folder: Path | None):
    """Writes a trace of what is done in a block, by the profiler of the backend."""
    from histopath.models.backend import keras

    if folder is None:
        return contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        return jax.profiler.trace(folder)
    import tensorflow as tf

    return tf.profiler.experimental.Profile(str(folder))


def constant_batches(batches):
    """As many batches, each of them the first."""
    import keras

    first = batches[0]

    class Constant(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return first

    return Constant()


def train_constant(job: Job) -> dict[str, float]:
    """Our step on one batch, without reading, shuffling or augmenting: what the network alone costs."""
    return train_ours(job, constant=True)


# Predicting


def predict_classic(job: Job) -> float:
    """One `predict` call an image; at most 100 of them."""
    network, files = plain_network(), list_files(job)[0][:100]
    network.predict(read_image(files[0])[None] / 255.0, verbose=0)
    started = time.perf_counter()
    for path in files:
        network.predict(read_image(path)[None] / 255.0, verbose=0)
    return len(files) / (time.perf_counter() - started)


def predict_careful(job: Job) -> float:
    """`predict` on batches of tf.data."""
    import tensorflow as tf

    network = plain_network()
    network.predict(np.zeros((PREDICTED, 96, 96, 3), "float32"), verbose=0)
    scaled = decoded(list_files(job)[0]).map(lambda x: tf.cast(x, "float32") / 127.5 - 1)
    started = time.perf_counter()
    network.predict(scaled.batch(PREDICTED, drop_remainder=True).prefetch(2), verbose=0)
    return job.patches // PREDICTED * PREDICTED / (time.perf_counter() - started)


def predict_ours(job: Job, views: int = 1) -> float:
    """Our batches of the packed array."""
    from histopath.models.predict import predict
    from histopath.models.registry import build_model

    network, images = build_model("xception_nasnet"), packed(job).images
    predict(network, images, np.arange(PREDICTED), 1, PREDICTED)
    rows = np.arange(job.patches // views // PREDICTED * PREDICTED or PREDICTED)
    started = time.perf_counter()
    predict(network, images, rows, views, PREDICTED)
    return len(rows) / (time.perf_counter() - started)


def predict_eight(job: Job) -> float:
    """Eight views a patch; patches a second, so an eighth of the forward passes."""
    return predict_ours(job, 8)


def prepare(job: Job) -> float:
    """Writes the patches and packs them."""
    write_patches(job.folder / "data", job.patches)
    started = time.perf_counter()
    packed(job)
    return job.patches / (time.perf_counter() - started)


STAGES: dict[str, dict[str, Callable]] = {
    "prepare": {"ours": prepare},
    "read": {"classic": read_classic, "careful": read_careful, "ours": read_ours},
    "feed": {"classic": feed_classic, "careful": feed_careful, "ours": feed_ours},
    "train": {"classic": train_classic, "careful": train_careful, "ours": train_ours, "constant": train_constant},
    "predict": {"classic": predict_classic, "careful": predict_careful, "ours": predict_ours, "eight": predict_eight},
}


def main() -> None:
    """Runs one stage one way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("way")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.way in ("ours", "constant", "eight"):
        importlib.import_module("histopath.models.backend")  # before anything else: it sets the allocator
    told = vars(arguments)
    stage = STAGES[told.pop("stage")][told.pop("way")]
    job = Job(**told)
    if stage is not prepare:
        for path in list_files(job)[0]:
            Path(path).read_bytes()
    measured = stage(job)
    figures = measured if isinstance(measured, dict) else {"patches_per_second": measured}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({key: round(value, 2) for key, value in figures.items()} | {"resident_mb": round(peak)}))


if __name__ == "__main__":
    main()
