"""Grad-CAM points at what the logit stands on."""

import numpy as np
import pytest

from histopath.models.backend import keras
from histopath.models.gradcam import gradcam
from histopath.models.registry import build_model


def corner_network():
    """Tumor is where it is bright: one convolution that passes brightness on, pooled, into a positive weight."""
    inputs = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.AveragePooling2D(32)(x)
    x = keras.layers.Conv2D(1, 1, kernel_initializer="ones")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 1), (2, 0)])
def test_the_heat_lies_where_the_evidence_is(row, column):
    image = np.zeros((1, 96, 96, 3), "uint8")
    image[:, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = 255
    heat = gradcam(corner_network(), image)[0]
    assert np.unravel_index(heat.argmax(), heat.shape)[0] // 32 == row
    assert np.unravel_index(heat.argmax(), heat.shape)[1] // 32 == column


@pytest.mark.parametrize("name", ["compact", pytest.param("xception_nasnet", marks=pytest.mark.slow)])
def test_heatmaps_fit_the_patches(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype="uint8")
    heat = gradcam(build_model(name), images)
    assert heat.shape == (2, 96, 96) and heat.min() >= 0 and heat.max() <= 1


def test_a_network_without_pooling_is_refused():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(1)(flat))
    with pytest.raises(ValueError, match="no global average pooling"):
        gradcam(network, np.zeros((1, 8, 8, 3), "uint8"))
