"""Small functions that several test modules share."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from histopath.data.layouts.read import read_source
from histopath.files import InputError


@st.composite
def scored(draw):
    """Labels with both classes, and probabilities on a coarse grid so that ties are common."""
    size = draw(st.integers(2, 60))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    assume(0 < labels.sum() < size)
    steps = draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    return labels, np.array(steps) / 20


def simulated(seed, patches=300, slides=None, spread=0.0):
    """Labels, probabilities and slide names; `spread` is how far the scores of a slide lie from the others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, patches)
    names = rng.integers(0, slides or 1, patches)
    offsets = rng.normal(0, spread, slides or 1)
    scores = rng.normal(0, 1, patches) + labels + offsets[names]
    return labels, 1 / (1 + np.exp(-scores)), np.char.add("slide_", names.astype(str))


def touch_all(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refusal(root: Path) -> str:
    """Returns the text of the error, which must be a single sentence."""
    with pytest.raises(InputError) as caught:
        read_source(root)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "; " in text, text
    return text
