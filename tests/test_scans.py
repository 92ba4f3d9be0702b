"""The drawing of scans: integers alone, grey, lesions where they belong."""

import numpy as np
import pytest

from histopath import scans, tissue

KINDS = [("brain", "glioma"), ("brain", "menin"), ("brain", "tumor"), ("kidney", "normal"), ("kidney", "tumor")]


@pytest.mark.parametrize(("organ", "kind"), KINDS)
def test_no_float_is_computed(organ, kind):
    painted = scans.SCANNED[organ](tissue.generator(2), kind)
    assert np.issubdtype(painted.dtype, np.integer) and painted.shape == (128, 128)


@pytest.mark.parametrize(("organ", "kind"), KINDS)
def test_a_scan_is_grey_and_dark_around_the_body(organ, kind):
    image = scans.render_scan(tissue.generator(3), organ, kind)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert not np.ptp(image, axis=-1).any()
    assert image[:6].mean() < 10 < image[40:90, 40:90].mean() / 4


@pytest.mark.parametrize(("turn", "half"), [(0, (20, 40)), (8, (40, 20))])
def test_a_blob_is_an_ellipse_around_its_middle(turn, half):
    out = scans.blob(tissue.generator(1), (60, 70), 40, 50, turn)
    assert out[60, 70] == out.min() == 0
    inside = np.argwhere(out < 1024)
    assert (inside.max(0) - inside.min(0)).tolist() == [2 * half[0] - 2, 2 * half[1] - 2]  # the border is outside


def test_a_bent_blob_is_no_ellipse():
    straight, bent = (scans.blob(tissue.generator(1), (60, 70), 40, 50, 0, bend) for bend in (0, 5))
    wandered = (straight < 1024) ^ (bent < 1024)
    assert 50 < wandered.sum() < (straight < 1024).sum() / 2


def test_a_level_is_laid_inside_a_border_and_nowhere_else():
    out = np.arange(128 * 128).reshape(128, 128) // 8
    hard, soft = np.full((128, 128), 40, np.int64), np.full((128, 128), 40, np.int64)
    scans.lay(hard, out, 200, 1000)
    scans.lay(soft, out, 200, 1000, 30)
    assert set(hard[out >= 1000]) == set(soft[out >= 1000]) == {40}
    assert set(hard[out < 1000 - 192]) == {200}  # 256 in steps of 4 / 3
    between = soft[(out > 500) & (out < 800)]
    assert 40 < between.min() and between.max() < 200


@pytest.mark.parametrize("kind", ["glioma", "menin", "tumor"])
def test_lesions_are_bright(kind):
    """The brightest pixels of a brain inside its scalp: the lesion fills some, in every brain."""
    rows, columns = np.ogrid[:128, :128]
    inner = (rows - 64) ** 2 + (columns - 64) ** 2 < 28**2
    brains = [scans.render_scan(tissue.generator(4, number), "brain", kind)[..., 0][inner] for number in range(16)]
    assert all((brain > np.median(brain) + 30).sum() > 10 for brain in brains)


def test_a_lesion_stays_inside_the_brain():
    image, brain = np.full((128, 128), 80, np.int64), np.zeros((128, 128), bool)
    brain[:, :70] = True
    frame = (np.array([64, 64]), np.array([1, 0]), np.array([0, 1]))
    for number in range(8):
        scans.paint_lesion(tissue.generator(5, number), image, "glioma", 80, frame, brain)
    assert (image[:, 70:] == 80).all() and (image[:, :70] > 120).any()


def test_a_tumor_hides_part_of_one_kidney():
    """The same abdomen with and without: one side is as it was but for the brightness of both kidneys."""
    images = []
    for kind in ("normal", "tumor"):
        image = np.zeros((128, 128), np.int64)
        scans.paint_kidneys(tissue.generator(6), image, kind, np.array([62, 62]))
        images.append(image)
    covered = [[(half > 0).sum() for half in np.hsplit(image, 2)] for image in images]
    assert max(covered[1]) > 1.2 * max(covered[0])
