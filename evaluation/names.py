"""How tables and pictures call scores, labels and settings: names for readers, units and possible ranges."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from tasks import TASKS


class Metric(NamedTuple):
    """What a table says of a score."""

    title: str
    low: float  # smallest possible value
    high: float  # largest possible value
    higher_is_better: bool = True


METRICS = {
    "auroc": Metric("AUROC", 0, 1),
    "auprc": Metric("AUPRC", 0, 1),
    "brier": Metric("Brier score", 0, 1, higher_is_better=False),
    "ece": Metric("ECE", 0, 1, higher_is_better=False),
    "ece_plugin": Metric("ECE (plug-in)", 0, 1, higher_is_better=False),
    "kappa": Metric("Cohen's kappa", -1, 1),
    "accuracy": Metric("Accuracy", 0, 1),
    "mad": Metric("MAD (h)", 0, math.inf, higher_is_better=False),
    "mse": Metric("MSE (h²)", 0, math.inf, higher_is_better=False),
    "mape": Metric("MAPE (%)", 0, math.inf, higher_is_better=False),
    "tpr_gap": Metric("true positive rate gap", 0, 1, higher_is_better=False),
    "fpr_gap": Metric("false positive rate gap", 0, 1, higher_is_better=False),
}

CALIBRATIONS = {"temperature": "temperature scaling", "isotonic": "isotonic regression"}
# Scores that wide tables show only if they are asked for.
DETAILS = ("ece_plugin", *(f"{name}_{way}" for way in CALIBRATIONS for name in ("brier", "ece")))

TITLES = {
    "supervised": "supervised",
    "lineareval": "linear evaluation",
    "finetune": "fine-tuning",
    "simclr": "SimCLR",
    "tsimclr": "T-SimCLR",
    "clip": "CLIP",
    "siglip": "SigLIP",
    "align": "ALIGN",
    "vicreg": "VICReg",
    "ehr": "EHR only",
    "cxr": "X-ray only",
    "medfuse": "MedFuse",
    "medfuse_tokens": "MedFuse with tokens",
    "mmtm": "MMTM",
    "daft": "DAFT",
    "aug": "AUG",
    "drfuse": "DrFuse",
    "flexmoe": "Flex-MoE",
    "healnet": "HEALNet",
    "inforeg": "InfoReg",
    "m3care": "M3Care",
    "shaspec": "ShaSpec",
    "smil": "SMIL",
    "umse": "UMSE",
    "utde": "UTDE",
    "in-hospital-mortality": "in-hospital mortality",
}

QUANTITIES = {  # columns of log.csv that are no scores
    "lr": "learning rate",
    "cross_entropy": "cross-entropy",
    "image_deviation": "spread of the images' embeddings",
    "ehr_deviation": "spread of the records' embeddings",
    "alignment": "mean squared distance of pairs",
    "uniformity": "uniformity (lower: more even)",
}
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
SUBGROUP = re.compile(r"macro\[([^=\]]+)=(.*)\]")  # the label of a subgroup, such as macro[sex=F]

NOTICES = {
    "real": "real data",
    "synthetic": "SYNTHETIC data: these scores mean nothing clinically",
    "synthetic X-rays": "real records with SYNTHETIC X-rays: these scores mean nothing clinically",
    "": "data of unknown kind, which may be synthetic: rows of a version that did not say",
}


def metric_of(name: str) -> Metric:
    """Return what is known of a score; that of a gap between subgroups is its size, and small is better.

    >>> metric_of("auroc_gap")
    Metric(title='AUROC gap', low=0, high=1, higher_is_better=False)
    >>> metric_of("ece_isotonic").title
    'ECE after isotonic regression'
    """
    if name in METRICS:
        return METRICS[name]
    if name.endswith("_gap"):
        of = metric_of(name.removesuffix("_gap"))
        return Metric(f"{of.title} gap", 0, of.high - of.low, higher_is_better=False)
    of_name, _, way = name.rpartition("_")
    if of_name in METRICS and way in CALIBRATIONS:
        of = METRICS[of_name]
        return of._replace(title=f"{of.title} after {CALIBRATIONS[way]}")
    return Metric(name, -math.inf, math.inf)


def title_of(name: str) -> str:
    """Return the name of a protocol, fusion, objective or task for readers.

    >>> title_of("lineareval"), title_of("simclr + clip"), title_of("length-of-stay")
    ('linear evaluation', 'SimCLR + CLIP', 'length of stay')
    """
    if " + " in name:
        return " + ".join(map(title_of, name.split(" + ")))
    return TITLES.get(name, name.replace("_", " ").replace("-", " "))


def label_title(label: str, task: str = "") -> str:
    """Return the name of a label of a task for readers.

    >>> label_title("y_true", "readmission"), label_title("y_true[1]", "length-of-stay")
    ('readmission', '1 to 2 days')
    >>> label_title("macro"), label_title("macro[sex=F]"), label_title("Shock", "phenotyping")
    ('mean over labels', 'sex: F', 'Shock')
    """
    if label == "macro":
        return "mean over labels"
    if subgroup := SUBGROUP.fullmatch(label):
        return f"{subgroup[1]}: {subgroup[2]}"
    if label == "y_true":
        return title_of(task) or "label"
    known = TASKS[task].class_titles if task in TASKS else ()
    bin_ = re.fullmatch(r"y_true\[(\d+)\]", label)
    if bin_:
        number = int(bin_[1])
        return known[number] if number < len(known) else f"bin {number}"
    return label


def quantity_of(column: str) -> str:
    """Return what a column of log.csv, without train_ and val_, is, for the axis of a picture.

    >>> quantity_of("lr"), quantity_of("auroc"), quantity_of("readmission_auroc"), quantity_of("loss")
    ('learning rate', 'AUROC', 'AUROC of the probe, readmission', 'loss')
    """
    task, _, score = column.rpartition("_")
    if task in TASKS and score in METRICS:
        return f"{METRICS[score].title} of the probe, {title_of(task)}"
    if column in METRICS:
        return METRICS[column].title
    return QUANTITIES.get(column, column.replace("_", " "))


def data_notice(kinds: Iterable[str]) -> str:
    """Return the sentence on the data that every table shows.

    >>> data_notice(["synthetic", "synthetic"])
    'SYNTHETIC data: these scores mean nothing clinically'
    """
    return "; and ".join(NOTICES.get(kind, kind) for kind in dict.fromkeys(kinds))
