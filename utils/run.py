"""A run: its folder, its seed, its process, and its log."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from utils import distributed
from utils.checkpoint import Origin
from utils.config import decisive_settings, digest, is_resumable, to_dict
from utils.distributed import Process
from utils.files import atomic_write, write_text
from utils.git import commit, git_diff
from utils.lock import hold, release_in
from utils.log import logger
from utils.run_config import LOCK, HasRun, RunConfig
from utils.yaml_files import dump_yaml, read_yaml_mapping

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

RECORDS = ("config.yaml", "environment.yaml", "dirty.patch")  # what the start of a run writes


@dataclass(frozen=True)
class LogText:
    """The text of log.csv, to which a row can be added without reading those before it again."""

    columns: tuple[str, ...]
    text: str

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]]) -> LogText:
        """Return the text of rows, under the columns that any of them has."""
        columns = tuple(dict.fromkeys(key for row in rows for key in row))
        header = dict(zip(columns, columns, strict=True))
        return cls(columns, cls(columns, "").lines([header, *rows]))

    def lines(self, rows: Iterable[Mapping[str, str]]) -> str:
        """Return the lines of rows; a cell that a row does not have is empty."""
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


@dataclass
class Run:
    """A started run. Only the main process writes its files."""

    config: RunConfig
    name: str
    folder: Path
    process: Process = field(default_factory=Process)
    commit: str = ""
    started: str = ""  # ISO format
    data: str = ""  # this and the next two: see `start_run`
    store: str = ""
    sources: Mapping[str, Origin] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)  # those that decide the scores, without seed
    trained_with: tuple[str, ...] = ()  # their hash, after those before a --resume with other settings
    _board: SummaryWriter | None = field(default=None, repr=False)
    _first_step: int = field(default=0, repr=False)
    _log: LogText | None = field(default=None, repr=False)  # log.csv, once this process has written it
    _is_new: bool = field(default=False, repr=False)  # whether its folder was not there before
    _before: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # records of an earlier start

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def origin(self) -> dict[str, object]:
        """What the run's checkpoints say of it, for `checkpoint.read_origin`."""
        return {"settings": digest(self.settings), "store": self.store, "seed": self.seed}

    @property
    def dtype(self) -> torch.dtype:
        """torch.bfloat16 or torch.float32: what --precision means on this device."""
        precision = self.config.precision
        is_half = precision == "bf16" or (precision == "auto" and self.process.device.type == "cuda")
        return torch.bfloat16 if is_half else torch.float32

    def log(self, row: Mapping[str, float]) -> None:
        """Append a row to log.csv atomically, and to TensorBoard at `row["step"]`; new columns come last.

        Rows survive a power cut after `flush_logs`, for which epochs of milliseconds need not wait each.
        """
        if self.process.rank == 0:
            cells = {key: _cell(value) for key, value in row.items()}
            if self._log and cells.keys() <= set(self._log.columns):
                self._log = replace(self._log, text=self._log.text + self._log.lines([cells]))
                write_text(self.folder / "log.csv", self._log.text, flushed=False)
            else:
                self._write_log([*self.read_log(), cells])
            self._write_scalars(row)

    def flush_logs(self) -> None:
        """Write all rows to the disk: a checkpoint of later rows than log.csv has could not be resumed."""
        if self.process.rank == 0:
            if self._log is not None:
                write_text(self.folder / "log.csv", self._log.text)  # also where somebody removed it
            if self._board is not None:
                self._board.flush()

    def read_log(self) -> list[dict[str, str]]:
        """Return the rows of log.csv as text, [] if there are none."""
        path = self.folder / "log.csv"
        if not path.is_file():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def rewind(self, epochs: int, steps: int) -> None:
        """Keep the first `epochs` epochs, with `steps` steps, of log.csv and TensorBoard; remove the rest."""
        if self.process.rank:
            return
        self._first_step = steps + 1  # an epoch is logged at its last step
        rows = self.read_log()
        shift = 1 if rows and int(rows[0]["epoch"]) == 0 else 0  # version 0.2.0 counted from 0
        numbered = [{**row, "epoch": str(int(row["epoch"]) + shift)} for row in rows]
        kept = [row for row in numbered if int(row["epoch"]) <= epochs]
        if kept != rows:
            self._write_log(kept)

    @contextmanager
    def getting_ready(self) -> Iterator[None]:
        """Leave the folder as it was if a ValueError or OSError, such as of a wrong flag, ends the block."""
        try:
            yield
        except (ValueError, OSError):
            if self.process.rank == 0:
                self._put_back()
            raise

    def note_what_was_there(self, is_new: bool) -> None:
        """Remember the records of the folder before they are written; `is_new`: it was not there."""
        paths = [path for path in map(self.folder.joinpath, RECORDS) if path.is_file()]
        self._is_new, self._before = is_new, {path.name: path.read_bytes() for path in paths}

    def _put_back(self) -> None:
        for path in map(self.folder.joinpath, RECORDS):
            if path.name in self._before:
                with atomic_write(path) as partial:
                    partial.write_bytes(self._before[path.name])
            else:
                path.unlink(missing_ok=True)
        if self._is_new:
            release_in(self.folder)
            with suppress(OSError):  # it holds more
                self.folder.rmdir()

    def close(self) -> None:
        """Close the TensorBoard file; `log` opens another one."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write_log(self, rows: list[dict[str, str]]) -> None:
        self._log = LogText.of(rows) if rows else None
        write_text(self.folder / "log.csv", self._log.text if self._log else "", flushed=False)

    def _write_scalars(self, row: Mapping[str, float]) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self._board = SummaryWriter(self.folder / "tb", purge_step=self._first_step or None)
        for key, value in row.items():
            if key != "step" and math.isfinite(value):
                self._board.add_scalar(key, value, int(row["step"]))


def start_run(
    config: HasRun,
    default_name: str,
    data: str = "",
    store: str = "",
    sources: Mapping[str, Origin] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Run:
    """Start a run: its process, seed and precision, and its folder with what it takes to repeat it.

    The folder gets config.yaml, environment.yaml and, if the code differs from its commit, dirty.patch.
    `default_name` is for a run without --name; `data`, for titles of plots, says what it learns from; `store`
    is the SHA-256 of the store's manifest, `sources` what each checkpoint that it starts from says of itself,
    by flag. `settings` are those that decide the scores, by default all of `config` that are not neutral; the
    number format and the settings of the sources are added.

    Raises:
        FileExistsError: The folder holds a run and --resume is not given.
        OSError: The folder cannot be written to.
        ValueError: Another process that lives writes to the folder; or --resume is given, and settings differ
            that are not resumable.
    """
    sources = sources or {}
    process = distributed.setup(config.run.device)
    seed_everything(config.run.seed)
    set_precision(config.run, process.device)
    name = config.run.name or default_name
    folder = config.run.save_dir / name
    is_new = not folder.exists()
    distributed.raise_together(lambda: _take(folder))
    if (folder / "last.ckpt").exists():
        if not config.run.resume:
            raise FileExistsError(
                f"{folder} holds a run; continue it with --resume, or choose another --name"
            )
        _check_resumable(config, folder, {flag: origin.sha256 for flag, origin in sources.items()})
    before = _read_record(folder / "environment.yaml") if config.run.resume else {}
    started = str(before.get("started", "")) or datetime.now(UTC).isoformat(
        timespec="seconds"
    )  # a resumed run keeps its start
    distributed.barrier()  # no rank may write before all have looked
    run = Run(config.run, name, folder, process, commit(), started, data, store, sources)
    run.note_what_was_there(is_new)
    decisive = decisive_settings(config) if settings is None else settings
    run.settings = {
        **{path: value for path, value in decisive.items() if path not in ("run.seed", "run.precision")},
        "run.precision": str(run.dtype).removeprefix("torch."),
        **{flag: origin.settings for flag, origin in sources.items()},
    }
    is_resumed = (folder / "last.ckpt").exists()
    run.trained_with = _trained_with(before if is_resumed else {}, digest(run.settings))
    if len(run.trained_with) > 1:
        run.settings = {**run.settings, "resumed after": list(run.trained_with[:-1])}
    if process.rank == 0:
        _write_records(config, run)
    distributed.barrier()
    logger.info(
        f"run {folder} on {process.device} x {process.world}, {str(run.dtype).removeprefix('torch.')}"
    )
    return run


def _take(folder: Path) -> None:
    """Hold the folder of a run until the command ends, so that a job that starts twice runs once."""
    hold(folder / LOCK, folder, "wait until it has ended, or choose another --name")


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_precision(config: RunConfig, device: torch.device) -> None:
    """Choose the number format of float32 products, and how kernels are chosen.

    On a GPU, products of matrices and of convolutions are TF32 (10 bits), but float32 under --precision
    float32. Those of a recurrence are always float32: its steps wait for each other, not for the products.
    """
    if device.type == "cuda":
        is_exact = config.precision == "float32"
        torch.set_float32_matmul_precision("highest" if is_exact else "high")
        cudnn: Any = torch.backends.cudnn  # torch's stubs lack these settings
        cudnn.conv.fp32_precision = "ieee" if is_exact else "tf32"
        cudnn.rnn.fp32_precision = "ieee"  # reading cudnn.allow_tf32 raises from here on: the two differ
        cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = False  # all of it is written before it is read


def environment(run: Run) -> dict[str, object]:
    """Return what environment.yaml holds: versions, machine, commit and data."""
    is_cuda = run.process.device.type == "cuda"
    return {
        "started": run.started,
        "commit": run.commit,
        "data": run.data,
        "store": run.store,
        "settings": digest(run.settings),
        "trained_with": list(run.trained_with),
        "sources": {flag: origin.sha256 for flag, origin in run.sources.items()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if is_cuda else run.process.device.type,
        "cuda": torch.version.cuda if is_cuda else None,
        "processes": run.process.world,
        "threads": torch.get_num_threads(),
        "packages": _packages(),
    }


def _packages() -> dict[str, str]:
    """Return {name: version} of what is installed. Only heads are read, as whole descriptions are long."""
    texts = (package.read_text("METADATA") or package.read_text("PKG-INFO") for package in distributions())
    fields = re.compile(r"^(Name|Version): *(.*)$", re.M)
    heads = [dict(fields.findall((text or "").partition("\n\n")[0])) for text in texts]
    return dict(sorted((head["Name"].lower(), head["Version"]) for head in heads if len(head) == 2))


def _write_records(config: HasRun, run: Run) -> None:
    """Write config.yaml, environment.yaml and dirty.patch; print what differs if a run is resumed."""
    is_resumed = (run.folder / "last.ckpt").exists()
    if not is_resumed:
        run.rewind(0, 0)
    for name, record in (("config.yaml", to_dict(config)), ("environment.yaml", environment(run))):
        path = run.folder / name
        if is_resumed and path.is_file():
            for setting, change in _differences(_read_record(path), record):
                logger.info(f"resumed with another setting: {setting} {change}")
        write_text(path, dump_yaml(record))
    if run.commit.endswith("+"):
        write_text(run.folder / "dirty.patch", git_diff())
    else:
        (run.folder / "dirty.patch").unlink(missing_ok=True)


def _trained_with(before: Mapping[str, object], now: str) -> tuple[str, ...]:
    """Return the hashes of the settings that a run had, one after the other; `before` is its record."""
    hashes = before.get("trained_with")
    earlier = tuple(map(str, hashes)) if isinstance(hashes, list) else ()
    return earlier if earlier[-1:] == (now,) else (*earlier, now)


def _check_resumable(config: HasRun, folder: Path, sources: Mapping[str, str]) -> None:
    """Refuse to resume if a setting that is not resumable, or a checkpoint to start from, differs."""
    now = to_dict(config)
    differences = list(_differences(_read_record(folder / "config.yaml") or now, now))
    before = _read_record(folder / "environment.yaml").get("sources", {})
    differences += _differences(before, dict(sources), "sources.")
    refused = [f"{path} {change}" for path, change in differences if not is_resumable(config, path)]
    if refused:
        raise ValueError(
            f"{folder} began with other settings, and --resume would mix the two: {'; '.join(refused)}; use "
            "the settings of the run, or choose another --name"
        )


def _read_record(path: Path) -> dict[str, object]:
    return read_yaml_mapping(path) if path.is_file() else {}


def _differences(old: object, new: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting that differs, such as ("optim.lr", "0.1 -> 0.2"), except run.resume."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new and prefix != "run.resume.":
        yield prefix.rstrip("."), f"{old} -> {new}"


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
