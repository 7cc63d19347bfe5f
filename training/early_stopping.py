"""Early stopping: which epoch is the best so far, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from training.optim import check_flag


@dataclass(frozen=True)
class PatienceConfig:
    """How long a training continues without improvement."""

    patience: int = 30
    """Early stopping: epochs in which the monitor may fail to improve by --min_delta; 0 never stops early."""
    min_delta: float = 1e-3
    """Smallest improvement that resets --patience, in the unit of the monitor."""

    def __post_init__(self) -> None:
        check_flag("patience", self.patience, self.patience >= 0, "use 0 or more; 0 never stops early")
        check_flag("min_delta", self.min_delta, self.min_delta >= 0, "use 0 or more")


@dataclass(frozen=True)
class StoppingConfig(PatienceConfig):
    """Which epoch is the best, and when to stop early."""

    monitor: str = "val_loss"
    """Column of log.csv that chooses the best epoch and stops early, for example val_loss, auroc or kappa."""
    mode: Literal["min", "max"] = "min"
    """Whether a small or a large value of the monitor is better."""


@dataclass
class EarlyStopping:
    """The best value and epoch so far; `patience_best` is the last value better by more than --min_delta.

    Epochs count from 0; -1 is the start of the training.
    """

    best: float = math.nan
    best_epoch: int = -1
    patience_best: float = math.nan
    epochs_without_improvement: int = 0
    epochs_since_lr_drop: int = 0
    lr_drops: int = 0
    stopped_early: bool = False

    def start_from(self, value: float) -> None:
        """Take in the value of the start, which epochs must exceed."""
        self.best = self.patience_best = value

    def update_early_stopping(
        self, epoch: int, value: float, config: StoppingConfig, plateau_patience: int
    ) -> bool:
        """Take in an epoch's value; return whether it is the best so far (NaN: only as the first)."""
        sign = 1.0 if config.mode == "max" else -1.0
        is_first = self.best_epoch < 0 and math.isnan(self.best)
        is_best = is_first or _is_better(sign * value, sign * self.best, 0.0)
        if is_best:
            self.best = value
            self.best_epoch = epoch
        if _is_better(sign * value, sign * self.patience_best, config.min_delta):
            self.patience_best = value
            self.epochs_without_improvement = 0
            self.epochs_since_lr_drop = 0
        else:
            self.epochs_without_improvement += 1
            self.epochs_since_lr_drop += 1
        if self.epochs_since_lr_drop > plateau_patience:
            self.lr_drops += 1
            self.epochs_since_lr_drop = 0
        self.stopped_early = 0 < config.patience <= self.epochs_without_improvement
        return is_best


def _is_better(value: float, best: float, min_delta: float) -> bool:
    """Return whether `value` exceeds `best` by more than `min_delta`; any number is better than NaN.

    >>> _is_better(0.5, 0.4, 0.2), _is_better(0.5, math.nan, 0.2), _is_better(math.nan, 0.4, 0.0)
    (False, True, False)
    """
    return not math.isnan(value) and (math.isnan(best) or value - best > min_delta)
