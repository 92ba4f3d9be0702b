"""Files shared between processes: complete or absent, changed by one process at a time, and known to have changed."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pandas as pd

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(ValueError):
    """What the user can mend: one sentence with the value received, what was expected, and the cure."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that becomes `path` when the block ends, and is removed when it fails.

    Raises:
        ValueError: when the disk is full; the text names the file and the cure.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
            raise ValueError(f"There is no space left to write {path}; free some and run the same command again.") from None
        raise
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Makes sure, before long work, that a file can be written.

    Raises:
        ValueError: when the path is a folder, or its folder is missing or cannot be written; the text says which.
    """
    if not path.name or path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, and a file is replaced whole; give the name of a file to write.")
    try:
        NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()  # of a name that no other process takes
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); name a file in a folder that can.") from None


def write_text(path: Path, text: str) -> None:
    """Writes a file that is complete or absent, also after a power failure."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as CSV, complete or absent; floats keep nine digits."""
    write_text(path, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


@contextmanager
def locked(folder: Path, log: Callable[[str], None] | None = None) -> Iterator[None]:
    """Lets one process at a time change a folder; the lock ends with its process, however that ends.

    Args:
        folder: what is changed; the lock is a file beside it.
        log: takes a line when another process has to be waited for, or None.

    Raises:
        ValueError: when the folder that holds it cannot be written.
    """
    path = folder.with_name(folder.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path, log)
    except OSError as error:
        raise ValueError(
            f"{path.parent} cannot be written ({error.strerror}); name another folder, or set HISTOPATH_HOME to one that can."
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, log: Callable[[str], None] | None) -> int:
    """Returns a descriptor of the lock file, locked; waits for another process that holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if log:
                log(f"another process is writing {path.with_suffix('')}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:  # the process before us removed the file: lock the new one
            pass
        os.close(descriptor)


def stamp_paths(root: Path, names: Iterable[str]) -> dict[str, list[int] | None]:
    """Returns name → [size, mtime in ns] for paths below a folder; size 0 for a folder, null for what is missing."""
    stamp = {}
    for name in names:
        try:
            status = os.stat(os.path.join(root, name))
            is_folder = stat.S_ISDIR(status.st_mode)
            stamp[name] = [0 if is_folder else status.st_size, status.st_mtime_ns]
        except (FileNotFoundError, NotADirectoryError):
            stamp[name] = None
    return stamp


def find_changed(root: Path, files: Iterable[str], stats: np.ndarray) -> list[str]:
    """Returns the files whose size or time is not the recorded one (N, 2)."""
    recorded = dict(zip(files, map(tuple, stats.tolist()), strict=True))
    now = stamp_paths(root, recorded)
    return [name for name, known in recorded.items() if now[name] is None or tuple(now[name]) != known]
