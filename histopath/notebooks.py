"""Runs the notebooks in order with parameters. In: preset, data, epochs, weights. Out: executed notebooks."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill

from histopath.files import InputError, make_folder
from histopath.progress import say

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PCAM = ("01_explore", "02_augment", "03_train", "04_evaluate", "05_submit")  # the story that `make run` tells
STORY_OF = {"07_gastric": "gastric", "08_organs": "organs"}  # the others are told on PCam's patches


def list_notebooks(only: list[str] | None = None) -> list[Path]:
    """Returns the project's notebooks in the order in which they run.

    Args:
        only: names of those that are wanted, such as `01_explore`; None for all.

    Raises:
        InputError: when there is no notebook of such a name.
    """
    found = {path.stem: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}
    if not set(only or ()) <= set(found):
        raise InputError(f"There is no notebook for one of {', '.join(only)}; the notebooks are {', '.join(found)}.")
    return [path for name, path in found.items() if only is None or name in only]


def run_notebooks(
    parameters: dict[str, object], target: Path, only: list[str] | None = None, log: Callable[[str], None] = say
) -> list[Path]:
    """Executes every notebook, showing what it prints as it prints it.

    Args:
        parameters: values for the cell tagged `parameters`; None values are left at the notebook's own.
        target: folder for the executed notebooks; each appears there when it is complete.
        only: names of the notebooks to run, such as `01_explore`; None for all.
        log: takes a line before and after each notebook.

    Returns:
        The executed notebooks.

    Raises:
        InputError: when there is no such notebook, or a cell fails; the text names the notebook, the cell and the error.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    written, sources = [], list_notebooks(only)
    make_folder(target)
    for number, source in enumerate(sources, start=1):
        log(f"[{number}/{len(sources)}] {source.stem}")
        started = time.perf_counter()
        written.append(_execute(source, target / source.name, given))
        log(f"[{number}/{len(sources)}] {source.stem} done in {time.perf_counter() - started:.0f} s")
    return written


def _execute(source: Path, target: Path, parameters: dict[str, object]) -> Path:
    part = target.with_name(f"part_{target.name}")
    try:
        papermill.execute_notebook(
            source,
            part,
            parameters,
            cwd=FOLDER,
            progress_bar=False,
            stdout_file=sys.stdout,
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not its notice about local TCP ports
        )
    except papermill.PapermillExecutionError as error:
        reason = str(error.evalue).splitlines()[0] if error.evalue else ""
        raise InputError(
            f"{source.name} stopped at cell {error.exec_count} with {error.ename}: {reason} The notebook up to there is {part}."
        ) from None
    clean_notebook(part)
    part.replace(target)
    return target


def clean_notebook(path: Path) -> None:
    """Takes the clock times and the machine's own marks out of an executed notebook, and keeps its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.write(notebook, path)
