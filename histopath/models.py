"""Registry of networks: name → builder. In: raw uint8 patches. Out: the probability of tumour; input scaling is in the graph."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from histopath.backend import keras

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True)
class Backbone:
    """A `keras.applications` network without its top, and the ImageNet file that Keras publishes for it.

    Attributes:
        build: the builder in `keras.applications`.
        url: where the file is published; its last part is the name under which a local folder may hold it.
        file: its name in Keras's own cache (`~/.keras/models`), which a local folder may use as well.
        md5: checksum of the file, as in `keras.applications`.
    """

    build: Callable
    url: str
    file: str
    md5: str


@dataclass(frozen=True)
class Entry:
    """One network of the registry: its builder, where it comes from, and its input size in pixels."""

    builder: Callable
    system: str
    input_shape: tuple[int, int, int]
    scaling: str
    backbones: tuple[str, ...] = ()


BACKBONES = {
    "xception": Backbone(
        keras.applications.Xception,
        KERAS_FILES + "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "b0042744bf5b25fce3cb969f33bebb97",
    ),
    "nasnet_mobile": Backbone(
        keras.applications.NASNetMobile,
        KERAS_FILES + "nasnet/NASNet-mobile-no-top.h5",
        "nasnet_mobile_no_top.h5",
        "1ed92395b5b598bdda52abe5c0dbfd63",
    ),
}


def xception_nasnet(dropout: float = 0.5) -> keras.Model:
    """System 1: Xception and NASNetMobile side by side, pooled, concatenated, dropout, one sigmoid.

    Chollet 2017 (arXiv:1610.02357), Zoph et al. 2018 (arXiv:1707.07012). 25,134,301 parameters, 25,043,035 trainable.
    """
    inputs = keras.Input((96, 96, 3), dtype="uint8", name="patch")
    pooled = [_features(inputs, name) for name in REGISTRY["xception_nasnet"].backbones]
    features = keras.layers.Concatenate(name="concatenate")(pooled)
    features = keras.layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(inputs, _probability(features), name="xception_nasnet")


def compact(dropout: float = 0.0) -> keras.Model:
    """A small residual network for training from scratch: 3×3 convolutions 32-64-128-256 with stride 2, GELU.

    One residual pair a stage (He et al. 2016, arXiv:1512.03385), average pooling, one sigmoid; about 1.9 million parameters.
    """
    inputs = keras.Input((96, 96, 3), dtype="uint8", name="patch")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scaling")(inputs)
    for width in (32, 64, 128, 256):
        x = _convolution(x, width, strides=2)
        branch = _convolution(_convolution(x, width), width)
        x = keras.layers.Add()([x, branch])
    features = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    features = keras.layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(inputs, _probability(features), name="compact")


REGISTRY = {
    "xception_nasnet": Entry(xception_nasnet, "1", (96, 96, 3), "[-1, 1] each", ("xception", "nasnet_mobile")),
    "compact": Entry(compact, "ours", (96, 96, 3), "[-1, 1]"),
}


def build_model(name: str, weights: str = "none", dropout: float | None = None) -> keras.Model:
    """Builds a network of the registry and gives it its weights.

    Args:
        name: a key of `REGISTRY`.
        weights: `none` (random), `imagenet` (downloaded by Keras, or from its cache), the path of a saved network or
            weight file of the whole network (`.keras`, `.weights.h5`), or of a folder with the backbones' ImageNet files.
        dropout: share of features dropped before the last layer; None for the published value.

    Returns:
        A functional model: uint8 `(N, 96, 96, 3)` in 0-255 → float32 probability of tumour `(N, 1)`.

    Raises:
        ValueError: when the name is unknown or a weight file does not fit the network.
        FileNotFoundError: when weights cannot be found or fetched; the text names the file and the option.
    """
    if name not in REGISTRY:
        raise ValueError(f"There is no model {name!r}; the registry has {', '.join(REGISTRY)}.")
    entry = REGISTRY[name]
    network = entry.builder() if dropout is None else entry.builder(dropout=dropout)
    if weights == "imagenet":
        for backbone in _backbones_of(entry, name):
            _load(network.get_layer(backbone), _imagenet_file(backbone))
    elif weights != "none":
        _load_local(network, entry, Path(weights).expanduser())
    return network


def read_model(path: Path) -> keras.Model:
    """Loads a saved network in safe mode, for prediction.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not a complete `.keras` network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no saved network {path}; name an existing one, or train a run first.")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ValueError(
            f"{path} is not a complete saved network ({_first_line(error)}); delete its run and train it again."
        ) from None


