"""Backbones: their own scaling, frozen for real, weights from files and from Keras."""

import h5py
import numpy as np
import pytest

from histopath.files import InputError
from histopath.models.backbones import BACKBONES, pooled_features
from histopath.models.backend import keras
from histopath.models.registry import build_model

PREPROCESS = {
    "xception": "xception",
    "nasnet_mobile": "nasnet",
    "mobilenet_v2": "mobilenet_v2",
    "densenet121": "densenet",
    "inception_v3": "inception_v3",
    "resnet50_v2": "resnet_v2",
    "mobilenet": "mobilenet",
}
SLOW = [pytest.param(name, marks=[] if name == "mobilenet" else pytest.mark.slow) for name in BACKBONES]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype="uint8")


@pytest.mark.parametrize("name", SLOW)
def test_each_backbone_sees_the_pixels_as_it_was_trained_with(pixels, name):
    inputs = keras.Input((96, 96, 3), dtype="uint8")
    network = keras.Model(inputs, pooled_features(inputs, name))
    scaled = network.get_layer(f"{name}_scaling")(pixels)
    preprocess = getattr(keras.applications, PREPROCESS[name]).preprocess_input
    np.testing.assert_allclose(scaled, preprocess(pixels.astype("float32")), atol=1e-5)


def test_weights_come_from_a_saved_network_and_from_a_weight_file(pixels, tmp_path):
    source = build_model("compact")
    source.save(tmp_path / "model.keras")
    source.save_weights(tmp_path / "net.weights.h5")
    for file in ("model.keras", "net.weights.h5"):
        network = build_model("compact", weights=str(tmp_path / file))
        np.testing.assert_allclose(network(pixels), source(pixels), atol=1e-6)


def write_published_file(network, path):
    """Writes weights in the HDF5 layout of the files that Keras publishes: a group a layer, an array a weight."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in network.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{number}" for number in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, layer.get_weights(), strict=True):
                group[name] = weight


@pytest.mark.slow
def test_system_1_takes_the_backbones_files_from_a_folder(tmp_path):
    source = build_model("xception_nasnet")
    write_published_file(source.get_layer("xception"), tmp_path / BACKBONES["xception"].file)
    with pytest.raises(InputError, match="NASNet-mobile-no-top.h5"):
        build_model("xception_nasnet", weights=str(tmp_path))
    write_published_file(source.get_layer("nasnet_mobile"), tmp_path / "NASNet-mobile-no-top.h5")
    loaded = build_model("xception_nasnet", weights=str(tmp_path))
    for backbone in ("xception", "nasnet_mobile"):
        pairs = zip(loaded.get_layer(backbone).get_weights(), source.get_layer(backbone).get_weights(), strict=True)
        assert all((a == b).all() for a, b in pairs)


def test_a_backbones_own_file_fills_the_backbone_as_keras_does(tmp_path):
    source = keras.applications.MobileNet(alpha=0.75, include_top=False, weights=None, input_shape=(96, 96, 3))
    write_published_file(source, tmp_path / "mobilenet_7_5_224_tf_no_top.h5")
    network = build_model("mobilenet", weights=str(tmp_path / "mobilenet_7_5_224_tf_no_top.h5"))
    pairs = zip(network.get_layer("mobilenet").get_weights(), source.get_weights(), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_the_real_imagenet_file_of_mobilenet_loads(shared, pixels):
    file = str(shared / "weights" / "mobilenet_7_5_224_tf_no_top.weights.h5")
    source = keras.applications.MobileNet(alpha=0.75, include_top=False, weights=file, input_shape=(96, 96, 3))
    network = build_model("mobilenet", weights=file)
    assert network.get_layer("mobilenet").count_params() == 1_832_976
    pairs = zip(network.get_layer("mobilenet").get_weights(), source.get_weights(), strict=True)
    assert all((a == b).all() for a, b in pairs)


@pytest.mark.slow
def test_imagenet_offline_names_the_file_and_the_option(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    broken = "http://127.0.0.1:9/xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    for name, backbone in list(BACKBONES.items()):
        changed = type(backbone)(backbone.build, broken, f"absent_{backbone.file}", backbone.md5)
        monkeypatch.setitem(BACKBONES, name, changed)
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        build_model("xception_nasnet", weights="imagenet")
    assert broken in str(error.value) and "train --set weights=FOLDER" in str(error.value)


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [(None, "absent.keras", ValueError), (b"no", "bad.keras", ValueError), (b"no", "bad.weights.h5", ValueError)],
)
def test_missing_or_damaged_weights_are_named(tmp_path, content, name, kind):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^[^\n]*{name}[^\n]*$"):
        build_model("compact", weights=str(tmp_path / name))
