"""What a person sees of a run: the best so far, failures, the answer; and `status --watch`."""

import io
import os
import pty
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nodebench import api
from nodebench.cli import progress
from nodebench.cli.progress import ProgressMonitor
from nodebench.cli.tally import Tally
from nodebench.execution.launch import Launched
from nodebench.execution.publishing import Published
from nodebench.ode.compiled.cache import KernelCache
from nodebench.report.page import write_report_folder
from nodebench.store import Result, Store
from tests.support.cli_process import NODEBENCH, command
from tests.support.fake_results import RELU, made, steady
from tests.support.tiny_sweeps import heeding_interrupts, tiny

WATCH = [*NODEBENCH, "status", "tiny.yaml", "--watch", "--every", "0.2"]


def result(accuracy, outcome="finished", reason=""):
    return Result(outcome, reason, 3, {"test_accuracy": accuracy}, [], 1.0, 2.0)


def keep(sweep, store, results):
    """Writes the results of a sweep's first trials."""
    for trial, ending in zip(sweep.trials, results, strict=False):
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(ending)


def watching(folder, **streams):
    return subprocess.Popen(
        WATCH, cwd=folder, stderr=subprocess.PIPE, preexec_fn=heeding_interrupts, **streams
    )


def test_watching_a_sweep_that_is_done_is_one_line(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    keep(sweep, store, [result(0.75), result(0.5)])
    done = command(tmp_path, "status", "tiny.yaml", "--watch")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.endswith("tiny: 2 finished; best so far: test accuracy 0.7500, plainode · s0")


def test_watching_without_a_terminal_is_a_line_each_time_until_an_interrupt(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    keep(sweep, store, [result(0.75)])
    with watching(tmp_path, stdout=subprocess.PIPE, text=True) as looking:
        lines = [looking.stdout.readline() for _ in range(2)]
        keep(sweep, store, [result(0.75), result(0.0, "diverged")])
        looking.wait(60)  # nothing is left to wait for
        assert (looking.returncode, looking.stderr.read()) == (0, "")
        last = looking.stdout.readlines()[-1]
    assert all("tiny: 1 finished, 1 new; best so far" in line for line in lines)
    assert "tiny: 1 finished, 1 diverged" in last


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_interrupt_is_how_watching_ends(tmp_path, is_terminal):
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2]), Store(tmp_path / "runs")
    keep(sweep, store, [result(0.75), result(0.0, "diverged", "loss is nan")])
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    stdout = theirs
    with watching(tmp_path, stdout=stdout) as looking:
        shown = b""
        while b"best so far" not in shown:
            shown += os.read(ours, 4096)
        time.sleep(0.3)
        looking.send_signal(signal.SIGINT)
        looking.wait(30)
        assert (looking.returncode, looking.stderr.read()) == (0, b"")
    os.close(theirs)
    shown += os.read(ours, 65536)
    os.close(ours)
    assert b"tiny: 1 finished, 1 diverged, 1 new" in shown
    assert (b"loss is nan" in shown) is is_terminal


def test_who_stops_reading_ends_the_watching(tmp_path):
    tiny(tmp_path, seeds=[0])
    words = " ".join(WATCH)
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    line, status = done.stdout.splitlines()
    assert line.endswith("tiny: 1 new")
    assert (status, done.stderr) == ("1", "")


def test_watching_and_json_contradict_each_other(tmp_path):
    tiny(tmp_path)
    done = command(tmp_path, "status", "tiny.yaml", "--watch", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "`--watch` and `--json` contradict each other\n"


def test_the_best_is_by_the_metric_s_direction_and_failures_are_counted(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1, 2, 3])
    tally = Tally(sweep)
    assert (tally.best, tally.failed) == ("", 0)
    for trial, accuracy in zip(sweep.trials, (0.5, 0.75, 0.25), strict=False):
        tally.add(trial.id, result(accuracy))
    assert tally.best == "best so far: test accuracy 0.7500, plainode · s1"
    tally.add(sweep.trials[3].id, result(0.99, "diverged"))
    tally.add(sweep.trials[3].id, None)
    assert tally.best == "best so far: test accuracy 0.7500, plainode · s1"
    assert tally.failed == 2


