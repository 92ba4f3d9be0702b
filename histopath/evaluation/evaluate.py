"""A run meets patches: scores, tables of probabilities, submissions. In: Run and PatchSet. Out: numbers and CSV files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from histopath.data.patches import PatchSet
from histopath.data.splits import known_slides
from histopath.evaluation.robustness import shifted_aucs
from histopath.evaluation.submission import check_submission, read_ids, write_submission
from histopath.files import InputError, write_table
from histopath.metrics.binary import both_classes, calibration, evaluate, format_interval, roc, tempered
from histopath.metrics.intervals import roc_band
from histopath.metrics.multiclass import class_table, describe_classes, evaluate_task
from histopath.models.equivariant import answers_views_alike
from histopath.models.predict import predict, predict_heads
from histopath.models.runs import FOLDER, Run, open_run, scored_rows, unseen_rows
from histopath.plots import charts
from histopath.plots.style import export
from histopath.synthetic.files import is_synthetic


def score_run(
    run: Run,
    patches: PatchSet,
    views: int = 8,
    progress: bool = False,
    shifts: bool = False,
    figures: Path | None = None,
) -> dict:
    """Scores a run on labeled patches that neither trained it nor chose its checkpoint or threshold.

    Args:
        run: a finished run.
        patches: labeled patches: those of its training (only the holdout is scored) or others.
        views: 8 or 1.
        progress: show a progress bar.
        shifts: also score one view of the patches under changes of stain, focus, compression and brightness.
        figures: folder into which the training and the score are drawn (`write_figures`), or None.

    Returns:
        `run`, `data`, `scored` (which patches, in words), `grouping`, `synthetic`, `views`, and everything that
        `multiclass.evaluate_task` returns. A run of several tasks has that under `tasks`, by the task's name. With
        `shifts` also a table under that name: of each change the AUC at severity 0, 1, … (`robustness.shifted_aucs`).

    Raises:
        InputError: when no such patch is left, one class only, a class that the run does not know, or figures are asked for
            of more than two classes.
    """
    tasks = run.tasks(patches)
    if figures and (len(tasks) > 1 or run.threshold is None):
        raise InputError(f"The run {run.folder} tells more than two classes apart; --figures draws runs of two.")
    rows, words = scored_rows(run, patches)
    answers = predict_heads(run.network, patches.images, rows["row"], views, run.config.predict_batch, progress)
    slides = known_slides(rows)
    scores = {}
    for task, p in zip(tasks, answers, strict=True):
        chosen = run.metrics["tasks"][task.name]
        labels = task.answers(rows["label"])
        scores[task.name] = evaluate_task(labels, p, task.class_names, chosen["threshold"], chosen["temperature"], slides)
    about = {"run": run.folder.name, "data": patches.root.name, "scored": words, "grouping": _describe_slides(run, rows)}
    about |= {"synthetic": is_synthetic(patches.root), "views": views}
    if shifts:
        labels = tasks[0].answers(rows["label"])
        known = answers[0] if views == 1 or answers_views_alike(run.network) else None
        table = shifted_aucs(run.network, patches.images, rows["row"].to_numpy(), labels, run.config.predict_batch, known)
        about["shifts"] = table.to_dict("list")
    said = about | (scores[tasks[0].name] if len(tasks) == 1 else {"tasks": scores})
    if figures:
        write_figures(run, tasks[0].answers(rows["label"]), answers[0], said, slides, figures)
    return said


def describe_scores(scores: dict) -> str:
    """Says the scores of `score_run` in a few lines, with counts and intervals, and a table of several classes."""
    lines = []
    for name, of_task in scores.get("tasks", {"": scores}).items():
        lines += [f"{name}:"] * bool(name)
        if "threshold" in of_task:
            lines.append(_describe_two(of_task))
        else:
            lines += [describe_classes(of_task), class_table(of_task).to_string()]
        lines.append(
            f"calibration error {of_task['ece']:.3f}, and {of_task['ece_tempered']:.3f} at the temperature "
            f"{of_task['temperature']:.2f}, chosen on val"
        )
    if "shifts" in scores:
        lines += ["AUC of one view, by severity of a change:", pd.DataFrame(scores["shifts"]).round(3).to_string()]
    lines.append(
        f"run {scores['run']} on {scores['data']}: {scores['scored']}; {scores['grouping']}; {_count_views(scores['views'])}"
    )
    if scores["synthetic"]:
        lines.append("the data is the synthetic sample: this score says nothing about medicine")
    return "\n".join(lines)


def _describe_two(scores: dict) -> str:
    auc = f"AUC {scores['auc']:.3f} ({scores['auc_low']:.3f}-{scores['auc_high']:.3f}), {scores['patches']:,} patches"
    sides = f"sensitivity {scores['sensitivity']:.3f}, specificity {scores['specificity']:.3f}"
    points = [
        f"{point['name']} {point['reached']:.2f} ({point['low']:.2f}-{point['high']:.2f})" for point in scores["operating_points"]
    ]
    return (
        f"{auc}, {scores['positives']:,} of them positive ({scores['interval']}; DeLong over patches "
        f"{scores['delong_low']:.3f}-{scores['delong_high']:.3f})\n"
        f"accuracy {scores['accuracy']:.3f}, {sides} at threshold {scores['threshold']:.3f}, chosen on val\n"
        f"{'; '.join(points[:3])}\n{'; '.join(points[3:])}"
    )


def _count_views(views: int) -> str:
    return "1 view" if views == 1 else f"{views} views"


def _describe_slides(run: Run, rows: pd.DataFrame) -> str:
    """Says whether slides are known to be kept apart between what was learned and what is scored."""
    if (rows["slide"] != "").all() and (run.splits["slide"] != "").all():
        return f"no slide of its training among them ({rows['slide'].nunique()} slides)"
    return "slides unknown: some may be those of its training, so the score may be too high"


def predict_table(run: Run, patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> pd.DataFrame:
    """Predicts every patch, labeled or not, and writes `id,probability`.

    A run that tells more than two classes apart, or has several tasks, writes for each task the name of the likeliest
    class, under the task's name, and one column a class, such as `p_lung_aca`.

    Returns:
        The table as written, one row a patch in the order of the data.
    """
    tasks = run.metrics["tasks"]  # a damaged run is refused before the work, not after it
    answers = predict_heads(run.network, patches.images, None, views, run.config.predict_batch, progress)
    table = pd.DataFrame({"id": patches.table["id"]})
    for (name, task), p in zip(tasks.items(), answers, strict=True):
        if p.ndim == 1 and len(answers) == 1:
            table["probability"] = p
        else:
            p, names = both_classes(p), np.array(task["class_names"])
            likeliest = pd.Series(names[p.argmax(axis=1)], name=name)
            table = pd.concat([table, likeliest, pd.DataFrame(p, columns=[f"p_{one}" for one in names])], axis=1)
    write_table(out, table)
    return table


def draw_batch(run: Run, patches: PatchSet, count: int = 16, seed: int = 0) -> pd.DataFrame:
    """Draws patches that a run did not learn from and predicts them, one view each.

    Args:
        run: a finished run.
        patches: labeled patches.
        count: how many to draw, at most as many as there are.
        seed: seeds the draw.

    Returns:
        One row a patch: `row` (number of the image), `id`, `truth` and `prediction` (names of the classes, those of several
        tasks joined by ` / `), `probability` (of the prediction; of several tasks the smallest).
    """
    tasks = run.tasks(patches)
    rows = scored_rows(run, patches)[0]
    rows = rows.sample(min(count, len(rows)), random_state=seed).reset_index(drop=True)
    answers = predict_heads(run.network, patches.images, rows["row"], 1, run.config.predict_batch)
    truths, predictions, probabilities = [], [], []
    for task, p in zip(tasks, answers, strict=True):
        p, names = both_classes(p), np.array(task.class_names, dtype=object)
        truths.append(names[task.answers(rows["label"])])
        predictions.append(names[p.argmax(axis=1)])
        probabilities.append(p.max(axis=1))
    joined = {"truth": map(" / ".join, zip(*truths, strict=True)), "prediction": map(" / ".join, zip(*predictions, strict=True))}
    drawn = rows[["row", "id"]].assign(**{name: list(values) for name, values in joined.items()})
    return drawn.assign(probability=np.min(probabilities, axis=0))


def submit_run(run: Run, patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> dict:
    """Predicts the patches that `sample_submission.csv` lists and writes a checked Kaggle CSV.

    Returns:
        What `submission.check_submission` found in the file.

    Raises:
        InputError: when the data has no `sample_submission.csv`; when a listed id has no patch.
    """
    if len(run.metrics["tasks"]) > 1 or run.threshold is None:
        raise InputError(f"The run {run.folder} tells more than two classes apart, and the competition asks for one probability.")
    sample = patches.root / "sample_submission.csv"
    ids = read_ids(sample)
    rows = find_rows(patches, ids)
    p = predict(run.network, patches.images, rows, views, run.config.predict_batch, progress)
    write_submission(ids, p, sample, out)
    return check_submission(out, sample)


def find_rows(patches: PatchSet, ids: list[str]) -> np.ndarray:
    """Returns the row of each test id, in the order of `ids`.

    Raises:
        InputError: when an id has no patch in the test part.
    """
    test = patches.table.index[patches.table["part"] == "test"]
    place = pd.Series(test, index=patches.table.loc[test, "id"]).reindex(ids)
    if place.isna().any():
        missing = place.index[place.isna()]
        raise InputError(
            f"sample_submission.csv lists {len(missing):,} ids without a patch under {patches.root / 'test'}, the first "
            f"{missing[0]}; complete that folder."
        )
    return place.to_numpy(dtype=np.int64)


MEAN, RANK = "mean probability", "mean rank"
OWN, PRETRAINED = "this network", "pretrained model"


def join_members(members: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the two plain means to the probabilities of the members.

    Args:
        members: name → probability of class 1, (N,) of the same patches in the same order.

    Returns:
        The members, then `mean probability`, and `mean rank`: the mean of each member's ranks, divided by N + 1, ties sharing
        theirs. Ranks count as much from a member that is never sure, but they depend on which patches are predicted together.
    """
    each = list(members.values())
    ranks = [rankdata(p) / (len(p) + 1) for p in each]
    return dict(members) | {MEAN: np.mean(each, axis=0), RANK: np.mean(ranks, axis=0)}


