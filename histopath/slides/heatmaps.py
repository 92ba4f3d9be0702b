"""Tumor over whole slides. In: a Run and slides. Out: a score a tile, regions for QuPath, a heatmap, one number a slide.

A slide's folder holds `scores.csv` (every tile), `regions.geojson` (where the probability reaches the run's threshold),
`heatmap.png` (beside the slide), `heatmap.tif` (a pyramid that lies over the slide) and `slide.json` (the numbers).
"""

import functools
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import tifffile

from histopath.config import MICRONS_PER_PIXEL
from histopath.files import InputError, locked, make_folder, progress_bar, replacing, say, write_table, write_text
from histopath.metrics.binary import auc, format_interval, roc
from histopath.metrics.intervals import delong_interval
from histopath.models.predict import eight_views, prediction_step
from histopath.models.runs import Run, open_run
from histopath.plots import charts
from histopath.plots.style import export
from histopath.slides.cluster import each_on_cluster
from histopath.slides.tiles import (
    SLIDE_FILES,
    TILE,
    Slide,
    find_tissue,
    open_slide,
    plan_tiles,
    read_overview,
    read_tiles,
    tile_corners,
)

STRIDE = 48  # patch pixels between tiles: half of one overlaps the next
CELL = 8  # pixels of a tile's place in `heatmap.tif`
WRITTEN = ("scores.csv", "regions.geojson", "heatmap.tif", "heatmap.png")  # and slide.json, last
UNSCORED = {"slide": "", "tiles": 0, "score": np.nan, "tumor_share": np.nan, "error": ""}
EVERY = 16  # batches after which what is predicted is on the disk


def score_slide(
    run: Run,
    path: Path,
    folder: Path,
    stride: int = STRIDE,
    views: int = 1,
    microns_per_pixel: float | None = None,
    progress: bool = True,
) -> dict:
    """Predicts every tile on tissue and writes the folder of a slide; an interrupted one goes on, a finished one is kept.

    Args:
        run: a finished run of two classes, for patches of 96×96.
        path: the slide.
        folder: where to write.
        stride: patch pixels between tiles.
        views: 1 or 8 a tile.
        microns_per_pixel: where the file does not say it.
        progress: show a progress bar.

    Returns:
        `slide`, `file`, `run`, `microns_per_pixel`, `stride`, `views`, `tiles`, `score` (the largest mean of 3×3 neighboring
        tiles), `tumor_share` (tiles that reach the threshold), `threshold`.

    Raises:
        InputError: as `tiles.open_slide`, when no tissue is found, and when the folder holds
            the scores of another slide of that name.
    """
    if run.threshold is None or tuple(run.network.input_shape[1:3]) != (TILE, TILE):
        raise InputError(f"The run {run.folder} does not tell two classes of {TILE}×{TILE} patches apart; give one that does.")
    slide = open_slide(path, microns_per_pixel)
    plan = _plan(run, slide, stride, views)
    with locked(folder):
        make_folder(folder)
        finished = read_finished(folder)
        if finished and finished["plan"] == plan:
            return finished
        if finished and finished["file"] != str(path.resolve()):
            raise InputError(f"{folder} holds the scores of another slide, {finished['file']}; name another folder with --out.")
        overview = read_overview(slide)
        tiles = plan_tiles(slide, find_tissue(overview), stride)
        if not len(tiles):
            raise InputError(f"{path} shows no tissue: nothing there has color; look whether it is the right file.")
        corners = tile_corners(slide, tiles, stride)
        p = _predict_tiles(run, slide, corners, views, plan, folder / "unfinished.npz", progress)
        heat = fill_grid(slide, tiles, p, stride)
        side = round(TILE * slide.scale)
        columns = {"x": corners[:, 0], "y": corners[:, 1], "side": side, "probability": p.round(4)}
        (folder / "slide.json").unlink(missing_ok=True)  # it says that the others belong together
        write_table(folder / "scores.csv", pd.DataFrame(columns))
        write_text(folder / "regions.geojson", json.dumps(find_regions(slide, heat, run.threshold, stride)) + "\n")
        write_pyramid(heat, stride, slide.size, folder / "heatmap.tif")
        export(charts.slide_heatmap(overview, heat, extent_of(slide, heat, stride), path.name), folder / "heatmap.png")
        numbers = {
            "slide": path.name,
            "file": str(path.resolve()),
            "run": run.folder.name,
            "microns_per_pixel": slide.microns_per_pixel,
            "stride": stride,
            "views": views,
            "tiles": len(tiles),
            "score": slide_score(heat),
            "tumor_share": float((p >= run.threshold).mean()),
            "threshold": run.threshold,
            "plan": plan,
        }
        write_text(folder / "slide.json", json.dumps(numbers, indent=2) + "\n")
        (folder / "unfinished.npz").unlink(missing_ok=True)
    return numbers


