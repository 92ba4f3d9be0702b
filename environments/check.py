"""Checks the project in the environments of Kaggle and Colab, as `make test-environments` does.

For each environment: the quick tests, the included model against the pinned environment, a training that is killed and
resumed, and, for Kaggle, the kernel of `kaggle-bundle` without internet in a folder tree like Kaggle's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
BUILD = PROJECT / "build" / "environments"
PYTHONS = {"kaggle": "3.12", "colab": "3.13"}
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis")
TOLERANCE = 1e-5  # between the probabilities of two environments
TRAIN = ("train", "--preset", "sample", "--recipe", "compact", "--set", "epochs=2", "--run")
TRAIN_PATCHES, EPOCHS = 120, 1  # of the kernel, so that it takes minutes on two cores
COMPETITION = "histopathologic-cancer-detection"

# A root of its own, in which /kaggle exists: the real one stays untouched. Only the loopback device is up.
NAMESPACE = """
set -e
"$PYTHON" -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))'
root="$TREE/root" && mkdir -p "$root" && mount -t tmpfs tmpfs "$root"
for entry in /*; do
  name="$root/$(basename "$entry")"
  if [ -L "$entry" ]; then cp -P "$entry" "$name"
  elif [ -d "$entry" ]; then mkdir "$name" && mount --rbind "$entry" "$name"; fi
done
mkdir -p "$root/kaggle/input" "$root/kaggle/working"
mount --bind "$TREE/input" "$root/kaggle/input" && mount -o remount,bind,ro "$root/kaggle/input"
mount --bind "$TREE/working" "$root/kaggle/working"
exec chroot "$root" /bin/sh -c 'cd /kaggle/working && exec "$@"' sh "$@"
"""


def main() -> None:
    """Checks the environments named on the command line, all without a name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="kaggle, colab; all without a name")
    for name in parser.parse_args().names or list(PYTHONS):
        started = time.perf_counter()
        interpreter = find_python(PYTHONS[name])
        if interpreter is None:
            print(f"{name}: skipped, there is no Python {PYTHONS[name]} here")
            continue
        python = build(name, interpreter)
        check_tests(python)
        check_included_model(name, python)
        check_training(name, python)
        if name == "kaggle":
            check_kernel(python)
        print(f"{name}: all checks passed in {time.perf_counter() - started:.0f} s", flush=True)


def find_python(version: str) -> str | None:
    """Returns an interpreter of a version: on the PATH, or of pyenv."""
    candidates = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for candidate in filter(None, candidates):  # pyenv's shims stand on the PATH and fail where a version is not selected
        if not subprocess.run([candidate, "-c", ""], capture_output=True).returncode:
            return str(candidate)
    return None


def build(name: str, interpreter: str) -> Path:
    """Makes the virtual environment of `NAME.txt`, or takes the one that was made of the same file."""
    listed, folder = PROJECT / "environments" / f"{name}.txt", BUILD / name
    stamp = folder / "requirements.txt"
    if not stamp.is_file() or stamp.read_text() != listed.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        call(interpreter, "-m", "venv", folder)
        call(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", listed, *TEST_PACKAGES)
        shutil.copy(listed, stamp)
    return folder / "bin" / "python"


def check_tests(python: Path) -> None:
    """Runs the quick tests."""
    options = ("-n", "2", "--dist", "loadfile", "-m", "not slow", "-p", "no:cacheprovider", "-W", "ignore")
    documented = "tests/test_repository.py::test_the_commands_are_documented_as_their_help_says"  # as the pinned typer writes
    call(python, "-m", "pytest", *options, "--deselect", documented)


def check_included_model(name: str, python: Path) -> None:
    """Scores the included model, and compares its probabilities with those of the interpreter that runs this."""
    data = BUILD / "sample"
    histopath(sys.executable, "sample", data)
    tables = []
    for owner, which in (("pinned", sys.executable), (name, python)):
        histopath(which, "predict", "--run", "pretrained", "--data", data, "--out", BUILD / f"{owner}.csv")
        tables.append(pd.read_csv(BUILD / f"{owner}.csv", index_col="id")["probability"])
    histopath(python, "evaluate", "--run", "pretrained", "--data", data)
    difference = float(np.abs(tables[0] - tables[1].reindex(tables[0].index)).max())
    print(f"{name}: {len(tables[0])} probabilities of the included model differ by at most {difference:.1e}")
    if not difference <= TOLERANCE:
        sys.exit(f"{name}: the probabilities differ by more than {TOLERANCE}")


def check_training(name: str, python: Path) -> None:
    """Trains two epochs, kills the process after the first, resumes, and opens the run in the other environment."""
    shutil.rmtree(BUILD / "home", ignore_errors=True)
    where = {"HISTOPATH_HOME": str(BUILD / "home")}
    command = [*TRAIN, name, "--data", BUILD / "sample"]
    with subprocess.Popen(
        [str(python), "-m", "histopath", *map(str, command)],
        cwd=PROJECT,
        env=os.environ | where | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/2") and "val AUC" in line:
                process.kill()
    resumed = histopath(python, *command, **where)
    if "resuming after epoch 1 of 2" not in resumed:
        sys.exit(f"{name}: the training that was killed after its first epoch did not resume")
    scores = [
        json.loads(histopath(which, "evaluate", "--run", name, "--data", BUILD / "sample", "--json", **where))["auc"]
        for which in (python, sys.executable)
    ]
    print(f"{name}: trained and resumed; AUC {scores[0]:.4f} there and {scores[1]:.4f} in the pinned environment")
    if abs(scores[0] - scores[1]) > 0.001:
        sys.exit(f"{name}: a run trained there scores differently here")


def check_kernel(python: Path) -> None:
    """Executes the kernel of `kaggle-bundle` as Kaggle does, without internet, to a checked CSV."""
    tree = BUILD / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("working", "home"):
        (tree / name).mkdir(parents=True)
    histopath(sys.executable, "kaggle-bundle", "somebody", "--out", tree / "bundle")
    competition = write_competition(tree / "input" / "competitions" / COMPETITION)
    shutil.copytree(tree / "bundle" / "package", tree / "input" / "datasets" / "somebody" / "histopath-package")
    kernel = tree / "working" / "detector.ipynb"
    source = (tree / "bundle" / "kernel" / "detector.ipynb").read_text()
    kernel.write_text(source.replace("--weights none", f"--weights none --epochs {EPOCHS}"))
    execute = ("-m", "jupyter", "nbconvert", "--to", "notebook", "--inplace", "--execute", "detector.ipynb")
    where = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "TREE": str(tree), "PYTHON": str(python)}
    where |= {"HOME": str(tree / "home"), "PIP_NO_INDEX": "1"}
    if not subprocess.run(["unshare", "-rmn", "true"], capture_output=True).returncode:
        call("unshare", "-rmn", "sh", "-c", NAMESPACE, "sh", python, *execute, **where)
    else:
        print("no mount namespace can be made here: the kernel runs in the tree itself, with the network up")
        kernel.write_text(kernel.read_text().replace("/kaggle/", f"{tree}/"))
        call(python, *execute, cwd=tree / "working", HISTOPATH_KAGGLE=str(tree), **where)
    sample = competition / "sample_submission.csv"
    print(histopath(sys.executable, "check-submission", tree / "working" / "submission.csv", "--sample", sample).strip())


def write_competition(folder: Path) -> Path:
    """The competition's folder, of real patches where they are at hand, else of the sample: few to train on, all to predict."""
    real = PROJECT.parent / "shared" / "data" / "kaggle"
    source = real if real.is_dir() else BUILD / "sample"
    (folder / "train").mkdir(parents=True)
    labels = pd.read_csv(source / "train_labels.csv").groupby("label").head(TRAIN_PATCHES // 2)
    labels.to_csv(folder / "train_labels.csv", index=False)
    for name in labels["id"]:
        shutil.copy(source / "train" / f"{name}.tif", folder / "train")
    shutil.copytree(source / "test", folder / "test")
    shutil.copy(source / "sample_submission.csv", folder)
    return folder


def histopath(python: Path | str, *arguments: object, **where: str) -> str:
    """Runs a command of the package from the checkout; returns what it printed, and shows it when it fails."""
    command = [str(python), "-m", "histopath", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | where, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def call(*command: object, cwd: Path = PROJECT, **where: str) -> None:
    """Runs a command and ends with it when it fails."""
    status = subprocess.run([str(part) for part in command], cwd=cwd, env=os.environ | where).returncode
    if status:
        sys.exit(f"{' '.join(str(part) for part in command)[:200]} ended with {status}")


if __name__ == "__main__":
    main()
