"""Layers that treat the eight flips and quarter turns of a patch alike. In and out: feature maps (N, H, W, 8·C).

Group convolutions of Cohen and Welling 2016 (arXiv:1602.07576) over the group p4m, as Veeling et al. 2018 (arXiv:1806.03962)
used them on PatchCamelyon. A feature map holds C channels for each of the eight orientations, the orientation varying
slowest. Turning the patch turns the map and permutes its orientations, exactly, so that the mean over both is the same for
all eight views, which then cost what one costs.
"""

import math

import numpy as np

from histopath.models.backend import keras, ops

ORIENTATIONS = 8


def turned(square: np.ndarray, number: int) -> np.ndarray:
    """One of the eight flips and quarter turns, 0-7, of the first two axes; 0 leaves them as they are."""
    return np.rot90(square[:, ::-1] if number >= 4 else square, number % 4)


def orientation_indices(side: int, lifting: bool) -> np.ndarray:
    """Where each orientation of a kernel takes its weights from: int32 (8, side², 1 when lifting else 8)."""
    places = np.arange(side * side).reshape(side, side)
    marks = np.arange(9).reshape(3, 3)
    names = {turned(marks, number).tobytes(): number for number in range(ORIENTATIONS)}
    inverse = [next(h for h in range(ORIENTATIONS) if names[turned(turned(marks, h), g).tobytes()] == 0) for g in range(8)]
    if lifting:
        return np.stack([turned(places, g).reshape(-1, 1) for g in range(ORIENTATIONS)]).astype("int32")
    sources = [[names[turned(turned(marks, h), inverse[g]).tobytes()] for h in range(8)] for g in range(8)]
    return np.stack(
        [turned(places, g).reshape(-1, 1) * ORIENTATIONS + np.array(sources[g])[None] for g in range(ORIENTATIONS)]
    ).astype("int32")


def answers_views_alike(network: keras.Model) -> bool:
    """Whether a network gives all eight views of a patch the same answer, so that one of them is enough.

    It does when it is built of the layers below and every map has an even side where it is halved.
    """
    strides = [layer.strides for layer in network.layers if isinstance(layer, OrientedConvolution)]
    return bool(strides) and network.input_shape[1] % math.prod(strides) == 0


@keras.saving.register_keras_serializable("histopath")
class OrientedConvolution(keras.layers.Layer):
    """A convolution whose kernel is used in all eight orientations: (N, H, W, 3 or 8·C) in, (N, H', W', 8·filters) out.

    A stride of 2 keeps the symmetry with an even side on an even size only.
    """

    def __init__(self, filters: int, side: int = 3, strides: int = 1, lifting: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.side, self.strides, self.lifting = filters, side, strides, lifting

    def build(self, shape):
        """Makes the one kernel that all orientations share."""
        self.indices = orientation_indices(self.side, self.lifting)
        self.inputs = shape[-1] if self.lifting else shape[-1] // ORIENTATIONS
        fan_in = self.side**2 * shape[-1]
        self.kernel = self.add_weight(
            shape=(self.side**2 * self.indices.shape[-1], self.inputs * self.filters),
            initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2 / fan_in)),
            name="kernel",
        )

    def call(self, x):
        """Turns the kernel, then convolves once."""
        kernels = ops.take(self.kernel, self.indices.reshape(-1), axis=0)
        kernels = ops.reshape(kernels, (ORIENTATIONS, self.side, self.side, -1, self.filters))
        kernels = ops.reshape(ops.transpose(kernels, (1, 2, 3, 0, 4)), (self.side, self.side, x.shape[-1], -1))
        return ops.conv(x, kernels, strides=self.strides, padding="same", data_format="channels_last")

    def get_config(self):
        """What a saved network needs to build this layer again."""
        own = {"filters": self.filters, "side": self.side, "strides": self.strides, "lifting": self.lifting}
        return super().get_config() | own


@keras.saving.register_keras_serializable("histopath")
class OrientedNormalization(keras.layers.BatchNormalization):
    """Batch normalization of C channels, each over the batch, the places and its eight orientations: (N, H, W, 8·C)."""

    def build(self, shape):
        """Makes one scale, offset, mean and variance for the eight orientations of a channel."""
        super().build((*shape[:-1], shape[-1] // ORIENTATIONS))
        self.input_spec = None

    def call(self, x, training=None):
        """Normalizes with the statistics of the batch in training, else with the running ones."""
        mean, variance = self.moving_mean, self.moving_variance
        if training and self.trainable:
            means, variances = ops.moments(ops.cast(x, "float32"), axes=(0, 1, 2), synchronized=self.synchronized)
            means, variances = (ops.reshape(each, (ORIENTATIONS, -1)) for each in (means, variances))
            mean, variance = ops.mean(means, axis=0), ops.mean(variances, axis=0) + ops.var(means, axis=0)
            for running, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
                running.assign(running * self.momentum + now * (1 - self.momentum))
        scale = self.gamma / ops.sqrt(variance + self.epsilon)
        scale, offset = (ops.cast(ops.tile(each, ORIENTATIONS), x.dtype) for each in (scale, self.beta - mean * scale))
        return x * scale + offset
