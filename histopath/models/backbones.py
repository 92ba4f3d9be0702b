"""ImageNet backbones: each behind its own input scaling, and where its weights come from. In: pixels. Out: pooled features."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from histopath.config import kaggle_folder
from histopath.data.kaggle import find_attached
from histopath.files import InputError
from histopath.models.backend import first_line, keras

KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/"
# Mean and standard deviation of ImageNet's red, green and blue in 0-1, as `preprocess_input(mode="torch")` uses them.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALINGS = {
    "[-1, 1]": {"scale": 1 / 127.5, "offset": -1.0},
    "[0, 1]": {"scale": 1 / 255, "offset": 0.0},
    "ImageNet mean": {
        "scale": [1 / (255 * spread) for spread in SPREAD],
        "offset": [-mean / spread for mean, spread in zip(MEAN, SPREAD, strict=True)],
    },
}


@dataclass(frozen=True)
class Backbone:
    """A `keras.applications` network without its top, and the ImageNet file that Keras publishes for it.

    Attributes:
        build: the builder in `keras.applications`.
        url: where the file is published; its last part is the name under which a local folder may hold it.
        file: its name in Keras's own cache (`~/.keras/models`), which a local folder may use as well.
        md5: checksum of the file as in `keras.applications`, None where Keras gives none.
        scaling: a key of `SCALINGS`: what it was trained with.
    """

    build: Callable
    url: str
    file: str
    md5: str | None
    scaling: str = "[-1, 1]"


def _published(build: Callable, folder: str, file: str, md5: str | None = None, scaling: str = "[-1, 1]") -> Backbone:
    return Backbone(build, f"{KERAS_FILES}{folder}/{file}", file, md5, scaling)


BACKBONES = {
    "xception": _published(
        keras.applications.Xception,
        "xception",
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "b0042744bf5b25fce3cb969f33bebb97",
    ),
    "nasnet_mobile": Backbone(
        keras.applications.NASNetMobile,
        KERAS_FILES + "nasnet/NASNet-mobile-no-top.h5",
        "nasnet_mobile_no_top.h5",
        "1ed92395b5b598bdda52abe5c0dbfd63",
    ),
    "mobilenet_v2": _published(
        keras.applications.MobileNetV2,
        "mobilenet_v2",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ),
    "densenet121": _published(
        keras.applications.DenseNet121,
        "densenet",
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
        "ImageNet mean",
    ),
    "inception_v3": _published(
        keras.applications.InceptionV3,
        "inception_v3",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "resnet50_v2": _published(
        keras.applications.ResNet50V2,
        "resnet",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "fac2f116257151a9d068a22e544a4917",
    ),
    "mobilenet": _published(
        functools.partial(keras.applications.MobileNet, alpha=0.75),
        "mobilenet",
        "mobilenet_7_5_224_tf_no_top.h5",
    ),
}


def scaled(inputs, scaling: str, name: str = "scaling"):
    """Brings raw pixels in 0-255 to the range of a key of `SCALINGS`."""
    return keras.layers.Rescaling(**SCALINGS[scaling], name=name)(inputs)


def pooled_features(inputs, backbone: str, frozen: bool = False):
    """Pooled features of one backbone behind its own input scaling.

    Args:
        inputs: symbolic raw pixels (N, H, W, 3) in 0-255.
        backbone: a key of `BACKBONES`.
        frozen: whether its weights, and its batch-normalization statistics, stay as they are.

    Returns:
        Symbolic features (N, C).
    """
    source = BACKBONES[backbone]
    network = source.build(include_top=False, weights=None, input_shape=tuple(inputs.shape[1:]), name=backbone)
    network.trainable = not frozen
    features = network(scaled(inputs, source.scaling, f"{backbone}_scaling"))
    return keras.layers.GlobalAveragePooling2D(name=f"{backbone}_pool")(features)


def load_weights(network: keras.Model, backbones: tuple[str, ...], weights: str) -> None:
    """Gives a network its weights.

    Args:
        network: the network; its backbones are layers of these names.
        backbones: keys of `BACKBONES`, empty for a network without any.
        weights: `imagenet` (Keras's own download, or its cache), a folder with the backbones' ImageNet files, one
            backbone's ImageNet file (its name says `no_top` or `notop`), or a saved network or weight file of the whole.

    Raises:
        InputError: when a file does not fit the network; when weights cannot be found or
            fetched; the text names the file and the option.
    """
    path = Path(weights).expanduser()
    if weights == "imagenet":
        if not backbones:
            raise InputError(f"{network.name} has no ImageNet weights; train it with weights=none.")
        for backbone in backbones:
            _load(network.get_layer(backbone), _imagenet_file(backbone))
    elif path.is_dir() and backbones:
        for backbone in backbones:
            published, cached = (path / name for name in (BACKBONES[backbone].url.split("/")[-1], BACKBONES[backbone].file))
            _load(network.get_layer(backbone), cached if cached.is_file() else published)
    elif len(backbones) == 1 and re.search(r"no[_-]?top", path.name):
        _load(network.get_layer(backbones[0]), path)
    else:
        _load(network, path)


def _imagenet_file(backbone: str) -> Path:
    """One backbone's ImageNet file: of an attached dataset on Kaggle, else Keras's own download and cache."""
    source = BACKBONES[backbone]
    for name in (source.url.split("/")[-1], source.file):
        if attached := find_attached(name):
            return attached
    try:
        return Path(keras.utils.get_file(source.file, source.url, cache_subdir="models", file_hash=source.md5))
    except Exception as error:
        if kaggle_folder("input"):
            raise InputError(
                f"No attached data set holds the ImageNet weights of {backbone}; add one with the file "
                f"{source.url.split('/')[-1]} (published at {source.url}) with Add Input, or run with --weights none."
            ) from None
        raise InputError(
            f"The ImageNet weights of {backbone} could not be downloaded ({first_line(error)}); download {source.url} elsewhere "
            "and name its folder (run --weights FOLDER, train --set weights=FOLDER), or train with weights none."
        ) from None


def _load(network: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise InputError(
            f"There is no weight file {path}; name an existing one (run --weights, train --set weights=), or use weights none."
        )
    try:
        network.load_weights(path)
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{path} does not hold weights of {network.name} ({reason}); give the file of that network.") from None
