"""What last.ckpt holds for a training to continue at its next step, and the checks before it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.early_stopping import EarlyStopping
from utils import checkpoint
from utils.checkpoint import TrainingState
from utils.log import logger

CURE = "resume with the settings of the run"
STATE_TYPES = {
    "objective": dict,
    "optimizer": dict,
    "optimizer_name": str,
    "groups": list,
    "steps": int,
    "progress": dict,
}


@dataclass
class Progress(EarlyStopping):
    """The next epoch and step to train; seconds and metric sums of this epoch before the last save."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.step = 0
        self.seconds = 0.0
        self.sums = {}


@dataclass(frozen=True)
class ResumableTraining:
    """What must stay the same to resume, and when the training ends.

    `steps`: batches in an epoch, `store`: hash of the data, `epochs`: epochs to train.
    """

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    optimizer_name: str
    steps: int
    store: str
    epochs: int

    def state(self, progress: Progress) -> TrainingState:
        """Return the state to continue from."""
        state = self.optimizer.state_dict()
        return {
            "objective": self.objective.state_dict(),
            "optimizer": state["state"],
            "optimizer_name": self.optimizer_name,
            "groups": [group["params"] for group in state["param_groups"]],
            "steps": self.steps,
            "store": self.store,
            "progress": asdict(progress),
        }

    def finished(self, progress: Progress) -> TrainingState:
        """Return the state of a training that is over, without that of the optimizer, its larger part."""
        return {**self.state(progress), "optimizer": {}, "finished": True}

    def restore(self, path: Path) -> Progress:
        """Load last.ckpt and return the progress; ValueError if it is invalid or has other settings."""
        state = _resume_checks(path, checkpoint.load(path).get("training"))
        param_groups = self.optimizer.state_dict()["param_groups"]
        groups = [group["params"] for group in param_groups]
        _require_same(path, "--optimizer", state["optimizer_name"], self.optimizer_name)
        _require_same(path, "content of --store", state.get("store"), self.store)
        _require_same(path, "number of batches an epoch", state["steps"], self.steps)
        _require_same(path, "grouping of weights", state["groups"], groups)
        progress = Progress(**cast(dict[str, Any], state["progress"]))
        if state.get("finished") and progress.epoch < self.epochs and not progress.stopped_early:
            raise ValueError(
                f"{path}: --epochs {self.epochs}: the training ended after {progress.epoch} epochs, and "
                "--keep best left out the state of its optimizer, without which it cannot go on; ask for "
                f"{progress.epoch}, or train under another --name, with --keep 1 if epochs may be added later"
            )
        with checkpoint.error_context(path, CURE):
            parts: checkpoint.Parts = {"parts": {"objective": state["objective"]}}
            logger.info(f"loaded {checkpoint.load_part(self.objective, parts, 'objective')}")
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for index, entry in state["optimizer"].items():
            _require(path, _is_valid_optimizer_state(index, entry, weights), "the state of the optimizer")
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": param_groups})
        _lay_out_as_weights(self.optimizer)
        return progress


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Copy the state of each weight into the weight's order in memory.

    Fused optimizers on a CPU pair numbers by their place in memory, and a file keeps the order of its writer.
    """
    for weight, entry in optimizer.state.items():
        for name, value in entry.items():
            if value is not None and value.shape == weight.shape and value.stride() != weight.stride():
                entry[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _resume_checks(path: Path, state: object) -> TrainingState:
    """Check the types in a training state; ValueError, with the path, if one is wrong."""
    _require(path, isinstance(state, dict), "the state of the training")
    state = cast(dict[str, Any], state)
    for name, kind in STATE_TYPES.items():
        _require(path, isinstance(state.get(name), kind), f"the entry {name!r} of the training")
    tensors = all(isinstance(weight, Tensor) for weight in state["objective"].values())
    _require(path, tensors, "a weight of the objective")
    expected = {name: type(value) for name, value in asdict(Progress()).items()}
    actual = {name: type(value) for name, value in state["progress"].items()}
    _require(path, actual == expected, "the progress of the training")
    return cast(TrainingState, state)


def _require(path: Path, valid: bool, what: str) -> None:
    if not valid:
        raise ValueError(
            f"{path}: cannot resume, {what} is missing or invalid; copy the file again, or start a new run "
            "under another --name"
        )


def _require_same(path: Path, what: str, before: object, now: object) -> None:
    if before != now:
        raise ValueError(f"{path}: {what} was {before} and is {now} now; {CURE}")


def _is_valid_optimizer_state(index: object, entry: object, weights: Sequence[Tensor]) -> bool:
    """Return whether an optimizer-state entry is finite and has its parameter's shape, or is a scalar."""
    if not isinstance(index, int) or not 0 <= index < len(weights) or not isinstance(entry, dict):
        return False
    values = [value for value in entry.values() if value is not None]
    shapes = (torch.Size(), weights[index].shape)
    return all(isinstance(v, Tensor) and v.shape in shapes and bool(v.isfinite().all()) for v in values)
