"""Reaching MLflow: whether it answers, its errors in our words, and the runs that are ours.

Everything of MLflow is imported from here, where it is set up before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from nodebench.atomic import require_writable
from nodebench.errors import TrackingError
from nodebench.places import tracking_uri
from nodebench.store import Store

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
# A server that does not answer holds nobody up for long. Our caller tries again; MLflow itself
# would also repeat the creation of a run whose answer was lost, which makes two of it.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

from mlflow import MlflowClient, __version__
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["Metric", "MlflowClient", "Param", "Run", "RunTag"]

logging.getLogger("alembic").setLevel(logging.ERROR)
logging.getLogger("mlflow").setLevel(logging.ERROR)

TRIAL_TAG = "nodebench.trial"
PATIENCE_S = 5
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def probe(store: Store) -> str:
    """What MLflow answers within seconds, in words; makes no file where there is none yet.

    Raises:
        TrackingError: if it cannot be reached, or its database is damaged or of another version.
    """
    uri = tracking_uri(store)
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    with explained(uri), _impatient():
        if file is not None and not file.exists():
            require_writable(file.resolve().parent)
            return f"`{uri}` is not there yet: the first run makes it"
        _require_contact(uri, file)
        found = MlflowClient(uri).search_experiments()
    return f"{__version__}; `{uri}` answers and has {len(found)} experiments"


def _require_contact(uri: str, file: Path | None) -> None:
    """Refuses at once what MLflow would try again and again."""
    if file is not None:
        address = f"{file.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return
    parts = urlsplit(uri)
    try:
        port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        raise OSError(f"no address: {error}") from error
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), PATIENCE_S).close()


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Makes MLflow ask a server once, and wait for seconds only."""
    names = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, ("0", str(PATIENCE_S)), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def runs_of(client: MlflowClient, experiment: str) -> list[Run]:
    """All runs of ours in an experiment."""
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], f"tag.`{TRIAL_TAG}` != ''", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into one that says where it was sought and what to do."""
    try:
        yield
    except (MlflowException, OSError, ImportError, SQLAlchemyError, sqlite3.Error) as error:
        raise TrackingError(
            f"MLflow at `{uri}` cannot be used ({error}). Start the server, or change or "
            "unset MLFLOW_TRACKING_URI"
        ) from error
