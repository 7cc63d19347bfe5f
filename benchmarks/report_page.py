"""Time the page of `python -m evaluation.report` on the made-up results of many runs."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.record import RESULTS, Figure, record
from datasets.schema import SPLITS
from evaluation.decision import GRID as THRESHOLDS
from evaluation.metrics import CALIBRATION_BINS
from evaluation.report.__main__ import ReportConfig
from evaluation.report.page import make_page
from evaluation.results import COLUMNS, HASH_DIGITS, write_settings
from evaluation.roc_curves import GRID
from evaluation.summaries import Summary, summary_path
from evaluation.thresholds import ALL, GAPS, RATES
from evaluation.thresholds import COLUMNS as THRESHOLD_COLUMNS
from models.fusion import FUSIONS
from tasks import TASKS
from tasks.task import Task
from utils.cli import run_cli
from utils.config import digest
from utils.files import sha256

SEEDS = 3
OBJECTIVES = ("simclr", "vicreg", "align", "random")
BINARY, ORDINAL = ("auroc", "auprc", "brier", "ece"), ("kappa", "accuracy", "mad", "mse", "mape")
GROUPS = {"age": ("under 40", "40-59", "60-79", "80 and over"), "sex": ("F", "M"), "race": ("white", "black")}
RULES = ("youden", "sensitivity=0.9", "alerts=0.1")
EPOCHS = 50
SYNTHETIC = "synthetic data"


@dataclass(frozen=True)
class ReportBenchmark:
    """Make the folders of many runs, as run_gpu.py writes them, and time the page on them."""

    runs: int = 500
    """Runs, of all tasks; three of them differ in their seed alone."""
    resamples: int = 1000
    """Resamples that the runs have kept."""
    results: Path = RESULTS
    """CSV file that the measured row is appended to."""


def make_runs(folder: Path, runs: int, resamples: int = 1000) -> None:
    """Write `results`, `runs` and `store` of made-up runs: seeds of methods of all tasks in turn."""
    draw = np.random.default_rng(0)
    stores = {name: make_store(folder / "store", name) for name in TASKS}
    packages = {f"package-{number}": f"{number}.0.1" for number in range(90)}
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in TASKS}
    for number in range(runs):
        method, seed = divmod(number, SEEDS)
        task = TASKS[list(TASKS)[method % len(TASKS)]]
        method //= len(TASKS)
        fusion = list(FUSIONS)[method % len(FUSIONS)]
        objective = OBJECTIVES[method // len(FUSIONS) % len(OBJECTIVES)]
        name = f"{task.name}-finetune-{fusion}-{objective}-seed{seed}"
        settings = {
            "protocol": "finetune", "task": task.name, "fusion": fusion, "optim.lr": 0.001 * (1 + method),
            **{f"fusion_settings.number{k}": 0.1 for k in range(60)},
        }  # fmt: skip
        write_settings(folder / "results", settings)
        started = f"2030-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
        run = {
            "run": name, "mode": "train", "task": task.name, "protocol": "finetune", "fusion": fusion,
            "objective": objective, "checkpoint": f"runs/{objective}-seed{seed}/best.ckpt",
            "checkpoint_hash": f"c{method}{seed}", "classifier_hash": f"w{number}", "epoch": 7, "seed": seed,
            "data": "synthetic", "store": stores[task.name][:HASH_DIGITS], "data_pairs": "partial",
            "split_by": "", "label_fraction": 1.0, "ehr_encoder": "lstm", "vision_backbone": "resnet34",
            "cxr_weights": "random", "settings": digest(settings),
            "commit": "0123456789ab", "started": started, "seconds": 60.0,
        }  # fmt: skip
        skill = 0.6 + 0.2 * draw.random()
        for split in ("val", "test"):
            rows[task.name] += [run | {"split": split} | score for score in make_scores(task, skill, draw)]
        make_run(folder / "runs" / name, run, task, skill, draw, resamples, packages, folder / "store")
    for task_name, of_task in rows.items():
        if of_task:
            pd.DataFrame(of_task)[list(COLUMNS)].to_csv(folder / "results" / f"{task_name}.csv", index=False)


def make_store(folder: Path, task: str) -> str:
    """Write what the page reads of a store and a task, and return the task's hash."""
    (folder / task).mkdir(parents=True, exist_ok=True)
    inputs = {name: {"file": f"{name}.csv.gz", "bytes": 1000} for name in ("patients", "icustays")}
    manifest = {"protocol": "medmod", "timestep": 1.0, "synthetic": True, "inputs": inputs}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    samples = {split: {"samples": 900, "with_xray": 800} for split in SPLITS}
    of_task = {"store": "0", "labels": [task], "samples": samples}
    (folder / task / "manifest.yaml").write_text(yaml.safe_dump(of_task))
    (folder / "attrition.csv").write_text(
        "rule,stays,admissions,subjects,removed_stays\n"
        "all ICU stays,1777,1590,1144,0\nage 18 or more,1700,1500,1100,77\n"
    )
    (folder / task / "attrition.csv").write_text(
        "rule,train,val,test,stays,removed_stays\n"
        "all stays,1200,200,300,1700,0\na sample,900,150,250,1300,400\n"
    )
    return sha256(folder / task / "manifest.yaml")


