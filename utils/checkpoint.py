"""Checkpoints: named parts and the settings that built them, written whole, read without pickle."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch
from torch import Tensor, nn

from utils.distributed import is_main
from utils.files import atomic_write, sha256

FORMAT = "medmod-checkpoint-1"


class Training(TypedDict):
    """What last.ckpt adds, for the loop to go on."""

    objective: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    optimizer_name: str
    groups: list[list[int]]
    steps: int
    store: str
    progress: dict[str, object]


class Parts(TypedDict):
    """The state dicts of a checkpoint by the names of its parts."""

    parts: dict[str, dict[str, Tensor]]


class Checkpoint(Parts):
    """What `load` gives."""

    config: dict[str, object]
    epoch: int
    subjects: NotRequired[dict[str, Tensor]]
    training: NotRequired[Training]


def save(path: Path, content: Mapping[str, object]) -> None:
    """Writes `{"parts": {name: state_dict}, "config": plain dict, "epoch": int, ...}` atomically.

    Tensors, numbers, text, lists and dicts only, so that `load` needs no pickle. OSError, saying that nothing
    was lost, if the disk is full: the file that stood there before is intact.
    """
    with atomic_write(Path(path)) as partial, partial.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch's zip writer hides the OSError of a full disk behind its own
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The content of a checkpoint, tensors on `device`.

    FileNotFoundError if it is missing; ValueError if it is not one of ours, is torn, or holds pickled code,
    which is never run.
    """
    path = Path(path)
    _check_there(path)
    content = _read(path, device)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: not a checkpoint of this project; it needs parts, config and epoch ({FORMAT})"
        )
    for rule, holds in _rules(content).items():
        if not holds:
            raise ValueError(f"{path}: not a checkpoint of ours: {rule}; copy it again, or take another")
    return cast(Checkpoint, content)


def fingerprint(path: Path) -> str:
    """SHA-256 of a checkpoint's bytes, 64 characters. FileNotFoundError if it is missing."""
    _check_there(path)
    return sha256(path)


def _check_there(path: Path) -> None:
    if path.is_file():
        return
    near = sorted(p.name for p in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    found = f"{path.parent} holds {', '.join(near[-5:])}" if near else f"{path.parent} holds no .ckpt file"
    raise FileNotFoundError(f"{path}: there is no such checkpoint; {found}")


def _read(path: Path, device: torch.device | str) -> object:
    """What a file holds, after the checksums of all its records, which torch itself does not compare."""
    torn = f"{path}: torn or not a checkpoint; copy it again, or take another"
    if not zipfile.is_zipfile(path):
        raise ValueError(torn)
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                raise ValueError(torn)
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        rule = "a checkpoint holds only tensors, numbers, text, lists and dicts"
        raise ValueError(f"{path}: refused, {rule}; nothing in it was run") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make readers raise anything
        raise ValueError(torn) from error


def _rules(content: Mapping[str, object]) -> dict[str, bool]:
    """What a checkpoint must be, in words, and whether it is."""
    parts, config, epoch = (content.get(name) for name in ("parts", "config", "epoch"))
    held = list(parts.values()) if isinstance(parts, dict) else []
    named = isinstance(parts, dict) and all(isinstance(part, dict) for part in held)
    weights = [weight for part in held for weight in part.values()] if named else []
    dense = all(isinstance(weight, Tensor) and weight.layout == torch.strided for weight in weights)
    return {
        "its parts are tensors by their names": named and dense,
        "its config is settings by their names": isinstance(config, dict),
        "its epoch is a number from 0": type(epoch) is int and epoch >= 0,
        "its weights are finite numbers": dense and all(bool(w.isfinite().all()) for w in weights),
    }


@contextmanager
def error_context(path: Path | str, cure: str) -> Iterator[None]:
    """Begin an error about what a checkpoint holds with its path, and end it with the cure."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {cure}") from error


def load_part(module: nn.Module, checkpoint: Parts, name: str) -> str:
    """Loads one part into `module`, strictly; prints and returns what was loaded: "ehr: 12/12 tensors".

    ValueError, listing keys that are missing, unexpected or of another shape, if they do not match one to
    one; `module` is then unchanged.
    """
    parts = checkpoint["parts"]
    if name not in parts:
        raise ValueError(f"the checkpoint has no part {name!r}; it has {', '.join(sorted(parts))}")
    given, wanted = parts[name], module.state_dict()
    faults = _faults(given, wanted)
    if faults:
        raise ValueError(f"part {name!r} does not fit: " + "; ".join(faults))
    module.load_state_dict(given)
    loaded = f"{name}: {len(given)}/{len(wanted)} tensors"
    if is_main():
        print(f"loaded {loaded}")
    return loaded


def _faults(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    both = [key for key in wanted if key in given]
    shapes = [
        f"{key} is {list(given[key].shape)}, not {list(wanted[key].shape)}"
        for key in both
        if given[key].shape != wanted[key].shape
    ]
    numbers = [
        f"{key} is {given[key].dtype}, not {wanted[key].dtype}"
        for key in both
        if given[key].is_floating_point() != wanted[key].is_floating_point()
    ]
    kinds = {
        "missing": [key for key in wanted if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "other shape": shapes,
        "other numbers": numbers,
    }
    return [f"{kind} {', '.join(keys)}" for kind, keys in kinds.items() if keys]
