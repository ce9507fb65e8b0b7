"""One trial's files in the store, and its result."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from nodebench.errors import StoreError, masked
from nodebench.files import modified, read_json, write
from nodebench.spec import Trial, TrialSpec
from nodebench.store.lock import held, unheld
from nodebench.store.result import Result, Row, read_result

State = Literal["done", "failed", "running", "interrupted", "new"]

TRIAL_WAIT_S = 120.0
"""Also for a node that died: a network file system keeps its locks for a while, NFS for 90 s."""

SHOWN = ("history.jsonl", "evaluations.json", "trajectories.json", "timings.json", "result.json")


class TrialFolder:
    """One trial's files."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def checkpoint_before(self) -> Path:
        """The one before it."""
        return self.path / "checkpoint-before.pt"

    @property
    def log_file(self) -> Path:
        """What happened."""
        return self.path / "log.txt"

    def create(self, trial: Trial) -> None:
        """Begins an attempt: makes the folder, writes the spec, removes what a crash left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".*.partial"):  # of a process that was killed
            leftover.unlink()
        for old in ("error.txt", "given-up"):
            (self.path / old).unlink(missing_ok=True)
        spec = trial.spec.model_dump(mode="json", exclude_none=True)
        record = {"id": trial.id, "spec": spec, "code": trial.cell.code}
        write(self.path / "trial.json", json.dumps(record, indent=1))
        self.log(f"started by process {os.getpid()} on {socket.gethostname()}")

    def spec(self) -> TrialSpec:
        """What the trial is.

        Raises:
            StoreError: if nothing is known of it, or not in this release's words.
        """
        values = read_json(self.path / "trial.json", None)
        if values is None:
            raise StoreError(f"`{self.path}` holds no trial")
        try:
            return TrialSpec.model_validate(values["spec"])
        except (ValidationError, TypeError, KeyError) as error:
            message = f"`{self.path / 'trial.json'}` is damaged, or of another release: {error}"
            raise StoreError(message) from error

    def code(self) -> dict[str, str] | None:
        """Module -> SHA-256 of the user's own code; None of a trial that recorded nothing yet."""
        found: dict[str, str] | None = read_json(self.path / "trial.json", {}).get("code")
        return found

    def write_history(self, rows: list[Row]) -> None:
        """Replaces the history."""
        write(self.path / "history.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))

    def history(self) -> list[Row]:
        """A row per epoch, up to the last checkpoint or the failure after it."""
        with contextlib.suppress(FileNotFoundError, ValueError):  # damaged: a checkpoint has it too
            lines = (self.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        return []

    def write_evaluations(self, points: list[Row]) -> None:
        """Replaces the evaluations."""
        write(self.path / "evaluations.json", json.dumps(points, indent=1))

    def evaluations(self) -> list[Row]:
        """The points at which the trained model was evaluated."""
        points: list[Row] = read_json(self.path / "evaluations.json", [])
        return points

    def write_trajectories(self, rows: list[Row]) -> None:
        """Replaces the trajectories."""
        write(self.path / "trajectories.json", json.dumps(rows))

    def trajectories(self) -> list[Row]:
        """Paths of the trained model, a row a point; empty where it has none to show."""
        rows: list[Row] = read_json(self.path / "trajectories.json", [])
        return rows

    def add_timing(self, row: Row) -> None:
        """Keeps what the timing pass found, unless something newer of the same machine is known."""
        rows = {_machine(known): known for known in self.timings()}
        if row["time"] >= rows.get(_machine(row), row)["time"]:
            rows[_machine(row)] = row
            write(self.path / "timings.json", json.dumps(list(rows.values()), indent=1))

    def timings(self) -> list[Row]:
        """What a training step takes alone on its device: a row for each kind of machine."""
        rows: list[Row] = read_json(self.path / "timings.json", [])
        return rows

    def write_result(self, result: Result) -> None:
        """Ends the trial."""
        write(self.path / "result.json", json.dumps(asdict(result), indent=1))

    def result(self) -> Result | None:
        """The trial's end, if it has come."""
        return read_result(read_json(self.path / "result.json", None))

    def write_error(self, traceback: str) -> None:
        """Keeps the traceback of a crash."""
        write(self.path / "error.txt", masked(traceback))

    def log(self, text: str) -> None:
        """Appends a line, with the time, to the trial's log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {masked(text)}\n")

    def artifacts(self) -> list[Path]:
        """The files that describe the trial: all but checkpoints and locks."""
        names = ("trial.json", *SHOWN, "log.txt", "error.txt")
        return [path for path in map(self.path.joinpath, names) if path.exists()]

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever one of the files that are `SHOWN` does."""
        return tuple(map(modified, map(self.path.joinpath, SHOWN)))

    def state(self, result: Result | None) -> State:
        """Where the trial stands, given its result."""
        if self.is_locked():  # also to evaluate what is trained
            return "running"
        if result is not None and result.is_result:
            return "done"
        if result is not None:
            return "failed"
        return "interrupted" if self.checkpoints() else "new"

    def give_up(self) -> None:
        """Leaves word that a search has given the trial up."""
        (self.path / "given-up").touch()

    def take_given_up(self) -> bool:
        """Whether there was such word, which is gone then."""
        word = self.path / "given-up"
        was_there = word.exists()
        word.unlink(missing_ok=True)
        return was_there

    def discard(self, checkpoint: Path) -> None:
        """Puts a damaged checkpoint aside."""
        checkpoint.replace(checkpoint.with_suffix(".damaged"))

    def checkpoints(self) -> list[Path]:
        """The checkpoints that there are, the newest first."""
        return [path for path in (self.checkpoint, self.checkpoint_before) if path.exists()]

    def is_locked(self) -> bool:
        """Whether a process holds the trial."""
        with self.unchanging() as is_free:
            return not is_free

    def unchanging(self) -> contextlib.AbstractContextManager[bool]:
        """Keeps others from writing to the trial meanwhile; False where a process does already."""
        return unheld(self.path / "lock")

    def locked(self, wait_s: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Holds the trial for this process.

        Raises:
            StoreError: if another process still holds it after `wait_s`, or TRIAL_WAIT_S.
        """
        wait_s = TRIAL_WAIT_S if wait_s is None else wait_s
        return held(self.path / "lock", f"the trial `{self.path.name}`", wait_s)


def _machine(timing: Row) -> tuple[object, ...]:
    return tuple(timing[name] for name in ("hardware", "device", "threads", "torch"))
