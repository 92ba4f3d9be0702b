"""What each ingredient of `compact` is worth: fewer patches, the whole schedule, several seeds, patches of other stains.

    python benchmarks/ablation.py FIT SHIFTED [--patches N] [--epochs N] [--seeds 0,1] [--only "NAME;NAME"] [--out FOLDER]
    python benchmarks/ablation.py FIT SHIFTED --table [--out FOLDER]

FIT and SHIFTED are what `shifted.py` made of PCam's training patches. Every seed draws its own patches of FIT, and all variants
of a seed see the same ones. What is finished is kept, so that several processes, each with its own seeds, fill one table.
"""

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from classic import draw
from sklearn.metrics import roc_auc_score

from histopath.config import get_config
from histopath.data.patches import PatchSet, open_patches
from histopath.metrics.intervals import delong_difference
from histopath.models import registry
from histopath.models.backend import keras, ops
from histopath.models.equivariant import ORIENTATIONS
from histopath.models.predict import predict
from histopath.training import batches
from histopath.training import fit as training
from histopath.training.batches import Batches
from histopath.training.optimizer import FlatAdam

FIRST = "compact"
VARIANTS = {  # name → settings that differ from the recipe
    FIRST: {},
    "Adam": {"optimizer": "adam"},
    "ordinary convolutions": {"model": "plain"},
    "a residual pair in the first stage too": {"model": "paired"},
    "mean and maximum over places": {"model": "peak"},
    "squeeze-and-excitation": {"model": "squeeze"},
    "stain jitter": {"stain": 0.2},
    "twice the stain jitter": {"stain": 0.4},
    "light and focus": {"light": 0.2, "focus": 1.0},
    "light, focus, twice the stain jitter": {"light": 0.2, "focus": 1.0, "stain": 0.4},
    "weight average": {"ema_momentum": 0.995},
    "mixing of patches": {"mixing": 0.2},
    "label smoothing": {"label_smoothing": 0.02},
    "no shift": {"shift": 0},
    "twice the shift": {"shift": 8},
    "a third of the rate": {"learning_rate": 1e-3},
    "three times the rate": {"learning_rate": 1e-2},
    "dropout": {"dropout": 0.3},
    "weight decay": {"decay": 0.3},
    "optical density in place of brightness": {"model": "density"},
    "optical density, standardized in each patch": {"model": "standard"},
}


def build(
    size, heads, dropout, frozen, pairs=(0, 1, 1, 1), plain=False, squeeze=False, peak=False, density=False, standard=False
):
    """`registry.compact` with parts of it changed."""
    inputs = keras.Input((size, size, 3), dtype="uint8", name="patch")
    x = registry.scaled(inputs, "[-1, 1]")
    if density or standard:  # of what is stained, on the scale of the brightness: white is -1
        x = -2 * ops.log((ops.cast(inputs, "float32") + 1) / 256) - 1
    if standard:
        x = keras.layers.GroupNormalization(3, epsilon=0.02, center=False, scale=False)(x)
    block = _ordinary if plain else registry._oriented
    for number, (width, pair) in enumerate(zip((4, 8, 16, 32), pairs, strict=True)):
        x = block(x, width, side=4, strides=2, lifting=number == 0)
        if pair:
            y = block(block(x, width), width)
            x = keras.layers.Add()([x, _squeezed(y) if squeeze else y])
    features = _pooled(keras.layers.GlobalAveragePooling2D()(x), plain)
    if peak:
        features = keras.layers.Concatenate()([features, _pooled(keras.layers.GlobalMaxPooling2D()(x), plain)])
    return keras.Model(inputs, registry._outputs(keras.layers.Dropout(dropout)(features), heads), name="compact")


def _ordinary(x, width: int, side: int = 3, strides: int = 1, lifting: bool = False):
    """As many maps, each with a kernel of its own, by He's initialization."""
    x = keras.layers.Conv2D(8 * width, side, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return keras.layers.Activation("gelu")(keras.layers.BatchNormalization(momentum=0.9)(x))


def _pooled(x, plain: bool):
    return x if plain else keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((ORIENTATIONS, -1))(x))


