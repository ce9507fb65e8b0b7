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
                <name>.files.json       the files that it was launched from, the last one last
                <name>.memo.json        what the last launch brought up to date; safe to delete
                <name>.lock             held by the process that runs it
                <name>.tracking.lock    held by the process that writes it to MLflow
    runs/index.json                     a cache of the results; safe to delete
    runs/.nodebench                     says that all this is nodebench's own
    runs/.ray-*, .merge-*, .gone-*      of processes at work, or left by killed ones

Every file is replaced as a whole, so a reader, or a process that was killed, never leaves or
sees half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nodebench.errors import StoreError
from nodebench.files import modified, read_json, write
from nodebench.store.lock import held
from nodebench.store.result import Result, Row, read_result
from nodebench.store.trial_folder import TrialFolder

LOCK_WAIT_S = 30.0
"""For a process whose driver was killed, and which may still be writing."""


MARK = ".nodebench"
NAMES = ("sweeps", "trials", "index.json")


class Store:
    """The trials under one folder."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._index_file = self.root / "index.json"
        self._trials = self.root / "trials"

    def require_own(self) -> None:
        """Refuses a folder that has something of the user's where a store writes.

        Raises:
            StoreError: if it has, or is a file.
        """
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"NODEBENCH_RUNS names `{self.root}`, which is a file: name a folder")
        if (self.root / MARK).exists():
            return
        there = [name for name in NAMES if (self.root / name).exists()]
        if there and not _is_own(self.root):
            raise StoreError(
                f"`{self.root}` has {', '.join(f'`{name}`' for name in there)}, which are not a "
                "store's, and where one would write: let NODEBENCH_RUNS name a folder for "
                "nodebench alone, such as `runs`"
            )

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

    def launches(self, name: str) -> list[Row]:
        """The files that a sweep was launched from, each once and the last one last."""
        files: list[Row] = read_json(self._files_file(name), {}).get("files", [])
        return files

    def require_copy(self, name: str) -> None:
        """Refuses to replace a sweep's copy that is not what was last written there.

        Raises:
            StoreError: if it is not, or the whole folder is not the store's own.
        """
        self.require_own()
        if self._is_foreign(name):
            raise StoreError(
                f"`{self.sweep_file(name)}` was not written by nodebench, or changed since, and "
                "would be replaced: move it away"
            )

    def _is_foreign(self, name: str) -> bool:
        path = self.sweep_file(name)
        if not path.exists():
            return False
        written: list[str] | None = read_json(self._files_file(name), {}).get("copies")
        if written is None:  # an earlier release wrote the plan beside it
            return not self._planned_file(name).exists()
        return _digest(path) not in written

    def write_sweep(
        self, name: str, text: str, planned: dict[str, str], files: Sequence[Row] = ()
    ) -> None:
        """Keeps a sweep's file as it is launched, from `files`, and adds to `ever_planned`.

        Raises:
            StoreError: if something of the user's lies where it would be written.
        """
        self.require_copy(name)
        if not (self.root / MARK).exists():
            write(self.root / MARK, "A store of nodebench, which writes whatever lies here.\n")
        # Both, since a kill may come between the two files.
        copies = sorted({_digest(self.sweep_file(name)), _digest(text.encode())})
        known = {"files": list(files) or self.launches(name), "copies": copies}
        if read_json(self._files_file(name), {}) != known:
            write(self._files_file(name), json.dumps(known, indent=0))
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
        """What was noted of a sweep; see `planning/freshness.py`."""
        notes: dict[str, str] = read_json(self._notes_file(name), {})
        return notes

    def note(self, name: str, key: str, value: str) -> None:
        """Notes something of a sweep."""
        write(self._notes_file(name), json.dumps(self.notes(name) | {key: value}))

    def _notes_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.memo.json"

    def _files_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.files.json"

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


def _digest(content: bytes | Path) -> str:
    """Tells contents apart; that of a file that is absent is empty."""
    if isinstance(content, Path):
        content = content.read_bytes() if content.exists() else b""
    return hashlib.sha256(content).hexdigest()[:16]


def _is_own(root: Path) -> bool:
    """Whether what lies in an unmarked folder is a store's, of an earlier release."""
    trials, sweeps = root / "trials", root / "sweeps"
    traces = ("trial.json", "lock", "result.json", "log.txt", "checkpoint.pt")
    return (
        (trials.is_dir() or not (trials.exists() or (root / "index.json").exists()))
        and all(any((one / name).exists() for name in traces) for one in trials.glob("*"))
        and (sweeps.is_dir() or not sweeps.exists())
        and all(_is_stores(path) for path in sweeps.glob("*"))
    )


def _is_stores(path: Path) -> bool:
    """Whether a file in a folder `sweeps` is one that a store writes there."""
    if path.suffix == ".yaml":
        return path.with_suffix(".json").exists()
    return path.name.startswith(".") or path.suffix in (".json", ".lock")
