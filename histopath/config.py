"""Every number of a run in one frozen dataclass: presets say how much, recipes how. In: names, `key=value`. Out: Config."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

KAGGLE_WORKING = Path("/kaggle/working")


@dataclass(frozen=True)
class Config:
    """All settings of one run. Fractions are of the labelled patches, rates per optimiser step, lengths in pixels.

    Attributes:
        preset: how much work: `sample` (minutes on two cores) or `full` (the competition on a GPU).
        recipe: which published or own way of training, a key of `RECIPES`.
        model: a name of the registry in `models.py`.
        weights: `none`, `imagenet`, or the path of a local weight file or folder of weight files.
        seed: seeds the splits, the initial weights, the order of the batches and the augmentation.
        val_fraction: share that chooses the checkpoint and the threshold.
        holdout_fraction: share that is scored once and chooses nothing.
        batch_size: patches in one optimiser step.
        epochs: passes over the training patches at most.
        learning_rate: peak of the warm-up and cosine schedule.
        warmup: share of all steps in which the rate climbs from zero to its peak.
        clip_norm: largest global gradient norm.
        ema_momentum: momentum of the weight average that is validated and saved.
        label_smoothing: how far targets move from 0 and 1 towards one half.
        dropout: share of the features dropped before the last layer.
        patience: epochs without a better val AUC before training stops.
        augmentation: `dihedral` (eight views, small shift, stain), `classic` (system 1) or `none`.
        shift: largest shift of a patch, in pixels; 4 keeps the labelled centre in the centre.
        stain: relative spread of the haematoxylin, eosin and residual strengths.
        precision: `auto` (mixed on a GPU, float32 elsewhere) or a Keras dtype policy.
        views: views averaged at prediction, 8 or 1.
        predict_batch: patches in one prediction step.
        norm_patches: training patches from which batch normalisation is re-estimated after each epoch.
        tensorboard: also write TensorBoard event files into the run folder.
    """

    preset: str = "sample"
    recipe: str = "xception_nasnet"
    model: str = "xception_nasnet"
    weights: str = "none"
    seed: int = 0
    val_fraction: float = 0.15
    holdout_fraction: float = 0.2
    batch_size: int = 32
    epochs: int = 10
    learning_rate: float = 1e-3
    warmup: float = 0.1
    clip_norm: float = 1.0
    ema_momentum: float = 0.999
    label_smoothing: float = 0.0
    dropout: float = 0.5
    patience: int = 5
    augmentation: str = "dihedral"
    shift: int = 4
    stain: float = 0.2
    precision: str = "auto"
    views: int = 8
    predict_batch: int = 64
    norm_patches: int = 4096
    tensorboard: bool = False

    def to_json(self) -> str:
        """Returns the settings as indented JSON, the content of a run's `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


RECIPES = {
    # System 1: Adam, dropout 0.5 and batch 192 as published; its 1e-4 is kept for fine-tuning. Eight views, small shifts
    # and stain jitter replace its ±30 % shifts, which move the labelled centre out of the middle (systems 1, faults).
    "xception_nasnet": {
        "model": "xception_nasnet",
        "sample": {"batch_size": 16, "epochs": 4, "learning_rate": 1e-3, "ema_momentum": 0.9, "norm_patches": 64},
        "full": {"batch_size": 192, "epochs": 10, "learning_rate": 1e-4, "weights": "imagenet", "predict_batch": 256},
    },
    # A small residual network from scratch, for machines without a GPU: one-cycle rate to 3e-3, EMA 0.995 and label
    # smoothing 0.02, after airbench and the small PCam networks in the field.
    "compact": {
        "model": "compact",
        "dropout": 0.0,
        "label_smoothing": 0.02,
        "learning_rate": 3e-3,
        "ema_momentum": 0.995,
        "sample": {"batch_size": 16, "epochs": 8, "ema_momentum": 0.9, "norm_patches": 128},
        "full": {"batch_size": 64, "epochs": 12, "norm_patches": 2048},
    },
}
PRESETS = ("sample", "full")


