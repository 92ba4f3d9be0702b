"""What a network is fed while it trains. In: memory-mapped patches, row numbers, labels. Out: shuffled batches.

Batches are streamed, patches from the memory-mapped array, or resident: the patches live on the device, the host sends row
numbers, and they are gathered inside the compiled step.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from histopath.config import Config, parse_copies
from histopath.data.patches import PatchSet
from histopath.data.tasks import Task
from histopath.models.backend import accelerators, device_memory, join_processes, keras, ops


class Batches(keras.utils.PyDataset):
    """Shuffled batches of one size; the order depends on seed and epoch alone, so that a resumed run sees the same."""

    def __init__(
        self, images, rows, targets, batch_size: int, seed: int, epoch: int = 0, steps: int = 0, share: tuple[int, int] = (0, 1)
    ):
        """Takes what the batches are drawn from.

        Args:
            images: what a network is given, by row number: uint8 patches (M, H, W, 3), memory-mapped or not, or int32 (M,).
            rows: row numbers to draw, (N,); a row may stand there several times.
            targets: for each output of the network float32 (N, K).
            batch_size: patches in a batch, at most N.
            seed: seeds the order.
            epoch: the epoch that comes next, from 0 on.
            steps: batches after which an epoch ends early; 0 for whole passes.
            share: which process this is, of how many; each is given its own part of every batch.
        """
        super().__init__()
        self.share = share
        self.images, self.rows, self.targets = images, rows, targets
        self.batch_size, self.seed, self.steps = min(batch_size, len(rows)), seed, steps
        self.start_epoch(epoch)

    def __len__(self):
        whole = len(self.rows) // self.batch_size
        return min(whole, self.steps) if self.steps else whole

    def __getitem__(self, index):
        number, count = self.share
        size = self.batch_size // count
        start = index * self.batch_size + number * size
        chosen = self.order[start : start + size]
        targets = tuple(target[chosen] for target in self.targets)
        return self.images[self.rows[chosen]], targets if len(targets) > 1 else targets[0]

    def on_epoch_end(self):
        """Draws the order of the next epoch."""
        self.start_epoch(self.epoch + 1)

    def start_epoch(self, epoch: int):
        """Draws the order of any epoch, from 0 on."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.rows))


class ResidentPatches(keras.layers.Layer):
    """Patches on the device: row numbers int32 (N,) in, uint8 patches (N, H, W, 3) out. Trained with, never saved."""

    def __init__(self, images, **kwargs):
        """Copies `images`, uint8 (M, H, W, 3), to the device as one variable that is not trained."""
        super().__init__(trainable=False, dtype="uint8", **kwargs)
        self.images = self.add_weight(
            shape=images.shape,
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(images),
            dtype="uint8",
            trainable=False,
        )

    def call(self, rows):
        """Gathers the patches of these rows."""
        return ops.take(self.images, rows, axis=0)

    def compute_output_spec(self, rows):
        """One patch a row number."""
        return keras.KerasTensor((*rows.shape, *self.images.shape[1:]), dtype="uint8")


def draw_batches(
    patches: PatchSet, config: Config, rows: pd.DataFrame, tasks: Sequence[Task], widths: Sequence[int], resident: bool
) -> Batches:
    """Makes batches of the training rows, each drawn as often as `copies` says, with targets for outputs of these widths.

    With `resident` they give positions among the patches of these rows, which are on the device, not patches.
    """
    drawn = repeat_rows(rows, config.copies, len(patches.class_names))
    targets = [one_hot(task.answers(drawn["label"]), width) for task, width in zip(tasks, widths, strict=True)]
    numbers, images = drawn["row"].to_numpy(), patches.images
    if resident:
        images = np.searchsorted(np.unique(numbers), np.arange(len(images))).astype("int32")
    return Batches(images, numbers, targets, config.batch_size, config.seed, 0, config.epoch_steps, join_processes())


def is_resident(feed: str, size: int, log: Callable[[str], None]) -> bool:
    """Whether training patches are kept on the device: as told, else on an accelerator of which they fill at most half.

    Args:
        feed: the setting of that name.
        size: bytes of the patches.
        log: takes one line where the patches would be resident but do not fit.
    """
    if feed != "auto" or not accelerators():
        return feed == "resident"
    room = device_memory()
    if room is not None and size <= room / 2:
        return True
    log(f"streaming the patches: {size / 1e9:.1f} GB do not fit into half of the device's {(room or 0) / 1e9:.1f} GB")
    return False


def repeat_rows(rows: pd.DataFrame, copies: str, class_count: int) -> pd.DataFrame:
    """Repeats the rows of a split as often as the setting `copies` has them seen in one epoch."""
    times = np.array(parse_copies(copies, class_count))[rows["label"]]
    return rows.loc[rows.index.repeat(times)].reset_index(drop=True)


def count_seen(splits: pd.DataFrame, copies: str, class_names: Sequence[str]) -> pd.DataFrame:
    """Counts the training images of each class, and how many of their copies one epoch sees.

    Args:
        splits: as made by `splits.split_patches`.
        copies: the setting of that name.
        class_names: name of label 0, 1, …

    Returns:
        One row a class: `images` in train, `copies` of each, `seen` in one epoch.
    """
    images = [int(((splits["split"] == "train") & (splits["label"] == label)).sum()) for label in range(len(class_names))]
    table = pd.DataFrame({"images": images, "copies": parse_copies(copies, len(class_names))}, index=list(class_names))
    return table.assign(seen=table["images"] * table["copies"])


def one_hot(answers: np.ndarray, width: int) -> np.ndarray:
    """What an output should answer, float32 (N, width): the class itself for a sigmoid, one of K for a softmax."""
    return answers[:, None].astype("float32") if width == 1 else np.eye(width, dtype="float32")[answers]
