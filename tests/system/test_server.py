"""MLflow as a server: killed, absent, silent, and over PostgreSQL."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.support.mlflow_server import Server, free_port, postgres
from tests.support.tiny_sweeps import tiny, write_tiny

pytest.importorskip("mlflow")
from mlflow import MlflowClient

from nodebench.store import Store
from nodebench.tracking.client import TRIAL_TAG

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns

SOME_SECONDS = {
    "data": {"name": "spheres", "train_size": 1600, "test_size": 32},
    "model": {"name": "plainode", "width": 8},
    "solver": {"method": "euler", "steps": 4},
    "train": {"epochs": 20, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.001}},
}


def start(folder, uri, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "nodebench", *arguments],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(folder, uri, *arguments):
    """Exit status, output and errors of a nodebench command."""
    process = start(folder, uri, *arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}")
    yield server
    server.kill()


def runs(uri, name="tiny"):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    return client, client.search_runs([experiment.experiment_id]) if experiment else []


def assert_server_has_all(uri, sweep, store):
    """Every trial is one finished run, and every metric of every epoch is there once."""
    client, found = runs(uri)
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sorted(run.data.tags[TRIAL_TAG] for run in found) == sorted(t.id for t in sweep.trials)
    for run in found:
        rows = store.folder(run.data.tags[TRIAL_TAG]).history()
        assert len(rows) == sweep.trials[0].spec.train.epochs
        for name in rows[0].keys() - {"epoch", "time"}:
            points = client.get_metric_history(run.info.run_id, name)
            expected = Counter((row["epoch"], row[name]) for row in rows if name in row)
            assert Counter((point.step, point.value) for point in points) == expected
        files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"trial.json", "history.jsonl", "result.json"} <= files


def wait_for(what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_server_killed_in_mid_sweep_costs_nothing_and_sync_catches_up(tmp_path, server):
    fields = {"base": SOME_SECONDS, "seeds": [0, 1]}
    write_tiny(tmp_path, **fields)
    server.start()
    running = start(tmp_path, server.uri, "run", "tiny.yaml", "--inline", "--no-report")
    wait_for(lambda: runs(server.uri)[1])
    server.kill()
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, err
    assert f"MLflow at `{server.uri}` cannot be used" in out
    assert "Training continues" in out
    assert "tiny: 2 of 2 trials finished" in out
    assert "`nodebench sync` writes the rest" in err
    server.start()
    status, out, err = command(tmp_path, server.uri, "sync", "tiny.yaml")
    assert (status, out) == (0, "tiny: MLflow is up to date (2 runs)\n"), err
    assert_server_has_all(server.uri, tiny(tmp_path, **fields), Store(tmp_path / "runs"))


@pytest.mark.slow
def test_a_server_that_was_absent_is_caught_up_with_by_the_next_run(tmp_path, server):
    write_tiny(tmp_path, seeds=[0, 1])
    arguments = ("run", "tiny.yaml", "--inline", "--no-report")
    status, _, err = command(tmp_path, server.uri, *arguments)
    assert status == 0
    assert "MLflow is not up to date" in err
    server.start()
    status, out, err = command(tmp_path, server.uri, *arguments)
    assert status == 0
    assert "2 trials, 0 to run" in out
    assert err == ""
    assert_server_has_all(server.uri, tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs"))


@pytest.mark.slow
def test_a_server_that_never_answers_does_not_hold_up_a_run(tmp_path):
    write_tiny(tmp_path)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        before = time.monotonic()
        status, out, err = command(tmp_path, uri, "run", "tiny.yaml", "--inline", "--no-report")
        assert time.monotonic() - before < 100
    assert status == 0
    assert "tiny: 1 of 1 trial finished" in out
    assert f"MLflow is not up to date: MLflow at `{uri}` cannot be used" in err


def test_a_run_that_requires_mlflow_starts_nothing_without_it(tmp_path):
    write_tiny(tmp_path)
    uri = f"http://127.0.0.1:{free_port()}"
    status, _, err = command(tmp_path, uri, "run", "tiny.yaml", "--inline", "--require-mlflow")
    assert status == 2
    assert f"MLflow at `{uri}` cannot be used" in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "trials").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("initdb"), reason="PostgreSQL is not installed")
@pytest.mark.skipif(not importlib.util.find_spec("psycopg2"), reason="psycopg2 is not installed")
def test_a_server_over_postgresql_killed_in_mid_sweep_has_every_metric_once(tmp_path):
    fields = {"base": SOME_SECONDS, "seeds": [0, 1]}
    write_tiny(tmp_path, **fields)
    with postgres() as database:
        server = Server(tmp_path, database)
        try:
            server.start()
            running = start(tmp_path, server.uri, "run", "tiny.yaml", "--inline", "--no-report")
            wait_for(lambda: runs(server.uri)[1])
            server.kill()
            server.start()
            out, err = running.communicate(timeout=240)
            assert running.returncode == 0, err
            assert "MLflow is back" in out or "MLflow is not up to date" in err
            assert command(tmp_path, server.uri, "sync", "tiny.yaml")[0] == 0
            assert_server_has_all(server.uri, tiny(tmp_path, **fields), Store(tmp_path / "runs"))
        finally:
            server.kill()
