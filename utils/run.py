"""A run: its folder, its seed, its process, and the log of what happened."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import random
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import yaml
from tqdm import tqdm

from utils import config as settings
from utils import distributed
from utils.distributed import Process
from utils.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("*.py", "*.sh")  # new files of these kinds are code; others may be anyone's data
GIT_SECONDS = 10
# Settings that a run may go on with when they differ: by their place in config.yaml. What a checkpoint or a
# store holds is compared by its content.
MAY_CHANGE = re.compile(
    r"run\.(?!seed$)\w+|optim\.\w+|data\.(store|data_device|batch_size)|load_state\w*"
    r"|results_dir|bootstrap|subgroups"
)


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes, and how it computes."""

    name: str = ""
    """Folder of the run inside --save_dir, and start of its checkpoints' names; empty: made from what is
    run."""
    save_dir: Path = Path("runs")
    """Folder that holds one folder a run."""
    seed: int = 0
    """Start of every random number: weights, order of samples, image views, dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one. Start with torchrun for several GPUs."""
    resume: bool = False
    """Go on from last.ckpt of the run's folder, at the very step; starts afresh if there is none yet."""
    save_minutes: float = 10.0
    """Minutes between writes of last.ckpt within an epoch; it is also written after each epoch and on a
    signal to stop; 0 leaves only those."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Number format of the training's matrix products; auto is bf16 on a GPU and float32 on a CPU."""
    deterministic: bool = False
    """Choose only repeatable GPU kernels: the same numbers each time, more slowly. A CPU repeats itself
    anyway."""
    compile: bool = False
    """Compile the image encoder with torch.compile: some minutes at the start, faster steps after."""

    def __post_init__(self) -> None:
        """ValueError for a name that is not one folder, or a value that cannot work."""
        if self.name and (self.name != Path(self.name).name or self.name == ".."):
            raise ValueError(f"--name {self.name} must be one folder name; --save_dir says where it stands")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be from 0 to 4294967295, not {self.seed}")
        if self.save_minutes < 0:
            raise ValueError(f"--save_minutes must be 0 or more, not {self.save_minutes}")


class HasRun(Protocol):
    """Any config with a RunConfig under `run`."""

    @property
    def run(self) -> RunConfig:
        """Where the run writes, and how it computes."""


@dataclass
class Run:
    """A started run. `info` and `log` write on the main process only."""

    config: RunConfig
    name: str
    folder: Path
    process: Process = field(default_factory=Process)
    commit: str = ""
    started: str = ""
    data: str = ""
    store: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    _board: SummaryWriter | None = field(default=None, repr=False)
    _first_step: int = field(default=0, repr=False)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def dtype(self) -> torch.dtype:
        """torch.bfloat16 or torch.float32, what --precision means on this device."""
        wanted = self.config.precision
        half = wanted == "bf16" or (wanted == "auto" and self.process.device.type == "cuda")
        return torch.bfloat16 if half else torch.float32

    def info(self, text: str) -> None:
        """Prints a line, beside the progress bar."""
        if self.process.rank == 0:
            tqdm.write(text)

    def log(self, row: Mapping[str, float]) -> None:
        """Adds a row to log.csv, whole, and to TensorBoard at `row["step"]`; new columns join at the end."""
        if self.process.rank:
            return
        rows = [*self.read_log(), {key: _cell(value) for key, value in row.items()}]
        self._write_log(rows)
        self._scalars(row)

    def read_log(self) -> list[dict[str, str]]:
        """The rows of log.csv as text, [] before the first."""
        path = self.folder / "log.csv"
        if not path.is_file():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def rewind(self, epoch: int, step: int) -> None:
        """Forgets what log.csv and TensorBoard hold of `epoch` (from 0) and later; `step` is its first
        step.
        """
        if self.process.rank:
            return
        self._first_step = step + 1  # an epoch is logged at its last step
        rows = self.read_log()
        kept = [row for row in rows if int(row["epoch"]) < epoch]
        if len(kept) < len(rows):
            self._write_log(kept)

    def close(self) -> None:
        """Ends TensorBoard's file; `log` opens another one."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write_log(self, rows: list[dict[str, str]]) -> None:
        columns = dict.fromkeys(key for row in rows for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "log.csv", text.getvalue() if rows else "")

    def _scalars(self, row: Mapping[str, float]) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # a second's import that no other path needs

            self._board = SummaryWriter(self.folder / "tb", purge_step=self._first_step or None)
        for key, value in row.items():
            if key != "step" and math.isfinite(value):
                self._board.add_scalar(key, value, int(row["step"]))
        self._board.flush()


def start_run(
    config: HasRun, describe: str, data: str = "", store: str = "", sources: Mapping[str, str] | None = None
) -> Run:
    """Starts a run: its process, seeds and number formats, and its folder with what it takes to repeat it.

    The folder gets config.yaml, environment.yaml and, if the code differs from its commit, dirty.patch.

    `config`: a dataclass with a RunConfig under `run`, written whole to config.yaml. `describe` names the run
    where --name does not, for example "simclr" or "phenotyping-finetune-ehr"; `data` says what it learns
    from, for the titles of its plots, `store` is the hash of that, and `sources` are those of the checkpoints
    that it begins with, by flag.

    Raises:
        FileExistsError: the folder holds a run already and --resume is not given.
        ValueError: --resume is, and the run began with other settings than a run may go on with.
    """
    chosen = config.run
    process = distributed.setup(chosen.device)
    set_numbers(chosen, process)
    name = chosen.name or describe
    folder = chosen.save_dir / name
    if (folder / "last.ckpt").exists():
        if not chosen.resume:
            raise FileExistsError(
                f"{folder} holds a run; continue it with --resume, or choose another --name"
            )
        _check_same(config, folder, sources or {})
    # A run that goes on reports as the one that began.
    began = _record(folder / "environment.yaml").get("started", "") if chosen.resume else ""
    started = str(began) or datetime.now(UTC).isoformat(timespec="seconds")
    distributed.barrier()  # no rank may write before all have looked
    run = Run(chosen, name, folder, process, commit(), started, data, store, sources or {})
    if process.rank == 0:
        _open_folder(config, run)
    distributed.barrier()
    run.info(f"run {folder} on {process.device} x {process.world}, {str(run.dtype).removeprefix('torch.')}")
    return run


def set_numbers(config: RunConfig, process: Process) -> None:
    """Seeds Python, NumPy and PyTorch, and chooses the number formats and kernels of the device."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    if process.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32; float32 products that bf16 leaves over
        torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True, warn_only=True)