def test_the_best_error_is_the_smallest(tmp_path):
    fit = {"data": "spiral", "model": "neuralode", "train": {"iterations": 1}}
    sweep = tiny(tmp_path, base=fit, seeds=[0, 1, 2])
    tally = Tally(sweep)
    for trial, error in zip(sweep.trials, (0.5, 0.25, 0.75), strict=True):
        tally.add(trial.id, Result("finished", "", 1, {"test_error": error}, [], 0, 1))
    assert tally.best.startswith("best so far: test error 0.2500, ")


def test_trials_of_different_data_do_not_compete(tmp_path):
    small = {"name": "digits", "train_size": 64}
    sweep = tiny(tmp_path, grid={"data": [small, {"name": "spheres"}]}, base={"model": "mlp"})
    tally = Tally(sweep)
    for trial, accuracy in zip(sweep.trials, (0.5, 0.75), strict=True):
        tally.add(trial.id, result(accuracy))
    assert "on digits 0.5000, " in tally.best
    assert "on spheres 0.7500, " in tally.best


def test_a_terminal_shows_what_is_done_the_best_and_failures_with_their_reason(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2, 3]), Store(tmp_path / "runs")
    keep(sweep, store, [result(0.5)])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, soft_wrap=True)
    with ProgressMonitor(sweep, store, console, "run") as monitor:
        monitor.on_plan(4, 3)
        assert monitor._progress.below == "best so far: test accuracy 0.5000, plainode · s0"
        for trial, ending in zip(
            sweep.trials[1:], [result(0.75), result(0.9, "diverged", "loss is nan")], strict=False
        ):
            monitor.on_start(trial.id)
            store.folder(trial.id).create(trial)
            store.folder(trial.id).write_result(ending)
            points = [{"outcome": "finished", "nfe": 0, "measuring_s": s} for s in (1.0, 1.5)]
            store.folder(trial.id).write_evaluations(points)
            monitor.on_end(trial.id, None)
        monitor.on_start(sweep.trials[3].id)
        monitor._progress.refresh()
    shown = screen.getvalue()
    assert "2 done, 1 failed, 1 running, 0 left" in shown
    assert "best so far: test accuracy 0.7500, plainode · s1" in shown
    assert "\x1b[31m[2/3] plainode · s2: DNF (diverged, epoch 4) in 1.0 s: loss is nan" in shown
    assert "[1/3] plainode · s1: finished, test accuracy 0.7500, trained in 1.0 s" in shown
    assert "trained in 1.0 s, evaluated in 2.5 s" in shown


def test_a_first_trial_that_compiles_kernels_says_so_until_its_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    for is_first in (True, False):
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        with ProgressMonitor(sweep, store, console, "run") as monitor:
            monitor.on_plan(2, 2)
            shown = []
            for trial in sweep.trials:
                monitor.on_start(trial.id)
                shown.append(monitor._progress.below)
                monitor.on_epoch(trial.id, {"epoch": 1})
                shown.append(monitor._progress.below)
        assert shown == [progress.COMPILING if is_first else "", "", "", ""]
        cache = Path(KernelCache(keep).cache_path)
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "solve_kernels.solve_fixed-155.py311.nbi").touch()


