"""A web page on which a person tries a run. In: a Run. Out: a gradio page on this machine; nothing of an upload is kept."""

import base64
import html
import os
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import gradio
import matplotlib
import numpy as np
import pandas as pd
import tifffile

from histopath.config import MICRONS_PER_PIXEL
from histopath.data.images import MAX_UPLOAD_BYTES, UPLOAD_FORMATS, read_upload
from histopath.files import say
from histopath.models.runs import FOLDER, Run
from histopath.readings import Reading, read_tissue
from histopath.sample_slide import MASK, slide_file

WIDEST = 1400  # pixels of a shown image
ENLARGED = 480  # pixels of a shown patch
EXAMPLE = 480  # pixels of the larger example
START = "<p class=said>Drop an image at the left, or choose an example. The answer stands here.</p>"
NOT_A_DEVICE = "A research tool, <b>not a medical device</b>: it must not be used for diagnosis."
CARD = "; its scores on other slides stand in <code>pretrained/README.md</code>"
CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto}
.gradio-container h1 {font-size: 1.7rem; margin: .2rem 0 .3rem}
.said, .pictures figcaption {color: #4b5768; line-height: 1.45}
.dark .said, .dark .pictures figcaption {color: #b6c0cf}
#examples, #examples > div, #examples .grid-wrap {height: auto !important; min-height: 0 !important; max-height: none !important}
@media (max-width: 640px) {.gradio-container .main {padding: 8px !important}}
.warning {border-left: 4px solid #c9512f; background: #c9512f14; padding: .6rem .9rem; margin: .5rem 0; border-radius: 4px}
.number {font-size: 2.6rem; font-weight: 700; line-height: 1.1}
.cards {display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: .8rem 0}
.card {border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .7rem .9rem}
.card b {font-size: 1.25rem; display: block}
.pictures {display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: .8rem}
.pictures figure {margin: 0} .pictures img {width: 100%; border-radius: 6px; display: block}
.pictures figcaption {font-size: .9rem; padding: .3rem 0}
#reading .windows {border: 0; border-collapse: collapse; margin-top: .6rem}
#reading .windows :is(td, th) {padding: .25rem 1.4rem .25rem 0; text-align: left; border: 0}
#reading .windows tr {border: 0; border-bottom: 1px solid var(--border-color-primary)}
"""


def read_examples(folder: Path) -> dict[str, np.ndarray]:
    """Reads what a person may click from the synthetic slide: name → RGB pixels.

    Args:
        folder: as written by `sample_slide.write_slide`.
    """
    slide = tifffile.imread(slide_file(folder), level=1)
    places = MASK * pd.read_csv(folder / "tumour.csv").sort_values(["column", "row"], ignore_index=True)
    border, inside = places.iloc[-1], places.iloc[len(places) // 2]
    cuts = {
        "tissue": (border, EXAMPLE),
        "tumour": (inside, 96),
        "lymph node": (border + np.array([0, 200]), 96),
    }
    return {name: _cut(slide, *place, side) for name, (place, side) in cuts.items()}


def _cut(slide: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """A square around a place, moved where it would leave the slide."""
    top, left = (min(max(0, at - side // 2), length - side) for at, length in zip((row, column), slide.shape, strict=False))
    return slide[top : top + side, left : left + side]


def build_page(run: Run, examples: Mapping[str, np.ndarray]):
    """The page: what it is, a place for an image, examples, and the reading.

    Args:
        run: a finished run of two classes.
        examples: name → RGB pixels, uint8 (H, W, 3).

    Returns:
        A `gradio.Blocks`, not yet served.

    Raises:
        ValueError: when the run tells more than two classes apart.
    """
    if run.threshold is None or len(run.metrics["tasks"]) > 1:
        raise ValueError(f"The run {run.folder} does not tell two classes apart; give one that does.")
    names = list(examples)

    def read_file(path, microns, before, progress=gradio.Progress()):  # noqa: B008, gradio looks for it there
        if path is None or (path, microns) == before:  # nothing new is asked
            return gradio.skip(), before
        return _answer(run, lambda: read_upload(Path(path)), microns, Path(path).name, progress), (path, microns)

    def read_example(event: gradio.SelectData, progress=gradio.Progress()):  # noqa: B008, gradio looks for it there
        name = names[event.index]
        return _answer(run, lambda: examples[name], str(MICRONS_PER_PIXEL), name, progress), None

    with gradio.Blocks(title="Histopathologic Cancer Detector", analytics_enabled=False) as page:
        gradio.HTML(
            f"<h1>Histopathologic Cancer Detector</h1><p class=said>{describe_run(run)}</p><p class=warning>{NOT_A_DEVICE}</p>"
        )
        with gradio.Row():
            with gradio.Column(scale=2, min_width=290):
                kinds = [f".{kind.lower()}" for kind in UPLOAD_FORMATS] + [".jpg", ".tif"]
                file = gradio.File(label="A patch or a larger image", file_types=kinds, height=150, elem_id="upload")
                microns = gradio.Textbox(
                    str(MICRONS_PER_PIXEL),
                    label="Micrometres per pixel",
                    info="0.25 at 40x, 0.5 at 20x, 0.97 at 10x and in PCam",
                    max_lines=1,
                    max_length=20,
                    elem_id="microns",
                )
                shown = [(_enlarged(pixels), name) for name, pixels in examples.items()]
                gradio.HTML("<p class=said><b>Examples</b>, drawn and not real tissue: what is answered there means nothing</p>")
                gallery = gradio.Gallery(
                    shown,
                    show_label=False,
                    columns=3,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    object_fit="cover",
                    elem_id="examples",
                )
            with gradio.Column(scale=3, min_width=290):
                reading = gradio.HTML(START, elem_id="reading")
        asked = gradio.State()  # the file and the resolution of the answer that is shown
        for event in (file.upload, microns.submit, microns.blur):
            event(read_file, [file, microns, asked], [reading, asked], api_visibility="private", concurrency_limit=1)
        gallery.select(read_example, None, [reading, asked], api_visibility="private", concurrency_limit=1)
        file.clear(lambda: (START, None), None, [reading, asked], api_visibility="private")
    return page


def serve(run: Run, examples: Mapping[str, np.ndarray], host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serves the page until it is interrupted or told to end; uploads lie in a temporary folder that is then deleted.

    Raises:
        ValueError: when the run's network is damaged, or nothing can be served at this host and port.
    """
    run.network  # noqa: B018, what is wrong with it is said here, and not to the first visitor
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    _check_place(host, port)
    with tempfile.TemporaryDirectory(prefix="histopath-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        font = ("system-ui", "sans-serif")
        theme = gradio.themes.Default(primary_hue="rose", neutral_hue="slate", font=font, font_mono=("ui-monospace", "monospace"))
        page = build_page(run, examples)
        page.queue(max_size=20).launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=MAX_UPLOAD_BYTES,
            ssr_mode=False,
            theme=theme,
            head=f"<style>{CSS}</style>",
            footer_links=[],
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        say(f"the page is at {page.local_url} until Ctrl-C")
        page.block_thread()


def _check_place(host: str, port: int) -> None:
    """Raises ValueError when nothing can be served there; gradio would look for another port, whatever the reason."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise ValueError(
            f"The page cannot be served at {host}:{port} ({error.strerror}); give another --host or --port."
        ) from None


def describe_run(run: Run) -> str:
    """Says which network answers and what it learned from, as HTML."""
    train, val = run.rows("train"), run.val
    share, card = f"{train['label'].mean():.0%}", CARD if run.folder == FOLDER else ""
    return (
        f"Answers: the run <b>{html.escape(run.folder.name)}</b> (<code>{html.escape(run.config.model)}</code>), trained on "
        f"{len(train):,} patches of lymph nodes, 96×96 pixels of {MICRONS_PER_PIXEL} µm, {share} of them with tumour in their "
        f"centre. It has an AUC of {val['auc']:.3f} on the {val['patches']:,} patches that chose its checkpoint, which is no "
        f"test{card}."
    )


def _answer(run: Run, read, microns: str, name: str, progress) -> str:
    """The reading as HTML, or the one sentence that says what is wrong."""
    try:
        progress(0, desc="reading")
        reading = read_tissue(run, read(), _number(microns), lambda share: progress(share, desc="reading windows"))
        return describe_reading(reading, name)
    except ValueError as error:
        return f"<p class=warning role=alert>{html.escape(str(error))}</p>"


def _number(microns: str) -> float:
    try:
        return float(microns.replace(",", "."))
    except ValueError:
        raise ValueError(f"Micrometres per pixel are a number such as 0.25, not {microns!r}.") from None


def describe_reading(reading: Reading, name: str) -> str:
    """A reading as HTML: the number, how to read it, the picture with what was found, and doubts."""
    tumour = reading.probability >= reading.threshold
    what = "the centre of this patch" if reading.windows is None else "the highest of its windows"
    verdict = "at or above" if tumour else "below"
    doubts = "".join(f"<p class=warning role=alert>{html.escape(doubt)}</p>" for doubt in reading.warnings)
    low, high = reading.views.min(), reading.views.max()
    cards = (
        (f"{reading.threshold:.2f}", f"threshold, chosen on validation patches; this is {verdict} it"),
        (
            f"{reading.calibrated:.0%}",
            "calibrated: of validation patches with this value, so many hold tumour; in practice tumour is far rarer",
        ),
        (f"{low:.2f}-{high:.2f}", f"over eight views ({html.escape(reading.views_are)}): the wider, the less sure"),
    )
    grid = "".join(f"<div class=card><b>{number}</b><span class=said>{said}</span></div>" for number, said in cards)
    return (
        f"{doubts}<div class=number>{reading.probability:.2f}</div><p class=said>probability of tumour in {what}: "
        f"{html.escape(name)}</p><div class=cards>{grid}</div>{_pictures(reading)}"
    )


def _pictures(reading: Reading) -> str:
    overlay = _overlay(reading)
    if reading.windows is None:
        pairs = (
            (_enlarged(reading.pixels), "the patch; its centre of 32×32 pixels is what the answer speaks of"),
            (overlay, "Grad-CAM: where the evidence for tumour lies"),
        )
        return f"<div class=pictures>{''.join(_figure(*pair) for pair in pairs)}</div>"
    rows = "".join(
        f"<tr><td>{number}</td><td>{row.x}</td><td>{row.y}</td><td>{row.probability:.2f}</td></tr>"
        for number, row in enumerate(reading.windows.itertuples(), start=1)
    )
    table = f"<table class=windows><tr><th>window</th><th>x</th><th>y</th><th>probability</th></tr>{rows}</table>"
    height, width = reading.pixels.shape[:2]
    said = f"probability of tumour, dark red is 1; {width}×{height} pixels of {MICRONS_PER_PIXEL} µm; framed: the windows below"
    return (
        f"<div class=pictures>{_figure(_fitted(reading.pixels), 'the image as it was read')}{_figure(overlay, said)}</div>{table}"
    )


def _overlay(reading: Reading) -> np.ndarray:
    """The image with the heat laid over it, and the highest windows framed."""
    pixels, heat = reading.pixels, reading.heat
    if reading.windows is None:
        pixels, heat = _enlarged(pixels), cv2.resize(heat, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)
    colours = matplotlib.colormaps["YlOrRd"](np.clip(heat, 0, 1))[..., :3] * 255
    weight = 0.65 * np.clip(heat, 0, 1)[..., None]
    laid = np.clip(np.rint(pixels * (1 - weight) + colours * weight), 0, 255).astype("uint8")
    if reading.windows is not None:
        line = max(2, round(max(laid.shape) / 400))
        for number, row in enumerate(reading.windows.itertuples(), start=1):
            corner = (int(row.x) + 96, int(row.y) + 96)
            cv2.rectangle(laid, (int(row.x), int(row.y)), corner, (20, 30, 60), line)
            cv2.putText(
                laid, str(number), (int(row.x) + 6, int(row.y) + 26), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 30, 60), 2, cv2.LINE_AA
            )
        laid = _fitted(laid)
    return laid


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC)


def _fitted(pixels: np.ndarray) -> np.ndarray:
    scale = WIDEST / max(pixels.shape)
    return pixels if scale >= 1 else cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _figure(pixels: np.ndarray, said: str) -> str:
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    source = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
    return f'<figure><img src="{source}" alt="{html.escape(said)}"><figcaption>{html.escape(said)}</figcaption></figure>'
