"""The long commands on tiny data: how each is started and resumed, and which files it must leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torchvision.models import DenseNet
from torchvision.models._api import register_model

from models.encoders import cxr
from tests.faults.contents import same_arrays, same_bytes, same_rows, same_set_of_rows, same_state
from tests.random_store import write_random_store

NETWORK = "densenet_tiny"
TASKS = "phenotyping,in-hospital-mortality"
SMALL = ("--device", "cpu", "--image_size", "32", "--batch_size", "4")
TRAINED = {"run/*.ckpt": same_state, "run/log.csv": same_rows}
TESTED = {
    **TRAINED,
    "run/predictions_*.csv": same_bytes,
    "run/embeddings_*.npz": same_arrays,
    "results/*.csv": same_rows,
}


def register_small_network() -> None:
    """Add a DenseNet of a few thousand weights to torchvision's models, so that checkpoints are small.

    Call it before programs are imported, which may copy the list of models.
    """

    def densenet_tiny(**_: object) -> DenseNet:
        return DenseNet(4, (1, 1, 1, 1), 8, bn_size=1)

    register_model(NETWORK)(densenet_tiny)
    cxr.BACKBONES += (NETWORK,)


@dataclass(frozen=True)
class Base:
    """Inputs of the commands: a raw release, a store of random stays, a pretraining and a classifier."""

    folder: Path

    @property
    def store(self) -> Path:
        """A store of 30 stays."""
        return self.folder / "store"

    def command(self, name: str) -> list[str]:
        """Return the command line that makes one of the inputs."""
        paths = ["--store", str(self.store), "--save_dir", str(self.folder / "runs"), *SMALL]
        lines = {
            "raw": ["-m", "datasets.synthetic", "--out", str(self.folder / "raw"), "--patients", "24",
                    "--image_size", "64", "--paired", "0.9"],
            "pretraining": ["simclr_trainer.py", *paths, "--name", "run", *PRETRAIN],
            "classifier": ["run_gpu.py", *paths, "--name", "classifier", *PROBE, "--results_dir",
                           str(self.folder / "results"), "--load_state", str(self.pretrained)],
        }  # fmt: skip
        return lines[name]

    @property
    def pretrained(self) -> Path:
        """The checkpoint of the pretraining."""
        return self.folder / "runs" / "run" / "last.ckpt"

    def write_store(self) -> None:
        """Make the store."""
        write_random_store(self.store)


# Every step saves last.ckpt, so that a kill can come after any of them.
SAVE_EVERY_STEP = ("--save_minutes", "0.000001")
PRETRAIN = ("--epochs", "3", "--warmup_epochs", "1", "--lr", "0.1", "--ehr_dim", "8", "--vision_backbone",
            NETWORK, *SAVE_EVERY_STEP)  # fmt: skip
FINETUNE = ("--protocol", "finetune", "--task", "phenotyping", "--epochs", "3", "--lr", "0.001",
            "--bootstrap", "20", *SAVE_EVERY_STEP)  # fmt: skip
PROBE = ("--protocol", "lineareval", "--task", "in-hospital-mortality", "--epochs", "6", "--lr", "0.01",
         "--bootstrap", "20", *SAVE_EVERY_STEP)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A long command.

    command: its words, given the inputs and the output folder; readers: how to compare the files that it
    leaves; weight: its share of all kills; resume_flags: added when it is restarted; copied: folder of the
    inputs that is copied into the output folder first; background: commands that run at the same time and are
    not killed; lock: pattern of the file that it holds, "" if it may run twice at once.
    """

    command: Callable[[Base, Path], list[str]]
    readers: dict[str, Callable[[Path], str]]
    weight: int
    resume_flags: tuple[str, ...] = ()
    copied: str = ""
    background: Callable[[Base, Path], list[list[str]]] = field(default=lambda base, folder: [])
    lock: str = ""

    def prepare(self, base: Base, folder: Path) -> None:
        """Make the output folder."""
        folder.mkdir(parents=True)
        if self.copied:
            shutil.copytree(base.folder / self.copied, folder / Path(self.copied).name)


