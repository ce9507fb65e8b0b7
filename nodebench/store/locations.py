"""Where things lie, as environment variables say."""

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
"""Of a server or a database; what else MLflow's plug-ins know is theirs to judge."""


def variable(name: str) -> str | None:
    """A variable without blanks around it; None where it is not set, empty or blank."""
    return os.environ.get(name, "").strip() or None


def default_store() -> Store:
    """The store under NODEBENCH_RUNS, by default `runs/`.

    Raises:
        StoreError: if it cannot be one: see `Store.require_own`.
    """
    store = Store(_folder("NODEBENCH_RUNS", "runs"))
    store.require_own()
    return store


def report_folder(name: str) -> Path:
    """Where the report of a sweep of this name lies, under the working folder."""
    return Path("reports") / name


def require_place(folder: Path, cure: str) -> None:
    """Refuses a folder that cannot be written, or made.

    Raises:
        ResourceError: saying why, and the `cure`.
    """
    try:
        require_writable(folder)
    except OSError as error:
        raise ResourceError(
            f"`{folder}` cannot be written ({error.strerror or error}). {cure}"
        ) from error


def data_root() -> Path:
    """Where data sets lie: NODEBENCH_DATA, by default `data/`.

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
        TrackingError: if it is nothing that MLflow can be reached by.
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
    """The SQLite file of an address; None of a server."""
    found = SQLITE.fullmatch(uri)
    return Path(found["path"]) if found else None


def _cure(uri: str) -> str:
    """What is wrong with an address, and what to write instead."""
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
