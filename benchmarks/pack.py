"""Times packing at full size: writes distinct Kaggle TIFFs, packs them in a process of their own, opens the pack again.

    python benchmarks/pack.py --patches 220025 --folder DIR

needs 12.4 GB in DIR and deletes what it wrote. Memory is that of the packing process: `resident` counts mapped file
pages too, `anonymous` does not. The files have just been written, so that they are read from the page cache.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tifffile
from tqdm import tqdm

PROJECT = Path(__file__).resolve().parents[1]
PATCH_BYTES = 96 * 96 * 3


def write_patches(root: Path, count: int, seed: int = 0) -> None:
    """Writes `count` distinct noise patches in the competition's layout, each TIFF of 27,935 bytes as there."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((96, 96, 3), np.uint8), photometric="rgb", datetime="2018:11:15 17:20:38")
    header = stream.getvalue()[:-PATCH_BYTES]
    pool = np.random.default_rng(seed).bytes(2**24)
    starts = np.random.default_rng(seed + 1).integers(0, len(pool) - PATCH_BYTES, count)
    (root / "train").mkdir(parents=True)
    with open(root / "train_labels.csv", "w") as labels:
        labels.write("id,label\n")
        for number, start in enumerate(tqdm(starts, desc="writing patches", mininterval=5, ascii=True)):
            pixels = number.to_bytes(4, "little") + pool[start + 4 : start + PATCH_BYTES]
            patch_id = hashlib.sha1(pixels).hexdigest()
            (root / "train" / f"{patch_id}.tif").write_bytes(header + pixels)
            labels.write(f"{patch_id},{number % 2}\n")


def watch_memory(peaks: dict[str, int], stop: threading.Event) -> None:
    """Keeps the largest RssAnon and RssFile of this process, in kB, until told to stop."""
    while not stop.wait(0.02):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile"):
                peaks[name] = max(peaks.get(name, 0), int(value.split()[0]))


def open_and_measure(root: Path, cache: Path, workers: int | None) -> dict[str, float]:
    """Opens the patches, packing them when needed; returns seconds, memory in MB and whether the pixels are right."""
    from histopath.patches import open_patches  # here: only the measured process needs the package

    peaks, stop = {}, threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(peaks, stop))
    watcher.start()
    started, processor_started = time.perf_counter(), time.process_time()
    patches = open_patches(root, cache=cache, workers=workers)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor_started
    stop.set()
    watcher.join()
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "patches": len(patches),
        "anonymous_mb": peaks.get("RssAnon", 0) / 1000,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "right": bool((patches.table["id"] == patches.table["pixel_hash"]).all()),
    }


def measure_apart(folder: Path, workers: int | None) -> dict[str, float]:
    """Runs `open_and_measure` in a new process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--folder", str(folder)]
    command += ["--workers", str(workers)] if workers else []
    environment = {"PYTHONPATH": str(PROJECT)}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


def main() -> None:
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=220_025, help="how many patches to write and pack")
    parser.add_argument("--folder", type=Path, required=True, help="where a temporary folder is made")
    parser.add_argument("--workers", type=int, help="threads that pack; by default as open_patches chooses")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder = arguments.folder
        print(json.dumps(open_and_measure(folder / "data", folder / "cache", arguments.workers)))
        return
    folder = Path(tempfile.mkdtemp(prefix="pack-benchmark-", dir=arguments.folder))
    try:
        write_patches(folder / "data", arguments.patches)
        packed = measure_apart(folder, arguments.workers)
        opened = [measure_apart(folder, None) for _ in range(3)]
        print_figures(packed, opened)
    finally:
        shutil.rmtree(folder)


def print_figures(packed: dict[str, float], opened: list[dict[str, float]]) -> None:
    """Prints one line for packing and one for opening."""
    rate = packed["patches"] / packed["seconds"]
    print(f"packed {packed['patches']:,} patches in {packed['seconds']:.1f} s: {rate:,.0f} patches/s")
    print(f"processor time {packed['processor_seconds']:.1f} s; load average at the end {os.getloadavg()[0]:.1f}")
    print(f"peak memory while packing: anonymous {packed['anonymous_mb']:.0f} MB, resident {packed['resident_mb']:.0f} MB")
    times = ", ".join(f"{1000 * one['seconds']:.0f}" for one in opened)
    processor = ", ".join(f"{1000 * one['processor_seconds']:.0f}" for one in opened)
    print(f"opened again in {times} ms, processor time {processor} ms (three new processes)")
    print(f"the SHA-1 of every packed patch is its id: {packed['right'] and all(one['right'] for one in opened)}")


if __name__ == "__main__":
    main()
