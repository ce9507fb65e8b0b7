"""Whether MLflow and the report are up to date, so that a launch with nothing to do is quick.

The report's answer is kept, since such a launch prints it too.
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
"""The suffixes of the files that a report depends on."""


def state_of(sweep: Sweep, store: Store) -> str:
    """A digest that changes with any file of the sweep's trials, the sweep, or nodebench's code.

    It uses the files' times, not their content, so that it is fast for thousands of trials.
    """
    digest = hashlib.sha256(sweep.text.encode())
    code = [path for path in PACKAGE.rglob("*") if path.suffix in CODE]
    newest = max(path.stat().st_mtime_ns for path in code)
    digest.update(f"{newest}\n".encode())
    for trial in sweep.trials:
        digest.update(f"{trial.id} {store.folder(trial.id).stamp()}\n".encode())
    return digest.hexdigest()


def is_tracked(sweep: Sweep, store: Store) -> bool:
    """Whether MLflow is up to date with a sweep's trials in the store, and still exists."""
    experiment = _experiment(sweep, store)
    state = f"{state_of(sweep, store)} {experiment}"
    return experiment is not None and store.sweep(sweep.name).memo().get("tracked") == state


def note_tracked(sweep: Sweep, store: Store, state: str) -> None:
    """Records that MLflow has this state."""
    store.sweep(sweep.name).keep_memo(tracked=f"{state} {_experiment(sweep, store)}")


def reported_answer(sweep: Sweep, store: Store, page: Path, state: str) -> list[str] | None:
    """The answer of the report at this page; None if the report does not show this state."""
    memo = store.sweep(sweep.name).memo()
    if not (page.exists() and page.with_name("report.html").exists()):
        return None
    if memo.get("reported") != _reported(page, state):
        return None
    answer: list[str] | None = memo.get("answer")  # earlier releases kept none
    return answer


def note_reported(sweep: Sweep, store: Store, page: Path, state: str, answer: list[str]) -> None:
    """Records that the report at this page shows this state, and its answer."""
    store.sweep(sweep.name).keep_memo(reported=_reported(page, state), answer=answer)


def _reported(page: Path, state: str) -> str:
    figures = sorted(page.with_name("figures").glob("*"))  # a killed report may lack some
    files = [f"{path.name} {path.stat().st_mtime_ns}" for path in (page, *figures)]
    return f"{state} {page.resolve()} {hashlib.sha256(str(files).encode()).hexdigest()}"


def _experiment(sweep: Sweep, store: Store) -> str | None:
    """The sweep's experiment in MLflow's own file; None if it is missing, or on a server.

    It is read without MLflow, whose import takes seconds. A server is asked again at each launch.
    """
    uri = tracking_uri(store)
    file = tracking_file(uri)
    found = experiment(file, sweep.name) if file and file.is_file() else None
    return f"{uri} {found}" if found else None
