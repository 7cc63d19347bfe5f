"""Checkpoints: named parts and the settings that built them, written atomically, read without pickle."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, Self, TypedDict, cast

import torch
from torch import Tensor, nn

from utils.files import atomic_write, sha256
from utils.log import logger
from utils.state_dict import EXTERNAL, is_state_dict_file

FORMAT = "medmod-checkpoint-2"
NAMED_KEYS = 3  # in an error about tensors that do not fit
OLDER_FORMAT = "medmod-checkpoint-1"  # of version 0.2.0, whose epochs count from 0


class TrainingState(TypedDict):
    """What last.ckpt holds in addition, to resume the training."""

    objective: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    optimizer_name: str
    groups: list[list[int]]
    steps: int
    store: str
    progress: dict[str, object]
    finished: NotRequired[bool]  # true if the state of the optimizer was left out at the end


class Parts(TypedDict):
    """The state dicts of a checkpoint by the names of its parts."""

    parts: dict[str, dict[str, Tensor]]
    variables: NotRequired[object]  # what the inputs of the parts are


class Checkpoint(Parts):
    """What `load` returns; epochs count from 1, `origin` is `Run.origin` of the run that wrote it."""

    config: dict[str, object]
    epoch: int
    origin: NotRequired[dict[str, object]]
    subjects: NotRequired[dict[str, Tensor]]
    split_by: NotRequired[str]
    training: NotRequired[TrainingState]


def save(path: Path, content: Mapping[str, object]) -> None:
    """Write `{"parts": {name: state_dict}, "config": plain dict, "epoch": int, ...}` atomically.

    The content may hold tensors, numbers, text, lists and dicts only, so that `load` needs no pickle.

    Raises:
        FullDisk: The disk is full; the file that was there before is intact.
    """
    with atomic_write(Path(path)) as partial, partial.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch's zip writer wraps the OSError of a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def link(existing: Path, path: Path) -> None:
    """Give a checkpoint a second name, atomically; where the file system has no hard links, copy it.

    Raises:
        FullDisk: The disk is full; the file that was there before is intact.
    """
    with atomic_write(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            partial.hardlink_to(existing)
        except OSError:
            shutil.copyfile(existing, partial)


class Writer:
    """Writes checkpoints one after another in a thread, while the training goes on.

    A file is complete, and an error known, after `wait`. Leaving the context waits too.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    def save(self, path: Path, content: Mapping[str, object]) -> None:
        """Copy the content, which may change afterwards, and write it as `save` does."""
        self.write(path, snapshot(content))

    def write(self, path: Path, copied: Mapping[str, object]) -> None:
        """Write a content that is a `snapshot`."""
        self._pending.append(self._thread.submit(save, path, copied))

    def link(self, existing: Path, path: Path) -> None:
        """Give a checkpoint that was given to `save` before a second name."""
        self._pending.append(self._thread.submit(link, existing, path))

    def wait(self) -> None:
        """Wait until all is written; raise the first error."""
        while self._pending:
            self._pending.pop(0).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        for write in self._pending:
            error = write.exception()
            if error is not None and kind is not None:
                logger.error(f"a checkpoint was not written: {error}")  # the error that stops us comes first
            elif error is not None:
                raise error


def snapshot(content: Mapping[str, object]) -> dict[str, object]:
    """Copy nested dicts and lists with their tensors, which go to the CPU; equal tensors stay one."""
    copies: dict[object, Tensor] = {}

    def copy(value: object) -> object:
        if isinstance(value, Tensor):
            key = value.data_ptr(), value.dtype, value.shape, value.stride()
            if key not in copies:
                copies[key] = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
                copies[key].copy_(value.detach(), non_blocking=value.is_cuda)
            return copies[key]
        if isinstance(value, Mapping):
            return {name: copy(entry) for name, entry in value.items()}
        return [copy(entry) for entry in value] if isinstance(value, list) else value

    copied = {name: copy(value) for name, value in content.items()}
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
    return copied


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Return the content of a checkpoint, with its tensors on `device`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, is no checkpoint of ours, or holds pickled code, which is never run.
    """
    return _read(Path(path), device)


def load_lazily(path: Path) -> Checkpoint:
    """Return the content of a checkpoint whose optimizer's state, most of last.ckpt, is not needed.

    A tensor is read from the file when it is used, as the weights are to be checked. Copy those that outlive
    the file, and change nothing: who asks again for the same file gets the same content.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    path = Path(path)
    _check_exists(path)
    return _read_once(path, _version(path))


@lru_cache(maxsize=4)  # a run asks each that it starts from for its origin, its subjects and its weights
def _read_once(path: Path, version: tuple[object, ...]) -> Checkpoint:
    return _read(path, "cpu", lazily=True)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; one that did not change is read once."""
    return _hash_once(path, _version(path))


@lru_cache(maxsize=4)  # both reports of a classifier name its hash
def _hash_once(path: Path, version: tuple[object, ...]) -> str:
    return sha256(path)


def tensor_bytes(content: object) -> int:
    """Return the bytes of all tensors in nested dicts.

    >>> tensor_bytes({"parts": {"ehr": {"weight": torch.zeros(3, 2)}}, "epoch": 1})
    24
    """
    if isinstance(content, Tensor):
        return content.nbytes
    return sum(map(tensor_bytes, content.values())) if isinstance(content, Mapping) else 0


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of the run that wrote it.

    `settings` is equal for runs that differ in their seed alone: it names their settings and their store. It
    is the checkpoint's own hash if the checkpoint does not say. `seed` is None then. `ehr_encoder` names its
    record encoder, or that beside which its image encoder was trained.
    """

    sha256: str
    objective: str
    settings: str
    seed: int | None = None
    ehr_encoder: str = "lstm"


