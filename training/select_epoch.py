"""Epoch selection: train a linear probe on every checkpoint of a pretraining, and name the best epoch.

`training.epoch_probes` does the same while a pretraining runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from datasets.batches import check_batch_size
from datasets.data_config import SPLIT_SETTINGS, DataConfig
from datasets.features import FeatureBatches, UniqueInputs
from datasets.other_splits import open_store
from datasets.samples import Samples, load_samples
from datasets.schema import SPLITS
from datasets.store import Store
from evaluation import results
from evaluation.names import title_of
from evaluation.plots.curves import draw_epochs
from evaluation.plots.style import save
from evaluation.scoring import check_learnable, monitor_score
from models.classifier import ClassifierConfig, start_classifier
from models.encoders import EHR_ENCODERS, EncoderConfig, build_encoders, crop_of
from models.fusion import FUSIONS, LinearFusion
from models.pretraining import read_pretraining
from tasks import get_task
from tasks.task import Task
from training.classify_config import check_modalities
from training.epoch_table import best_epoch, epoch_columns, epoch_row, lineareval_command, read_epochs
from training.features import SharedFeatures
from training.probe import train_probe
from training.provenance import check_no_leakage
from training.select_epoch_config import EpochSelectionConfig
from utils import checkpoint, distributed
from utils.config import to_dict
from utils.distributed import Process
from utils.files import write_text
from utils.lock import hold, releasing_locks
from utils.log import logger
from utils.run import seed_everything, set_precision
from utils.run_config import RunConfig
from utils.yaml_files import dump_yaml, read_yaml_mapping

SampleSets = Mapping[tuple[str, str], Samples]  # the samples of each (task name, split)


@dataclass(frozen=True)
class EpochSelection:
    """An epoch selection that was opened: its settings, tasks, checkpoints by epoch, data and process."""

    config: EpochSelectionConfig
    tasks: Sequence[Task]
    checkpoints: Mapping[int, Path]
    store: Store
    process: Process

    def table(self, task: Task) -> Path:
        """Return the path of a task's table."""
        fusion = "" if self.config.fusion == "concatenation" else f"_{self.config.fusion}"
        return self.config.run_dir / f"results_label_{task.name}{fusion}.csv"


@releasing_locks()
def select_epoch(config: EpochSelectionConfig) -> None:
    """Probe the epochs that have no row yet, then report the best epoch of each task."""
    job = open_selection(config)
    distributed.raise_together(lambda: hold_tables(job))
    for task in job.tasks:
        check_table(job, task)
    if missing := missing_rows(job):
        probe_epochs(job, missing)
    report(job)
    distributed.shutdown()


def open_selection(config: EpochSelectionConfig) -> EpochSelection:
    """Check the settings, find the checkpoints, and open the store."""
    tasks = [get_task(name) for name in dict.fromkeys(config.task.split(","))]
    check_modalities(config.fusion, config.data.data_pairs)
    checkpoints = find_checkpoints(config.run_dir)
    if not checkpoints:
        raise ValueError(
            f"--run_dir {config.run_dir} holds no <run>_epoch_<NN>.ckpt; give the folder of a pretraining, "
            "such as --run_dir runs/simclr-phenotyping-seed0"
        )
    store = open_store(config.data)
    process = distributed.setup(config.device)
    check_batch_size(config.data.batch_size, process.world)
    seed_everything(config.seed)
    set_precision(RunConfig(), process.device)
    return EpochSelection(config, tasks, checkpoints, store, process)


def hold_tables(job: EpochSelection) -> None:
    """Hold the tables until the command ends, so that one that starts twice probes once."""
    for table in map(job.table, job.tasks):
        lock = table.with_name(f".{table.stem}.lock")
        hold(lock, table, "wait until it has ended, or choose another --task or --fusion")


def find_checkpoints(run_dir: Path) -> dict[int, Path]:
    """Return the paths of <run>_epoch_<NN>.ckpt in a folder by epoch, in the order of epochs; {} if none."""
    checkpoints: dict[int, Path] = {}
    for path in sorted(run_dir.glob("*_epoch_*.ckpt")):
        if match := re.search(r"_epoch_(\d+)$", path.stem):
            first = checkpoints.setdefault(int(match[1]), path)
            if first != path:
                raise ValueError(f"{path} and {first.name} are of the same epoch; move one of them away")
    return dict(sorted(checkpoints.items()))