def _training(program: str, *flags: str) -> Callable[[Base, Path], list[str]]:
    def command(base: Base, folder: Path) -> list[str]:
        paths = ["--store", str(base.store), "--save_dir", str(folder), "--name", "run"]
        return [program, *paths, *SMALL, *flags]

    return command


def _testing(*flags: str) -> Callable[[Base, Path], list[str]]:
    def command(base: Base, folder: Path) -> list[str]:
        paths = ["--load_state", str(base.pretrained), "--results_dir", str(folder / "results")]
        return [*_training("run_gpu.py", *flags)(base, folder), *paths]

    return command


def _extraction(base: Base, folder: Path) -> list[str]:
    raw = base.folder / "raw"
    paths = ["--mimic_iv", str(raw / "mimic-iv"), "--mimic_cxr", str(raw / "mimic-cxr-jpg")]
    return ["-m", "datasets.extract", *paths, "--out", str(folder / "store")]


def _evaluation(base: Base, folder: Path) -> list[str]:
    state = base.folder / "runs" / "classifier" / "best.ckpt"
    return [*_testing("--mode", "eval", *PROBE[:4])(base, folder), "--load_state", str(state)]


def _selection(base: Base, folder: Path) -> list[str]:
    paths = ["--store", str(base.store), "--run_dir", str(folder / "run"), "--task", TASKS]
    return ["epoch_evaluation.py", *paths, *SMALL, "--epochs", "4"]


def _writer(name: str) -> Callable[[Base, Path], list[str]]:
    return lambda base, folder: ["-m", "tests.faults.writer", str(folder / "results.csv"), name]


RESUME = ("--resume",)
RUN_LOCK, TABLE = "run/.lock", "results_label_phenotyping"
JOBS = {
    "datasets.extract": Job(_extraction, {"store/**/*": same_bytes}, 40, lock="store/.work/lock"),
    "simclr_trainer.py": Job(_training("simclr_trainer.py", *PRETRAIN), TRAINED, 20, RESUME, lock=RUN_LOCK),
    "simclr_trainer.py --probe": Job(
        _training("simclr_trainer.py", *PRETRAIN, "--probe", TASKS, "--probe_epochs", "4", "--keep", "best"),
        {**TRAINED, "run/results_label*.csv": same_bytes},
        10,
        RESUME,
        lock=RUN_LOCK,
    ),
    "vicreg_trainer.py": Job(_training("vicreg_trainer.py", *PRETRAIN), TRAINED, 10, RESUME, lock=RUN_LOCK),
    "align_trainer.py": Job(_training("align_trainer.py", *PRETRAIN), TRAINED, 10, RESUME, lock=RUN_LOCK),
    "run_gpu.py finetune": Job(_testing(*FINETUNE), TESTED, 40, RESUME, lock=RUN_LOCK),
    "run_gpu.py lineareval": Job(_testing(*PROBE), TESTED, 25, RESUME, lock=RUN_LOCK),
    "run_gpu.py eval": Job(_evaluation, TESTED, 10, RESUME, lock=RUN_LOCK),
    "epoch_evaluation.py": Job(
        _selection, {"run/results_label*": same_bytes}, 20, copied="runs/run", lock=f"run/.{TABLE}.lock"
    ),
    "3 runs report at once": Job(
        _writer("killed"),
        {"results.csv": same_set_of_rows},
        15,
        background=lambda base, folder: [_writer(name)(base, folder) for name in ("one", "two")],
    ),
    "evaluation.plots": Job(
        lambda base, folder: ["-m", "evaluation.plots", "curves", str(folder / "run")],
        {"run/*.png": same_bytes},
        10,
        copied="runs/run",
    ),
}  # fmt: skip
