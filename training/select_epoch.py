"""Find the best epoch of a pretraining: a linear probe on every checkpoint that it left."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from datasets.batches import SAMPLE_SELECTIONS, DataConfig, Samples, load_samples
from datasets.features import FeatureBatches
from datasets.schema import SPLITS
from datasets.store import Store
from datasets.unique_inputs import UniqueInputs
from evaluation import metrics, results
from evaluation.label_checks import check_learnable
from evaluation.plots.curves import draw_epochs
from evaluation.plots.figures import save
from evaluation.scoring import compute_scores
from models.classifier import ClassifierConfig, start_classifier
from models.encoders import EncoderConfig
from models.fusion import FUSIONS
from tasks import Task, get_task
from training.epoch_table import best_epoch, columns, epoch_row, next_command, read_epochs
from training.features import SharedFeatures
from training.probe import ProbeConfig, train_probe
from training.provenance import check_no_leakage
from utils import distributed
from utils.config import read_yaml_mapping, to_dict
from utils.distributed import Process
from utils.files import write_text
from utils.run import RunConfig, seed_everything, set_precision

PROBED = DataConfig(batch_size=512)


@dataclass(frozen=True)
class EpochEvaluationConfig:
    """Train a linear probe on every checkpoint of a pretraining; goes on where it was stopped.

    Leaves in the pretraining's folder results_label_<task>.csv, a row an epoch, and its curve as PNG; and
    results_label.csv, the same rows in the order of epochs, if one task is job for. The files of --fusion
    ehr and cxr are called results_label_<task>_<fusion>.
    """

    run_dir: Path = Path("runs/simclr-phenotyping")
    """Folder of the pretraining."""
    task: str = "phenotyping"
    """Task to probe, or several with commas between: phenotyping,in-hospital-mortality."""
    fusion: Literal["ehr", "cxr", "concatenation"] = "concatenation"
    """Features to probe: of one encoder, or of both side by side."""
    fusion_layer: Literal[0, 3] = 0
    """Probe the outputs of the encoders (0) or of their projection heads (3)."""
    seed: int = 0
    """Start of every random number: weights of the probes, order of samples."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one. Start with torchrun for several GPUs."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    data: DataConfig = PROBED


@dataclass(frozen=True)
class Evaluation:
    """What is job for, opened: the tasks, the checkpoint of every epoch, the data, and the process."""

    config: EpochEvaluationConfig
    tasks: tuple[Task, ...]
    checkpoints: Mapping[int, Path]
    store: Store
    process: Process

    def table(self, task: Task) -> Path:
        """Where the rows of a task are."""
        fusion = "" if self.config.fusion == "concatenation" else f"_{self.config.fusion}"
        return self.config.run_dir / f"results_label_{task.name}{fusion}.csv"


def select_epoch(config: EpochEvaluationConfig) -> None:
    """Probe the epochs that have no row yet, then name the best."""
    job = open_evaluation(config)
    todo = epochs_to_do(job)
    if todo:
        probe_epochs(job, todo)
    if distributed.is_main():
        for task in job.tasks:
            report_best_epoch(job, task)
    distributed.barrier()
    distributed.shutdown()


def open_evaluation(config: EpochEvaluationConfig) -> Evaluation:
    """ValueError, with the cure, for settings that contradict each other or rows that others have made."""
    tasks = tuple(get_task(name) for name in dict.fromkeys(config.task.split(",")))
    pairs = config.data.data_pairs
    if not all(getattr(SAMPLE_SELECTIONS[pairs], modality) for modality in FUSIONS[config.fusion].modalities):
        raise ValueError(
            f"--data_pairs {pairs} has too little for --fusion {config.fusion}; use --data_pairs paired"
        )
    checkpoints, store = find_checkpoints(config.run_dir), Store.open(config.data.store)
    process = distributed.setup(config.device)
    seed_everything(config.seed)
    set_precision(RunConfig(), process.device)
    return Evaluation(config, tasks, checkpoints, store, process)


def find_checkpoints(run_dir: Path) -> dict[int, Path]:
    """{epoch: <run>_epoch_<NN>.ckpt} of a folder, in the order of epochs; ValueError if there is none."""
    found: dict[int, Path] = {}
    for path in sorted(run_dir.glob("*_epoch_*.ckpt")):
        match = re.search(r"_epoch_(\d+)$", path.stem)
        if match and found.setdefault(int(match[1]), path) != path:
            raise ValueError(
                f"{path} and {found[int(match[1])].name} are of one epoch; move one of them away"
            )
    if not found:
        cure = "give the folder of a pretraining, such as --run_dir runs/simclr-phenotyping"
        raise ValueError(f"--run_dir {run_dir} holds no <run>_epoch_<NN>.ckpt; {cure}")
    return dict(sorted(found.items()))


