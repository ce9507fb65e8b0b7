"""CPUs and memory are those of the affinity, the control groups and Slurm, not the node's."""

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import nodebench
from nodebench.execution import ray_cluster
from nodebench.planning import available_resources
from nodebench.planning.available_resources import cpu_count, memory_bytes
from nodebench.planning.estimate import slots
from nodebench.sweep.file import Resources
from nodebench.training import machine
from tests.support.cli_process import NODEBENCH

NODE_CPUS = 16
GIB = 2**30


@pytest.fixture(autouse=True)
def node(monkeypatch):
    """A node of 16 CPUs and 64 GiB, with nothing said by a batch system."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(NODE_CPUS)))
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GIB // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    for name in available_resources.SLURM:
        monkeypatch.delenv(name, raising=False)


def groups(root: Path, text: str, values: dict[str, str]) -> Path:
    """A root whose process is in the control groups of `text`, which have these files."""
    contents = {"proc/self/cgroup": text}
    contents |= {f"sys/fs/cgroup/{name}": value for name, value in values.items()}
    for name, value in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


V1 = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


@pytest.mark.parametrize(
    ("text", "values", "cpus"),
    [
        ("0::/", {}, 16),
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "9900000 100000"}, 16),
        ("0::/job/step", {"job/step/cpu.max": "max 100000", "job/cpu.max": "300000 100000"}, 3),
        ("0::/job", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "100000 100000"}, 3),
        ("0::/unseen/job", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000",
              "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "10000"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("0::/", {"cpu.max": ""}, 16),
    ],
)  # fmt: skip
def test_a_quota_bounds_the_cpus(tmp_path, text, values, cpus):
    assert cpu_count(groups(tmp_path, text, values)) == cpus


@pytest.mark.parametrize(
    ("text", "values", "size"),
    [
        ("0::/", {"memory.max": "max"}, 64 * GIB),
        ("0::/", {"memory.max": str(8 * GIB)}, 8 * GIB),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": str(8 * GIB)}, 8 * GIB),
        ("0::/", {"memory.max": str(8 * GIB), "memory.high": str(7 * GIB)}, 7 * GIB),
        ("0::/unseen", {"memory.max": str(8 * GIB)}, 8 * GIB),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": str(2 * GIB)}, 2 * GIB),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 64 * GIB),
    ],
)
def test_a_limit_bounds_the_memory(tmp_path, text, values, size):
    assert memory_bytes(groups(tmp_path, text, values)) == size


def test_a_machine_without_control_groups_is_had_whole(tmp_path):
    assert (cpu_count(tmp_path), memory_bytes(tmp_path)) == (16, 64 * GIB)


def test_ulimit_bounds_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (GIB, 2 * GIB))
    assert memory_bytes(tmp_path) == GIB


@pytest.mark.parametrize(
    ("said", "cpus"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, 4),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "99"}, 16),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "many"}, 16),
    ],
)
def test_slurm_bounds_the_cpus_where_it_binds_no_process(tmp_path, monkeypatch, said, cpus):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert cpu_count(tmp_path) == cpus


@pytest.mark.parametrize("threads", [1, 4, 32])
def test_a_trial_s_memory_is_its_threads_share_of_what_this_process_may_use(monkeypatch, threads):
    monkeypatch.setattr(machine, "cpu_count", lambda: 8)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * GIB)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert machine.memory_of_trial(0.0) == min(threads, 8) * GIB


def test_ray_and_forecasts_count_the_cpus_of_this_process(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    here = ray_cluster.settings_here()
    assert here["num_cpus"] == 3
    assert slots(Resources(), gpus=0) == 3
    assert here["object_store_memory"] <= memory_bytes() // 10


def test_ray_s_store_stays_within_little_memory(monkeypatch):
    monkeypatch.setattr(ray_cluster, "memory_bytes", lambda: 2 * GIB)
    assert ray_cluster.settings_here()["object_store_memory"] == 2 * GIB // 10


def bound(*command: str) -> str:
    """What a command says that may run on the first CPU alone."""
    if shutil.which("taskset") is None:
        pytest.skip("there is no taskset here")
    done = subprocess.run(
        ["taskset", "-c", "0", *command], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_a_process_bound_to_one_cpu_has_one():
    code = "from nodebench.planning.available_resources import cpu_count; print(cpu_count())"
    assert bound(sys.executable, "-c", code) == "1\n"


def test_what_takes_two_cpus_is_refused_on_one(tmp_path, monkeypatch):
    (tmp_path / "two.yaml").write_text(
        "name: two\nresources: {cpus: 2}\nbase: {data: spheres, model: plainode,"
        " solver: {method: euler, steps: 2}, train: {epochs: 1}}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "Set `resources.cpus` to 1 or less" in bound(*NODEBENCH, "run", "two.yaml")


@pytest.mark.slow
def test_ray_starts_with_one_cpu_in_a_process_bound_to_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "this machine: CPU 1, " in bound(*NODEBENCH, "doctor", "--ray")


def test_nothing_asks_for_the_node_s_figures_elsewhere():
    asks = re.compile(r"cpu_count\(\) or|os\.cpu_count|SC_PHYS|virtual_memory|sched_getaffinity")
    folder = Path(nodebench.__file__).parent
    asking = {
        str(p.relative_to(folder))
        for p in folder.rglob("*.py")
        if asks.search(p.read_text(encoding="utf-8"))
    }
    assert asking == {"planning/available_resources.py"}
