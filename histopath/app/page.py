"""Web page for trying a run on one image, built from Gradio's components and served locally."""

import inspect
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio
import numpy as np
import tifffile
from PIL import Image

from histopath.app.analyze import TILE, Analysis, analyze_image, render
from histopath.config import MICRONS_PER_PIXEL
from histopath.data.images import MAX_UPLOAD_BYTES, read_upload
from histopath.files import InputError, say
from histopath.metrics.binary import tempered
from histopath.models.runs import FOLDER, Run
from histopath.synthetic.slide import slide_file

TITLE = "Histopathologic Cancer Detector"
EXAMPLES = {"Region": (448, 520, 480), "Tumor": (632, 536, TILE), "Normal": (640, 912, TILE)}
KINDS = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"]
START = "### Result\nUpload an image and press **Analyze**, or choose an example."
RESOLUTION = (
    "Resolution of your image, which is resized to that of the training patches, "
    f"{MICRONS_PER_PIXEL}. Typical: 0.25 at 40×, 0.5 at 20×, 1 at 10×."
)
COLORS = "Red is high, uncolored is low: tumor probability of tiles, or Grad-CAM of a single patch."
TILES = "Tiles with the highest probabilities, numbered as in the image"
THEME = gradio.themes.Default(font="system-ui", font_mono="monospace")  # no font from the internet
THEME.set(block_info_text_color="*neutral_500")  # the default is hard to read
SCROLL = "() => { document.getElementById('text').scrollIntoView({block: 'nearest'}) }"


def write_examples(slide: Path, folder: Path) -> dict[str, Path]:
    """Cuts the examples out of the synthetic slide; returns caption → PNG file."""
    pixels, files = tifffile.imread(slide_file(slide), level=1), {}
    for caption, (row, column, side) in EXAMPLES.items():
        files[caption] = folder / f"{caption.lower()}.png"
        Image.fromarray(pixels[row : row + side, column : column + side]).save(files[caption])
    return files


def describe_run(run: Run) -> str:
    """Introduces the page and its model, as Markdown."""
    card = "Its results on held-out slides are in `pretrained/README.md`."
    return (
        f"# {TITLE}\n"
        f"Estimates the probability that the center of a {TILE}×{TILE} H&E patch of a lymph node "
        "contains metastatic cancer. Images stay on the computer that serves this page.\n\n"
        f"Model: `{run.config.model}` from the run `{run.folder.name}`, trained on "
        f"{len(run.rows('train')):,} patches. Its AUC is {run.val['auc']:.3f} on the "
        f"{run.val['patches']:,} validation patches, which were also used for model selection. "
        f"{card if run.folder == FOLDER else ''}\n\n"
        "**Research tool, not a medical device.**"
    )


def describe(analysis: Analysis, run: Run) -> str:
    """States the decision, its threshold, what the probability means and warnings, as Markdown."""
    p, count = float(analysis.scores.max()), len(analysis.scores)
    decision, side = ("Tumor", "at or above") if p >= run.threshold else ("No tumor", "below")
    which = "tumor probability" if count == 1 else f"highest tumor probability among {count:,} tiles"
    calibrated = tempered(np.array([p]), run.temperature)[0]
    height, width = analysis.pixels.shape[:2]
    lines = [
        f"### {decision} detected",
        *(f"⚠️ **Warning:** {warning}" for warning in analysis.warnings),
        f"The {which} is **{p:.2f}**, {side} the decision threshold of {run.threshold:.2f}, "
        "which was chosen on validation patches.",
        f"About {calibrated:.0%} of validation patches with a probability of {p:.2f} contain "
        "tumor in their center. In routine slides tumor is rarer, so this share is lower.",
        f"Analyzed as {width}×{height} pixels at {MICRONS_PER_PIXEL} µm per pixel.",
    ]
    return "\n\n".join(lines)


def respond(run: Run, path: str | None, microns: float | None, report: Callable) -> tuple:
    """Analyzes an upload; returns what `_add_results` shows, or a sentence on what is wrong."""
    try:
        if path is None:
            raise InputError("There is no image yet; upload one or choose an example.")
        if microns is None:
            raise InputError("The microns per pixel are missing; enter a number such as 0.5.")
        analysis = analyze_image(run, read_upload(Path(path)), microns, report)
    except InputError as error:
        return f"### Error\n⚠️ {error}", gradio.Column(visible=False), *[gradio.skip()] * 5
    plain, overlay = render(analysis)
    tiles = [
        (analysis.pixels[row : row + TILE, column : column + TILE], f"{number}: {score:.2f}")
        for number, (row, column, score) in enumerate(analysis.top, start=1)
    ]
    bar = {"tumor": float(analysis.scores.max())}
    several = gradio.Column(visible=len(analysis.scores) > 1)
    return describe(analysis, run), gradio.Column(visible=True), bar, overlay, plain, several, tiles


