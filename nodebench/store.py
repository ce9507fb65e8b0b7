"""The memory: what every trial has left on disk.

    runs/trials/<id>/trial.json         the resolved spec
                     checkpoint.pt      model, optimiser, random state, history
                     checkpoint-before.pt  the one before it, until the training is finished
                     history.jsonl      a row per epoch, up to the checkpoint or a failure
                     evaluations.json   the trained model under other solvers
                     trajectories.json  paths of the trained model that a report draws
                     result.json        the outcome; a trial without it is not finished
                     log.txt, error.txt what happened, and the traceback if it went wrong
                     given-up           for a moment, that a search has given the trial up
                     lock               held by the process that trains
    runs/sweeps/<name>.yaml             the sweep as it was last launched
                <name>.json             every trial that it ever planned: id -> label
                <name>.memo.json        what the last launch brought up to date; safe to delete
                <name>.lock             held by the process that runs it
                <name>.tracking.lock    held by the process that writes it to MLflow
    runs/index.json                     a cache of the results; safe to delete
    runs/.ray-*, .merge-*, .gone-*      of processes at work, or left by killed ones

Every file is replaced as a whole, so a reader, or a process that was killed, never leaves or
sees half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from nodebench.errors import Stopped, StoreError
from nodebench.identity import Trial
from nodebench.lock import held, unheld
from nodebench.spec import TrialSpec

Row = dict[str, Any]
State = Literal["done", "failed", "running", "interrupted", "new"]

FINISHED = "finished"
ERROR = "error"

LOCK_WAIT_S = 30.0
"""For a process whose driver was killed, and which may still be writing."""

TRIAL_WAIT_S = 120.0
"""Also for a node that died: a network file system keeps its locks for a while, NFS for 90 s."""

INCIDENTAL = frozenset(
    {"epoch_s", "peak_memory_bytes", "time", "forward_s", "measuring_s", "seconds", "memory_bytes"}
)
"""Metrics of the machine and the moment, which another run of the same trial has otherwise."""

SHOWN = ("history.jsonl", "evaluations.json", "trajectories.json", "result.json")


@dataclass(frozen=True)
class Result:
    """How a trial ended.

    `outcome` is `finished`, that of a `TrialFailure`, or `error` for a crash of the code, which
    is no result. `epoch` counts complete epochs. `limit` is the limit that was hit, if one was.
    `recipe` is the trial's `recipe_id`.
    `environments` has one entry, or one for each machine or version that took part.
    """

    outcome: str
    reason: str
    epoch: int
    summary: dict[str, float]
    environments: list[dict[str, Any]]
    started: float
    finished: float
    limit: float | None = None
    recipe: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def is_result(self) -> bool:
        """Whether this answers the question that the trial asked, if only by a failure."""
        return self.outcome != ERROR

    def __str__(self) -> str:
        if self.outcome == FINISHED:
            return FINISHED
        if not self.is_result:
            return "error"
        if self.outcome == Stopped.outcome:
            return f"stopped (epoch {self.epoch})"
        return f"DNF ({self.outcome}, epoch {self.epoch + 1})"


class Store:
    """The trials under one folder."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._index_file = self.root / "index.json"
        self._trials = self.root / "trials"

    def folder(self, trial_id: str) -> TrialFolder:
        """The place of a trial, which need not exist."""
        return TrialFolder(self._trials / trial_id)

    def begun(self) -> set[str]:
        """The ids of all trials that have a folder."""
        try:
            return set(os.listdir(self._trials))
        except FileNotFoundError:
            return set()

    def sweep_file(self, name: str) -> Path:
        """The copy of a sweep's file, as it was last launched."""
        return self.root / "sweeps" / f"{name}.yaml"

    @contextlib.contextmanager
    def sweep_lock(self, name: str, shard: str) -> Iterator[None]:
        """Holds the right to run a sweep, or one shard `i/n` of it, beside which others may run.

        Raises:
            StoreError: if another process runs it.
        """
        whole, is_part = self.root / "sweeps" / f"{name}.lock", shard != "1/1"
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(whole, f"the sweep `{name}`", shared=is_part))
            if is_part:
                part = whole.with_name(f"{name}.{shard.replace('/', '-of-')}.lock")
                stack.enter_context(held(part, f"shard {shard} of the sweep `{name}`"))
            yield

    def tracking_lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Holds the right to write a sweep to MLflow.

        Raises:
            StoreError: if another process still holds it after LOCK_WAIT_S.
        """
        path = self.root / "sweeps" / f"{name}.tracking.lock"
        return held(path, f"writing `{name}` to MLflow", LOCK_WAIT_S)

    def ever_planned(self, name: str) -> dict[str, str]:
        """Every trial that a sweep of this name planned when it was launched: id -> label."""
        planned: dict[str, str] = _read_json(self._planned_file(name), {})
        return planned

    def write_sweep(self, name: str, text: str, planned: dict[str, str]) -> None:
        """Keeps a sweep's file as it is launched, and adds what it plans to `ever_planned`."""
        write(self.sweep_file(name), text)
        before = self.ever_planned(name)
        if not planned.keys() <= before.keys():
            write(self._planned_file(name), json.dumps(before | planned, indent=0))

    def notes(self, name: str) -> dict[str, str]:
        """What was noted of a sweep; see `memo.py`."""
        notes: dict[str, str] = _read_json(self._notes_file(name), {})
        return notes

    def note(self, name: str, key: str, value: str) -> None:
        """Notes something of a sweep."""
        write(self._notes_file(name), json.dumps(self.notes(name) | {key: value}))

    def _notes_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.memo.json"

    def _planned_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.json"

    def results(self, ids: Iterable[str] | None = None) -> dict[str, Result]:
        """The results of those trials that have one, by default of all; quickly for thousands."""
        begun = self.begun()
        ids = begun if ids is None else [trial_id for trial_id in ids if trial_id in begun]
        index: dict[str, list[Any]] = _read_json(self._index_file, {})
        found: dict[str, Result] = {}
        changed = False
        for trial_id in ids:
            path = self._trials / trial_id / "result.json"
            stamp = _modified(path)
            if not stamp:
                continue
            entry = index.get(trial_id)
            if entry is None or entry[0] != stamp:
                index[trial_id] = entry = [stamp, _read_json(path, None)]
                changed = True
            if result := _result(entry[1]):
                found[trial_id] = result
        if changed:
            with contextlib.suppress(OSError):  # a full disk, or somebody else's store
                write(self._index_file, json.dumps(index))
        return found

    def find(self, start: str) -> TrialFolder:
        """The trial whose id starts so.

        Raises:
            StoreError: if there is none, or more than one.
        """
        found = sorted((self.root / "trials").glob(f"{start}*")) if start.isalnum() else []
        if len(found) != 1:
            state = "several trials start" if found else "no trial starts"
            raise StoreError(f"{state} with `{start}` in `{self.root / 'trials'}`; see `plan`")
        return TrialFolder(found[0])


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
        write(self.path / "trial.json", json.dumps({"id": trial.id, "spec": spec}, indent=1))
        self.log(f"started by process {os.getpid()} on {socket.gethostname()}")

    def spec(self) -> TrialSpec:
        """What the trial is.

        Raises:
            StoreError: if nothing is known of it, or not in this release's words.
        """
        values = _read_json(self.path / "trial.json", None)
        if values is None:
            raise StoreError(f"`{self.path}` holds no trial")
        try:
            return TrialSpec.model_validate(values["spec"])
        except (ValidationError, TypeError, KeyError) as error:
            message = f"`{self.path / 'trial.json'}` is damaged, or of another release: {error}"
            raise StoreError(message) from error

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
        points: list[Row] = _read_json(self.path / "evaluations.json", [])
        return points

    def write_trajectories(self, rows: list[Row]) -> None:
        """Replaces the trajectories."""
        write(self.path / "trajectories.json", json.dumps(rows))

    def trajectories(self) -> list[Row]:
        """Paths of the trained model, a row a point; empty where it has none to show."""
        rows: list[Row] = _read_json(self.path / "trajectories.json", [])
        return rows

    def write_result(self, result: Result) -> None:
        """Ends the trial."""
        write(self.path / "result.json", json.dumps(asdict(result), indent=1))

    def result(self) -> Result | None:
        """The trial's end, if it has come."""
        return _result(_read_json(self.path / "result.json", None))

    def write_error(self, traceback: str) -> None:
        """Keeps the traceback of a crash."""
        write(self.path / "error.txt", traceback)

    def log(self, text: str) -> None:
        """Appends a line, with the time, to the trial's log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def artifacts(self) -> list[Path]:
        """The files that describe the trial: all but checkpoints and locks."""
        names = ("trial.json", *SHOWN, "log.txt", "error.txt")
        return [path for path in map(self.path.joinpath, names) if path.exists()]

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever one of the files that are `SHOWN` does."""
        return tuple(map(_modified, map(self.path.joinpath, SHOWN)))

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


def write(path: Path, content: str | bytes, aside: Path | None = None) -> None:
    """Replaces a file as a whole; what it was before is moved `aside`, if that is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The host too: on a shared path, processes of two nodes may have one number.
    writer = f"{socket.gethostname()}-{os.getpid()}"
    partial = path.with_name(f".{path.name}.{writer}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        if aside is not None and path.exists():
            path.replace(aside)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _result(values: Any) -> Result | None:
    """A result as it was written; None where there is none, or its file is damaged."""
    try:
        return Result(**values)
    except TypeError:
        return None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _read_json(path: Path, default: Any) -> Any:
    """A file's value; the default if it is absent or damaged, which counts as absent."""
    try:
        with open(path, "rb", buffering=0) as file:  # thousands are read for a plan
            value = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return default
    return value if default is None or isinstance(value, type(default)) else default
