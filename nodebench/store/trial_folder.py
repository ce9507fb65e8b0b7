"""One trial's files in the store, and its result."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from nodebench.errors import StoreError, masked
from nodebench.files import modified, read_json, write
from nodebench.spec import Trial, TrialSpec
from nodebench.store.lock import locked, read_locked
from nodebench.store.result import Result, TrialState, read_result
from nodebench.store.rows import Row, is_current, machine_of, without_errors

TRIAL_WAIT_S = 120.0
"""Also for a node that died: a network file system keeps its locks for a while, NFS for 90 s."""

RESULT_NAME = "result.json"
"""Also of the artifact in MLflow that ends a run."""


class TrialFolder:
    """One trial's files."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def spec_file(self) -> Path:
        """What the trial is, and the code that it was begun with."""
        return self.path / "trial.json"

    @property
    def history_file(self) -> Path:
        """A row per epoch."""
        return self.path / "history.jsonl"

    @property
    def evaluations_file(self) -> Path:
        """The trained model under other solvers."""
        return self.path / "evaluations.json"

    @property
    def trajectories_file(self) -> Path:
        """Paths of the trained model."""
        return self.path / "trajectories.json"

    @property
    def timings_file(self) -> Path:
        """What a step takes, alone on each kind of machine."""
        return self.path / "timings.json"

    @property
    def result_file(self) -> Path:
        """The trial's end; a trial without it is not finished."""
        return self.path / RESULT_NAME

    @property
    def elsewhere_file(self) -> Path:
        """The ends that the same trial came to on other machines."""
        return self.path / "elsewhere.json"

    @property
    def error_file(self) -> Path:
        """The traceback of a crash."""
        return self.path / "error.txt"

    @property
    def given_up_file(self) -> Path:
        """The mark by which a search ends a trial that another process runs."""
        return self.path / "given-up"

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains."""
        return self.path / "lock"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def checkpoint_before(self) -> Path:
        """The one before it."""
        return self.path / "checkpoint-before.pt"

    @property
    def retraining(self) -> Path:
        """The checkpoint of a finished trial that is trained again, since its own is gone."""
        return self.path / "checkpoint-again.pt"

    @property
    def log_file(self) -> Path:
        """What happened."""
        return self.path / "log.txt"

    def create(self, trial: Trial) -> None:
        """Begins an attempt: makes the folder, writes the spec, removes what a crash left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.partial_files():  # of a process that was killed
            leftover.unlink()
        self.error_file.unlink(missing_ok=True)
        self.given_up_file.unlink(missing_ok=True)
        spec = trial.spec.model_dump(mode="json", exclude_none=True)
        weights = {"weights": trial.cell.weights} if trial.spec.weights else {}
        record = {"id": trial.id, "spec": spec, "code": trial.cell.code, **weights}
        write(self.spec_file, json.dumps(record, indent=1))
        self.log(f"started by process {os.getpid()} on {socket.gethostname()}")

    def spec(self) -> TrialSpec:
        """What the trial is.

        Raises:
            StoreError: if nothing is known of it, or not in this release's words.
        """
        values = read_json(self.spec_file, None)
        if values is None:
            raise StoreError(f"`{self.path}` does not contain a trial")
        try:
            return TrialSpec.model_validate(values["spec"])
        except (ValidationError, TypeError, KeyError) as error:
            message = f"`{self.path / 'trial.json'}` is damaged or from another release: {error}"
            raise StoreError(message) from error

    def code(self) -> dict[str, str] | None:
        """Module -> SHA-256 of the user's own code; None of a trial that recorded nothing yet."""
        found: dict[str, str] | None = read_json(self.spec_file, {}).get("code")
        return found

    def weights(self) -> str | None:
        """The SHA-256 of the weights file that the trial began with; None if none is recorded."""
        found: str | None = read_json(self.spec_file, {}).get("weights")
        return found

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
        """Paths of the trained model, a row a point; empty where it has none to show."""
        rows: list[Row] = read_json(self.trajectories_file, [])
        return rows

    def add_timing(self, row: Row) -> None:
        """Keeps what the timing pass found, unless something newer of the same machine is known."""
        rows = {machine_of(known): known for known in self.timings()}
        if row["time"] >= rows.get(machine_of(row), row)["time"]:
            rows[machine_of(row)] = row
            write(self.timings_file, json.dumps(list(rows.values()), indent=1))

    def timings(self) -> list[Row]:
        """What a training step takes alone on its device: a row for each kind of machine."""
        rows: list[Row] = read_json(self.timings_file, [])
        return rows

    def write_result(self, result: Result) -> None:
        """Ends the trial."""
        write(self.result_file, json.dumps(asdict(result), indent=1))

    def result(self) -> Result | None:
        """The trial's end, if it has come."""
        return read_result(read_json(self.result_file, None))

    def write_elsewhere(self, results: list[Result]) -> None:
        """Replaces the ends that the trial came to on other machines."""
        write(self.elsewhere_file, json.dumps([asdict(each) for each in results], indent=1))

    def elsewhere(self) -> list[Result]:
        """The ends that the trial came to on other machines."""
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

    def artifacts(self) -> list[Path]:
        """The files that describe the trial: all but checkpoints and locks."""
        files = (self.spec_file, *self.reported_files, self.log_file, self.error_file)
        return [path for path in files if path.exists()]

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever a file does that a report or MLflow tells of."""
        return tuple(map(modified, (*self.reported_files, self.error_file)))

    @property
    def reported_files(self) -> tuple[Path, ...]:
        """Those that reports and MLflow show, in the order of MLflow's fingerprints."""
        files = (
            self.history_file,
            self.evaluations_file,
            self.trajectories_file,
            self.timings_file,
            self.result_file,
        )
        # Only if it is there: fingerprints of trials without it stay as they were.
        return (*files, self.elsewhere_file) if self.elsewhere_file.exists() else files

    def give_up(self) -> None:
        """Tells the process that trains it to end: a search found others better."""
        self.given_up_file.touch()

    def take_given_up(self) -> bool:
        """Whether the trial was given up; it no longer is afterwards."""
        was_there = self.given_up_file.exists()
        self.given_up_file.unlink(missing_ok=True)
        return was_there

    def partial_files(self) -> list[Path]:
        """Those that are being written, or were when a process was killed."""
        return list(self.path.glob(".*.partial"))

    def damaged_files(self) -> list[Path]:
        """The checkpoints that could not be read, which nothing needs any more."""
        return list(self.path.glob("*.damaged"))

    def was_begun(self) -> bool:
        """Whether anything of a trial is in the folder, however old the release that made it."""
        traces = (self.spec_file, self.lock_file, self.result_file, self.log_file, self.checkpoint)
        return any(path.exists() for path in traces)

    def files(self) -> list[Path]:
        """All that belongs to the trial: not its lock, and nothing half written or damaged."""
        files = sorted(path for path in self.path.glob("[!.]*") if path.is_file())
        return [path for path in files if path not in (self.lock_file, *self.damaged_files())]

    def state(self, result: Result | None) -> TrialState:
        """Where the trial stands, given its result."""
        if self.is_locked():  # also to evaluate what is trained
            return TrialState.RUNNING
        if result is not None and result.is_result:
            return TrialState.DONE
        if result is not None:
            return TrialState.FAILED
        return TrialState.INTERRUPTED if self.checkpoints() else TrialState.NEW

    def discard(self, checkpoint: Path) -> None:
        """Puts a damaged checkpoint aside."""
        checkpoint.replace(checkpoint.with_suffix(".damaged"))

    def checkpoints(self) -> list[Path]:
        """The checkpoints that there are, the newest first."""
        paths = (self.checkpoint, self.checkpoint_before, self.retraining)
        return [path for path in paths if path.exists()]

    def is_locked(self) -> bool:
        """Whether a process holds the trial."""
        with self.read_locked() as is_free:
            return not is_free

    def read_locked(self) -> contextlib.AbstractContextManager[bool]:
        """Keeps others from writing to the trial meanwhile; False where a process does already."""
        return read_locked(self.lock_file)

    def locked(self, wait_s: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Holds the trial for this process.

        Raises:
            StoreError: if another process still holds it after `wait_s`, or TRIAL_WAIT_S.
        """
        wait_s = TRIAL_WAIT_S if wait_s is None else wait_s
        return locked(self.lock_file, f"the trial `{self.path.name}`", wait_s)
