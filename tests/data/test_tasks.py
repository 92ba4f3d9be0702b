"""Every Multi Cancer subclass has one organ and one malignancy; labels become answers."""

import numpy as np
import pytest

from histopath.data.tasks import MALIGNANCY, ORGANS, SUBCLASSES, TASKS, read_tasks

NAMES = tuple(SUBCLASSES)


def test_the_26_subclasses_stand_in_alphabetical_order():
    assert len(NAMES) == 26 and list(NAMES) == sorted(NAMES)


def test_every_subclass_is_of_a_known_kind_and_every_answer_occurs():
    rows = SUBCLASSES.values()
    assert {row.organ for row in rows} == set(ORGANS) and len(ORGANS) == 9
    assert {row.malignancy for row in rows} == set(MALIGNANCY)
    assert {row.imaging for row in rows} == {"H&E", "Pap smear", "blood smear", "MRI", "CT"}


def test_one_organ_is_seen_in_one_way():
    """Brain is MRI, kidney CT, cervix a Pap smear, blood a smear; the five others are tissue sections."""
    seen = {organ: {row.imaging for row in SUBCLASSES.values() if row.organ == organ} for organ in ORGANS}
    special = {"Brain": {"MRI"}, "Kidney": {"CT"}, "Cervix": {"Pap smear"}, "Blood": {"blood smear"}}
    assert seen == {organ: special.get(organ, {"H&E"}) for organ in ORGANS}


def test_the_benign_subclasses_are_these():
    """SIPaKMeD (Plissiti 2018): sfi and pab are normal cells, mep benign; koc and dyk abnormal."""
    benign = {name for name in NAMES if SUBCLASSES[name].malignancy == "Benign"}
    cells = {"all_benign", "cervix_mep", "cervix_pab", "cervix_sfi"}
    assert benign == cells | {"breast_benign", "colon_bnt", "kidney_normal", "lung_bnt", "oral_normal"}


def test_organ_and_malignancy_are_two_tasks_in_this_order():
    organ, malignancy = read_tasks("organ+malignancy", "multi-cancer", NAMES)
    assert (organ.name, organ.class_names, malignancy.name) == ("organ", ORGANS, "malignancy")
    for label, name in enumerate(NAMES):
        assert ORGANS[organ.of_label[label]] == SUBCLASSES[name].organ
        assert MALIGNANCY[malignancy.of_label[label]] == SUBCLASSES[name].malignancy
    assert organ.of_label.dtype == np.int64


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_asked_under_its_own_name(task):
    assert "+".join(found.name for found in read_tasks(task, "multi-cancer", NAMES)) == task


def test_subclass_asks_for_the_classes_as_they_are():
    (task,) = read_tasks("subclass", "multi-cancer", NAMES)
    assert task.class_names == NAMES and task.of_label.tolist() == list(range(26))


@pytest.mark.parametrize("task", [*TASKS, "anything"])
def test_other_layouts_ask_for_their_labels_whatever_the_task(task):
    (found,) = read_tasks(task, "class-folders", ("lung_aca", "lung_n", "lung_scc"))
    assert (found.name, found.class_names) == ("label", ("lung_aca", "lung_n", "lung_scc"))
    assert found.of_label.tolist() == [0, 1, 2]


def test_unknown_labels_stay_unknown():
    (organ,) = read_tasks("organ", "multi-cancer", NAMES)
    labels = np.array([NAMES.index("oral_scc"), -1, 0])
    assert organ.answers(labels).tolist() == [ORGANS.index("Mouth"), -1, ORGANS.index("Blood")]


def test_unknown_task_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="no task 'organs' .* organ, malignancy, organ.malignancy, subclass.$"):
        read_tasks("organs", "multi-cancer", NAMES)