def table_settings(job: EpochSelection, task: Task) -> dict[str, object]:
    """Return what the rows of a table depend on: the data, the pretraining and the settings."""
    omitted = {"run_dir", "task", "device", "format", "data"}
    settings = {name: value for name, value in to_dict(job.config).items() if name not in omitted}
    omitted = {"store", "data_device", "transforms_cxr"}  # the content of the store is compared instead
    data = {name: value for name, value in to_dict(job.config.data).items() if name not in omitted}
    environment = job.config.run_dir / "environment.yaml"
    return {
        "data": job.store.data_description,
        "store": job.store.fingerprint_of(task.name),
        "pretraining": read_yaml_mapping(environment).get("started", "") if environment.is_file() else "",
        "settings": settings | {"data": data},
    }


def check_table(job: EpochSelection, task: Task) -> None:
    """Raise ValueError if the rows of a table were made with other settings, or with unknown ones."""
    table = job.table(task)
    path = table.with_suffix(".yaml")
    if not table.is_file():
        return
    if not path.is_file():
        raise ValueError(f"{table} has no {path.name}, which records its settings; move the table away")
    before = flatten(read_yaml_mapping(path))
    now = flatten(table_settings(job, task))
    changed = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    if changed:
        sources = ("data", "store", "pretraining")
        names = [f"another {name}" if name in sources else f"--{name} {before.get(name)}" for name in changed]
        raise ValueError(f"{table} was made with {', '.join(names)}; use those, or move the table away")


def flatten(settings: Mapping[str, object]) -> dict[str, object]:
    """Flatten nested settings.

    >>> flatten({"seed": 0, "probe": {"lr": 0.01}})
    {'seed': 0, 'lr': 0.01}
    """
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= flatten(value) if isinstance(value, dict) else {name: value}
    return flat


def missing_rows(job: EpochSelection) -> dict[int, list[Task]]:
    """Return the tasks without a row for each epoch that has any, as the main process finds them."""
    missing = np.zeros((0, 2), np.int64)  # epoch, index of the task
    if distributed.is_main():
        done = [set(read_epochs(job.table(task), task)["epoch"]) for task in job.tasks]
        pairs = [(epoch, i) for epoch in job.checkpoints for i in range(len(done)) if epoch not in done[i]]
        missing = np.array(pairs, np.int64).reshape(-1, 2)
    tasks: dict[int, list[Task]] = {}
    for epoch, index in distributed.gather_arrays(missing).tolist():
        tasks.setdefault(epoch, []).append(job.tasks[index])
    return tasks


def probe_epochs(job: EpochSelection, missing: Mapping[int, list[Task]]) -> None:
    """Add the missing rows; the features of a checkpoint are computed once for all tasks."""
    samples = load_sample_sets(job, [task for task in job.tasks if any(task in m for m in missing.values())])
    first = job.checkpoints[next(iter(missing))]
    inputs = unique_inputs(job, samples, read_pretraining(checkpoint.load(first)).encoders)
    count = sum(map(len, missing.values()))
    logger.info(f"{count} probes on {len(missing)} checkpoints, {job.store.data_description}")
    for modality, unique in inputs.items():
        logger.info(
            f"{modality}: {unique.count} distinct inputs of {sum(map(len, samples.values()))} samples"
        )
    start = time.monotonic()
    for number, (epoch, tasks) in enumerate(missing.items(), start=1):
        features = compute_features(job, job.checkpoints[epoch], inputs)
        if distributed.is_main():
            scores = []
            for task in tasks:
                row = probe_task(job, task, epoch, features, samples)
                scores.append(f"{task.name}: {format_scores(task, row, ('val', 'test'))}")
            seconds_left = (time.monotonic() - start) / number * (len(missing) - number)
            eta = timedelta(seconds=round(seconds_left))
            logger.info(f"epoch {epoch} ({number}/{len(missing)})  {'  '.join(scores)}  ETA {eta}")
        distributed.barrier()


def load_sample_sets(job: EpochSelection, tasks: Iterable[Task]) -> SampleSets:
    """Load the samples of all splits; log which labels cannot be trained."""
    data, seed = job.config.data, job.config.seed
    samples: dict[tuple[str, str], Samples] = {}
    for task in tasks:
        for split in SPLITS:
            samples[task.name, split] = load_samples(job.store, task, split, data, seed)
        if problem := check_learnable(task, samples[task.name, "train"].labels):
            logger.warning(f"{task.name}: {problem}")
    return samples


def unique_inputs(
    job: EpochSelection, samples: SampleSets, encoders: EncoderConfig | None = None
) -> dict[str, UniqueInputs]:
    """Return the distinct inputs of all samples, by modality, as the encoders of a pretraining read them."""
    encoders, modalities = encoders or EncoderConfig(), FUSIONS[job.config.fusion].modalities
    needs, crop = EHR_ENCODERS[encoders.ehr_encoder].needs, None
    if "cxr" in modalities:
        crop = crop_of(build_encoders(encoders, ("cxr",), download=False)["cxr"])
    return {
        modality: UniqueInputs(job.store, samples, modality, job.config.data, job.process, crop, needs=needs)
        for modality in modalities
    }


