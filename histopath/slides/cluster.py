"""Many slides on many machines, by Dask. In: slides that every machine sees under the same path. Out: one row a slide.

Dask rather than Ray: its scheduler and workers are plain Python processes that any machine can start, it hands the work of a
worker that died to another one, and nothing of it is needed on one machine. A slide is one task; its folder is complete or
goes on, so a task that is started again repeats next to nothing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from histopath.files import InputError


def each_on_cluster(address: str, score: Callable[[Path], dict], paths: list[Path]) -> Iterator[dict]:
    """Yields the row of every slide, in the order in which they are finished.

    Args:
        address: of a Dask scheduler (`tcp://machine:8786`), or how many worker processes to start on this machine.
        score: runs in a worker; a slide → its row. It is sent by pickle.
        paths: the slides.

    Yields:
        What `score` returns; of a slide over which too many workers died, `slide` and `error` alone.

    Raises:
        InputError: when Dask is not installed, no worker is asked for, or the scheduler does not answer.
    """
    if address.isdecimal() and int(address) < 1:
        raise InputError(f"--cluster takes the address of a Dask scheduler or at least 1 worker; got {address}.")
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError:
        raise InputError("--cluster needs Dask; install it with `pip install -r requirements-cluster.txt`.") from None
    local = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    local = LocalCluster(n_workers=int(address), **local) if address.isdecimal() else None
    try:
        client = Client(local or address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(f"No Dask scheduler answers at {address} ({error}); start one with `dask scheduler`.") from None
    waiting, slide_of, tasks = [*reversed(paths)], {}, as_completed()

    def fill():
        """A slide for each thread: a worker that dies is restarted, and a slide that waits on it would share the blame."""
        while waiting and tasks.count() < max(1, sum(client.nthreads().values())):
            path = waiting.pop()
            task = client.submit(score, path, key=f"slide-{path}", pure=False)
            slide_of[task] = path
            tasks.add(task)

    try:
        fill()
        for task in tasks:
            path = slide_of.pop(task)
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
