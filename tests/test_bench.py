"""The benchmark script: every stage runs for real, and the table holds medians and ratios."""

import subprocess
import sys

import pandas as pd
import pytest
from conftest import PROJECT

SCRIPT = PROJECT / "benchmarks" / "bench.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import bench

    return bench


def call(*options):
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)


def figures(stage, way, **values):
    return {"stage": stage, "way": way, "resident_mb": 100, **values}


def test_the_table_holds_medians_of_ratios_above_one_where_ours_is_better(bench):
    measured = []
    for number, (classic, ours) in enumerate(((10, 40), (20, 40), (10, 30))):
        for way, fed, rate, first in (
            ("classic", classic, 5, 100),
            ("careful", 20, 6, 80),
            ("ours", ours, 9, 40),
            ("constant", None, 10, 38),
        ):
            if fed:
                measured.append(figures("feed", way, round=number, patches_per_second=fed))
            measured.append(figures("train", way, round=number, patches_per_second=rate, first_step_seconds=first))
    table = bench.summarize(pd.DataFrame(measured))
    fed = table.loc["augmented batches, patches/s"]
    assert (fed["classic"], fed["ours"], fed["ours / classic"], fed["ours / careful"]) == (10, 40, 3, 2)
    assert table.loc["first training step, s", "ours / classic"] == 2.5
    share = "share of a step outside the network, by"
    assert table.loc[f"{share} a step on one batch in memory, %", "ours"] == pytest.approx(10)
    assert table.loc[f"{share} feeding alone, %", "ours"] == pytest.approx(22.5)
    text = bench.describe(table)
    assert "| augmented batches, patches/s | 10 | 20 | 40 | 3 | 2 | 100 |" in text and "nan" not in text


def test_too_few_patches_are_refused():
    done = call("--patches", "100")
    assert done.returncode == 2 and "at least 512 patches" in done.stderr


@pytest.mark.slow
def test_reading_and_feeding_are_measured_in_processes_of_their_own():
    done = call("--only", "read", "--only", "feed", "--patches", "600", "--steps", "5")
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.splitlines()
    assert header.startswith("| stage | classic") and len(rows) == 2
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
