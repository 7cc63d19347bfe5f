"""Checkpoints are complete, safe and strict."""

from __future__ import annotations

import hashlib
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.toy import room_for, same
from utils import checkpoint
from utils.files import sha256

CONTENT = {
    "parts": {"net": nn.Linear(3, 2).state_dict()},
    "config": {"width": [1, 2.0, "x", None]},
    "epoch": 4,
}


class Spy:
    """Unpickling it would run code."""

    ran: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Spy.ran.append, ("ran",)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a" / "x.ckpt", CONTENT)
    loaded = checkpoint.load(tmp_path / "a" / "x.ckpt")
    assert loaded["config"] == CONTENT["config"] and loaded["epoch"] == 4
    net = nn.Linear(3, 2)
    assert checkpoint.load_part(net, loaded, "net") == "net: 2/2 tensors"
    assert torch.equal(net.weight, CONTENT["parts"]["net"]["weight"])


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    net = nn.Linear(300, 300)
    checkpoint.save(tmp_path / "once.ckpt", {"parts": {"net": net.state_dict()}})
    checkpoint.save(tmp_path / "twice.ckpt", {"parts": {"net": net.state_dict()}, "again": net.state_dict()})
    once, twice = ((tmp_path / name).stat().st_size for name in ("once.ckpt", "twice.ckpt"))
    assert twice < once + 4096


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x.ckpt", CONTENT)
    with room_for(100_000), pytest.raises(OSError, match=r"no space left to write .*x\.ckpt"):
        checkpoint.save(tmp_path / "x.ckpt", {"parts": {"net": nn.Linear(400, 400).state_dict()}, "epoch": 5})
    assert checkpoint.load(tmp_path / "x.ckpt")["epoch"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.ckpt", CONTENT)
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint; .* holds best.ckpt"):
        checkpoint.load(tmp_path / "bset.ckpt")
    with pytest.raises(FileNotFoundError, match=r"the folder \S+nowhere does not exist: run what writes it"):
        checkpoint.load(tmp_path / "nowhere" / "best.ckpt")


def test_damaged_files_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT)
    content = path.read_bytes()
    for data in (b"", b"text", content[: len(content) // 2], content[:-1]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.ckpt: damaged, or not a checkpoint"):
            checkpoint.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        checkpoint.load(path)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "parts": Spy()}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="nothing in it was run"):
        checkpoint.load(tmp_path / "x.ckpt")
    assert Spy.ran == []


def test_parts_load_strictly_or_not_at_all() -> None:
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    part = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2), "head.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="does not fit") as error:
        checkpoint.load_part(net, {"parts": {"net": part}}, "net")
    faults = "missing 1.weight, 1.bias; unexpected head.weight; other shape 0.weight is [2, 3], not [2, 4]"
    assert faults in str(error.value)
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)
    with pytest.raises(ValueError, match="no part 'cxr'; it has ehr, head"):
        checkpoint.load_part(net, {"parts": {"head": {}, "ehr": {}}}, "cxr")


@pytest.mark.parametrize("record", ["data/0", "data.pkl", "version"])
def test_a_changed_bit_is_detected(tmp_path: Path, record: str) -> None:
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT)
    with zipfile.ZipFile(path) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(record))
        start = path.read_bytes().index(file.read(info)[:8])
    content = bytearray(path.read_bytes())
    content[start + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.ckpt: damaged, or not a checkpoint"):
        checkpoint.load(path)


def test_a_file_is_checked_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[int] = []
    testzip = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda file: sums.append(1) or testzip(file))
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT)
    checkpoint.load_lazily(path)
    assert same(checkpoint.load(path)["parts"], CONTENT["parts"]) and len(sums) == 1
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        weight = file.read(next(name for name in file.namelist() if name.endswith("data/0")))
    content[content.index(weight) + 1] ^= 1
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    for _ in range(2):
        with pytest.raises(ValueError, match=r"x\.ckpt: damaged, or not a checkpoint"):
            checkpoint.load(path)
    checkpoint.save(path, CONTENT | {"parts": {"net": {"weight": torch.tensor([torch.nan])}}})
    with pytest.raises(ValueError, match="its weights must be finite"):
        checkpoint.load(path)


