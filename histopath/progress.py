"""A progress bar that reads well in a terminal, a notebook and a log. In: a count. Out: a tqdm bar on stderr."""

import sys

from tqdm import tqdm


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
