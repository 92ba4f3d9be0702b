"""One flat vector gives the updates of Keras's own Adam."""

import numpy as np
import pytest

from histopath.backend import keras
from histopath.optimizer import FlatAdam

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
