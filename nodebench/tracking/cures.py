"""Remedies for MLflow's errors, by their messages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from nodebench.store.locations import tracking_file

SYNC_AGAIN = "and `nodebench sync SWEEP` writes it again from the store"
START_SERVER = "Start the server, or change or unset MLFLOW_TRACKING_URI"

CURES = {
    "state is deleted|must be in the 'active' state": (
        "It was deleted in MLflow's pages: `nodebench sync SWEEP` restores it"
    ),
    "not a database|malformed|no such (table|column)|already exists|duplicate column": (
        f"The file is damaged: move it away, {SYNC_AGAIN}"
    ),
    "is locked": "Another process keeps writing to it: wait until it ends, or use a server",
    "read-?only|unable to open|Permission denied|Not a directory|File exists": (
        "Make the file and its folder writable, or set MLFLOW_TRACKING_URI to another file"
    ),
    "is full|No space left": "Free some space: `nodebench gc` lists files that are safe to delete",
    r"status (code )?40[13]\b|error code 40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED": (
        "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and "
        "check that you have permission to write"
    ),
    "password authentication|Access denied": "Check user and password in MLFLOW_TRACKING_URI",
    "WRONG_VERSION_NUMBER|record layer failure|wrong version number": (
        "The server uses `http:`, not `https:`"
    ),
    "too many 50|error code 50|INTERNAL_ERROR": "The server failed: see its log",
    "unsupported URI|^Port |IPv6": (
        "Set MLFLOW_TRACKING_URI to `http://host:5000` or `sqlite:////folder/mlflow.db`"
    ),
    r"error code (30.|40[45])|status 40[45]|Expecting value|valid JSON|Not Found": (
        "The server there is not MLflow: check host, port and path in MLFLOW_TRACKING_URI"
    ),
    "resolve|Name or service not known|nodename": (
        "There is no host of this name: check MLFLOW_TRACKING_URI"
    ),
}

DRIVER_PACKAGES = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "MySQLdb": "mysqlclient",
}
"""Database module -> the package that installs it, where their names differ."""


def cure(error: str, uri: str) -> str:
    """What to do about an error message of the MLflow at an address."""
    if found := re.search(r"No module named '(\w+)", error):
        return f"Install it: pip install '{DRIVER_PACKAGES.get(found[1], found[1])}'"
    if found := re.search(r"found version (\w+)|locate revision identified by '(\w+)'", error):
        away = f"; or move it away, {SYNC_AGAIN}" if tracking_file(uri) else ""
        return _of_schema(found[1] or found[2]) + away
    for pattern, text in CURES.items():
        if re.search(pattern, error):
            return text
    return f"Move it away, {SYNC_AGAIN}" if tracking_file(uri) else START_SERVER


def _of_schema(revision: str) -> str:
    """What to do about a database of another MLflow version."""
    version = importlib.metadata.version("mlflow")
    if _knows(revision):
        return (
            f"An MLflow older than the installed {version} made it: copy it, then run `mlflow db "
            "upgrade` with its address"
        )
    return f"An MLflow newer than the installed {version} made it: pip install --upgrade mlflow"


def _knows(revision: str) -> bool:
    """Whether the installed MLflow knows a revision of the database."""
    spec = importlib.util.find_spec("mlflow")
    folders = spec.submodule_search_locations or [] if spec else []
    pattern = f"store/db_migrations/versions/{revision}_*.py"
    return any(any(Path(folder).glob(pattern)) for folder in folders)