def read_origin(path: Path) -> Origin:
    """Read what a checkpoint says of the run that wrote it; weights from elsewhere say nothing."""
    if is_state_dict_file(path):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file of weights")
        own = sha256(path)
        return Origin(own, EXTERNAL, own[:12])
    content = load_lazily(path)
    own, origin = sha256(path), content.get("origin", {})
    seed, encoders = origin.get("seed"), content["config"].get("encoders")
    return Origin(
        own,
        str(content["config"].get("objective", "")),
        f"{origin['settings']} on {str(origin['store'])[:12]}" if "settings" in origin else own[:12],
        seed if isinstance(seed, int) else None,
        str(encoders.get("ehr_encoder", "lstm")) if isinstance(encoders, dict) else "lstm",
    )


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path}: there is no such checkpoint; the folder {folder} does not exist: run what writes it "
            "first, such as train/simclr.sh or another pretraining for encoders, or give another checkpoint "
            "(by --load_state, or CHECKPOINT before a script)"
        )
    others = sorted(other.name for other in folder.glob("*.ckpt"))
    holds = ", ".join(others[-5:]) or "no .ckpt file"
    if path.is_dir():
        cure = f"give one of its checkpoints, such as {path / others[-1]}" if others else "give a checkpoint"
        raise IsADirectoryError(f"{path} is a folder, which holds {holds}; {cure}")
    raise FileNotFoundError(f"{path}: there is no such checkpoint; {folder} holds {holds}")


def _read(path: Path, device: torch.device | str, lazily: bool = False) -> Checkpoint:
    _check_exists(path)
    version = _version(path)
    is_known = version in _verified
    content = _read_file(path, device, lazily, is_known)
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, OLDER_FORMAT):
        raise ValueError(
            f"{path}: not a checkpoint of this project; it needs parts, config and epoch ({FORMAT})"
        )
    if fault := _content_fault(content, is_known):
        raise ValueError(f"{path}: not a valid checkpoint: {fault}; copy it again, or use another")
    _verified.add(version)
    content["epoch"] += content["format"] == OLDER_FORMAT
    return cast(Checkpoint, content)


_verified: set[tuple[object, ...]] = set()  # files that this process has read whole, and found to be right


def _version(path: Path) -> tuple[object, ...]:
    """Return what changes with the content of a file; copying may set its time of change, but not `ctime`."""
    status = path.stat()
    return path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_file(path: Path, device: torch.device | str, lazily: bool, is_known: bool) -> object:
    """Read a file after comparing the checksums of its records, which torch does not, if none did so yet."""
    damaged = f"{path}: damaged, or not a checkpoint; copy it again, or use another"
    if not zipfile.is_zipfile(path):
        raise ValueError(damaged)
    try:
        with zipfile.ZipFile(path) as file:
            if not is_known and file.testzip() is not None:
                raise ValueError(damaged)
        return torch.load(path, map_location=device, weights_only=True, mmap=lazily)
    except pickle.UnpicklingError:
        rule = "a checkpoint may hold only tensors, numbers, text, lists and dicts"
        raise ValueError(f"{path}: refused, {rule}; nothing in it was run") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # readers raise all kinds of errors on damaged bytes
        raise ValueError(damaged) from error


def _content_fault(content: Mapping[str, object], is_finite: bool = False) -> str:
    """Return what is wrong with a checkpoint, "" if nothing is; `is_finite`: its weights are known to be."""
    parts = content.get("parts")
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        return "its parts must be state dicts"
    weights = [weight for part in parts.values() for weight in part.values()]
    if not all(isinstance(weight, Tensor) and weight.layout == torch.strided for weight in weights):
        return "its weights must be dense tensors"
    if not isinstance(content.get("config"), dict):
        return "its config must be a dict"
    epoch = content.get("epoch")
    if type(epoch) is not int or epoch < 0:
        return "its epoch must be 0 or more"
    if not is_finite and not all(bool(weight.isfinite().all()) for weight in weights):
        return "its weights must be finite"
    return ""


@contextmanager
def error_context(path: Path | str, cure: str) -> Iterator[None]:
    """Prefix a ValueError with the path of a checkpoint, and append what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {cure}") from error


def load_part(module: nn.Module, checkpoint: Parts, name: str) -> str:
    """Load one part into `module` strictly, and return a message such as "ehr: 12/12 tensors".

    Raises:
        ValueError: Keys are missing, unexpected or of another shape; `module` is unchanged.
    """
    parts = checkpoint["parts"]
    if name not in parts:
        raise ValueError(f"the checkpoint has no part {name!r}; it has {', '.join(sorted(parts))}")
    expected = module.state_dict()
    mismatches = _state_dict_mismatches(parts[name], expected)
    if mismatches:
        raise ValueError(f"part {name!r} does not fit: {'; '.join(mismatches)}")
    module.load_state_dict(parts[name])
    return f"{name}: {len(parts[name])}/{len(expected)} tensors"


def _state_dict_mismatches(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    shared = [(key, given[key], expected[key]) for key in expected if key in given]
    mismatches = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "other shape": [
            f"{key} is {list(weight.shape)}, not {list(other.shape)}"
            for key, weight, other in shared
            if weight.shape != other.shape
        ],
        "other type": [
            f"{key} is {weight.dtype}, not {other.dtype}"
            for key, weight, other in shared
            if weight.is_floating_point() != other.is_floating_point()
        ],
    }
    return [f"{kind} {_name_some(keys)}" for kind, keys in mismatches.items() if keys]


def _name_some(keys: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are.

    >>> _name_some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = len(keys) - NAMED_KEYS
    return ", ".join(keys[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")
