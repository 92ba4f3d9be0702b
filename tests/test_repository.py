"""What a reader is told about the repository is true."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import PROJECT

README = (PROJECT / "README.md").read_text()


def test_every_link_inside_the_repository_leads_somewhere():
    for document in PROJECT.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", document.read_text()):
            assert (PROJECT / link.split("#")[0]).exists(), f"{document.name}: {link}"


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_requirements_are_pinned_and_complete():
    lines = [line.split("#")[0].strip() for line in (PROJECT / "requirements.txt").read_text().splitlines()]
    packages = dict(line.split("==") for line in lines if "==" in line)
    given = {"tensorflow", "keras", "numpy", "pandas", "matplotlib", "scikit-learn", "opencv-python-headless", "jupyter", "nbval"}
    assert given <= set(packages)
    assert [line for line in lines if line and "==" not in line] == ["-e ."]


@pytest.mark.parametrize("name", ["README.md", "MODEL_CARD.md"])
def test_it_says_that_it_is_no_medical_device(name):
    assert "not a medical device" in (PROJECT / name).read_text().lower()


def test_the_synthetic_sample_is_called_synthetic_wherever_it_is_scored():
    for name in ("README.md", "MODEL_CARD.md", "data/README.md"):
        text = " ".join((PROJECT / name).read_text().split())
        assert "synthetic" in text and "nothing about medicine" in text


def test_the_commands_are_documented_as_their_help_says(tmp_path):
    how = [sys.executable, "-m", "typer", "histopath/__main__.py", "utils", "docs", "--name", "python -m histopath"]
    subprocess.run([*how, "--output", tmp_path / "commands.md"], cwd=PROJECT, check=True, capture_output=True)
    written = (PROJECT / "docs" / "commands.md").read_text()
    assert written == (tmp_path / "commands.md").read_text(), "run `make docs`"


LAYERS = ("files", "config metrics plots synthetic", "data", "models", "training", "evaluation slides app", "project", "__main__")
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}


def imported(path):
    """Folders and modules directly below the package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("histopath."):
            yield node.module.split(".")[1]


def test_imports_run_one_way_from_files_to_the_command_line():
    for path in (PROJECT / "histopath").rglob("*.py"):
        own = path.relative_to(PROJECT / "histopath").parts[0].removesuffix(".py")
        for name in imported(path):
            assert name == own or LAYER[name] < LAYER[own], f"{path} imports {name}"
