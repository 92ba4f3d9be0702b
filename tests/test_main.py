"""The command line: what it writes, and one sentence with status 2 for everything that is wrong."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, SMALL

from histopath.__main__ import app

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.fixture
def ready(run, tmp_path):
    """Puts the finished small run into the home of `command`."""
    shutil.copytree(run.folder, tmp_path / "runs" / "small")
    return "small"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command, name):
    status, out, _ = command(name, "--help")
    assert status == 0 and "Usage" in out


@pytest.mark.slow
def test_sample_and_pack(command, tmp_path):
    status, out, _ = command("sample", tmp_path / "made")
    assert status == 0 and "wrote 538 synthetic images" in out
    status, out, _ = command("pack", tmp_path / "made", "--check")
    assert status == 0 and "538 patches (442 labeled) of kaggle are packed" in out and "as they were packed" in out


@pytest.mark.slow
def test_train_evaluate_predict_submit_and_check(command, sample, tmp_path):
    settings = ["--set", "epochs=1", "--set", "norm_patches=32", "--set", "views=1"]
    status, out, _ = command("train", "--data", sample, "--run", "one", "--recipe", "compact", *settings)
    assert status == 0 and "val AUC" in out.splitlines()[-1]
    status, out, _ = command("evaluate", "--run", "one", "--data", sample, "--json")
    scores = json.loads(out)
    assert status == 0 and scores["patches"] < 120 and 0 <= scores["auc_low"] <= scores["auc"] <= scores["auc_high"] <= 1
    status, out, _ = command("predict", "--run", "one", "--data", sample, "--out", tmp_path / "p.csv", "--views", 1)
    assert status == 0 and len(pd.read_csv(tmp_path / "p.csv")) == 538
    status, out, _ = command("submit", "--run", "one", "--data", sample, "--out", tmp_path / "s.csv", "--views", 1)
    assert status == 0 and "96 rows" in out
    status, out, _ = command("check-submission", tmp_path / "s.csv", "--sample", sample / "sample_submission.csv")
    assert status == 0 and "valid: 96 rows" in out


def test_evaluate_speaks_in_words(command, ready, sample):
    status, out, _ = command("evaluate", "--run", ready, "--data", sample, "--views", 1)
    assert status == 0 and out.startswith("AUC 0.") and "95 % bootstrap over slides" in out


@pytest.mark.slow
def test_evaluate_tells_what_changes_of_stain_and_focus_cost(command, ready, sample):
    status, out, _ = command("evaluate", "--run", ready, "--data", sample, "--views", 1, "--shifts", "--json")
    assert status == 0 and set(json.loads(out)["shifts"]) == {"stain", "blur", "JPEG", "brightness"}
    assert "calibration error" in command("evaluate", "--run", ready, "--data", sample, "--views", 1)[1]


def test_a_run_is_exported(command, ready, tmp_path):
    status, out, _ = command("export", "--run", ready, "--out", tmp_path / "runs" / "light")
    assert status == 0 and out.endswith("MB\n")
    assert (tmp_path / "runs" / "light" / "model.keras").is_file()


@pytest.mark.slow
def test_an_ensemble_is_written_and_scored(command, ready, sample, tmp_path):
    command("export", "--run", ready, "--out", tmp_path / "runs" / "light")
    runs = ["--run", ready, "--run", "light"]
    status, out, _ = command("predict", *runs, "--data", sample, "--out", tmp_path / "e.csv", "--views", 1)
    assert status == 0 and "mean probability" in out and "wrote 538 probabilities" in out
    assert list(pd.read_csv(tmp_path / "e.csv").columns) == ["id", "probability", "rank", "small", "light"]


def test_real_data_is_trained_with_the_full_preset(command, three, tmp_path):
    settings = [word for setting in ("epochs=1", "size=16", "views=1", "norm_patches=16") for word in ("--set", setting)]
    status, *_ = command("train", "--data", three.root, "--run", "real", "--recipe", "compact", *settings)
    assert status == 0 and json.loads((tmp_path / "runs" / "real" / "config.json").read_text())["preset"] == "full"


@pytest.mark.slow
def test_a_batch_is_drawn_with_predicted_and_true_label(command, three_run, three, tmp_path):
    shutil.copytree(three_run.folder, tmp_path / "runs" / "three")
    status, out, _ = command("evaluate", "--run", "three", "--data", three.root, "--batch", tmp_path / "b.png", "--views", 1)
    assert status == 0 and "macro AUC" in out and cv2.imread(str(tmp_path / "b.png")) is not None


@pytest.mark.slow
def test_models_are_listed(command):
    status, out, _ = command("models")
    assert status == 0 and "25,134,301" in out and "25,043,035" in out


def edit_labels(folder, change):
    labels = pd.read_csv(folder / "train_labels.csv", dtype=str)
    change(labels).to_csv(folder / "train_labels.csv", index=False)


BAD_DATA = {
    "missing folder": (shutil.rmtree, "copy"),
    "no known layout": (lambda f: [shutil.rmtree(f), f.mkdir(), (f / "notes.doc").write_text("x")], "train_labels.csv"),
    "truncated TIFF": (lambda f: (f / "train" / FIRST[0]).write_bytes((f / "train" / FIRST[0]).read_bytes()[:9000]), ".tif"),
    "not an image": (lambda f: (f / "train" / FIRST[0]).write_text("hello"), ".tif"),
    "label without file": (lambda f: (f / "train" / FIRST[0]).unlink(), "train_labels.csv"),
    "file without label": (lambda f: edit_labels(f, lambda t: t.iloc[1:]), "train_labels.csv"),
    "label other than 0 and 1": (lambda f: edit_labels(f, lambda t: t.assign(label=["2", *t["label"][1:]])), "train_labels.csv"),
    "duplicate ids": (lambda f: edit_labels(f, lambda t: pd.concat([t, t.iloc[:1]])), "train_labels.csv"),
    "empty CSV": (lambda f: (f / "train_labels.csv").write_text(""), "train_labels.csv"),
    "one class only": (lambda f: edit_labels(f, lambda t: t.assign(label="1")), "class 1"),
}
FIRST = []


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_ends_in_one_sentence_and_status_2(command, sample, tmp_path, case):
    folder = shutil.copytree(sample, tmp_path / "copy")
    FIRST[:] = [sorted(file.name for file in (folder / "train").iterdir())[0]]
    spoil, words = BAD_DATA[case]
    spoil(folder)
    status, _, err = command("train", "--data", folder, "--run", "bad", "--recipe", "compact")
    sentence = err.strip().splitlines()[-1]
    assert status == 2 and words in sentence and "Traceback" not in err
    assert not (tmp_path / "runs" / "bad").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--run", "absent", "--data", "{sample}"], "no run folder"),
        (["predict", "--run", "absent", "--data", "{sample}", "--out", "x.csv"], "no run folder"),
        (["train", "--data", "{sample}", "--run", "x", "--recipe", "resnet"], "choose one of"),
        (["train", "--data", "{sample}", "--run", "x", "--set", "epochs"], "key=value"),
        (["train", "--data", "{sample}", "--run", "x", "--recipe", "compact", "--set", "weights=absent.keras"], "absent.keras"),
        (["train", "--data", "{sample}", "--run", "x", "--slides", "absent.csv"], "absent.csv"),
        (["check-submission", "absent.csv", "--sample", "{sample}/sample_submission.csv"], "absent.csv"),
        (["run", "--preset", "full"], "DATA=FOLDER"),
        (["run", "--preset", "huge"], "choose one of sample, full"),
        (["run", "--in-place", "--epochs", "1"], "--in-place"),
        (["run", "--only", "06_magic"], "no notebook for one of 06_magic"),
        (["train", "--data", "{sample}", "--run", ".."], "--run takes the name"),
        (["predict", "--run", "x", "--data", "{sample}", "--out", "absent/x.csv"], "absent/x.csv cannot be written"),
        (["sample", "--story", "lungs"], "choose one of pcam, gastric, organs"),
        (["run", "--only", "07_gastric", "--only", "08_organs", "--data", "{sample}"], "--data fits one of gastric, organs"),
        (["train", "--data", "{sample}", "--run", "x", "--set", "copies=0"], "whole numbers above 0"),
        (["evaluate", "--run", "x", "--data", "{sample}", "--batch", "absent/x.png"], "absent/x.png cannot be written"),
        (["train", "--data", "{sample}", "--run", "pretrained"], "the pretrained model"),
        (["train", "--data", "{sample}", "--run", "x", "--folds", "1"], "folds takes 0 or at least 2"),
        (["predict", "--run", "pretrained", "--run", "y", "--data", "{sample}", "--out", "x.csv"], "no run folder"),
    ],
)
def test_wrong_arguments_end_in_one_sentence_and_status_2(command, sample, arguments, words):
    status, _, err = command(*[argument.format(sample=sample) for argument in arguments])
    assert status == 2 and words in err.strip().splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command 'nope'"),
        (["pack"], "Missing argument"),
        (["evaluate", "--run", "x", "--data", "d", "--views", "many"], "Invalid value for '--views'"),
    ],
)
def test_a_wrong_command_line_ends_with_status_2(command, arguments, words):
    status, _, err = command(*arguments)
    assert status == 2 and words in err and "Traceback" not in err


def test_views_other_than_eight_and_one_are_refused(command, ready, sample):
    status, _, err = command("evaluate", "--run", ready, "--data", sample, "--views", 3)
    assert status == 2 and "8 views or 1, not 3" in err


def test_a_training_that_cannot_start_leaves_the_finished_run_where_it_is(command, ready, sample, tmp_path):
    before = sorted(file.name for file in (tmp_path / "runs" / ready).iterdir())
    status, _, err = command("train", "--data", sample, "--run", ready, "--recipe", "compact", "--set", "weights=absent.keras")
    assert status == 2 and "absent.keras" in err
    assert sorted(file.name for file in (tmp_path / "runs" / ready).iterdir()) == before
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [ready]


@pytest.mark.slow
def test_a_damaged_state_is_named_with_the_cure(command, sample, tmp_path):
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    status, _, err = command("train", "--data", sample, "--run", "fresh", "--recipe", "compact", *settings, "--set", "epochs=1")
    assert status == 0, err
    fresh = tmp_path / "runs" / "fresh"
    (fresh / "metrics.json").unlink()
    (fresh / "state.npz").write_bytes(b"PK half a file")
    status, _, err = command("train", "--data", sample, "--run", "fresh", "--recipe", "compact", *settings, "--set", "epochs=1")
    assert status == 2 and "state.npz is damaged" in err and "delete it" in err
    np.savez(fresh / "state.npz", history="epoch,val_auc\n1,0.5\n", **{f"v{i}": np.zeros(1) for i in range(999)})
    status, _, err = command("train", "--data", sample, "--run", "fresh", "--recipe", "compact", *settings, "--set", "epochs=1")
    assert status == 2 and "state.npz is damaged (of another network than this commit's); delete it" in err


def test_a_submission_for_other_ids_is_refused(command, sample, tmp_path):
    (tmp_path / "s.csv").write_text("id,label\nabc,0.5\n")
    status, _, err = command("check-submission", tmp_path / "s.csv", "--sample", sample / "sample_submission.csv")
    assert status == 2 and "s.csv" in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_while_training_ends_in_one_sentence(sample, tmp_path):
    arguments = ["train", "--data", sample, "--run", "x", "--recipe", "compact", "--set", "epochs=50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "histopath", *map(str, arguments)],
        cwd=PROJECT,
        env={"HISTOPATH_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )
    while not process.stdout.readline().startswith("epoch 1/50"):
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "goes on from there" in err.splitlines()[-1] and "Traceback" not in err


def test_a_folder_that_cannot_be_made_is_named_with_the_cure(command, slide, tmp_path):
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "slides"
    status, _, err = command("slide", slide, "--run", "pretrained", "--out", place)
    assert status == 2 and err.count("\n") == 1 and f"{place} cannot be made (Not a directory); name another" in err


REFUSALS = {
    "labels.csv cannot be used (Permission denied)": PermissionError(errno.EACCES, "Permission denied", "labels.csv"),
    "A file cannot be used (No space left on device)": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_the_system_refuses_ends_in_one_sentence_and_status_2(command, monkeypatch, words):
    monkeypatch.setattr("histopath.evaluation.submission.check_submission", fail(REFUSALS[words]))
    status, _, err = command("check-submission", "s.csv", "--sample", "labels.csv")
    assert status == 2 and err.startswith(words) and err.count("\n") == 1


def test_a_missing_file_of_ours_is_a_bug_and_not_a_mistake_of_the_user(command, monkeypatch):
    monkeypatch.setattr(
        "histopath.evaluation.submission.check_submission", fail(FileNotFoundError(errno.ENOENT, "No such file", "ours"))
    )
    with pytest.raises(FileNotFoundError):
        command("check-submission", "s.csv", "--sample", "labels.csv")


def test_a_bug_shows_its_traceback_and_ends_with_status_1():
    code = "import histopath.evaluation.submission as s; s.check_submission = lambda *_: int('bug')"
    code += "; from histopath.__main__ import main; main()"
    command = [sys.executable, "-c", code, "check-submission", "s.csv", "--sample", "labels.csv"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Traceback") and "ValueError" in done.stderr


def fail(error):
    """A function that raises an error."""

    def call(*_):
        raise error

    return call
