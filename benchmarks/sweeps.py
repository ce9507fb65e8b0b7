"""Whole sweeps: nodebench beside a shell loop, and beside plain Ray Tune with plain MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Row, compared, interleaved
from nodebench.api import write_report
from nodebench.planning.lookup import load_sweep
from nodebench.spec import Trial
from nodebench.store import Result, Store

NODEBENCH = [sys.executable, "-m", "nodebench"]
TRIALS = 24

DIGITS: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "odenet", "width": 32},
    "solver": {"method": "euler", "steps": 8},
    "train": {"epochs": 1, "batch_size": 64, "optimizer": {"name": "adam", "lr": 0.003}},
}
TRIVIAL: dict[str, Any] = {
    "data": {"name": "spheres", "train_size": 64},
    "model": {"name": "plainode", "field": "simple", "width": 32},
    "solver": {"method": "euler", "steps": 1},
    "train": {"iterations": 1, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.1}},
}


def write_sweep(folder: Path, base: dict[str, Any], **fields: Any) -> Path:
    """A sweep file in a folder of its own."""
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump({"name": "bench", "base": base, **fields}))
    return path


def nodebench(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A command that is left to run there, with a store of its own."""
    environment = {**os.environ, "NODEBENCH_RUNS": str(folder / "runs")}
    environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*NODEBENCH, *arguments], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def epochs_for(seconds: float) -> int:
    """How many epochs of the digits trial take so long here, alone on one thread."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sweep(folder, {**DIGITS, "train": {**DIGITS["train"], "epochs": 4}})
        nodebench(folder, "run", "bench.yaml", "--inline", "--no-track", "--no-report").wait()
        (history,) = (folder / "runs" / "trials").glob("*/history.jsonl")
        times = [json.loads(line)["epoch_s"] for line in history.read_text().splitlines()]
    return max(1, round(seconds / min(times)))


def throughput(rounds: int = 1) -> list[Row]:
    """24 trials under one `nodebench run`, and as a process each, two at a time."""
    rows = []
    for seconds, asked in ((10.0, "1.3"), (1.0, "2.5")):
        base = {**DIGITS, "train": {**DIGITS["train"], "epochs": epochs_for(seconds)}}
        took = interleaved(
            {"ours": lambda base=base: _whole(base), "loop": lambda base=base: _loop(base)},
            rounds,
            warm=0,
        )
        what = f"{TRIALS} digits trials of about {seconds:g} s, MLflow and report included"
        beside = "`run --inline` a trial, two at a time, without MLflow and report"
        rows.append(compared(what, took["ours"], beside, took["loop"], asked))
    return rows


def _whole(base: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        write_sweep(Path(temporary), base, seeds=list(range(TRIALS)))
        assert nodebench(Path(temporary), "run", "bench.yaml").wait() == 0


def _loop(base: dict[str, Any]) -> None:
    """What `xargs -P 2` does."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        waiting, running = [], []
        for seed in range(TRIALS):
            part = folder / str(seed)
            part.mkdir()
            write_sweep(part, base, seeds=[seed])
            waiting.append(part)
        while waiting or running:
            running = [process for process in running if process.poll() is None]
            while waiting and len(running) < 2:
                options = ("--inline", "--no-track", "--no-report")
                running.append(nodebench(waiting.pop(0), "run", "bench.yaml", *options))
            time.sleep(0.02)


def trivial_trials(count: int = 1000, rounds: int = 1) -> list[Row]:
    """Trials of one iteration, and the same steps and records by plain Ray Tune and MLflow."""
    took = interleaved(
        {"ours": lambda: _trivial(count), "plain": lambda: _plain(count)}, rounds, warm=0
    )
    what = f"{count:,} trials of one iteration"
    beside = "plain Ray Tune with plain MLflow (the ratio asked is ours over theirs, 1.2 at most)"
    return [compared(what, took["ours"], beside, took["plain"], "0.83")]


def overhead(counts: Sequence[int] = (100, 1000, 10_000)) -> list[Row]:
    """Trials of one iteration, ever more of them: what each takes beyond a run of two."""
    start, *others = (
        interleaved({"ours": partial(_trivial, n)}, 1, 0)["ours"] for n in (2, *counts)
    )
    each = [
        [(whole - first) / count for whole, first in zip(took, start, strict=True)]
        for count, took in zip(counts, others, strict=True)
    ]
    return [
        compared(f"a trial of one iteration, of {counts[0]}", each[0], f"of {count:,}", seconds)
        for count, seconds in zip(counts[1:], each[1:], strict=True)
    ]


def _trivial(count: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        write_sweep(Path(temporary), TRIVIAL, seeds=list(range(count)))
        assert nodebench(Path(temporary), "run", "bench.yaml", "--no-report").wait() == 0


def _plain(count: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "benchmarks.plain_tune", temporary, str(count)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def report_of_many(runs: int = 1000, epochs: int = 100, rounds: int = 3) -> list[Row]:
    """The report of many long histories from the store: of few configurations, and of many."""
    return [_report(runs, each, epochs, rounds) for each in (runs // 100, runs // 5)]


def _report(runs: int, configurations: int, epochs: int, rounds: int) -> Row:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = {**DIGITS, "train": {**DIGITS["train"], "epochs": epochs}}
        grid = {
            "model.norm": ["bn", "ln"],
            "solver.steps": list(range(1, configurations // 2 + 1)),
        }
        fields = {"seeds": list(range(runs // configurations)), "baseline": {"model.norm": "bn"}}
        sweep = load_sweep(write_sweep(folder, base, grid=grid, **fields))
        store = Store(folder / "runs")
        for trial in sweep.trials:
            _made_up(trial, store, epochs)
        took = interleaved({"ours": lambda: write_report(sweep, store, folder / "report")}, rounds)
    what = f"the report of {runs:,} runs of {epochs} epochs, {configurations} configurations"
    return compared(what, took["ours"], "20 s", [20.0] * rounds, "1")


def _made_up(trial: Trial, store: Store, epochs: int) -> None:
    folder = store.folder(trial.id)
    folder.create(trial)
    rows = [
        {
            "epoch": n, "iteration": 22 * n, "lr": 0.003, "train_loss": 1 / n,
            "train_accuracy": 1 - 1 / (n + 1), "nfe_forward": 8.0, "nfe_backward": 0.0,
            "epoch_s": 1.0, "peak_memory_bytes": 1e8, "test_loss": 1 / n,
            "test_accuracy": 1 - 1 / (n + 1), "time": 1e9 + n,
        }
        for n in range(1, epochs + 1)
    ]  # fmt: skip
    folder.write_history(rows)
    summary = {k: v for k, v in rows[-1].items() if k not in ("epoch", "time")}
    folder.write_result(Result("finished", "", epochs, summary, [], 1e9, 1e9 + epochs))