def epochs_to_do(job: Evaluation) -> dict[int, list[Task]]:
    """{epoch: tasks without a row of it}, as the main process sees it; ValueError for others' rows."""
    left = np.zeros((0, 2), np.int64)
    for task in job.tasks:
        check_settings(job, task)
    if distributed.is_main():
        done = [set(read_epochs(job.table(task), task)["epoch"]) for task in job.tasks]
        pairs = [(e, t) for e in job.checkpoints for t in range(len(done)) if e not in done[t]]
        left = np.array(pairs, np.int64).reshape(-1, 2)
    todo: dict[int, list[Task]] = {}
    for epoch, place in distributed.gather_arrays(left).tolist():
        todo.setdefault(epoch, []).append(job.tasks[place])
    return todo


def settings_of(job: Evaluation) -> dict[str, object]:
    """What the rows of a table depend on: the settings, the data, and the run that left the checkpoints."""
    settings = to_dict(job.config)
    for name in ("run_dir", "task", "device"):
        del settings[name]
    for name in ("store", "data_device", "transforms_cxr"):  # the store counts by its content
        del settings["data"][name]
    path = job.config.run_dir / "environment.yaml"
    began = read_yaml_mapping(path).get("started", "") if path.is_file() else ""
    told = {
        "data": job.store.data_description,
        "store": job.store.fingerprint,
        "pretraining": began,
    }
    return told | {"settings": settings}


def check_settings(job: Evaluation, task: Task) -> None:
    """ValueError if a table has rows that were made with other settings."""
    path = job.table(task).with_suffix(".yaml")
    if not job.table(task).is_file():
        return
    if not path.is_file():
        raise ValueError(f"{job.table(task)} lacks {path.name}, which says how it was made; move it away")
    before, now = read_yaml_mapping(path), settings_of(job)
    if before != now:
        was, wanted = (flat(found) for found in (before, now["settings"]))
        other = [f"--{name} {was.get(name)}" for name in wanted if was.get(name) != wanted[name]]
        other += [f"another {name}" for name in ("store", "pretraining") if before.get(name) != now[name]]
        cure = "use the same again, or move the table away"
        raise ValueError(f"{job.table(task)} was made with {', '.join(other) or before.get('data')}; {cure}")


def flat(settings: Mapping[str, object]) -> dict[str, object]:
    """{flag: value} of nested settings.

    >>> flat({"seed": 0, "probe": {"lr": 0.01}})
    {'seed': 0, 'lr': 0.01}
    """
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= flat(value) if isinstance(value, dict) else {name: value}
    return found


def probe_epochs(job: Evaluation, todo: Mapping[int, list[Task]]) -> None:
    """Adds a row for every epoch and task; the features of a checkpoint serve all its tasks."""
    tasks = [task for task in job.tasks if any(task in left for left in todo.values())]
    samples = {(task.name, split): read_samples(job, task, split) for task in tasks for split in SPLITS}
    for task in tasks:
        if lacking := check_learnable(task, samples[task.name, "train"].labels):
            say(f"{task.name}: {lacking}")
    rows = partial(UniqueInputs, job.store, samples, config=job.config.data, process=job.process)
    shared = {name: rows(modality=name) for name in FUSIONS[job.config.fusion].modalities}
    count = sum(map(len, todo.values()))
    say(f"{count} probes on {len(todo)} checkpoints, {job.store.data_description}")
    for name, found in shared.items():
        say(f"{name}: {found.count} distinct of {sum(map(len, samples.values()))} samples")
    began = time.monotonic()
    for number, (epoch, left) in enumerate(todo.items(), start=1):
        features = features_of(job, job.checkpoints[epoch], shared)
        if distributed.is_main():
            told = [probe_task(job, epoch, task, features, samples) for task in left]
            left_over = timedelta(seconds=round((time.monotonic() - began) / number * (len(todo) - number)))
            say(f"epoch {epoch} ({number}/{len(todo)})  {'  '.join(told)}  ETA {left_over}")
        distributed.barrier()


