"""Probabilities of patches, in batches of one size. In: a network, uint8 patches and row numbers. Out: float32 arrays."""

from collections.abc import Callable, Iterator

import numpy as np

from histopath.files import InputError, progress_bar
from histopath.models.backend import keras, uses_xla
from histopath.models.equivariant import answers_views_alike


def eight_views(batch: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the eight flips and quarter turns of a batch (N, S, S, 3): the dihedral group of the square, identity first."""
    for turned in (batch, batch.transpose(0, 2, 1, 3)):
        for rows in (slice(None), slice(None, None, -1)):
            for columns in (slice(None), slice(None, None, -1)):
                yield np.ascontiguousarray(turned[:, rows, columns])


def predict(
    network: keras.Model,
    images: np.ndarray,
    rows: np.ndarray | None = None,
    views: int = 8,
    batch_size: int = 64,
    progress: bool = False,
) -> np.ndarray:
    """Predicts what the first, or only, output of a network tells apart; see `predict_heads`."""
    return predict_heads(network, images, rows, views, batch_size, progress)[0]


def predict_heads(
    network: keras.Model,
    images: np.ndarray,
    rows: np.ndarray | None = None,
    views: int = 8,
    batch_size: int = 64,
    progress: bool = False,
) -> list[np.ndarray]:
    """Predicts probabilities, averaged over views.

    Every step has the same shape (the last batch is filled up), so nothing is compiled twice; memory holds one batch.

    Args:
        network: uint8 patches (N, H, W, 3) → probabilities (N, 1) or (N, K), one output or several.
        images: uint8 patches in 0-255, memory-mapped or not.
        rows: which of them, in the order of the answer; None for all.
        views: 8 for all flips and quarter turns, 1 for the patch as it is; a network that gives all eight the same answer
            (`equivariant.answers_views_alike`) is asked once.
        batch_size: patches in one step.
        progress: show a progress bar.

    Returns:
        For each output float32 in [0, 1]: of class 1, (len(rows),), where it tells two classes apart, by a sigmoid or a
        softmax; of each class, (len(rows), K), where there are more.

    Raises:
        InputError: when the patches have another size than the network takes, or views is neither 1 nor 8.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    if views not in (1, 8):
        raise InputError(f"A patch has 8 views or 1, not {views}; give --views 8 or --views 1.")
    check_size(network, images)
    step, turned = prediction_step(network), views == 8 and not answers_views_alike(network)
    answers = [np.empty((len(rows), output.shape[1]), "float32") for output in network.outputs]
    with progress_bar("predicting", len(rows), 0, progress) as bar:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = images[np.resize(part, min(batch_size, len(rows)))]
            chosen = eight_views(batch) if turned else [batch]
            outputs = zip(*(keras.tree.flatten(step(view)) for view in chosen), strict=True)
            for answer, of_views in zip(answers, outputs, strict=True):
                answer[start : start + batch_size] = np.mean(of_views, axis=0)[: len(part)]
            bar.update(len(part))
    return [answer[:, -1] if answer.shape[1] <= 2 else answer for answer in answers]


def prediction_step(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the compiled forward pass of a network."""
    network.jit_compile = uses_xla()
    return network.predict_on_batch


def check_size(network: keras.Model, images: np.ndarray) -> None:
    """Raises an InputError when the patches have another size than the network takes."""
    expected = tuple(network.input_shape[1:])
    if images.shape[1:] != expected:
        got, want = ("×".join(map(str, shape)) for shape in (images.shape[1:], expected))
        raise InputError(f"The patches are {got} and {network.name} takes {want}; give patches of that size.")