def test_without_a_terminal_an_epoch_is_printed_only_after_a_silence(tmp_path, monkeypatch):
    sweep, store, screen = tiny(tmp_path), Store(tmp_path / "runs"), io.StringIO()
    trial_id, now = sweep.trials[0].id, [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressMonitor(sweep, store, Console(file=screen, width=120), "run") as monitor:
        monitor.on_plan(1, 1)
        monitor.on_start(trial_id)
        for now[0], epoch in [(30.0, 1), (61.0, 2), (90.0, 3), (122.0, 4)]:
            monitor.on_epoch(trial_id, {"epoch": epoch, "test_accuracy": epoch / 10})
    epochs = sweep.trials[0].spec.train.epochs
    assert screen.getvalue().splitlines()[1:] == [
        f"plainode · s0: epoch {epoch} of {epochs}, test accuracy 0.{epoch}00" for epoch in (2, 4)
    ]


def test_what_a_trial_took_is_the_time_of_all_its_attempts(tmp_path):
    sweep, store, screen = tiny(tmp_path), Store(tmp_path / "runs"), io.StringIO()
    keep(sweep, store, [replace(result(0.5), trained_s=7200.0)])
    with ProgressMonitor(sweep, store, Console(file=screen, width=120), "run") as monitor:
        monitor.on_end(sweep.trials[0].id, None)
    assert "trained in 7200.0 s" in screen.getvalue()


def test_a_trained_trial_is_said_to_take_what_its_new_points_take(tmp_path):
    sweep, store, screen = tiny(tmp_path), Store(tmp_path / "runs"), io.StringIO()
    keep(sweep, store, [result(0.5)])
    trial_id = sweep.trials[0].id
    folder = store.folder(trial_id)
    folder.checkpoint.touch()
    points = [{"outcome": "finished", "nfe": 0, "measuring_s": s} for s in (4.0, 1.5)]
    folder.write_evaluations(points[:1])
    with ProgressMonitor(sweep, store, Console(file=screen, width=120), "evaluate") as monitor:
        monitor.on_start(trial_id)
        folder.write_evaluations(points)
        monitor.on_end(trial_id, None)
    assert "finished, test accuracy 0.5000, evaluated in 1.5 s" in screen.getvalue()


def test_a_finished_trial_that_is_trained_again_is_named_with_the_reason(tmp_path):
    sweep, store, screen = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs"), io.StringIO()
    keep(sweep, store, [result(0.5), result(0.75)])
    store.folder(sweep.trials[1].id).checkpoint.touch()
    with ProgressMonitor(sweep, store, Console(file=screen, width=120), "run") as monitor:
        for trial in sweep.trials:
            monitor.on_start(trial.id)
    [line] = [line for line in screen.getvalue().splitlines() if "trained again" in line]
    assert line == "plainode · s0: its checkpoint is missing: trained again, to be evaluated"


@pytest.mark.parametrize("missing", [0, 1])
def test_what_precedes_and_follows_the_trials_is_named(missing, tmp_path):
    sweep, shown = tiny(tmp_path), []
    for is_terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=is_terminal, width=120)
        with ProgressMonitor(sweep, Store(tmp_path / "runs"), console, "run") as monitor:
            monitor.on_plan(1, missing)
            for phase in ("starting Ray", "writing the report"):
                monitor.on_phase(phase)
                monitor._progress.refresh()
        shown.append(screen.getvalue())
    live, log = shown
    assert "starting Ray" in live
    assert live.rindex(f"0 done, 0 running, {missing} left") > live.rindex("writing the report")
    assert log == f"tiny: 1 trial, {missing} to run\nstarting Ray\nwriting the report\n"


def test_the_answer_of_a_report_is_plain_text(tmp_path):
    sweep, _ = made(tmp_path, steady, baseline=RELU)
    report = write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    best, baseline, cost = report.answer
    assert best.startswith(
        "Best: tanh steps 8, 70.10 ± 24.85 % test accuracy (n = 3). It is not clearly"
    )
    assert baseline.startswith("Against the baseline: 1 better and 1 without")
    assert cost == "Cost: 12 trials, 12 seconds of training and tests. None failed."


def test_a_report_of_nothing_has_no_answer(tmp_path):
    sweep = tiny(tmp_path)
    assert write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report").answer == []


def test_a_launch_with_nothing_to_do_says_the_answer_that_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    first = api.run(sweep, store, inline=True, track=False).published
    assert first.answer[-1].startswith("Cost: 1 trial")
    monkeypatch.delattr("nodebench.report.page.write_report_folder")
    assert api.run(sweep, store, inline=True, track=False).published == first


def test_of_a_long_answer_the_first_lines_and_the_cost_are_said(tmp_path, capsys):
    lines = [f"Line {n}: text" for n in range(7)]
    progress.say_answer(Launched([], Published(answer=lines)))
    assert capsys.readouterr().out.splitlines() == [f"Line {n}: text" for n in (0, 1, 2, 3, 6)]