WEIGHTS = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"parts": None}, "its parts must be state dicts"),
        ({"parts": [1]}, "its parts must be state dicts"),
        ({"parts": {"net": {"weight": 3}}}, "its weights must be dense tensors"),
        ({"parts": {"net": {"weight": torch.eye(2).to_sparse()}}}, "its weights must be dense tensors"),
        ({"parts": {"net": {"weight": torch.tensor([1.0, torch.nan])}}}, "its weights must be finite"),
        ({"parts": {"net": {"weight": torch.tensor([1.0, torch.inf])}}}, "its weights must be finite"),
        ({"config": "text"}, "its config must be a dict"),
        ({"epoch": "4"}, "its epoch must be 0 or more"),
        ({"epoch": -1}, "its epoch must be 0 or more"),
        ({"epoch": True}, "its epoch must be 0 or more"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, change: dict, fault: str) -> None:
    checkpoint.save(tmp_path / "x.ckpt", CONTENT | change)
    with pytest.raises(ValueError, match=rf"x\.ckpt: not a valid checkpoint: {fault}"):
        checkpoint.load(tmp_path / "x.ckpt")


@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_weights_of_another_type_are_refused(kind: torch.dtype) -> None:
    part = {"net": WEIGHTS | {"bias": torch.ones(2).to(kind)}}
    with pytest.raises(ValueError, match=rf"other type bias is {kind}, not torch.float32"):
        checkpoint.load_part(nn.Linear(3, 2), {"parts": part}, "net")


def test_weights_of_lower_precision_are_loaded(tmp_path: Path) -> None:
    part = {name: weight.to(torch.bfloat16) for name, weight in WEIGHTS.items()}
    assert checkpoint.load_part(nn.Linear(3, 2), {"parts": {"net": part}}, "net") == "net: 2/2 tensors"


