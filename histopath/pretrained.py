"""The trained network in the box: a run small enough to be committed. In: a Run. Out: the same folder in half precision."""

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from histopath.files import InputError, make_folder, write_table, write_text
from histopath.runs import FILES, Run, read_identity

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
LARGEST = 5_000_000  # bytes of the whole folder
WEIGHTS = "model.weights.h5"


def export_run(run: Run, folder: Path) -> int:
    """Writes a run as a folder that can be committed: kernels in half precision, the rest as it is.

    Probabilities change by what sixteen bits round away, about one in a thousand. The file stays a `.keras` file that loads in
    safe mode, and Keras turns the numbers into its own precision while loading.

    Args:
        run: a finished run.
        folder: where to write; what an earlier export left there is replaced, other files are kept.

    Returns:
        Bytes of what was written.

    Raises:
        InputError: when it would be larger than 5 MB (choose a smaller network), a file of the run is damaged, or the folder
            holds a run that was not exported.
    """
    if (folder / "model.keras").exists() and "exported" not in read_identity(folder):
        raise InputError(f"{folder} holds a run in full precision, which would be lost; name another folder with --out.")
    run.check()
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        part = Path(place)
        halve_weights(run.folder / "model.keras", part / "model.keras")
        for name in FILES:
            if name not in ("model.keras", "splits.csv"):
                shutil.copyfile(run.folder / name, part / name)
        write_text(part / "identity.json", json.dumps({"exported": run.folder.name}) + "\n")
        write_table(part / "splits.csv", run.splits[["row", "id", "split", "label", "slide", "pixel_hash", "look"]])
        size = sum(path.stat().st_size for path in part.iterdir())
        if size > LARGEST:
            raise InputError(
                f"{run.folder.name} is {size / 1e6:.1f} MB in half precision, and at most {LARGEST / 1e6:.0f} MB belong into a "
                "repository; export a smaller network."
            )
        make_folder(folder)
        for path in part.iterdir():
            path.replace(folder / path.name)
    return size


def halve_weights(source: Path, target: Path) -> None:
    """Copies a `.keras` file with every array of two and more dimensions in half precision.

    Vectors (biases, batch statistics) stay as they are: a variance may lie beyond what sixteen bits hold.
    """
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as half:
        for entry in whole.infolist():
            content = whole.read(entry)
            half.writestr(zipfile.ZipInfo(entry.filename), _halve(content) if entry.filename == WEIGHTS else content)


def _halve(content: bytes) -> bytes:
    written = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as whole, h5py.File(written, "w") as half:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                made = half.require_group(name)
            else:
                narrow = item.dtype == np.float32 and item.ndim > 1
                made = half.create_dataset(name, data=item[...].astype("float16") if narrow else item[...])
            for key, value in item.attrs.items():
                made.attrs[key] = value

        whole.visititems(copy)
        for key, value in whole.attrs.items():
            half.attrs[key] = value
    return written.getvalue()
