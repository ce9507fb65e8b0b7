import errno
import os
import signal
from contextlib import ExitStack
from dataclasses import replace

import psutil
import pytest
import torch

from nodebench.errors import ResourceError
from nodebench.execution import runner
from nodebench.execution.preflight import require_machine
from nodebench.execution.runner import run_inline
from nodebench.planning import RunOptions, entries
from nodebench.store import Store
from nodebench.sweep.file import Resources
from tests.support.tiny_sweeps import TINY, histories, options, tiny
from tests.support.with_ray import run_with_ray

# Ray's own code warns.
quiet = pytest.mark.filterwarnings("ignore")


class Recorder:
    """A monitor that remembers, and does something at the first epoch it hears of."""

    def __init__(self, at_first_epoch=lambda: None):
        self.events = []
        self.at_first_epoch = at_first_epoch

    def on_tracking(self, problem):
        self.events.append(("tracking", problem))

    def on_start(self, trial_id):
        self.events.append(("start", trial_id))

    def on_epoch(self, trial_id, row):
        if not any(event[0] == "epoch" for event in self.events):
            self.at_first_epoch()
        self.events.append(("epoch", trial_id))

    def on_end(self, trial_id, problem):
        self.events.append(("end", trial_id, problem))


@pytest.fixture(scope="module")
def ray_session():
    """One Ray session for all the tests of this process."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def test_inline_runs_all_trials_in_order(tmp_path):
    sweep, recorder = tiny(tmp_path, seeds=[0, 1]), Recorder()
    run_inline(sweep.trials, Store(tmp_path), options(sweep, tmp_path), recorder)
    kinds = [event[0] for event in recorder.events]
    assert kinds == ["start", "epoch", "epoch", "epoch", "end"] * 2


@quiet
def test_ray_gives_the_bits_that_this_process_gives(tmp_path, ray_session):
    sweep, recorder = tiny(tmp_path, seeds=[0, 1, 2, 3]), Recorder()
    inline, ray = Store(tmp_path / "inline"), Store(tmp_path / "ray")
    run_inline(sweep.trials, inline, options(sweep, tmp_path), Recorder())
    run_with_ray(sweep.trials, ray, options(sweep, tmp_path), recorder)
    assert histories(sweep, ray) == histories(sweep, inline)
    ends = [event for event in recorder.events if event[0] == "end"]
    assert sorted(ends) == sorted(("end", trial.id, None) for trial in sweep.trials)
    assert not list(ray.root.glob(".ray-*"))


@quiet
def test_ray_begins_with_what_takes_longest(tmp_path, ray_session):
    counts = [3, 1, 8, 2, 5, 4, 7, 6]
    one_at_a_time, recorder = {"cpus": 2}, Recorder()
    sweep = tiny(tmp_path, grid={"solver.steps": counts}, resources=one_at_a_time)
    run_with_ray(sweep.trials, Store(tmp_path / "runs"), options(sweep, tmp_path), recorder)
    steps = {trial.id: trial.spec.solver.steps for trial in sweep.trials}
    started = [steps[event[1]] for event in recorder.events if event[0] == "start"]
    assert started == sorted(counts, reverse=True)


@quiet
def test_a_killed_worker_costs_nothing_but_time(tmp_path, ray_session):
    base = {
        "data": {"name": "spheres", "train_size": 2000, "test_size": 32},
        "model": {"name": "plainode", "width": 8},
        "solver": {"method": "euler", "steps": 8},
        "train": {"epochs": 12, "batch_size": 16},
    }
    sweep = tiny(tmp_path, base=base)
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    killed = []

    def kill_a_worker():
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::Worker"):
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)

    run_with_ray(sweep.trials, broken, options(sweep, tmp_path), Recorder(kill_a_worker))
    run_inline(sweep.trials, whole, options(sweep, tmp_path), Recorder())
    assert killed
    assert histories(sweep, broken) == histories(sweep, whole)


@quiet
@pytest.mark.parametrize(
    ("resources", "message"),
    [(Resources(gpus=0.5), "--cpu"), (Resources(cpus=99), "that fits has 2")],
)
def test_what_no_node_has_is_refused_before_anything_starts(
    tmp_path, ray_session, resources, message
):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    run = replace(options(sweep, tmp_path), resources=resources)
    with pytest.raises(ResourceError, match=message):
        run_with_ray(sweep.trials, store, run, Recorder())
    assert not (store.root / "trials").exists()


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for inline in (True, False):
        with pytest.raises(ResourceError, match="--cpu"):
            require_machine(RunOptions(tmp_path, Resources(gpus=1)), inline=inline)


def test_a_trial_held_by_another_launch_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("nodebench.store.trial_folder.TRIAL_WAIT_S", 0.1)
    monkeypatch.setattr(runner, "TRIAL_WAIT_S", 1.0)
    sweep, store, recorder = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs"), Recorder()
    with store.folder(sweep.trials[0].id).locked():
        run_inline(sweep.trials, store, options(sweep, tmp_path), recorder)
    ends = {event[1]: event[2] for event in recorder.events if event[0] == "end"}
    assert "is held by process" in ends[sweep.trials[0].id]
    assert ends[sweep.trials[1].id] is None


PART = """
import torch

