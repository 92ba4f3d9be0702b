"""The sample slide: equal pixels everywhere, tiles labeled by the tumor that was drawn."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from histopath import config
from histopath.synthetic import slide as sample

# Of the pixels of VERSION 2; raise it with a change of this.
GOLDEN_SHA256 = "9e3e147a722fe25094e4a26bc0ab1db84b10071c350e5cbcd0f04e81631f52c5"


@pytest.fixture(scope="module")
def folder(slide):
    return slide.parents[1]


@pytest.mark.slow
def test_the_pixels_are_the_golden_ones():
    image, tumor = sample.render_slide(0)
    assert hashlib.sha256(image.tobytes() + tumor.tobytes()).hexdigest() == GOLDEN_SHA256


def test_the_resolution_is_that_of_the_patches():
    assert sample.MICRONS_PER_PIXEL == config.MICRONS_PER_PIXEL


def test_a_tile_is_tumor_when_its_center_holds_some(folder):
    tumor = sample.read_tumor(folder)
    row, column = np.argwhere(tumor)[0] * sample.MASK  # the upper end of the tumor
    above = [column - 48, row - 64]  # 32 x 32 pixels that end where the tumor begins
    corners = np.array([above, [above[0], above[1] + 8], [0, 0]])
    scores = pd.DataFrame(corners * 2, columns=["x", "y"])  # in pixels half as large
    assert sample.label_tiles(folder, scores).tolist() == [0, 1, 0]


def test_the_tumor_is_one_focus(folder):
    tumor = sample.read_tumor(folder)
    assert tumor.shape == (192, 192) and 0.02 < tumor.mean() < 0.1
