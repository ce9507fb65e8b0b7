"""What the last launch brought up to date, so that one with nothing to do is quick."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nodebench.places import tracking_uri
from nodebench.store import Store
from nodebench.sweep import Sweep


def state_of(sweep: Sweep, store: Store) -> str:
    """Changes whenever a file of the sweep's trials does, or the sweep, or nodebench's own code.

    By the files' times and not their content, so that thousands of trials take a moment.
    """
    digest = hashlib.sha256(sweep.text.encode())
    newest = max(path.stat().st_mtime_ns for path in Path(__file__).parent.rglob("*.py"))
    digest.update(f"{newest}\n".encode())
    for trial in sweep.trials:
        digest.update(f"{trial.id} {store.folder(trial.id).stamp()}\n".encode())
    return digest.hexdigest()


def is_tracked(sweep: Sweep, store: Store) -> bool:
    """Whether MLflow was brought up to what the store has of a sweep, and is still there."""
    return store.notes(sweep.name).get("tracked") == _tracked(store, state_of(sweep, store))


def note_tracked(sweep: Sweep, store: Store, state: str) -> None:
    """Notes that MLflow has this state."""
    store.note(sweep.name, "tracked", _tracked(store, state))


def is_reported(sweep: Sweep, store: Store, page: Path, state: str) -> bool:
    """Whether the report on this page was written of this state."""
    return page.exists() and store.notes(sweep.name).get("reported") == _reported(page, state)


def note_reported(sweep: Sweep, store: Store, page: Path, state: str) -> None:
    """Notes that the report on this page tells of this state."""
    store.note(sweep.name, "reported", _reported(page, state))


def _tracked(store: Store, state: str) -> str:
    uri = tracking_uri(store)
    return f"{state} {uri} {_database(uri)}"


def _reported(page: Path, state: str) -> str:
    return f"{state} {page.resolve()} {page.stat().st_mtime_ns}"


def _database(uri: str) -> str:
    """Changes when MLflow's SQLite file is deleted and made anew; empty for a server."""
    if not uri.startswith("sqlite:///"):
        return ""
    try:
        return str(Path(uri.removeprefix("sqlite:///")).stat().st_ino)
    except OSError:
        return "none"
