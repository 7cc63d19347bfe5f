"""The settings of an epoch selection, and of the linear probes that rate epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets.data_config import DataConfig
from evaluation.plots.palette import Format
from training.optim import OptimConfig
from utils.run_config import Device


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is trained: AdamW, whose learning rate drops to a tenth after 60 and 80 % of the epochs."""

    epochs: int = 100
    """Epochs over the training features; the one with the best validation score counts."""
    lr: float = 0.01
    """Learning rate at the start."""
    weight_decay: float = 0.01
    """Weight decay per unit of learning rate."""

    def __post_init__(self) -> None:
        self.optim()

    def optim(self) -> OptimConfig:
        """Return the settings of the optimizer."""
        return OptimConfig(lr=self.lr, weight_decay=self.weight_decay, epochs=self.epochs, schedule="step")


@dataclass(frozen=True)
class EpochSelectionConfig:
    """Train a linear probe on every checkpoint of a pretraining; the same command continues if interrupted.

    Writes results_label_<task>.csv, with a row per epoch, and its curve, into the folder of the
    pretraining. If --task names one task, results_label.csv has the same rows in the order of the epochs.
    With --fusion ehr and cxr the files are named results_label_<task>_<fusion>.
    """

    run_dir: Path = Path("runs/simclr-phenotyping-seed0")
    """Folder of the pretraining."""
    task: str = "phenotyping"
    """Task to probe, or several separated by commas: phenotyping,in-hospital-mortality."""
    fusion: Literal["ehr", "cxr", "concatenation"] = "concatenation"
    """Features to probe: of one encoder, or of both concatenated."""
    fusion_layer: Literal[0, 3] = 0
    """Probe the outputs of the encoders (0) or of their projection heads (3)."""
    seed: int = 0
    """Random seed of the probes' weights and of the order of samples."""
    device: Device = "auto"
    """Device to compute on; auto takes a CUDA GPU if there is one, and mps is that of an Apple machine. Start
    with torchrun for several GPUs."""
    format: Format = "png"
    """Format of the curves; pdf and svg are sharp at any size, as publishers ask for."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(batch_size=512))