def read_samples(job: Evaluation, task: Task, split: str) -> Samples:
    """The samples of a task's split."""
    data, seed = job.config.data, job.config.seed
    return load_samples(job.store, task.name, task.labels, task.encode, split, data, seed)


def features_of(job: Evaluation, path: Path, shared: Mapping[str, UniqueInputs]) -> SharedFeatures:
    """Features of all samples by a checkpoint's encoders, computed by all processes together."""
    config, device = job.config, job.process.device
    check_no_leakage(job.store, path)
    wanted = ClassifierConfig(config.fusion, "binary", 1, EncoderConfig(), config.fusion_layer)
    classifier, _ = start_classifier(wanted, dict.fromkeys(shared, str(path)))
    return SharedFeatures(classifier.fusion.to(device), shared, device)


def probe_task(
    job: Evaluation,
    epoch: int,
    task: Task,
    features: SharedFeatures,
    samples: Mapping[tuple[str, str], Samples],
) -> str:
    """Trains one probe and adds its row; returns what to print of it."""
    config, labels = job.config, {split: samples[task.name, split].labels for split in SPLITS}
    batches = {
        split: FeatureBatches(
            features.features_of((task.name, split)),
            torch.from_numpy(labels[split]).to(job.process.device),
            config.data.batch_size,
            seed=config.seed,
            train=split == "train",
        )
        for split in SPLITS
    }
    score = partial(validation_score, task, labels["val"])
    found = train_probe(task.kind, task.outputs, batches, config.probe, config.seed, score)
    row = epoch_row(task, epoch, labels, {split: found[split].cpu().numpy() for split in SPLITS})
    write_row(job, task, row)
    scores = ", ".join(f"{split} {row[f'{split}_{task.monitor}']:.4f}" for split in ("val", "test"))
    return f"{task.name}: {task.monitor} {scores}"


def validation_score(task: Task, truth: np.ndarray, probability: Tensor) -> float:
    """The task's monitor on the validation split."""
    return metrics.headline(compute_scores(task, truth, probability.cpu().numpy()))[task.monitor]


def write_row(job: Evaluation, task: Task, row: Mapping[str, float]) -> None:
    """Adds a row to the table, and beside the first what it was made with."""
    path = job.table(task)
    if not path.is_file():
        text = yaml.safe_dump(settings_of(job), sort_keys=False, allow_unicode=True)
        write_text(path.with_suffix(".yaml"), text)
    results.append_rows(path, columns(task), [row], "move it away")


def report_best_epoch(job: Evaluation, task: Task) -> None:
    """Draws the curve, and says which epoch is best and how to use it."""
    config, path = job.config, job.table(task)
    table = read_epochs(path, task)
    if len(job.tasks) == 1:
        write_text(config.run_dir / "results_label.csv", table.to_csv(index=False))
    title = f"{config.run_dir.resolve().name}: linear probe, {task.name}, {config.fusion}"
    figure = draw_epochs(table, f"{title}\n{job.store.data_description}")
    save(figure, path.with_suffix(".png"))
    say(f"\ntable: {path}\ncurve: {path.with_suffix('.png')}")
    best = best_epoch(table[table["epoch"].isin(job.checkpoints)], task)
    if best is None:
        say(f"{task.name}: the validation split holds one class of every label, so that no epoch is best")
        return
    row = table.set_index("epoch").loc[best]
    scores = ", ".join(f"{split} {row[f'{split}_{task.monitor}']:.4f}" for split in SPLITS)
    command = next_command(task, config.fusion, job.checkpoints[best], same_settings(config))
    say(f"{task.name}: epoch {best} is the best by validation; {task.monitor} {scores}")
    say(f"use it by\n  {command}")


def same_settings(config: EpochEvaluationConfig) -> dict[str, object]:
    """Flags that make the linear classifier see what the probe saw, where the task's script says other."""
    flags: dict[str, object] = {"store": config.data.store}
    data, default = to_dict(config.data), to_dict(DataConfig())
    flags |= {
        n: data[n]
        for n in ("data_pairs", "data_ratio", "retrieve_cxr", "every_hours", "image_size")
        if data[n] != default[n]
    }
    return flags | ({"fusion_layer": config.fusion_layer} if config.fusion_layer else {})


def say(text: str) -> None:
    """Prints a line, on the main process."""
    if distributed.is_main():
        tqdm.write(text)
