"""Each augmentation changes what it should and nothing else."""

import cv2
import numpy as np
import pytest

from histopath.models.predict import eight_views
from histopath.training.augment import (
    ClassicAugmentation,
    RandomDihedral,
    RandomFocus,
    RandomLight,
    RandomShift,
    RandomStain,
    augmentation_layers,
)

LAYERS = [
    RandomDihedral(seed=1),
    RandomShift(4, seed=1),
    RandomStain(0.3, seed=1),
    RandomLight(0.3, seed=1),
    RandomFocus(1.0, seed=1),
    ClassicAugmentation(seed=1),
]
each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), dtype="uint8")


def vary(layer, images):
    return np.asarray(layer(images, training=True))


@each_layer
def test_nothing_changes_outside_training_and_something_inside(layer, batch):
    np.testing.assert_array_equal(np.asarray(layer(batch)), batch)
    assert (vary(layer, batch) != batch).any(axis=(1, 2, 3)).mean() > 0.3


@each_layer
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_shape_and_type_stay_and_values_stay_in_range(layer, batch, kind):
    varied = vary(layer, batch.astype(kind))
    assert varied.shape == batch.shape and varied.dtype == kind
    assert varied.min() >= 0 and varied.max() <= 255


@each_layer
def test_the_same_seed_draws_the_same_and_patches_differ_among_themselves(layer, batch):
    first, second = (type(layer).from_config(layer.get_config() | {"seed": 5}) for _ in range(2))
    np.testing.assert_array_equal(vary(first, batch), vary(second, batch))
    same = np.repeat(batch[:1], 12, axis=0)
    assert len({image.tobytes() for image in vary(first, same)}) > 4


def test_all_eight_views_are_reached_and_nothing_else(batch):
    views = {view[0].tobytes() for view in eight_views(batch[:1])}
    assert len(views) == 8
    drawn = {image.tobytes() for image in vary(RandomDihedral(seed=2), np.repeat(batch[:1], 200, axis=0))}
    assert drawn == views


def test_eight_views_keep_the_pixels_of_the_center(batch):
    varied = vary(RandomDihedral(seed=3), batch)
    for image, original in zip(varied, batch, strict=True):
        assert sorted(image[32:64, 32:64].ravel()) == sorted(original[32:64, 32:64].ravel())


def test_a_shift_moves_by_at_most_four_pixels_and_reaches_them_all():
    place = np.zeros((300, 96, 96, 3), "uint8")
    place[:, 48, 48] = 255
    varied = vary(RandomShift(4, seed=4), place)
    rows, columns = np.argwhere(varied[..., 0] == 255)[:, 1:].T
    assert set(rows - 48) == set(columns - 48) == set(range(-4, 5))
    assert len(rows) == 300


def test_a_shift_fills_its_edge_by_reflection(batch):
    varied = vary(RandomShift(4, seed=5), batch)
    padded = np.pad(batch, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    for image, wide in zip(varied, padded, strict=True):
        windows = [wide[i : i + 96, j : j + 96] for i in range(9) for j in range(9)]
        assert any((image == window).all() for window in windows)


def test_light_scales_whole_patches_within_its_strength():
    gray = np.full((400, 8, 8, 3), 100, "float32")
    varied = vary(RandomLight(0.4, seed=6), gray)
    assert (np.ptp(varied, axis=(1, 2)) < 1e-3).all()
    means = varied.mean(axis=(1, 2, 3)) / 100
    assert 0.54 <= means.min() < 0.7 and 1.3 < means.max() <= 1.54
    assert np.ptp(varied[:, 0, 0], axis=1).max() < 35


def test_focus_leaves_half_of_the_patches_and_mixes_the_others_with_a_gaussian(batch):
    patches = np.resize(batch, (200, 96, 96, 3)).astype("float32")
    varied = vary(RandomFocus(0.8, seed=7), patches)
    changed = (varied != patches).any(axis=(1, 2, 3))
    assert 0.35 < changed.mean() < 0.65
    for image, original in zip(varied[changed][:8], patches[changed][:8], strict=True):
        soft = cv2.GaussianBlur(original, (9, 9), 1.5, borderType=cv2.BORDER_REFLECT_101) - original
        share = np.vdot(image - original, soft) / np.vdot(soft, soft)
        assert 0 < share <= 0.8
        np.testing.assert_allclose(image, original + share * soft, atol=0.05)


def test_stain_jitter_leaves_white_white_and_keeps_the_order_of_brightness():
    white = np.full((32, 96, 96, 3), 255, "uint8")
    assert (vary(RandomStain(0.3, seed=6), white) == 255).all()
    ramp = np.tile(np.linspace(0, 255, 96).astype("uint8")[None, None, :, None], (32, 96, 1, 3))
    varied = vary(RandomStain(0.3, seed=6), ramp).astype(int)
    assert (np.diff(varied.mean(axis=(1, 3)), axis=1) >= 0).all()


def test_stain_jitter_changes_color_and_moves_no_pixel(batch):
    varied = vary(RandomStain(0.2, seed=7), batch.astype("float32"))
    density, before = (-np.log((images.reshape(12, -1, 3) + 1) / 256) for images in (varied, batch.astype("float32")))
    for new, old in zip(density, before, strict=True):
        inside = (new.max(axis=1) < 5.4) & (new.min(axis=1) > 0.01)  # away from the clipped ends
        fit, *_ = np.linalg.lstsq(old[inside], new[inside], rcond=None)
        np.testing.assert_allclose(old[inside] @ fit, new[inside], atol=1e-2)
        assert abs(fit - np.eye(3)).max() > 1e-3


def test_the_classic_set_moves_the_center_out_of_the_middle_and_fills_with_the_nearest():
    marked = np.zeros((200, 96, 96, 3), "float32")
    marked[:, 32:64, 32:64] = 255
    kept = vary(ClassicAugmentation(seed=8), marked)[:, 32:64, 32:64, 0].mean(axis=(1, 2)) / 255
    assert kept.min() < 0.2 and kept.max() > 0.8
    assert (vary(ClassicAugmentation(seed=8), np.full_like(marked, 77)) > 76.9).all()


def test_an_augmentation_is_chosen_by_name():
    assert [type(layer) for layer in augmentation_layers("dihedral", 0)] == [RandomDihedral, RandomShift, RandomStain]
    assert [type(layer) for layer in augmentation_layers("dihedral", 0, shift=0, stain=0)] == [RandomDihedral]
    assert [type(layer) for layer in augmentation_layers("classic", 0)] == [ClassicAugmentation]
    assert augmentation_layers("none", 0) == []
    assert [type(layer) for layer in augmentation_layers("dihedral", 0, light=0.2, focus=1)][3:] == [RandomLight, RandomFocus]
