"""Train, val and holdout. In: the table of a PatchSet. Out: one row a labeled patch with its split, proved disjoint.

The draws are our own, on NumPy's frozen `RandomState`: a seed gives the same splits with every version of every library.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from histopath.files import InputError

SPLITS = ("train", "val", "holdout")
DRAWS = 20  # random divisions of the slides: the first that is even enough is taken, else the best of them
EVEN = 0.05  # how far the share of each class may then be from the wanted one, as a part of that
COLUMNS = ["row", "id", "split", "label", "slide", "pixel_hash", "perceptual_hash", "duplicate_group"]


def split_patches(
    table: pd.DataFrame,
    val_fraction: float = 0.15,
    holdout_fraction: float = 0.2,
    seed: int = 0,
    class_names: Sequence[str] = (),
    fold: tuple[int, int] = (0, 0),
) -> pd.DataFrame:
    """Divides the labeled patches: train fits, val chooses the checkpoint and the threshold, holdout is scored once.

    Published parts are kept: labeled `valid` becomes val, labeled `test` holdout; what is missing is drawn out of train.
    Patches of one slide stay together where slides are known; near-duplicates always do (`group_near_duplicates`).

    Args:
        table: columns `id`, `label` (-1 unknown), `slide` ("" unknown), `part`, `pixel_hash`, `perceptual_hash`; row i is
            image i.
        val_fraction: wanted share of val.
        holdout_fraction: wanted share of holdout.
        seed: seeds the draw.
        class_names: names of the labels, for what is said about them.
        fold: which fold, from 1 on, of how many is the holdout; published parts are then pooled. (0, 0): as said above.

    Returns:
        Columns `row` (number of the image), `id`, `split`, `label`, `slide`, `pixel_hash`, `perceptual_hash`,
        `duplicate_group` (number of the group of near-duplicates), in the order of the table.

    Raises:
        InputError: when no patch is labeled, there is one class only, or a class has too few patches or slides to divide.
    """
    labeled = table.assign(row=np.arange(len(table)))
    labeled = labeled[labeled["label"] >= 0].reset_index(drop=True)
    labeled["duplicate_group"] = group_near_duplicates(
        labeled["perceptual_hash"].to_numpy("uint64"), labeled["pixel_hash"].to_numpy()
    )
    _check_labels(labeled, class_names)
    split = labeled["part"].map({"valid": "val", "test": "holdout"}).fillna("train").to_numpy(dtype=object)
    if fold[1]:
        split[:] = "train"
        split[_draw_fold(labeled, *fold, seed)] = "holdout"
        holdout_fraction = 1 / fold[1]
    for name, fraction, others in (("holdout", holdout_fraction, 0.0), ("val", val_fraction, holdout_fraction)):
        if not (split == name).any():
            pool = np.flatnonzero(split == "train")
            split[pool[_draw(labeled.iloc[pool], fraction / (1 - others), seed)]] = name
    splits = labeled.assign(split=split)[COLUMNS]
    splits = _drop_copies(splits)
    check_splits(splits)
    return splits


def check_splits(splits: pd.DataFrame) -> pd.DataFrame:
    """Proves that no image, slide, pixels or look stand in two splits, and that each split has every class.

    Returns:
        One row a split: patches, positives (classes, when there are more than two), slides and distinct images.

    Raises:
        InputError: when two splits share something, or a split is empty or lacks a class; the text says which.
    """
    for column in ("row", "slide", "pixel_hash", "duplicate_group"):
        known = splits[splits[column] != ""]
        shared = known.groupby(column)["split"].nunique()
        if (shared > 1).any():
            raise InputError(
                f"The {column} {shared.index[shared > 1][0]} stands in more than one split; if the data comes in parts, "
                "merge their folders, so that they are split anew."
            )
    known_classes = max(2, splits["label"].nunique())
    for name in SPLITS:
        classes = splits.loc[splits["split"] == name, "label"].nunique()
        if classes < known_classes:
            raise InputError(
                f"The {name} split has patches of {classes} of the {known_classes} classes, so it cannot be scored; give more"
                f" patches (or slides) of each class, or change --set {'holdout' if name == 'holdout' else 'val'}_fraction."
            )
    groups = splits.groupby("split")
    second = {"positives": ("label", "sum")} if known_classes == 2 else {"classes": ("label", "nunique")}
    counts = groups.agg(patches=("row", "size"), **second, images=("pixel_hash", "nunique"))
    counts.insert(2, "slides", groups["slide"].agg(lambda names: names[names != ""].nunique()))
    return counts.reindex(list(SPLITS))


def count_leaks(table: pd.DataFrame, val_fraction: float, holdout_fraction: float, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Counts the slides that a random split and a split by slide put into more than one of train, val and holdout.

    Args:
        table: as in `split_patches`.
        val_fraction: wanted share of val.
        holdout_fraction: wanted share of holdout.
        seed: seeds both draws.

    Returns:
        Way of splitting → (slides in more than one split, slides known).
    """
    counts = {}
    for way, used in (("random split", table.assign(slide="", part="train")), ("split by slide", table)):
        splits = split_patches(used, val_fraction, holdout_fraction, seed)
        slide = table["slide"].to_numpy()[splits["row"]]
        known = splits[slide != ""].groupby(slide[slide != ""])["split"].nunique()
        counts[way] = (int((known > 1).sum()), len(known))
    return counts


