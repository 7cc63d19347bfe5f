"""Train every fusion on patients of whom many have no X-ray, with small settings and several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.fusion import FUSIONS
from training.classify import classify
from training.classify_config import ClassifyConfig
from utils.cli import run_cli
from utils.config import parse

SETTINGS = (
    "--mode train --protocol supervised --data_pairs partial --image_size 32 --transforms_cxr supervised "
    "--batch_size 32 --optimizer adamw --lr 1e-3 --weight_decay 1e-4 --clip 1 --device cpu"
)
ENCODERS = "--ehr_dim 32 --vision_backbone resnet18"
OWN = {
    "healnet": "--healnet_latents 16",
    "aug": "--aug_every 2",
    "flexmoe": "--flexmoe_experts 4 --flexmoe_top_k 2",
}


@dataclass(frozen=True)
class MissingConfig:
    """Train every fusion for phenotyping and mortality; the same command continues after an interruption.

    Runs are <task>-<fusion>-<seed>; `python -m training.robustness` takes their folder.
    """

    store: Path
    """Folder of the store."""
    out: Path = Path("runs/missing")
    """Folder of the runs, and of the result tables in `results`."""
    tasks: tuple[str, ...] = ("in-hospital-mortality", "phenotyping")
    """Tasks, one run of each fusion and seed for each."""
    seeds: int = 3
    """Number of seeds, from 0."""
    epochs: int = 6
    """Epochs of each run; the best by the validation score counts."""
    fusions: tuple[str, ...] = tuple(FUSIONS)
    """Fusions; early needs the runs of ehr and cxr."""


def main(config: MissingConfig) -> None:
    """Train what was not tested yet, one seed after the other."""
    for seed in range(config.seeds):
        for task in config.tasks:
            for fusion in config.fusions:
                train(config, task, fusion, seed)


def train(config: MissingConfig, task: str, fusion: str, seed: int) -> None:
    """Train one classifier and test it, unless it was tested before."""
    name, results = run_name(task, fusion, seed), config.out / "results"
    if (config.out / name / "predictions_test.csv").is_file():
        return
    encoders = ENCODERS.split()
    if FUSIONS[fusion].freezes_encoders:
        encoders = [
            word
            for modality in ("ehr", "cxr")
            for word in (
                f"--load_state_{modality}", str(config.out / run_name(task, modality, seed) / "best.ckpt"),
            )
        ]  # fmt: skip
    paths = ["--store", str(config.store), "--save_dir", str(config.out), "--results_dir", str(results)]
    flags = [*SETTINGS.split(), *OWN.get(fusion, "").split(), "--epochs", str(config.epochs), "--resume"]
    named = ["--task", task, "--fusion", fusion, "--name", name, "--seed", str(seed)]
    classify(parse(ClassifyConfig, [*paths, *flags, *encoders, *named]))
    (config.out / name / "last.ckpt").unlink()  # tested runs need only best.ckpt


def run_name(task: str, fusion: str, seed: int) -> str:
    """Return the name of a run."""
    return f"{task}-{fusion}-{seed}"


if __name__ == "__main__":
    run_cli(main, MissingConfig)
