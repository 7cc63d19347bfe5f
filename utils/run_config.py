"""The settings of a run: where it writes, and how it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from utils.config import neutral, resumable

LOCK = ".lock"  # file in the folder of a run while a process writes there
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes, and how it computes."""

    synonyms: ClassVar = {
        "run_name": "name",
        "output_dir": "save_dir",
        "out_dir": "save_dir",
        "out": "save_dir",
        "log_dir": "save_dir",
        "random_state": "seed",
        "gpu": "device",
        "cuda": "device",
        "continue": "resume",
        "fp16": "precision",
        "amp": "precision",
    }

    name: str = neutral("")
    """Folder of the run inside --save_dir, and prefix of the names of its checkpoints; empty: derived from
    the other settings."""
    save_dir: Path = neutral(Path("runs"))
    """Folder that holds one folder per run."""
    seed: int = 0
    """Seed of all random numbers: weights, order of samples, image augmentation, dropout."""
    device: Device = neutral("auto")
    """Where to compute; auto uses a CUDA GPU if there is one, and mps is that of an Apple machine. Start with
    torchrun for several GPUs."""
    resume: bool = neutral(False)
    """Continue from last.ckpt in the run's folder, at the step where it was saved; start from the beginning
    if there is none yet."""
    save_minutes: float = neutral(10.0)
    """Minutes between writes of last.ckpt within an epoch; 0: none. It is also written after each epoch (of a
    classifier with short ones every five seconds) and on a signal to stop."""
    precision: Literal["auto", "bf16", "float32"] = resumable("auto")
    """Number format of the matrix products in training; auto is bf16 on a GPU and float32 on a CPU."""
    deterministic: bool = neutral(False)
    """Use deterministic GPU kernels only: the same numbers in each run, but slower. On a CPU runs are
    deterministic anyway."""
    compile: bool = neutral(False)
    """Compile the image encoder with torch.compile: some minutes at the start, faster steps afterwards."""

    def __post_init__(self) -> None:
        if self.name and (self.name != Path(self.name).name or self.name == ".."):
            raise ValueError(f"--name {self.name} must be a single folder name; --save_dir says where it is")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be from 0 to 4294967295, not {self.seed}")
        if self.save_minutes < 0:
            raise ValueError(f"--save_minutes must be 0 or more, not {self.save_minutes}")


class HasRun(Protocol):
    """Any config with a RunConfig under `run`."""

    @property
    def run(self) -> RunConfig:
        """Where the run writes, and how it computes."""
