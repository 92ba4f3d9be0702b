"""Many slides on many machines, by Dask. In: slides that every machine sees under the same path. Out: one row a slide.

Dask rather than Ray: its scheduler and workers are plain Python processes that any machine can start, it hands the work of a
worker that died to another one, and nothing of it is needed on one machine. A slide is one task; its folder is complete or
goes on, so a task that is started again repeats next to nothing.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from histopath.runs import Run, open_run


def each_on_cluster(address: str, run: Run, paths: list[Path], out: Path, how: dict) -> Iterator[dict]:
    """Yields the row of every slide, in the order in which they are finished.

    Args:
        address: of a Dask scheduler (`tcp://machine:8786`), or how many worker processes to start on this machine.
        run: a finished run; every machine reads its folder.
        paths: the slides.
        out: folder in which each slide gets one of its own.
        how: as `heatmaps.score_slide` takes.

    Yields:
        As `heatmaps.score_row`; of a slide over which too many workers died, `slide` and `error` alone.

    Raises:
        ValueError: when Dask is not installed, no worker is asked for, or the scheduler does not answer.
    """
    if address.isdecimal() and int(address) < 1:
        raise ValueError(f"--cluster takes the address of a Dask scheduler or at least 1 worker; got {address}.")
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise ValueError("--cluster needs Dask; install it with `pip install -r requirements-cluster.txt`.") from None
    local = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    local = LocalCluster(n_workers=int(address), **local) if address.isdecimal() else None
    try:
        client = Client(local or address, timeout="20s")
    except (OSError, ValueError) as error:
        raise ValueError(f"No Dask scheduler answers at {address} ({error}); start one with `dask scheduler`.") from None
    places, waiting, of = (os.fspath(run.folder), os.fspath(out), how), [*reversed(paths)], {}
    tasks = as_completed()

    def fill():
        """A slide for each thread: a worker that dies is restarted, and a slide that waits on it would share the blame."""
        while waiting and tasks.count() < max(1, sum(client.nthreads().values())):
            path = waiting.pop()
            task = client.submit(_score_one, os.fspath(path), *places, key=f"slide-{path}", pure=False)
            of[task] = path
            tasks.add(task)

    try:
        fill()
        for task in tasks:
            path = of.pop(task)
            try:
                yield task.result()
            except KilledWorker as error:
                died = f"{error.allowed_failures + 1} workers died over it; look whether memory ran out."
                yield {"slide": path.name, "error": died}
            fill()
    finally:
        client.close()
        if local:
            local.close()


def _score_one(path: str, run: str, out: str, how: dict) -> dict:
    """One task: runs in a worker."""
    from histopath.heatmaps import score_row

    return score_row(_opened(run), Path(path), Path(out), **how)


@functools.cache
def _opened(run: str) -> Run:
    """A worker reads the network once."""
    return open_run(Path(run))