def known_slides(rows: pd.DataFrame) -> np.ndarray | None:
    """Returns the slide of every row, (N,), to score by slide; None where one is unknown."""
    return rows["slide"].to_numpy() if (rows["slide"] != "").all() else None


def describe_grouping(splits: pd.DataFrame) -> str:
    """Says in words what the splits keep apart, for every place where a score of them is shown."""
    known = splits["slide"] != ""
    if known.all():
        return f"split by slide ({splits['slide'].nunique()} slides)"
    if known.any() and (splits.loc[~known, "split"] == "train").all():
        return f"split by slide where known; {(~known).sum():,} patches of unknown slide are in train only"
    if known.any():
        return f"split by slide where known; {(~known).sum():,} patches of unknown slide may share slides across the split"
    return "slides unknown: one slide can stand on both sides of the split, so the score may be too high"


def _check_labels(labeled: pd.DataFrame, class_names: Sequence[str]) -> None:
    counts = labeled.groupby("label")["pixel_hash"].nunique()
    if not len(counts):
        raise InputError("No patch has a label, so nothing can be trained or scored; give labeled patches.")
    if len(counts) == 1:
        raise InputError(f"All {len(labeled):,} labeled patches are of class {counts.index[0]}; training needs two or more.")
    rarest = counts.idxmin()
    if counts[rarest] < 3:
        name = class_names[rarest] if rarest < len(class_names) else rarest
        raise InputError(
            f"The class {name} has {counts[rarest]} different labeled patches and needs one each in train, val and holdout; "
            "give at least 3, or remove the class."
        )


def _draw(pool: pd.DataFrame, fraction: float, seed: int) -> np.ndarray:
    """Positions in `pool` of about `fraction` of it: whole slides where slides are known, whole groups that look the same."""
    known = np.flatnonzero(pool["slide"] != "")
    if len(known):
        return known[_draw_slides(pool.iloc[known], fraction, seed)]
    firsts = pool.drop_duplicates("duplicate_group")
    numbers = _number_alike(firsts["label"].to_numpy(), seed)
    sizes = firsts["label"].map(firsts["label"].value_counts()).to_numpy()
    drawn = numbers < np.maximum(1, np.rint(fraction * sizes))
    return np.flatnonzero(pool["duplicate_group"].isin(firsts["duplicate_group"][drawn]))


def _draw_fold(labeled: pd.DataFrame, fold: int, folds: int, seed: int) -> np.ndarray:
    """Positions of one fold, from 1 on: whole slides where they are known, whole groups that look the same."""
    groups = labeled["slide"].where(labeled["slide"] != "", "group " + labeled["duplicate_group"].astype(str))
    if groups.groupby(labeled["label"]).nunique().min() < folds:
        raise InputError(f"A class stands in fewer than {folds} slides or images that differ; give more, or take fewer --folds.")
    if (labeled["slide"] == "").all():  # the same, without a loop over every patch
        firsts = groups.drop_duplicates().index
        fold_of = pd.Series(_number_alike(labeled["label"][firsts].to_numpy(), seed) % folds, groups[firsts])
    else:
        counts = _count_labels(groups, labeled["label"])
        fold_of = pd.Series(_assign_folds(counts.to_numpy(), folds, seed), counts.index)
    return np.flatnonzero(groups.map(fold_of) == fold - 1)


def _draw_slides(pool: pd.DataFrame, fraction: float, seed: int) -> np.ndarray:
    """Positions of whole slides that come near the wanted share of every class."""
    counts = _count_labels(pool["slide"], pool["label"])
    if len(counts) < 3:
        raise InputError(
            f"{len(counts)} slides are too few to keep {fraction:.0%} of the patches apart by slide; give patches of more "
            "slides, or leave the slide table out."
        )
    shares = counts.to_numpy() / counts.to_numpy().sum(axis=0)
    draw, best = np.random.RandomState(seed), (np.inf, None)
    for _ in range(DRAWS):
        chosen, reached = [], np.zeros(shares.shape[1])
        for slide in draw.permutation(len(shares)):
            if np.sum((reached + shares[slide] - fraction) ** 2) < np.sum((reached - fraction) ** 2):
                chosen.append(slide)
                reached += shares[slide]
        chosen = chosen or [np.argmin(np.sum((shares - fraction) ** 2, axis=1))]
        best = min(best, (np.abs(shares[chosen].sum(axis=0) / fraction - 1).max(), chosen), key=lambda each: each[0])
        if best[0] <= EVEN:
            break
    return np.flatnonzero(pool["slide"].isin(counts.index[best[1]]))


