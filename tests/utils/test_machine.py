"""CPUs and memory are those that the process may use, not those of the whole machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import machine
from utils.machine import available_cpus, free_memory, keep_freed_memory, limit_threads

GB = 10**9
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 128 CPUs and 500 GB, whose control groups are files that a test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)), raising=False)
    (tmp_path / "meminfo").write_text(f"MemFree: 1 kB\nMemAvailable: {500 * GB // 1024} kB\n")
    for name, path in (("CGROUPS", "fs"), ("OWN_CGROUPS", "own"), ("MEMINFO", "meminfo")):
        monkeypatch.setattr(machine, name, tmp_path / path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_without_control_groups_affinity_decides(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_cpus() == 128
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 9}, raising=False)
    assert available_cpus() == 3


@pytest.mark.parametrize("own", ["0::/slurm/job_7/step_0", "0::/slurm/job_7"])
def test_the_smallest_limit_around_the_process_counts(cgroups: Path, own: str) -> None:
    (cgroups / "own").write_text(own + "\n")
    write(cgroups / "fs/slurm/job_7", cpu__max="800000 100000", memory__max=str(64 * GB))
    write(cgroups / "fs/slurm/job_7", memory__current=str(10 * GB))
    write(cgroups / "fs/slurm/job_7", memory__stat=f"anon 1\nactive_file {3 * GB}\ninactive_file {2 * GB}")
    write(cgroups / "fs/slurm/job_7/step_0", cpu__max="max 100000", memory__max="max")
    assert available_cpus() == 8
    assert free_memory() == 59 * GB  # what files in the cache take is given back


def test_control_groups_of_version_1_count_too(cgroups: Path) -> None:
    (cgroups / "own").write_text("9:name=systemd:/x\n4:memory:/docker/1\n1:cpu,cpuacct:/docker/1\n0::/x\n")
    write(cgroups / "fs/cpu/docker/1", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(cgroups / "fs/cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    group = cgroups / "fs/memory/docker/1"
    write(group, memory__limit_in_bytes=str(8 * GB), memory__usage_in_bytes=str(GB))
    write(group, memory__stat="total_active_file 7")
    write(cgroups / "fs/memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="0")
    assert available_cpus() == 2
    assert free_memory() == 7 * GB + 7


@pytest.mark.parametrize(("quota", "cpus"), [("50000 100000", 1), ("x", 128), ("100000 0", 128)])
def test_there_is_always_a_cpu(cgroups: Path, quota: str, cpus: int) -> None:
    (cgroups / "own").write_text("0::/\n")
    write(cgroups / "fs", cpu__max=quota)
    assert available_cpus() == cpus


def test_macos_has_neither_affinity_nor_control_groups(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    (cgroups / "meminfo").unlink()
    assert available_cpus() == os.cpu_count() and free_memory() == 0
    monkeypatch.setattr(sys, "platform", "darwin")
    assert free_memory() > 0


def test_libraries_that_see_no_quota_are_told(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads_set: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", threads_set.append)
    (cgroups / "own").write_text("0::/\n")
    write(cgroups / "fs", cpu__max="800000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    limit_threads()
    assert not threads_set
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads()
    assert threads_set == [8]


FAULTS_OF_ARRAYS = """
import resource
import sys
import numpy as np
from utils.machine import keep_freed_memory

def faults_of_many_arrays():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        arrays = [np.ones(50_000) for _ in range(3)]  # 400 kB each
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults_of_many_arrays()
print(keep_freed_memory(), given_back, faults_of_many_arrays())
"""


def test_freed_memory_is_used_again_if_the_c_library_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_ARRAYS], check=True, capture_output=True, text=True, cwd=ROOT
    )
    told, given_back, kept = ran.stdout.split()
    if told == "True":
        assert int(kept) * 10 < int(given_back)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()


HEAPS_OF_THREADS = """
import ctypes, sys, threading
from utils.machine import keep_freed_memory

told = keep_freed_memory(heaps=int(sys.argv[1]) or None)
together = threading.Barrier(4)

def make_objects():
    together.wait()
    ctypes.CDLL(None).malloc(1000)
    together.wait()

threads = [threading.Thread(target=make_objects) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(told, flush=True)
if told:
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    library.malloc_info(0, ctypes.c_void_p(library.fopen(b"/dev/stdout", b"w")))
    library.fflush(None)
"""


def test_threads_share_as_many_heaps_as_they_are_told() -> None:
    def heaps(limit: int) -> int | None:
        command = [sys.executable, "-c", HEAPS_OF_THREADS, str(limit)]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        told, *report = ran.stdout.splitlines()
        return sum("<heap nr=" in line for line in report) if told == "True" else None

    if (unlimited := heaps(0)) is not None:
        assert unlimited > 2 == heaps(2)
