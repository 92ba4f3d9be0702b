"""Times packing: writes distinct patches as Kaggle TIFFs, as JPEGs in class folders or as PCam HDF5, and packs them apart.

    python benchmarks/pack.py --folder DIR [--patches 2000 20000 220025] [--format tiff jpeg hdf5] [--cores 1 2]

The largest needs 12.4 GB in DIR; what is written is deleted, unless `--only-write` asks for the patches
alone. Memory is that of the packing process: `resident` counts mapped file pages too, `anonymous` does not. The
files have just been written, so that they are read from the page cache.
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
from collections.abc import Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
import tifffile
from tqdm import tqdm

PROJECT = Path(__file__).resolve().parents[1]
PATCH_BYTES = 96 * 96 * 3


def make_pixels(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields the pixels of `count` distinct patches of noise."""
    pool = np.random.default_rng(seed).bytes(2**24)
    starts = np.random.default_rng(seed + 1).integers(0, len(pool) - PATCH_BYTES, count)
    for number, start in enumerate(tqdm(starts, desc="writing patches", mininterval=5, ascii=True)):
        yield number.to_bytes(4, "little") + pool[start + 4 : start + PATCH_BYTES]


def write_patches(root: Path, count: int) -> None:
    """Writes patches in the competition's layout, each TIFF of 27,935 bytes as there."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((96, 96, 3), np.uint8), photometric="rgb", datetime="2018:11:15 17:20:38")
    header = stream.getvalue()[:-PATCH_BYTES]
    (root / "train").mkdir(parents=True)
    with open(root / "train_labels.csv", "w") as labels:
        labels.write("id,label\n")
        for number, pixels in enumerate(make_pixels(count)):
            patch_id = hashlib.sha1(pixels).hexdigest()
            (root / "train" / f"{patch_id}.tif").write_bytes(header + pixels)
            labels.write(f"{patch_id},{number % 2}\n")


def write_jpegs(root: Path, count: int) -> None:
    """Writes blurred patches as JPEG, about as large as real ones, into the class folders 0 and 1."""
    for name in ("0", "1"):
        (root / name).mkdir(parents=True)
    for number, pixels in enumerate(make_pixels(count)):
        coarse = np.frombuffer(pixels[: 24 * 24 * 3], np.uint8).reshape(24, 24, 3)
        cv2.imwrite(str(root / str(number % 2) / f"{number:06d}.jpg"), cv2.resize(coarse, (96, 96)))


def write_hdf5(root: Path, count: int) -> None:
    """Writes PCam's two training files."""
    root.mkdir(parents=True)
    with h5py.File(root / "camelyonpatch_level_2_split_train_x.h5", "w") as file:
        images = file.create_dataset("x", (count, 96, 96, 3), "uint8")
        for number, pixels in enumerate(make_pixels(count)):
            images[number] = np.frombuffer(pixels, np.uint8).reshape(96, 96, 3)
    with h5py.File(root / "camelyonpatch_level_2_split_train_y.h5", "w") as file:
        file["y"] = (np.arange(count) % 2).astype("uint8").reshape(-1, 1, 1, 1)


FORMATS = {"tiff": write_patches, "jpeg": write_jpegs, "hdf5": write_hdf5}


def watch_memory(peaks: dict[str, int], stop: threading.Event) -> None:
    """Keeps the largest RssAnon and RssFile of this process, in kB, until told to stop."""
    while not stop.wait(0.02):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("RssAnon", "RssFile"):
                peaks[name] = max(peaks.get(name, 0), int(value.split()[0]))


def open_and_measure(root: Path, cache: Path) -> dict[str, float]:
    """Opens the patches, packing them when needed; returns seconds, memory in MB and whether the pixels are right."""
    from histopath.data.patches import open_patches  # here: only the measured process needs the package

    peaks, stop = {}, threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(peaks, stop))
    watcher.start()
    started = time.perf_counter()
    patches = open_patches(root, cache=cache, progress=False)
    seconds = time.perf_counter() - started
    stop.set()
    watcher.join()
    return {
        "seconds": seconds,
        "anonymous_mb": peaks.get("RssAnon", 0) / 1000,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "right": is_right(root, patches),
    }


def is_right(root: Path, patches) -> bool:
    """Compares packed pixels with what was written: all TIFFs by their ids, of the others some by reading them again."""
    rows = range(0, len(patches), max(1, len(patches) // 100))
    if patches.layout == "kaggle":
        return bool((patches.table["id"] == patches.table["pixel_hash"]).all())
    if patches.layout == "class-folders":
        files = [cv2.imread(str(root / patches.table["file"].iloc[row]))[..., ::-1] for row in rows]
        return all((patches.images[row] == file).all() for row, file in zip(rows, files, strict=True))
    with h5py.File(root / "camelyonpatch_level_2_split_train_x.h5") as file:
        return all((patches.images[row] == file["x"][row]).all() for row in rows)


def measure_apart(folder: Path, cores: int) -> dict[str, float]:
    """Runs `open_and_measure` in a new process that may use some cores."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--folder", str(folder), "--cores", str(cores)]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout)


def main() -> None:
    """Parses the command line and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[2_000, 20_000, 220_025], help="how many to write and pack")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--cores", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="cores that may be used")
    parser.add_argument("--folder", type=Path, required=True, help="where a temporary folder is made")
    parser.add_argument(
        "--only-write", action="store_true", help="write the patches into DIR/FORMAT-PATCHES, and leave them there"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores[0]])
        print(json.dumps(open_and_measure(arguments.folder / "data", arguments.folder / "cache")))
        return
    if arguments.only_write:
        for name in arguments.format:
            for count in arguments.patches:
                FORMATS[name](arguments.folder / f"{name}-{count}", count)
        return
    print("| format | patches | cores | patches/s | anonymous MB | resident MB | opened again, ms | pixels right |")
    print("| --- " * 8 + "|")
    for name in arguments.format:
        for count in arguments.patches:
            with tempfile.TemporaryDirectory(prefix="pack-benchmark-", dir=arguments.folder) as folder:
                FORMATS[name](Path(folder) / "data", count)
                for cores in dict.fromkeys(arguments.cores):
                    print_row(name, count, cores, Path(folder))


def print_row(name: str, count: int, cores: int, folder: Path) -> None:
    """Packs, opens again, and prints a line of the table."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    packed, opened = (measure_apart(folder, cores) for _ in range(2))
    memory = f"{packed['anonymous_mb']:.0f} | {packed['resident_mb']:.0f}"
    right = packed["right"] and opened["right"]
    rate = count / packed["seconds"]
    print(f"| {name} | {count:,} | {cores} | {rate:,.0f} | {memory} | {1000 * opened['seconds']:.0f} | {right} |", flush=True)


if __name__ == "__main__":
    main()
