"""What this process may use of its machine: CPUs and memory, after affinity and control groups."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of <malloc.h>


def available_cpus() -> int:
    """Return how many CPUs this process may use: the smallest of affinity and CPU quotas, at least 1.

    `os.cpu_count` counts those of the whole machine. macOS has neither affinity nor control groups.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = (quota for folder in _cgroup_folders("cpu") if (quota := _cpu_quota(folder)) is not None)
    return max(1, int(min([cpus, *quotas])))


def free_memory() -> int:
    """Return the bytes of memory that this process can still get; 0 where the system does not say.

    It is the least of what the machine has available and what the limits of control groups leave. On macOS,
    which has no figure of the former, it is half of all memory.
    """
    free = [left for folder in _cgroup_folders("memory") if (left := _memory_left(folder)) is not None]
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        if sys.platform != "darwin":
            return 0
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return max(0, min(free, default=0))


def limit_threads() -> None:
    """Let PyTorch and Arrow, if they are loaded, start no more threads than there are CPUs to use.

    Polars does so by itself. OMP_NUM_THREADS, where it is set, is what the user wants.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    cpus = available_cpus()
    torch, arrow = sys.modules.get("torch"), sys.modules.get("pyarrow")
    if torch is not None and torch.get_num_threads() > cpus:
        torch.set_num_threads(cpus)
    if arrow is not None and arrow.cpu_count() > cpus:
        arrow.set_cpu_count(cpus)


def keep_freed_memory(limit: int = 2**28, heaps: int | None = None) -> bool:
    """Let this process keep up to `limit` freed bytes for its next arrays; return whether it can be told so.

    Threads that start later share `heaps` of them, by default eight times the cores.

    The GNU C library gives memory back to the system when 128 KiB or more are free at the end of its heap,
    or with an array of that size. Who makes and frees arrays all the time gets most of it back page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is None:
        return False
    options = {M_TRIM_THRESHOLD: limit, M_MMAP_THRESHOLD: limit} | ({M_ARENA_MAX: heaps} if heaps else {})
    return all(mallopt(option, value) == 1 for option, value in options.items())


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the control groups of this process and those around them, of version 1 and 2."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        folder = root / path.lstrip("/")
        yield folder
        while folder != root:
            folder = folder.parent
            yield folder


def _cpu_quota(folder: Path) -> float | None:
    """Return the CPUs that a control group may use, None without a limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None  # "max" or -1
    return int(quota) / int(period)


def _memory_left(folder: Path) -> int | None:
    """Return the bytes that a control group may still use, None without a limit.

    The cache of files counts as used there, but gives way.
    """
    limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
    prefix = ""
    if not limit:
        limit, used = _read(folder / "memory.limit_in_bytes"), _read(folder / "memory.usage_in_bytes")
        prefix = "total_"
    if not (limit.isdecimal() and used.isdecimal()):
        return None
    statistics = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
    cache = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return int(limit) - int(used) + cache


def _read(path: Path) -> str:
    """Return a small file's text, "" if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
