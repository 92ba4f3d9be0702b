"""Adam over a few long vectors: clipping, update and weight average in a dozen operations each, not fifty a variable.

Kernels of convolutions can be moved by Muon instead. In: gradients. Out: weights, and their average.
"""

import math
from collections.abc import Mapping

import numpy as np

from histopath.models.backend import keras, ops
from histopath.models.equivariant import OrientedConvolution

GROUP = 2**20  # numbers in one vector: few operations, and temporaries that still fit a processor's cache


class FlatAdam(keras.optimizers.Optimizer):
    """Adam (Kingma and Ba 2015) with global-norm clipping and an exponential moving average of the weights.

    The same update as `keras.optimizers.Adam(global_clipnorm=…)`. Variables are joined into vectors of about `GROUP`
    numbers that share their moments: the 896 variables of system 1 cost 11,329 graph operations instead of
    54,676. The average follows min(ema_momentum, t / (9 + t)) at step t, so that a short run forgets its random start.

    Kernels of which the channels are told move by Muon (Jordan et al. 2024): by the nearest orthogonal matrix to their momentum,
    with one column an output channel, scaled to the root mean square of Adam's steps (Liu et al. 2025, arXiv:2502.16982), so
    that one learning rate serves both.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        clip_norm=1.0,
        ema_momentum=0.999,
        channels: Mapping[int, int] | None = None,
        name="flat_adam",
    ):
        """Args: as in `keras.optimizers.Adam`; `clip_norm` is the largest global gradient norm, `ema_momentum` in [0, 1).

        `channels` tells which kernels Muon moves, and the output channels of each, as from `kernel_channels`.
        """
        super().__init__(learning_rate=learning_rate, name=name)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.clip_norm, self.average_momentum, self.channels = clip_norm, ema_momentum, dict(channels or {})

    def build(self, variables):
        """Makes two moments and a weight average, float32, for each group of variables."""
        if self.built:
            return
        super().build(variables)
        self._groups = _group([math.prod(variable.shape) for variable in variables])
        self._moments = []
        for group in self._groups:
            shape = (sum(math.prod(variables[i].shape) for i in group),)
            names = ("momentum", "velocity", "average")
            self._moments.append([self.add_variable(shape, initializer="zeros", dtype="float32", name=n) for n in names])

    def _backend_apply_gradients(self, grads, trainable_variables):
        gradients = [_join([grads[i] for i in group]) for group in self._groups]
        replicas = _replica_context()
        if replicas:
            gradients = replicas.all_reduce("SUM", gradients)
        norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
        scale = ops.minimum(1.0, self.clip_norm / ops.maximum(norm, 1e-12))
        step = ops.cast(self.iterations + 1, "float32")
        correction = ops.sqrt(1 - ops.power(self.beta_2, step)) / (1 - ops.power(self.beta_1, step))
        rate = ops.cast(self.learning_rate, "float32") * correction
        keep = ops.minimum(self.average_momentum, step / (9 + step)) * ops.cast(step > 1, "float32")
        for group, gradient, moments in zip(self._groups, gradients, self._moments, strict=True):
            variables = [*moments, *(trainable_variables[i] for i in group)]
            channels = [self.channels.get(id(trainable_variables[i]), 0) for i in group]
            arguments = (gradient * scale, rate, keep, channels)
            if replicas:
                replicas.merge_call(self._update_replicas, args=([variable.value for variable in variables], *arguments))
            else:
                self._update(variables, *arguments)

    def _update_replicas(self, strategy, variables, *arguments):
        """Advances one group on every device of a TensorFlow strategy; all devices do the same."""

        def update(first, others, *arguments):
            self._update([first, *others], *arguments)

        strategy.extended.update(variables[0], update, args=(variables[1:], *arguments), group=False)

    def _update(self, variables, gradient, rate, keep, channels):
        """Advances one group by one step: its two moments, its average, then its weights."""
        first, second, average, *weights = variables
        first.assign(first + (gradient - first) * (1 - self.beta_1))
        second.assign(second + (ops.square(gradient) - second) * (1 - self.beta_2))
        step = rate * first / (ops.sqrt(second) + self.epsilon)
        if any(channels):
            ahead = _part(gradient * (1 - self.beta_1) + first * self.beta_1, weights)  # Nesterov's
            learning_rate = ops.cast(self.learning_rate, "float32")
            step = _join(
                learning_rate * orthogonal_step(ops.reshape(turn, (-1, count))) if count else own
                for turn, own, count in zip(ahead, _part(step, weights), channels, strict=True)
            )
        moved = _join(weights) - step
        average.assign(average * keep + moved * (1 - keep))
        for weight, value in zip(weights, _part(moved, weights), strict=True):
            weight.assign(ops.reshape(value, weight.shape))

    def averages(self):
        """Returns the averaged weights as NumPy arrays, in the order and shapes of the variables given to `build`."""
        answer = []
        for group, (_, _, average) in zip(self._groups, self._moments, strict=True):
            variables = [self._trainable_variables[i] for i in group]
            parts = _part(ops.convert_to_tensor(average), variables)
            answer += [ops.convert_to_numpy(part).reshape(v.shape) for part, v in zip(parts, variables, strict=True)]
        return answer


def kernel_channels(network: keras.Model) -> dict[int, int]:
    """The kernels of a network that mix channels: `id` of the variable → output channels; no depthwise and no dense ones."""
    counts = {}
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            counts |= kernel_channels(layer)
        elif type(layer) in (OrientedConvolution, keras.layers.Conv2D):
            counts[id(layer.kernel)] = layer.filters
    return counts


def orthogonal_step(matrix):
    """The direction of Muon: nearly the orthogonal matrix that is nearest to `matrix`, (R, C), with a root mean square of 0.2.

    Five steps of Newton's and Schulz's iteration with the coefficients of Jordan et al. 2024; they leave the singular
    values near 1 and not at it.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (ops.sqrt(ops.sum(ops.square(matrix))) + 1e-7)
    x = ops.transpose(x) if tall else x
    for _ in range(5):
        square = ops.matmul(x, ops.transpose(x))
        x = 3.4445 * x + ops.matmul(-4.775 * square + 2.0315 * ops.matmul(square, square), x)
    return 0.2 * math.sqrt(max(matrix.shape)) * (ops.transpose(x) if tall else x)