def build_page(run: Run, examples: dict[str, Path]) -> gradio.Blocks:
    """Builds the page; `examples` are caption → image file at PCam's resolution.

    Raises:
        InputError: if the run is not a binary classifier of 96×96 patches, or is damaged.
    """
    binary = run.threshold is not None and len(run.metrics["tasks"]) == 1
    if not binary or run.network.input_shape[1] != TILE:
        wanted = f"a binary classifier of {TILE}×{TILE} patches"
        raise InputError(f"The run {run.folder} is not {wanted}; choose one with --run.")
    options = _supported(gradio.Blocks, {"theme": THEME, "analytics_enabled": False})
    # Uploads and results are deleted after an hour.
    with gradio.Blocks(title=TITLE, delete_cache=(600, 3600), **options) as page:
        gradio.Markdown(describe_run(run))
        with gradio.Row():
            with gradio.Column(scale=2):
                inputs = _add_inputs(examples)
            with gradio.Column(scale=3):
                results = _add_results()
        _connect(run, list(examples.values()), *inputs, results)
    return page


def _add_inputs(examples: dict[str, Path]) -> list:
    file = gradio.File(label="Image", file_types=KINDS, height=140, elem_id="upload")
    microns = gradio.Number(MICRONS_PER_PIXEL, label="Microns per pixel", info=RESOLUTION)
    button = gradio.Button("Analyze", variant="primary")
    gradio.Markdown("Examples (synthetic tissue)")
    images = [(path, caption) for caption, path in examples.items()]
    return [file, microns, button, _gallery(images, columns=3, elem_id="examples")]


def _add_results() -> list:
    text = gradio.Markdown(START, min_height=160, elem_id="text")
    with gradio.Column(visible=False) as result:
        bar = gradio.Label(label="Probability", show_heading=False, elem_id="bar")
        switch = gradio.Checkbox(True, label="Show heatmap", info=COLORS)
        options = _supported(gradio.Image, {"interactive": False, "buttons": ["fullscreen"]})
        overlay = gradio.Image(show_label=False, elem_id="overlay", **options)
        plain = gradio.Image(show_label=False, elem_id="plain", visible=False, **options)
        with gradio.Column() as several:
            gradio.Markdown(TILES)
            tiles = _gallery(None, columns=5, elem_id="tiles")

    def show(heatmap: bool):
        return gradio.Image(visible=heatmap), gradio.Image(visible=not heatmap)

    switch.change(show, switch, [overlay, plain])
    return [text, result, bar, overlay, plain, several, tiles]


def _gallery(images: list | None, **options) -> gradio.Gallery:
    options |= {"show_label": False, "interactive": False, "allow_preview": False, "height": 170}
    return gradio.Gallery(images, **_supported(gradio.Gallery, options | {"buttons": []}))


def _connect(run: Run, examples: list[Path], file, microns, button, gallery, results) -> None:
    def analyze(path, microns_per_pixel, progress=gradio.Progress()):  # noqa: B008
        progress(0, desc="Analyzing")
        return respond(run, path, microns_per_pixel, lambda share: progress(share, desc="Analyzing"))

    def choose(event: gradio.SelectData):
        return str(examples[event.index]), MICRONS_PER_PIXEL

    # On a phone the result is below the inputs.
    gradio.on([button.click, microns.submit, gallery.select], None, js=SCROLL)
    # One analysis at a time bounds the memory; the others wait in the queue.
    options = {"concurrency_limit": 1, "concurrency_id": "analyze", "show_progress_on": results[0]}
    gradio.on([button.click, microns.submit], analyze, [file, microns], results, **options)
    chosen = gallery.select(choose, None, [file, microns])
    chosen.then(analyze, [file, microns], results, **options)
    gradio.on([file.upload, file.clear], _reset, None, results[:2])


def _reset():
    return START, gradio.Column(visible=False)


def serve(run: Run, slide: Path, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serves the page, with examples from the synthetic slide's folder, until it is interrupted.

    Raises:
        InputError: if the run cannot be used, or host and port are not available.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    _check_address(host, port)
    with tempfile.TemporaryDirectory(prefix="histopath-page-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = build_page(run, write_examples(slide, Path(folder)))
        options = {"theme": THEME, "footer_links": [], "show_api": False, "run_history": False}
        options |= {"max_file_size": MAX_UPLOAD_BYTES, "ssr_mode": False, "enable_monitoring": False}
        options |= {"server_name": host, "server_port": port, "share": False, "quiet": True}
        options = _supported(page.launch, options)
        page.queue(max_size=20).launch(prevent_thread_lock=True, **options)
        say(f"The page is at {page.local_url}; press Ctrl-C to stop.")
        page.block_thread()


def _supported(function: Callable, options: dict) -> dict:
    """Keeps the options that this version of Gradio knows; 5 and 6 differ in some."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def _check_address(host: str, port: int) -> None:
    """Raises InputError if nothing can be served there; Gradio would try other ports."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        problem = f"The page cannot be served at {host}:{port} ({error.strerror})"
        raise InputError(f"{problem}; choose another --host or --port.") from None
