"""The main job from nothing, in minutes on two cores: `make demo` or `bash demo.sh`.

Patients and X-rays -> store -> SimCLR -> linear evaluation and fine-tuning for two tasks -> one table.

Environment variables:
    SEED: Seed of the synthetic patients and of the runs, 0 if not set.
    PATIENTS: Number of synthetic patients, 3000 if not set.
    MIMIC_IV: A real MIMIC-IV folder to use instead, with synthetic X-rays for its stays.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.runner import RunFailed, Runner, available_cores
from utils.lock import hold

TASKS = ("phenotyping", "in-hospital-mortality")
CLASSIFIER = "run_gpu.py"
XRAY_SIZE, STORED_SIZE = 64, 128  # shorter side of the X-rays in pixels, raw and in the store
PRETRAIN = (
    "--vision_backbone resnet18 --transforms_cxr supervised --batch_size 128 --optimizer adamw --lr 2e-3 "
    "--warmup_epochs 1"
)
PROBE = "--head_start probe --probe_epochs 100 --probe_lr 1e-3"  # a head as linear evaluation leaves it
FINETUNE = f"--protocol finetune {PROBE} --epochs 1 --lr 1e-5 --batch_size 64"
LINEAREVAL = "--protocol lineareval --epochs 100 --lr 1e-3 --batch_size 512"


@dataclass(frozen=True)
class DemoConfig:
    """Which patients, and where the demo's files go."""

    seed: str = "0"
    patients: str = "3000"
    mimic_iv: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> DemoConfig:
        """Read the variables; an empty one counts as not set."""
        names = ("seed", "patients", "mimic_iv")
        return cls(**{name: value for name in names if (value := environment.get(name.upper()))})

    @property
    def name(self) -> str:
        """Name of the demo's folders."""
        return "demo-real" if self.mimic_iv else "demo"

    @property
    def data(self) -> Path:
        """Folder of the raw data and the store."""
        return Path("data", self.name)

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return Path("runs", self.name)

    @property
    def results(self) -> Path:
        """Folder of the result tables."""
        return Path("results", self.name)

    @property
    def epochs(self) -> int:
        """Epochs of the pretraining."""
        return 10 if self.mimic_iv else 8

    @property
    def pretrained(self) -> Path:
        """Checkpoint of the last epoch; last.ckpt has the state of the optimizer, too, which nobody reads."""
        return self.runs / "simclr" / f"simclr_epoch_{self.epochs:02d}.ckpt"

    @property
    def run_flags(self) -> list[str]:
        """Flags of every training."""
        flags = f"--store {self.data}/store --save_dir {self.runs} --seed {self.seed} --image_size 32"
        return flags.split()


def raw_data(config: DemoConfig) -> list[str]:
    """Return the command that makes the raw tables and X-rays."""
    patients = ["--for_stays", config.mimic_iv] if config.mimic_iv else ["--patients", config.patients]
    flags = f"--out {config.data}/raw --seed {config.seed} --image_size {XRAY_SIZE} --paired 0.9 --workers 0"
    return [sys.executable, "-m", "datasets.synthetic", *patients, *flags.split()]


def extraction(config: DemoConfig) -> list[str]:
    """Return the command that extracts the store."""
    mimic_iv = config.mimic_iv or f"{config.data}/raw/mimic-iv"
    flags = (
        f"--mimic_cxr {config.data}/raw/mimic-cxr-jpg --out {config.data}/store --image_cache {STORED_SIZE}"
    )
    return ["-m", "datasets.extract", "--mimic_iv", mimic_iv, *flags.split()]


def pretraining(config: DemoConfig) -> list[str]:
    """Return the command that pretrains both encoders.

    Real patients may be the 100 of the open demo, of whom one stay is left to validate mortality on: the
    encoders learn from the pairs of phenotyping, which has more.
    """
    task = "phenotyping" if config.mimic_iv else "in-hospital-mortality"
    flags = [*config.run_flags, "--name", "simclr", "--task", task, *PRETRAIN.split()]
    flags += ["--epochs", str(config.epochs)]
    return ["simclr_trainer.py", *flags]


def classifiers(config: DemoConfig) -> Iterator[tuple[str, list[str]]]:
    """Yield name and flags of all classifiers of both tasks, the slowest first.

    Two run at a time: those that begin each task have other encoders, whose features the later ones read.
    """
    pretrained = ["--load_state", str(config.pretrained)]
    untrained = ["--load_state", "random", "--vision_backbone", "resnet18"]
    for task in TASKS:
        yield f"{task}-finetune", [*FINETUNE.split(), "--task", task, *pretrained]
        yield f"{task}-lineareval-random", [*LINEAREVAL.split(), "--task", task, *untrained]
    for task in TASKS:
        for fusion in ("concatenation", "ehr", "cxr"):
            flags = [*LINEAREVAL.split(), "--task", task, *pretrained, "--fusion", fusion]
            yield f"{task}-lineareval-{fusion}", flags


def classify(runner: Runner, config: DemoConfig) -> None:
    """Start all classifiers, two at a time."""
    threads = {"OMP_NUM_THREADS": str((available_cores() + 1) // 2)}
    for name, flags in classifiers(config):
        command = [
            CLASSIFIER,
            "--name",
            name,
            "--results_dir",
            str(config.results),
            *config.run_flags,
            *flags,
        ]
        runner.start(name, command, threads)
        print(f"{name}: {runner.log_dir / name}.log", flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    began = time.monotonic()
    print(f"\n== {title}", flush=True)
    yield
    print(f"== done in {time.monotonic() - began:.0f} s", flush=True)


def run_step(
    runner: Runner, title: str, command: Sequence[str], before: Sequence[Sequence[str]] = ()
) -> None:
    """Run one command as a step, and meanwhile import the programs of later ones."""
    with step(title):
        runner.run(title, command, before=before)


def main() -> None:
    """Run all steps and print the test scores."""
    began = time.monotonic()
    config = DemoConfig.from_environment(os.environ)
    hold(Path("data", f".{config.name}.lock"), config.data, "wait until it has ended")
    for folder in (config.data, config.runs, config.results):
        shutil.rmtree(folder, ignore_errors=True)
    with Runner(jobs=2, log_dir=config.runs) as runner:
        run_step(runner, "raw data", raw_data(config), before=[extraction(config)])
        run_step(runner, "extraction", extraction(config), before=[pretraining(config), [CLASSIFIER]])
        run_step(runner, "SimCLR pretraining", pretraining(config))
        with step("linear evaluation and fine-tuning of two tasks"):
            classify(runner, config)
            from evaluation.tables import summary  # imports pandas while the last classifiers run

            runner.finish()
    print(f"\nTest scores\n{summary(config.results)}")
    print(f"\nall of it took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    # There are no flags, and a mistyped one must not start minutes of work.
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    try:
        main()
    except RunFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.status)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