def _replica_context():
    """The context of a step that TensorFlow runs on several devices at once; None for a step on one."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None


def _group(sizes: list[int]) -> list[list[int]]:
    """Neighboring variables, together at most `GROUP` numbers or one variable alone."""
    groups, total = [[]], 0
    for number, size in enumerate(sizes):
        if groups[-1] and total + size > GROUP:
            groups.append([])
            total = 0
        groups[-1].append(number)
        total += size
    return groups


def _join(tensors):
    return ops.concatenate([ops.reshape(ops.cast(tensor, "float32"), (-1,)) for tensor in tensors])


def _part(vector, variables):
    sizes = [math.prod(variable.shape) for variable in variables]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return ops.split(vector, ends) if ends else [vector]


def norm_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns all trainable batch-normalization layers of a network, those inside its backbones included."""
    nested = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    own = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return own + [layer for model in nested for layer in norm_layers(model)]


def reestimate_norm(network: keras.Model, batches: list[np.ndarray]) -> None:
    """Gives every trainable batch-normalization layer the mean and variance of `batches` under the present weights.

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


def draw_norm_rows(rows: np.ndarray, count: int, batch_size: int, seed: int) -> np.ndarray:
    """Draws about `count` of the training rows for `reestimate_norm`, in batches of equal length: (batches, N)."""
    size = min(batch_size, count, len(rows))
    batches = max(1, min(count, len(rows)) // size)
    return np.random.default_rng(seed).permutation(rows)[: batches * size].reshape(batches, size)
