"""The web page in a real browser without network: uploads, examples, errors, a phone, several visitors."""

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

from histopath.app.analyze import Analysis, analyze_image
from histopath.app.page import build_page, describe
from histopath.config import MICRONS_PER_PIXEL
from histopath.files import InputError

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """The page of the sample's small run, served by the command; it removes its temporary files when it ends."""
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
    assert list(temporary.glob("histopath-page-*/**/*.png"))
    server.terminate()
    server.wait(20)
    assert not list(temporary.glob("histopath-page-*"))


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", offline])
        yield opened
        opened.close()


def visit(browser, address: str, width: int = 1280):
    """Opens the page and records what it requests."""
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(120_000)  # a busy machine may need a minute for the first prediction
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    page.wait_for_selector("#examples img")
    return page


@pytest.fixture
def page(browser, address):
    """The page on a laptop; nothing may be requested from another host."""
    shown = visit(browser, address)
    yield shown
    assert [url for url in shown.requested if not url.startswith((address, "data:", "blob:"))] == []


def analyze(page, path: Path, expected: str) -> str:
    """Uploads a file, starts the analysis and waits for a text; returns all of the result's text."""
    page.set_input_files("#upload input[type=file]", path)
    page.get_by_text(path.name.split(".")[0]).first.wait_for()
    page.get_by_role("button", name="Analyze").click()
    return read(page, expected)


def read(page, expected: str) -> str:
    page.wait_for_function("words => document.querySelector('#text').innerText.includes(words)", arg=expected)
    return page.inner_text("#text")


@pytest.fixture
def mosaic(small, tmp_path):
    """A file with sixteen sample patches, 384×384."""
    rows = [np.concatenate(list(small.images[start : start + 4]), axis=1) for start in (0, 4, 8, 12)]
    cv2.imwrite(str(tmp_path / "mosaic.png"), np.concatenate(rows)[..., ::-1])
    return tmp_path / "mosaic.png"


def test_an_uploaded_patch_is_analyzed(page, run, small, tmp_path):
    cv2.imwrite(str(tmp_path / "patch.tif"), small.images[0][..., ::-1])
    text = analyze(page, tmp_path / "patch.tif", "detected")
    p = float(analyze_image(run, small.images[0], MICRONS_PER_PIXEL).scores[0])
    assert f"The tumor probability is {p:.2f}" in text and f"{p:.0%}" in page.inner_text("#bar")
    assert not page.locator("#tiles").is_visible()
    assert page.inner_text("body").count("not a medical device") == 1


def test_the_heatmap_of_an_example_can_be_hidden(page):
    page.locator("#examples img").first.click()
    read(page, "among 81 tiles")
    page.wait_for_selector("#tiles img")
    page.wait_for_selector("#overlay img")
    page.get_by_label("Show heatmap").uncheck()
    page.wait_for_selector("#plain img")
    assert page.locator("#tiles img").count() == 5 and not page.locator("#overlay").is_visible()


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"no image", "is not a complete image in a supported format"), (b"\x89PNG\r\n\x1a\n", "bad.png")]
)
def test_a_bad_file_gives_one_sentence(page, tmp_path, content, sentence):
    (tmp_path / "bad.png").write_bytes(content)
    assert "Error" in analyze(page, tmp_path / "bad.png", sentence)
    assert "Traceback" not in page.inner_text("body") and not page.locator("#bar").is_visible()


def test_the_resolution_changes_the_analysis(page, mosaic):
    microns = page.get_by_label("Microns per pixel")
    for typed, expected in (("0.486", "192×192 pixels"), ("50", "outside the supported range"), ("", "are missing")):
        microns.fill(typed)
        analyze(page, mosaic, expected) if typed == "0.486" else microns.press("Enter")
        read(page, expected)


def test_a_new_upload_clears_the_result(page, mosaic):
    page.get_by_role("button", name="Analyze").click()
    read(page, "There is no image yet")
    analyze(page, mosaic, "detected")
    page.get_by_label("Clear", exact=False).first.click()
    read(page, "Upload an image and press Analyze")
    assert not page.locator("#bar").is_visible()


def test_visitors_at_the_same_time_get_their_own_results(browser, address, mosaic):
    first, second = visit(browser, address), visit(browser, address)
    first.locator("#examples img").first.click()
    second.locator("#examples img").nth(1).click()
    read(second, "The tumor probability")
    read(first, "among 81 tiles")


def test_a_phone_shows_a_result_without_scrolling_to_the_side(browser, address):
    page = visit(browser, address, width=390)
    page.locator("#examples img").first.click()
    page.wait_for_selector("#tiles img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#text').getBoundingClientRect().top") < 844


def test_no_file_of_this_machine_is_served(address):
    for path in ("/etc/passwd", "/../../../../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=10)
        assert error.value.code in (403, 404)


@pytest.mark.parametrize(("offset", "decision", "side"), [(0, "Tumor", "at or above"), (-0.01, "No tumor", "below")])
def test_the_decision_follows_the_threshold_of_the_run(run, offset, decision, side):
    scores = np.array([run.threshold + offset])
    text = describe(Analysis(np.zeros((96, 96, 3)), scores, [], np.zeros((96, 96)), ["It is blurred."]), run)
    assert text.startswith(f"### {decision} detected") and f"{side} the decision threshold of {run.threshold:.2f}" in text
    assert "**Warning:** It is blurred." in text


def test_a_run_of_three_classes_is_rejected(three_run):
    with pytest.raises(InputError, match="is not a binary classifier of 96×96 patches; choose one with --run"):
        build_page(three_run, {})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--port", "99999", "--port takes a number of 1-65535"),
        ("--host", "nonsense.invalid", "choose another --host or --port"),
        ("--host", "192.0.2.1", "choose another --host or --port"),
        ("--run", "cut", "model.keras is not a complete saved network"),
    ],
)
def test_a_page_that_cannot_be_served_gives_one_sentence(command, run, tmp_path, option, value, words):
    cut = shutil.copytree(run.folder, tmp_path / "runs" / "cut")
    (cut / "model.keras").write_bytes(b"PK")
    status, _, said = command("demo", option, value)
    assert status == 2 and words in said and "Traceback" not in said
