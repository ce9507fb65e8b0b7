"""The store: the files of every trial and sweep on disk.

    runs/trials/<id>/trial.json         the resolved spec
                     checkpoint.pt      model, optimiser, random state, history
                     checkpoint-before.pt  the previous one, until the training is finished
                     checkpoint-again.pt  of a finished trial that is retrained for its weights
                     *.damaged          a checkpoint that could not be read; safe to delete
                     history.jsonl      a row per epoch, up to the checkpoint or a failure
                     evaluations.json   the trained model under other solvers
                     timings.json       seconds per step on each kind of machine, otherwise idle
                     trajectories.json  paths of the trained model that a report draws
                     result.json        the outcome; a trial without it is not finished
                     elsewhere.json     the outcomes of the same trial on other machines
                     log.txt, error.txt the log, and the traceback of a crash
                     given-up           exists briefly after a search has given the trial up
                     lock               held by the process that trains
    runs/sweeps/<name>.yaml             the sweep as it was last launched
                <name>.json             every trial that it ever planned: id -> label
                <name>.files.json       the files that it was launched from, the latest last
                <name>.memo.json        what the last launch brought up to date; safe to delete
                <name>.lock             held by the process that runs it
                <name>.tracking.lock    held by the process that writes it to MLflow
    runs/index.json                     a cache of the results; safe to delete
    runs/.nodebench                     marks the folder as nodebench's own
    runs/.ray-*, .merge-*, .gone-*, .import-*     of running processes, or left by killed ones
    runs/mlflow.db, mlartifacts/        MLflow's, unless it is on a server; derived from the trials

Every file except logs and locks is replaced atomically, so that readers never see, and killed
processes never leave, half a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nodebench.errors import StoreError, shortened
from nodebench.files import modified, read_json, write
from nodebench.store.ownership import INDEX, SWEEPS, TRIALS, require_store_folder
from nodebench.store.result import Result, read_result
from nodebench.store.sweep_record import SweepRecord
from nodebench.store.trial_folder import TrialFolder


class Store:
    """The trials under one folder, and the records of the sweeps that planned them."""

    def __init__(self, root: str | Path):
        self.root = Path(root).resolve()
        self.trials_root = self.root / TRIALS
        self.sweeps_root = self.root / SWEEPS
        self._index_file = self.root / INDEX

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def require_own(self) -> None:
        """Rejects a folder that has files of the user's where a store writes.

        Raises:
            StoreError: if it has such files, or is a file itself.
        """
        require_store_folder(self.root)

    def folder(self, trial_id: str) -> TrialFolder:
        """The folder of a trial, which need not exist."""
        return TrialFolder(self.trials_root / trial_id)

    def sweep(self, name: str) -> SweepRecord:
        """The record of a sweep, which need not have been launched."""
        return SweepRecord(self.root, name)

    def trial_ids(self) -> set[str]:
        """The ids of all trials that have a folder; other files next to these are ignored.

        Raises:
            StoreError: if the place of the trials' folder is taken by a file.
        """
        try:
            with os.scandir(self.trials_root) as found:
                return {each.name for each in found if each.is_dir() and each.name[0] != "."}
        except FileNotFoundError:
            return set()
        except NotADirectoryError as error:
            raise StoreError(
                f"`{self.trials_root}` is a file, but a store needs a folder there. Set "
                "NODEBENCH_RUNS to another folder"
            ) from error

    def trial_folders(self) -> Iterator[TrialFolder]:
        """The folders of all trials that have one, in the order of their ids."""
        return map(self.folder, sorted(self.trial_ids()))

    def sweep_records(self) -> list[SweepRecord]:
        """The records of all known sweeps, by name."""
        names = {path.stem for path in self.sweeps_root.glob("*.yaml")}
        names |= {path.name.partition(".")[0] for path in self.sweeps_root.glob("[!.]*.json")}
        return [self.sweep(name) for name in sorted(names)]

    def label(self, trial_id: str) -> tuple[str, str]:
        """A trial's label in a sweep that has planned it, and the sweep's name; or empty texts."""
        planned = ((record.labels(), record.name) for record in self.sweep_records())
        found = ((labels[trial_id], name) for labels, name in planned if trial_id in labels)
        return next(found, ("", ""))

    def sweep_locks(self) -> list[Path]:
        """The lock files of sweeps, of their shards, and of writing them to MLflow."""
        return sorted(self.sweeps_root.glob("*.lock"))

    def results(self, ids: Iterable[str] | None = None) -> dict[str, Result]:
        """The results of these trials, if they have one, by default of all; fast for thousands."""
        there = self.trial_ids()
        wanted = there if ids is None else [trial_id for trial_id in ids if trial_id in there]
        return {
            trial_id: result
            for trial_id, values in self._result_values(wanted).items()
            if (result := read_result(values))
        }

    def has_progress(self, ids: Iterable[str]) -> bool:
        """Whether one of these trials has a result or a completed epoch."""
        begun = map(self.folder, self.trial_ids().intersection(ids))
        return any(folder.result() or folder.history() for folder in begun)

    def _result_values(self, ids: Iterable[str]) -> dict[str, Any]:
        """The content of these trials' result files, from the index unless a file has changed."""
        index: dict[str, list[Any]] = read_json(self._index_file, {})
        found: dict[str, Any] = {}
        is_changed = False
        for trial_id in ids:
            path = self.folder(trial_id).result_file
            stamp = modified(path)
            if not stamp:
                continue
            if trial_id not in index or index[trial_id][0] != stamp:
                index[trial_id] = [stamp, read_json(path, None)]
                is_changed = True
            found[trial_id] = index[trial_id][1]
        if is_changed:
            with contextlib.suppress(OSError):  # a full disk, or somebody else's store
                write(self._index_file, json.dumps(index))
        return found

    def find(self, start: str) -> TrialFolder:
        """The folder of the trial whose id starts with `start`.

        Raises:
            StoreError: if there is none, or more than one.
        """
        return self.folder(matching_id(start, self.trial_ids(), str(self.trials_root)))


def matching_id(start: str, ids: Iterable[str], where: str) -> str:
    """The one id that starts with `start`; `where` is where these ids are from.

    Raises:
        StoreError: if there is none, or more than one.
    """
    found = sorted(trial_id for trial_id in ids if trial_id.startswith(start))
    if len(found) != 1:
        state = "several trials start" if found else "no trial starts"
        known = f": {shortened(found)}" if found else ". `nodebench plan SWEEP` lists a sweep's"
        raise StoreError(f"{state} with `{start}` in `{where}`{known}")
    return found[0]
