"""Files shared between processes: complete or absent, changed by one process at a time, and known to have changed."""

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pandas as pd
from tqdm import tqdm

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = NO_SPACE | {errno.EACCES, errno.EPERM, errno.EROFS}  # the user can mend these; they are never a bug


class InputError(ValueError):
    """What the user can mend: one sentence with the value received, what was expected, and the cure."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that becomes `path` when the block ends, and is removed when it fails.

    Raises:
        InputError: when the file cannot be written; the text names the file and the cure.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno in NO_SPACE or os.strerror(errno.ENOSPC) in str(error):  # HDF5 only says it in words
            reason = f"There is no space left to write {path}; free some and run the same command again."
        else:
            reason = f"{path} cannot be written ({error.strerror or error}); name another place."
        raise InputError(reason) from error
    finally:
        with suppress(OSError):
            part.unlink()


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it; one that exists is left as it is.

    Raises:
        InputError: when it cannot be made, such as below a file or without permission.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {path} cannot be made ({error.strerror}); name another one.") from error
    return path


def check_writable(path: Path) -> None:
    """Makes sure, before long work, that a file can be written.

    Raises:
        InputError: when the path is a folder, or its folder is missing or cannot be written; the text says which.
    """
    if not path.name or path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, and a file is replaced whole; give the name of a file to write.")
    try:
        NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()  # of a name that no other process takes
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name a file in a folder that can.") from None


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
        InputError: when the folder that holds it cannot be written.
    """
    path = folder.with_name(folder.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path, log)
    except OSError as error:
        raise InputError(
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


class _LogLines:
    """Turns the redrawn lines of a progress bar into lines of a log."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(name: str, total: int, finished: int, visible: bool, unit: str = " patches") -> tqdm:
    """Makes a bar that counts patches, or bytes: redrawn in a terminal, one line every five seconds in a log.

    Args:
        name: what is being done.
        total: patches in all.
        finished: patches that were done before.
        visible: False for a bar that counts but shows nothing.
        unit: what is counted; `B` is shown in kB, MB and GB.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=name,
        total=total,
        initial=finished,
        unit=unit,
        unit_scale=unit == "B",
        disable=not visible,
        file=sys.stderr if terminal else _LogLines(),
        mininterval=0.2 if terminal else 5,
        ascii=not terminal,
        ncols=None if terminal else 100,
    )


def say(line: str) -> None:
    """Prints a line at once, also into a file or a pipe, where Python would hold it back; a file's name may hold anything."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
