"""Files are complete or absent, also when the disk is full."""

import subprocess
from pathlib import Path

import pytest

from histopath.files import InputError, check_writable, make_folder, replacing, write_table, write_text


@pytest.fixture
def full_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_old_file_and_names_the_cure(full_disk):
    path = full_disk / "metrics.json"
    write_text(path, "old")
    with pytest.raises(ValueError, match="no space left to write .*metrics.json; free some"):
        write_text(path, "x" * 2_000_000)
    assert path.read_text() == "old" and [file.name for file in full_disk.iterdir()] == ["metrics.json"]


def test_a_network_does_not_fit_a_full_disk_either(full_disk):
    from histopath.models.registry import build_model

    with pytest.raises(ValueError, match="no space left to write .*model.keras"), replacing(full_disk / "model.keras") as part:
        build_model("compact").save(part)
    assert list(full_disk.iterdir()) == []


def test_a_failure_leaves_nothing_half_written(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder", tmp_path / "absent" / "a.txt"):
        with pytest.raises(InputError, match=f"{path} cannot be written"):
            write_text(path, "x")
    with pytest.raises(InputError, match="file/new cannot be made .Not a directory.; name another"):
        make_folder(tmp_path / "file" / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_table_is_written_with_nine_digits(tmp_path):
    import pandas as pd

    write_table(tmp_path / "t.csv", pd.DataFrame({"id": ["a"], "probability": [1 / 3]}))
    assert (tmp_path / "t.csv").read_text() == "id,probability\na,0.333333333\n"


def test_what_cannot_be_written_is_refused_beforehand(tmp_path):
    check_writable(tmp_path / "new.csv")
    assert list(tmp_path.iterdir()) == []
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "absent" / "x.csv", "cannot be written")):
        with pytest.raises(ValueError, match=words):
            check_writable(path)


def test_a_device_is_not_replaced():
    with pytest.raises(ValueError, match="/dev/null is a device or a pipe"):
        check_writable(Path("/dev/null"))
