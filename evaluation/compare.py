"""Two runs on the same samples: how their scores differ, and whether other subjects could have undone it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro
import yaml

from evaluation import bootstrap, metrics
from evaluation.bootstrap import Resamples

SAMPLE = ("stay_id", "end_hours", "label", "truth")  # what two runs must share, line by line


@dataclass(frozen=True)
class CompareConfig:
    """Compare the test predictions of two runs by a paired bootstrap over subjects."""

    run_a: tyro.conf.Positional[Path]
    """Folder of a run, with its predictions_<split>.csv."""
    run_b: tyro.conf.Positional[Path]
    """Folder of the run to compare it with."""
    split: str = "test"
    """Split whose predictions are compared."""
    labels: bool = False
    """Also compare each label."""
    resamples: int = 1000
    """Resamples of the subjects."""
    seed: int = 0
    """Start of the draws."""
    store: str = ""
    """Folder of the store, which tells the subject of each stay; empty: the one that RUN_A was run on."""

    def __post_init__(self) -> None:
        """ValueError without a resample."""
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")


class Predictions(NamedTuple):
    """Read back: `kind` "multilabel" or "ordinal"; stay_id [n], truth [n, L], probability [n, K]."""

    kind: str
    labels: tuple[str, ...]
    stay_id: np.ndarray
    truth: np.ndarray
    probability: np.ndarray


def compare(config: CompareConfig) -> pd.DataFrame:
    """A line a score: label, metric, a, b, difference (b - a), its 95 % interval low and high, p, n.

    p is two-sided, of the hypothesis that the scores are equal: twice the share of resamples in which the
    difference has the other sign or is 0. ValueError for runs on different samples.
    """
    paths = [Path(run) / f"predictions_{config.split}.csv" for run in (config.run_a, config.run_b)]
    a, b = _read_same(*paths)
    subjects = subjects_of(a.stay_id, Path(config.run_a), config.store)
    resamples = Resamples.of(subjects, config.resamples, config.seed)
    scores, drawn = zip(*(_scores(part, resamples) for part in (a, b)), strict=True)
    rows = []
    for one, two in zip(*scores, strict=True):
        name = one["label"], one["metric"]
        if config.labels or one["label"] == "macro":
            difference = drawn[1][name] - drawn[0][name]
            low, high = bootstrap.interval(difference)
            values = one["value"], two["value"], two["value"] - one["value"]
            rows.append((*name, *values, low, high, p_value(difference), one["n"]))
    names = ("label", "metric", "a", "b", "difference", "low", "high", "p", "n")
    return pd.DataFrame(rows, columns=names)


def p_value(difference: np.ndarray) -> float:
    """Two-sided p of a difference in resamples [R], NaN left out; never below 2 / (R + 1), NaN if R is 0.

    >>> p_value(np.array([0.1, 0.2, 0.3])), p_value(np.array([-0.1, 0.2, 0.3, 0.4, 0.5]))
    (0.5, 0.6666666666666666)
    """
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        return np.nan
    fewer = min((difference <= 0).sum(), (difference >= 0).sum())
    return min(1.0, float(2 * (fewer + 1) / (len(difference) + 1)))


def read_predictions(path: Path) -> Predictions:
    """What `results.write_predictions` wrote; labels "name[0]", "name[1]", ... are the bins of one.

    ValueError for a file that is missing or cut.
    """
    return _predictions(_read(path), path)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder of a run that run_gpu.py has finished")
    return pd.read_csv(path)


def _predictions(table: pd.DataFrame, path: Path) -> Predictions:
    labels = tuple(dict.fromkeys(table["label"]))
    if len(table) % len(labels) or (table["label"].to_numpy().reshape(-1, len(labels)) != labels).any():
        raise ValueError(f"{path} does not hold every label of each sample; it was cut; evaluate again")
    stay_id = table["stay_id"].to_numpy()[:: len(labels)]
    truth, probability = (
        table[name].to_numpy(np.float64, na_value=np.nan).reshape(-1, len(labels))
        for name in ("truth", "probability")
    )
    name = re.sub(r"\[0\]$", "", labels[0])
    if len(labels) > 1 and labels == tuple(f"{name}[{k}]" for k in range(len(labels))):
        bins = np.where(np.isnan(truth[:, 0]), np.nan, truth.argmax(1))[:, None]
        return Predictions("ordinal", (name,), stay_id, bins, probability)
    return Predictions("multilabel", labels, stay_id, truth, probability)


def _read_same(*paths: Path) -> tuple[Predictions, ...]:
    """The predictions of two files; ValueError unless both are of the same samples, labels and truth."""
    one, two = tables = [_read(path) for path in paths]
    if len(one) != len(two):
        found = f"{len(one)} and {len(two)} lines"
    else:
        found = ", ".join(name for name in SAMPLE if not one[name].equals(two[name]))
    if found:
        cure = "evaluate both with the same --task, --store, --data_pairs and --retrieve_cxr"
        raise ValueError(f"{paths[0]} and {paths[1]} are of different samples ({found}); {cure}")
    return tuple(_predictions(table, path) for table, path in zip(tables, paths, strict=True))


def subjects_of(stay_id: np.ndarray, run: Path, store: str = "") -> np.ndarray:
    """subject_id [n] of stays [n], from a store; an empty `store` is the one that the run was run on.

    ValueError if there is no such store, or it does not know a stay.
    """
    if not store:
        path = run / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{path} is missing, which names the store; give it by --store")
        store = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["store"]
    path = Path(store) / "stays.parquet"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, which tells the subject of each stay; give the store by --store"
        )
    known = pd.read_parquet(path, columns=["stay_id", "subject_id"]).set_index("stay_id")["subject_id"]
    unknown = np.setdiff1d(stay_id, known.index)
    if len(unknown):
        raise ValueError(f"stay {unknown[0]} of {run} is not in {store}; give its own store by --store")
    subjects: np.ndarray = known.loc[stay_id].to_numpy()
    return subjects


def _scores(found: Predictions, resamples: Resamples) -> tuple[list[metrics.Score], bootstrap.Resampled]:
    groups: dict[str, tuple[str, ...]] = {}
    about = found.kind, found.labels, groups, found.truth, found.probability
    return metrics.evaluate(*about), bootstrap.evaluate(*about, resamples)


def main(config: CompareConfig) -> None:
    """Print the comparison."""
    table = compare(config)
    print(f"a: {config.run_a}\nb: {config.run_b}\n{config.split}, {config.resamples} resamples of subjects")
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
