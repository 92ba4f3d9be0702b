"""A sample is written whole or not at all, and never over something else."""

import json

import pytest

from histopath.synthetic.files import Sample, is_synthetic


def draw(folder, seed):
    (folder / "train").mkdir()
    (folder / "train" / "one.txt").write_text(f"drawn from {seed}")


TINY = Sample("tiny", "train/   one file", draw)


def test_a_sample_is_its_files_a_readme_and_a_marker(tmp_path):
    folder = TINY.write(tmp_path / "deep" / "tiny", seed=3)
    assert (folder / "train" / "one.txt").read_text() == "drawn from 3"
    text = " ".join((folder / "README.txt").read_text().split())
    assert "synthetic" in text and "nothing found here says anything about medicine" in text
    assert text.endswith("train/ one file")
    marker = json.loads((folder / "sample.json").read_text())
    assert (marker["name"], marker["seed"]) == ("tiny", 3)
    assert is_synthetic(folder) and not is_synthetic(folder / "train")
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_it_lies_below_the_home_that_is_given(tmp_path):
    assert TINY.folder(tmp_path) == tmp_path / "data" / "tiny"


def test_a_finished_sample_is_left_alone(tmp_path):
    folder = TINY.write(tmp_path / "tiny")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert TINY.write(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "tiny").mkdir()
    assert (TINY.write(tmp_path / "tiny") / "train" / "one.txt").is_file()


@pytest.mark.parametrize("name", ["notes.txt", "sample.json"])
def test_a_folder_with_something_else_is_refused_and_untouched(tmp_path, name):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / name).write_text("mine")
    with pytest.raises(ValueError, match="synthetic tiny .* holds something else: move it away"):
        TINY.write(tmp_path / "tiny")
    assert [path.name for path in tmp_path.rglob("*")] == ["tiny", name]
    assert (tmp_path / "tiny" / name).read_text() == "mine"


@pytest.mark.parametrize("other", [{"seed": 1}, {"name": "other"}])
def test_another_sample_is_refused(tmp_path, other):
    TINY.write(tmp_path / "tiny")
    sample = TINY._replace(name=other.get("name", "tiny"))
    with pytest.raises(ValueError, match="holds something else"):
        sample.write(tmp_path / "tiny", other.get("seed", 0))


def test_nothing_is_left_when_writing_fails(tmp_path):
    def fill_disk(folder, seed):
        draw(folder, seed)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        TINY._replace(draw=fill_disk).write(tmp_path / "tiny")
    assert not list(tmp_path.iterdir())


def test_two_processes_may_write_the_same_sample_at_once(tmp_path):
    def draw_slowly(folder, seed):
        TINY.write(tmp_path / "tiny")  # as another process does meanwhile
        raise OSError("Directory not empty")

    assert TINY._replace(draw=draw_slowly).write(tmp_path / "tiny") == tmp_path / "tiny"
    assert (tmp_path / "tiny" / "train" / "one.txt").is_file()
