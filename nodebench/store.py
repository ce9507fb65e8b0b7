"""The memory: what every trial has left on disk.

    runs/trials/<id>/trial.json         the resolved spec
                     checkpoint.pt      model, optimiser, random state, history
                     checkpoint-before.pt  the one before it, until the training is finished
                     history.jsonl      a row per epoch, up to the checkpoint or a failure
                     evaluations.json   the trained model under other solvers
                     timings.json       seconds of a step, alone on each kind of machine
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nodebench.atomic import modified, read_json, write
from nodebench.errors import StoreError
from nodebench.lock import held
from nodebench.trial_folder import Result, TrialFolder, read_result

LOCK_WAIT_S = 30.0
"""For a process whose driver was killed, and which may still be writing."""


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
        """The ids of all trials that have a folder.

        Raises:
            StoreError: if the store's place is taken by something that is not a folder.
        """
        try:
            return set(os.listdir(self._trials))
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise StoreError(
                f"`{self._trials}` cannot be a folder, since a file is in its place. Let "
                "NODEBENCH_RUNS name a folder"
            ) from error

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
        planned: dict[str, str] = read_json(self._planned_file(name), {})
        return planned

    def write_sweep(self, name: str, text: str, planned: dict[str, str]) -> None:
        """Keeps a sweep's file as it is launched, and adds what it plans to `ever_planned`."""
        write(self.sweep_file(name), text)
        before = self.ever_planned(name)
        if not planned.keys() <= before.keys():
            write(self._planned_file(name), json.dumps(before | planned, indent=0))

    def runs(self, name: str) -> dict[str, str]:
        """The ids of a sweep's runs in MLflow, by trial, as far as they are known here."""
        runs: dict[str, str] = read_json(self._runs_file(name), {})
        return runs

    def note_runs(self, name: str, runs: dict[str, str]) -> None:
        """Notes them."""
        if runs != self.runs(name):
            write(self._runs_file(name), json.dumps(runs, indent=0))

    def _runs_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.mlflow.json"

    def notes(self, name: str) -> dict[str, str]:
        """What was noted of a sweep; see `memo.py`."""
        notes: dict[str, str] = read_json(self._notes_file(name), {})
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
        index: dict[str, list[Any]] = read_json(self._index_file, {})
        found: dict[str, Result] = {}
        changed = False
        for trial_id in ids:
            path = self._trials / trial_id / "result.json"
            stamp = modified(path)
            if not stamp:
                continue
            entry = index.get(trial_id)
            if entry is None or entry[0] != stamp:
                index[trial_id] = entry = [stamp, read_json(path, None)]
                changed = True
            if result := read_result(entry[1]):
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
