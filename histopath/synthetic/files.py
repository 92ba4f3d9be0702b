"""Writes a synthetic sample as a folder that is complete or absent."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from histopath.files import InputError

VERSION = 2  # of the drawing: raise it with every change of a pixel
README = """A synthetic sample, drawn by a program (version {version}, seed {seed}).

No image shows real tissue: nothing found here says anything about medicine, and a score on it
says nothing about real images.

"""


class Sample(NamedTuple):
    """An embedded sample.

    Attributes:
        name: Of its folder.
        contents: What its README says of the files.
        draw: Takes an empty folder and a seed, and writes the files.
    """

    name: str
    contents: str
    draw: Callable[[Path, int], None]

    def folder(self, home: Path) -> Path:
        """Returns where the sample lies below the project's home."""
        return home / "data" / self.name

    def write(self, folder: Path, seed: int = 0) -> Path:
        """Writes `folder` and returns it, at once when the sample is already there.

        The same seed gives the same pixels on every machine.

        Raises:
            InputError: When `folder` holds something else. Move it away or name another folder.
        """
        folder, about = Path(folder), {"name": self.name, "version": VERSION, "seed": seed}
        if _is_written(folder, about):
            return folder
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            self.draw(partial, seed)
            (partial / "README.txt").write_text(README.format(**about) + self.contents + "\n")
            (partial / "sample.json").write_text(json.dumps(about))
            partial.replace(folder)
        except OSError:
            if not _is_written(folder, about):  # another process may have written the same
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder


def _is_written(folder: Path, about: dict) -> bool:
    """Returns whether `folder` holds this sample; False where it is absent or empty."""
    if is_synthetic(folder) and (folder / "sample.json").read_text() == json.dumps(about):
        return True
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(
            f"{folder} should be absent, empty or the synthetic {about['name']} (version "
            f"{about['version']}, seed {about['seed']}) but holds something else: move it away or "
            "name another folder."
        )
    return False


def is_synthetic(folder: Path) -> bool:
    """Returns whether a data folder is a copy of an embedded sample, wherever it lies."""
    return (Path(folder) / "sample.json").is_file()


def write_tiff(path: Path, image: np.ndarray) -> None:
    """Writes an uncompressed RGB TIFF in a folder that it makes."""
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, image, photometric="rgb")
