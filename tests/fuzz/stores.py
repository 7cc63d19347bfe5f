"""Faulty stores: a trained classifier makes the clean predictions on them, or they are refused."""

import csv
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from datasets import verify
from datasets.schema import variables
from datasets.verify import VerifyConfig
from tests.fuzz.cases import CommandResult, Failure, Fault, Workspace, check_result, pick, run
from tests.fuzz.checkpoints import Executes, flipped_bits, predictions, zero_block
from tests.random_store import write_random_store
from tests.stores import refresh_manifests
from training import classify
from training.classify_config import ClassifyConfig

TASK = "in-hospital-mortality"
SETTINGS = ("--protocol", "supervised", "--task", TASK, "--fusion", "concatenation", "--device", "cpu",
            "--bootstrap", "0", "--image_size", "32", "--name", "run")  # fmt: skip
SHAPE = ("--ehr_dim", "8", "--vision_backbone", "test_resnet", "--epochs", "1", "--lr", "0.001")
LISTFILE = f"{TASK}/test_listfile.csv"
FILES = ("hourly.npy", "cxr.npy", "stays.parquet", "cxr.parquet", "normalizer.json", LISTFILE)
Draw = np.random.Generator


def clean(workspace: Workspace) -> Path:
    """Return a clean store."""
    folder = workspace.shared / "random-store"
    return folder if folder.exists() else write_random_store(folder)


def evaluate(workspace: Workspace, store: Path, folder: Path) -> CommandResult:
    """Evaluate the trained classifier on a store; write its predictions to folder/run."""
    paths = ("--store", store, "--save_dir", folder, "--results_dir", folder / "results")
    state = ("--mode", "eval", "--load_state", workspace.shared / "pair" / "run" / "best.ckpt")
    return run(classify.classify, ClassifyConfig, *SETTINGS, *paths, *state)


def right_predictions(workspace: Workspace) -> str:
    """Return the predictions on the clean store; train the classifier first."""
    folder = workspace.shared / "pair"
    if not folder.exists():
        paths = ("--store", clean(workspace), "--save_dir", folder, "--results_dir", folder / "results")
        ends = [run(classify.classify, ClassifyConfig, *SETTINGS, *SHAPE, *paths)]
        ends.append(evaluate(workspace, clean(workspace), folder / "clean"))
        if any(end.status for end in ends):
            raise Failure(f"the clean store is refused: {[end.errors for end in ends]}")
    return predictions(folder / "clean")


def agree(store: Path) -> None:
    """Update the manifest to the files, as the software that wrote them would."""
    refresh_manifests(store)


# Files that differ from the manifest.


def flip(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, FILES)
    path.write_bytes(flipped_bits(draw, path.read_bytes()))


def zeros(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, FILES)
    content = damaged = path.read_bytes()
    while damaged == content:
        damaged = zero_block(draw, content)
    path.write_bytes(damaged)


def cut(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, (*FILES, "manifest.yaml"))
    path.write_bytes(path.read_bytes()[: draw.integers(path.stat().st_size)])


def lost(draw: Draw, store: Path, workspace: Workspace) -> None:
    (store / pick(draw, (*FILES, "manifest.yaml"))).unlink()


def folder_in_place(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, (*FILES, "manifest.yaml"))
    path.unlink()
    path.mkdir()


def of_another_store(draw: Draw, store: Path, workspace: Workspace) -> None:
    other = workspace.shared / "other-store"
    if not other.exists():
        write_random_store(other, seed=1)
    name = pick(draw, [n for n in FILES if (other / n).read_bytes() != (store / n).read_bytes()])
    shutil.copy(other / name, store / name)


# Files that other software has written, together with the manifest.


def other_array(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, ("hourly.npy", "cxr.npy"))
    array = np.load(path)
    flat = array.reshape(len(array), -1)
    others = (
        array.astype(np.float64), array[..., :-1], flat[:, 0], array[:5], array[:0], array.astype(">f4"),
        array.astype(np.complex64), np.asfortranarray(array)[..., :-1], array[None],
    )  # fmt: skip
    np.save(path, pick(draw, others))
    agree(store)


def not_finite(draw: Draw, store: Path, workspace: Workspace) -> None:
    hourly = np.load(store / "hourly.npy")
    hourly[:, int(draw.integers(variables()[0].mask_channel))] = pick(draw, (np.nan, np.inf))
    np.save(store / "hourly.npy", hourly)
    agree(store)