def ensemble_table(runs: Sequence[Run], patches: PatchSet, out: Path, views: int = 8, progress: bool = False) -> pd.DataFrame:
    """Predicts every patch with every run and writes `id,probability,rank` and one column a run.

    Args:
        runs: finished runs of two classes, two or more.
        patches: labeled or not.
        out: CSV file to write.
        views: 8 or 1.
        progress: show a progress bar.

    Returns:
        The table as written, one row a patch in the order of the data.

    Raises:
        InputError: when a run tells more than two classes apart or has the name of another column, or fewer than two different
            runs are given.
    """
    names = [run.folder.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(f"An ensemble takes two or more different runs, and got {', '.join(names)}.")
    taken = {"id", "probability", "rank"} & set(names)
    if taken:
        raise InputError(f"The run {taken.pop()} has the name of a column of the file; give its folder another name.")
    for run in runs:
        if len(run.metrics["tasks"]) > 1 or run.threshold is None:
            raise InputError(f"The run {run.folder} tells more than two classes apart; an ensemble takes runs of two.")
    members = {}
    for run in runs:
        members[run.folder.name] = predict(run.network, patches.images, None, views, run.config.predict_batch, progress)
    joined = join_members(members)
    table = pd.DataFrame({"id": patches.table["id"], "probability": joined[MEAN], "rank": joined[RANK]})
    table = table.assign(**members)
    write_table(out, table)
    return table


def join_pretrained(run: Run, patches: PatchSet, rows: pd.DataFrame, p: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Adds the pretrained model (`pretrained`) to the probabilities of a run, on the patches that neither learned from.

    Args:
        run: a finished run of two classes.
        patches: those that it was trained on.
        rows: its holdout, with `row`.
        p: its probability of each of them, eight views, (N,).

    Returns:
        Which of the rows are kept, bool (N,), and the members as from `join_members`: `this network`, `pretrained model` and
        their means. All rows and `this network` alone where the patches have another size than the box takes, or where it
        learned from too many of them.
    """
    box = open_run(FOLDER)
    fits = patches.images.shape[1:] == tuple(box.network.input_shape[1:])
    left = unseen_by_all([run, box], patches) if fits else None
    if left is None:
        return np.ones(len(rows), bool), {OWN: p}
    kept = rows["row"].isin(left).to_numpy()
    other = predict(box.network, patches.images, rows["row"][kept], batch_size=box.config.predict_batch)
    return kept, join_members({OWN: p[kept], PRETRAINED: other})


def unseen_by_all(runs: Sequence[Run], patches: PatchSet) -> pd.Index | None:
    """Rows of the labeled patches that no run learned from; None where none of both classes are left."""
    left = patches.table.index
    for run in runs:
        left = left.intersection(unseen_rows(run, patches)["row"])
    return left if patches.table.loc[left, "label"].nunique() == 2 else None


def score_ensemble(runs: Sequence[Run], patches: PatchSet, table: pd.DataFrame) -> pd.DataFrame | None:
    """Scores members and means on the labeled patches that no member learned from.

    Args:
        runs: the members.
        patches: what was predicted.
        table: as made by `ensemble_table`.

    Returns:
        One row a member and a mean: `auc`, `auc_low`, `auc_high`, `patches`; None where no such patch of both classes is left.
    """
    left = unseen_by_all(runs, patches)
    if left is None:
        return None
    rows = patches.table.loc[left]
    answers = {run.folder.name: table[run.folder.name] for run in runs} | {MEAN: table["probability"], RANK: table["rank"]}
    labels, slides = rows["label"].to_numpy(), known_slides(rows)
    scores = {name: evaluate(labels, p[left].to_numpy(), groups=slides) for name, p in answers.items()}
    return pd.DataFrame(scores).T[["auc", "auc_low", "auc_high", "patches"]].astype({"patches": int})


def write_figures(run: Run, labels: np.ndarray, p: np.ndarray, scores: dict, slides: np.ndarray | None, folder: Path) -> None:
    """Draws the training of a run and its score on some patches.

    Args:
        run: a finished run of two classes.
        labels: 0 or 1 (N,).
        p: probability of class 1 (N,).
        scores: what `score_run` returns for them.
        slides: slide of each patch (N,), or None where unknown.
        folder: where `training.png`, `validation.png`, `roc.png`, `operating_points.png`, `calibration.png` and, where the
            scores have them, `shifts.png` are written.
    """
    text = format_interval("AUC", scores["auc"], scores["auc_low"], scores["auc_high"], scores["patches"])
    points = {point["name"]: (point["reached"], point["low"], point["high"]) for point in scores["operating_points"]}
    drawn = {
        "training": charts.loss_curves(run.history),
        "validation": charts.validation_curves(run.history),
        "roc": charts.roc_curves({f"{run.config.recipe}: {text}": roc(labels, p)[:2]}, roc_band(labels, p, slides)),
        "operating_points": charts.interval_dots(points, "share reached", False),
        "calibration": charts.calibration_plot(calibration(labels, p), calibration(labels, tempered(p, run.temperature))),
    }
    if "shifts" in scores:
        drawn["shifts"] = charts.shift_curves(pd.DataFrame(scores["shifts"]))
    for name, figure in drawn.items():
        export(figure, folder / f"{name}.png")
