"""The CPUs and the memory that this process may use.

A batch system or a container grants a part of a node, by the affinity of processes and by control
groups; the node's own figures are then too large.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Slurm's CPUs of a task, the more exact variable first; Slurm need not bind processes to them."""


def cpu_count(root: Path = ROOT) -> int:
    """The CPUs that this process may use by affinity, control groups and Slurm; at least one.

    `root` is the folder of `proc` and `sys`. A quota is rounded down to whole CPUs.
    """
    bounds = [float(_bound_cpus()), *_quotas(root)]
    bounds += [int(text) for text in map(os.environ.get, SLURM) if text and text.isdecimal()][:1]
    return max(1, int(min(bounds)))


def memory_bytes(root: Path = ROOT) -> int:
    """The bytes that this process may use of the machine, by control groups and `ulimit`.

    `root` is the folder of `proc` and `sys`.
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
    """The CPU quotas of control groups, versions 2 and 1, in CPUs."""
    shares = list(_settings(root, "cpu.max"))
    times, periods = (_settings(root, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    shares += [f"{time} {period}" for time, period in zip(times, periods, strict=False)]
    for share in shares:
        time, _, period = share.partition(" ")
        if time.isdecimal() and period.isdecimal():  # otherwise `max` or -1: no quota
            yield int(time) / int(period)


def _settings(root: Path, name: str) -> Iterator[str]:
    """The texts of a file in this process's control groups and the groups above them.

    Version 2 has one tree, version 1 one per controller. A container may not see its group's path;
    its root is then the group.
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
