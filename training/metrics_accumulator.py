"""Metrics of training steps: reduced over ranks, copied to the CPU without waiting, summed over an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from training.divergence import NotFinite
from utils.device import to_device

ROWS, COUNT, LOSS = 3, 4, 5  # entries of a tensor of step metrics
MAX_LISTED_SAMPLES = 20


@dataclass(frozen=True)
class StepMetrics:
    """First entries of a tensor of step metrics, over all ranks; the objective's other terms follow.

    terminate, interrupt, save: how many ranks received SIGTERM, SIGINT, want to save; loss: times count.
    """

    terminate: float
    interrupt: float
    save: float
    rows: float
    count: float
    loss: float


def reduce_metrics(
    terms: Mapping[str, Tensor], rows: int, flags: Sequence[bool], device: torch.device, world: int
) -> tuple[Tensor, Tensor]:
    """Sum the metrics of a step over all ranks, without waiting for the device.

    `flags`: whether this rank received SIGTERM, received SIGINT, wants to save. Returns the step metrics
    (float64), whose terms are multiplied by each rank's count before they are summed; and the factor of this
    rank's loss, `local_count * world / global_count`.
    """
    head = to_device(torch.tensor([*flags, rows, rows], dtype=torch.float64), device)
    if "count" in terms:
        head[COUNT] = terms["count"]
    values = [torch.as_tensor(terms[name], device=device).detach().double() for name in _term_names(terms)]
    metrics = torch.cat([head, torch.stack(values) * head[COUNT]])
    if world > 1:
        dist.all_reduce(metrics)
    count = metrics[COUNT]
    return metrics, head[COUNT] * world / torch.where(count > 0, count, 1.0)


def _term_names(terms: Mapping[str, Tensor]) -> list[str]:
    return ["loss", *(name for name in terms if name not in ("loss", "count"))]


class AsyncMetrics:
    """Metrics of a step and its samples `row` [b], copied to the CPU without stalling the GPU."""

    def __init__(self, metrics: Tensor, row: Tensor, step: int) -> None:
        self.row = row
        self.step = step
        self._host = metrics.to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event() if metrics.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read_and_check_finite(self, epoch: int, split: str) -> StepMetrics:
        """Return the numbers once copied; NotFinite, listing the samples, if the loss is not finite.

        `epoch` counts from 0; the message counts from 1, as log.csv does.
        """
        if self._copied is not None:
            self._copied.synchronize()
        numbers = StepMetrics(*self._host[: LOSS + 1].tolist())
        if not math.isfinite(numbers.loss):
            raise NotFinite(
                f"the loss became {numbers.loss} at epoch {epoch + 1}, step {self.step}, on the {split} "
                f"samples {list_samples(self.row.tolist())}; the checkpoints hold the state before. "
                "Try a lower --lr, --clip 1 or --precision float32, and look at these samples"
            )
        return numbers


class MetricSums:
    """Sums of step metrics over an epoch, on the device."""

    def __init__(self, sums: Mapping[str, float], device: torch.device) -> None:
        self.names = list(sums)
        self.total = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)

    def add(self, metrics: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Add a step's metrics; ValueError if its `terms` have other names than those of the steps before."""
        names = ["rows", "count", *_term_names(terms)]
        if not self.names:
            self.names = names
            self.total = torch.zeros_like(metrics[ROWS:])
        if names != self.names:
            raise ValueError(
                f"the objective returned the terms {names[2:]} after {self.names[2:]}; return the same terms "
                "for every batch"
            )
        self.total += metrics[ROWS:]

    def to_dict(self) -> dict[str, float]:
        """Return {"rows", "count", term: sum}; waits for the device."""
        return dict(zip(self.names, self.total.tolist(), strict=True))


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Divide the sums of the terms by the count; NaN if nothing was counted.

    >>> means({"rows": 4, "count": 2, "loss": 3.0})
    {'loss': 1.5}
    """
    count = sums.get("count", 0) or math.nan
    return {name: value / count for name, value in sums.items() if name not in ("rows", "count")}


def list_samples(rows: Sequence[int]) -> str:
    """List the first samples, and say how many more there are.

    >>> list_samples([3, 5])
    '3, 5'
    """
    more = f" and {len(rows) - MAX_LISTED_SAMPLES} more" if len(rows) > MAX_LISTED_SAMPLES else ""
    return ", ".join(map(str, rows[:MAX_LISTED_SAMPLES])) + more