def get_config(preset: str = "sample", recipe: str = "xception_nasnet", settings: dict | None = None) -> Config:
    """Puts together a recipe at the size of a preset, then the caller's own settings.

    Args:
        preset: `sample` or `full`.
        recipe: a key of `RECIPES`.
        settings: Config field → value (a text is converted to the field's type); None values are left out.

    Returns:
        The complete, checked settings.

    Raises:
        ValueError: when a name, a field or a value is unknown or out of range; the text lists what is possible.
    """
    _check_choice("preset", preset, PRESETS)
    _check_choice("recipe", recipe, tuple(RECIPES))
    values = {key: value for key, value in RECIPES[recipe].items() if key not in PRESETS}
    values |= RECIPES[recipe][preset]
    values |= {key: _convert(key, value) for key, value in (settings or {}).items() if value is not None}
    config = Config(preset=preset, recipe=recipe, **values)
    _check_ranges(config)
    return config


def read_config(path: Path) -> Config:
    """Reads a run's `config.json`, as written by `Config.to_json`.

    Raises:
        ValueError: when the file is not the JSON of a Config; train the run again.
    """
    try:
        values = json.loads(path.read_text())
        config = Config(**{key: _convert(key, value) for key, value in values.items() if key not in ("preset", "recipe")})
        return dataclasses.replace(config, preset=values["preset"], recipe=values["recipe"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not hold the settings of a run ({error}); delete the run and train it again.") from None


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Turns `["epochs=3", "batch_size=8"]` into a dictionary for `get_config`.

    Raises:
        ValueError: when a pair has no `=`.
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"--set takes key=value, for example --set epochs=3, and got {wrong[0]!r}.")
    return {key.strip(): value.strip() for key, value in (pair.split("=", 1) for pair in pairs)}


def home() -> Path:
    """Returns the folder under which data, runs, assets and submissions are written.

    `HISTOPATH_HOME` when it is set, `/kaggle/working` on Kaggle, the repository otherwise.
    """
    if os.environ.get("HISTOPATH_HOME"):
        return Path(os.environ["HISTOPATH_HOME"]).resolve()
    return KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else Path(__file__).resolve().parents[1]


def _convert(key: str, value: object) -> object:
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    if key not in fields or key in ("preset", "recipe"):
        names = ", ".join(name for name in fields if name not in ("preset", "recipe"))
        raise ValueError(f"{key!r} is not a setting; the settings are {names}.")
    kind = fields[key]
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return kind(value)
    except (KeyError, ValueError):
        raise ValueError(f"The setting {key} takes {kind.__name__} and got {value!r}.") from None


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"There is no {what} {value!r}; choose one of {', '.join(choices)}.")


def _check_ranges(config: Config) -> None:
    _check_choice("augmentation", config.augmentation, ("dihedral", "classic", "none"))
    _check_choice("number of views", str(config.views), ("1", "8"))
    for key in ("batch_size", "epochs", "predict_batch", "norm_patches", "patience", "learning_rate", "clip_norm"):
        if not 0 < getattr(config, key) < float("inf"):
            raise ValueError(f"The setting {key} must be above 0 and finite and is {getattr(config, key)}.")
    for key in ("val_fraction", "holdout_fraction", "ema_momentum", "dropout", "warmup", "label_smoothing", "stain"):
        if not 0 <= getattr(config, key) < 1:
            raise ValueError(f"The setting {key} must lie in [0, 1) and is {getattr(config, key)}.")
    if not 0 < config.val_fraction + config.holdout_fraction < 1 or not config.val_fraction or not config.holdout_fraction:
        raise ValueError("val_fraction and holdout_fraction must both be above 0 and leave something for training.")
    if not 0 <= config.shift <= 32:
        raise ValueError(f"The setting shift must lie in 0-32 pixels and is {config.shift}.")
    if not 0 <= config.seed < 2**31:
        raise ValueError(f"The setting seed must lie in 0-{2**31 - 1} and is {config.seed}.")
