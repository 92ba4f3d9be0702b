"""Turning a patch turns the feature map and permutes its orientations, and the mean over them is that of the turned patch."""

import numpy as np
import pytest

from histopath.models.backend import keras, ops
from histopath.models.equivariant import ORIENTATIONS, OrientedConvolution, OrientedNormalization, orientation_indices, turned


@pytest.fixture(scope="module")
def layers():
    keras.utils.set_random_seed(0)
    return [
        OrientedConvolution(4, 4, 2, lifting=True),
        OrientedNormalization(),
        OrientedConvolution(5),
        OrientedConvolution(3, 4, 2),
    ]


def maps(layers, images):
    """Feature maps (N, H, W, 8, C)."""
    x = images
    for layer in layers:
        x = ops.relu(layer(x))
    x = ops.convert_to_numpy(x)
    return x.reshape(*x.shape[:3], ORIENTATIONS, -1)


@pytest.mark.parametrize("number", range(1, ORIENTATIONS))
def test_turning_the_patch_turns_the_map_and_permutes_its_orientations(layers, number):
    image = np.random.default_rng(0).normal(size=(24, 24, 3)).astype("float32")
    before = maps(layers, image[None])[0]
    after = maps(layers, turned(image, number)[None].copy())[0]
    np.testing.assert_allclose(after.mean(axis=2), turned(before.mean(axis=2), number), atol=1e-4)
    order = [
        next(old for old in range(ORIENTATIONS) if np.allclose(after[:, :, new], turned(before[:, :, old], number), atol=1e-4))
        for new in range(ORIENTATIONS)
    ]
    assert sorted(order) == list(range(ORIENTATIONS)) and order != sorted(order)


def test_eight_turns_are_eight_different_ones_and_the_first_is_none():
    square = np.arange(9).reshape(3, 3)
    assert (turned(square, 0) == square).all()
    assert len({turned(square, number).tobytes() for number in range(ORIENTATIONS)}) == ORIENTATIONS


@pytest.mark.parametrize("side", [2, 3, 4])
@pytest.mark.parametrize("lifting", [True, False])
def test_every_orientation_uses_every_weight_once(side, lifting):
    indices = orientation_indices(side, lifting)
    count = side**2 * (1 if lifting else ORIENTATIONS)
    assert all(sorted(one.ravel()) == list(range(count)) for one in indices)


def test_a_saved_layer_is_the_same_layer(layers, tmp_path):
    inputs = keras.Input((24, 24, 3))
    network = keras.Model(inputs, layers[2](layers[1](layers[0](inputs))))
    network.save(tmp_path / "oriented.keras")
    again = keras.models.load_model(tmp_path / "oriented.keras", compile=False, safe_mode=True)
    image = np.random.default_rng(1).normal(size=(2, 24, 24, 3)).astype("float32")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(one(image)) for one in (network, again)))
    assert network.count_params() == 16 * 3 * 4 + 4 * 4 + 9 * 8 * 4 * 5


def test_normalization_is_that_of_keras_over_all_orientations_of_a_channel():
    x = np.random.default_rng(2).normal(3, 2, size=(6, 5, 5, ORIENTATIONS * 4)).astype("float32")
    ours, theirs = OrientedNormalization(momentum=0.7), keras.layers.BatchNormalization(momentum=0.7)
    for training in (True, True, False):
        expected = ops.reshape(theirs(x.reshape(6, 5, 5 * ORIENTATIONS, 4), training=training), x.shape)
        np.testing.assert_allclose(ours(x, training=training), expected, atol=1e-4)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-4)
