"""The loop: any objective, any batches, one process or many; stops, resumes and logs.

What a loss must be. An objective returns `{"loss": ..., other scalar terms}`: either the mean over the rows
of its own batch, or, where it gathers embeddings over ranks, the loss of the global batch. Both are right
without saying which: the loop multiplies the loss of a rank by (its rows * ranks / rows of all ranks), and
DistributedDataParallel averages gradients over ranks. Means over unequal parts so become the mean over all
rows; a loss that is the same on all ranks keeps its value, as the factors average 1. A mean over something
else than rows, such as known labels, says over how many in the entry "count", which then takes the place of
the rows; the loss must be finite where count is 0. Logged terms are averaged in the same way. A last batch
with fewer rows than ranks is left out of training and validation loss (never out of `predict`).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from models.batch_norm import convert_sync_batch_norm
from training import optim
from training.optim import OptimConfig
from utils import checkpoint, distributed
from utils.checkpoint import Training
from utils.run import Run

TERM, INTERRUPT, SAVE, ROWS, COUNT = range(5)  # a tally's first entries; the objective's terms follow
ROWS_NAMED = 20


class HasRow(Protocol):
    """A batch: `row` [b] names its samples by their place in the split."""

    @property
    def row(self) -> Tensor:
        """[b] int64."""


B_co = TypeVar("B_co", bound=HasRow, covariant=True)
B = TypeVar("B", bound=HasRow)


class Batches(Protocol[B_co]):
    """What the loop asks of data: as many batches an epoch on each rank, the same for the same epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Generator[B_co, None, None]:
        """The batches of an epoch from number `start` on."""


@dataclass(frozen=True)
class FitResult:
    """How a training ended; the best epoch (from 0) is in best.ckpt."""

    best_epoch: int
    best: float
    epochs_run: int
    stopped_early: bool


def fit(
    objective: nn.Module,
    train: Batches[B],
    val: Batches[B] | None,
    config: OptimConfig,
    run: Run,
    *,
    save: Callable[[], dict[str, object]],
    score: Callable[[], dict[str, float]] | None = None,
    keep_every_epoch: bool = False,
    show: Sequence[str] = (),
) -> FitResult:
    """Trains `objective` on the run's device, afresh or from last.ckpt, to the last epoch or an early stop.

    `objective(batch)` gives {"loss": scalar, ...} (see the module's text); it is moved, trained and left in
    place. `save()` gives what a checkpoint holds: {"parts": {name: state_dict}, "config": plain dict}.
    `score()` is called after each epoch, on all ranks, with the objective in eval mode; its numbers join the
    log, and may be the monitor. `show` names columns of the log to print each epoch, beside the training loss
    and the monitor. Writes to the run's folder log.csv, tb, best.ckpt, last.ckpt and, with
    `keep_every_epoch`, <name>_epoch_<NN>.ckpt, from 00 on. SIGTERM and Ctrl-C write last.ckpt and leave with
    status 0 and 130.

    ValueError, naming the samples, if the loss is no longer finite, and if the monitor or last.ckpt does not
    fit; OSError, with the files of before intact, if the disk is full.
    """
    if not len(train):
        raise ValueError("there is no training batch")
    if config.monitor.startswith("val_") and val is None:
        raise ValueError(f"--monitor {config.monitor} needs validation batches, and there are none")
    with _Signals() as signals:
        training = _Training(objective, train, val, config, run, save, score, keep_every_epoch, show, signals)
        training.resume()
        while not training.done:
            training.run_epoch()
    run.close()
    progress = training.progress
    return FitResult(progress.best_epoch, progress.best, progress.epoch, progress.stopped_early)


def predict(function: Callable[[B], Tensor], batches: Batches[B]) -> np.ndarray:
    """[n, K] float32: `function(batch)` [b, K] for every sample, in the order of samples, the same on all
    ranks.

    In inference mode and float32, whatever the training used; the caller sets eval mode. ValueError if the
    batches do not hold each sample once, or, naming the samples, if a number is not finite.
    """
    rows, values = [], []
    with torch.inference_mode(), closing(batches.epoch(0)) as stream:
        for batch in stream:
            if len(batch.row):
                rows.append(batch.row.cpu())
                values.append(function(batch).float())
    place = torch.cat(rows).numpy() if rows else np.zeros(0, np.int64)
    value = torch.cat(values).cpu().numpy() if values else None
    place = distributed.gather_arrays(place)
    value = _gather_values(value)
    if not np.array_equal(np.sort(place), np.arange(len(place))):
        raise ValueError(f"the batches do not hold each of the samples 0 to {place.max()} once")
    ordered = np.empty_like(value)
    ordered[place] = value
    broken = np.flatnonzero(~np.isfinite(ordered).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the model makes NaN or infinity of the samples {_few(broken.tolist())} of {len(ordered)}; "
            "look at these samples, or take an earlier checkpoint"
        )
    return ordered


