"""The committed notebooks: executed, in style, compared for real; and the command that runs them."""

import ast
import base64
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import PROJECT

from histopath import project as runner
from histopath.project import PCAM, STORY_OF, list_notebooks, run_notebooks

NOTEBOOKS = list_notebooks()
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
SAMPLES = ("sample", "sample-gastric", "sample-organs")
IGNORED = "nbval-ignore-output"
FORBIDDEN = {
    "a function or class": r"^\s*(def|class) |\blambda\b",
    "an install or shell command": r"^\s*[!%]",
    "a warning filter": r"\bwarnings\b",
    "a lint comment": r"#\s*(noqa|type:|pylint|fmt:)",
    "a path string": r"""["'][\w.~-]*[/\\][\w./\\-]*["']""",
    "a marker of nbval": r"NBVAL_",
}


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def speaks(source):
    """Whether a cell ends in an expression or prints somewhere, so that it must have an output."""
    tree = ast.parse(source)
    return isinstance(tree.body[-1], ast.Expr) and "add_metrics" not in source or "print(" in source


def test_the_five_of_the_pcam_story_come_first():
    assert [path.stem for path in NOTEBOOKS][:5] == list(PCAM)
    assert {path.stem for path in NOTEBOOKS} >= set(STORY_OF)


@each
def test_every_cell_was_executed_in_order_and_has_its_output(path):
    code = cells(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell.source for cell in code if speaks(cell.source) and not cell.outputs] == []


@each
def test_no_output_is_an_error_a_warning_or_a_path_of_a_machine(path):
    for cell in cells(path):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
            text = output.get("text", "") + str({k: v for k, v in output.get("data", {}).items() if k != "image/png"})
            assert not re.search(r"/(home|root|Users|tmp|work|kaggle)/", text)


@each
@pytest.mark.parametrize("what", FORBIDDEN)
def test_cells_hold_nothing_that_belongs_in_the_package(path, what):
    for cell in cells(path):
        assert not re.search(FORBIDDEN[what], cell.source, flags=re.MULTILINE), cell.source


@each
def test_cells_are_short(path):
    assert max(len(cell.source.splitlines()) for cell in cells(path)) <= 20


@each
def test_it_opens_with_title_parameters_and_imports(path):
    first, second, third = nbformat.read(path, as_version=4).cells[:3]
    assert first.source.startswith(f"# {path.stem[:2]} ")
    assert all(f"*{word}*" in first.source for word in ("Needs", "Makes", "Takes"))
    assert second.metadata.get("tags") == ["parameters"] and "preset" in second.source
    statements = ast.parse(third.source).body
    assert all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in statements)


@each
def test_it_closes_with_what_was_learned(path):
    last = cells(path, "markdown")[-1].source
    assert last.startswith("## What we learned") and len(re.findall(r"^- ", last, flags=re.MULTILINE)) == 3


@each
def test_every_figure_is_exported_and_captioned(path):
    parts = nbformat.read(path, as_version=4).cells
    figures = 0
    for cell, following in zip(parts, [*parts[1:], None], strict=True):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                figures += 1
                assert following.source.startswith(f"*Figure {figures}. ")
                name = output.data["text/plain"]
                assert [folder for folder in SAMPLES if (PROJECT / "assets" / "examples" / folder / name).is_file()] != []
                assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
    assert figures > 0


@each
def test_it_is_small_and_at_most_two_cells_are_not_compared(path):
    assert path.stat().st_size < 300_000
    assert sum(IGNORED in cell.metadata.get("tags", []) for cell in cells(path)) <= 2
    assert all("papermill" not in cell.metadata for cell in cells(path))


@each
def test_it_runs_on_the_sample_unless_told_otherwise(path):
    assert cells(path)[0].source.splitlines()[0] == 'preset = "sample"'


@pytest.mark.slow
def test_nbval_notices_one_changed_digit(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))
    shutil.copytree(sample, tmp_path / "data" / "sample")
    source = next(path for path in NOTEBOOKS if path.stem == "02_augment")
    text = source.read_text()
    assert "keeps 77% of the labeled center" in text
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        tmp_path,
    ]
    for name, content, status in (("same", text, 0), ("changed", text.replace("keeps 77%", "keeps 78%"), 1)):
        copy = tmp_path / f"{name}.ipynb"
        copy.write_text(content)
        done = subprocess.run([*command, copy], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == status, done.stdout[-2000:]


@pytest.fixture
def story(tmp_path, monkeypatch):
    """A folder of two small notebooks in place of the project's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(runner, "FOLDER", folder)

    def write(name, *sources):
        made = [nbformat.v4.new_code_cell(source) for source in sources]
        made[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), folder / name)

    return write


def test_notebooks_run_in_order_with_parameters(story, tmp_path):
    story("01_a.ipynb", "x = 1", "print(x)")
    story("02_b.ipynb", "x = 2\ny = 3", "print(x + y)")
    lines = []
    written = run_notebooks({"x": 7, "y": None}, tmp_path / "out", log=lines.append)
    assert [path.name for path in written] == ["01_a.ipynb", "02_b.ipynb"]
    assert [cells(path)[-1].outputs[0].text for path in written] == ["7\n", "10\n"]
    assert lines[0] == "[1/2] 01_a" and lines[-1].startswith("[2/2] 02_b done")


def test_one_notebook_can_be_run_alone_and_an_unknown_one_is_refused(story, tmp_path):
    story("01_a.ipynb", "x = 1")
    story("02_b.ipynb", "x = 2")
    written = run_notebooks({}, tmp_path / "out", ["02_b"], log=lambda line: None)
    assert [path.name for path in written] == ["02_b.ipynb"]
    with pytest.raises(ValueError, match="no notebook for one of 03_c; the notebooks are 01_a, 02_b"):
        run_notebooks({}, tmp_path / "out", ["03_c"])


def test_a_failing_cell_is_named_and_no_finished_notebook_is_left(story, tmp_path):
    story("01_a.ipynb", "x = 1", "raise KeyError('lost')")
    with pytest.raises(ValueError, match="^01_a.ipynb stopped at cell 2 with KeyError: [^\n]*$"):
        run_notebooks({}, tmp_path / "out", log=lambda line: None)
    assert not (tmp_path / "out" / "01_a.ipynb").exists()
