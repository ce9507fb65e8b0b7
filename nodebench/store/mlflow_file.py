"""MLflow's own SQLite file, read and repaired without MLflow, whose import takes seconds.

MLflow records the absolute path of every run's artifacts. A store that is moved or copied takes its
artifacts along, so the recorded paths are corrected when the file is opened.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nodebench.errors import TrackingError
from nodebench.store.store import Store
from nodebench.store.trial_folder import TrialFolder

ARTIFACTS = "mlartifacts"
TRIAL_TAG = "nodebench.trial"
SYNCED_TAG = "nodebench.synced"
"""The tag of a run that has everything the store knows of its trial, including artifacts."""

OWN_TABLES = {"experiments", "runs"}


def artifacts_of(store: Store, experiment: str) -> Path:
    """The folder of a sweep's artifacts, if MLflow uses a file."""
    return store.root / ARTIFACTS / experiment


def experiment(file: Path, name: str) -> str | None:
    """A key that distinguishes experiments of one name; None if it is missing or deleted."""
    query = "SELECT experiment_id, creation_time FROM experiments WHERE name = ? AND "
    query += "lifecycle_stage = 'active'"
    with contextlib.suppress(sqlite3.Error), _read(file) as database:
        found = database.execute(query, (name,)).fetchone()
        return str(found) if found else None
    return None


def require_mlflows(file: Path) -> None:
    """Rejects a database that is not MLflow's, to which MLflow would add its tables.

    Raises:
        TrackingError: if it is not MLflow's.
        sqlite3.Error: if it is damaged.
    """
    if not file.exists():
        return
    with _read(file) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    names = {name for (name,) in found}
    if names and not names & {*OWN_TABLES, "alembic_version"}:
        raise TrackingError(
            f"`{file}` is not an MLflow database: it has the tables "
            f"{', '.join(sorted(names)[:5])}. Set MLFLOW_TRACKING_URI to another file"
        )


def moved_experiments(file: Path, store: Store) -> dict[str, str]:
    """Experiments whose recorded artifact folder is in the store's earlier place: name -> URI."""
    with _read(file) as database:
        if not _has_tables(database):
            return {}
        found = database.execute("SELECT name, artifact_location FROM experiments").fetchall()
    return {name: place for name, place in found if _was_moved(name, place, file, store)}


def follow(file: Path, store: Store) -> bool:
    """Corrects the artifact paths of a store that was moved or copied; False if it was not."""
    places = moved_experiments(file, store) if file.exists() else {}
    if not places:
        return False
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for name, before in places.items():
            now = artifacts_of(store, name).as_uri()
            database.execute(
                "UPDATE experiments SET artifact_location = ? WHERE name = ?", (now, name)
            )
            database.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE substr(artifact_uri, 1, ?) = ?",
                (now, len(before) + 1, len(before) + 1, f"{before}/"),
            )
    return True


def lost(file: Path) -> list[str]:
    """The experiments with a run whose artifacts are not in their recorded place."""
    query = (
        "SELECT experiments.name, runs.artifact_uri FROM runs JOIN experiments USING "
        "(experiment_id) JOIN tags AS done ON done.run_uuid = runs.run_uuid JOIN tags AS trial ON "
        "trial.run_uuid = runs.run_uuid WHERE done.key = ? AND trial.key = ? AND "
        "runs.lifecycle_stage = 'active'"
    )
    with _read(file) as database:
        if not _has_tables(database):
            return []
        found = database.execute(query, (SYNCED_TAG, TRIAL_TAG)).fetchall()
    return sorted({name for name, place in found if is_lost(place)})


def is_lost(artifacts: str) -> bool:
    """Whether the folder of a finished run's artifacts lacks its result; False for a server."""
    folder = local_folder(artifacts)
    return folder is not None and not (folder / TrialFolder.result_file.name).exists()


def local_folder(artifacts: str) -> Path | None:
    """The folder of an artifact address, if it is one on this machine."""
    parts = urlsplit(artifacts)
    return Path(unquote(parts.path)) if parts.scheme in ("file", "") else None


def _was_moved(name: str, place: str, file: Path, store: Store) -> bool:
    """Whether a place is in an earlier place of this store, or in a store that is gone."""
    folder, here = local_folder(place), artifacts_of(store, name)
    if folder is None or folder == here or folder.parts[-2:] != here.parts[-2:]:
        return False
    # A file elsewhere may be shared with other stores, whose artifacts stay where they are.
    return file.resolve().is_relative_to(store.root) or not folder.exists()


def _has_tables(database: sqlite3.Connection) -> bool:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in found} >= OWN_TABLES


@contextlib.contextmanager
def _read(file: Path) -> Generator[sqlite3.Connection]:
    address = f"{file.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        yield database