def _gather_values(value: np.ndarray | None) -> np.ndarray:
    """Parts [n_r, K] of all ranks as one; a rank without a sample knows no K and brings None."""
    width = int(distributed.all_reduce_max(0 if value is None else value.shape[1]))
    if not width:
        raise ValueError("there is no sample to predict")
    return distributed.gather_arrays(np.zeros((0, width), np.float32) if value is None else value)


@dataclass
class _Progress:
    """Where a training stands, as last.ckpt holds it."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = math.nan
    best_epoch: int = -1
    patience_best: float = math.nan
    epochs_without_improvement: int = 0
    epochs_since_lr_drop: int = 0
    lr_drops: int = 0
    stopped_early: bool = False

    def judge(self, value: float, config: OptimConfig) -> bool:
        """Takes in the monitor's value of this epoch; True if it is the best so far. NaN is never an
        improvement.
        """
        best = self.best_epoch < 0 or _improves(value, self.best, 0.0, config.mode)
        if best:
            self.best, self.best_epoch = value, self.epoch
        enough = _improves(value, self.patience_best, config.min_delta, config.mode)
        self.patience_best = value if enough else self.patience_best
        self.epochs_without_improvement, self.epochs_since_lr_drop = (
            (0, 0) if enough else (self.epochs_without_improvement + 1, self.epochs_since_lr_drop + 1)
        )
        if self.epochs_since_lr_drop > config.plateau_patience:
            self.lr_drops, self.epochs_since_lr_drop = self.lr_drops + 1, 0
        self.stopped_early = 0 < config.patience <= self.epochs_without_improvement
        return best

    def next_epoch(self) -> None:
        """Turns to the next epoch, of which nothing is done."""
        self.epoch, self.step, self.seconds, self.sums = self.epoch + 1, 0, 0.0, {}


def _improves(value: float, than: float, by: float, mode: str) -> bool:
    """True if `value` is better than `than` by more than `by`; any number is better than NaN."""
    gain = value - than if mode == "max" else than - value
    return not math.isnan(value) and (math.isnan(than) or gain > by)


_KINDS = {"objective": dict, "optimizer": dict, "optimizer_name": str, "groups": list, "steps": int,
          "progress": dict}  # fmt: skip


def _rules(state: object) -> dict[str, bool]:
    """What a training must hold to be resumed, in words, and whether it does."""
    held = state if isinstance(state, dict) else {}
    if not all(isinstance(held.get(name), kind) for name, kind in _KINDS.items()):
        return {"the state of a training": False}
    begun = asdict(_Progress())
    told = {name: held["progress"].get(name) for name in begun}
    return {
        "a tensor by each of the objective's names": all(
            isinstance(weight, Tensor) for weight in held["objective"].values()
        ),
        "where it stands": all(type(told[name]) is type(begun[name]) for name in begun),
    }


def _refuse(path: Path, rules: Mapping[str, bool]) -> None:
    """ValueError, with the path, if a last.ckpt breaks a rule."""
    for what, is_there in rules.items():
        if not is_there:
            cure = "copy it again, or start afresh under another --name"
            raise ValueError(f"{path}: cannot be resumed, it lacks {what}; {cure}")


def _is_moment(place: object, moment: object, weights: Sequence[Tensor]) -> bool:
    """Is this what an optimiser keeps of the weight at a place: finite, and of its shape or a number?"""
    if not isinstance(place, int) or not 0 <= place < len(weights) or not isinstance(moment, dict):
        return False
    kept = [value for value in moment.values() if value is not None]
    shapes = (torch.Size(), weights[place].shape)
    return all(isinstance(v, Tensor) and v.shape in shapes and bool(v.isfinite().all()) for v in kept)


class _Sums:
    """Sums over an epoch, on the device, of rows, counts and counted terms."""

    def __init__(self, sums: Mapping[str, float], device: torch.device) -> None:
        self.names = list(sums)
        self.total = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)

    def add(self, tally: Tensor, names: list[str]) -> None:
        """Adds one step; ValueError if its terms are others than those of the steps before."""
        if not self.names:
            self.names, self.total = names, torch.zeros_like(tally[ROWS:])
        if names != self.names:
            raise ValueError(
                f"the objective returned {names[2:]} after {self.names[2:]}; the terms must not change"
            )
        self.total += tally[ROWS:]

    def plain(self) -> dict[str, float]:
        """{"rows", "count", term: sum}."""
        return dict(zip(self.names, self.total.tolist(), strict=True))


class _Later:
    """A tally on its way to the host, so that the device works on while the host reads."""

    def __init__(self, tally: Tensor, row: Tensor, step: int) -> None:
        self.host, self.row, self.step = tally.to("cpu", non_blocking=True), row, step
        self.event = torch.cuda.Event() if tally.is_cuda else None
        if self.event is not None:
            self.event.record()

    def read(self) -> list[float]:
        """The numbers; waits for no later work than the tally itself."""
        if self.event is not None:
            self.event.synchronize()
        return self.host.tolist()


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying at once; a second Ctrl-C ends the program where it is.

    One that comes behind the last look at them is sent again to who handled it before.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.at_once = False  # whether a signal is to end what is being done, by InterruptedError
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self.seen if kind is None else ():
            signal.raise_signal(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in self.seen:
            raise KeyboardInterrupt
        self.seen.add(number)
        if self.at_once:
            raise InterruptedError


@dataclass
class _Training:
    """One call of `fit`."""

    objective: nn.Module
    train: Batches[HasRow]
    val: Batches[HasRow] | None
    config: OptimConfig
    run: Run
    save: Callable[[], dict[str, object]]
    score: Callable[[], dict[str, float]] | None
    keep_every_epoch: bool
    show: Sequence[str]
    signals: _Signals

    def __post_init__(self) -> None:
        self.device, self.world = self.run.process.device, self.run.process.world
        if self.world > 1:
            self.objective = convert_sync_batch_norm(self.objective, self.device)
        self.objective.to(self.device)
        self.optimizer = optim.build_optimizer(self.config, self.objective)
        self.progress, self.steps = _Progress(), len(self.train)
        self.sums = _Sums({}, self.device)
        self.pending: _Later | None = None
        self.saved = self.began = time.monotonic()
        if self.run.config.compile:
            compile_parts(self.objective)
        self.model = self._wrap()

    @property
    def done(self) -> bool:
        """No epoch is left, or the early stop has come."""
        return self.progress.stopped_early or self.progress.epoch >= self.config.epochs

    def resume(self) -> None:
        """Takes up last.ckpt if --resume asks for it and it is there; ValueError if it does not fit."""
        path = self.run.folder / "last.ckpt"
        if not self.run.config.resume or not path.is_file():
            return
        found: object = checkpoint.load(path).get("training")
        _refuse(path, _rules(found))
        state = cast(Training, found)
        groups = self.optimizer.state_dict()["param_groups"]
        same = {
            "--optimizer": (state["optimizer_name"], self.config.optimizer),
            "content of --store": (state.get("store"), self.run.store),
            "number of batches an epoch": (state["steps"], self.steps),
            "grouping of weights": (state["groups"], [group["params"] for group in groups]),
        }
        for name, (before, now) in same.items():
            if before != now:
                raise ValueError(
                    f"{path}: {name} was {before} and is {now} now; resume with the settings of the run"
                )
        with checkpoint.error_context(path, "resume with the settings of the run"):
            parts = {"objective": state["objective"]}
            loaded = checkpoint.load_part(self.objective, {"parts": parts}, "objective")
            self.run.info(f"loaded {loaded}")
        self._check_optimizer(path, state["optimizer"])
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        progress: Callable[..., _Progress] = _Progress  # its fields are as asdict wrote them
        self.progress = progress(**state["progress"])
        self.run.rewind(self.progress.epoch, self.progress.epoch * self.steps)
        self.run.info(
            f"resumed {path} at epoch {self.progress.epoch}, step {self.progress.step} of {self.steps}"
        )

    def _check_optimizer(self, path: Path, moments: Mapping[int, object]) -> None:
        """ValueError, with the path, unless an optimiser's state is one of these weights."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        own = all(_is_moment(place, moment, weights) for place, moment in moments.items())
        _refuse(path, {"an optimiser's state of these weights": own})

    def run_epoch(self) -> None:
        """Trains one epoch, or what is left of it, validates, judges, logs and saves."""
        self.began = time.monotonic()
        self.sums = _Sums(self.progress.sums, self.device)
        self.objective.train()
        self._train_steps()
        trained = self._elapsed()
        self.objective.eval()
        judged = self._validate() | self._score()
        row = self._row(judged, trained)
        self._finish(row)
        self._leave(*(distributed.any_flag(self._told(number)) for number in (signal.SIGTERM, signal.SIGINT)))

    def _wrap(self) -> nn.Module:
        if self.world == 1:
            return self.objective
        # Rank 0's weights go to all; a batch without images leaves the image encoder unused; no device_ids: a
        # batch is where it should be, and hours stay on the CPU.
        return DistributedDataParallel(
            self.objective, find_unused_parameters=True, gradient_as_bucket_view=True
        )

    def _train_steps(self) -> None:
        progress = self.progress
        with closing(self.train.epoch(progress.epoch, progress.step)) as stream, self._bar(stream) as bar:
            for batch in bar:
                if self._too_short(batch, progress.step, self.steps):
                    progress.step += 1
                    continue
                tally = self._train_step(batch)
                progress.step += 1
                told, self.pending = self.pending, _Later(tally, batch.row, progress.step - 1)
                if told is not None:
                    self._heed(told, bar)
        if self.pending is not None:
            self._heed(self.pending, bar)
        progress.sums = self.sums.plain()
        if not progress.sums:
            raise ValueError(
                "no batch has a row for each process; start fewer with torchrun --nproc-per-node"
            )

    def _train_step(self, batch: HasRow) -> Tensor:
        """One update of the weights; the step's tally over all ranks."""
        progress, config = self.progress, self.config
        self._seed(progress.step)
        rate = optim.learning_rate(config, progress.epoch, progress.step, self.steps, progress.lr_drops)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with self._autocast():
            terms = self.model(batch)
        tally, share = self._tally(terms, len(batch.row), training=True)
        self.sums.add(tally, _names(terms))
        self.optimizer.zero_grad(set_to_none=True)
        loss = terms["loss"]
        (loss if self.world == 1 else loss * share.to(loss.dtype)).backward()
        if config.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), config.clip)
        self.optimizer.step()
        return tally

    def _tally(self, terms: Mapping[str, Tensor], rows: int, training: bool) -> tuple[Tensor, Tensor]:
        """[TERM, INTERRUPT, SAVE, ROWS, COUNT, counted terms] of all ranks; this rank's share * ranks."""
        due = training and self._save_is_due()
        flags = [self._told(signal.SIGTERM), self._told(signal.SIGINT), due, rows, rows]
        head = torch.tensor(flags, dtype=torch.float64, pin_memory=self.device.type == "cuda")
        head = head.to(self.device, non_blocking=True)
        if "count" in terms:
            head[COUNT] = terms["count"]
        values = [
            torch.as_tensor(terms[name], device=self.device).detach().double() for name in _names(terms)[2:]
        ]
        tally = torch.cat([head, torch.stack(values) * head[COUNT]])
        if self.world > 1:
            dist.all_reduce(tally)
        count = tally[COUNT]
        return tally, head[COUNT] * self.world / torch.where(count > 0, count, 1.0)

    def _heed(self, told: _Later, bar: tqdm) -> None:
        """Reads the tally of a step; saves if it is due, and leaves if a signal asked for it."""
        numbers = self._finite(told, "training")
        bar.set_postfix_str(self._speed(numbers), refresh=False)
        if any(numbers[: SAVE + 1]):
            last = self._finite(self.pending, "training") if self.pending is not None else numbers
            self.pending = None
            self.progress.sums = self.sums.plain()
            self._save_last(self.progress.epoch)
            self._leave(*(bool(numbers[place] or last[place]) for place in (TERM, INTERRUPT)))
        if told is self.pending:
            self.pending = None

    def _finite(self, told: _Later, split: str) -> list[float]:
        numbers = told.read()
        loss = numbers[COUNT + 1]
        if math.isfinite(loss):
            return numbers
        place = f"epoch {self.progress.epoch}, step {told.step}"
        cure = "a lower --lr, --clip 1 or --precision float32, and look at these samples"
        raise ValueError(
            f"the loss became {loss} at {place}, on the {split} samples {_few(told.row.tolist())}; "
            f"the checkpoints hold the state before. Try {cure}"
        )

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """{val_<term>: mean over the validation samples}."""
        self._share_buffers()
        self._seed(self.steps)
        if self.val is None:
            return {}
        sums = _Sums({}, self.device)
        with closing(self.val.epoch(0)) as stream:
            for step, batch in enumerate(stream):
                if not self._too_short(batch, step, len(self.val)):
                    self._val_step(batch, step, sums)
        if self.pending is not None:
            self._finite(self.pending, "validation")
        self.pending = None
        return {f"val_{name}": value for name, value in _means(sums.plain()).items()}

    def _val_step(self, batch: HasRow, step: int, sums: _Sums) -> None:
        with self._autocast():
            terms = self.objective(batch)
        tally, _ = self._tally(terms, len(batch.row), training=False)
        sums.add(tally, _names(terms))
        told, self.pending = self.pending, _Later(tally, batch.row, step)
        numbers = self._finite(told, "validation") if told is not None else [0.0, 0.0]
        if numbers[TERM] or numbers[INTERRUPT]:
            self._save_last(self.progress.epoch)
            self._leave(bool(numbers[TERM]), bool(numbers[INTERRUPT]))

    def _score(self) -> dict[str, float]:
        """What `score` tells. A process alone need not finish it before it heeds a signal."""
        self.signals.at_once = self.world == 1
        try:
            return self.score() if self.score is not None else {}
        except InterruptedError:
            self._save_last(self.progress.epoch)
            self._leave(self._told(signal.SIGTERM), self._told(signal.SIGINT))
            raise
        finally:
            self.signals.at_once = False

    def _row(self, judged: dict[str, float], trained: float) -> dict[str, float]:
        """The epoch's row of log.csv; `trained`: its seconds without validation."""
        progress, seconds = self.progress, self._elapsed()
        rate = optim.learning_rate(self.config, progress.epoch, self.steps - 1, self.steps, progress.lr_drops)
        return {
            "epoch": progress.epoch,
            "step": (progress.epoch + 1) * self.steps,
            "seconds": round(seconds, 3),
            "samples_per_second": round(progress.sums.get("rows", 0) / max(trained, 1e-9), 1),
            "lr": rate,
            **{f"train_{name}": value for name, value in _means(progress.sums).items()},
            **judged,
        }

    def _finish(self, row: dict[str, float]) -> None:
        """Judges the epoch; writes its checkpoints, its log row and last.ckpt."""
        config, progress, epoch = self.config, self.progress, self.progress.epoch
        if config.monitor not in row:
            choices = [
                name for name in row if name not in ("epoch", "step", "seconds", "samples_per_second", "lr")
            ]
            raise ValueError(f"--monitor {config.monitor} is not logged; choose one of {', '.join(choices)}")
        best = progress.judge(distributed.broadcast_value(row[config.monitor]), config)
        if self.keep_every_epoch:
            self._write(self.run.folder / f"{self.run.name}_epoch_{epoch:02d}.ckpt", epoch)
        if best:
            self._write(self.run.folder / "best.ckpt", epoch)
        self.run.log(row)
        self._report(row, best)
        progress.next_epoch()
        self._save_last(epoch)

    def _save_last(self, epoch: int) -> None:
        """last.ckpt: what any checkpoint holds, and all that the training needs to go on at the next step."""
        self.saved, self.progress.seconds = time.monotonic(), self._elapsed() if self.progress.step else 0.0
        self.began = self.saved
        state = self.optimizer.state_dict()
        training = {
            "objective": self.objective.state_dict(),
            "optimizer": state["state"],
            "optimizer_name": self.config.optimizer,
            "groups": [group["params"] for group in state["param_groups"]],
            "steps": self.steps,
            "store": self.run.store,
            "progress": asdict(self.progress),
        }
        self._write(self.run.folder / "last.ckpt", epoch, training)

    def _write(self, path: Path, epoch: int, training: dict[str, object] | None = None) -> None:
        if self.run.process.rank == 0:
            checkpoint.save(
                path, self.save() | {"epoch": epoch} | ({"training": training} if training else {})
            )

    def _leave(self, term: bool, interrupt: bool) -> None:
        """Ends the program if a signal asked for it; last.ckpt is written."""
        if term or interrupt:
            self.run.info(f"stopped; {self.run.folder / 'last.ckpt'} is written, go on with --resume")
            self.run.close()
            distributed.barrier()
            distributed.shutdown()
            raise SystemExit(130 if interrupt else 0)

    def _too_short(self, batch: HasRow, step: int, steps: int) -> bool:
        """True if some rank got no row, which can only be at the last step."""
        return self.world > 1 and step == steps - 1 and distributed.any_flag(len(batch.row) == 0)

    def _share_buffers(self) -> None:
        """Gives rank 0's running statistics to all, so that every rank judges the model that is saved."""
        if self.world > 1:
            for buffer in self.objective.buffers():
                dist.broadcast(buffer, 0)

    def _seed(self, step: int) -> None:
        """Makes what is random in a step a function of seed, epoch, step and rank: no state to save."""
        place = [self.run.seed, self.progress.epoch, step, self.run.process.rank]
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":  # until CUDA starts, `torch.manual_seed` would keep each call
            torch.cuda.manual_seed(seed)

    def _autocast(self) -> torch.autocast:
        dtype = self.run.dtype
        return torch.autocast(self.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)

    def _told(self, number: int) -> bool:
        return number in self.signals.seen

    def _save_is_due(self) -> bool:
        limit = 60 * self.run.config.save_minutes
        return self.run.process.rank == 0 and 0 < limit < time.monotonic() - self.saved

    def _elapsed(self) -> float:
        """Seconds spent on this epoch, before a stop too."""
        return self.progress.seconds + time.monotonic() - self.began

    def _bar(self, stream: Iterable[B]) -> tqdm:
        """A bar on rank 0 of a terminal; a job's log file gets one line an epoch instead."""
        place = f"epoch {self.progress.epoch + 1}/{self.config.epochs}"
        quiet = True if self.run.process.rank else None
        return tqdm(
            stream, place, self.steps, leave=False, disable=quiet, initial=self.progress.step, unit="batch"
        )

    def _speed(self, numbers: list[float]) -> str:
        speed = numbers[ROWS] * self.progress.step / max(self._elapsed(), 1e-9)
        return f"loss {numbers[COUNT + 1] / max(numbers[COUNT], 1):.4f}, {speed:.0f} samples/s"

    def _report(self, row: Mapping[str, float], best: bool) -> None:
        left = timedelta(seconds=round(row["seconds"] * (self.config.epochs - self.progress.epoch - 1)))
        shown = dict.fromkeys(["train_loss", self.config.monitor, *self.show])
        self.run.info(
            f"epoch {self.progress.epoch + 1}/{self.config.epochs}  "
            + "  ".join(f"{name} {row[name]:.4f}" for name in shown)
            + f"  lr {row['lr']:.2e}  {row['samples_per_second']:.0f} samples/s  ETA {left}"
            + ("  best" if best else "")
        )


def _few(rows: list[int]) -> str:
    """The first of many rows, and how many more there are.

    >>> _few([3, 5])
    '3, 5'
    """
    more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
    return ", ".join(map(str, rows[:ROWS_NAMED])) + more


def compile_parts(objective: nn.Module) -> None:
    """Compiles the modules that ask for it by an attribute `compiles`: those whose shapes stay the same.

    A part that reads packed hours would be compiled again for almost every batch.
    """
    for part in objective.modules():
        if getattr(part, "compiles", False):
            part.compile()


def _names(terms: Mapping[str, Tensor]) -> list[str]:
    """Names of a tally's entries from ROWS on: the loss is the first term."""
    return ["rows", "count", "loss", *(name for name in terms if name not in ("loss", "count"))]


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    """Sums of counted terms, divided by the count; NaN if nothing was counted."""
    count = sums.get("count", 0) or math.nan
    return {name: value / count for name, value in sums.items() if name not in ("rows", "count")}
