"""The page in a real browser: an upload, an example, a larger image, bad files, a narrow screen."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from histopath.demo import build_page, describe_reading
from histopath.readings import read_tissue

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """The page of the sample's small run, served by the command; told to end, it leaves no upload behind."""
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("temporary")
    shutil.copytree(run.folder, home / "runs" / "small")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "histopath", "demo", "--run", "small", "--port", str(port)]
    where = {"HISTOPATH_HOME": str(home), "TMPDIR": str(temporary)}
    server = subprocess.Popen(command, env=os.environ | where, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            break
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.2)
    yield url
    uploads = [path for path in temporary.glob("histopath-demo-*/**/*") if path.is_file()]
    server.terminate()
    server.wait(20)
    assert not list(temporary.glob("histopath-demo-*")) and (CHROMIUM is None or uploads)


@pytest.fixture
def page(address):
    """A browser page of a laptop's size."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        shown.set_default_timeout(120_000)  # a busy machine may need a minute for the first prediction
        shown.goto(address)
        shown.wait_for_selector("#examples img")
        yield shown
        browser.close()


def upload(page, path: Path):
    page.set_input_files("#upload input[type=file]", path)


def test_an_uploaded_patch_is_answered(page, run, small, tmp_path):
    cv2.imwrite(str(tmp_path / "patch.tif"), small.images[0][..., ::-1])
    upload(page, tmp_path / "patch.tif")
    page.wait_for_selector("#reading .number")
    expected = read_tissue(run, small.images[0])
    assert page.inner_text("#reading .number") == f"{expected.probability:.2f}"
    assert page.locator("#reading img").count() == 2 and page.locator("#reading .card").count() == 3
    assert "not a medical device" in page.inner_text("body") and "patch.tif" in page.inner_text("#reading")


def test_a_larger_image_gets_a_heatmap_and_its_highest_windows(page, small, tmp_path):
    mosaic = np.concatenate([np.concatenate(list(small.images[start : start + 4]), axis=1) for start in (0, 4, 8)])
    cv2.imwrite(str(tmp_path / "tissue.png"), mosaic[..., ::-1])
    upload(page, tmp_path / "tissue.png")
    page.wait_for_selector("#reading table.windows")
    assert page.locator("#reading table.windows tr").count() > 2


def test_an_example_is_answered_when_it_is_clicked(page):
    page.locator("#examples img").first.click()
    page.wait_for_selector("#reading table.windows")
    assert "windows: tissue" in page.inner_text("#reading")


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"no image", "is not a complete image in a supported format"), (b"\x89PNG\r\n\x1a\n", "bad.png")]
)
def test_a_bad_file_ends_in_a_sentence(page, tmp_path, content, sentence):
    (tmp_path / "bad.png").write_bytes(content)
    upload(page, tmp_path / "bad.png")
    page.wait_for_selector("#reading .warning")
    assert sentence in page.inner_text("#reading") and "Traceback" not in page.inner_text("body")


def test_another_resolution_is_another_reading_and_words_are_no_number(page, small, tmp_path):
    mosaic = np.concatenate([np.concatenate(list(small.images[start : start + 4]), axis=1) for start in (0, 4, 8, 12)])
    cv2.imwrite(str(tmp_path / "tissue.png"), mosaic[..., ::-1])
    upload(page, tmp_path / "tissue.png")
    page.wait_for_selector("#reading table.windows")
    for typed, expected in (("0,486", "192×192 pixels"), ("fifty", "such as 0.25, not 'fifty'"), ("50", "cannot be brought")):
        page.fill("#microns textarea, #microns input", typed)
        page.locator("h1").click()  # leaves the field
        page.wait_for_function("words => document.querySelector('#reading').innerText.includes(words)", arg=expected)


def test_a_narrow_screen_needs_no_scrolling_to_the_side(page, small, tmp_path):
    page.set_viewport_size({"width": 390, "height": 844})
    cv2.imwrite(str(tmp_path / "patch.png"), small.images[1][..., ::-1])
    upload(page, tmp_path / "patch.png")
    page.wait_for_selector("#reading .number")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_file_of_this_machine_is_served(address):
    for path in ("/etc/passwd", "/../../../../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=10)
        assert error.value.code in (403, 404)


def test_a_name_is_shown_as_text(run, small):
    said = describe_reading(read_tissue(run, small.images[0]), "<img src=x onerror=alert(1)>.png")
    assert "<img src=x" not in said and "&lt;img src=x" in said


def test_a_run_of_three_classes_is_refused(three_run):
    with pytest.raises(ValueError, match="does not tell two classes apart"):
        build_page(three_run, {})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--port", "99999", "--port takes a number of 1-65535"),
        ("--host", "nonsense.invalid", "give another --host or --port"),
        ("--host", "192.0.2.1", "give another --host or --port"),
        ("--run", "cut", "model.keras is not a complete saved network"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_is(command, run, tmp_path, option, value, words):
    cut = shutil.copytree(run.folder, tmp_path / "runs" / "cut")
    (cut / "model.keras").write_bytes(b"PK")
    status, _, said = command("demo", option, value)
    assert status == 2 and words in said and "Traceback" not in said