def test_a_thread_writes_what_the_weights_were_when_they_were_given(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    content = {"parts": {"net": net.state_dict()}, "config": {"names": ["a"]}, "epoch": 3}
    with checkpoint.Writer() as writer:
        writer.save(tmp_path / "epoch.ckpt", content)
        writer.link(tmp_path / "epoch.ckpt", tmp_path / "best.ckpt")
        nn.init.zeros_(net.weight)
        content["config"]["names"].append("b")
        writer.wait()
        state = checkpoint.load(tmp_path / "best.ckpt")
    assert all(torch.equal(state["parts"]["net"][name], weight) for name, weight in before.items())
    assert state["config"] == {"names": ["a"]} and state["epoch"] == 3
    assert (tmp_path / "best.ckpt").samefile(tmp_path / "epoch.ckpt")


def test_a_linked_checkpoint_stays_when_the_other_is_written_again(tmp_path: Path) -> None:
    for name in ("one", "best"):
        checkpoint.save(tmp_path / f"{name}.ckpt", CONTENT | {"epoch": 1})
    checkpoint.link(tmp_path / "one.ckpt", tmp_path / "best.ckpt")
    checkpoint.save(tmp_path / "one.ckpt", CONTENT | {"epoch": 2})
    assert [checkpoint.load(tmp_path / f"{name}.ckpt")["epoch"] for name in ("one", "best")] == [2, 1]


def test_a_file_system_without_hard_links_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    checkpoint.save(tmp_path / "one.ckpt", CONTENT)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    checkpoint.link(tmp_path / "one.ckpt", tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").read_bytes() == (tmp_path / "one.ckpt").read_bytes()
    assert not (tmp_path / "best.ckpt").samefile(tmp_path / "one.ckpt")


def test_weights_that_two_parts_share_are_written_once(tmp_path: Path) -> None:
    weights = {"weight": torch.zeros(100_000)}
    content = CONTENT | {"parts": {"net": weights}, "training": {"objective": dict(weights)}}
    copied = checkpoint.snapshot(content)
    assert copied["parts"]["net"]["weight"] is copied["training"]["objective"]["weight"]
    assert copied["parts"]["net"]["weight"] is not weights["weight"]


@pytest.mark.parametrize("waits", [True, False])
def test_a_full_disk_behind_the_thread_is_an_error_of_the_program(tmp_path: Path, waits: bool) -> None:
    checkpoint.save(tmp_path / "last.ckpt", CONTENT)
    before = (tmp_path / "last.ckpt").read_bytes()
    full = pytest.raises(OSError, match=r"no space left to write .*last\.ckpt")
    with room_for(100), full, checkpoint.Writer() as writer:
        writer.save(tmp_path / "last.ckpt", CONTENT)
        if waits:
            writer.wait()
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_thread(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="the loss became nan"), checkpoint.Writer() as writer:
        writer.save(tmp_path / "file" / "last.ckpt", CONTENT)
        raise ValueError("the loss became nan")


def test_the_epoch_of_an_older_checkpoint_counts_from_1(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT | {"format": checkpoint.OLDER_FORMAT, "epoch": 0})
    assert checkpoint.load(path)["epoch"] == 1
    checkpoint.save(path, CONTENT | {"epoch": 1})
    assert checkpoint.load(path)["epoch"] == 1


def test_a_checkpoint_names_its_settings_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT)
    own = checkpoint.read_origin(path)
    assert own.settings == own.sha256[:12] and own.seed is None
    origin = {"settings": "abc", "store": "d" * 64, "seed": 5}
    checkpoint.save(path, CONTENT | {"origin": origin})
    recorded = checkpoint.read_origin(path)
    assert (recorded.settings, recorded.seed) == (f"abc on {'d' * 12}", 5) and recorded.sha256 != own.sha256


def test_what_a_checkpoint_says_is_read_without_the_state_of_the_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    state = {"optimizer": {0: {"exp_avg": torch.zeros(2_000_000)}}}
    checkpoint.save(path, CONTENT | {"training": state, "subjects": {"train": torch.tensor([3, 5])}})

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    content = checkpoint.load_lazily(path)
    assert content["epoch"] == 4 and content["subjects"]["train"].tolist() == [3, 5]
    assert resident() - before < 4_000_000
    assert same(content, checkpoint.load(path))


def test_who_asks_again_what_a_checkpoint_says_gets_the_same_until_the_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = tmp_path / "x.ckpt", []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **flags: reads.append(1) or load(*args, **flags))
    checkpoint.save(path, CONTENT)
    contents = [checkpoint.load_lazily(path), checkpoint.load_lazily(path)]
    assert checkpoint.read_origin(path).objective == "" and len(reads) == 1
    assert contents[0] is contents[1] and same(contents[0], checkpoint.load(path))
    checkpoint.save(path, CONTENT | {"epoch": 9})
    assert checkpoint.load_lazily(path)["epoch"] == 9 and contents[0]["epoch"] == CONTENT["epoch"]


@pytest.mark.parametrize("read", [checkpoint.load_lazily, checkpoint.read_origin])
def test_damage_and_infinite_weights_are_found_at_once(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, CONTENT | {"parts": {"net": {"weight": torch.ones(1000)}}})
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged, or not a checkpoint"):
        read(path)
    checkpoint.save(path, CONTENT | {"parts": {"net": {"weight": torch.tensor([1.0, torch.inf])}}})
    with pytest.raises(ValueError, match="its weights must be finite"):
        read(path)


def test_a_folder_is_no_checkpoint_but_its_checkpoints_are_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "best.ckpt", CONTENT)
    with pytest.raises(OSError, match=rf"is a folder, .*; give one of its .* as {tmp_path}/best\.ckpt"):
        checkpoint.load(tmp_path)


def test_a_file_is_hashed_again_once_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counting(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr(checkpoint, "sha256", counting)
    path = tmp_path / "best.ckpt"
    path.write_bytes(b"one")
    assert checkpoint.file_hash(path) == checkpoint.file_hash(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    path.with_name("other").write_bytes(b"two")
    path.with_name("other").replace(path)
    assert checkpoint.file_hash(path) == hashlib.sha256(b"two").hexdigest() and len(read) == 2