def _assign_folds(counts: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every group, (G,), by its patches of each class, (G, K): the largest first, each to where it evens out most."""
    shares = counts / counts.sum(axis=0)
    draw, best = np.random.RandomState(seed), (np.inf, None)
    for _ in range(max(1, min(DRAWS, 100_000 // len(shares)))):
        order = draw.permutation(len(shares))
        order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
        reached, fold_of = np.zeros((folds, shares.shape[1])), np.zeros(len(shares), int)
        for group in order:
            rise = np.sum((reached + shares[group]) ** 2 - reached**2, axis=1)
            fold_of[group] = np.argmin(rise)
            reached[fold_of[group]] += shares[group]
        best = min(best, (np.abs(reached * folds - 1).max(), draw.permutation(folds)[fold_of]), key=lambda each: each[0])
        if best[0] <= EVEN:
            break
    return best[1]


def _number_alike(labels: np.ndarray, seed: int) -> np.ndarray:
    """Numbers the members of every class from 0 on, in random order: int (N,)."""
    draw, numbers = np.random.RandomState(seed), np.empty(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        numbers[members] = draw.permutation(len(members))
    return numbers


def _count_labels(groups: pd.Series, labels: pd.Series) -> pd.DataFrame:
    """Patches of each label in each group, by the group's name."""
    return pd.crosstab(groups.to_numpy(), labels.to_numpy())


def _drop_copies(splits: pd.DataFrame) -> pd.DataFrame:
    """Leaves what looks like a holdout patch out of val and train, and what looks like a val patch out of train."""
    rank = splits["split"].map({"holdout": 0, "val": 1, "train": 2})
    best = rank.groupby(splits["duplicate_group"]).transform("min")
    return splits[rank == best].reset_index(drop=True)


SIDE, LOW = 32, 8  # pixels of the patch that is transformed; frequencies along a side that are kept
NEAR = 2  # bits in which two looks of one patch may differ
BANDS = ((0, 22), (22, 43), (43, 64))  # of bits: of three, two differing bits leave one untouched
BLANK = 6.0  # spread of gray levels below which a patch has no look: empty patches are all alike
GRAY = np.array([77, 150, 29], "int64")  # 256 times the weights of ITU-R BT.601
# The cosine transform in whole numbers, so that a look is the same on every machine.
COSINES = np.rint(1024 * np.cos(np.pi * np.outer(np.arange(LOW), 2 * np.arange(SIDE) + 1) / (2 * SIDE)))


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """Returns the look of each patch, uint64 (N,); 0 for one with next to no structure.

    Args:
        images: uint8 (N, H, W, 3).
    """
    if images.shape[1] != images.shape[2] or images.shape[1] % SIDE:
        images = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images])
    step = images.shape[1] // SIDE
    lines = sum(images[:, number::step].astype("uint32") for number in range(step))
    sums = sum(lines[:, :, number::step] for number in range(step)) @ GRAY
    low = (COSINES @ sums.astype("float64") @ COSINES.T).reshape(len(images), -1)[:, 1:]  # whole numbers below 2**53
    bits = low > np.median(low, axis=1, keepdims=True)
    looks = (bits * (np.uint64(1) << np.arange(bits.shape[1], dtype="uint64"))).sum(axis=1, dtype="uint64")
    return np.where(sums.std(axis=(1, 2)) < BLANK * 256 * step**2, np.uint64(0), looks)


def group_near_duplicates(looks: np.ndarray, pixel_hashes: np.ndarray) -> np.ndarray:
    """Groups patches that look the same or have equal pixels; groups that share a patch are one.

    Args:
        looks: as from `perceptual_hashes`, (N,).
        pixel_hashes: hash of the pixels of each, (N,).

    Returns:
        Number of the group of each patch, int64 (N,).
    """
    first, second = _near_pairs(looks)
    equal = np.unique(pixel_hashes, return_inverse=True)[1]
    place = np.unique(equal, return_index=True)[1][equal]
    ends = np.concatenate([first, np.arange(len(looks))]), np.concatenate([second, place])
    joined = coo_array((np.ones(len(ends[0]), bool), ends), shape=(len(looks), len(looks)))
    return connected_components(joined, directed=False)[1].astype("int64")


def find_near_duplicates(looks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Says of each look, (N,), whether it is that of one of the known ones, (M,)."""
    first, second = _near_pairs(np.concatenate([looks, known]).astype("uint64"))
    across = (first < len(looks)) & (second >= len(looks))
    found = np.zeros(len(looks), bool)
    found[first[across]] = True
    return found


def _near_pairs(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions, the smaller first, of pairs of looks that differ in at most `NEAR` bits; a pair may stand there twice."""
    places = np.flatnonzero(looks)
    pairs = [np.empty((2, 0), "int64")]
    for low, high in BANDS:
        band = (looks[places] >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.r_[np.diff(band[order]) != 0, True]) + 1
        for bucket in np.split(places[order], ends[:-1])[: len(ends)]:
            for number, place in enumerate(bucket[:-1]):
                others = bucket[number + 1 :]
                near = others[np.bitwise_count(looks[others] ^ looks[place]) <= NEAR]
                pairs.append(np.stack([np.minimum(near, place), np.maximum(near, place)]))
    return tuple(np.concatenate(pairs, axis=1))