def describe_registry() -> str:
    """Returns the registry as a table: name, system, input, parameters, trainable, input scaling of the backbones."""
    header = ("name", "system", "input", "parameters", "trainable", "scaling")
    lines = [header]
    for name, entry in REGISTRY.items():
        counts = _counts(build_model(name))
        size = "×".join(map(str, entry.input_shape))
        lines.append((name, entry.system, size, f"{counts['parameters']:,}", f"{counts['trainable']:,}", entry.scaling))
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def norm_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns all trainable batch-normalisation layers of a network, those inside its backbones included."""
    nested = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    own = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return own + [layer for model in nested for layer in norm_layers(model)]


def parameter_table(network: keras.Model) -> list[dict[str, object]]:
    """Returns one row a top-level layer with parameters, then the total: layer, output shape, parameters, trainable."""
    rows = [
        {"layer": layer.name, "output": _shape(layer.output.shape), **_counts(layer)}
        for layer in network.layers
        if layer.count_params()
    ]
    return [*rows, {"layer": "total", "output": _shape(network.output.shape), **_counts(network)}]


def plot_rows(network: keras.Model) -> list[list[tuple[str, str]]]:
    """Returns rows of boxes (title, subtitle) for `figures.model_plot`: layers of equal depth side by side, top to bottom."""
    depth = {}
    for layer in network.get_config()["layers"]:
        depth[layer["name"]] = 1 + max((depth[name] for name in _inputs_of(layer["inbound_nodes"])), default=-1)
    rows = [[] for _ in range(max(depth.values()) + 1)]
    for layer in network.layers:
        counted = f", {layer.count_params():,} parameters" if layer.count_params() else ""
        rows[depth[layer.name]].append((layer.name.replace("_", " "), _shape(layer.output.shape) + counted))
    return rows


def _inputs_of(config) -> list[str]:
    """Names of the layers whose tensors a serialised call takes."""
    if isinstance(config, dict):
        return [config["keras_history"][0]] if "keras_history" in config else _inputs_of(list(config.values()))
    return [name for part in config for name in _inputs_of(part)] if isinstance(config, (list, tuple)) else []


def _counts(layer) -> dict[str, int]:
    trainable = sum(int(keras.ops.size(weight)) for weight in layer.trainable_weights)
    return {"parameters": layer.count_params(), "trainable": trainable}


def _shape(shape) -> str:
    return "×".join(str(size) for size in shape[1:])


def _features(inputs, backbone: str):
    """Pooled features of one backbone behind its own input scaling; both of system 1's were trained on [-1, 1]."""
    network = BACKBONES[backbone].build(include_top=False, weights=None, input_shape=tuple(inputs.shape[1:]), name=backbone)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1, name=f"{backbone}_scaling")(inputs)
    return keras.layers.GlobalAveragePooling2D(name=f"{backbone}_pool")(network(scaled))


def _convolution(x, width: int, strides: int = 1):
    x = keras.layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.Activation("gelu")(x)


def _probability(features):
    return keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="probability")(features)


def _backbones_of(entry: Entry, name: str) -> tuple[str, ...]:
    if not entry.backbones:
        raise ValueError(f"{name} has no ImageNet weights; train it with weights=none.")
    return entry.backbones


def _imagenet_file(backbone: str) -> Path:
    """Keras's own download and cache of one backbone's ImageNet file."""
    source = BACKBONES[backbone]
    try:
        return Path(keras.utils.get_file(source.file, source.url, cache_subdir="models", file_hash=source.md5))
    except Exception as error:
        raise FileNotFoundError(
            f"The ImageNet weights of {backbone} could not be fetched ({_first_line(error)}); fetch {source.url} "
            f"elsewhere and name its folder with --set weights=FOLDER (make run WEIGHTS=FOLDER), or train with weights=none."
        ) from None


def _load_local(network: keras.Model, entry: Entry, path: Path) -> None:
    if path.is_dir() and entry.backbones:
        for backbone in entry.backbones:
            published, cached = (path / name for name in (BACKBONES[backbone].url.split("/")[-1], BACKBONES[backbone].file))
            _load(network.get_layer(backbone), cached if cached.is_file() else published)
    elif path.suffix == ".keras":
        try:
            network.set_weights(read_model(path).get_weights())
        except ValueError as error:
            raise ValueError(
                f"{path} does not hold weights of {network.name} ({_first_line(error)}); name another file."
            ) from None
    else:
        _load(network, path)


def _load(network: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}; name an existing one with --set weights=, or use weights=none.")
    try:
        network.load_weights(path)
    except Exception as error:
        reason = _first_line(error)
        raise ValueError(f"{path} does not hold weights of {network.name} ({reason}); give the file of that network.") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
