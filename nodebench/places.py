"""Where things lie, as environment variables say."""

from __future__ import annotations

import os
from pathlib import Path

from nodebench.store import Store


def default_store() -> Store:
    """The store under NODEBENCH_RUNS, by default `runs/`."""
    return Store(Path(os.environ.get("NODEBENCH_RUNS", "runs")))


def data_root() -> Path:
    """Where data sets lie: NODEBENCH_DATA, by default `data/`."""
    return Path(os.environ.get("NODEBENCH_DATA", "data")).resolve()


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root / 'mlflow.db'}"
