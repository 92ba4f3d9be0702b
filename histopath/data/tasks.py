"""The one table from Multi Cancer subclass to organ and malignancy (system 3). In: class names, labels. Out: tasks.

The set (Kaggle "Multi Cancer", 8 folders, 26 subclasses) was published with two regroupings, 9 organs and Benign/Malignant,
of which only the names are known. The organ follows from the subclass; its folder "Lung and Colon Cancer" gives two. The
malignancy was decided here, row by row, and may differ from the published one where a reason is given below:

- Acute lymphoblastic leukaemia: `all_benign` are haematogones, which only look like it; early pre-B, pre-B and pro-B are it.
- Brain: gliomas are malignant. Most meningiomas are benign in the clinic, and so may be what is called `brain_tumor`; but all
  three stand in the folder "Brain Cancer", no grade is given, and there is no healthy brain to hold them apart from. All three
  are Malignant here, so that Benign never means a growing tumor.
- Cervix (SIPaKMeD, Plissiti 2018): superficial-intermediate (`sfi`) and parabasal (`pab`) cells are normal, metaplastic (`mep`)
  benign, koilocytotic (`koc`) and dyskeratotic (`dyk`) abnormal. The abnormal ones, signs of infection and of precancer
  rather than cancer, are Malignant here: they are what a screening must find.
- Kidney: `kidney_tumor` are tumors in CT, unproved by tissue; they stand in "Kidney Cancer".
- Lung, colon, lymph, mouth, breast: `aca` adenocarcinoma, `scc` squamous cell carcinoma, `cll` chronic lymphocytic leukaemia,
  `fl` follicular and `mcl` mantle cell lymphoma are Malignant; `bnt` benign tissue, `normal` and `benign` are Benign.

Brain is MRI, kidney CT, cervix single Pap-stained cells and blood a smear, so an organ can be told by the kind of image alone.
"""

from dataclasses import dataclass

import numpy as np

from histopath.files import InputError

ORGANS = ("Blood", "Brain", "Breast", "Cervix", "Colon", "Kidney", "Lung", "Lymph", "Mouth")
MALIGNANCY = ("Benign", "Malignant")
TASKS = ("organ", "malignancy", "organ+malignancy", "subclass")


@dataclass(frozen=True)
class Subclass:
    """What one subclass shows: `organ` of `ORGANS`, `malignancy` of `MALIGNANCY`, `imaging` as below."""

    organ: str
    malignancy: str
    imaging: str


# In alphabetical order: label i is the i-th name.
SUBCLASSES = {
    "all_benign": Subclass("Blood", "Benign", "blood smear"),
    "all_early": Subclass("Blood", "Malignant", "blood smear"),
    "all_pre": Subclass("Blood", "Malignant", "blood smear"),
    "all_pro": Subclass("Blood", "Malignant", "blood smear"),
    "brain_glioma": Subclass("Brain", "Malignant", "MRI"),
    "brain_menin": Subclass("Brain", "Malignant", "MRI"),
    "brain_tumor": Subclass("Brain", "Malignant", "MRI"),
    "breast_benign": Subclass("Breast", "Benign", "H&E"),
    "breast_malignant": Subclass("Breast", "Malignant", "H&E"),
    "cervix_dyk": Subclass("Cervix", "Malignant", "Pap smear"),
    "cervix_koc": Subclass("Cervix", "Malignant", "Pap smear"),
    "cervix_mep": Subclass("Cervix", "Benign", "Pap smear"),
    "cervix_pab": Subclass("Cervix", "Benign", "Pap smear"),
    "cervix_sfi": Subclass("Cervix", "Benign", "Pap smear"),
    "colon_aca": Subclass("Colon", "Malignant", "H&E"),
    "colon_bnt": Subclass("Colon", "Benign", "H&E"),
    "kidney_normal": Subclass("Kidney", "Benign", "CT"),
    "kidney_tumor": Subclass("Kidney", "Malignant", "CT"),
    "lung_aca": Subclass("Lung", "Malignant", "H&E"),
    "lung_bnt": Subclass("Lung", "Benign", "H&E"),
    "lung_scc": Subclass("Lung", "Malignant", "H&E"),
    "lymph_cll": Subclass("Lymph", "Malignant", "H&E"),
    "lymph_fl": Subclass("Lymph", "Malignant", "H&E"),
    "lymph_mcl": Subclass("Lymph", "Malignant", "H&E"),
    "oral_normal": Subclass("Mouth", "Benign", "H&E"),
    "oral_scc": Subclass("Mouth", "Malignant", "H&E"),
}


@dataclass(frozen=True, eq=False)
class Task:
    """One question asked of a data set.

    Attributes:
        name: `label` (the classes as they are), `organ`, `malignancy` or `subclass`.
        class_names: the possible answers.
        of_label: int64 (labels of the data,): label of the data → number of its answer.
    """

    name: str
    class_names: tuple[str, ...]
    of_label: np.ndarray

    def answers(self, labels: np.ndarray) -> np.ndarray:
        """Returns the answer, int64, to each label of the data; -1, unknown, stays -1."""
        labels = np.asarray(labels, "int64")
        return np.where(labels < 0, -1, self.of_label[labels])


def read_tasks(task: str, layout: str, class_names: tuple[str, ...]) -> tuple[Task, ...]:
    """Chooses what is asked of a data set.

    Args:
        task: `organ`, `malignancy`, `organ+malignancy` or `subclass`; heeded for the layout `multi-cancer` only.
        layout: of the data, as in `Source.layout`.
        class_names: of the data, name of label 0, 1, …

    Returns:
        One task, or two for `organ+malignancy`, in that order. In other layouts one named `label`: the classes as they are.

    Raises:
        InputError: when the layout is `multi-cancer` and the task unknown; the text lists the tasks.
    """
    if layout != "multi-cancer":
        return (Task("label", tuple(class_names), np.arange(len(class_names), dtype="int64")),)
    if task not in TASKS:
        raise InputError(f"There is no task {task!r} in the Multi Cancer set; choose one of {', '.join(TASKS)}.")
    return tuple(_make_task(name, class_names) for name in task.split("+"))


def _make_task(name: str, class_names: tuple[str, ...]) -> Task:
    if name == "subclass":
        return Task(name, tuple(class_names), np.arange(len(class_names), dtype="int64"))
    answers = {"organ": ORGANS, "malignancy": MALIGNANCY}[name]
    of_label = [answers.index(getattr(SUBCLASSES[subclass], name)) for subclass in class_names]
    return Task(name, answers, np.array(of_label, "int64"))
