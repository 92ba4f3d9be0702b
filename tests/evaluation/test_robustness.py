"""Each change grows with its severity and leaves the patches patches; the table starts at the unchanged AUC."""

import numpy as np
import pytest

from histopath.evaluation.robustness import SEVERITIES, SHIFTS, ShiftedPatches, shifted_aucs
from histopath.metrics.binary import auc
from histopath.models.predict import predict


@pytest.mark.parametrize("name", SHIFTS)
def test_a_change_grows_with_its_severity(name, patches):
    images = np.asarray(patches.images[:24])
    changed = [SHIFTS[name](images, severity) for severity in SEVERITIES]
    assert all(one.dtype == np.uint8 and one.shape == images.shape for one in changed)
    assert (changed[0] == images).all()
    distances = [np.abs(one.astype(int) - images).mean() for one in changed]
    assert all(nearer < farther for nearer, farther in zip(distances, distances[1:], strict=False)), distances
    assert distances[-1] > 2


def test_white_stays_white_where_there_is_no_stain():
    white = np.full((2, 8, 8, 3), 255, "uint8")
    assert (SHIFTS["stain"](white, 4) == white).all()


def test_more_hematoxylin_and_less_eosin():
    unstained = np.full((1, 4, 4, 3), 255.0)
    blue, pink = unstained * np.exp(-np.array([0.65, 0.70, 0.29])), unstained * np.exp(-np.array([0.07, 0.99, 0.11]))
    before = [one.astype("uint8") for one in (blue, pink)]
    after = [SHIFTS["stain"](one, 3) for one in before]
    assert after[0].mean() < before[0].mean() - 5 and after[1].mean() > before[1].mean() + 5


def test_patches_are_changed_when_they_are_read(patches):
    shifted = ShiftedPatches(patches.images, SHIFTS["brightness"], 2)
    assert len(shifted) == len(patches.images) and shifted.shape == patches.images.shape
    rows = np.array([5, 2])
    assert (shifted[rows] == SHIFTS["brightness"](patches.images[rows], 2)).all()


@pytest.mark.slow
def test_the_table_starts_at_the_unchanged_auc_and_hard_changes_cost(run, small):
    rows, labels = small.table.index.to_numpy(), small.table["label"].to_numpy()
    table = shifted_aucs(run.network, small.images, rows, labels)
    assert list(table.index) == list(SEVERITIES) and list(table.columns) == list(SHIFTS)
    assert (table.loc[0] == auc(labels, predict(run.network, small.images, rows, 1))).all()
    assert table.loc[4].min() < table.loc[0].iloc[0]
    known = predict(run.network, small.images, rows, 1)
    assert shifted_aucs(run.network, small.images, rows, labels, unchanged=known).equals(table)
