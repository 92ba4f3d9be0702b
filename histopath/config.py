"""Every number of a run in one frozen dataclass: presets say how much, recipes how. In: names, `key=value`. Out: Config."""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from histopath.files import InputError

PROJECT = Path(__file__).resolve().parents[1]  # the checkout; where the package is installed by pip, site-packages
MICRONS_PER_PIXEL = 0.972  # of PCam's patches: level 2 of CAMELYON16's slides, four times 0.243


@dataclass(frozen=True)
class Config:
    """All settings of one run. Fractions are of the labeled patches, rates per optimizer step, lengths in pixels."""

    # How much work: `sample` (minutes on two cores) or `full` (the competition on a GPU)
    preset: str = "sample"
    recipe: str = "xception_nasnet"  # Which published or own way of training, a key of `RECIPES`
    model: str = "xception_nasnet"  # A name of the registry in `models/registry.py`
    # `none`, `imagenet`, or the path of a local weight file or folder of weight files
    weights: str = "none"
    # Side to which images are resized when they are packed, in pixels; 0 for patches as they are
    size: int = 0
    # What is told apart in the Multi Cancer set: `organ`, `malignancy`, `organ+malignancy` (two
    # heads) or `subclass`; other data has its own labels and takes no notice
    task: str = "organ"
    # Seeds the splits, the initial weights, the order of the batches and the augmentation
    seed: int = 0
    val_fraction: float = 0.15  # Share that chooses the checkpoint and the threshold
    holdout_fraction: float = 0.2  # Share that is scored once and chooses nothing
    # Parts into which all labeled patches are divided; each is the holdout of one training. 0 for
    # one training
    folds: int = 0
    fold: int = 0  # Which of them is the holdout of this training, from 1 on
    batch_size: int = 32  # Patches in one optimizer step
    epochs: int = 10  # Passes over the training patches at most
    epoch_steps: int = 0  # Steps after which an epoch ends early; 0 for whole passes
    # How often an image of each class is seen in one epoch, each time augmented anew: one number
    # for all, or one a class in their order, such as `20,6`
    copies: str = "1"
    # The epoch from which on the backbones are trained too; 0 as published: frozen ones for ever,
    # others from the start
    unfreeze_epoch: int = 0
    # `adam`, or `muon`, which moves the kernels of convolutions by orthogonal matrices and the rest
    # as Adam
    optimizer: str = "adam"
    learning_rate: float = 1e-3  # Peak of the warm-up and cosine schedule
    warmup: float = 0.1  # Share of all steps in which the rate climbs from zero to its peak
    clip_norm: float = 1.0  # Largest global gradient norm
    ema_momentum: float = 0.999  # Momentum of the weight average that is validated and saved
    label_smoothing: float = 0.0  # How far targets move from 0 and 1 towards one half
    dropout: float = 0.5  # Share of the features dropped before the last layer
    patience: int = 5  # Epochs without a better val AUC before training stops
    # `dihedral` (eight views, then the four below), `classic` (system 1), `rotation` (system 2) or
    # `none`
    augmentation: str = "dihedral"
    shift: int = 4  # Largest shift of a patch, in pixels; 4 keeps the labeled center in the center
    stain: float = 0.2  # Relative spread of the hematoxylin, eosin and residual strengths
    light: float = 0.0  # Relative spread of the brightness of a patch
    # Largest share with which a patch is mixed with itself out of focus, for half of the patches
    focus: float = 0.0
    precision: str = "auto"  # `auto` (mixed on a GPU, float32 elsewhere) or a Keras dtype policy
    # `stream` (patches from the memory-mapped array), `resident` (patches on the device, row
    # numbers from the host) or `auto` (resident on an accelerator where they fit). The batches are
    # the same
    feed: str = "auto"
    # Devices that share each batch; 0 for all accelerators, or the processor where there is none
    devices: int = 0
    # Optimizer steps that the host starts at once; of use on a GPU, where a step is shorter than
    # that
    steps_per_execution: int = 1
    views: int = 8  # Views averaged at prediction, 8 or 1
    predict_batch: int = 64  # Patches in one prediction step
    # Training patches from which batch normalization is re-estimated after each epoch
    norm_patches: int = 4096
    tensorboard: bool = False  # Also write TensorBoard event files into the run folder

    def to_json(self) -> str:
        """Returns the settings as indented JSON, the content of a run's `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


PRESETS = {  # how much work, where a recipe does not say otherwise
    "sample": {"batch_size": 16, "epochs": 4, "ema_momentum": 0.9, "norm_patches": 64},
    "full": {},
}
RECIPES = {
    # System 1: Adam, dropout 0.5 and batch 192 as published; its 1e-4 is kept for fine-tuning. Eight views, small shifts
    # and stain jitter replace its ±30 % shifts, which move the labeled center out of the middle (systems 1, faults).
    "xception_nasnet": {
        "model": "xception_nasnet",
        "sample": {"learning_rate": 1e-3},
        "full": {"batch_size": 192, "epochs": 10, "learning_rate": 1e-4, "weights": "imagenet", "predict_batch": 256},
    },
    # System 2, first network. Published: 224 px, dropout 0.4, batch 64, rotation by any angle and flips, 560 + 140 slices made
    # 3,361 + 2,800 (6 and 20 copies; class 0 is non_cancer). Changed: cross-entropy that fits the one sigmoid, split first.
    "simple_cnn": {
        "model": "simple_cnn",
        "size": 224,
        "dropout": 0.4,
        "augmentation": "rotation",
        "copies": "20,6",
        "learning_rate": 1e-3,
        "sample": {"dropout": 0.1},
        "full": {"batch_size": 64, "epochs": 50, "patience": 3},
    },
    # System 2, second network. Published: 512 px, frozen, dropout 0.2, Adam, batch 64, up to 50 epochs, patience 3. The sample
    # has no ImageNet weights, and random ones are worth nothing frozen: there everything is trained, at 128 px.
    "resnet50v2": {
        "model": "resnet50v2",
        "size": 512,
        "dropout": 0.2,
        "augmentation": "rotation",
        "copies": "20,6",
        "learning_rate": 1e-3,
        "sample": {"size": 128, "copies": "8,2", "epochs": 3, "unfreeze_epoch": 1},
        "full": {"batch_size": 64, "epochs": 50, "patience": 3, "weights": "imagenet", "predict_batch": 32, "norm_patches": 512},
    },
    # System 3. Published: 256 px, frozen, dense 256, dropout 0.2, Adam 1e-4, batch 16, 10 epochs of 600 steps, 80/15/5, no
    # augmentation named; the eight views are added. The sample: as for resnet50v2, everything is trained, at 96 px.
    "inceptionv3": {
        "model": "inceptionv3",
        "size": 256,
        "dropout": 0.2,
        "val_fraction": 0.15,
        "stain": 0.0,
        "sample": {"size": 96, "epochs": 2, "unfreeze_epoch": 1, "learning_rate": 1e-3},
        "full": {
            "holdout_fraction": 0.05,
            "batch_size": 16,
            "epochs": 10,
            "epoch_steps": 600,
            "learning_rate": 1e-4,
            "weights": "imagenet",
        },
    },
    # System 4. Published: dropout 0.5, Adam, 10 epochs; rate, batch and freezing are not said and are system 1's.
    "xception_mobilenetv2": {
        "model": "xception_mobilenetv2",
        "sample": {"learning_rate": 1e-3},
        "full": {"batch_size": 192, "epochs": 10, "learning_rate": 1e-4, "weights": "imagenet", "predict_batch": 256},
    },
    # System 5. Published: softmax of two, categorical cross-entropy, Adam, best after 6 epochs; rate and batch are system 1's.
    "densenet121": {
        "model": "densenet121",
        "dropout": 0.0,
        "sample": {"learning_rate": 1e-3},
        "full": {"batch_size": 192, "epochs": 6, "learning_rate": 1e-4, "weights": "imagenet", "predict_batch": 256},
    },
    # Ours: transfer that two cores can afford. Head first, then everything from the second epoch on. Eight epochs and patches
    # enlarged to 128 pixels gave most, a lower rate, more stain jitter, light and focus nothing: benchmarks/quality.md.
    "mobilenet": {
        "model": "mobilenet",
        "dropout": 0.2,
        "learning_rate": 1e-3,
        "sample": {},
        "full": {
            "val_fraction": 0.06,
            "holdout_fraction": 0.02,
            "batch_size": 64,
            "epochs": 8,
            "unfreeze_epoch": 2,
            "ema_momentum": 0.99,
            "weights": "imagenet",
            "norm_patches": 2048,
        },
    },
    # A small residual network from scratch, for machines without a GPU: one-cycle rate to 3e-3, and shifts by 4 pixels, without
    # which it learns its patches by heart (flips and turns it answers alike; 8 pixels give no more). Muon makes a step worth
    # more: what Adam reaches on val in twelve epochs it reaches in six. Stain jitter, label smoothing, a weight average,
    # squeeze-and-excitation and three times the rate gave nothing, mixing, light, focus and twice the jitter cost much, so none
    # of them is in it. Darker patches it bears less well than it did with the first three. 20,000 patches are few, so little is
    # kept from training; eleven epochs of them take two cores 48 minutes. See benchmarks/quality.md.
    "compact": {
        "model": "compact",
        "optimizer": "muon",
        "dropout": 0.0,
        "learning_rate": 3e-3,
        "stain": 0.0,
        "sample": {"epochs": 8, "ema_momentum": 0.0, "norm_patches": 128},
        "full": {
            "val_fraction": 0.06,
            "holdout_fraction": 0.02,
            "batch_size": 64,
            "epochs": 11,
            "ema_momentum": 0.0,
            "norm_patches": 2048,
        },
    },
}


def get_config(preset: str = "sample", recipe: str = "xception_nasnet", settings: dict | None = None) -> Config:
    """Puts together a recipe at the size of a preset, then the caller's own settings.

    Args:
        preset: `sample` or `full`.
        recipe: a key of `RECIPES`.
        settings: Config field → value (a text is converted to the field's type); None values are left out.

    Returns:
        The complete, checked settings.

    Raises:
        InputError: when a name, a field or a value is unknown or out of range; the text lists what is possible.
    """
    _check_choice("preset", preset, tuple(PRESETS))
    _check_choice("recipe", recipe, tuple(RECIPES))
    values = {key: value for key, value in RECIPES[recipe].items() if key not in PRESETS}
    values |= PRESETS[preset] | RECIPES[recipe][preset]
    values |= {key: _convert(key, value) for key, value in (settings or {}).items() if value is not None}
    config = Config(preset=preset, recipe=recipe, **values)
    _check_ranges(config)
    return config


def read_config(path: Path) -> Config:
    """Reads a run's `config.json`, as written by `Config.to_json`, also by an older or newer version of the package.

    A field that this version does not know is ignored with a line that says so; a missing one takes its default.

    Raises:
        InputError: when the file is not the JSON of a Config; train the run again.
    """
    known = {field.name for field in dataclasses.fields(Config)}
    try:
        values = json.loads(path.read_text())
        preset, recipe = values.pop("preset"), values.pop("recipe")
        if unknown := sorted(set(values) - known):
            print(f"{path}: ignoring the unknown settings {', '.join(unknown)}", file=sys.stderr, flush=True)
        config = Config(**{key: _convert(key, value) for key, value in values.items() if key in known})
        return dataclasses.replace(config, preset=preset, recipe=recipe)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} does not hold the settings of a run ({error}); delete the run and train it again.") from None


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Turns `["epochs=3", "batch_size=8"]` into a dictionary for `get_config`.

    Raises:
        InputError: when a pair has no `=`.
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise InputError(f"--set takes key=value, for example --set epochs=3, and got {wrong[0]!r}.")
    return {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}


def parse_copies(copies: str, classes: int) -> tuple[int, ...]:
    """Turns the setting `copies` into one number a class.

    Raises:
        InputError: when a number is not a whole one above 0, or there are neither one nor as many as classes.
    """
    parts = str(copies).split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"The setting copies takes whole numbers above 0, such as 6 or 20,6, and is {copies!r}.")
    if len(parts) not in (1, classes) and classes > 1:
        raise InputError(
            f"The setting copies gives {len(parts)} numbers for {classes} classes; give one a class, or one for all."
        )
    return tuple(int(part) for part in parts) * (classes if len(parts) == 1 else 1)


def home() -> Path:
    """Returns the folder under which data, runs, assets and submissions are written.

    `HISTOPATH_HOME` when it is set, `/kaggle/working` on Kaggle, the checkout where there is one, else the working folder.
    """
    if os.environ.get("HISTOPATH_HOME"):
        return Path(os.environ["HISTOPATH_HOME"]).resolve()
    return kaggle_folder("working") or (PROJECT if in_checkout() else Path.cwd())


def in_checkout() -> bool:
    """Returns whether the package runs from a checkout, with notebooks beside it, and not from an installed wheel."""
    return (PROJECT / "notebooks").is_dir() and (PROJECT / "pyproject.toml").is_file()


def kaggle_folder(name: str) -> Path | None:
    """Returns Kaggle's `input` or `working` folder, or None on another machine.

    `HISTOPATH_KAGGLE` names another folder than `/kaggle`, to try this elsewhere.
    """
    folder = Path(os.environ.get("HISTOPATH_KAGGLE", "/kaggle")) / name
    return folder if folder.is_dir() else None


def _convert(key: str, value: object) -> object:
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    if key not in fields or key in ("preset", "recipe"):
        names = ", ".join(name for name in fields if name not in ("preset", "recipe"))
        raise InputError(f"{key!r} is not a setting; the settings are {names}.")
    kind = fields[key]
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return kind(value)
    except (KeyError, ValueError):
        raise InputError(f"The setting {key} takes {kind.__name__} and got {value!r}.") from None


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"There is no {what} {value!r}; choose one of {', '.join(choices)}.")


def _check_ranges(config: Config) -> None:
    _check_choice("augmentation", config.augmentation, ("dihedral", "classic", "rotation", "none"))
    _check_choice("optimizer", config.optimizer, ("adam", "muon"))
    _check_choice("feed", config.feed, ("auto", "stream", "resident"))
    _check_choice("number of views", str(config.views), ("1", "8"))
    above = ("batch_size", "epochs", "predict_batch", "norm_patches", "patience", "steps_per_execution")
    for key in (*above, "learning_rate", "clip_norm"):
        if not 0 < getattr(config, key) < float("inf"):
            raise InputError(f"The setting {key} must be above 0 and finite and is {getattr(config, key)}.")
    for key in ("val_fraction", "holdout_fraction", "ema_momentum", "dropout", "warmup", "label_smoothing", "stain", "light"):
        if not 0 <= getattr(config, key) < 1:
            raise InputError(f"The setting {key} must lie in [0, 1) and is {getattr(config, key)}.")
    if not 0 < config.val_fraction + config.holdout_fraction < 1 or not config.val_fraction or not config.holdout_fraction:
        raise InputError("val_fraction and holdout_fraction must both be above 0 and leave something for training.")
    if config.size and not 16 <= config.size <= 4096:
        raise InputError(f"The setting size must be 0 or lie in 16-4096 pixels and is {config.size}.")
    if config.folds == 1 or not 0 <= config.fold <= config.folds:
        raise InputError(
            f"The setting folds takes 0 or at least 2, and is {config.folds}; fold is one of them, not {config.fold}."
        )
    for key in ("epoch_steps", "unfreeze_epoch", "devices", "folds"):
        if getattr(config, key) < 0:
            raise InputError(f"The setting {key} must be 0 or above and is {getattr(config, key)}.")
    parse_copies(config.copies, 1)
    if not 0 <= config.focus <= 1:
        raise InputError(f"The setting focus is a share: it must lie in 0-1 and is {config.focus}.")
    if not 0 <= config.shift <= 32:
        raise InputError(f"The setting shift must lie in 0-32 pixels and is {config.shift}.")
    if not 0 <= config.seed < 2**31:
        raise InputError(f"The setting seed must lie in 0-{2**31 - 1} and is {config.seed}.")
