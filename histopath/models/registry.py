"""Registry of networks: name → builder. In: raw uint8 patches. Out: probabilities; input scaling is in the graph."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from histopath.files import InputError
from histopath.models.backbones import BACKBONES, load_weights, pooled_features, scaled
from histopath.models.backend import first_line, keras
from histopath.models.equivariant import ORIENTATIONS, OrientedConvolution, OrientedNormalization

TUMOR = {"probability": 2}  # one head that tells two classes apart


@dataclass(frozen=True)
class Entry:
    """One network of the registry.

    Attributes:
        builder: (size, heads, dropout, frozen) → network.
        system: which published system it is of.
        size: side of its input as published, in pixels; it is built for any other as well.
        backbones: keys of `backbones.BACKBONES`.
        scaling: a key of `backbones.SCALINGS`, of a network without backbones.
        dropout: as published.
        frozen: whether its backbones keep their ImageNet weights, as published.
    """

    builder: Callable
    system: str
    size: int = 96
    backbones: tuple[str, ...] = ()
    scaling: str = "[-1, 1]"
    dropout: float = 0.5
    frozen: bool = False


def xception_nasnet(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 1: Xception and NASNetMobile side by side, pooled, concatenated, dropout, one sigmoid.

    Chollet 2017 (arXiv:1610.02357), Zoph et al. 2018 (arXiv:1707.07012). 25,134,301 parameters, 25,043,035 trainable.
    """
    return _side_by_side("xception_nasnet", size, heads, dropout, frozen)


def xception_mobilenetv2(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 4: Xception and MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) as system 1 joins its two."""
    return _side_by_side("xception_mobilenetv2", size, heads, dropout, frozen)


def densenet121(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 5: DenseNet-121 (Huang et al. 2017, arXiv:1608.06993), pooled, softmax of two."""
    inputs = _pixels(size)
    features = _dropped(pooled_features(inputs, "densenet121", frozen), dropout)
    return keras.Model(inputs, _outputs(features, heads, softmax=True), name="densenet121")


