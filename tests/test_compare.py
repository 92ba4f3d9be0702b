"""Several networks on one split with one budget."""

import pandas as pd
import pytest

from histopath import compare
from histopath.config import get_config
from histopath.workspace import Workspace


@pytest.mark.slow
def test_networks_share_split_and_budget_and_are_scored_on_the_holdout(small, monkeypatch, tmp_path):
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))
    monkeypatch.setattr(compare, "NETWORKS", ("simple_cnn", "compact"))
    budget = {"epochs": 1, "epoch_steps": 2, "batch_size": 8, "views": 1}
    monkeypatch.setattr(compare, "BUDGETS", {"sample": budget})
    work = Workspace("sample", get_config(settings={"norm_patches": 16}), small, "synthetic", {})
    lines = []
    runs = compare.train_networks(work, lines.append)
    assert list(runs) == ["simple_cnn", "compact"] and [line for line in lines if line.startswith("simple_cnn, system 2")]
    assert {run.folder for run in runs.values()} == {tmp_path / "runs" / f"sample-{name}" for name in runs}
    for run in runs.values():
        assert {key: getattr(run.config, key) for key in budget} == budget and run.config.copies == "1"
        pd.testing.assert_frame_equal(run.splits, runs["compact"].splits)
    table, curves = compare.compare_networks(work, runs)
    assert list(table.index) == list(curves) == list(runs) and set(table["patches"]) == {len(run.rows("holdout"))}
    assert ((table["low"] <= table["auc"]) & (table["auc"] <= table["high"])).all()
    assert table.loc["simple_cnn", "trained"] == 45_499 and (table["megabytes"] > 0.1).all()
    for rates in curves.values():
        assert [rate[0] for rate in rates] == [0, 0] and [rate[-1] for rate in rates] == [1, 1]
