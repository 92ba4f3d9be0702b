"""What a reader is told about the repository is true."""

import re
import subprocess
import sys

import pytest
from conftest import PROJECT

from histopath.__main__ import app

README = (PROJECT / "README.md").read_text()
HIDDEN = {"__pycache__", "build", "runs", "slides", "histopath.egg-info"}  # written by use, not part of the repository


def read_tree():
    """Paths of the tree in the README, folders with a slash at their end."""
    block = re.search(r"```\n(README\.md.*?)```", README, flags=re.DOTALL).group(1)
    paths, folder = [], ""
    for line in block.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            paths.append(name)
        else:
            paths.append(folder + name)
    return paths


def test_the_tree_in_the_readme_is_the_real_one():
    tree = read_tree()
    assert [path for path in tree if not (PROJECT / path).exists()] == []
    real = {entry.name + "/" * entry.is_dir() for entry in PROJECT.iterdir() if not entry.name.startswith(".")}
    assert {entry for entry in real if entry.strip("/") not in HIDDEN} == {
        path for path in tree if path.count("/") - path.endswith("/") == 0
    }
    for folder, pattern in (("histopath", "*.py"), ("notebooks", "[0-9]*.ipynb")):
        files = {f"{folder}/{path.name}" for path in (PROJECT / folder).glob(pattern)} - {"histopath/__init__.py"}
        assert files == {path for path in tree if path.startswith(f"{folder}/") and path != f"{folder}/"}


def test_every_link_inside_the_repository_leads_somewhere():
    for document in PROJECT.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", document.read_text()):
            assert (PROJECT / link.split("#")[0]).exists(), f"{document.name}: {link}"


def test_every_command_of_the_package_is_in_the_readme():
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"histopath {name}" in README, name


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
