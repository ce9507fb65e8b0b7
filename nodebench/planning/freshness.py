"""Whether MLflow and the report are up to date, so that a launch with nothing to do is quick.

The report's answer is kept, which such a launch prints too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from nodebench.files import PACKAGE
from nodebench.store import Store
from nodebench.store.locations import tracking_file, tracking_uri
from nodebench.store.mlflow_file import experiment
from nodebench.sweep import Sweep

CODE = (".py", ".yaml", ".js", ".css")
"""Endings of the files that a report depends on."""


def state_of(sweep: Sweep, store: Store) -> str:
    """Changes whenever a file of the sweep's trials does, or the sweep, or nodebench's own code.

    By the files' times and not their content, so that thousands of trials take a moment.
    """
    digest = hashlib.sha256(sweep.text.encode())
    code = [path for path in PACKAGE.rglob("*") if path.suffix in CODE]
    newest = max(path.stat().st_mtime_ns for path in code)
    digest.update(f"{newest}\n".encode())
    for trial in sweep.trials:
        digest.update(f"{trial.id} {store.folder(trial.id).stamp()}\n".encode())
    return digest.hexdigest()


def is_tracked(sweep: Sweep, store: Store) -> bool:
    """Whether MLflow was brought up to what the store has of a sweep, and is still there."""
    experiment = _experiment(sweep, store)
    state = f"{state_of(sweep, store)} {experiment}"
    return experiment is not None and store.sweep(sweep.name).memo().get("tracked") == state


def note_tracked(sweep: Sweep, store: Store, state: str) -> None:
    """Notes that MLflow has this state."""
    store.sweep(sweep.name).keep_memo(tracked=f"{state} {_experiment(sweep, store)}")


def reported_answer(sweep: Sweep, store: Store, page: Path, state: str) -> list[str] | None:
    """The answer of the report on this page; None if the report was not written of this state."""
    memo = store.sweep(sweep.name).memo()
    if not (page.exists() and page.with_name("report.html").exists()):
        return None
    if memo.get("reported") != _reported(sweep, store, page, state):
        return None
    answer: list[str] | None = memo.get("answer")  # earlier releases kept none
    return answer


def note_reported(sweep: Sweep, store: Store, page: Path, state: str, answer: list[str]) -> None:
    """Notes that the report on this page tells of this state, and what it answers."""
    reported = _reported(sweep, store, page, state)
    store.sweep(sweep.name).keep_memo(reported=reported, answer=answer)


def _reported(sweep: Sweep, store: Store, page: Path, state: str) -> str:
    known = str(sorted(store.sweep(sweep.name).mlflow_runs().items()))
    runs = hashlib.sha256(known.encode()).hexdigest()[:16]
    figures = sorted(page.with_name("figures").glob("*"))  # which a killed report may have lost
    files = [f"{path.name} {path.stat().st_mtime_ns}" for path in (page, *figures)]
    return f"{state} {runs} {page.resolve()} {hashlib.sha256(str(files).encode()).hexdigest()}"


def _experiment(sweep: Sweep, store: Store) -> str | None:
    """The sweep's experiment in MLflow's own file; None if it is not there, or on a server.

    Read without MLflow, whose import takes seconds. A server is asked again at each launch.
    """
    uri = tracking_uri(store)
    file = tracking_file(uri)
    found = experiment(file, sweep.name) if file and file.is_file() else None
    return f"{uri} {found}" if found else None
