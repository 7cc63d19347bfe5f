"""Evaluate or resume faulty checkpoints: predictions are those of the clean one, or it is refused."""

import copy
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.fuzz.cases import CommandResult, Failure, Fault, Workspace, check_result, pick, run
from tests.random_store import write_random_store
from training import classify
from training.classify_config import ClassifyConfig
from utils import checkpoint

SETTINGS = (
    "--protocol", "supervised", "--task", "in-hospital-mortality", "--fusion", "ehr", "--data_pairs",
    "ehr_all", "--batch_size", "16", "--device", "cpu", "--bootstrap", "0", "--lr", "0.001",
)  # fmt: skip
SHAPE = ("--ehr_dim", "8", "--ehr_layers", "1")
Tree = dict[str, object]


class Executes:
    """An object whose pickle would run a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def store(workspace: Workspace) -> Path:
    """Return a store of random stays."""
    folder = workspace.shared / "store"
    return folder if folder.exists() else write_random_store(folder)


def paths(workspace: Workspace, folder: Path) -> tuple[object, ...]:
    """Return the flags of a run on the store that writes into a folder."""
    results = folder / "results"
    return "--store", store(workspace), "--save_dir", folder, "--results_dir", results, "--name", "run"


def train(workspace: Workspace, folder: Path, *flags: object) -> CommandResult:
    """Train a small EHR classifier into a folder."""
    return run(classify.classify, ClassifyConfig, *SETTINGS, *SHAPE, *paths(workspace, folder), *flags)


def evaluate(workspace: Workspace, path: Path, folder: Path) -> CommandResult:
    """Evaluate a checkpoint; write its predictions to folder/run."""
    flags = ("--mode", "eval", "--load_state", path)
    return run(classify.classify, ClassifyConfig, *SETTINGS, *paths(workspace, folder), *flags)


def trained(workspace: Workspace) -> Path:
    """Return the folder of a classifier that was trained for one epoch.

    clean/ has its predictions, and twice/ those after resuming it for a second epoch.
    """
    folder = workspace.shared / "trained"
    if not folder.exists():
        once = train(workspace, folder, "--epochs", 1)
        evaluated = evaluate(workspace, folder / "run" / "best.ckpt", folder / "clean")
        shutil.copytree(folder / "run", folder / "twice" / "run")
        twice = train(workspace, folder / "twice", "--epochs", 2, "--resume")
        if once.status or evaluated.status or twice.status:
            raise Failure(f"the clean run is refused: {once.errors} {evaluated.errors} {twice.errors}")
    return folder


def predictions(folder: Path) -> str:
    """Return the predictions of a run for the test split."""
    return (folder / "run" / "predictions_test.csv").read_text()


# Damage to the file.


def flipped_bits(draw: np.random.Generator, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        damaged[draw.integers(len(damaged))] ^= 1 << int(draw.integers(8))
    return bytes(damaged)


def flipped_bits_of_the_pickle(draw: np.random.Generator, content: bytes) -> bytes:
    """Damage the pickle in a zip file whose checksums are correct."""
    return _zipped_again(
        content, lambda name, part: flipped_bits(draw, part) if name.endswith(".pkl") else part
    )


def flipped_bits_of_a_tensor(draw: np.random.Generator, content: bytes) -> bytes:
    """Damage numbers, so that a checksum of the zip file is wrong."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        big = [info for info in archive.infolist() if "/data/" in info.filename and info.file_size > 16]
    info = pick(draw, big)
    start = content.find(info.filename.encode()) + len(info.filename) + 100
    damaged = bytearray(content)
    damaged[min(start + int(draw.integers(info.file_size)), len(damaged) - 1)] ^= 1 << int(draw.integers(8))
    return bytes(damaged)