def _squeezed(x):
    """A gate a channel, from the mean over places and orientations (Hu et al. 2018, arXiv:1709.01507); all views stay alike."""
    width = x.shape[-1] // ORIENTATIONS
    gate = _pooled(keras.layers.GlobalAveragePooling2D()(x), plain=False)
    gate = keras.layers.Dense(max(4, width // 4), activation="gelu")(gate)
    gate = keras.layers.Dense(width, activation="sigmoid")(gate)
    return keras.layers.Multiply()([x, keras.layers.Concatenate()([gate] * ORIENTATIONS)[:, None, None]])


class MixedBatches(Batches):
    """Each patch mixed with another of its batch, and their answers (Zhang et al. 2018, arXiv:1710.09412)."""

    def __getitem__(self, index):
        patches, targets = super().__getitem__(index)
        random = np.random.default_rng((self.seed, self.epoch, index))
        share = random.beta(self.strength, self.strength, len(patches)).astype("float32")
        other, of_pixels = random.permutation(len(patches)), share[:, None, None, None]
        mixed = of_pixels * patches + (1 - of_pixels) * patches[other]
        return np.round(mixed).astype("uint8"), share[:, None] * targets + (1 - share[:, None]) * targets[other]


class DecayingAdam(FlatAdam):
    """With decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), of all weights."""

    def _update(self, variables, gradient, rate, *others):
        for weight in variables[3:]:
            weight.assign(weight * (1 - self.decay * rate))
        super()._update(variables, gradient, rate, *others)


NETWORKS = {"paired": {"pairs": (1, 1, 1, 1)}} | {key: {key: True} for key in ("plain", "peak", "squeeze", "density", "standard")}


def folder_name(name: str, seed: int) -> str:
    """Where a variant of a seed is kept."""
    return f"{name.replace(',', '').replace(' ', '-')}-{seed}"


def measure(name: str, seed: int, fit: PatchSet, shifted: PatchSet, count: int, epochs: int, folder: Path) -> None:
    """Trains one variant from one seed and keeps its probabilities of SHIFTED."""
    settings = dict(VARIANTS[name])
    MixedBatches.strength = settings.pop("mixing", 0.0)
    batches.Batches = MixedBatches if MixedBatches.strength else Batches
    DecayingAdam.decay = settings.pop("decay", 0.0)
    training.FlatAdam = DecayingAdam if DecayingAdam.decay else FlatAdam
    settings = {
        "epochs": epochs,
        "val_fraction": 0.1,
        "holdout_fraction": 0.02,
        "norm_patches": 512,
        "patience": 99,
        "seed": seed,
    } | settings
    run = training.train(draw(fit, count, seed), get_config("full", "compact", settings), folder)
    p = predict(run.network, shifted.images, views=8, batch_size=64)
    np.savez(folder / "shifted.npz", p=p, val=run.metrics["tasks"]["label"]["val"]["auc"])


def table(shifted: PatchSet, out: Path) -> str:
    """The AUC of every variant on SHIFTED, and what it gives against the first on the same patches and seeds."""
    labels, rows = shifted.table["label"].to_numpy(), []
    for name in VARIANTS:
        files = sorted(out.glob(folder_name(name, "*") + "/shifted.npz"))
        runs = [np.load(file) for file in files]
        first = [np.load(out / folder_name(FIRST, file.parent.name.rsplit("-")[-1]) / file.name) for file in files]
        pairs = [delong_difference(labels, run["p"], one["p"]) for run, one in zip(runs, first, strict=True)]
        if not runs:
            continue
        mean = np.mean([pair[0] for pair in pairs])
        half = np.mean([(pair[2] - pair[1]) / 2 for pair in pairs])  # the same patches in each seed
        aucs = [
            ", ".join(f"{value:.3f}" for value in of)
            for of in ([run["val"] for run in runs], [roc_auc_score(labels, run["p"]) for run in runs])
        ]
        against = "" if name == FIRST else f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"
        rows.append((name, *aucs, against))
    header = ("variant", "AUC on val, a seed each", "AUC on other stains, a seed each", "more than the first (DeLong)")
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))


def main() -> None:
    """Trains what is missing, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path)
    parser.add_argument("shifted", type=Path)
    parser.add_argument("--patches", type=int, default=2300)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--only", help="variants, separated by semicolons; all without it")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/ablation"))
    arguments = parser.parse_args()
    fit, shifted = open_patches(arguments.fit), open_patches(arguments.shifted)
    for model, parts in NETWORKS.items():
        registry.REGISTRY[model] = registry.Entry(partial(build, **parts), "ours", dropout=0.0)
    names = VARIANTS if not arguments.only else arguments.only.split(";")
    for name, seed in product(names, map(int, arguments.seeds.split(","))):
        if not arguments.table and not (arguments.out / folder_name(name, seed) / "shifted.npz").is_file():
            print(f"{name}, seed {seed}", flush=True)
            folder = arguments.out / folder_name(name, seed)
            measure(name, seed, fit, shifted, arguments.patches, arguments.epochs, folder)
    print(table(shifted, arguments.out))


if __name__ == "__main__":
    main()
