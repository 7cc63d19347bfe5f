"""Train any objective on any batches, in one process or several; stop early, resume and log.

An objective returns `{"loss": ..., other scalar terms}`: the loss of its own rows, or where it gathers
embeddings over ranks, of the global batch. Each rank's loss is scaled by `local_rows * world_size /
global_rows`, so that DDP's average is the mean over all rows, and a global loss keeps its value. A loss that
is a mean over something else, such as known labels, also returns their number as "count", which replaces the
rows; it must be finite where the count is 0. Logged terms are averaged in the same way. An objective may have
methods `after_backward()`, called when the gradients of a step are summed over ranks and before they are
clipped, and `end_epoch(epoch)`, called after the last step of an epoch, before validation. Training and
validation skip a batch with fewer rows than ranks; `predict` never skips a row.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from models.batch_norm import convert_sync_batch_norm
from training.batches import B, Batches, HasRow
from training.console import describe_epoch, describe_step, progress_bar
from training.early_stopping import StoppingConfig
from training.metrics_accumulator import AsyncMetrics, MetricSums, means, reduce_metrics
from training.optim import OptimConfig, build_optimizer, learning_rate
from training.optimizers import catch_up, late_decay
from training.resume import Progress, ResumableTraining
from training.signals import DeferredSignals
from utils import checkpoint, distributed
from utils.device import float64_device, tiny_numbers_are_zero
from utils.files import check_space
from utils.log import logger
from utils.run import Run

CHECKPOINTS = ("best.ckpt", "last.ckpt")
SECONDS_BETWEEN_SAVES = 5.0  # at least, after epochs: those of a linear layer take milliseconds
NOT_MONITORS = ("epoch", "step", "seconds", "samples_per_second", "lr")  # columns of log.csv


@dataclass(frozen=True)
class FitResult:
    """How a training ended; the best epoch (from 1; 0: the start, if that was rated) is in best.ckpt."""

    best_epoch: int
    best: float
    epochs_run: int
    stopped_early: bool


def fit(
    objective: nn.Module,
    train: Batches[B],
    val: Batches[B] | None,
    optim: OptimConfig,
    stopping: StoppingConfig,
    run: Run,
    *,
    save: Callable[[], dict[str, object]],
    evaluate: Callable[[B], Mapping[str, Tensor]] | None = None,
    score: Callable[[int], dict[str, float]] | None = None,
    keep_epochs: Callable[[int], Collection[int]] | None = None,
    can_be_extended: bool = True,
    leaves_best: bool = True,
    show: Sequence[str] = (),
    lr_scales: Mapping[nn.Parameter, float] | None = None,
    rates_start: bool = False,
) -> FitResult:
    """Train `objective` on the run's device, from the start or from last.ckpt, and write its checkpoints.

    Writes to the run's folder log.csv, tb, best.ckpt, last.ckpt and, with `keep_epochs`,
    <name>_epoch_<NN>.ckpt from 01 on. STOP_SIGNALS and Ctrl-C write last.ckpt and exit with 0 and 130.
    `objective` maps a batch to {"loss": scalar, ...} (see the module's text). `save` returns the content of a
    checkpoint. `evaluate` maps a validation batch to what `objective` would, in eval mode and in float32; it
    gets every validation sample, and so can also collect predictions. `score` is called after each epoch,
    with its number from 1, on all ranks, in eval mode; its numbers are logged and may be the monitor.
    `keep_epochs` says on rank 0, given how many epochs are trained, which epochs' files stay. Unless a
    training `can_be_extended` by more epochs, last.ckpt is without the optimizer's state when it is over, and
    unless it `leaves_best`, best.ckpt is removed then if the file of an epoch stays. `show` names further
    columns of the log to print. `lr_scales` are learning rates of weights as multiples of the schedule's; 1
    for all others. With `rates_start` the weights before the first step are epoch 0, which `score` is also
    called for, and stay the best unless an epoch is better.

    Raises:
        ValueError: The loss is not finite, there are no batches, or the monitor or last.ckpt does not fit.
        OSError: The disk is full, or too full for the checkpoints; the files written before are intact.
    """
    if not len(train):
        raise ValueError("there is no training batch")
    if stopping.monitor.startswith("val_") and val is None:
        raise ValueError(f"--monitor {stopping.monitor} needs validation batches, and there are none")
    with DeferredSignals() as signals, checkpoint.Writer() as writer:
        trainer = _Trainer(
            objective,
            train,
            val,
            optim,
            stopping,
            run,
            save,
            evaluate,
            score,
            keep_epochs,
            can_be_extended,
            show,
            lr_scales,
            signals,
            writer,
        )
        trainer.resume()
        distributed.raise_together(trainer.check_space)
        if rates_start and trainer.at_start:
            trainer.rate_start()
        while not trainer.done:
            trainer.run_epoch()
        writer.wait()
        trainer.remove_epochs()
        if not leaves_best:
            trainer.remove_best()
    run.close()
    distributed.barrier()  # all may now read best.ckpt
    progress = trainer.progress
    return FitResult(progress.best_epoch + 1, progress.best, progress.epoch, progress.stopped_early)


@dataclass
class _Trainer:
    """The state of one call of `fit`; the first fields are its arguments."""

    objective: nn.Module
    train: Batches[HasRow]
    val: Batches[HasRow] | None
    optim: OptimConfig
    stopping: StoppingConfig
    run: Run
    save: Callable[[], dict[str, object]]
    evaluate: Callable[[Any], Mapping[str, Tensor]] | None
    score: Callable[[int], dict[str, float]] | None
    keep_epochs: Callable[[int], Collection[int]] | None
    can_be_extended: bool
    show: Sequence[str]
    lr_scales: Mapping[nn.Parameter, float] | None
    signals: DeferredSignals
    writer: checkpoint.Writer

    def __post_init__(self) -> None:
        self.device = self.run.process.device
        self.world = self.run.process.world
        if self.world > 1:
            self.objective = convert_sync_batch_norm(self.objective, self.device)
        self.objective.to(self.device)
        self.optimizer = build_optimizer(self.optim, self.objective, self.lr_scales)
        self.progress = Progress()
        self.steps = len(self.train)
        self.resumable = ResumableTraining(
            self.objective,
            self.optimizer,
            self.optim.optimizer,
            self.steps,
            self.run.store,
            self.optim.epochs,
        )
        self.metrics_device = float64_device(self.device)
        self.sums = MetricSums({}, self.metrics_device)
        self.pending: AsyncMetrics | None = None  # of the step before, not read yet
        self.epoch_start = time.monotonic()
        self.last_save = self.epoch_start
        self.is_saved = True  # whether last.ckpt holds the last epoch
        self.unsaved_best: dict[str, object] | None = None  # content of best.ckpt
        self.unlinked_best: Path | None = None  # the file of an epoch that best.ckpt is to be a link to
        if self.run.config.compile:
            compile_parts(self.objective)
        self.model = self._wrap()

    def _wrap(self) -> nn.Module:
        if self.world == 1:
            return self.objective
        # Rank 0's weights are sent to all. A batch without images leaves the image encoder unused. Without
        # device_ids, batches stay where they are: on the device, except for hours, which stay on the CPU.
        return DistributedDataParallel(
            self.objective,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # equal on all ranks; see _broadcast_buffers
        )

    @property
    def done(self) -> bool:
        """Whether all epochs are trained or early stopping ended the training."""
        return self.progress.stopped_early or self.progress.epoch >= self.optim.epochs

    @property
    def at_start(self) -> bool:
        """Whether no weight has been updated, and none been rated."""
        return self.progress.epoch == self.progress.step == 0 and math.isnan(self.progress.best)

    def rate_start(self) -> None:
        """Rate the weights before the first step as epoch 0, and write best.ckpt."""
        self.objective.eval()
        row = self._validate() | self._score(0)
        value = distributed.broadcast_value(self._monitored(row))
        self.progress.start_from(value)
        self._write(self.run.folder / "best.ckpt", -1)
        logger.info(f"epoch 0/{self.optim.epochs}  {self.stopping.monitor} {value:.4f}")

    def resume(self) -> None:
        """Continue from last.ckpt if --resume is given and the file exists; ValueError if it does not fit."""
        path = self.run.folder / "last.ckpt"
        if not self.run.config.resume or not path.is_file():
            return
        with self.run.getting_ready():
            self.progress = self.resumable.restore(path)
        self.run.rewind(self.progress.epoch, self.progress.epoch * self.steps)
        logger.info(
            f"resumed {path} at epoch {self.progress.epoch + 1}, step {self.progress.step} of {self.steps}"
        )

    def check_space(self) -> None:
        """Check that the checkpoints of this training fit on the disk; warn if not all epochs' do.

        Raises:
            FullDisk: There is no room for best.ckpt, last.ckpt and its next version.
        """
        folder = self.run.folder
        best = checkpoint.tensor_bytes(self.save())
        moments = 2 if self.optim.optimizer in ("adam", "adamw") else 1  # tensors for each weight
        last = best + moments * checkpoint.tensor_bytes(self.objective.state_dict())
        there = sum(path.stat().st_size for path in map(folder.joinpath, CHECKPOINTS) if path.is_file())
        needed = max(best + 2 * last - there, last)
        check_space(folder, needed, "this training")
        kept = self.keep_epochs or (lambda _: ())
        epochs = len(set(kept(self.optim.epochs)) - set(kept(self.progress.epoch))) * best
        if shutil.disk_usage(folder).free < needed + epochs:
            logger.warning(
                f"{folder} has no room for the checkpoints of all epochs, {epochs / 1e9:.1f} GB; a full disk "
                "stops the training, which then continues with --resume"
            )

    def remove_epochs(self) -> None:
        """Remove the files of the epochs that `keep_epochs` does not name; all later ones must be written."""
        if self.keep_epochs is None or self.run.process.rank:
            return
        done = self.progress.epoch
        for epoch in set(range(1, done + 1)) - set(self.keep_epochs(done)):
            self._epoch_path(epoch).unlink(missing_ok=True)

    def remove_best(self) -> None:
        """Remove best.ckpt, unless `keep_epochs` names no epoch, such as where no probe has a score."""
        keeps = self.keep_epochs or (lambda _: ())
        if self.run.process.rank == 0 and keeps(self.progress.epoch):
            (self.run.folder / "best.ckpt").unlink(missing_ok=True)

    def _epoch_path(self, epoch: int) -> Path:
        """Return the path of the checkpoint of an epoch, from 1 on."""
        return self.run.folder / f"{self.run.name}_epoch_{epoch:02d}.ckpt"

    def run_epoch(self) -> None:
        """Train one epoch, or the rest of it; validate, log and save."""
        self.epoch_start = time.monotonic()
        self.sums = MetricSums(self.progress.sums, self.metrics_device)
        self.objective.train()
        with tiny_numbers_are_zero():
            self._train_epoch()
        getattr(self.objective, "end_epoch", _nothing)(self.progress.epoch)
        train_seconds = self._elapsed()
        self.objective.eval()
        metrics = self._validate() | self._score(self.progress.epoch + 1)
        self._finish_epoch(self._log_row(metrics, train_seconds))
        terminate = distributed.any_flag(self.signals.terminate)
        interrupt = distributed.any_flag(self.signals.interrupt)
        if (terminate or interrupt) and not self.is_saved:
            self._save_last(self.progress.epoch - 1)
        self._exit_if_signalled(terminate, interrupt)

    def _train_epoch(self) -> None:
        progress = self.progress
        rank = self.run.process.rank
        stream = self.train.epoch(progress.epoch, progress.step)
        bar = progress_bar(stream, progress.epoch, self.optim.epochs, progress.step, self.steps, rank)
        with closing(stream), bar, late_decay(self.optimizer):
            for batch in bar:
                if self._is_too_short(batch, progress.step, self.steps):
                    progress.step += 1
                    continue
                metrics = self._train_step(batch)
                previous = self.pending
                self.pending = AsyncMetrics(metrics, batch.row, progress.step)
                progress.step += 1
                if previous is not None:
                    self._save_or_stop(previous, bar)
        if self.pending is not None:
            self._save_or_stop(self.pending, bar)
            self.pending = None
        progress.sums = self.sums.to_dict()
        if not progress.sums:
            raise ValueError(
                "no batch has a row for each process; start fewer processes by torchrun --nproc-per-node"
            )

    def _train_step(self, batch: HasRow) -> Tensor:
        """Update the weights once; return the step's metrics over all ranks."""
        progress = self.progress
        self._seed(progress.step)
        lr = learning_rate(self.optim, progress.epoch, progress.step, self.steps, progress.lr_drops)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        terms = self._terms(self.model, batch)
        metrics, loss_factor = self._reduce(terms, batch, save=self._save_is_due())
        self.sums.add(metrics, terms)
        self.optimizer.zero_grad(set_to_none=True)
        loss = terms["loss"]
        if self.world > 1:
            loss = loss * loss_factor.to(loss.dtype)
        loss.backward()
        getattr(self.objective, "after_backward", _nothing)()
        if self.optim.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.optim.clip)
        self.optimizer.step()
        return metrics

    def _terms(self, model: nn.Module, batch: HasRow) -> Mapping[str, Tensor]:
        """Return the objective's terms for a batch, in the precision of the run."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.dtype is torch.bfloat16):
            terms: Mapping[str, Tensor] = model(batch)
        return terms

    def _reduce(
        self, terms: Mapping[str, Tensor], batch: HasRow, save: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return what `reduce_metrics` makes of the terms of a batch."""
        flags = (self.signals.terminate, self.signals.interrupt, save)
        return reduce_metrics(terms, len(batch.row), flags, self.metrics_device, self.world)

    def _save_or_stop(self, metrics: AsyncMetrics, bar: tqdm) -> None:
        """Read the metrics of a step; save if a rank asked for it, and exit if one received a signal."""
        numbers = metrics.read_and_check_finite(self.progress.epoch, "training")
        bar.set_postfix_str(describe_step(numbers, self.progress.step, self._elapsed()), refresh=False)
        if not (numbers.terminate or numbers.interrupt or numbers.save):
            return
        last = numbers
        if self.pending is not None:
            last = self.pending.read_and_check_finite(self.progress.epoch, "training")
            self.pending = None
        self.progress.sums = self.sums.to_dict()
        self.writer.wait()
        self._save_last(self.progress.epoch)
        self._exit_if_signalled(numbers.terminate or last.terminate, numbers.interrupt or last.interrupt)

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return {val_<term>: mean over the validation samples}."""
        self._broadcast_buffers()
        self._seed(self.steps)
        if self.val is None:
            return {}
        sums = MetricSums({}, self.metrics_device)
        with closing(self.val.epoch(0)) as stream:
            for step, batch in enumerate(stream):
                if not self._is_too_short(batch, step, len(self.val)):
                    self._val_step(batch, step, sums)
                elif self.evaluate is not None and len(batch.row):
                    self.evaluate(batch)  # for the predictions alone
        if self.pending is not None:
            self.pending.read_and_check_finite(self.progress.epoch, "validation")
            self.pending = None
        return {f"val_{name}": value for name, value in means(sums.to_dict()).items()}

    def _val_step(self, batch: HasRow, step: int, sums: MetricSums) -> None:
        terms = self.evaluate(batch) if self.evaluate is not None else self._terms(self.objective, batch)
        metrics, _ = self._reduce(terms, batch)
        sums.add(metrics, terms)
        previous = self.pending
        self.pending = AsyncMetrics(metrics, batch.row, step)
        if previous is None:
            return
        numbers = previous.read_and_check_finite(self.progress.epoch, "validation")
        if numbers.terminate or numbers.interrupt:
            self._save_last(self.progress.epoch)
            self._exit_if_signalled(numbers.terminate, numbers.interrupt)

    def _score(self, epoch: int) -> dict[str, float]:
        """Run `score` for an epoch, 0 for the start. In single-process training a signal may interrupt it."""
        if self.score is None:
            return {}
        try:
            try:
                self.signals.interrupt_now = self.world == 1
                return self.score(epoch)
            finally:
                self.signals.interrupt_now = False
        except Exception:  # of a signal, also on the way out, or of the code that it interrupted
            self.signals.interrupt_now = False
            if not self.signals.has_interrupted:
                raise
            self._save_last(self.progress.epoch)
            self._exit_if_signalled(self.signals.terminate, self.signals.interrupt)
            raise

    def _log_row(self, metrics: Mapping[str, float], train_seconds: float) -> dict[str, float]:
        """Return the epoch's row of log.csv; `metrics` are those of validation and `score`."""
        progress = self.progress
        return {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self.steps,
            "seconds": round(self._elapsed(), 3),
            "samples_per_second": round(progress.sums.get("rows", 0) / max(train_seconds, 1e-9), 1),
            "lr": learning_rate(self.optim, progress.epoch, self.steps - 1, self.steps, progress.lr_drops),
            **{f"train_{name}": value for name, value in means(progress.sums).items()},
            **metrics,
        }

    def _finish_epoch(self, row: Mapping[str, float]) -> None:
        """Update early stopping; write the epoch's checkpoints, its log row and last.ckpt."""
        monitor = self.stopping.monitor
        monitored = self._monitored(row)
        progress = self.progress
        epoch = progress.epoch
        self.writer.wait()  # for the checkpoints of the epoch before, with which a resumed run would go on
        if self.is_saved:
            self.remove_epochs()
        value = distributed.broadcast_value(monitored)
        is_best = progress.update_early_stopping(epoch, value, self.stopping, self.optim.plateau_patience)
        if self.keep_epochs is not None:
            kept = self._epoch_path(epoch + 1)
            self._write(kept, epoch)
            if is_best and self.run.process.rank == 0:
                self.unlinked_best = kept
        self.run.log(row)
        columns = ["train_loss", monitor, *self.show]
        logger.info(describe_epoch(row, columns, self.optim.epochs, is_best))
        progress.next_epoch()
        self.is_saved = False
        is_due = self._is_worth_saving()
        if is_best and self.keep_epochs is None:
            self._keep_best(epoch, is_due)
        if is_due:
            self._save_last(epoch)

    def _monitored(self, row: Mapping[str, float]) -> float:
        """Return the value that chooses the best epoch; ValueError if it is not in the row."""
        monitor = self.stopping.monitor
        if monitor not in row:
            choices = ", ".join(name for name in row if name not in NOT_MONITORS)
            raise ValueError(f"--monitor {monitor} is not logged; choose one of {choices}")
        return row[monitor]

    def _keep_best(self, epoch: int, is_due: bool) -> None:
        """Write best.ckpt, or keep a copy of the weights until last.ckpt is written again."""
        self.unsaved_best = None
        if is_due:
            self._write(self.run.folder / "best.ckpt", epoch)
        elif self.run.process.rank == 0:
            self.unsaved_best = checkpoint.snapshot(self._content(epoch))

    def _save_last(self, epoch: int) -> None:
        """Write last.ckpt: the content of any checkpoint, and the state to continue at the next step.

        best.ckpt and the logs are written before, as far as they are not: a training that goes on from
        last.ckpt takes them as they are.
        """
        self.run.flush_logs()
        if self.unsaved_best is not None:
            self.writer.write(self.run.folder / "best.ckpt", self.unsaved_best)
            self.unsaved_best = None
        if self.unlinked_best is not None:
            self.writer.link(self.unlinked_best, self.run.folder / "best.ckpt")
            self.unlinked_best = None
        self.progress.seconds = self._elapsed() if self.progress.step else 0.0
        self.last_save = time.monotonic()
        self.epoch_start = self.last_save
        self.is_saved = True
        is_over = self.done and not self.can_be_extended
        state = self.resumable.finished if is_over else self.resumable.state
        self._write(self.run.folder / "last.ckpt", epoch, training=state(self.progress))

    def _write(self, path: Path, epoch: int, **more: object) -> None:
        catch_up(self.optimizer)
        if self.run.process.rank == 0:
            self.writer.save(path, self._content(epoch) | more)

    def _content(self, epoch: int) -> dict[str, object]:
        return self.save() | {"epoch": epoch + 1, "origin": self.run.origin}

    def _exit_if_signalled(self, terminate: float, interrupt: float) -> None:
        """Exit after last.ckpt is written, with status 0 after STOP_SIGNALS and 130 after Ctrl-C."""
        if terminate or interrupt:
            self.writer.wait()
            logger.info(f"stopped; {self.run.folder / 'last.ckpt'} is written, continue with --resume")
            self.run.close()
            distributed.barrier()
            distributed.shutdown()
            raise SystemExit(130 if interrupt else 0)

    def _is_too_short(self, batch: HasRow, step: int, steps: int) -> bool:
        """Return whether some rank has no row of this batch; before the last step all or none have one."""
        is_empty = len(batch.row) == 0
        return self.world > 1 and (distributed.any_flag(is_empty) if step == steps - 1 else is_empty)

    def _broadcast_buffers(self) -> None:
        """Send rank 0's running statistics to all ranks, so that they evaluate the model that is saved."""
        if self.world > 1:
            for buffer in self.objective.buffers():
                dist.broadcast(buffer, 0)

    def _seed(self, step: int) -> None:
        """Seed PyTorch with a function of seed, epoch, step and rank, so no generator state is saved."""
        entropy = [self.run.seed, self.progress.epoch, step, self.run.process.rank]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":  # `torch.manual_seed` would queue a call each time until CUDA starts
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _is_worth_saving(self) -> bool:
        """Return whether to write best.ckpt and last.ckpt: not after each epoch, if these take a moment."""
        is_recent = time.monotonic() - self.last_save < SECONDS_BETWEEN_SAVES
        return self.done or not is_recent

    def _save_is_due(self) -> bool:
        limit = 60 * self.run.config.save_minutes
        return self.run.process.rank == 0 and 0 < limit < time.monotonic() - self.last_save

    def _elapsed(self) -> float:
        """Return the seconds spent on this epoch, those before a stop included."""
        return self.progress.seconds + time.monotonic() - self.epoch_start


def _nothing(*_: object) -> None:
    """Stand in for a method that an objective does not have."""


def compile_parts(objective: nn.Module) -> None:
    """Compile modules whose `compiles` is set; packed hours would compile again for almost every batch."""
    for part in objective.modules():
        if getattr(part, "compiles", False):
            part.compile()
