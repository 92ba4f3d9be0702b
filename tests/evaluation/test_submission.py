"""A submission has the rows and the order of the sample; every fault is named in one sentence."""

import gzip
import time

import numpy as np
import pytest
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st

from histopath.evaluation.submission import check_submission, read_ids, upload_command, write_submission
from histopath.files import InputError

SHARED = PROJECT.parent / "shared" / "data" / "ids" / "sample_submission_57458.csv.gz"


@pytest.fixture
def sample(tmp_path):
    """A sample submission of three ids."""
    file = tmp_path / "sample_submission.csv"
    file.write_text("id,label\nb,0\na,0\nc,0\n")
    return file


def test_rows_and_order_are_those_of_the_sample(sample, tmp_path):
    out = write_submission(["a", "b", "c"], [0.25, 0.5, 1 / 3], sample, tmp_path / "new" / "sub.csv")
    assert out.read_text() == "id,label\nb,0.500000\na,0.250000\nc,0.333333\n"
    assert [path.name for path in out.parent.iterdir()] == ["sub.csv"]


def test_a_folder_is_no_submission(sample, tmp_path):
    with pytest.raises(ValueError, match="is a folder: give the path of a CSV file"):
        check_submission(tmp_path, sample)


def test_written_file_passes_its_check(sample, tmp_path):
    out = write_submission(["a", "b", "c"], [0.25, 0.75, 0.5], sample, tmp_path / "sub.csv")
    assert check_submission(out, sample) == {
        "rows": 3,
        "lowest": 0.25,
        "mean": 0.5,
        "highest": 0.75,
        "positives": 2,
        "same_order": True,
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_any_probability_survives_to_six_decimals(tmp_path_factory, probabilities):
    folder = tmp_path_factory.mktemp("hypothesis")
    sample = folder / "sample.csv"
    sample.write_text("id,label\nx,0\ny,0\nz,0\n")
    out = write_submission(["x", "y", "z"], probabilities, sample, folder / "sub.csv")
    written = [float(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    assert written == pytest.approx(probabilities, abs=5.1e-7)
    assert check_submission(out, sample)["rows"] == 3


def test_another_order_passes_and_is_reported(sample, tmp_path):
    file = tmp_path / "sub.csv"
    file.write_text("id,label\na,0.1\nb,0.2\nc,0.3\n")
    assert check_submission(file, sample)["same_order"] is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with ''"),
        ("id,probability\na,0.1\n", "begins with 'id,probability' where 'id,label'"),
        ("label,id\n0.1,a\n", "begins with 'label,id'"),
        ("id,label\n", "no rows"),
        ("id,label\nb,0.1\na,0.2,9\nc,0.3\n", "1 lines without exactly two fields, the first is line 3"),
        ("id,label\nb,0.1\n\na,0.2\nc,0.3\n", "first is line 3"),
        ("id,label\nb,0.1\na,0.2\n", "lacks 1 of the 3 ids of .*, the first is c"),
        ("id,label\nx,0.1\ny,0.2\nz,0.3\n", "lacks 3 of the 3 ids"),
        ("id,label\nb,0.1\na,0.2\nc,0.3\nd,0.4\n", "1 ids that are not in .*, the first is d"),
        ("id,label\nb,0.1\na,0.2\na,0.2\nc,0.3\n", "repeats 1 ids, the first is a"),
        ("id,label\nb,0.1\na,1.2\nc,-3\n", r"2 labels that are not numbers in \[0, 1\], the first is '1.2' in line 3"),
        ("id,label\nb,nan\na,0.2\nc,0.3\n", "first is 'nan' in line 2"),
        ("id,label\nb,0.1\na,inf\nc,0.3\n", "first is 'inf' in line 3"),
        ("id,label\nb,0.1\na,0.2\nc,\n", "first is '' in line 4"),
        ("id,label\nb,0.1\na,tumor\nc,0.3\n", "first is 'tumor' in line 3"),
    ],
)
def test_each_fault_is_named_with_its_file_and_line(sample, tmp_path, text, words):
    file = tmp_path / "sub.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        check_submission(file, sample)
    assert str(file) in str(caught.value) and str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", "id,label\na,0\n".encode("utf-16"), b"id,label\na,\x000\n"])
def test_a_file_that_is_no_csv_is_refused(sample, tmp_path, content):
    file = tmp_path / "sub.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="sub.csv"):
        check_submission(file, sample)


def test_missing_files_are_named(sample, tmp_path):
    with pytest.raises(InputError, match="absent.csv is not there"):
        check_submission(tmp_path / "absent.csv", sample)
    with pytest.raises(InputError, match="absent.csv is not there"):
        check_submission(sample, tmp_path / "absent.csv")
    with pytest.raises(InputError, match="absent.csv is not there"):
        write_submission(["a"], [0.1], tmp_path / "absent.csv", tmp_path / "sub.csv")


@pytest.mark.parametrize(
    ("ids", "probabilities", "words"),
    [
        (["a", "b"], [0.1, 0.2], "lacks 1 of the 3 ids"),
        (["a", "b", "c", "d"], [0.1] * 4, "the first is d"),
        (["a", "b", "c", "c"], [0.1] * 4, "repeats 1 ids, the first is c"),
        (["a", "b", "c"], [0.1, 0.2], r"3 ids and probabilities of shape \(2,\)"),
        (["a", "b", "c"], [[0.1], [0.2], [0.3]], r"shape \(3, 1\)"),
        (["a", "b", "c"], [0.1, np.nan, 0.3], "first is nan for b"),
        (["a", "b", "c"], [0.1, 0.2, 1.0001], "first is 1.0001 for c"),
    ],
)
def test_unfit_predictions_write_nothing(sample, tmp_path, ids, probabilities, words):
    out = tmp_path / "out" / "sub.csv"
    with pytest.raises(ValueError, match=words):
        write_submission(ids, probabilities, sample, out)
    assert not out.parent.exists()


def test_a_failed_write_leaves_the_old_file_and_no_litter(sample, tmp_path, monkeypatch):
    out = write_submission(["a", "b", "c"], [0.1, 0.2, 0.3], sample, tmp_path / "out" / "sub.csv")
    before = out.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="no space left to write .*sub.csv"):
        write_submission(["a", "b", "c"], [0.9, 0.9, 0.9], sample, out)
    assert out.read_text() == before and [path.name for path in out.parent.iterdir()] == ["sub.csv"]


