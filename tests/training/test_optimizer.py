"""One flat vector gives the updates of Keras's own Adam."""

import numpy as np
import pytest

from histopath.models.backend import keras
from histopath.models.registry import build_model
from histopath.training.optimizer import FlatAdam, kernel_channels, orthogonal_step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def fit(optimizer, epochs=10):
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1, "sigmoid")])
    network.compile(optimizer, "binary_crossentropy")
    network.fit(X, Y, epochs=epochs, batch_size=16, shuffle=False, verbose=0)
    return network.get_weights()


@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_forty_steps_agree_with_adam_and_global_clipping(clip):
    theirs = fit(keras.optimizers.Adam(1e-2, global_clipnorm=clip))
    ours = fit(FlatAdam(1e-2, clip_norm=clip))
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)  # float32, forty steps of 1e-2


@pytest.mark.slow
def test_clipping_matters_in_the_comparison_above():
    assert abs(fit(FlatAdam(1e-2, clip_norm=1e-9))[0] - fit(FlatAdam(1e-2, clip_norm=100.0))[0]).max() > 1e-3


def test_the_average_follows_the_warmed_up_formula():
    optimizer = FlatAdam(1e-2, ema_momentum=0.9)
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer.build([variable])
    average = np.zeros(3)
    for step in range(1, 30):
        optimizer.apply([keras.ops.convert_to_tensor(np.float32([1, -2, 3]))], [variable])
        momentum = 0.0 if step == 1 else min(0.9, step / (9 + step))
        average = momentum * average + (1 - momentum) * keras.ops.convert_to_numpy(variable)
    np.testing.assert_allclose(optimizer.averages()[0], average, rtol=1e-4)
    assert abs(optimizer.averages()[0] - keras.ops.convert_to_numpy(variable)).max() > 1e-3


@pytest.mark.slow
def test_it_takes_a_rate_schedule():
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 30, warmup_target=1e-2, warmup_steps=5)
    theirs = fit(keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    ours = fit(FlatAdam(schedule))
    np.testing.assert_allclose(theirs[0], ours[0], atol=2e-6)


@pytest.mark.parametrize("shape", [(300, 16), (16, 300), (32, 32)])
def test_an_orthogonal_step_has_nearly_equal_singular_values_and_the_directions_of_its_matrix(shape):
    matrix = RNG.normal(size=shape).astype("float32")
    step = keras.ops.convert_to_numpy(orthogonal_step(keras.ops.convert_to_tensor(matrix)))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    nearest = left @ right
    assert (step * nearest).sum() / np.linalg.norm(step) / np.linalg.norm(nearest) > 0.97
    values = np.linalg.svd(step)[1] / (0.2 * max(shape) ** 0.5)
    assert values.min() > 0.3 and values.max() < 1.3 and 0.1 < step.std() < 0.25  # Adam's steps have 0.2


def test_muon_moves_kernels_by_orthogonal_steps_and_the_rest_as_adam():
    keras.utils.set_random_seed(0)
    start = [RNG.normal(size=shape).astype("float32") for shape in ((3, 3, 4, 6), (6,))]
    slopes = [RNG.normal(size=value.shape).astype("float32") for value in start]
    moved = {}
    for name in ("adam", "muon"):
        variables = [keras.Variable(value) for value in start]
        told = {id(variables[0]): 6} if name == "muon" else None
        optimizer = FlatAdam(1e-2, clip_norm=1e9, channels=told)
        optimizer.apply([keras.ops.convert_to_tensor(slope) for slope in slopes], variables)
        moved[name] = [keras.ops.convert_to_numpy(variable) for variable in variables]
    np.testing.assert_allclose(moved["muon"][1], moved["adam"][1])
    # The first momentum is a tenth of the gradient, Nesterov's a tenth more and nine hundredths: the direction is the gradient's.
    wanted = start[0] - 1e-2 * keras.ops.convert_to_numpy(orthogonal_step(slopes[0].reshape(-1, 6))).reshape(3, 3, 4, 6)
    np.testing.assert_allclose(moved["muon"][0], wanted, atol=1e-5)
    assert abs(moved["muon"][0] - moved["adam"][0]).max() > 1e-3


def test_the_kernels_that_mix_channels_are_told():
    network = build_model("compact")
    counts = kernel_channels(network)
    named = [count for weight in network.trainable_weights if (count := counts.get(id(weight)))]
    assert named == [4] + [8] * 3 + [16] * 3 + [32] * 3 and len(counts) == 10
    assert set(kernel_channels(build_model("mobilenet")).values()) >= {24, 768}
