"""MLflow's file is made by its own migrations, and put in place whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import create_engine, text

from nodebench.errors import TrackingError
from nodebench.store import Store
from nodebench.tracking import client
from nodebench.tracking.client import client_for

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns


def made_by_mlflow(monkeypatch):
    """Without the tests' template."""
    monkeypatch.setattr(client, "require_mlflows", lambda _file: None)


def synchronous(file):
    with create_engine(f"sqlite:///{file}").connect() as connection:
        return connection.execute(text("PRAGMA synchronous")).scalar()


def test_a_new_file_is_mlflows_own_and_nothing_else_is_left(tmp_path, monkeypatch):
    made_by_mlflow(monkeypatch)
    found = client_for(Store(tmp_path / "runs")).search_experiments()
    assert [experiment.name for experiment in found] == ["Default"]
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    with closing(sqlite3.connect(tmp_path / "runs" / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_only_making_the_file_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    made_by_mlflow(monkeypatch)
    file = tmp_path / "runs" / "mlflow.db"
    with client._not_waiting_for_the_disk():
        assert synchronous(tmp_path / "other.db") == 0
    client_for(Store(file.parent))
    assert synchronous(file) == 2  # SQLite's default, `FULL`


def test_a_file_that_could_not_be_made_is_not_there(tmp_path, monkeypatch):
    made_by_mlflow(monkeypatch)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client, "write", full)
    with pytest.raises(TrackingError, match="nodebench gc"):
        client_for(Store(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()