def read_finished(folder: Path) -> dict | None:
    """Returns what `slide.json` says of a slide whose files are all there; None otherwise, and where it is damaged."""
    try:
        numbers = json.loads((folder / "slide.json").read_text(encoding="utf-8"))
        whole = {"plan", "file", *UNSCORED} - {"error"} <= numbers.keys()
    except (OSError, ValueError, AttributeError):
        return None
    return numbers if whole and all((folder / name).is_file() for name in WRITTEN) else None


def _plan(run: Run, slide: Slide, stride: int, views: int) -> str:
    """A fingerprint of everything that the probabilities depend on."""
    stat = slide.path.stat()
    weights = hashlib.sha256((run.folder / "model.keras").read_bytes()).hexdigest()
    said = [slide.path.name, stat.st_size, stat.st_mtime_ns, slide.microns_per_pixel, weights, stride, views]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _predict_tiles(run: Run, slide: Slide, corners: np.ndarray, views: int, plan: str, file: Path, progress: bool) -> np.ndarray:
    """Probability of every tile, float32 (N,). What an interrupted command finished is read from `file`."""
    p = _read_unfinished(file, plan, len(corners))
    first = int(np.isfinite(p).sum())  # tiles are predicted in their order
    size, step = run.config.predict_batch, prediction_step(run.network)
    with progress_bar(f"predicting {slide.path.name}", len(corners), first, progress, unit=" tiles") as bar:
        try:
            for number, batch in enumerate(read_tiles(slide, corners[first:], size), start=1):
                start, count = first + (number - 1) * size, len(batch)
                filled = batch[np.resize(np.arange(count), size)]  # one shape, so that nothing is compiled twice
                chosen = eight_views(filled) if views == 8 else [filled]
                p[start : start + count] = np.mean([np.asarray(step(view))[:count, -1] for view in chosen], axis=0)
                if number % EVERY == 0:
                    _keep_unfinished(file, plan, p)
                bar.update(count)
        except KeyboardInterrupt:
            _keep_unfinished(file, plan, p)
            raise
    return p


def _keep_unfinished(file: Path, plan: str, p: np.ndarray) -> None:
    with replacing(file) as part:
        np.savez(part, plan=plan, p=p)


