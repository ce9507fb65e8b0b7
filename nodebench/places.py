"""Where things lie, as environment variables say."""

from __future__ import annotations

import os
from pathlib import Path

from nodebench.atomic import require_writable
from nodebench.errors import ResourceError
from nodebench.store import Store


def default_store() -> Store:
    """The store under NODEBENCH_RUNS, by default `runs/`."""
    return Store(Path(os.environ.get("NODEBENCH_RUNS", "runs")))


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
    """Where data sets lie: NODEBENCH_DATA, by default `data/`."""
    return Path(os.environ.get("NODEBENCH_DATA", "data")).resolve()


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root / 'mlflow.db'}"
