"""What several test modules share: the embedded sample, packed, a small part of it, and one real training on that."""

import dataclasses
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from histopath.config import get_config
from histopath.data.patches import open_patches
from histopath.synthetic.patches import PATCHES

PROJECT = Path(__file__).resolve().parents[1]
# `compact` itself does without the last three: its short trainings test what other recipes use, and what `--set` may ask for.
SMALL = {
    "epochs": 2,
    "batch_size": 16,
    "norm_patches": 64,
    "val_fraction": 0.2,
    "ema_momentum": 0.9,
    "label_smoothing": 0.02,
    "stain": 0.2,
}


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """A folder that all workers of one pytest session share: what one of them writes there, the others read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def sample(common):
    return PATCHES.write(common / "sample")


@pytest.fixture(scope="session")
def patches(sample, common):
    return open_patches(sample, cache=common / "packed", progress=False)


@pytest.fixture(scope="session")
def small(patches):
    """The labeled patches of twelve slides, as a PatchSet of their own."""
    slides = sorted(set(patches.table["slide"]))[:12]
    rows = patches.table.index[patches.table["slide"].isin(slides) & (patches.table["label"] >= 0)]
    return dataclasses.replace(patches, images=patches.images[rows], table=patches.table.loc[rows].reset_index(drop=True))


@pytest.fixture(scope="session")
def run(small, common):
    """Two epochs of the compact network on `small`, trained once: the lock of `train` lets the other workers wait for it."""
    from histopath.training.fit import train

    return train(small, get_config("sample", "compact", SMALL), common / "runs" / "small", log=lambda line: None)


@pytest.fixture(scope="session")
def slide(tmp_path_factory):
    """The embedded synthetic slide, 1536×1536 pixels at PCam's resolution."""
    from histopath.synthetic.slide import SLIDE

    return SLIDE.write(tmp_path_factory.mktemp("data") / "slide") / "slides" / "slide.tif"


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """Class folders of three colors, 32×32 pixels, each image with noise of its own."""
    root, rng = tmp_path_factory.mktemp("data") / "three", np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for number in range(40):
            image = rng.integers(60, 160, (32, 32, 3), dtype="uint8")
            image[..., channel] += 60
            cv2.imwrite(str(root / name / f"{name}_{number:02d}.png"), image)
    return open_patches(root, cache=tmp_path_factory.mktemp("packed"), progress=False)


@pytest.fixture(scope="session")
def three_run(three, tmp_path_factory):
    """Three epochs of the compact network on `three`."""
    from histopath.training.fit import train

    folder = tmp_path_factory.mktemp("runs") / "three"
    return train(three, get_config("sample", "compact", SMALL | {"epochs": 3}), folder, log=lambda line: None)


@pytest.fixture
def shared():
    """Real data beside the project; tests that need it are skipped where it is absent."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return folder


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process, in a home of its own: arguments in, (status, stdout, stderr) out."""
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))

    def call(*arguments):
        from histopath.__main__ import main

        monkeypatch.setattr(sys, "argv", ["histopath", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call