def compute_features(job: EpochSelection, path: Path, inputs: Mapping[str, UniqueInputs]) -> SharedFeatures:
    """Compute the features of all samples with the encoders of a checkpoint, on all processes together."""
    check_no_leakage(job.store, path)
    config = ClassifierConfig(job.config.fusion, "binary", 1, EncoderConfig(), job.config.fusion_layer)
    classifier, _ = start_classifier(config, dict.fromkeys(inputs, str(path)))
    fusion = classifier.fusion.to(job.process.device)
    assert isinstance(fusion, LinearFusion), "--fusion offers no other"
    return SharedFeatures(fusion, inputs, job.process.device)


def probe_task(
    job: EpochSelection, task: Task, epoch: int, features: SharedFeatures, samples: SampleSets
) -> dict[str, float]:
    """Train the probe of a task and epoch, append its row to the table, and return the row."""
    config = job.config
    labels = {split: samples[task.name, split].labels for split in SPLITS}
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
    probability = train_probe(task.kind, task.outputs, batches, config.probe, config.seed, score)
    row = epoch_row(task, epoch, labels, {split: probability[split].cpu().numpy() for split in SPLITS})
    append_row(job, task, row)
    return row


def validation_score(task: Task, truth: np.ndarray, probability: Tensor) -> float:
    """Return the task's monitor on the validation split."""
    return monitor_score(task, truth, probability.cpu().numpy())


def append_row(job: EpochSelection, task: Task, row: Mapping[str, float]) -> None:
    """Append a row to the table; the first also records the settings, in a YAML file beside the table."""
    path = job.table(task)
    if not path.is_file():
        settings = dump_yaml(table_settings(job, task))
        write_text(path.with_suffix(".yaml"), settings)
    results.append_rows(path, epoch_columns(task), [row], "move it away")


def report(job: EpochSelection) -> None:
    """Draw the curve of each task, and print its best epoch."""
    if distributed.is_main():
        for task in job.tasks:
            table = read_epochs(job.table(task), task)
            if table.empty:
                logger.warning(f"{task.name}: no epoch was probed")
            else:
                write_curve(job, task, table)
                report_best_epoch(job, task, table)
                if (count := int(table["epoch"].max()) - len(table)) > 0:
                    logger.warning(f"{task.name}: {count} epochs before have no checkpoint and no probe")
    distributed.barrier()


def write_curve(job: EpochSelection, task: Task, table: pd.DataFrame) -> None:
    """Draw the scores of all epochs; for a single task also write results_label.csv."""
    config, path = job.config, job.table(task)
    if len(job.tasks) == 1:
        write_text(config.run_dir / "results_label.csv", table.to_csv(index=False))
    title = f"{config.run_dir.resolve().name}: linear probe, {title_of(task.name)}, {title_of(config.fusion)}"
    figure = draw_epochs(table, f"{title}\n{job.store.data_description}")
    picture = path.with_suffix(f".{config.format}")
    save(figure, picture)
    logger.info(f"\ntable: {path}\ncurve: {picture}")


def report_best_epoch(job: EpochSelection, task: Task, table: pd.DataFrame) -> None:
    """Print the best epoch that still has a checkpoint, and the command that evaluates it."""
    best = best_epoch(table[table["epoch"].isin(job.checkpoints)], task)
    if best is None:
        logger.warning(
            f"{task.name}: no best epoch, because every label has only one class in the validation split"
        )
        return
    row = table.set_index("epoch").loc[best]
    command = lineareval_command(task, job.config.fusion, job.checkpoints[best], lineareval_flags(job.config))
    logger.info(f"{task.name}: epoch {best} is the best by validation; {format_scores(task, row, SPLITS)}")
    logger.info(f"evaluate it with\n  {command}")


def format_scores(task: Task, row: Mapping[str, float], splits: Iterable[str]) -> str:
    """Format the mean scores of some splits."""
    scores = ", ".join(f"{split} {row[f'{split}_{task.monitor}']:.4f}" for split in splits)
    return f"{task.monitor} {scores}"


def lineareval_flags(config: EpochSelectionConfig) -> dict[str, object]:
    """Return the flags with which linear evaluation reads the same features as the probe."""
    views = ("image_size", "transforms_cxr", "cxr_shape")
    names = (*SPLIT_SETTINGS, "data_pairs", "data_ratio", "retrieve_cxr", "every_hours", *views)
    default = DataConfig()
    flags = {"store": config.data.store}
    flags |= {
        name: getattr(config.data, name)
        for name in names
        if getattr(config.data, name) != getattr(default, name)
    }
    return flags | ({"fusion_layer": config.fusion_layer} if config.fusion_layer else {})
