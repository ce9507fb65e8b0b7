"""MLflow's empty file, made once for all tests: its fifty migrations take seconds.

All processes of one session share it. A test of how the file is made starts a process of its own,
which knows nothing of this, or a command whose environment does not name the session's folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from nodebench.store import mlflow_file
from nodebench.store.lock import locked
from tests.support.session import FOLDER

MAKING_S = 200.0


def use_template() -> None:
    """From now on a file that this process would make is a copy of the template.

    To be called before `nodebench.tracking.client` is imported, which takes seconds itself.
    """
    require_mlflows = mlflow_file.require_mlflows

    def copy_or_require_mlflows(file: Path) -> None:
        if FOLDER in os.environ and not file.exists():
            shutil.copyfile(_template(Path(os.environ[FOLDER])), file)
        require_mlflows(file)

    mlflow_file.require_mlflows = copy_or_require_mlflows


def _template(folder: Path) -> Path:
    """The template, made by the first to ask."""
    file = folder / "mlflow.db"
    if not file.exists():
        with locked(folder / "lock", str(file), MAKING_S):
            if not file.exists():
                _make(file)
    return file


def _make(file: Path) -> None:
    from nodebench.tracking.client import MlflowClient

    partial = file.with_suffix(".partial")
    MlflowClient(f"sqlite:///{partial}").search_experiments()
    with contextlib.closing(sqlite3.connect(partial)) as database, database:
        # Its artifacts have the working folder as their place: every copy makes one of its own.
        database.execute("DELETE FROM experiments")
    partial.replace(file)