def _zipped_again(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def zero_block(draw: np.random.Generator, content: bytes) -> bytes:
    start = int(draw.integers(len(content)))
    length = int(draw.integers(1, 4096))
    return content[:start] + b"\0" * len(content[start : start + length]) + content[start + length :]


def cut_off(draw: np.random.Generator, content: bytes) -> bytes:
    return content[: draw.integers(len(content))]


def not_a_checkpoint(draw: np.random.Generator, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("word/document.xml", "<xml/>")
    return pick(draw, (b"", b"text", draw.bytes(400), archive.getvalue(), bytes(1000)))


DAMAGE: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "flipped bits": flipped_bits,
    "flipped bits of the structure": flipped_bits_of_the_pickle,
    "flipped bits of a tensor": flipped_bits_of_a_tensor,
    "a block of zeros": zero_block,
    "cut off": cut_off,
    "not a checkpoint": not_a_checkpoint,
}


# Other content.

JUNK = (
    None,
    "text",
    7,
    -1,
    2.5,
    float("nan"),
    [],
    {},
    [1, "a"],
    {"a": 1},
    True,
    torch.zeros(3),
    torch.zeros(0),
)


def entries(tree: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the paths to all entries of nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [entry for key, value in items for entry in ((*path, key), *entries(value, (*path, key)))]


def parent(tree: Tree, path: tuple[object, ...]) -> dict:
    """Return the dict or list that holds the entry at a path."""
    for key in path[:-1]:
        tree = tree[key]
    return tree


def other_entry(draw: np.random.Generator, state: Tree) -> None:
    # Draw a depth first, because there are many more weights than settings.
    paths = entries(state)
    depth = int(pick(draw, sorted({len(path) for path in paths})))
    path = pick(draw, [path for path in paths if len(path) == depth])
    if draw.integers(3) == 0 and isinstance(parent(state, path), dict):
        del parent(state, path)[path[-1]]
    else:
        parent(state, path)[path[-1]] = pick(draw, JUNK)


def other_version(draw: np.random.Generator, state: Tree) -> None:
    state["format"] = pick(draw, ("medmod-checkpoint-0", "medmod-checkpoint-3", "", None, 1))


def tensor_paths(state: Tree) -> list[tuple[object, ...]]:
    """Return the paths to the weights."""
    return [
        path
        for path in entries(state["parts"], ("parts",))
        if isinstance(parent(state, path)[path[-1]], torch.Tensor)
    ]


def other_shape(draw: np.random.Generator, state: Tree) -> None:
    path = pick(draw, tensor_paths(state))
    weight = parent(state, path)[path[-1]]
    shapes = (
        weight.unsqueeze(0),
        weight[..., :-1],
        weight.flatten(),
        torch.zeros(()),
        torch.cat([weight, weight]),
    )
    parent(state, path)[path[-1]] = pick(draw, [other for other in shapes if other.shape != weight.shape])


def other_numbers(draw: np.random.Generator, state: Tree) -> None:
    path = pick(draw, tensor_paths(state))
    weight = parent(state, path)[path[-1]].clone()
    weight.view(-1)[int(draw.integers(weight.numel()))] = pick(
        draw, (float("nan"), float("inf"), -float("inf"))
    )
    kinds = (weight, weight.to(torch.complex64), torch.full(weight.shape, True), weight.to_sparse())
    parent(state, path)[path[-1]] = pick(draw, kinds)


CHANGES: dict[str, Callable[[np.random.Generator, Tree], None]] = {
    "another entry": other_entry,
    "other version": other_version,
    "other shape of a weight": other_shape,
    "weights that are no finite numbers": other_numbers,
}


def plain_pickle(draw: np.random.Generator, workspace: Workspace, state: Tree) -> bytes:
    return pickle.dumps(
        pick(draw, (Executes(workspace.marker), {**state, "epoch": Executes(workspace.marker)}))
    )


def pickle_in_a_checkpoint(draw: np.random.Generator, workspace: Workspace, state: Tree) -> bytes:
    path = pick(draw, [path for path in entries(state) if isinstance(parent(state, path), dict)])
    parent(state, path)[path[-1]] = Executes(workspace.marker)
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=bool(draw.integers(2)))
    return file.getvalue()


EXECUTES = {"pickle that runs code": plain_pickle, "checkpoint that runs code": pickle_in_a_checkpoint}


def saved(state: Tree) -> bytes:
    """Serialize a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def attempt(
    content: bytes, draw: np.random.Generator, workspace: Workspace, *, error_alone: bool = False
) -> str:
    """Evaluate a checkpoint, or resume from it, and judge the predictions."""
    source, folder = trained(workspace), workspace.folder / "out"
    if draw.integers(2):
        path = workspace.folder / "faulty.ckpt"
        path.write_bytes(content)
        done, right = evaluate(workspace, path, folder), predictions(source / "clean")
    else:
        shutil.copytree(source / "run", folder / "run")
        path = folder / "run" / "last.ckpt"
        path.write_bytes(content)
        done, right = train(workspace, folder, "--epochs", 2, "--resume"), predictions(source / "twice")
    return check_result(done, lambda: predictions(folder), [] if error_alone else [right], [path.name])


def clean_content(workspace: Workspace) -> bytes:
    """Return last.ckpt of the clean run, which contains all that best.ckpt contains."""
    return (trained(workspace) / "run" / "last.ckpt").read_bytes()


def attempt_damage(
    damage: Callable[[np.random.Generator, bytes], bytes], draw: np.random.Generator, workspace: Workspace
) -> str:
    """Try a damaged file."""
    return attempt(damage(draw, clean_content(workspace)), draw, workspace)


def attempt_change(
    change: Callable[[np.random.Generator, Tree], None], draw: np.random.Generator, workspace: Workspace
) -> str:
    """Try a file with other content."""
    state = copy.deepcopy(checkpoint.load(trained(workspace) / "run" / "last.ckpt"))
    change(draw, state)
    return attempt(saved(state), draw, workspace)


def attempt_execution(
    make: Callable[[np.random.Generator, Workspace, Tree], bytes],
    draw: np.random.Generator,
    workspace: Workspace,
) -> str:
    """Try a file that would run code: it must be refused without running it."""
    state = checkpoint.load(trained(workspace) / "run" / "last.ckpt")
    return attempt(make(draw, workspace, state), draw, workspace, error_alone=True)


def faults() -> list[Fault]:
    """Return all kinds of faulty checkpoints."""
    kinds = ((attempt_damage, DAMAGE), (attempt_change, CHANGES), (attempt_execution, EXECUTES))
    return [
        Fault("checkpoints", name, partial(attempt_kind, make))
        for attempt_kind, makers in kinds
        for name, make in makers.items()
    ]
