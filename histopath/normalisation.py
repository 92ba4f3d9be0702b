"""Batch normalisation that is right at prediction. In: a network and patches. Out: statistics of its present weights."""

import numpy as np

from histopath.backend import keras, ops


def norm_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns all trainable batch-normalisation layers of a network, those inside its backbones included."""
    nested = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    own = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return own + [layer for model in nested for layer in norm_layers(model)]


def reestimate_norm(network: keras.Model, batches: list[np.ndarray]) -> None:
    """Gives every trainable batch-normalisation layer the mean and variance of `batches` under the present weights.

    Running statistics with momentum 0.99 (Xception) or 0.9997 (NASNet) are still near their start after a short training,
    and they follow the live weights, not the averaged ones. Wu and Johnson 2021 (arXiv:2105.07576), "precise" statistics:
    mean of the batch means, and mean of the batch variances plus the variance of the batch means.

    Args:
        network: the network; only moving means and variances change.
        batches: uint8 patches (N, H, W, 3) each, of equal length.
    """
    layers = norm_layers(network)
    momenta = [layer.momentum for layer in layers]
    sums = [[0.0, 0.0] for _ in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        for batch in batches:
            network(batch, training=True)
            for layer, total in zip(layers, sums, strict=True):
                mean, variance = (ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance))
                total[0], total[1] = total[0] + mean, total[1] + variance + mean**2
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, (mean, square) in zip(layers, sums, strict=True):
        layer.moving_mean.assign(mean / len(batches))
        layer.moving_variance.assign(np.maximum(square / len(batches) - (mean / len(batches)) ** 2, 0))
