"""Slides on a cluster of two workers: nothing is lost and nothing is done twice when one of them is killed."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from histopath.slides.heatmaps import score_slides

dask = pytest.importorskip("dask", reason="dask and distributed are an option")
pytest.importorskip("distributed")  # it brings its settings
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slides(slide, tmp_path_factory):
    """Three copies of the synthetic slide and a file that is none."""
    folder = tmp_path_factory.mktemp("many")
    for name in "abc":
        shutil.copy(slide, folder / f"{name}.tif")
    (folder / "broken.tif").write_bytes(b"no slide")
    return folder


def workers_of(server: int) -> list[int]:
    """Process ids of the Dask workers that a command started."""
    return [child.pid for child in psutil.Process(server).children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_killed_worker_loses_nothing_and_repeats_nothing(run, slides, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(run.folder, home / "runs" / "small")
    how = ["--run", "small", "--out", tmp_path / "out", "--stride", "64", "--cluster", "2"]
    how = [sys.executable, "-m", "histopath", "slide", slides, *how]
    command = subprocess.Popen(how, env=os.environ | {"HISTOPATH_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob("*/slide.json")):  # the first slide is finished, the others are not
        assert command.poll() is None
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/slide.json")}
    assert len(finished) < 3
    os.kill(workers_of(command.pid)[0], signal.SIGKILL)
    assert command.wait(300) == 0
    table = pd.read_csv(tmp_path / "out" / "slides.csv").set_index("slide")
    assert list(table.index) == ["a.tif", "b.tif", "broken.tif", "c.tif"] and "not a slide" in table.loc["broken.tif", "error"]
    alone = score_slides(run, [slides / "a.tif"], tmp_path / "alone", stride=64, progress=False, log=lambda line: None)
    for name in "abc":
        assert table.loc[f"{name}.tif", "score"] == pytest.approx(alone["score"][0], abs=1e-4)
        scores = pd.read_csv(tmp_path / "out" / name / "scores.csv")
        assert not scores.duplicated(["x", "y"]).any() and len(scores) == alone["tiles"][0]
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "a finished slide was done again"


def test_a_slide_that_kills_its_workers_stops_no_other(run, slides, tmp_path):
    def kill_at_work():
        while not (tmp_path / "out" / "a").is_dir():
            time.sleep(0.05)
        (worker,) = workers_of(os.getpid())  # as many as were asked for, whatever the machine has
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_at_work)
    killer.start()
    kwargs = {"cluster": "1", "stride": 64, "progress": False, "log": lambda line: None}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        table = score_slides(run, [slides / "a.tif", slides / "broken.tif"], tmp_path / "out", **kwargs).set_index("slide")
    killer.join()
    assert "1 workers died over it" in table.loc["a.tif", "error"] and "not a slide" in table.loc["broken.tif", "error"]
    assert not (tmp_path / "out" / "a" / "slide.json").exists()


def test_no_scheduler_is_one_sentence(run, slides, tmp_path):
    with pytest.raises(ValueError, match="No Dask scheduler answers at tcp://127.0.0.1:9 .*start one with `dask scheduler`"):
        score_slides(run, [slides / "a.tif"], tmp_path, cluster="tcp://127.0.0.1:9")


def test_no_worker_is_refused(run, slides, tmp_path):
    with pytest.raises(ValueError, match="at least 1 worker; got 0"):
        score_slides(run, [slides / "a.tif"], tmp_path, cluster="0")


def test_two_slides_of_one_name_are_refused(run, slides, tmp_path):
    with pytest.raises(ValueError, match="have one name but for its ending"):
        score_slides(run, [slides / "a.tif", slides / "a.svs"], tmp_path)
    assert np.array_equal(list(tmp_path.iterdir()), [])
