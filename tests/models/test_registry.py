"""The registry: published parameter counts, raw pixels in, probabilities out, saved and loaded alike, frozen for real."""

import functools
import json
import zipfile

import numpy as np
import pytest

from histopath.config import RECIPES, get_config
from histopath.models.backend import keras, ops
from histopath.models.registry import (
    REGISTRY,
    build_model,
    describe_registry,
    freeze_backbones,
    parameter_table,
    plot_rows,
    read_model,
)
from histopath.training.optimizer import norm_layers

PUBLISHED = [  # network, classes, parameters, trainable: systems 1 and 3
    ("xception_nasnet", 2, 25_134_301, 25_043_035),
    ("inceptionv3", 9, 22_329_641, 526_857),
    ("inceptionv3", 2, 22_327_842, 525_058),
]
QUICK = ("simple_cnn", "compact")
each = pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in REGISTRY])
with_backbones = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n, entry in REGISTRY.items() if entry.backbones]
)


@functools.cache
def network(name):
    """One network of the registry for 96×96 patches, built once."""
    keras.utils.set_random_seed(0)
    return build_model(name, size=96)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype="uint8")


@pytest.mark.parametrize(("name", "classes", "parameters", "trainable"), PUBLISHED)
@pytest.mark.slow
def test_parameters_are_those_published(name, classes, parameters, trainable):
    total = parameter_table(build_model(name, heads={"probability": classes}))[-1]
    assert (total["parameters"], total["trainable"]) == (parameters, trainable)


@pytest.mark.slow
def test_the_parts_of_system_1_have_the_published_sizes():
    rows = {row["layer"]: row for row in parameter_table(network("xception_nasnet"))}
    assert (rows["xception"]["parameters"], rows["xception"]["output"]) == (20_861_480, "3×3×2048")
    assert (rows["nasnet_mobile"]["parameters"], rows["nasnet_mobile"]["output"]) == (4_269_716, "3×3×1056")
    assert rows["probability"]["parameters"] == 3_105


def test_the_small_network_of_system_2_has_its_layers():
    rows = parameter_table(build_model("simple_cnn"))
    sizes = [(row["output"], row["parameters"]) for row in rows[:5]]
    assert sizes[0] == ("54×54×9", 9 * (11 * 11 * 3 + 1)) and sizes[1] == ("26×26×25", 25 * (2 * 2 * 9 + 1))
    assert [row["output"] for row in rows[2:5]] == ["11×11×38", "9×9×38", "7×7×25"]
    assert [row["parameters"] for row in rows[5:9]] == [(225 + 1) * 40, 41 * 40, 41 * 10, 11]


@each
def test_raw_pixels_go_in_and_probabilities_come_out(pixels, name):
    built = network(name)
    assert keras.backend.standardize_dtype(built.inputs[0].dtype) == "uint8"
    p = built.predict_on_batch(pixels)
    assert p.shape == (3, 2 if name in ("densenet121", "inceptionv3") else 1) and p.dtype == np.float32
    assert ((p > 0) & (p < 1)).all()


@each
def test_a_saved_network_gives_the_same_answers(pixels, tmp_path, name):
    network(name).save(tmp_path / "model.keras")
    again = read_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(pixels, training=False), network(name)(pixels, training=False), atol=1e-6)


def test_a_network_with_several_heads_is_saved_and_opened(pixels, tmp_path):
    built = build_model("compact", heads={"organ": 9, "malignancy": 2})
    built.save(tmp_path / "model.keras")
    again = read_model(tmp_path / "model.keras")
    assert again.output_names == built.output_names
    for one, other in zip(again(pixels, training=False), built(pixels, training=False), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_another_version_of_keras_wrote_of_a_layer_does_not_matter(pixels, tmp_path):
    built = build_model("compact")
    built.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive, zipfile.ZipFile(tmp_path / "other.keras", "w") as other:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename == "config.json":
                settings = json.loads(content)
                for layer in settings["config"]["layers"]:
                    layer["config"]["setting_of_a_later_keras"] = True
                content = json.dumps(settings)
            other.writestr(entry.filename, content)
    again = read_model(tmp_path / "other.keras")
    np.testing.assert_allclose(again(pixels, training=False), built(pixels, training=False), atol=1e-6)


def test_several_classes_get_a_softmax_and_several_tasks_a_head_each(pixels):
    p = build_model("compact", heads={"label": 3}).predict_on_batch(pixels)
    np.testing.assert_allclose(p.sum(axis=1), np.ones(3), atol=1e-6)
    organ, malignancy = build_model("mobilenet", size=96, heads={"organ": 9, "malignancy": 2}).predict_on_batch(pixels)
    assert organ.shape == (3, 9) and malignancy.shape == (3, 1)


@with_backbones
def test_frozen_backbones_keep_weights_and_statistics_and_freed_ones_learn(pixels, name):
    built = build_model(name, size=96, frozen=True)
    sizes = [built.get_layer(backbone).count_params() for backbone in REGISTRY[name].backbones]
    assert norm_layers(built) == [layer for layer in built.layers if isinstance(layer, keras.layers.BatchNormalization)]
    labels = np.eye(2)[[0, 1, 1]] if built.output_shape[1] == 2 else np.array([[0.0], [1.0], [1.0]])
    for frozen in (True, False):
        freeze_backbones(built, frozen)
        built.compile("sgd", "mse", jit_compile=False)
        before = [[ops.convert_to_numpy(w) for w in built.get_layer(b).weights] for b in REGISTRY[name].backbones]
        built.train_on_batch(pixels, labels)
        after = [[ops.convert_to_numpy(w) for w in built.get_layer(b).weights] for b in REGISTRY[name].backbones]
        same = [all((x == y).all() for x, y in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
        assert same == [frozen] * len(sizes)


def test_batch_normalization_is_found_inside_the_backbones_and_not_when_frozen():
    layers = norm_layers(network("mobilenet"))
    assert len(layers) == 27 and all(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    built = build_model("compact")
    built.trainable = False
    assert norm_layers(built) == []


@each
def test_the_plot_shows_every_layer_once_from_input_to_output(name):
    rows = plot_rows(network(name))
    assert sum(len(row) for row in rows) == len(network(name).layers)
    assert rows[0][0][0] == "patch" and rows[-1][0][0] == "probability"


@pytest.mark.slow
def test_the_registry_is_listed_with_its_counts():
    text = describe_registry()
    assert all(name in text for name in REGISTRY)
    assert "25,134,301" in text and "25,043,035" in text and "22,327,842  525,058" in text


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("preset", ["sample", "full"])
def test_every_recipe_names_a_network_and_every_network_has_a_recipe(recipe, preset):
    assert get_config(preset, recipe).model in REGISTRY
    assert set(REGISTRY) == {get_config(preset, name).model for name in RECIPES}


def test_an_unknown_name_a_tiny_size_and_imagenet_without_a_backbone_are_refused():
    with pytest.raises(ValueError, match="the registry has xception_nasnet"):
        build_model("vgg")
    with pytest.raises(ValueError, match="no ImageNet weights"):
        build_model("compact", weights="imagenet")
    with pytest.raises(ValueError, match="inceptionv3 cannot be built for patches of 32 px"):
        build_model("inceptionv3", size=32)
