"""The long commands, on tiny data: how each is started and gone on with, and what it must leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torchvision.models import DenseNet
from torchvision.models._api import register_model

from tests.faults.contents import same_arrays, same_bytes, same_rows, same_set_of_rows, same_state
from tests.random_store import write_random_store

NETWORK = "densenet_tiny"
SMALL = ("--device", "cpu", "--image_size", "32", "--batch_size", "4")
TRAINED = {"run/*.ckpt": same_state, "run/log.csv": same_rows}
TESTED = {
    **TRAINED,
    "run/predictions_*.csv": same_bytes,
    "run/embeddings_*.npz": same_arrays,
    "results/*.csv": same_rows,
}


def register_small_network() -> None:
    """Adds a DenseNet of a few thousand weights to torchvision's, so that a checkpoint costs little to
    write; before models.encoders looks which there are.
    """

    def densenet_tiny(**_: object) -> DenseNet:
        return DenseNet(4, (1, 1, 1, 1), 8, bn_size=1)

    densenet_tiny.__module__ = "torchvision.models.densenet"
    register_model(NETWORK)(densenet_tiny)


@dataclass(frozen=True)
class Base:
    """What the commands read: a raw release, a store of random stays, a pretraining and a classifier."""

    folder: Path

    @property
    def store(self) -> Path:
        """30 stays in a store."""
        return self.folder / "store"

    def command(self, name: str) -> list[str]:
        """The command line that makes a part of it."""
        places = ["--store", str(self.store), "--save_dir", str(self.folder / "runs"), *SMALL]
        lines = {
            "raw": ["-m", "datasets.synthetic", "--out", str(self.folder / "raw"), "--patients", "24",
                    "--image_size", "64", "--paired", "0.9"],
            "pretraining": ["simclr_trainer.py", *places, "--name", "run", *PRETRAIN],
            "classifier": ["run_gpu.py", *places, "--name", "classifier", *PROBE, "--results_dir",
                           str(self.folder / "results"), "--load_state", str(self.pretrained)],
        }  # fmt: skip
        return lines[name]

    @property
    def pretrained(self) -> Path:
        """Checkpoint of the pretraining."""
        return self.folder / "runs" / "run" / "last.ckpt"

    def write_store(self) -> None:
        """Make the store."""
        write_random_store(self.store)


# Every step saves last.ckpt, so that a kill can fall behind any of them.
OFTEN = ("--save_minutes", "0.000001")
PRETRAIN = ("--epochs", "3", "--warmup_epochs", "1", "--lr", "0.1", "--ehr_dim", "8", "--vision_backbone",
            NETWORK, *OFTEN)  # fmt: skip
FINETUNE = ("--protocol", "finetune", "--task", "phenotyping", "--epochs", "3", "--lr", "0.001",
            "--bootstrap", "20", *OFTEN)  # fmt: skip
PROBE = ("--protocol", "lineareval", "--task", "in-hospital-mortality", "--epochs", "6", "--lr", "0.01",
         "--bootstrap", "20", *OFTEN)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A long command.

    words: its command line, from what it reads and the folder that it writes to; again: flags that a restart
    adds; looks: how to compare what it leaves; copied: from the base into the folder, before it starts;
    beside: command lines that run at the same time and are not killed; share: of all kills.
    """

    words: Callable[[Base, Path], list[str]]
    looks: dict[str, Callable[[Path], str]]
    share: int
    again: tuple[str, ...] = ()
    copied: str = ""
    beside: Callable[[Base, Path], list[list[str]]] = field(default=lambda base, folder: [])

    def prepare(self, base: Base, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        if self.copied:
            shutil.copytree(base.folder / self.copied, folder / Path(self.copied).name)


def _training(program: str, *flags: str) -> Callable[[Base, Path], list[str]]:
    def words(base: Base, folder: Path) -> list[str]:
        places = ["--store", str(base.store), "--save_dir", str(folder), "--name", "run"]
        return [program, *places, *SMALL, *flags]

    return words


def _testing(*flags: str) -> Callable[[Base, Path], list[str]]:
    def words(base: Base, folder: Path) -> list[str]:
        started = ["--load_state", str(base.pretrained), "--results_dir", str(folder / "results")]
        return [*_training("run_gpu.py", *flags)(base, folder), *started]

    return words


def _extraction(base: Base, folder: Path) -> list[str]:
    raw = base.folder / "raw"
    places = ["--mimic_iv", str(raw / "mimic-iv"), "--mimic_cxr", str(raw / "mimic-cxr-jpg")]
    return ["-m", "datasets.extract", *places, "--out", str(folder / "store")]


def _evaluation(base: Base, folder: Path) -> list[str]:
    state = base.folder / "runs" / "classifier" / "best.ckpt"
    return [*_testing("--mode", "eval", *PROBE[:4])(base, folder), "--load_state", str(state)]


def _selection(base: Base, folder: Path) -> list[str]:
    tasks = "phenotyping,in-hospital-mortality"
    places = ["--store", str(base.store), "--run_dir", str(folder / "run"), "--task", tasks]
    return ["epoch_evaluation.py", *places, *SMALL, "--epochs", "4"]


def _writer(name: str) -> Callable[[Base, Path], list[str]]:
    return lambda base, folder: ["-m", "tests.faults.writer", str(folder / "results.csv"), name]


RESUME = ("--resume",)
JOBS = {
    "datasets.extract": Job(_extraction, {"store/**/*": same_bytes}, 40),
    "simclr_trainer.py": Job(_training("simclr_trainer.py", *PRETRAIN), TRAINED, 20, RESUME),
    "vicreg_trainer.py": Job(_training("vicreg_trainer.py", *PRETRAIN), TRAINED, 10, RESUME),
    "align_trainer.py": Job(_training("align_trainer.py", *PRETRAIN), TRAINED, 10, RESUME),
    "run_gpu.py finetune": Job(_testing(*FINETUNE), TESTED, 40, RESUME),
    "run_gpu.py lineareval": Job(_testing(*PROBE), TESTED, 25, RESUME),
    "run_gpu.py eval": Job(_evaluation, TESTED, 10, RESUME),
    "epoch_evaluation.py": Job(
        _selection, {"run/results_label*": same_bytes}, 20, copied="runs/run"
    ),
    "3 runs report at once": Job(
        _writer("killed"),
        {"results.csv": same_set_of_rows},
        15,
        beside=lambda base, folder: [_writer(name)(base, folder) for name in ("one", "two")],
    ),
    "evaluation.plots": Job(
        lambda base, folder: ["-m", "evaluation.plots", "curves", str(folder / "run")],
        {"run/*.png": same_bytes},
        10,
        copied="runs/run",
    ),
}  # fmt: skip
