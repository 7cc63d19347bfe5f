"""What a training shows while it runs: a progress bar, and a line for each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from tqdm import tqdm

from training.batches import B
from training.metrics_accumulator import StepMetrics


def progress_bar(stream: Iterable[B], epoch: int, epochs: int, step: int, steps: int, rank: int) -> tqdm:
    """Show the progress of an epoch on rank 0 of a terminal; nothing in a job's log file."""
    return tqdm(
        stream,
        f"epoch {epoch + 1}/{epochs}",
        steps,
        leave=False,
        disable=True if rank else None,  # None: only where the output is no terminal
        initial=step,
        unit="batch",
    )


def describe_step(metrics: StepMetrics, steps: int, seconds: float) -> str:
    """Describe the loss of a step, and the speed of the `steps` so far.

    >>> describe_step(StepMetrics(0, 0, 0, rows=8, count=8, loss=4.0), steps=10, seconds=2.0)
    'loss 0.5000, 40 samples/s'
    """
    speed = metrics.rows * steps / max(seconds, 1e-9)
    return f"loss {metrics.loss / max(metrics.count, 1):.4f}, {speed:.0f} samples/s"


def describe_epoch(row: Mapping[str, float], columns: Sequence[str], epochs: int, is_best: bool) -> str:
    """Describe an epoch by some columns of its row of log.csv."""
    epoch = int(row["epoch"])
    time_left = timedelta(seconds=round(row["seconds"] * (epochs - epoch)))
    return (
        f"epoch {epoch}/{epochs}  "
        + "  ".join(f"{name} {row[name]:.4f}" for name in dict.fromkeys(columns))
        + f"  lr {row['lr']:.2e}  {row['samples_per_second']:.0f} samples/s  ETA {time_left}"
        + ("  best" if is_best else "")
    )
