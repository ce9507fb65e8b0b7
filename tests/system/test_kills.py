"""Runs that are interrupted and killed, as a user or a machine does it."""

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from nodebench.store import Store
from tests.support.cli_process import command, start
from tests.support.mlflow_contents import mlflow_points
from tests.support.tiny_sweeps import histories, tiny, write_tiny

# Some seconds of training a trial: long enough to be killed in, after a checkpoint too.
KILLABLE = {
    "data": {"name": "spheres", "train_size": 800, "test_size": 32},
    "model": {"name": "plainode", "width": 8},
    "solver": {"method": "euler", "steps": 4},
    "train": {"epochs": 50, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.001}},
}


def test_interrupting_ends_with_status_130_and_the_next_run_goes_on(tmp_path):
    shorter = {**KILLABLE, "train": {**KILLABLE["train"], "epochs": 25}}
    write_tiny(tmp_path, base=shorter, checkpoint_minutes=0.01)
    process = start(tmp_path, "run", "tiny.yaml", "--inline", "--no-track", "--no-report")
    (log,) = wait_for_training(tmp_path)
    wait_for_checkpoint(log.parent)
    process.send_signal(signal.SIGINT)
    with process:
        assert process.wait(30) == 130
        assert "resumes from here" in process.stderr.read()
    assert not (log.parent / "result.json").exists()
    done = command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track", "--no-report")
    assert done.returncode == 0
    assert "resumed after epoch" in log.read_text()


def wait_for_checkpoint(folder: Path) -> None:
    for _ in range(300):
        if (folder / "checkpoint.pt").exists():
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint was written")


def wait_for_training(folder: Path) -> list[Path]:
    """Waits until a trial has completed an epoch."""
    for _ in range(600):
        logs = [
            p for p in (folder / "runs" / "trials").glob("*/log.txt") if "epoch" in p.read_text()
        ]
        if logs:
            return logs
        time.sleep(0.1)
    raise AssertionError("no training began")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_killed_five_times_equals_the_uninterrupted_one(tmp_path):
    """kill -9 of the driver, or of its whole process group, at random moments, under Ray."""
    fields = {"base": KILLABLE, "seeds": [0, 1, 2], "grid": {"solver.steps": [2, 4]}}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        write_tiny(folder, **fields)
    assert command(whole, "run", "tiny.yaml", "--inline").returncode == 0
    chance = random.Random(0)
    for attempt in range(5):
        before = progress(broken)
        process = start(broken, "run", "tiny.yaml")
        while progress(broken) == before:
            assert process.poll() is None, "the sweep ended before it could be killed"
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 6))
        assert process.poll() is None
        if attempt % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        with process:
            process.wait()
    done = command(broken, "run", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    sweep = tiny(tmp_path, **fields)
    stores = Store(whole / "runs"), Store(broken / "runs")
    assert histories(sweep, stores[0]) == histories(sweep, stores[1])
    tables = [mlflow_points(store.root / "mlflow.db") for store in stores]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 6


def progress(folder: Path) -> int:
    """Grows with every epoch that a trial logs."""
    return sum(p.stat().st_size for p in (folder / "runs" / "trials").glob("*/log.txt"))


@pytest.mark.slow
def test_a_killed_run_is_shown_as_killed_and_as_running_once_it_goes_on(tmp_path):
    long = {**KILLABLE, "train": {**KILLABLE["train"], "epochs": 600}}  # MLflow takes its time
    write_tiny(tmp_path, base=long)
    database = tmp_path / "runs" / "mlflow.db"
    arguments = ("run", "tiny.yaml", "--inline", "--no-report")
    process = start(tmp_path, *arguments)
    wait_for_status(database, "RUNNING")
    process.kill()
    with process:
        process.wait(30)
    assert mlflow_statuses(database) == ["RUNNING"]
    for changes in (["--set", "seeds=[7]"], []):  # whether or not it is still in the sweep
        done = command(tmp_path, "sync", "tiny.yaml", *changes)
        assert done.returncode == 0, done.stderr
        assert mlflow_statuses(database) == ["KILLED"]
    with start(tmp_path, *arguments) as process:
        wait_for_status(database, "RUNNING")
        process.wait(120)
    assert mlflow_statuses(database) == ["FINISHED"]


def mlflow_statuses(file: Path) -> list[str]:
    try:
        with sqlite3.connect(file) as database:
            return [status for (status,) in database.execute("SELECT status FROM runs")]
    except sqlite3.OperationalError:  # not yet set up
        return []


def wait_for_status(file: Path, status: str) -> None:
    for _ in range(900):
        if file.exists() and mlflow_statuses(file) == [status]:
            return
        time.sleep(0.1)
    raise AssertionError(f"no run became {status}")


def test_killing_an_evaluation_loses_at_most_the_point_being_computed(tmp_path):
    steps = list(range(5000, 7800, 200))  # some 0.05 s a point
    write_tiny(tmp_path, evaluate={"methods": ["euler"], "steps": steps})
    process = start(tmp_path, "run", "tiny.yaml", "--inline", "--no-track", "--no-report")
    (log,) = wait_for_training(tmp_path)
    wait_for_points(tmp_path, 4)
    process.kill()
    with process:
        process.wait(30)
    folder = Store(tmp_path / "runs").folder(log.parent.name)
    before, history = folder.evaluations(), folder.history()
    assert 4 <= len(before) < len(steps)
    done = command(tmp_path, "evaluate", "tiny.yaml", "--inline", "--no-track", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "1 trial, 1 to evaluate" in done.stdout
    after = folder.evaluations()
    assert after[: len(before)] == before  # seconds and all
    assert len(after) == len(steps) + 2
    assert folder.history() == history
    assert ": undecided" in done.stdout or "ODE (own" in done.stdout


def wait_for_points(folder: Path, count: int) -> None:
    for _ in range(600):
        for file in (folder / "runs" / "trials").glob("*/evaluations.json"):
            if len(json.loads(file.read_text())) >= count:
                return
        time.sleep(0.02)
    raise AssertionError("too few points were evaluated")
