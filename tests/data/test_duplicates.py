"""Near-duplicates: found after JPEG and small changes, and nothing else."""

import cv2
import numpy as np
import pytest

from histopath.data.splits import NEAR, find_near_duplicates, group_near_duplicates, perceptual_hashes

# The looks of the first patches of the sample; they must be the same on every machine.
GOLDEN = [8850317211195574553, 7862738476951538816, 1399750944528697718, 3924643452015188068]


def saved_as_jpeg(images, quality):
    written = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for image in images]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_COLOR) for one in written])


def test_the_looks_are_the_golden_ones(patches):
    assert perceptual_hashes(patches.images[:4]).tolist() == GOLDEN
    assert (patches.table["perceptual_hash"].to_numpy() == perceptual_hashes(np.asarray(patches.images))).all()


def test_a_patch_looks_the_same_after_jpeg_and_a_little_light(patches):
    images = patches.images[:200]
    looks = perceptual_hashes(images)
    for changed in (saved_as_jpeg(images, 75), np.clip(images.astype(int) + 6, 0, 255).astype("uint8")):
        apart = np.bitwise_count(looks ^ perceptual_hashes(changed))[looks > 0]
        assert np.mean(apart <= NEAR) > 0.97


def test_other_patches_do_not_look_the_same(patches):
    groups = group_near_duplicates(patches.table["perceptual_hash"].to_numpy(), patches.table["pixel_hash"].to_numpy())
    counts = np.bincount(groups)
    equal = len(patches) - patches.table["pixel_hash"].nunique()
    assert len(patches) - len(counts) <= equal + 3 and counts.max() <= 3


def test_empty_patches_have_no_look_and_resized_ones_keep_theirs(patches):
    blank = np.full((2, 96, 96, 3), 240, "uint8")
    assert perceptual_hashes(blank).tolist() == [0, 0]
    assert group_near_duplicates(np.zeros(3, "uint64"), np.array(["a", "b", "a"])).tolist() == [0, 1, 0]
    larger = np.stack([cv2.resize(image, (150, 120), interpolation=cv2.INTER_CUBIC) for image in patches.images[:40]])
    apart = np.bitwise_count(perceptual_hashes(larger) ^ perceptual_hashes(patches.images[:40]))
    assert np.mean(apart <= 6) > 0.9


@pytest.mark.parametrize("bits", [(0,), (3, 40), (21, 22), (62, 0)])
def test_two_bits_are_near_and_groups_are_chained(bits):
    look = np.uint64(0x5A5A_1234_9876_0F0F)
    near = look ^ sum(np.uint64(1) << np.uint64(bit) for bit in bits)
    far = near ^ np.uint64(0b1110_0000)
    looks = np.array([look, far, near, 1], "uint64")
    groups = group_near_duplicates(looks, np.arange(4))
    assert groups[0] == groups[2] and len(set(groups.tolist())) == 3
    assert find_near_duplicates(looks, np.array([look])).tolist() == [True, False, True, False]
    chained = group_near_duplicates(np.array([look, look ^ np.uint64(3), look ^ np.uint64(15)]), np.arange(3))
    assert len(set(chained.tolist())) == 1