def make_scores(task: Task, skill: float, draw: np.random.Generator) -> list[dict[str, object]]:
    """Return the scores of labels, their mean and subgroups, with intervals around `skill`."""
    metrics = ORDINAL if task.kind == "ordinal" else BINARY
    subgroups = [f"macro[{of}={name}]" for of, names in GROUPS.items() for name in names]
    labels = [(label, metric) for label in (*task.labels, "macro", *subgroups) for metric in metrics]
    labels += [(f"macro[{variable}]", f"{metric}_gap") for variable in GROUPS for metric in metrics]
    values = skill + 0.02 * draw.random(len(labels))
    return [
        {"label": label, "metric": metric, "value": value, "low": value - 0.05, "high": value + 0.05,
         "n": 900, "positives": 100}
        for (label, metric), value in zip(labels, values, strict=True)
    ]  # fmt: skip


def make_run(
    folder: Path,
    run: dict[str, object],
    task: Task,
    skill: float,
    draw: np.random.Generator,
    resamples: int,
    packages: dict[str, str],
    store: Path,
) -> None:
    """Write the folder of a run: its records, its log and the summary of its predictions."""
    folder.mkdir(parents=True)
    record = {"started": run["started"], "commit": run["commit"], "data": SYNTHETIC, "store": run["store"]}
    record |= {"settings": run["settings"], "python": "3.11.7", "device": "cpu", "packages": packages}
    (folder / "environment.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    config = {"task": task.name, "data": {"store": str(store)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    log = {"epoch": range(1, EPOCHS + 1), "train_loss": 0.5, task.monitor: skill - 0.1 * draw.random(EPOCHS)}
    pd.DataFrame(log).to_csv(folder / "log.csv", index=False)
    metrics = ORDINAL if task.kind == "ordinal" else BINARY
    count = np.full(CALIBRATION_BINS, 90.0)
    share = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    summary = Summary(
        samples=task.name,
        subjects=800,
        resampled={metric: skill + 0.02 * draw.normal(size=resamples) for metric in metrics},
        reliability=np.stack([count, count * share, count * share**skill], axis=1),
        curves={"AUROC": GRID ** (1 / skill - 1), "AUPRC": 1 - skill * GRID},
    )
    summary.write(summary_path(folder / "predictions_test.csv"))
    if task.kind != "ordinal":
        write_decisions(folder, task, skill)


def write_decisions(folder: Path, task: Task, skill: float) -> None:
    """Write what evaluation.decision and evaluation.thresholds do: all labels and their mean, with groups."""
    labels = [*task.labels, "macro"] if len(task.labels) > 1 else task.labels
    curve = pd.DataFrame({"threshold": THRESHOLDS, "treat_all": 0.2 - THRESHOLDS}).assign(
        n=900, positives=100
    )
    for name, value in (("net_benefit", 0.2 * (1 - THRESHOLDS)), ("over_treat_all", 0.2 * THRESHOLDS)):
        curve = curve.assign(**{name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05})
    curves = pd.concat([curve.assign(label=label) for label in labels])
    curves.to_csv(folder / "decision_test.csv", index=False)
    groups = [("", ALL), *((of, name) for of, names in GROUPS.items() for name in names)]
    of_groups = pd.DataFrame(groups, columns=["variable", "group"]).merge(
        pd.Series(RATES, name="metric"), "cross"
    )
    gaps = pd.DataFrame({"variable": list(GROUPS)}).merge(pd.Series(list(GAPS), name="metric"), "cross")
    part = pd.concat([of_groups, gaps.assign(group="", note="worst: F, best: M")]).fillna({"note": ""})
    parts = [part.assign(label=label, rule=rule) for rule in RULES for label in labels]
    rates = pd.concat(parts).assign(split="test", threshold=0.25, value=skill, low=skill - 0.05,
                                    high=skill + 0.05, n=900, positives=100, subjects=800)  # fmt: skip
    rates[list(THRESHOLD_COLUMNS)].to_csv(folder / "thresholds_test.csv", index=False)


def main(config: ReportBenchmark) -> None:
    """Measure, print the table and append the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_runs(folder, config.runs, config.resamples)
        started, core_started = time.perf_counter(), time.process_time()
        page = make_page(ReportConfig((folder / "results",), (folder / "runs",)))
        core_seconds, seconds = time.process_time() - core_started, time.perf_counter() - started
    work = f"page of {config.runs} runs"
    figures = [
        Figure(work, "core-s", core_seconds, "required", 10.0),
        Figure(f"{work}, size", "MB", len(page.encode()) / 1e6, "required", 5.0),
    ]
    record(config.results, "report_page", ("pandas", "jinja2"), figures)
    print(f"it took {seconds:.3g} s, of which other processes may have taken some; imports are not counted")


if __name__ == "__main__":
    run_cli(main, ReportBenchmark)