def pickled_array(draw: Draw, store: Path, workspace: Workspace) -> None:
    name = pick(draw, ("hourly.npy", "cxr.npy"))
    content = pick(draw, (pickle.dumps(Executes(workspace.marker)), None))
    if content is None:
        np.save(store / name, np.array([Executes(workspace.marker)] * 3, object), allow_pickle=True)
    else:
        (store / name).write_bytes(content)
    agree(store)


def other_table(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, ("stays.parquet", "cxr.parquet"))
    table = pd.read_parquet(path)
    used = [name for name in ("offset", "length", "stay_id", "subject_id", "hours") if name in table]
    column = pick(draw, used)
    others = (
        table.drop(columns=column), table.assign(**{column: "text"}), table.assign(**{column: -5}), table[:3],
        table.assign(**{column: np.nan}), table.iloc[::-1], table[:0], table.assign(**{column: 10**12}),
    )  # fmt: skip
    pick(draw, others).to_parquet(path)
    agree(store)


def not_parquet(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / pick(draw, ("stays.parquet", "cxr.parquet"))
    path.write_bytes(
        pick(draw, (b"", b"PAR1", b"PAR1" + draw.bytes(200) + b"PAR1", b"a,b\n1,2\n", bytes(64)))
    )
    agree(store)


ODD_CELLS = {
    "stay_row": ("-1", "99999", "1e3", "", "x", "2.5", "99999999999999999999"),
    "bins": ("0", "-3", "99999", "", "nan"),
    "partial_bin_row": ("-7", "99999999", "x"),
    "subject_id": ("-1", "7", "", "x"),
    "cxr_row": ("-7", "99999", "1.5"),
    "end_hours": ("nan", "inf", "1e309", "-4", "x", ""),
    "stay_id": ("-1", "7", "", "x"),
    "y_true": ("2", "-1", "nan7", "inf", "1e309", "0.5", "x"),
}


def odd_sample(draw: Draw, store: Path, workspace: Workspace) -> None:
    rows = _read_listfile(store)
    column = pick(draw, sorted(ODD_CELLS))
    rows[int(draw.integers(1, len(rows)))][rows[0].index(column)] = pick(draw, ODD_CELLS[column])
    _write_listfile(store, rows)


def listfile_columns(draw: Draw, store: Path, workspace: Workspace) -> None:
    rows = _read_listfile(store)
    gone = int(draw.integers(2, len(rows[0])))
    _write_listfile(store, [row[:gone] + row[gone + 1 :] for row in rows])


def listfile_bytes(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / LISTFILE
    content = path.read_bytes()
    row = int(draw.integers(1, content.count(b"\n")))
    lines = content.split(b"\n")
    torn = b"\n".join([*lines[:row], lines[row][: len(lines[row]) // 2], *lines[row + 1 :]])
    others = (b"", b"\n", torn, content.replace(b",", b";"), b"\xff\xfe" + content, content + b"1,2,3\n",
              content.replace(b"0", b"\0", 3), lines[0] + b"\n")  # fmt: skip
    path.write_bytes(pick(draw, others))
    agree(store)


def _read_listfile(store: Path) -> list[list[str]]:
    with (store / LISTFILE).open(newline="") as file:
        return list(csv.reader(file))


def _write_listfile(store: Path, rows: list[list[str]], end: str = "\n") -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    (store / LISTFILE).write_text(text.getvalue(), newline="")
    agree(store)


def odd_normalizer(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / "normalizer.json"
    fitted = json.loads(path.read_text())
    zeros = [0.0] * len(fitted["mean"])
    key = pick(draw, ("mean", "std"))
    value = pick(draw, (None, "x", [], [1.0], 3, [float("nan")] * len(zeros), zeros))
    if key == "mean" and value == zeros:
        value = [float("inf")] * len(zeros)
    others = (json.dumps(fitted | {key: value}), json.dumps({k: v for k, v in fitted.items() if k != key}),
              "[]", "", "{", "null", "text", "[" * 100_000)  # fmt: skip
    path.write_text(pick(draw, others))
    agree(store)


# Manifests.


def manifest_that_runs_code(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / "manifest.yaml"
    tag = pick(
        draw, ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system")
    )
    path.write_text(f"{path.read_text()}\nx: {tag} ['touch {workspace.marker}']\n")


def manifest_that_leaves(draw: Draw, store: Path, workspace: Workspace) -> None:
    """Name a file outside the store, by its path or through a link."""
    outside = store.parent / "outside.npy"
    shutil.copy(store / "hourly.npy", outside)
    how = pick(draw, ("../outside.npy", str(outside), "x/../../outside.npy", "link"))
    if how == "link":
        name = pick(draw, ("hourly.npy", "stays.parquet", LISTFILE))
        away = shutil.move(store / name, store.parent / "away")
        os.symlink(away, store / name)
        return
    path = store / "manifest.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["files"][how] = manifest["files"]["hourly.npy"]
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def odd_manifest(draw: Draw, store: Path, workspace: Workspace) -> None:
    path = store / "manifest.yaml"
    content = yaml.safe_load(path.read_text())
    first = next(iter(content["files"]))
    entry = pick(draw, (None, 7, "x", {}, {"bytes": "9"}, {"bytes": None}))
    changed = (
        {"store_version": pick(draw, (0, 1, 2, "3", None, 1.5, [3]))},
        {"files": pick(draw, (None, [], "x", 7, {}))},
        {"files": {**content["files"], first: entry}},
        {"synthetic": pick(draw, (None, "maybe", 7))},
        {"files": {**content["files"], 7: {"bytes": 1}}},
    )
    bomb = BOMB + yaml.safe_dump({name: content[name] for name in content if name != "files"}) + "files: *i\n"
    texts = [yaml.safe_dump(content | pick(draw, changed)), "just text", "[1, 2]", "{", "\t- x", "", "\0",
             "x: " + "[" * 20_000, bomb]  # fmt: skip
    path.write_text(pick(draw, texts))


# Changes that do not matter.


def another_file(draw: Draw, store: Path, workspace: Workspace) -> None:
    (store / pick(draw, ("notes.txt", ".DS_Store", "hourly.npy.partial"))).write_bytes(draw.bytes(30))


def more_of_a_listfile(draw: Draw, store: Path, workspace: Workspace) -> None:
    rows = _read_listfile(store)
    order = draw.permutation(len(rows[0]) + 1)
    rows = [
        [[*row, "note" if not index else "x"][column] for column in order] for index, row in enumerate(rows)
    ]
    _write_listfile(store, rows, pick(draw, ("\n", "\r\n")))


Change = Callable[[Draw, Path, Workspace], None]
WRONG: dict[str, Change] = {
    "flipped bits": flip,
    "a block of zeros": zeros,
    "cut off": cut,
    "a file is missing": lost,
    "folder in place of a file": folder_in_place,
    "a file of another store": of_another_store,
    "array of another kind": other_array,
    "hours that are no finite numbers": not_finite,
    "table of another kind": other_table,
    "not a table": not_parquet,
    "odd place or label of a sample": odd_sample,
    "listfile lacks a column": listfile_columns,
    "listfile of another kind": listfile_bytes,
    "odd normaliser": odd_normalizer,
    "odd manifest": odd_manifest,
}
# Faults that leave other bytes than those of the manifest.
DAMAGE = ("flipped bits", "a block of zeros", "cut off", "a file is missing", "a file of another store")
HOSTILE: dict[str, Change] = {
    "array that runs code": pickled_array,
    "manifest that runs code": manifest_that_runs_code,
    "manifest that leaves the store": manifest_that_leaves,
}
HARMLESS: dict[str, Change] = {
    "another file": another_file,
    "listfile with another column": more_of_a_listfile,
}


def attempt(change: Change, kind: str, draw: Draw, workspace: Workspace) -> str:
    """Evaluate the classifier on a faulty store."""
    right = right_predictions(workspace)
    store = Path(shutil.copytree(clean(workspace), workspace.folder / "store"))
    change(draw, store, workspace)
    done = evaluate(workspace, store, workspace.folder / "out")
    wanted = [] if kind == "hostile" else [right]
    named = [] if kind == "harmless" else [str(store)]
    return check_result(
        done, lambda: predictions(workspace.folder / "out"), wanted, named, error=kind != "harmless"
    )


def attempt_verify(change: Change, draw: Draw, workspace: Workspace) -> str:
    """Verify a damaged store, which must never succeed."""
    store = Path(shutil.copytree(clean(workspace), workspace.folder / "store"))
    change(draw, store, workspace)
    return check_result(run(verify.main, VerifyConfig, store), lambda: "", [], [str(store)])


def faults() -> list[Fault]:
    """Return all kinds of faulty stores."""
    kinds = (("wrong", WRONG), ("hostile", HOSTILE), ("harmless", HARMLESS))
    made = [
        Fault("stores", name, partial(attempt, change, kind))
        for kind, changes in kinds
        for name, change in changes.items()
    ]
    verified = [(name, WRONG[name]) for name in DAMAGE]
    return made + [Fault("stores", f"verified: {n}", partial(attempt_verify, c)) for n, c in verified]
