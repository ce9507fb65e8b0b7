"""What this process may use of the machine: CPUs and memory.

A batch system or a container gives a part of a node, and says so by the affinity of processes and
by control groups; the node's own figures are of no use then.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""What Slurm gives a task, the more exact first; it also binds processes only where set up to."""


def cpu_count(root: Path = ROOT) -> int:
    """CPUs that this process may use: by affinity, control groups and Slurm; one at the least.

    `root` is where `proc` and `sys` are found. Of a quota, whole CPUs count.
    """
    bounds = [float(_bound_cpus()), *_quotas(root)]
    bounds += [int(text) for text in map(os.environ.get, SLURM) if text and text.isdecimal()][:1]
    return max(1, int(min(bounds)))


def memory_bytes(root: Path = ROOT) -> int:
    """Memory that this process may use: the machine's, or what control groups and `ulimit` leave.

    `root` is where `proc` and `sys` are found.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    limits = [int(text) for name in names for text in _settings(root, name) if text.isdecimal()]
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min([whole, *limits, *([own] if own != resource.RLIM_INFINITY else [])])


def _bound_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not on Linux


def _quotas(root: Path) -> Iterator[float]:
    """CPUs by the time that control groups grant, of versions 2 and 1."""
    shares = list(_settings(root, "cpu.max"))
    times, periods = (_settings(root, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    shares += [f"{time} {period}" for time, period in zip(times, periods, strict=False)]
    for share in shares:
        time, _, period = share.partition(" ")
        if time.isdecimal() and period.isdecimal():  # else `max`, or -1: as much as there is
            yield int(time) / int(period)


def _settings(root: Path, name: str) -> Iterator[str]:
    """The texts of a file of this process's control groups, each with those above it.

    Version 2 has one tree, version 1 one for each controller. A container may not see its group's
    path; what it sees as the root is its group then.
    """
    lines: list[str] = []
    with suppress(OSError):  # not Linux
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    top = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for tree in map(top.joinpath, (controllers, *controllers.split(","))):
            group = tree / path.lstrip("/")
            for folder in (group, *group.parents[: len(group.parts) - len(tree.parts)]):
                with suppress(OSError):
                    yield (folder / name).read_text(encoding="utf-8").strip()
