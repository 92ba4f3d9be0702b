"""The trained network in the box: a run small enough to be committed. In: a Run. Out: the same folder in half precision."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np

from histopath.files import replacing, write_table, write_text
from histopath.runs import FILES, Run

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
        ValueError: when it would be larger than 5 MB; choose a smaller network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.keras") as part:
        halve_weights(run.folder / "model.keras", part)
        size = part.stat().st_size
        if size > LARGEST:
            raise ValueError(
                f"{run.folder.name} is {size / 1e6:.1f} MB in half precision, and at most {LARGEST / 1e6:.0f} MB belong into a "
                "repository; export a smaller network."
            )
    for name in FILES:
        if name not in ("model.keras", "splits.csv"):
            shutil.copyfile(run.folder / name, folder / name)
    write_text(folder / "identity.json", json.dumps({"exported": run.folder.name}) + "\n")
    splits = run.splits
    write_table(folder / "splits.csv", splits[[*("row", "id", "split", "label", "slide", "pixel_hash", "look")]])
    return sum(path.stat().st_size for path in folder.iterdir())


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