def test_gzipped_files_are_read_and_written(sample, tmp_path):
    packed = tmp_path / "sample.csv.gz"
    packed.write_bytes(gzip.compress(sample.read_bytes()))
    assert read_ids(packed) == ["b", "a", "c"]
    out = write_submission(["a", "b", "c"], [0.1, 0.2, 0.3], packed, tmp_path / "sub.csv.gz")
    assert check_submission(out, sample)["rows"] == 3


def test_upload_command_names_the_file_without_the_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))
    command = upload_command(tmp_path / "submission" / "sample_submission.csv")
    assert command.startswith("kaggle competitions submit -c histopathologic-cancer-detection ")
    assert " -f submission/sample_submission.csv -m " in command and str(tmp_path) not in command


@pytest.mark.skipif(not SHARED.exists(), reason="needs the full list of test ids in ../shared/data/ids")
def test_the_full_submission_has_57458_rows_and_takes_seconds(tmp_path):
    start = time.perf_counter()
    ids = read_ids(SHARED)
    probabilities = np.random.default_rng(0).random(len(ids))
    order = np.random.default_rng(1).permutation(len(ids))
    out = write_submission([ids[i] for i in order], probabilities[order], SHARED, tmp_path / "sub.csv")
    summary = check_submission(out, SHARED)
    assert summary["rows"] == 57_458 and summary["same_order"]
    assert summary["mean"] == pytest.approx(probabilities.mean(), abs=1e-6)
    assert time.perf_counter() - start < 10  # about 1 s on two idle cores