def commit(place: Path = ROOT) -> str:
    """The code's git commit, short, with "+" if `changes` has any; "unknown" outside a repository.

    >>> bool(commit())
    True
    """
    head = _git(place, "rev-parse", "--short=12", "HEAD").strip()
    return (head or "unknown") + ("+" if head and changes(place) else "")


def changes(place: Path = ROOT) -> str:
    """By what the code differs from its commit, new scripts among it, as `git apply` takes it; "" if by
    nothing, or outside a repository.
    """
    new = _git(place, "ls-files", "--others", "--exclude-standard", "-z", "--", *SCRIPTS).split("\0")
    made = (_git(place, "diff", "--no-index", "--binary", "--", os.devnull, name) for name in new if name)
    return _git(place, "diff", "--binary", "HEAD", "--", ".") + "".join(made)


def _git(place: Path, *words: str) -> str:
    """What git says, "" where it has nothing to say or is not there."""
    try:
        told = subprocess.run(["git", *words], cwd=place, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.decode(errors="replace")


def environment(run: Run) -> dict[str, object]:
    """Versions, machine, commit and what the data are, as written to environment.yaml."""
    cuda = run.process.device.type == "cuda"
    return {
        "started": run.started,
        "commit": run.commit,
        "data": run.data,
        "store": run.store,
        "sources": dict(run.sources),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "processes": run.process.world,
        "threads": torch.get_num_threads(),
        "packages": dict(sorted((package.name.lower(), package.version) for package in distributions())),
    }


def _open_folder(config: HasRun, run: Run) -> None:
    """Writes what the run is; a run that goes on tells what differs from how it began."""
    files = {
        run.folder / "config.yaml": settings.to_yaml(config),
        run.folder / "environment.yaml": yaml.safe_dump(environment(run), sort_keys=False),
    }
    if not (run.folder / "last.ckpt").exists():
        run.rewind(0, 0)
    else:
        for path in (path for path in files if path.is_file()):
            for change in _changes(settings.read_yaml_mapping(path), yaml.safe_load(files[path])):
                run.info(f"resumed with another setting: {change}")
    for path, text in files.items():
        write_text(path, text)
    patch, differs = run.folder / "dirty.patch", changes()
    if differs:
        write_text(patch, differs)
    else:
        patch.unlink(missing_ok=True)


def _check_same(config: HasRun, folder: Path, sources: Mapping[str, str]) -> None:
    """ValueError if a run that goes on began with other settings, but for those that may change."""
    now = yaml.safe_load(settings.to_yaml(config)) | {"sources": dict(sources)}
    began_with = _record(folder / "environment.yaml").get("sources", {})
    before = (_record(folder / "config.yaml") or now) | {"sources": began_with}
    differ = [line for line in _changes(before, now) if not MAY_CHANGE.fullmatch(line.split(" ", 1)[0])]
    if differ:
        raise ValueError(
            f"{folder} began with other settings, and --resume would mix the two: {'; '.join(differ)}; give "
            "those of the run, or choose another --name"
        )


def _record(path: Path) -> dict[str, object]:
    """What a run wrote down, {} if it did not."""
    return settings.read_yaml_mapping(path) if path.is_file() else {}


def _changes(old: object, new: object, place: str = "") -> list[str]:
    """ "optim.lr 0.1 -> 0.2" for each setting that differs, but run.resume."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line for key in {**old, **new} for line in _changes(old.get(key), new.get(key), f"{place}.{key}")
        ]
    differs = old != new and place != ".run.resume"
    return [f"{place.lstrip('.')} {old} -> {new}"] if differs else []


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
