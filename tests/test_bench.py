"""The benchmark: every stage runs for real, and the table holds medians and ratios."""

import pytest

from histopath import bench


def figures(stage, way, **values):
    return {"stage": stage, "way": way, "resident_mb": 100, **values}


def test_the_table_holds_medians_of_ratios_above_one_where_ours_is_better():
    measured = []
    for classic, ours in ((10, 40), (20, 40), (10, 30)):
        measured += [figures("feed", "classic", patches_per_second=classic), figures("feed", "careful", patches_per_second=20)]
        measured += [figures("feed", "ours", patches_per_second=ours)]
    for way, first, rate in 3 * (("classic", 100, 5), ("careful", 80, 6), ("ours", 40, 9), ("constant", 38, 10)):
        measured += [figures("train", way, first_step_seconds=first, patches_per_second=rate)]
    table = bench.summarise(measured)
    fed = table.loc["augmented batches, patches/s"]
    assert (fed["classic"], fed["ours"], fed["ours / classic"], fed["ours / careful"]) == (10, 40, 3, 2)
    assert table.loc["first training step, s", "ours / classic"] == 2.5
    assert table.loc["share of a step outside the network, by a step on one batch in memory, %", "ours"] == pytest.approx(10)
    assert table.loc["share of a step outside the network, by feeding alone, %", "ours"] == pytest.approx(22.5)
    text = bench.describe(table)
    assert "| augmented batches, patches/s | 10 | 20 | 40 | 3 | 2 | 100 |" in text and "nan" not in text


def test_too_little_and_unknown_stages_are_refused():
    for arguments in ((100, 12, 1), (600, 2, 1), (600, 12, 0), (600, 12, 1, ["fly"])):
        with pytest.raises(ValueError, match="at least 512 patches"):
            bench.measure(*arguments)


@pytest.mark.slow
def test_reading_and_feeding_are_measured_in_processes_of_their_own():
    lines = []
    table = bench.summarise(bench.measure(600, 5, 1, ["read", "feed"], lines.append))
    assert len(lines) == 6 and (table[["classic", "careful", "ours", "peak MB"]] > 0).all().all()


def test_a_measurement_that_fails_is_named(monkeypatch):
    with pytest.raises(ValueError, match="^The benchmark read fast failed: .+"):
        bench._run(["read", "fast", "--folder", "absent"])