def inceptionv3(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 3: InceptionV3 (Szegedy et al. 2016, arXiv:1512.00567), pooled, dense 256 ReLU, dropout, softmax.

    Its logits stand behind a softmax here, so that probabilities come out. Nine classes at 256×256: 22,329,641
    parameters, 526,857 trainable; two: 22,327,842 and 525,058.
    """
    inputs = _pixels(size)
    features = keras.layers.Dense(256, activation="relu", name="dense")(pooled_features(inputs, "inception_v3", frozen))
    return keras.Model(inputs, _outputs(_dropped(features, dropout), heads, softmax=True), name="inceptionv3")


def resnet50v2(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 2, second network: ResNet50V2 (He et al. 2016, arXiv:1603.05027), pooled, dense 60, 50, 50, one sigmoid.

    The published text gives no activation of the dense layers; ReLU here, after the normalization where there is one.
    """
    inputs = _pixels(size)
    x = keras.layers.Dense(60, activation="relu", name="dense_1")(pooled_features(inputs, "resnet50_v2", frozen))
    x = _dropped(x, dropout)
    for number in (2, 3):
        x = keras.layers.Dense(50, name=f"dense_{number}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x)
        x = keras.layers.Activation("relu", name=f"relu_{number}")(x)
    return keras.Model(inputs, _outputs(x, heads), name="resnet50v2")


def simple_cnn(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """System 2, first network: five convolutions, three dense layers, valid padding, ReLU, one sigmoid, at 224×224.

    Patches of another size are resized in the graph, since what follows the convolutions is flattened.
    """
    inputs = _pixels(size)
    x = scaled(inputs, "[0, 1]")
    x = x if size == 224 else keras.layers.Resizing(224, 224, name="resizing")(x)
    layers = ((9, 11, 4, True), (25, 2, 1, True), (38, 3, 1, False), (38, 3, 1, False), (25, 3, 1, True))
    for number, (width, side, strides, pooled) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(width, side, strides=strides, activation="relu", name=f"convolution_{number}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool_{number}")(x) if pooled else x
    x = keras.layers.Flatten(name="flatten")(x)
    for number, width in enumerate((40, 40, 10), start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{number}")(x)
        x = _dropped(x, dropout, f"dropout_{number}")
    return keras.Model(inputs, _outputs(x, heads), name="simple_cnn")


def mobilenet(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """MobileNet of width 0.75 (Howard et al. 2017, arXiv:1704.04861), pooled, dropout, one sigmoid.

    Patches are enlarged by a third in the graph, 96 to 128 pixels, and at most to the 224 that ImageNet's weights learned at:
    a nucleus comes closer to the size of what these filters know.
    """
    inputs = _pixels(size)
    side = max(size, min(224, round(size * 4 / 3)))
    enlarged = keras.layers.Resizing(side, side, name="enlarged")(inputs)
    features = _dropped(pooled_features(enlarged, "mobilenet", frozen), dropout)
    return keras.Model(inputs, _outputs(features, heads), name="mobilenet")


def compact(size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """A small residual network that answers all eight views of a patch alike, for training from scratch on two cores.

    Group convolutions over p4m (`equivariant`), 4-8-16-32 channels in each of eight orientations, a residual pair in every stage
    but the first, at half the side of the patch (He et al. 2016, arXiv:1512.03385), batch normalization, GELU, mean over places
    and orientations; 280,465 parameters.
    """
    inputs = _pixels(size)
    x = scaled(inputs, "[-1, 1]")
    for number, width in enumerate((4, 8, 16, 32)):
        x = _oriented(x, width, side=4, strides=2, lifting=number == 0)
        if number:
            x = keras.layers.Add()([x, _oriented(_oriented(x, width), width)])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.GlobalAveragePooling1D(name="orientations")(keras.layers.Reshape((ORIENTATIONS, -1))(x))
    features = _dropped(x, dropout)
    return keras.Model(inputs, _outputs(features, heads), name="compact")


REGISTRY = {
    "xception_nasnet": Entry(xception_nasnet, "1", backbones=("xception", "nasnet_mobile")),
    "simple_cnn": Entry(simple_cnn, "2, first", 224, scaling="[0, 1]", dropout=0.4),
    "resnet50v2": Entry(resnet50v2, "2, second", 512, ("resnet50_v2",), dropout=0.2, frozen=True),
    "inceptionv3": Entry(inceptionv3, "3", 256, ("inception_v3",), dropout=0.2, frozen=True),
    "xception_mobilenetv2": Entry(xception_mobilenetv2, "4", backbones=("xception", "mobilenet_v2")),
    "densenet121": Entry(densenet121, "5", backbones=("densenet121",), dropout=0.0),
    "mobilenet": Entry(mobilenet, "ours", backbones=("mobilenet",), dropout=0.2),
    "compact": Entry(compact, "ours", dropout=0.0),
}


def build_model(
    name: str,
    weights: str = "none",
    dropout: float | None = None,
    size: int | None = None,
    heads: Mapping[str, int] = TUMOR,
    frozen: bool | None = None,
) -> keras.Model:
    """Builds a network of the registry and gives it its weights.

    Args:
        name: a key of `REGISTRY`.
        weights: `none` (random) or what `backbones.load_weights` takes.
        dropout: share of features dropped; None for the published value.
        size: side of the patches, in pixels; None for the published one.
        heads: name of each output → its number of classes.
        frozen: whether the backbones keep their weights; None for as published.

    Returns:
        A functional model: uint8 `(N, size, size, 3)` in 0-255 → float32 probabilities, one output a head: of class 1,
        `(N, 1)`, from a sigmoid, or of each class, `(N, K)`, from a softmax.

    Raises:
        InputError: when the name is unknown, the size too small, or a weight file does not fit
            the network; when weights cannot be found or fetched; the text names the file and the
            option.
    """
    if name not in REGISTRY:
        raise InputError(f"There is no model {name!r}; the registry has {', '.join(REGISTRY)}.")
    entry = REGISTRY[name]
    try:
        network = entry.builder(
            size or entry.size,
            heads,
            entry.dropout if dropout is None else dropout,
            entry.frozen if frozen is None else frozen,
        )
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name} cannot be built for patches of {size} px ({reason}); choose another --set size.") from None
    if weights != "none":
        load_weights(network, entry.backbones, weights)
    return network


def read_model(path: Path) -> keras.Model:
    """Opens a saved network for prediction: builds it from the registry and loads the weights of the file.

    The layer settings that Keras saves differ between its versions; the weights do not. So a run trained with one version of
    Keras opens with another, from 3.10 on.

    Args:
        path: a `.keras` file of a network of the registry.

    Returns:
        The network, as `build_model` describes it.

    Raises:
        InputError: when the file is missing or is not a complete saved network of the registry.
    """
    if not path.is_file():
        raise InputError(f"There is no saved network {path}; name an existing one, or train a run first.")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it is damaged")
            saved = json.loads(archive.read("config.json"))["config"]
        name, size, heads = _read_structure(saved)
        network = build_model(name, size=size, heads=heads)
        network.load_weights(path)
    except Exception as error:  # Keras raises many kinds for a file of another structure
        reason = f"{path} is not a complete saved network of this project ({first_line(error)}"
        raise InputError(
            f"{reason}, read with Keras {keras.__version__}); train its run again, or copy the file again."
        ) from None
    return network


def _read_structure(saved: dict) -> tuple[str, int, dict[str, int]]:
    """Name in the registry, side of the patches and heads of a network, from the settings that Keras saved of it."""
    layers = {layer["config"]["name"]: layer["config"] for layer in saved["layers"]}
    outputs = saved["output_layers"]
    names = [outputs[0]] if isinstance(outputs[0], str) else [output[0] for output in outputs]
    # One unit with a sigmoid tells two classes.
    heads = {name: max(2, layers[name]["units"]) for name in names}
    return saved["name"], layers["patch"]["batch_shape"][1], heads


def freeze_backbones(network: keras.Model, frozen: bool) -> None:
    """Freezes or frees the backbones of a network: their weights and their batch-normalization statistics."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            layer.trainable = not frozen


def describe_registry() -> str:
    """Returns the registry as a table: name, system, input, parameters, trainable, input scaling of the backbones."""
    header = ("name", "system", "input", "parameters", "trainable", "scaling")
    lines = [header]
    for name, entry in REGISTRY.items():
        counts = count_parameters(build_model(name))
        scaling = ", ".join(dict.fromkeys(BACKBONES[backbone].scaling for backbone in entry.backbones)) or entry.scaling
        size = f"{entry.size}×{entry.size}×3"
        lines.append((name, entry.system, size, f"{counts['parameters']:,}", f"{counts['trainable']:,}", scaling))
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def parameter_table(network: keras.Model) -> list[dict[str, object]]:
    """Returns one row a top-level layer with parameters, then the total: layer, output shape, parameters, trainable."""
    rows = [
        {"layer": layer.name, "output": _shape(layer.output.shape), **count_parameters(layer)}
        for layer in network.layers
        if layer.count_params()
    ]
    output = ", ".join(_shape(tensor.shape) for tensor in network.outputs)
    return [*rows, {"layer": "total", "output": output, **count_parameters(network)}]


def plot_rows(network: keras.Model) -> list[list[tuple[str, str]]]:
    """Returns rows of boxes (title, subtitle) for `charts.model_plot`: layers of equal depth side by side, top to bottom."""
    depth = {}
    for layer in network.get_config()["layers"]:
        depth[layer["name"]] = 1 + max((depth[name] for name in _inputs_of(layer["inbound_nodes"])), default=-1)
    rows = [[] for _ in range(max(depth.values()) + 1)]
    for layer in network.layers:
        counted = f", {layer.count_params():,} parameters" if layer.count_params() else ""
        rows[depth[layer.name]].append((layer.name.replace("_", " "), _shape(layer.output.shape) + counted))
    return rows


def _inputs_of(config) -> list[str]:
    """Names of the layers whose tensors a serialized call takes."""
    if isinstance(config, dict):
        return [config["keras_history"][0]] if "keras_history" in config else _inputs_of(list(config.values()))
    return [name for part in config for name in _inputs_of(part)] if isinstance(config, (list, tuple)) else []


def count_parameters(layer: keras.layers.Layer) -> dict[str, int]:
    """Returns the `parameters` of a layer or network and how many of them are `trainable`."""
    trainable = sum(int(keras.ops.size(weight)) for weight in layer.trainable_weights)
    return {"parameters": layer.count_params(), "trainable": trainable}


def _shape(shape) -> str:
    return "×".join(str(size) for size in shape[1:])


def _pixels(size: int):
    return keras.Input((size, size, 3), dtype="uint8", name="patch")


def _dropped(features, dropout: float, name: str = "dropout"):
    return keras.layers.Dropout(dropout, name=name)(features)


def _side_by_side(name: str, size: int, heads: Mapping[str, int], dropout: float, frozen: bool) -> keras.Model:
    """The backbones of an entry, each behind its own scaling, pooled and concatenated."""
    inputs = _pixels(size)
    pooled = [pooled_features(inputs, backbone, frozen) for backbone in REGISTRY[name].backbones]
    features = _dropped(keras.layers.Concatenate(name="concatenate")(pooled), dropout)
    return keras.Model(inputs, _outputs(features, heads), name=name)


def _oriented(x, width: int, side: int = 3, strides: int = 1, lifting: bool = False):
    x = OrientedConvolution(width, side, strides, lifting)(x)
    return keras.layers.Activation("gelu")(OrientedNormalization(momentum=0.9)(x))


def _outputs(features, heads: Mapping[str, int], softmax: bool = False):
    """One output a head: a sigmoid for two classes unless softmax is asked for, a softmax for more; float32 always."""
    answers = [
        keras.layers.Dense(1, activation="sigmoid", dtype="float32", name=name)(features)
        if count == 2 and not softmax
        else keras.layers.Dense(count, activation="softmax", dtype="float32", name=name)(features)
        for name, count in heads.items()
    ]
    return answers[0] if len(answers) == 1 else answers
