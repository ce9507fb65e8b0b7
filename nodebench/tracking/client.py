"""Access to MLflow: whether it answers, its errors in our words, and our runs in it.

Other modules import MLflow's names from here. Call `nodebench.tracking.settings.configure_mlflow`
before importing this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import tempfile
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils as tracking_service
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from nodebench.errors import TrackingError, counted, masked
from nodebench.files import require_writable, write
from nodebench.store import Store
from nodebench.store.locations import tracking_file, tracking_uri
from nodebench.store.lock import locked
from nodebench.store.mlflow_file import TRIAL_TAG, follow, require_mlflows
from nodebench.tracking.cures import cure
from nodebench.tracking.settings import quieten_mlflow

__all__ = ["Metric", "MlflowClient", "Param", "Run", "RunTag"]

MLFLOW_ERRORS = (
    *(MlflowException, CommandError, SQLAlchemyError, sqlite3.Error),
    *(OSError, ImportError, ValueError),  # ValueError: an answer that is not MLflow's
)
ENDED = ("FINISHED", "FAILED")
"""The statuses of a run whose trial has ended."""

LONGEST_MLFLOW_REASON = 300
MLFLOW_ANSWER_S = 5
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}

OPENING_S = 300.0
"""The longest wait for a process that creates MLflow's file: minutes on a busy machine."""


def probe_mlflow(store: Store) -> str:
    """The state of MLflow in words, within seconds; does not create a missing file.

    Raises:
        TrackingError: if it cannot be reached, or its database is damaged or of another version.
    """
    quieten_mlflow()
    uri = tracking_uri(store)
    file = tracking_file(uri)
    with explained(uri), _impatient():
        if file is not None and not file.exists():
            require_writable(file.resolve().parent)
            return f"`{masked(uri)}` does not exist yet: the first run creates it"
        _require_contact(uri)
        found = MlflowClient(uri, uri).search_experiments()
    experiments = counted(len(found), "experiment")
    return f"{mlflow.__version__}; `{masked(uri)}` answers and has {experiments}"


def client_for(store: Store) -> MlflowClient:
    """A client of MLflow, whose file is created if missing, and corrected if the store was moved.

    Raises:
        TrackingError: if it cannot be reached.
    """
    quieten_mlflow()
    uri = tracking_uri(store)
    file = tracking_file(uri)
    with explained(uri):
        if file is None:
            _require_contact(uri)
            return MlflowClient(uri, uri)
        with _opening(file):
            _require_contact(uri)
            if not file.exists():
                _make(file)
            client = MlflowClient(uri, uri)
            if follow(file, store):
                # MLflow caches, by run, where this process has found artifacts before.
                getattr(tracking_service, "_artifact_repos_cache", {}).clear()
            return client


def _opening(file: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other processes from opening MLflow's file meanwhile.

    The file is created in many steps, and two processes at once would both take each of them.
    """
    if file.exists() and not os.access(file.parent, os.W_OK):
        return contextlib.nullcontext()  # somebody else's file, only to be read
    return locked(file.with_name(f"{file.name}.lock"), f"`{file}`", OPENING_S)


def _make(file: Path) -> None:
    """Creates MLflow's empty file, as a whole or not at all.

    MLflow takes more than fifty steps for this, and SQLite would wait for the disk after each.
    """
    with tempfile.TemporaryDirectory() as folder, _not_waiting_for_the_disk():
        made = Path(folder, file.name)
        MlflowClient(f"sqlite:///{made}").search_experiments()
        write(file, made.read_bytes())


@contextlib.contextmanager
def _not_waiting_for_the_disk() -> Generator[None]:
    """Meanwhile, newly opened SQLite databases do not wait until their data is on the disk."""

    def relax(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def _require_contact(uri: str) -> None:
    """Refuses at once an address that MLflow would try to reach again and again."""
    if file := tracking_file(uri):
        require_mlflows(file)
        return
    parts = urlsplit(uri)
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if parts.hostname and port and not _is_by_proxy(parts.scheme):
        socket.create_connection((parts.hostname, port), MLFLOW_ANSWER_S).close()


def _is_by_proxy(scheme: str) -> bool:
    return scheme in urllib.request.getproxies()


@contextlib.contextmanager
def _impatient() -> Generator[None]:
    """Makes MLflow ask a server once, and wait for seconds only."""
    names = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, ("0", str(MLFLOW_ANSWER_S)), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def runs_of(client: MlflowClient, experiment: str) -> list[Run]:
    """All our runs in an experiment."""
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], f"tag.`{TRIAL_TAG}` != ''", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def experiment_of(client: MlflowClient, name: str) -> Experiment:
    """The experiment of a sweep that was run.

    Raises:
        TrackingError: if there is none, or it was deleted.
    """
    found = client.get_experiment_by_name(name)
    where = f"MLflow at `{client.tracking_uri}` has"
    if found is None:
        raise TrackingError(f"{where} no experiment `{name}`: run it first")
    if is_deleted(found):
        raise TrackingError(
            f"{where} the experiment `{name}`, but it was deleted in MLflow's pages. "
            "`nodebench sync SWEEP` restores it"
        )
    return found


def has_artifact(client: MlflowClient, run_id: str, name: str) -> bool:
    """Whether a run has a file of this name."""
    return any(file.path == name for file in client.list_artifacts(run_id))


def is_deleted(experiment: Experiment) -> bool:
    """Whether an experiment was deleted in the MLflow UI, where it can be restored."""
    return experiment.lifecycle_stage == "deleted"


@contextlib.contextmanager
def explained(uri: str) -> Generator[None]:
    """Turns MLflow's errors into one that names MLflow's address and says what to do."""
    try:
        yield
    except MLFLOW_ERRORS as error:
        text = masked(str(error))
        reason = re.split(r"\. |\n", text.rpartition("(Caused by ")[2].strip())[0]
        reason = reason[:LONGEST_MLFLOW_REASON]
        message = f"MLflow at `{uri}` cannot be used ({reason}). {cure(text, uri)}"
        raise TrackingError(message) from None  # the error's own text may contain a password
