"""The registry: published parameter counts, raw pixels in, probabilities out, saved and loaded alike, weights from files."""

import h5py
import numpy as np
import pytest

from histopath.backend import keras
from histopath.models import (
    BACKBONES,
    REGISTRY,
    build_model,
    describe_registry,
    norm_layers,
    parameter_table,
    plot_rows,
    read_model,
)

PUBLISHED = {"xception_nasnet": (25_134_301, 25_043_035)}  # system 1


@pytest.fixture(scope="module")
def networks():
    keras.utils.set_random_seed(0)
    return {name: build_model(name) for name in REGISTRY}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype="uint8")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(networks, name):
    total = parameter_table(networks[name])[-1]
    assert (total["parameters"], total["trainable"]) == PUBLISHED[name]


def test_the_parts_of_system_1_have_the_published_sizes(networks):
    rows = {row["layer"]: row for row in parameter_table(networks["xception_nasnet"])}
    assert (rows["xception"]["parameters"], rows["xception"]["output"]) == (20_861_480, "3×3×2048")
    assert (rows["nasnet_mobile"]["parameters"], rows["nasnet_mobile"]["output"]) == (4_269_716, "3×3×1056")
    assert rows["probability"]["parameters"] == 3_105


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_raw_pixels_go_in_and_probabilities_come_out(networks, pixels, name):
    network = networks[name]
    assert keras.backend.standardize_dtype(network.inputs[0].dtype) == "uint8"
    p = network.predict_on_batch(pixels)
    assert p.shape == (3, 1) and p.dtype == np.float32
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_a_saved_network_gives_the_same_answers(networks, pixels, tmp_path, name):
    networks[name].save(tmp_path / "model.keras")
    again = read_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(pixels, training=False), networks[name](pixels, training=False), atol=1e-6)


def test_each_backbone_of_system_1_sees_its_own_scaling_to_plus_minus_one(networks):
    edges = np.stack([np.zeros((96, 96, 3)), np.full((96, 96, 3), 255)]).astype("uint8")
    for backbone in ("xception", "nasnet_mobile"):
        preprocess = getattr(keras.applications, "xception" if backbone == "xception" else "nasnet").preprocess_input
        scaled = networks["xception_nasnet"].get_layer(f"{backbone}_scaling")(edges)
        np.testing.assert_allclose(scaled, preprocess(edges.astype("float32")), atol=1e-6)


def test_batch_normalisation_is_found_inside_the_backbones_and_not_when_frozen(networks):
    layers = norm_layers(networks["xception_nasnet"])
    assert len(layers) == 232 and all(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    network = build_model("compact")
    network.trainable = False
    assert norm_layers(network) == []


@pytest.mark.parametrize("name", REGISTRY)
def test_the_plot_shows_every_layer_once_from_input_to_output(networks, name):
    rows = plot_rows(networks[name])
    assert sum(len(row) for row in rows) == len(networks[name].layers)
    assert rows[0][0][0] == "patch" and rows[-1][0][0] == "probability"


@pytest.mark.slow
def test_the_registry_is_listed_with_its_counts():
    text = describe_registry()
    assert all(name in text for name in REGISTRY)
    assert "25,134,301" in text and "25,043,035" in text


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
def test_system_1_takes_the_backbones_files_from_a_folder(networks, tmp_path):
    source = networks["xception_nasnet"]
    write_published_file(source.get_layer("xception"), tmp_path / BACKBONES["xception"].file)
    with pytest.raises(FileNotFoundError, match="NASNet-mobile-no-top.h5"):
        build_model("xception_nasnet", weights=str(tmp_path))
    write_published_file(source.get_layer("nasnet_mobile"), tmp_path / "NASNet-mobile-no-top.h5")
    loaded = build_model("xception_nasnet", weights=str(tmp_path))
    for backbone in ("xception", "nasnet_mobile"):
        pairs = zip(loaded.get_layer(backbone).get_weights(), source.get_layer(backbone).get_weights(), strict=True)
        assert all((a == b).all() for a, b in pairs)


def test_a_local_mobilenet_file_loads_as_keras_loads_it(shared):
    file = shared / "weights" / "mobilenet_7_5_224_tf_no_top.weights.h5"
    network = keras.applications.MobileNet(alpha=0.75, include_top=False, weights=str(file), input_shape=(96, 96, 3))
    assert network.count_params() == 1_832_976


def test_imagenet_offline_names_the_file_and_the_option(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    broken = "http://127.0.0.1:9/xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    for name, backbone in list(BACKBONES.items()):
        changed = type(backbone)(backbone.build, broken, f"absent_{backbone.file}", backbone.md5)
        monkeypatch.setitem(BACKBONES, name, changed)
    with pytest.raises(FileNotFoundError, match="^[^\n]*$") as error:
        build_model("xception_nasnet", weights="imagenet")
    assert broken in str(error.value) and "--set weights=FOLDER" in str(error.value)


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [(None, "absent.keras", FileNotFoundError), (b"no", "bad.keras", ValueError), (b"no", "bad.weights.h5", ValueError)],
)
def test_missing_or_damaged_weights_are_named(tmp_path, content, name, kind):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=f"^[^\n]*{name}[^\n]*$"):
        build_model("compact", weights=str(tmp_path / name))


def test_an_unknown_name_and_imagenet_without_a_backbone_are_refused():
    with pytest.raises(ValueError, match="the registry has xception_nasnet"):
        build_model("vgg")
    with pytest.raises(ValueError, match="no ImageNet weights"):
        build_model("compact", weights="imagenet")
