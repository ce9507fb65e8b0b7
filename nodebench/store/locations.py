"""The places of stores, reports, data and MLflow, from environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nodebench.errors import DataError, ResourceError, StoreError, TrackingError
from nodebench.files import require_writable
from nodebench.store.store import Store

SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]+)(?P<settings>\?.*)?")
ADDRESS = re.compile(
    r"https?://[^/\s].*|(databricks|uc:|arn:).*"
    r"|(?!https?:|sqlite|file:|postgres:)[A-Za-z][\w+.-]*://.+"
)
"""Addresses of servers and databases; those of other schemes are left to MLflow's plug-ins."""


def variable(name: str) -> str | None:
    """An environment variable, stripped of blanks; None if it is unset, empty or blank."""
    return os.environ.get(name, "").strip() or None


def default_store() -> Store:
    """The store under NODEBENCH_RUNS, by default `runs/`.

    Raises:
        StoreError: if the folder cannot be a store: see `Store.require_own`.
    """
    store = Store(_folder("NODEBENCH_RUNS", "runs"))
    store.require_own()
    return store


def report_folder(name: str) -> Path:
    """The folder of a sweep's report, relative to the working folder."""
    return Path("reports") / name


def require_place(folder: Path, cure: str) -> None:
    """Rejects a folder that cannot be written or created.

    Raises:
        ResourceError: with the reason and the `cure`.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise ResourceError(
            f"`{folder}` cannot be written ({error.strerror or error}). {cure}"
        ) from error


def data_root() -> Path:
    """The folder of the data sets: NODEBENCH_DATA, by default `data/`.

    Raises:
        DataError: if that is a file.
    """
    root = _folder("NODEBENCH_DATA", "data").resolve()
    if root.exists() and not root.is_dir():
        raise DataError(f"NODEBENCH_DATA is `{root}`, which is a file: set it to a folder")
    return root


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file next to the store.

    Raises:
        TrackingError: if it is not an address under which MLflow can be reached.
    """
    uri = variable("MLFLOW_TRACKING_URI")
    if uri is None:
        return f"sqlite:///{store.root / 'mlflow.db'}"
    if found := SQLITE.fullmatch(uri):
        path = os.path.abspath(_expanded(found["path"]))
        if found["path"] != ":memory:" and not os.path.isdir(path):
            return f"sqlite:///{path}{found['settings'] or ''}"
    elif ADDRESS.fullmatch(uri) or variable("MLFLOW_ALLOW_FILE_STORE"):
        return uri
    raise TrackingError(f"MLFLOW_TRACKING_URI is `{uri}`: {_cure(uri)}")


def tracking_file(uri: str) -> Path | None:
    """The SQLite file of an address; None for a server."""
    found = SQLITE.fullmatch(uri)
    return Path(found["path"]) if found else None


def _cure(uri: str) -> str:
    """A message that says what is wrong with an address, and what to write instead."""
    server, file = "`http://host:5000` for a server", "`sqlite:////folder/mlflow.db` for a file"
    scheme, _, rest = uri.partition(":")
    if re.match(r"['\"`]", uri):
        return f"remove the quotes. Write {server}, {file}"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"its scheme is missing. Write `http://{uri}`"
    if scheme == "postgres":
        return f"write its scheme as `postgresql:{rest}`"
    if "memory" in uri or uri in ("sqlite:", "sqlite://", "sqlite:///"):
        return f"a database in memory is lost at the end. Write {file}"
    if SQLITE.fullmatch(uri):
        return f"that is a folder. Write {file}"
    if scheme != "file" and (scheme.startswith("sqlite") or "://" in uri):
        return f"that is not an address. Write {server}, {file}"
    path = re.sub("^file:(//)?", "", uri).rstrip("/") or "."
    path += "" if re.search(r"\.(db|sqlite3?)$", path) else "/mlflow.db"
    return (
        f"MLflow no longer writes to folders of files. Write `sqlite:///{path}`, or {server}, or "
        "unset it for the file in NODEBENCH_RUNS"
    )


def _folder(name: str, default: str) -> Path:
    """The folder that a variable names, `~` expanded."""
    path = _expanded(variable(name) or default)
    if path.startswith("~"):
        raise StoreError(f"{name} is `{path}`, but this user does not exist: write the full path")
    return Path(path)


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))
