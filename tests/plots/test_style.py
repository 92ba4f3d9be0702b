"""Export: a file that is complete or absent, small, and the very picture that the notebook shows."""

import base64

import matplotlib
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from histopath.plots import pages
from histopath.plots.style import INK, STYLE, export, styled

PATCHES = np.random.default_rng(0).integers(60, 220, (8, 96, 96, 3), dtype=np.uint8)


def test_notebook_shows_the_bytes_of_the_file_and_its_name_as_text(tmp_path):
    picture = export(pages.patch_grid(PATCHES[:3]), tmp_path / "new" / "page.png")
    data, _ = DisplayFormatter().format(picture)
    assert data["text/plain"] == "page.png"
    shown = base64.b64decode(data["image/png"])
    assert shown == (tmp_path / "new" / "page.png").read_bytes() and shown.startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.png"]


def test_a_lower_limit_makes_a_smaller_file_with_white_paper_and_dark_ink(tmp_path):
    figure = pages.patch_grid(PATCHES, ["title"] * 8)
    large, small = (export(figure, tmp_path / f"{limit}.png", limit) for limit in (10**6, 10**4))
    assert len(small.data) < 0.8 * len(large.data)
    pixels = np.asarray(Image.open(tmp_path / "10000.png").convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) <= 40
    assert (pixels == 255).all(axis=1).any() and (pixels == tuple(bytes.fromhex(INK[1:]))).all(axis=1).any()


def test_same_figure_gives_the_same_bytes(tmp_path):
    first, again = (export(pages.patch_grid(PATCHES[:4]), tmp_path / "a.png").data for _ in range(2))
    assert first == again


def test_a_failed_export_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="no space left to write .*a.png"):
        export(Figure(figsize=(1, 1)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_other_file_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg does not end in \.png"):
        export(Figure(figsize=(1, 1)), tmp_path / "a.jpg")


def test_style_ends_with_the_drawing():
    inside = styled(lambda: matplotlib.rcParams["axes.labelcolor"])()
    assert inside == STYLE["axes.labelcolor"] != matplotlib.rcParams["axes.labelcolor"]
