"""Train every record encoder, alone and beside an X-ray, and the floors, small and with several seeds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models.encoders import EHR_ENCODERS
from tasks import TASKS
from training.baselines import MODELS, BaselineConfig, fit_baseline
from training.classify import classify
from training.classify_config import ClassifyConfig
from utils import checkpoint
from utils.cli import run_cli
from utils.config import parse
from utils.files import write_text

SETTINGS = (
    "--mode train --protocol supervised --image_size 32 --transforms_cxr supervised "
    "--batch_size 32 --optimizer adamw --lr 1e-3 --weight_decay 1e-4 --clip 1 --device cpu --every_hours 24 "
    "--vision_backbone resnet18"
)
FUSIONS = ("ehr", "concatenation")
PREDICTIONS = "predictions_test.csv"
COST = "core_seconds.txt"  # of the training and the test of a run


@dataclass(frozen=True)
class EncodersConfig:
    """Compare the record encoders and the floors; the same command continues after an interruption.

    All samples are read, with their X-ray if they have one; hourly tasks every 24 hours. Each encoder has its
    published shape and all have one learning rate, which suits none of them best. Runs are
    <task>-<fusion>-<encoder>-<seed>.
    """

    store: Path
    """Folder of the store."""
    out: Path = Path("runs/encoders")
    """Folder of the runs, and of the result tables in `results`."""
    tasks: tuple[str, ...] = ("phenotyping", "in-hospital-mortality", "decompensation")
    """Tasks, one run of each encoder, fusion and seed for each."""
    seeds: int = 3
    """Number of seeds, from 0."""
    epochs: int = 6
    """Epochs of each run; the best by the validation score counts."""
    bootstrap: int = 0
    """Bootstrap resamples of the intervals in the result tables."""


def main(config: EncodersConfig) -> None:
    """Train what was not tested yet, one seed after the other, and print the table of what was."""
    for seed in range(config.seeds):
        for task in config.tasks:
            for encoder in EHR_ENCODERS:
                for fusion in FUSIONS:
                    train(config, task, fusion, encoder, seed)
    for task in config.tasks:
        for model in MODELS:
            fit_floor(config, task, model)
    print(table(config))


def train(config: EncodersConfig, task: str, fusion: str, encoder: str, seed: int) -> None:
    """Train one classifier and test it, unless it was tested before, and note its core-seconds."""
    name = run_name(task, fusion, encoder, seed)
    if (config.out / name / COST).is_file():
        return
    shutil.rmtree(config.out / name, ignore_errors=True)  # interrupted: its core-seconds are not known
    pairs = "ehr_all" if fusion == "ehr" else "partial"
    named = ["--task", task, "--fusion", fusion, "--ehr_encoder", encoder, "--data_pairs", pairs]
    numbers = ["--epochs", str(config.epochs), "--seed", str(seed), "--bootstrap", str(config.bootstrap)]
    flags = [*_paths(config), *SETTINGS.split(), *named, *numbers, "--name", name]
    before = time.process_time()
    classify(parse(ClassifyConfig, flags))
    write_text(config.out / name / COST, f"{time.process_time() - before:.3f}\n")
    (config.out / name / "last.ckpt").unlink()  # tested runs need only best.ckpt


def fit_floor(config: EncodersConfig, task: str, model: str) -> None:
    """Fit one model without a network and test it, unless it was tested before."""
    name = f"{task}-{model}"
    if not (config.out / name / PREDICTIONS).is_file():
        named = ["--task", task, "--model", model, "--name", name, "--bootstrap", str(config.bootstrap)]
        fit_baseline(parse(BaselineConfig, [*_paths(config), *named, "--every_hours", "24"]))


def _paths(config: EncodersConfig) -> list[str]:
    results = config.out / "results"
    return ["--store", str(config.store), "--save_dir", str(config.out), "--results_dir", str(results)]


def run_name(task: str, fusion: str, encoder: str, seed: int) -> str:
    """Return the name of a run."""
    return f"{task}-{fusion}-{encoder}-{seed}"


def table(config: EncodersConfig) -> str:
    """Return a table in Markdown of the runs that were tested: mean and deviation over seeds of AUROC.

    Weights are those of the record encoder. Speed is that of the EHR alone in the first task: training
    samples per core-second of the whole run, validation and test included, and relative to the LSTM.
    """
    frames = [pd.read_csv(config.out / "results" / f"{task}.csv") for task in config.tasks]
    rows = pd.concat(frames)
    rows = rows[(rows["split"] == "test") & (rows["label"] == "macro")]
    tests = rows[rows["metric"] == rows["task"].map({name: task.monitor for name, task in TASKS.items()})]
    scores = tests.groupby("run")["value"].last()  # a run that began anew may have been tested twice
    lines = [
        [
            "encoder",
            "weights",
            "samples/core-s (relative)",
            *(f"{task}, {fusion}" for task in config.tasks for fusion in FUSIONS),
        ]
    ]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for encoder in EHR_ENCODERS:
        cells = [
            mean_of(scores, (run_name(task, fusion, encoder, seed) for seed in range(config.seeds)))
            for task in config.tasks
            for fusion in FUSIONS
        ]
        lines.append([encoder, weights_of(config, encoder), speed_of(config, encoder), *cells])
    for model in MODELS:
        cells = [
            mean_of(scores, [f"{task}-{model}"]) if fusion == "ehr" else ""
            for task in config.tasks
            for fusion in FUSIONS
        ]
        lines.append([model.replace("_", " "), "", "", *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_of(scores: pd.Series[float], runs: Iterator[str] | Sequence[str]) -> str:
    """Return the mean of runs, with their standard deviation and number if there are several."""
    found = scores.reindex(list(runs)).dropna().to_numpy()
    if not len(found):
        return ""
    spread = f" ± {found.std(ddof=1):.3f} ({len(found)})" if len(found) > 1 else ""
    return f"{found.mean():.3f}{spread}"


def weights_of(config: EncodersConfig, encoder: str) -> str:
    """Return the number of weights of a record encoder."""
    paths = sorted(config.out.glob(f"*-{encoder}-*/best.ckpt"))
    if not paths:
        return ""
    parts = checkpoint.load(paths[0])["parts"]["ehr_encoder"]
    return f"{sum(weight.numel() for weight in parts.values() if weight.is_floating_point()):,}"


def speed_of(config: EncodersConfig, encoder: str) -> str:
    """Return the training samples per core-second of a record encoder alone, and relative to the LSTM."""
    speeds = [
        [
            samples_per_core_second(folder)
            for seed in range(config.seeds)
            if ((folder := config.out / run_name(config.tasks[0], "ehr", name, seed)) / COST).is_file()
        ]
        for name in (encoder, "lstm")
    ]
    if not all(speeds):
        return ""
    return f"{np.median(speeds[0]):.3g} ({np.median(speeds[0]) / np.median(speeds[1]):.2f})"


def samples_per_core_second(run: Path) -> float:
    """Return the samples that a run was trained on in all epochs, by the core-seconds of all that it did."""
    log = pd.read_csv(run / "log.csv")
    trained = (log["samples_per_second"] * log["seconds"]).sum()
    return float(trained) / float((run / COST).read_text())


if __name__ == "__main__":
    run_cli(main, EncodersConfig)
