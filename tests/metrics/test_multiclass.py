"""Scores of several classes agree with scikit-learn, absent classes are named, and bad input is refused in one sentence."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from histopath.metrics import binary, intervals, multiclass

ORGANS = ("Blood", "Brain", "Breast", "Cervix", "Colon", "Kidney", "Lung", "Lymph", "Mouth")
LUNG = ("lung_aca", "lung_bnt", "lung_scc")


@st.composite
def scored(draw):
    """Labels of two to five classes, and probabilities from whole-number weights so that ties are common."""
    size, count = draw(st.integers(2, 40)), draw(st.integers(2, 5))
    labels = np.array(draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size)))
    assume(len(set(labels)) > 1)
    weights = np.array(draw(st.lists(st.integers(1, 6), min_size=size * count, max_size=size * count)))
    weights = weights.reshape(size, count)
    return labels, weights / weights.sum(axis=1, keepdims=True)


def simulated(seed, patches=300, classes=3, slides=1, spread=0.0):
    """Labels, probabilities and slide names; `spread` is how far the scores of a slide lie from the others."""
    rng = np.random.default_rng(seed)
    labels, names = rng.integers(0, classes, patches), rng.integers(0, slides, patches)
    scores = rng.normal(size=(patches, classes)) + rng.normal(0, spread, (slides, classes))[names]
    scores[np.arange(patches), labels] += 1.5
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, probabilities, np.char.add("slide_", names.astype(str))


@pytest.mark.parametrize("names", [LUNG, ORGANS], ids=len)
def test_scores_equal_those_of_scikit_learn(names):
    labels, probabilities, _ = simulated(0, 400, len(names))
    scores, predicted = multiclass.evaluate_classes(labels, probabilities, names), probabilities.argmax(axis=1)
    expected = {
        "auc": metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "log_loss": metrics.log_loss(labels, probabilities),
        "patches": 400,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["confusion"] == metrics.confusion_matrix(labels, predicted).tolist()
    precision, recall, f1, counts = metrics.precision_recall_fscore_support(labels, predicted)
    columns = {"precision": precision, "sensitivity": recall, "f1": f1, "patches": counts}
    columns["auc"] = [metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in range(len(names))]
    for name, values in columns.items():
        assert [row[name] for row in scores["classes"]] == pytest.approx(list(values))
    assert [row["name"] for row in scores["classes"]] == list(names) and scores["absent"] == []


def test_two_classes_score_as_the_evaluation_of_two_classes_does():
    labels, probabilities, _ = simulated(1, 200, 2)
    ours = multiclass.evaluate_classes(labels, probabilities, ("no_tumor", "tumor"))
    theirs = binary.evaluate(labels, probabilities[:, 1])
    shared = ("auc", "accuracy", "log_loss", "patches", "slides", "interval")
    assert ours["confusion"] == theirs["confusion"]
    assert {name: ours[name] for name in shared} == pytest.approx({name: theirs[name] for name in shared})
    # Both intervals come from 1,000 draws of their own: their ends differ by the noise of a quantile.
    assert (ours["auc_low"], ours["auc_high"]) == pytest.approx((theirs["auc_low"], theirs["auc_high"]), abs=0.01)


@settings(max_examples=25, deadline=None)
@given(scored(), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_the_order_of_the_classes_changes_no_score(case, random):
    labels, probabilities = case
    order = list(range(probabilities.shape[1]))
    random.shuffle(order)
    # Class order[k] becomes class k. Scores of the predicted class are left out: of two equal probabilities the first wins.
    names = [f"class {number}" for number in order]
    first = multiclass.evaluate_classes(labels, probabilities, sorted(names))
    second = multiclass.evaluate_classes(np.argsort(order)[labels], probabilities[:, order], names)
    assert (second["auc"], second["log_loss"]) == pytest.approx((first["auc"], first["log_loss"]))
    aucs, moved = ({row["name"]: (row["auc"], row["patches"]) for row in scores["classes"]} for scores in (first, second))
    assert aucs == moved


@settings(max_examples=40, deadline=None)
@given(scored())
def test_weighted_auc_of_the_bootstrap_equals_the_auc_of_the_drawn_patches(case):
    labels, probabilities = case
    names = [str(number) for number in range(probabilities.shape[1])]
    # One replicate has one value, which is then both ends of its interval.
    low, high = multiclass.bootstrap_macro_auc(labels, probabilities, names, replicates=1, seed=3)
    weights = next(intervals.resampled_weights(labels, None, 1, 3)).astype(int)
    assert np.array_equal(np.bincount(labels, weights), np.bincount(labels))
    drawn, scores = np.repeat(labels, weights), np.repeat(probabilities, weights, axis=0)
    aucs = [metrics.roc_auc_score(drawn == k, scores[:, k]) for k in np.unique(labels)]
    assert low == high == pytest.approx(np.mean(aucs))


def test_ends_are_the_quantiles_of_the_replicates():
    labels, probabilities, slides = simulated(2, 150, slides=9)
    codes = intervals.slide_codes(slides, 150)[0]
    values = [
        np.mean([metrics.roc_auc_score(labels == k, probabilities[:, k], sample_weight=weights) for k in range(3)])
        for weights in intervals.resampled_weights(labels, codes, 40, 5)
    ]
    ends = multiclass.bootstrap_macro_auc(labels, probabilities, LUNG, slides, replicates=40, seed=5)
    assert ends == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_interval_over_slides_is_wider_when_slides_differ():
    labels, probabilities, slides = simulated(3, 2000, slides=15, spread=1.5)
    naive = np.diff(multiclass.bootstrap_macro_auc(labels, probabilities, LUNG, replicates=300))
    clustered = np.diff(multiclass.bootstrap_macro_auc(labels, probabilities, LUNG, slides, replicates=300))
    assert clustered > 1.3 * naive


def test_whole_slides_are_drawn_and_never_one_class_alone():
    labels = np.repeat([0, 0, 0, 1, 2], 20)
    codes = np.repeat(np.arange(5), 20)
    drawn = list(intervals.resampled_weights(labels, codes, 200, 0))
    assert all(len(set(weights[codes == code])) == 1 for weights in drawn for code in range(5))
    found = [{int(label) for label in labels[weights > 0]} for weights in drawn]
    assert all(len(classes) >= 2 for classes in found) and {0, 1} in found and {0, 1, 2} in found


def test_slides_of_one_class_each_have_an_interval():
    labels, probabilities, _ = simulated(4, 90, 9)
    scores = multiclass.evaluate_classes(labels, probabilities, ORGANS, groups=np.array(ORGANS)[labels])
    assert (scores["interval"], scores["slides"]) == ("95 % bootstrap over slides", 9)
    assert 0.5 < scores["auc_low"] < scores["auc"] < scores["auc_high"] <= 1


@pytest.mark.parametrize("slides", [None, ["a"] * 60, [""] * 60])
def test_without_two_slides_the_interval_is_over_patches_and_says_so(slides):
    labels, probabilities, _ = simulated(5, 60)
    assert multiclass.evaluate_classes(labels, probabilities, LUNG, slides)["interval"] == "95 % bootstrap over patches"


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    labels, probabilities, _ = simulated(6)
    first, again, other = (
        multiclass.bootstrap_macro_auc(labels, probabilities, LUNG, replicates=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 7), (546, 600), (600, 600)])
def test_interval_of_a_share_is_that_of_scipy(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert multiclass.wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_has_the_interval_of_its_hits():
    labels, probabilities, _ = simulated(7)
    scores = multiclass.evaluate_classes(labels, probabilities, LUNG)
    hits = int((probabilities.argmax(axis=1) == labels).sum())
    assert (scores["accuracy_low"], scores["accuracy_high"]) == multiclass.wilson_interval(hits, 300)


@pytest.mark.parametrize(("hits", "expected"), [(10, 0.2), (8, 0.0), (0, 0.8)])
def test_calibration_error_is_the_gap_between_confidence_and_accuracy(hits, expected):
    labels, probabilities = np.r_[np.zeros(hits, int), np.ones(10 - hits, int)], np.tile([0.8, 0.1, 0.1], (10, 1))
    assert multiclass.top_label_error(labels, probabilities) == pytest.approx(expected)


def test_calibration_error_weighs_its_bins_by_their_patches():
    # Three patches of confidence 0.9, all right, and one of 0.6, wrong: 3/4 × 0.1 + 1/4 × 0.6.
    labels, probabilities = [0, 0, 0, 1], np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    assert multiclass.top_label_error(np.array(labels), probabilities) == pytest.approx(0.225)


def test_a_class_without_patches_is_named_and_left_out_of_the_means():
    labels, probabilities, _ = simulated(8, 200, 3)
    kept = labels != 1
    scores = multiclass.evaluate_classes(labels[kept], probabilities[kept], LUNG)
    rows = scores["classes"]
    assert scores["absent"] == ["lung_bnt"]
    assert (rows[1]["patches"], rows[1]["auc"], rows[1]["sensitivity"], rows[1]["precision"]) == (0, None, None, 0)
    assert scores["auc"] == pytest.approx((rows[0]["auc"] + rows[2]["auc"]) / 2)
    assert scores["balanced_accuracy"] == pytest.approx((rows[0]["sensitivity"] + rows[2]["sensitivity"]) / 2)
    assert scores["confusion"][1] == [0, 0, 0] and sum(map(sum, scores["confusion"])) == kept.sum()
    assert multiclass.class_table(scores).loc["lung_bnt"].tolist() == [0, "-", "-", "0.00", "0.00"]
    assert multiclass.describe_classes(scores).endswith("\nno patches of lung_bnt")


def test_a_class_that_is_never_predicted_has_no_precision():
    scores = multiclass.evaluate_classes([0, 1, 2], [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.5, 0.3, 0.2]], LUNG)
    assert multiclass.class_table(scores).loc["lung_scc"].tolist() == [1, "0.50", "0.00", "-", "0.00"]


def test_scores_can_be_written_as_json():
    labels, probabilities, slides = simulated(9, 60, slides=5)
    scores = multiclass.evaluate_classes(labels, probabilities.astype(np.float32), np.array(LUNG), groups=slides)
    assert json.loads(json.dumps(scores)) == scores


def test_half_precision_is_scored_without_a_warning(recwarn):
    labels, probabilities, _ = simulated(10, 80)
    exact, rounded = (multiclass.evaluate_classes(labels, probabilities.astype(kind), LUNG) for kind in (np.float64, np.float16))
    # Half precision keeps three digits.
    assert rounded["log_loss"] == pytest.approx(exact["log_loss"], abs=2e-3) and not recwarn.list


def test_table_shows_one_row_a_class_with_two_decimals():
    labels, probabilities, _ = simulated(11)
    scores = multiclass.evaluate_classes(labels, probabilities, LUNG)
    table = multiclass.class_table(scores)
    assert list(table.index) == list(LUNG)
    assert list(table.columns) == ["patches", "AUC", "sensitivity", "precision", "F1"]
    assert table["patches"].sum() == 300
    for name, key in (("AUC", "auc"), ("sensitivity", "sensitivity"), ("precision", "precision"), ("F1", "f1")):
        assert list(table[name]) == [f"{row[key]:.2f}" for row in scores["classes"]]


def test_description_names_counts_interval_and_the_hardest_class():
    probabilities = np.array([[0.8, 0.1, 0.1]] * 3 + [[0.1, 0.8, 0.1]] * 3 + [[0.1, 0.1, 0.8]] * 2 + [[0.8, 0.1, 0.1]] * 2)
    scores = multiclass.evaluate_classes([0, 0, 0, 1, 1, 1, 2, 2, 2, 2], probabilities, LUNG)
    # AUC 6/7 for aca (two of seven others tie with it), 1 for bnt and 3/4 for scc; 8 of 10 right, Wilson 0.49-0.94.
    low, high = f"{scores['auc_low']:.2f}", f"{scores['auc_high']:.2f}"
    assert multiclass.describe_classes(scores).split("\n") == [
        f"macro AUC 0.87 ({low}-{high}), 10 patches of 3 classes (95 % bootstrap over patches)",
        "accuracy 0.80 (0.49-0.94), balanced accuracy 0.83",
        "hardest: lung_scc, sensitivity 0.50, 4 patches",
    ]


GOOD = [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]


@pytest.mark.parametrize("score", [multiclass.evaluate_classes, multiclass.bootstrap_macro_auc])
@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 1, 2], GOOD, r"\(3,\) and probabilities \(2, 3\)"),
        ([0, 1], [0.1, 0.9], r"of shapes \(N,\) and \(N, 3\)"),
        ([0, 1], [[0.4, 0.6], [0.5, 0.5]], "give one label and 3 probabilities"),
        ([[0, 1]], GOOD, r"labels have shape \(1, 2\)"),
        ([], np.zeros((0, 3)), "no patches"),
        ([0, 3], GOOD, "from 0 to 2, the first is 3"),
        ([-1, 1], GOOD, "1 labels are not whole numbers from 0 to 2, the first is -1"),
        ([0, 0.5], GOOD, "the first is 0.5"),
        ([0, 1], [[math.nan, 0.5, 0.5], GOOD[1]], "the first is nan"),
        ([0, 1], [[math.inf, 0.5, 0.5], GOOD[1]], "the first is inf"),
        ([0, 1], [[-0.5, 1.0, 0.5], GOOD[1]], "the first is -0.5"),
        ([0, 1], [GOOD[0], [0.5, 0.5, 0.2]], "of 1 patches do not sum to one, the first sum is 1.2"),
        ([1, 1], GOOD, "all 2 patches are lung_bnt: an AUC needs patches of two classes"),
    ],
)
def test_unfit_input_is_refused_in_one_sentence(score, labels, probabilities, words):
    with pytest.raises(ValueError, match=words) as caught:
        score(labels, probabilities, LUNG)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_slide_names_of_another_length_are_refused():
    with pytest.raises(ValueError, match="3 slide names were given for 2 patches"):
        multiclass.evaluate_classes([0, 1], GOOD, LUNG, ["a", "b", "c"])
