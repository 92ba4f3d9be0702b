"""Keras layers that vary a batch of patches while training. In and out: uint8 or float patches (N, H, W, 3) in 0-255."""

import math
from collections.abc import Iterable

import numpy as np

from histopath.config import Config
from histopath.models.backend import keras, ops

# Optical densities of hematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001), rows of unit length.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32")


class Augmentation(keras.layers.Layer):
    """Base of the random layers: works in float, gives back the type it was given, does nothing outside training."""

    def __init__(self, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        """Returns `images` varied at random when `training`, in their own dtype, clipped to 0-255."""
        if not training:
            return images
        changed = self.vary(images)
        if "float" not in keras.backend.standardize_dtype(images.dtype):
            changed = ops.round(changed) if "float" in keras.backend.standardize_dtype(changed.dtype) else changed
        return ops.cast(changed, images.dtype)

    def compute_output_spec(self, images, training=False):
        """The output has the shape and the dtype of the input."""
        return keras.KerasTensor(images.shape, dtype=images.dtype)

    def uniform(self, shape, low: float, high: float):
        """Draws float32 numbers evenly from [low, high), from this layer's own seed."""
        return keras.random.uniform(shape, low, high, seed=self.random)


class RandomDihedral(Augmentation):
    """One of the eight flips and quarter turns of the square, each as likely: transposes only, pixels are moved, not mixed."""

    def vary(self, images):
        """Flips each patch along either axis and transposes it, each with probability one half."""
        choice = self.uniform((3, ops.shape(images)[0], 1, 1, 1), 0.0, 1.0) < 0.5
        images = ops.where(choice[0], ops.flip(images, axis=1), images)
        images = ops.where(choice[1], ops.flip(images, axis=2), images)
        return ops.where(choice[2], ops.transpose(images, (0, 2, 1, 3)), images)


class RandomShift(Augmentation):
    """Moves each patch by up to `pixels` along either axis; the edge is filled by reflection, the center stays central."""

    def __init__(self, pixels: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.pixels = pixels

    def vary(self, images):
        """Gathers the rows, then the columns, of each patch at its own offset."""
        for axis in (1, 2):
            size = images.shape[axis]
            offset = ops.floor(self.uniform((ops.shape(images)[0], 1), -self.pixels, self.pixels + 1))
            place = ops.abs(ops.arange(size)[None] + ops.cast(offset, "int32"))
            place = (size - 1) - ops.abs((size - 1) - place)
            index = ops.reshape(place, (-1, size, 1, 1) if axis == 1 else (-1, 1, size, 1))
            images = ops.take_along_axis(images, index, axis=axis)
        return images


class RandomStain(Augmentation):
    """Scales the hematoxylin, eosin and residual density of each patch by 1 ± `strength` (after Tellez et al. 2018).

    Densities are only scaled, so white, which has none, stays white.
    """

    def __init__(self, strength: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def vary(self, images):
        """Multiplies the optical densities by one 3×3 matrix a patch."""
        stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
        scales = self.uniform((ops.shape(images)[0], 1, 3), 1 - self.strength, 1 + self.strength)
        matrix = ops.matmul(np.linalg.inv(stains) * scales, stains)
        density = -ops.log((ops.cast(images, "float32") + 1) / 256)
        shape = ops.shape(images)
        changed = ops.matmul(ops.reshape(density, (shape[0], -1, 3)), matrix)
        return ops.clip(256 * ops.exp(-ops.reshape(changed, shape)) - 1, 0, 255)


class RandomLight(Augmentation):
    """Multiplies each patch by 1 ± `strength`, and each of its channels by 1 ± a quarter of that: another lamp or exposure."""

    def __init__(self, strength: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def vary(self, images):
        """Scales the intensities of each patch and of its channels."""
        count = ops.shape(images)[0]
        light = self.uniform((count, 1, 1, 1), 1 - self.strength, 1 + self.strength)
        color = self.uniform((count, 1, 1, 3), 1 - self.strength / 4, 1 + self.strength / 4)
        return ops.clip(ops.cast(images, "float32") * light * color, 0, 255)


class RandomFocus(Augmentation):
    """Mixes each patch with itself out of focus: half of them with a share of up to `strength`, the others left as they are.

    Out of focus is a Gaussian of 1.5 pixels. A share of it stands for a smaller one, and costs two convolutions a batch.
    """

    sigma, reach = 1.5, 4  # pixels

    def __init__(self, strength: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength
        line = np.exp(-0.5 * (np.arange(-self.reach, self.reach + 1) / self.sigma) ** 2)
        self.line = (line / line.sum()).astype("float32")

    def vary(self, images):
        """Blurs along rows, then along columns, with the edge reflected."""
        images = ops.cast(images, "float32")
        edge = (self.reach, self.reach)
        soft = ops.pad(images, ((0, 0), edge, edge, (0, 0)), mode="reflect")
        for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
            kernel = np.repeat(self.line.reshape(shape), 3, axis=2)
            soft = ops.depthwise_conv(soft, kernel, padding="valid", data_format="channels_last")
        share = self.uniform((ops.shape(images)[0], 1, 1, 1), -self.strength, self.strength)
        return images + ops.maximum(share, 0) * (soft - images)


class ClassicAugmentation(Augmentation):
    """System 1's `ImageDataGenerator`: flips, any rotation, zoom 0.6-1.4, shifts of 30 %, shear; nearest fill.

    One affine map a patch, composed as Keras 2 composed it (rotation, shift, shear, zoom about the center). Its shear of
    0.3 is degrees and its channel shift of 0.3 is under one gray level, so the last is left out. Kept for comparison.
    """

    zoom, shift, shear = (0.6, 1.4), 0.3, math.radians(0.3)
    both_flips = True

    def vary(self, images):
        """Applies one random affine map to each patch, bilinear."""
        matrix = self._matrices(ops.shape(images)[0], images.shape[1])
        return ops.image.affine_transform(
            ops.cast(images, "float32"),
            matrix,
            interpolation="bilinear",
            fill_mode="nearest",
            data_format="channels_last",
        )

    def _matrices(self, count, size: int):
        angle, shear = (self.uniform((count,), -limit, limit) for limit in (math.pi, self.shear))
        zoom = self.uniform((2, count), *self.zoom)
        flipped = ops.cast(self.uniform((2, count), 0, 1) < 0.5, "float32")
        zoom = zoom * (1 - 2 * flipped * np.array([[1.0], [self.both_flips]], "float32"))
        shift = self.uniform((2, count), -self.shift, self.shift) * size
        a, b = ops.cos(angle) * zoom[0], -ops.sin(angle + shear) * zoom[1]
        c, d = ops.sin(angle) * zoom[0], ops.cos(angle + shear) * zoom[1]
        middle = (size - 1) / 2
        x = middle - (a + b) * middle + shift[0]
        y = middle - (c + d) * middle + shift[1]
        return ops.stack([a, b, x, c, d, y, ops.zeros_like(a), ops.zeros_like(a)], axis=1)


class RandomRotation(ClassicAugmentation):
    """System 2's: a rotation by any angle and a horizontal flip with probability one half; nearest fill."""

    zoom, shift, shear, both_flips = (1.0, 1.0), 0.0, 0.0, False


def augmentation_layers(
    name: str, seed: int, shift: int = 4, stain: float = 0.2, light: float = 0.0, focus: float = 0.0
) -> list[keras.layers.Layer]:
    """Builds the layers of one augmentation.

    Args:
        name: `dihedral` (ours), `classic` (system 1's), `rotation` (system 2's) or `none`.
        seed: the layers draw from seeds derived from it.
        shift: largest shift, in pixels; 0 for none.
        stain: spread of the stain strengths; 0 for none.
        light: spread of the brightness; 0 for none.
        focus: largest share of a patch out of focus; 0 for none.

    Returns:
        The layers in the order in which they are applied.
    """
    if name == "none":
        return []
    if name == "classic":
        return [ClassicAugmentation(seed=seed, name="classic")]
    if name == "rotation":
        return [RandomRotation(seed=seed, name="rotation")]
    layers = [RandomDihedral(seed=seed, name="dihedral")]
    if shift:
        layers.append(RandomShift(shift, seed=seed + 1, name="shift"))
    if stain:
        layers.append(RandomStain(stain, seed=seed + 2, name="stain"))
    if light:
        layers.append(RandomLight(light, seed=seed + 3, name="light"))
    if focus:
        layers.append(RandomFocus(focus, seed=seed + 4, name="focus"))
    return layers


def with_augmentation(
    network: keras.Model, outputs: Iterable[str], config: Config, patches: keras.layers.Layer | None = None
) -> keras.Model:
    """Returns the model to fit: a network behind its augmentation, its outputs float32 and named.

    `patches` is a layer from positions, int32 (N,), to patches; the model takes these positions then, not patches.
    """
    inputs = keras.Input((), dtype="int32") if patches else keras.Input(network.input_shape[1:], dtype="uint8")
    x = patches(inputs) if patches else inputs
    strengths = config.shift, config.stain, config.light, config.focus
    for layer in augmentation_layers(config.augmentation, config.seed, *strengths):
        x = layer(x)
    answers = zip(outputs, keras.tree.flatten(network(x)), strict=True)
    named = [keras.layers.Identity(name=name, dtype="float32")(answer) for name, answer in answers]
    return keras.Model(inputs, named if len(named) > 1 else named[0])
