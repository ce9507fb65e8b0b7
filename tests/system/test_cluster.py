"""The same sweep on a Ray cluster of several nodes; here, all on this machine."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from nodebench.errors import TrialOutcome
from nodebench.execution.runner import Monitor, run_inline
from nodebench.store import Store
from nodebench.sweep import load
from tests.support.mlflow_server import free_port
from tests.support.tiny_sweeps import histories, options

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# A user's own model, beside the sweep; it notes on which node (whose child) it is built.
MODEL = """
import os
from pathlib import Path

from torch import nn

from nodebench.ode.block import ODEBlock


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, y):
        return self.net(y)


def network(spec, data):
    Path(__file__).with_name(f"node-{os.getppid()}-{spec.seed}").touch()
    return nn.Sequential(ODEBlock(Field(), spec.solver, spec.gradient), nn.Linear(2, data.classes))
"""

BASE = {
    "data": {"name": "spheres", "train_size": 1600, "test_size": 32},
    "model": {"name": "mine:network"},
    "solver": {"method": "euler", "steps": 4},
    "train": {"epochs": 20, "batch_size": 16},
}


# What every node and the driver must have alike; Ray's default is a file in the home folder.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Cluster:
    """Nodes that share this machine, as `ray start` begins them in several terminals."""

    def __init__(self, folder: Path):
        self.address = f"127.0.0.1:{free_port()}"
        # Not Ray's usual folder, where anybody's `ray.init()` would find this cluster.
        self._environment = {**os.environ, **TOKEN, "RAY_TMPDIR": str(folder)}
        self._log = folder / "log.txt"
        self._nodes: list[psutil.Process] = []
        self._started: list[subprocess.Popen[bytes]] = []

    def add(self, *, cpus: int, gpus: int = 0) -> psutil.Process:
        """Starts a node, the first as the head."""
        port = self.address.rpartition(":")[2]
        place = [f"--address={self.address}"] if self._nodes else ["--head", f"--port={port}"]
        command = ["-m", "ray.scripts.scripts", "start", *place, "--block"]
        command += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--node-ip-address=127.0.0.1"]
        command += ["--include-dashboard=false"] if not self._nodes else []
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--object-store-memory={100 * 2**20}", "--disable-usage-stats"]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=self._environment, stdout=log, stderr=log
            )
        node = psutil.Process(process.pid)
        self._started.append(process)
        self._nodes.append(node)
        deadline = time.monotonic() + 120
        while not self.raylet(node):
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)
        return node

    def raylet(self, node: psutil.Process) -> psutil.Process | None:
        found = [p for p in node.children(recursive=True) if p.name() == "raylet"]
        return found[0] if found else None

    def stop(self) -> None:
        for node in reversed(self._nodes):
            for process in [*node.children(recursive=True), node] if node.is_running() else []:
                process.kill()
        for process in self._started:
            process.wait()


@pytest.fixture(scope="module")
def cluster():
    """A head that trains nothing, and two nodes of one CPU."""
    folder = Path(tempfile.mkdtemp(prefix="nb-"))  # short: Ray's sockets lie in it
    cluster = Cluster(folder)
    try:
        for cpus in (0, 1, 1):
            cluster.add(cpus=cpus)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def start(folder, cluster, *arguments):
    """`nodebench run` in a folder, over the cluster."""
    where = {"RAY_ADDRESS": cluster.address, "NODEBENCH_RUNS": str(folder / "runs")}
    return subprocess.Popen(
        [sys.executable, "-m", "nodebench", "run", "sweep.yaml", "--no-report", *arguments],
        cwd=folder,
        env={**os.environ, **TOKEN, **where},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prepare(folder, monkeypatch, **fields):
    """A sweep with a model of its own in a folder, and what undisturbed training makes of it."""
    (folder / "mine.py").write_text(MODEL)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"name": "sweep", "base": BASE, **fields}))
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("mine", None)
    sweep = load(folder / "sweep.yaml")
    whole = Store(folder / "whole")
    run_inline(sweep.trials, whole, options(sweep, folder), Monitor())
    for note in folder.glob("node-*"):
        note.unlink()
    return sweep, histories(sweep, whole)


def nodes_used(folder):
    """How many trials were built on each node."""
    return Counter(note.name.split("-")[1] for note in folder.glob("node-*"))


def test_trials_spread_over_nodes_and_give_the_bits_that_one_process_gives(
    tmp_path, cluster, monkeypatch
):
    sweep, expected = prepare(tmp_path, monkeypatch, seeds=[0, 1, 2, 3])
    run = start(tmp_path, cluster)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, out + err
    assert histories(sweep, Store(tmp_path / "runs")) == expected
    assert len(nodes_used(tmp_path)) == 2
    assert not list((tmp_path / "runs").glob(".ray-*"))


def test_a_node_killed_in_mid_sweep_costs_its_trials_nothing_but_time(
    tmp_path, cluster, monkeypatch
):
    sweep, expected = prepare(tmp_path, monkeypatch, seeds=[0, 1, 2, 3, 4])
    doomed = cluster.raylet(cluster.add(cpus=1))
    run = start(tmp_path, cluster, "--no-track", "--set", "checkpoint_minutes=0.02")
    store = Store(tmp_path / "runs")
    deadline = time.monotonic() + 200
    while not any(
        f"-{doomed.pid}-" in p.name and is_begun(p, sweep, store) for p in notes(tmp_path)
    ):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, run.communicate()
        time.sleep(0.05)
    doomed.kill()
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, out + err
    assert {result.outcome for result in store.results().values()} == {TrialOutcome.FINISHED}
    assert histories(sweep, store) == expected
    logs = [store.folder(trial.id).log_file.read_text() for trial in sweep.trials]
    assert sum(log.count("resumed after") for log in logs) >= 1


def notes(folder):
    return list(folder.glob("node-*"))


def is_begun(note, sweep, store):
    """Whether the trial of a note has a checkpoint."""
    seed = int(note.name.rpartition("-")[2])
    (trial,) = (trial for trial in sweep.trials if trial.spec.seed == seed)
    return bool(store.folder(trial.id).checkpoints())


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 2}, "`resources.cpus: 2` per trial, but the largest node that fits has 1"),
        ({"gpus": 1}, "`resources.gpus: 1` per trial, but the largest node has 0"),
    ],
)
def test_what_no_node_has_is_refused(tmp_path, cluster, monkeypatch, resources, message):
    prepare(tmp_path, monkeypatch, base={**BASE, "train": {"epochs": 1}}, resources=resources)
    run = start(tmp_path, cluster, "--no-track")
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    assert message in err
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_cluster_that_is_not_there_is_said_plainly(tmp_path, monkeypatch):
    prepare(tmp_path, monkeypatch, base={**BASE, "train": {"epochs": 1}})
    nowhere = Cluster(tmp_path)
    run = start(tmp_path, nowhere, "--no-track")
    _, err = run.communicate(timeout=120)
    assert run.returncode == 2
    assert f"RAY_ADDRESS is `{nowhere.address}`" in err
    assert "Traceback" not in err
