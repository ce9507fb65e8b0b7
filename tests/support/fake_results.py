"""Made-up results: trials that nobody trained, with accuracies of which the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nodebench.api import write_report
from nodebench.report.analysis.findings import Findings
from nodebench.store import Result, Store
from nodebench.sweep import Sweep
from tests.support.tiny_sweeps import tiny

GRID = {"model.activation": ["relu", "tanh"], "solver.steps": [2, 8]}
TANH, RELU = ({"model.activation": name} for name in ("tanh", "relu"))
FINE = {"solver.steps": 8}


def made(folder: Path, accuracy: Any, seeds: int = 3, **fields: Any) -> tuple[Sweep, Findings]:
    """A sweep whose trials' accuracies are given by (activation, steps, seed); None: missing."""
    folder.mkdir(exist_ok=True)
    sweep = tiny(folder, **{"grid": GRID, "seeds": list(range(seeds)), **fields})
    store = Store(folder / "runs")
    for trial in sweep.trials:
        value = accuracy(trial.spec.model.activation, trial.spec.solver.steps, trial.spec.seed)
        if value is None:
            continue
        folder_of = store.folder(trial.id)
        folder_of.create(trial)
        summary = {"test_accuracy": value, "epoch_s": 1.0, "nfe_forward": trial.spec.solver.steps}
        outcome = "diverged" if value == "diverged" else "finished"
        result = Result(outcome, "", 1, {} if value == "diverged" else summary, [], 0, 1)
        folder_of.write_result(result)
    return sweep, Findings(sweep, store)


def steady(activation: str, steps: int, seed: int) -> float:
    """Tanh is better by 0.1 at 8 steps, and by chance at 2; seeds differ more than cells."""
    fine, coarse = (0.1, 0.102, 0.098)[seed % 3], (0.04, -0.05, 0.02)[seed % 3]
    better = {("tanh", 8): fine, ("tanh", 2): coarse}
    wobble = (0.0, 0.001, 0.002)[seed % 3]
    return 0.5 + 0.1 * seed + better.get((activation, steps), 0.0) + wobble * (steps == 8)


def finish(sweep, store):
    """Gives all trials of a sweep the accuracy 0.5 + seed / 10."""
    for trial in sweep.trials:
        store.folder(trial.id).create(trial)
        summary = {"test_accuracy": 0.5 + trial.spec.seed / 10}
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))


def finished(folder, **fields):
    """The report folder of a sweep whose trials all have the accuracy 0.5 + seed / 10."""
    folder.mkdir()
    sweep, store = tiny(folder, **fields), Store(folder / "runs")
    finish(sweep, store)
    write_report(sweep, store, folder / "report")
    return str(folder / "report")


ROW = {"nfe_forward": 2.0, "nfe_backward": 0.0, "parameters": 71, "epoch_s": 0.5}
HERE = {"hardware": "abacus", "threads": 1, "torch": "2", "device": "cpu"}


def ended(accuracy, **changes):
    """A result with this accuracy, on a made-up machine."""
    summary = {**ROW, "test_accuracy": accuracy, "best_test_accuracy": accuracy + 0.01}
    tags = {"commit": "abc", "dirty": "no"}
    return replace(Result("finished", "", 3, summary, [HERE], 1.0, 2.0, tags=tags), **changes)


def partly_failed(folder):
    """Two cells of three seeds with known accuracies; one trial diverged, one is missing."""
    sweep = tiny(folder, grid={"solver.steps": [2, 4]}, seeds=[0, 1, 2])
    store = Store(folder / "runs")
    results = [
        ended(0.8),
        ended(0.9),
        ended(1.0),
        ended(0.5),
        ended(0.0, outcome="diverged", reason="loss is nan", epoch=1, summary={"parameters": 71}),
    ]
    for trial, end in zip(sweep.trials, results, strict=False):
        store.folder(trial.id).write_result(end)
        curve = [{"epoch": e, "test_accuracy": e / 10, "train_loss": 1 / e, **ROW} for e in (1, 2)]
        store.folder(trial.id).write_history([{**row, "iteration": 1, "time": 0} for row in curve])
    return sweep, store