def _read_unfinished(file: Path, plan: str, count: int) -> np.ndarray:
    """What was predicted under the same plan; else nothing, NaN."""
    try:
        with np.load(file) as kept:
            if str(kept["plan"]) == plan and kept["p"].shape == (count,):
                return kept["p"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or damaged: what is lost is a part of one slide
    return np.full(count, np.nan, "float32")


def fill_grid(slide: Slide, tiles: np.ndarray, p: np.ndarray, stride: int) -> np.ndarray:
    """The probabilities at their places: float32 (rows, columns), NaN where no tile is."""
    width, height = slide.size
    heat = np.full(((height - TILE) // stride + 1, (width - TILE) // stride + 1), np.nan, "float32")
    heat[tiles[:, 0], tiles[:, 1]] = p
    return heat


def slide_score(heat: np.ndarray) -> float:
    """The largest mean of 3×3 neighboring tiles: one tile alone may err, a focus of tumor covers several."""
    known = np.isfinite(heat)
    sums, counts = (
        cv2.boxFilter(values, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        for values in (np.where(known, heat, 0).astype("float32"), known.astype("float32"))
    )
    return float((sums / np.maximum(counts, 1))[known].max())


def extent_of(slide: Slide, heat: np.ndarray, stride: int) -> tuple[float, float, float, float]:
    """Where the grid lies on the slide, as shares of its width and height: left, right, bottom, top.

    A tile stands for the square of one stride around its middle, since its label speaks of its middle.
    """
    width, height = slide.size
    left, top = ((TILE - stride) / 2 / side for side in (width, height))
    return left, left + heat.shape[1] * stride / width, top + heat.shape[0] * stride / height, top


def find_regions(slide: Slide, heat: np.ndarray, threshold: float, stride: int) -> dict:
    """Outlines where the probability reaches the threshold, as GeoJSON that QuPath opens: one polygon a region, base pixels."""
    inside = np.nan_to_num(heat, nan=-1.0) >= threshold
    count, numbers = cv2.connectedComponents(inside.astype("uint8"), connectivity=4)
    features = []
    for number in range(1, count):
        own = numbers == number
        rings = _outline(own, slide, stride)
        area = own.sum() * (stride * MICRONS_PER_PIXEL) ** 2
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                    "measurements": {"mean probability": round(float(heat[own].mean()), 4), "area um^2": round(float(area))},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _outline(own: np.ndarray, slide: Slide, stride: int) -> list[list[list[int]]]:
    """The outer ring of one region and those of its holes, along the edges of its cells, closed."""
    large = np.pad(own, 1).astype("uint8").repeat(4, 0).repeat(4, 1)
    rings, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    start = (TILE - stride) / 2
    outlines = []
    for ring in sorted(rings, key=cv2.contourArea, reverse=True):
        cells = np.rint(ring[:, 0].astype("float64") / 4) - 1  # from pixels of the enlarged grid to edges of cells
        corners = cells[(cells != np.roll(cells, 1, axis=0)).any(axis=1)]  # neighbors of a cut corner fall together
        points = np.rint((corners * stride + start) * slide.scale).astype(int).tolist()
        outlines.append([*points, points[0]])
    return outlines


def write_pyramid(heat: np.ndarray, stride: int, size: tuple[int, int], path: Path) -> None:
    """Writes the heatmap as a tiled TIFF of several levels, from corner to corner of the slide, with its micrometers a pixel.

    Args:
        heat: float (rows, columns), colored; NaN, where no tile is, and what lies beside the grid are white.
        stride: patch pixels between tiles.
        size: width and height of the slide, in patch pixels.
        path: the TIFF.
    """
    colors = (matplotlib.colormaps["inferno"](np.nan_to_num(heat))[..., :3] * 255).round().astype("uint8")
    colors[np.isnan(heat)] = 255
    microns, cells = stride * MICRONS_PER_PIXEL / CELL, colors.repeat(CELL, 0).repeat(CELL, 1)
    width, height = (round(side * CELL / stride) for side in size)
    level = np.full((height, width, 3), 255, "uint8")
    start = round((TILE - stride) / 2 * CELL / stride)  # as in `extent_of`; below 0 where tiles stand apart
    cells, first = cells[max(0, -start) :, max(0, -start) :], max(0, start)
    inside = level[first : first + cells.shape[0], first : first + cells.shape[1]]
    inside[:] = cells[: inside.shape[0], : inside.shape[1]]
    with replacing(path) as part, tifffile.TiffWriter(part, bigtiff=level.nbytes > 2**31) as file:
        for number in range(16):
            dots = 1e4 / (microns * 2**number)
            file.write(
                level,
                tile=(256, 256),
                photometric="rgb",
                compression="deflate",
                subfiletype=int(number > 0),
                resolution=(dots, dots),
                resolutionunit="CENTIMETER",
            )
            if max(level.shape[:2]) <= 256:
                break
            level = np.ascontiguousarray(level[::2, ::2])


def list_slides(path: Path) -> list[Path]:
    """The slides of a folder, by name; a file is itself.

    Raises:
        InputError: when there is no such file or folder; when a folder holds none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"There is no slide or folder {path}.")
    found = sorted(
        one for one in path.iterdir() if one.suffix.lower() in SLIDE_FILES and one.is_file() and not one.name.startswith(".")
    )
    if not found:
        raise InputError(f"{path} holds no slide ({', '.join(SLIDE_FILES)}).")
    return found


def score_slides(
    run: Run,
    paths: list[Path],
    out: Path,
    log: Callable[[str], None] = say,
    cluster: str = "",
    stride: int = STRIDE,
    views: int = 1,
    microns_per_pixel: float | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Scores slides one after the other, or on a cluster; one that cannot be read does not stop the others.

    Args:
        run: a finished run.
        paths: the slides.
        out: folder in which each slide gets one of its own, by its name without the ending.
        log: takes one line a slide.
        cluster: address or number of workers as `clusters.each_on_cluster` takes; empty for this process alone.
        stride, views, microns_per_pixel, progress: as in `score_slide`.

    Returns:
        One row a slide: `slide`, `tiles`, `score`, `tumor_share`, `error` (empty when fine). `OUT/slides.csv` holds them
        and the rows of other slides that stood there, by name.

    Raises:
        InputError: when two slides have one name, so that one would overwrite the other.
    """
    if len({path.stem for path in paths}) < len(paths):
        raise InputError(f"Two of the slides in {paths[0].parent} have one name but for its ending; rename one.")
    make_folder(out)
    score = functools.partial(score_slide, stride=stride, views=views, microns_per_pixel=microns_per_pixel, progress=progress)
    if cluster:
        rows = each_on_cluster(cluster, functools.partial(_score_in_worker, run.folder, out, score), paths)
    else:
        rows = (_score_row(run, out, score, path) for path in paths)
    order, done = [path.name for path in paths], {}
    for row in rows:
        row = done[row["slide"]] = UNSCORED | row
        log(f"{row['slide']}: {row['error'] or _describe_row(row)}")
        _keep_rows(out / "slides.csv", pd.DataFrame([row]))
    return pd.DataFrame([done[name] for name in order])


def _keep_rows(file: Path, rows: pd.DataFrame) -> None:
    """Puts rows into `slides.csv` in place of those of the same slides; other commands may do so at the same time."""
    with locked(file):
        try:
            before = pd.read_csv(file, dtype={"slide": str, "error": str})[list(UNSCORED)].fillna({"error": ""})
        except (OSError, ValueError, KeyError):
            before = rows.iloc[:0]  # absent or damaged
        others = before[~before["slide"].isin(rows["slide"])]
        write_table(file, pd.concat([others, rows]).sort_values("slide", kind="stable") if len(others) else rows)


def _score_in_worker(folder: Path, out: Path, score: Callable, path: Path) -> dict:
    """One task of a cluster: as `_score_row`, of the run in a folder."""
    return _score_row(_open_once(folder), out, score, path)


@functools.cache
def _open_once(folder: Path) -> Run:
    """A worker reads the network once for all its slides."""
    return open_run(folder)


def _score_row(run: Run, out: Path, score: Callable, path: Path) -> dict:
    """Scores one slide into its folder below `out`; its row of `slides.csv`, with the error that it ended in."""
    row = UNSCORED | {"slide": path.name}
    try:
        numbers = score(run, path, out / path.stem)
        return row | {key: numbers[key] for key in ("tiles", "score", "tumor_share")}
    except (InputError, OSError) as error:
        return row | {"error": " ".join(str(error).split())}


def _describe_row(row: dict) -> str:
    return f"score {row['score']:.3f}, {row['tiles']:,} tiles, {row['tumor_share']:.1%} of them tumor"


def read_labels(file: Path) -> pd.Series:
    """Reads a CSV of `slide` (file name) and `label` (0 or 1).

    Returns:
        The label of each slide, by its file name.

    Raises:
        InputError: when it is absent or no such table, names a slide twice, or has another label; the text says which.
    """
    try:
        table = pd.read_csv(file, dtype={"slide": str})
        given = table.set_index("slide")["label"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{file} must be a CSV with the columns slide and label ({' '.join(str(error).split())}).") from None
    if given.index.duplicated().any():
        raise InputError(f"{file} names {given.index[given.index.duplicated()][0]} twice; leave one row a slide.")
    if not given.isin((0, 1)).all():
        wrong = given[~given.isin((0, 1))]
        raise InputError(f"{file} gives {wrong.index[0]} the label {wrong.iloc[0]}; labels are 0 and 1.")
    return given.astype(int)


def rank_slides(table: pd.DataFrame, given: pd.Series, picture: Path) -> str:
    """Scores the slides' scores against labels, and draws their ROC.

    Args:
        table: as made by `score_slides`.
        given: as from `read_labels`.
        picture: PNG to write.

    Returns:
        The AUC with DeLong's interval and the number of slides, in words.

    Raises:
        InputError: when no slide of one of the classes was scored.
    """
    scored = table[table["error"] == ""].assign(label=table["slide"].map(given)).dropna(subset=["label"])
    if scored["label"].nunique() != 2:
        raise InputError(
            f"Of the slides that were scored, the labels name {len(scored)}, and a ROC needs one of each class; they go by file "
            f"names such as {table['slide'].iloc[0]}."
        )
    answers = scored["label"].to_numpy().astype(int), scored["score"].to_numpy()
    text = format_interval("AUC", auc(*answers), *delong_interval(*answers), len(scored), "slides")
    export(charts.roc_curves({text: roc(*answers)[:2]}), picture)
    return text
