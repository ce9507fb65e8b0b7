"""What goes wrong on real machines, really caused: a full disk, a second launch, damaged files."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from nodebench.execution.runner import Monitor, run_inline
from nodebench.planning import entries
from nodebench.store import Store
from tests.support.cli_process import command
from tests.support.tiny_sweeps import TINY, heeding_interrupts, histories, options, tiny, write_tiny

NODEBENCH = [sys.executable, "-m", "nodebench"]
SLOW = {
    "data": {"name": "spheres", "train_size": 1600, "test_size": 32},
    "model": {"name": "plainode", "width": 8},
    "solver": {"method": "euler", "steps": 4},
    "train": {"epochs": 2000, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.001}},
}


class Told(Monitor):
    """A monitor that remembers problems, and does something after an epoch."""

    def __init__(self, at_epoch=lambda row: None):
        self.problems, self.at_epoch = [], at_epoch

    def on_epoch(self, trial_id, row):
        self.at_epoch(row)

    def on_end(self, trial_id, problem):
        self.problems.append(problem)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 400 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: it takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Leaves no byte free."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.usefixtures("coarse_reference")
@pytest.mark.parametrize("free", [0, 40_000], ids=["not a byte", "too little for a checkpoint"])
def test_a_full_disk_fails_the_trial_with_that_reason_and_it_goes_on_later(
    tmp_path, small_disk, free
):
    sweep, store = tiny(tmp_path, base={**TINY, "model": {"name": "plainode", "width": 60}}), None
    store, whole = Store(small_disk / "runs"), Store(tmp_path / "whole")
    trial = sweep.trials[0]

    def at_epoch(row):
        if row["epoch"] == 1:
            fill(small_disk)
            os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - free)

    told = Told(at_epoch)
    run_inline(sweep.trials, store, options(sweep, tmp_path), told)
    folder = store.folder(trial.id)
    result = folder.result()
    reason = result.reason if result else told.problems[0]
    assert "No space left on device" in reason
    assert [entry.missing for entry in entries(sweep, store, options(sweep, tmp_path))] == [True]
    assert not list(folder.path.glob(".*.partial"))
    assert [row["epoch"] for row in folder.history()] in ([1], [1, 2])  # small ones still fit
    (small_disk / "filler").unlink()
    run_inline(sweep.trials, store, options(sweep, tmp_path), Told())
    run_inline(sweep.trials, whole, options(sweep, tmp_path), Told())
    assert histories(sweep, store) == histories(sweep, whole)


@pytest.mark.usefixtures("coarse_reference")
@pytest.mark.parametrize("content", ["", '{"outcome": "fini', '{"outcom": 1}', "[]", "\x00\x01"])
@pytest.mark.parametrize("name", ["result.json", "evaluations.json", "history.jsonl"])
def test_a_damaged_file_of_a_finished_trial_is_made_anew(tmp_path, name, content):
    evaluate = {"methods": ["euler"], "steps": [3]}
    sweep, store = tiny(tmp_path, evaluate=evaluate), Store(tmp_path / "runs")
    run_inline(sweep.trials, store, options(sweep, tmp_path), Told())
    folder = store.folder(sweep.trials[0].id)
    before = histories(sweep, store), [row["accuracy"] for row in folder.evaluations()]
    (folder.path / name).write_text(content)
    if name == "history.jsonl":
        (folder.path / "result.json").unlink()
    run_inline(sweep.trials, store, options(sweep, tmp_path), Told())
    assert folder.result().outcome == "finished"
    assert (histories(sweep, store), [row["accuracy"] for row in folder.evaluations()]) == before


def test_a_second_launch_is_refused_with_who_and_where(tmp_path):
    write_tiny(tmp_path, base=SLOW)
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ["run", "tiny.yaml", "--inline", "--no-track", "--no-report"]
    with subprocess.Popen([*NODEBENCH, *words], **quiet) as first:
        while not (tmp_path / "runs" / "trials").exists():
            assert first.poll() is None
            time.sleep(0.1)
        second = command(tmp_path, *words)
        assert second.returncode == 2
        assert f"`tiny` is held by process {first.pid} on " in second.stderr
        shown = command(tmp_path, "status", "tiny.yaml", "--json")
        assert json.loads(shown.stdout)["trials"][0]["state"] == "running"
        first.kill()
    assert command(tmp_path, *words, "--set", "train.epochs=1").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM"],
)
def test_interrupting_ray_and_a_silent_mlflow_takes_seconds_and_leaves_no_process(
    tmp_path, monkeypatch, signals
):
    write_tiny(tmp_path, base=SLOW, seeds=[0, 1])
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        command = [*NODEBENCH, "run", "tiny.yaml", "--no-report"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(
            command, cwd=tmp_path, start_new_session=True, preexec_fn=heeding_interrupts, **quiet
        ) as driver:
            while not list(tmp_path.glob("runs/trials/*/checkpoint.pt")):
                assert driver.poll() is None
                time.sleep(0.1)
            ours = psutil.Process(driver.pid).children(recursive=True)
            for number in signals:
                driver.send_signal(number)
                time.sleep(1)
            assert driver.wait(60) in (130, -signal.SIGINT)
        _, alive = psutil.wait_procs(ours, timeout=60)
        assert not alive
    # Interrupted in its clearing up, a run leaves that to the next.
    assert len(signals) > 1 or not list(tmp_path.glob("runs/.ray-*"))
    assert not list(tmp_path.glob("runs/trials/*/result.json"))
