"""One trial's folder in the store."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Self, overload

from pydantic import BaseModel, ValidationError

from nodebench.errors import StoreError, masked
from nodebench.files import modified, read_json, write
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.identity import Cell
from nodebench.store.lock import locked, read_locked
from nodebench.store.result import Result, TrialState, read_result
from nodebench.store.rows import Row, is_current, machine_of, without_errors

TRIAL_WAIT_S = 120.0
"""Long enough after a node has died: network file systems keep its locks, NFS for 90 s."""


class TrialRecord(BaseModel):
    """What is read of `trial.json`: the spec, and hashes of the user's files that it began with."""

    spec: TrialSpec
    code: dict[str, str | None] | None = None
    weights: str | None = None


class _File:
    """An attribute of a trial's folder: the path of its file with this name."""

    def __init__(self, name: str):
        self.name = name

    @overload
    def __get__(self, folder: None, owner: type) -> Self: ...

    @overload
    def __get__(self, folder: TrialFolder, owner: type) -> Path: ...

    def __get__(self, folder: TrialFolder | None, owner: type) -> Self | Path:
        return self if folder is None else folder.path / self.name


class TrialFolder:
    """One trial's files."""

    spec_file = _File("trial.json")
    """The trial's spec, the hashes of the user's code that it began with, and the pack's size."""
    history_file = _File("history.jsonl")
    """A row per epoch."""
    evaluations_file = _File("evaluations.json")
    """Evaluations of the trained model under other solvers."""
    trajectories_file = _File("trajectories.json")
    """Paths of the trained model."""
    timings_file = _File("timings.json")
    """The time of a step on each kind of machine, with nothing else running."""
    result_file = _File("result.json")
    """The trial's result, which ends it; the same artifact ends its run of MLflow."""
    elsewhere_file = _File("elsewhere.json")
    """The results of the same trial on other machines."""
    error_file = _File("error.txt")
    """The traceback of a crash."""
    given_up_file = _File("given-up")
    """The mark by which a search ends a trial that another process runs."""
    lock_file = _File("lock")
    """Held by the process that trains."""
    checkpoint = _File("checkpoint.pt")
    """The newest checkpoint."""
    checkpoint_before = _File("checkpoint-before.pt")
    """The previous checkpoint."""
    retraining = _File("checkpoint-again.pt")
    """The checkpoint of a finished trial that is retrained, since its own is gone."""
    log_file = _File("log.txt")
    """The trial's log."""

    def __init__(self, path: Path):
        self.path = path

    def create(self, trial: Trial, packed: int = 1) -> None:
        """Begins an attempt: creates the folder, writes the spec, removes leftovers of a crash.

        The trial is one of `packed` trials that are trained together.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.partial_files():  # of a process that was killed
            leftover.unlink()
        self.error_file.unlink(missing_ok=True)
        self.given_up_file.unlink(missing_ok=True)
        spec = trial.spec.model_dump(mode="json", exclude_none=True)
        weights = {"weights": trial.cell.weights_hash} if trial.spec.weights else {}
        together = {"packed": packed} if packed > 1 else {}
        code = trial.cell.code_hashes
        record = {"id": trial.id, "spec": spec, "code": code, **weights, **together}
        write(self.spec_file, json.dumps(record, indent=1))
        self.log(f"started by process {os.getpid()} on {socket.gethostname()}")

    def trial(self) -> Trial:
        """The trial, with the code and the weights file that it began with.

        Raises:
            StoreError: if there is none, or it is damaged or from another release.
        """
        values = read_json(self.spec_file, None)
        if values is None:
            raise StoreError(f"`{self.path}` does not contain a trial")
        try:
            record = TrialRecord.model_validate(values)
        except ValidationError as error:
            message = f"`{self.spec_file}` is damaged or from another release: {error}"
            raise StoreError(message) from error
        return Trial(record.spec, Cell(record.spec, record.code, record.weights))

    @property
    def packed(self) -> int:
        """The number of trials, including this one, that the last attempt trained together."""
        return max(1, int(read_json(self.spec_file, {}).get("packed", 1)))

    def write_history(self, rows: list[Row]) -> None:
        """Replaces the history."""
        write(self.history_file, "".join(f"{json.dumps(row)}\n" for row in rows))

    def history(self) -> list[Row]:
        """A row per epoch, up to the last checkpoint or the failure after it."""
        with contextlib.suppress(FileNotFoundError, ValueError):  # damaged: a checkpoint has it too
            lines = self.history_file.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        return []

    def write_evaluations(self, points: list[Row]) -> None:
        """Replaces the evaluations."""
        write(self.evaluations_file, json.dumps(points, indent=1))

    def evaluations(self) -> list[Row]:
        """The points at which the trained model was evaluated, without errors by an older rule."""
        points: list[Row] = read_json(self.evaluations_file, [])
        return [point if is_current(point) else without_errors(point) for point in points]

    def write_trajectories(self, rows: list[Row]) -> None:
        """Replaces the trajectories."""
        write(self.trajectories_file, json.dumps(rows))

    def trajectories(self) -> list[Row]:
        """Paths of the trained model, one row per path or point; empty if there are none."""
        rows: list[Row] = read_json(self.trajectories_file, [])
        return rows

    def add_timing(self, row: Row) -> None:
        """Keeps a timing, unless a newer one on the same kind of machine is known."""
        rows = {machine_of(known): known for known in self.timings()}
        if row["time"] >= rows.get(machine_of(row), row)["time"]:
            rows[machine_of(row)] = row
            write(self.timings_file, json.dumps(list(rows.values()), indent=1))

    def timings(self) -> list[Row]:
        """The time of a training step alone on its device: one row per kind of machine."""
        rows: list[Row] = read_json(self.timings_file, [])
        return rows

    def write_result(self, result: Result) -> None:
        """Writes the result, which ends the trial."""
        write(self.result_file, json.dumps(asdict(result), indent=1))

    def result(self) -> Result | None:
        """The trial's result, if it has one."""
        return read_result(read_json(self.result_file, None))

    def write_elsewhere(self, results: list[Result]) -> None:
        """Replaces the results of the trial on other machines."""
        write(self.elsewhere_file, json.dumps([asdict(each) for each in results], indent=1))

    def elsewhere(self) -> list[Result]:
        """The results of the trial on other machines."""
        rows: list[Row] = read_json(self.elsewhere_file, [])
        return [result for row in rows if (result := read_result(row))]

    def write_error(self, traceback: str) -> None:
        """Keeps the traceback of a crash."""
        write(self.error_file, masked(traceback))

    def error(self) -> str | None:
        """The traceback of the last attempt, if it crashed."""
        with contextlib.suppress(OSError, ValueError):
            return self.error_file.read_text(encoding="utf-8")
        return None

    def crash(self) -> str:
        """The last line of the newest attempt's traceback; empty if it did not crash."""
        return ((self.error() or "").splitlines() or [""])[-1]

    def log(self, text: str) -> None:
        """Appends a line, with the time, to the trial's log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {masked(text)}\n")

    @property
    def reported_files(self) -> tuple[Path, ...]:
        """The files that reports and MLflow show, in the order of MLflow's fingerprints."""
        files = (
            self.history_file,
            self.evaluations_file,
            self.trajectories_file,
            self.timings_file,
            self.result_file,
        )
        # Only if it exists, so that the fingerprints of trials without it do not change.
        return (*files, self.elsewhere_file) if self.elsewhere_file.exists() else files

    def artifacts(self) -> list[Path]:
        """The files that describe the trial: all but checkpoints and locks."""
        files = (self.spec_file, *self.reported_files, self.log_file, self.error_file)
        return [path for path in files if path.exists()]

    def stamp(self) -> tuple[int, ...]:
        """A stamp that changes with every file that reports or MLflow show."""
        return tuple(map(modified, (*self.reported_files, self.error_file)))

    def give_up(self) -> None:
        """Tells the process that trains it to stop: a search has found others to be better."""
        self.given_up_file.touch()

    def take_given_up(self) -> bool:
        """Whether the trial was given up; removes the mark."""
        was_there = self.given_up_file.exists()
        self.given_up_file.unlink(missing_ok=True)
        return was_there

    def partial_files(self) -> list[Path]:
        """Files that are being written, or were when a process was killed."""
        return list(self.path.glob(".*.partial"))

    def damaged_files(self) -> list[Path]:
        """The checkpoints that could not be read, which nothing needs any more."""
        return list(self.path.glob("*.damaged"))

    def was_begun(self) -> bool:
        """Whether the folder contains any file of a trial, even from an old release."""
        traces = (self.spec_file, self.lock_file, self.result_file, self.log_file, self.checkpoint)
        return any(path.exists() for path in traces)

    def files(self) -> list[Path]:
        """All files of the trial except its lock and half-written or damaged files."""
        files = sorted(path for path in self.path.glob("[!.]*") if path.is_file())
        return [path for path in files if path not in (self.lock_file, *self.damaged_files())]

    def checkpoints(self) -> list[Path]:
        """The existing checkpoints, the newest first."""
        paths = (self.checkpoint, self.checkpoint_before, self.retraining)
        return [path for path in paths if path.exists()]

    def discard(self, checkpoint: Path) -> None:
        """Sets a damaged checkpoint aside."""
        checkpoint.replace(checkpoint.with_suffix(".damaged"))

    def state(self, result: Result | None) -> TrialState:
        """The trial's state, given its result."""
        if self.is_locked():  # also while it is evaluated
            return TrialState.RUNNING
        if result is not None and not result.is_error:
            return TrialState.DONE
        if result is not None:
            return TrialState.FAILED
        return TrialState.INTERRUPTED if self.checkpoints() else TrialState.NEW

    def is_locked(self) -> bool:
        """Whether a process holds the trial."""
        with self.read_locked() as is_free:
            return not is_free

    def read_locked(self) -> contextlib.AbstractContextManager[bool]:
        """Keeps writers out of the trial; yields False if a process already holds it."""
        return read_locked(self.lock_file)

    def locked(self, wait_s: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Holds the trial for this process.

        Raises:
            StoreError: if another process still holds it after `wait_s`, or TRIAL_WAIT_S.
        """
        wait_s = TRIAL_WAIT_S if wait_s is None else wait_s
        return locked(self.lock_file, f"the trial `{self.path.name}`", wait_s)
