"""Stain densities and color statistics mean what their docstrings say."""

import numpy as np
import pandas as pd
import pytest
from skimage.color import hed2rgb

from histopath.data import stains


def painted(hematoxylin, eosin, size=8):
    """A uniform patch of the given stain densities, uint8 (size, size, 3)."""
    density = np.array([hematoxylin / 6, eosin / 6, 0.0])
    return np.round(255 * hed2rgb(np.broadcast_to(density, (size, size, 3)))).astype(np.uint8)


def uniform(*levels, size=8):
    """One uniform gray patch a level, uint8 (N, size, size, 3)."""
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize(("hematoxylin", "eosin"), [(0.5, 0.1), (0.1, 0.5), (0.3, 0.3), (0.0, 0.4)])
def test_separation_returns_the_densities_that_were_painted(hematoxylin, eosin):
    found = stains.separate(painted(hematoxylin, eosin)[None])
    # Rounding to 8 bits moves a density by about 0.01 at most at these levels.
    assert found[0] == pytest.approx(np.full((1, 8, 8), hematoxylin), abs=0.02)
    assert found[1] == pytest.approx(np.full((1, 8, 8), eosin), abs=0.02)
    assert found[0].dtype == found[1].dtype == np.float32


def test_white_glass_has_no_stain_and_no_density_is_negative():
    hematoxylin, eosin = stains.separate(uniform(255))
    assert hematoxylin.max() == eosin.max() == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert all(part.min() >= 0 for part in stains.separate(noise))


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_statistics_follow_the_rows_for_any_batch(batch):
    images = np.stack([painted(0.5, 0.1), painted(0.1, 0.5), *uniform(255, 0)])
    table = stains.stain_statistics(images, [2, 0, 1, 3, 0], batch)
    assert table["row"].tolist() == [2, 0, 1, 3, 0]
    assert table.loc[1, "hematoxylin"] > 3 * table.loc[1, "eosin"]
    assert table.loc[2, "eosin"] > 3 * table.loc[2, "hematoxylin"]
    assert table["brightness"].iloc[[0, 3]].tolist() == [1, 0]
    assert table["saturation"].iloc[[0, 3]].tolist() == [0, 0] and table.loc[1, "saturation"] > 0.2
    assert table.loc[1].drop("row").equals(table.loc[4].drop("row"))


def test_statistics_of_no_rows_are_an_empty_table():
    table = stains.stain_statistics(uniform(9), [])
    assert table.empty and list(table) == ["row", "hematoxylin", "eosin", "brightness", "saturation"]


def test_near_white_and_near_black_stop_at_their_thresholds():
    images = uniform(255, 220, 219, 41, 40, 0)
    rows = np.arange(6)
    assert stains.near_white(images, rows).tolist() == [True, True, False, False, False, False]
    assert stains.near_black(images, rows).tolist() == [False, False, False, False, True, True]


def test_a_patch_with_a_tenth_of_tissue_is_not_near_white():
    image = uniform(255, size=10)
    image[0, 0] = (150, 60, 120)
    assert not stains.near_white(image, [0])[0]
    image[0, 0, 4:] = 255
    assert stains.near_white(image, [0])[0]


def test_colored_light_is_not_white():
    image = uniform(255)
    image[..., 1] = 150
    assert not stains.near_white(image, [0])[0]


def test_duplicates_are_groups_of_positions_in_order():
    table = pd.DataFrame({"pixel_hash": list("cbabdcab")}, index=np.arange(8) + 100)
    assert [group.tolist() for group in stains.duplicates(table)] == [[0, 5], [1, 3, 7], [2, 6]]
    assert stains.duplicates(table.iloc[:3]) == []