def model(spec, data):
    assert spec.seed, "seed 0 crashes"
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
"""


def crashing_first(tmp_path, monkeypatch, seeds=(0, 1, 2), **fields):
    """A sweep whose first trial crashes, by a model of one's own."""
    (tmp_path / "crashing_part.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    base = {**TINY, "model": "crashing_part:model"}
    return tiny(tmp_path, base=base, seeds=list(seeds), **fields)


@pytest.mark.parametrize("fail_fast", [True, False])
def test_fail_fast_ends_at_the_first_trial_without_a_result(tmp_path, monkeypatch, fail_fast):
    sweep = crashing_first(tmp_path, monkeypatch)
    store = Store(tmp_path / "runs")
    run_inline(sweep.trials, store, options(sweep, tmp_path), Recorder(), fail_fast=fail_fast)
    done = [store.folder(trial.id).result() is not None for trial in sweep.trials]
    assert done == [True, not fail_fast, not fail_fast]


@quiet
def test_fail_fast_ends_a_run_under_ray(tmp_path, monkeypatch, ray_session):
    one_at_a_time = {"cpus": 2}
    sweep = crashing_first(tmp_path, monkeypatch, seeds=range(12), resources=one_at_a_time)
    store, recorder = Store(tmp_path / "runs"), Recorder()
    run_with_ray(sweep.trials, store, options(sweep, tmp_path), recorder, fail_fast=True)
    finished = store.results(trial.id for trial in sweep.trials)
    assert len(finished) < len(sweep.trials)
    assert any(result.is_error for result in finished.values())


class FullDisk(Store):
    """A store that no process but its maker's can write."""

    def __init__(self, root):
        super().__init__(root)
        self.maker = os.getpid()

    def folder(self, trial_id):
        if os.getpid() != self.maker:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().folder(trial_id)


@quiet
def test_what_a_worker_raises_is_told(tmp_path, monkeypatch, ray_session):
    monkeypatch.setattr("nodebench.execution.ray_tune.INFRASTRUCTURE_RETRIES", 0)
    sweep, recorder = tiny(tmp_path, seeds=[0, 1]), Recorder()
    run_with_ray(sweep.trials, FullDisk(tmp_path / "runs"), options(sweep, tmp_path), recorder)
    problem = "its worker failed: OSError: [Errno 28] No space left on device"
    ends = [event for event in recorder.events if event[0] == "end"]
    assert sorted(ends) == sorted(("end", trial.id, problem) for trial in sweep.trials)


@quiet
def test_a_search_gives_up_what_others_surpass_and_its_end_is_a_result(tmp_path, ray_session):
    base = {
        **TINY,
        "data": {"name": "spheres", "train_size": 200, "test_size": 32, "val_size": 50},
        "train": {"epochs": 9, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
    }
    rates = {"train.optimizer.lr": {"log_uniform": [1e-5, 1e-1]}}
    search = {"samples": 6, "space": rates, "stop": {"name": "asha", "reduction": 2}}
    sweep, store = tiny(tmp_path, base=base, search=search), Store(tmp_path / "runs")
    run = options(sweep, tmp_path, stop=sweep.search.stop)
    recorder = Recorder()
    run_with_ray(sweep.trials, store, run, recorder)
    ends = {event[1]: event[2] for event in recorder.events if event[0] == "end"}
    assert ends == {trial.id: None for trial in sweep.trials}  # being stopped is no problem
    results = store.results(trial.id for trial in sweep.trials)
    outcomes = [results[trial.id].outcome for trial in sweep.trials]
    assert set(outcomes) == {"finished", "stopped"}
    for trial in sweep.trials:
        result = results[trial.id]
        rows = store.folder(trial.id).history()
        assert len(rows) == result.epoch
        assert (result.epoch < 9) == (result.outcome == "stopped")
    assert not any(entry.missing for entry in entries(sweep, store, run))


def test_inline_goes_on_with_other_trials_while_one_is_held_and_comes_back(tmp_path, monkeypatch):
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2]), Store(tmp_path)
    first, *others = [trial.id for trial in sweep.trials]
    with ExitStack() as elsewhere:
        elsewhere.enter_context(store.folder(first).locked())
        recorder = Recorder()
        recorder.on_end = lambda trial, problem: (
            recorder.events.append(("end", trial, problem)),
            elsewhere.close() if trial == others[-1] else None,
        )
        run_inline(sweep.trials, store, options(sweep, tmp_path), recorder)
    ends = [event[1:] for event in recorder.events if event[0] == "end"]
    assert ends == [(others[0], None), (others[1], None), (first, None)]
    assert set(store.results()) == {first, *others}


def test_a_trial_that_stays_held_is_named_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TRIAL_WAIT_S", 1.0)
    sweep, store, recorder = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path), Recorder()
    first, second = (trial.id for trial in sweep.trials)
    with store.folder(first).locked():
        run_inline(sweep.trials, store, options(sweep, tmp_path), recorder)
    ends = [event[1:] for event in recorder.events if event[0] == "end"]
    assert ends[0] == (second, None)
    assert ends[1][0] == first
    assert f"held by process {os.getpid()}" in ends[1][1]


def test_of_seeds_trained_together_those_that_are_free_are_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TRIAL_WAIT_S", 1.0)
    sweep = tiny(tmp_path, seeds=[0, 1, 2], resources={"pack_seeds": 3})
    store, recorder = Store(tmp_path), Recorder()
    with store.folder(sweep.trials[1].id).locked():
        run_inline(sweep.trials, store, options(sweep, tmp_path), recorder)
    assert set(store.results()) == {sweep.trials[0].id, sweep.trials[2].id}


def test_a_monitor_that_raises_leaves_every_trial_free_though_its_frames_are_kept(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path)
    recorder = Recorder()
    recorder.on_epoch = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError) as kept:  # as a notebook keeps the last traceback
        run_inline(sweep.trials, store, options(sweep, tmp_path), recorder)
    assert kept.tb is not None
    assert not any(store.folder(trial.id).is_locked() for trial in sweep.trials)
