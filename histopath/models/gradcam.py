"""Where a network looks. In: a network and uint8 patches. Out: one heatmap a patch, in 0-1."""

import cv2
import numpy as np

from histopath.files import InputError
from histopath.models.backend import keras, ops


def gradcam(network: keras.Model, images: np.ndarray, class_number: int = -1) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017) of the logit of one class, on the last feature maps of every backbone.

    The channels of the maps before each global pooling are weighted by the mean gradient of the logit, summed, cut at zero,
    enlarged to the patch and added over the backbones. Two 3×3 maps, as in system 1, have one cell a third of a patch.

    Args:
        network: ends in global average pooling, any head, and one sigmoid or softmax layer.
        images: uint8 (N, H, W, 3).
        class_number: whose logit; the last by default, which is the tumor's where two classes are told apart.

    Returns:
        float32 (N, H, W); 1 is the strongest place of each patch, 0 no evidence of the class.

    Raises:
        InputError: when the network has no global average pooling.
    """
    maps, head = _split_network(network, class_number)
    features = [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(maps(images, training=False))]
    gradients = _gradients(head, features)
    heat = np.zeros(images.shape[:3], "float32")
    for feature, gradient in zip(features, gradients, strict=True):
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        small = np.maximum((feature * weights).sum(axis=-1), 0)
        heat += np.stack([cv2.resize(one, images.shape[2:0:-1], interpolation=cv2.INTER_CUBIC) for one in small])
    heat = np.maximum(heat, 0)
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def _split_network(network: keras.Model, class_number: int):
    """The network up to its feature maps, and a function from the feature maps to the sum of the logits."""
    pools = [layer for layer in network.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    if not pools:
        raise InputError(f"{network.name} has no global average pooling, which Grad-CAM starts from; choose another network.")
    tensors, last = [layer.input for layer in pools], network.layers[-1]
    head = keras.Model(tensors, last.input)

    def logits(features):
        return ops.sum((ops.matmul(head(features, training=False), last.kernel) + last.bias)[:, class_number])

    return keras.Model(network.input, tensors), logits


def _gradients(function, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Gradient of a scalar function in each array, by the backend's own differentiation."""
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(tensors)
        gradients = tape.gradient(value, tensors)
    elif keras.backend.backend() == "jax":
        import jax

        gradients = jax.grad(function)(tensors)
    else:
        for tensor in tensors:
            tensor.requires_grad_()
        function(tensors).backward()
        gradients = [tensor.grad for tensor in tensors]
    return [ops.convert_to_numpy(gradient) for gradient in gradients]
