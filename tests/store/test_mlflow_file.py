"""MLflow's file where things went wrong: moved, lost, damaged, made twice at once."""

import contextlib
import http.server
import json
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("mlflow")
from mlflow import MlflowClient

from nodebench import api
from nodebench.errors import TrackingError
from nodebench.execution import doctor
from nodebench.execution.doctor import Case
from nodebench.execution.runner import Monitor, run_inline
from nodebench.planning.freshness import is_tracked, note_tracked, state_of
from nodebench.planning.launches import remember
from nodebench.store import Store
from nodebench.store.locations import tracking_uri
from nodebench.store.mlflow_file import local_folder
from nodebench.tracking.cures import cure
from nodebench.tracking.tracker import page_of
from tests.support.cli_process import command
from tests.support.session import FOLDER
from tests.support.tiny_sweeps import options, tiny, write_tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a sweep of one finished trial, its store, and its run in MLflow."""
    folder = tmp_path_factory.mktemp("written")
    sweep, store = tiny(folder), Store(folder / "runs")
    run_inline(sweep.trials, store, options(sweep, folder), Monitor())
    api.sync(sweep, store)
    return folder


@pytest.fixture
def copy(written, tmp_path, monkeypatch):
    """A copy of it, in which one is; its MLflow notes the artifacts of the original."""
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    monkeypatch.chdir(folder)
    return tiny(folder), Store(folder / "runs")


def rows(store, query):
    with contextlib.closing(sqlite3.connect(store.root / "mlflow.db")) as database, database:
        return database.execute(query).fetchall()


def places(store):
    """Where MLflow's file has the artifacts of trials."""
    query = (
        "SELECT artifact_uri FROM runs JOIN tags USING (run_uuid) WHERE key = 'nodebench.trial'"
        " AND lifecycle_stage = 'active'"
    )
    return [local_folder(uri) for (uri,) in rows(store, query)]


def mlflow_of(store):
    return list(doctor.CHECKS["mlflow"](Case(store, store.root)))


def run_id(sweep, store):
    client = MlflowClient(tracking_uri(store))
    experiment = client.get_experiment_by_name(sweep.name).experiment_id
    (run,) = client.search_runs([experiment], "tag.`nodebench.trial` != ''")
    return client, experiment, run.info.run_id


def test_artifacts_follow_a_store_that_was_copied_or_moved(copy, written):
    _, store = copy
    original = {path: path.stat().st_mtime_ns for path in written.rglob("*.json")}
    assert places(store)[0].is_relative_to(written)
    ok, moved = mlflow_of(store)
    assert (ok.level, moved.level) == ("ok", "warning")
    assert "`tiny` at a former place" in moved.found
    page = command(Path.cwd(), "report", "tiny.yaml", "--from-mlflow")
    assert page.returncode == 0, page.stderr
    assert "The trial finished" in Path("reports/tiny/README.md").read_text()
    assert places(store)[0].is_relative_to(store.root)
    assert [found.level for found in mlflow_of(store)] == ["ok"]
    store.root.rename("elsewhere")
    store = Store(Path("elsewhere"))
    more = command(
        Path.cwd(), "run", "tiny.yaml", "--inline", "--set", "seeds=[0, 1]", "--no-report",
        env={**os.environ, "NODEBENCH_RUNS": "elsewhere"},
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert len(places(store)) == 2
    assert all((place / "result.json").exists() for place in places(store))
    assert all(place.is_relative_to(store.root) for place in places(store))
    assert not Path("runs").exists()
    assert original == {path: path.stat().st_mtime_ns for path in written.rglob("*.json")}


def test_runs_whose_artifacts_are_gone_give_no_page_until_they_are_written_again(copy):
    sweep, store = copy
    api.sync(sweep, store)
    shutil.rmtree(store.root / "mlartifacts")
    ok, gone = mlflow_of(store)
    assert (ok.level, gone.level) == ("ok", "warning")
    assert gone.found == "artifacts of `tiny` are missing"
    page = api.write_report(sweep, store)
    before = page.read_text()
    with pytest.raises(TrackingError, match="1 finished run of `tiny` whose artifacts are miss"):
        api.write_report(sweep, store, from_mlflow=True)
    assert page.read_text() == before
    assert len(api.sync(sweep, store)) == 1
    assert (places(store)[0] / "result.json").exists()
    api.write_report(sweep, store, from_mlflow=True)
    assert page.read_text() == before


def test_an_experiment_without_a_run_of_the_sweep_gives_no_page(copy):
    _, store = copy
    other = tiny(Path.cwd(), seeds=[7])
    with pytest.raises(TrackingError, match="no run of a trial that `tiny` plans"):
        api.write_report(other, store, from_mlflow=True)
    assert not Path("reports").exists()


def test_an_experiment_that_was_deleted_in_mlflows_pages_is_restored(copy):
    sweep, store = copy
    client, experiment, before = run_id(sweep, store)
    remember(sweep, store)
    note_tracked(sweep, store, state_of(sweep, store))
    assert is_tracked(sweep, store)
    client.delete_experiment(experiment)
    assert not is_tracked(sweep, store)
    for attempt in (
        lambda: api.write_report(sweep, store, from_mlflow=True),
        lambda: page_of(sweep, store),
    ):
        with pytest.raises(TrackingError, match=r"deleted in MLflow's pages\. `nodebench sync"):
            attempt()
    assert list(api.sync(sweep, store).values()) == [before]
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    assert run_id(sweep, store)[2] == before


def test_processes_that_open_a_fresh_file_at_once_all_write_to_it(tmp_path):
    names = ["one", "two", "three"]
    environment = {name: value for name, value in os.environ.items() if name != FOLDER}

    def sync(name):
        write_tiny(tmp_path, name)
        return command(tmp_path, "sync", f"{name}.yaml", env=environment)

    with ThreadPoolExecutor(len(names)) as at_once:
        for done in at_once.map(sync, names):
            assert done.returncode == 0, done.stderr
    found = {name for (name,) in rows(Store(tmp_path / "runs"), "SELECT name FROM experiments")}
    assert found == {"Default", *names}


def spoil(file, how):
    if how == "text":
        file.write_bytes(b"no database" * 100)
    elif how == "cut off":
        os.truncate(file, 200_000)
    else:
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute(f"UPDATE alembic_version SET version_num = '{how}'")


@pytest.mark.parametrize(
    ("how", "what_to_do"),
    [
        ("text", "The file is damaged: move it away, and `nodebench sync SWEEP` writes it again"),
        ("cut off", "The file is damaged: move it away, and `nodebench sync SWEEP` writes it"),
        ("ffffffffffff", "An MLflow newer than"),
        ("5b0e9adcef9c", "An MLflow older than"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_to_be_damaged_newer_or_older(copy, how, what_to_do):
    sweep, store = copy
    file = store.root / "mlflow.db"
    spoil(file, how)
    with pytest.raises(TrackingError) as caught:
        api.sync(sweep, store)
    (found,) = mlflow_of(store)
    for text in (str(caught.value), found.found):
        assert what_to_do in text
        assert "Start the server" not in text
    file.unlink()  # as it says
    done = command(Path.cwd(), "sync", "tiny.yaml")
    assert "tiny: MLflow is up to date (1 run)" in done.stdout, done.stderr


def test_a_database_that_is_not_mlflows_is_left_alone(tmp_path, monkeypatch):
    file = tmp_path / "mine.db"
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE users (name)")
    before = file.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    with pytest.raises(TrackingError, match="is not an MLflow database: it has the tables users"):
        api.sync(sweep, store)
    assert mlflow_of(store)[0].level == "problem"
    assert file.read_bytes() == before


@contextlib.contextmanager
def answering(status, body):
    """Something that answers every request so; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "what_to_do"),
    [
        (200, b"<html>hello</html>", "The server there is not MLflow"),
        (404, b"not here", "The server there is not MLflow"),
        (401, b"who are you", "MLFLOW_TRACKING_USERNAME"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "MLFLOW_TRACKING_USERNAME"),
        (503, b"later", "The server failed: see its log"),
    ],
)
def test_a_server_that_answers_otherwise_has_its_own_cure_and_no_password_is_shown(
    tmp_path, monkeypatch, status, body, what_to_do
):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    with answering(status, body) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(TrackingError) as caught:
            api.sync(sweep, store)
        (found,) = mlflow_of(store)
    for text in (str(caught.value), found.found):
        assert what_to_do in text
        assert f"`http://me:***@127.0.0.1:{port}`" in text
        assert "secret" not in text


@pytest.mark.parametrize(
    ("error", "what_to_do"),
    [
        ("No module named 'psycopg2'", "pip install 'psycopg2-binary'"),
        ("No module named 'pymysql'", "pip install 'pymysql'"),
        ("Can't locate revision identified by 'ffffffffffff'", "An MLflow newer than"),
        ("(sqlite3.OperationalError) database is locked", "Another process keeps writing to it"),
        ("attempt to write a readonly database", "Make the file and its folder writable"),
        ("unable to open database file", "Make the file and its folder writable"),
        ("database or disk is full", "`nodebench gc`"),
        ("The experiment 1 must be in the 'active' state", "`nodebench sync SWEEP` restores it"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "server uses `http:`"),
        ("Failed to resolve 'head' ([Errno -2] Name or service not known)", "no host of this name"),
        ("Port out of range 0-65535", "Set MLFLOW_TRACKING_URI to"),
        ('FATAL: password authentication failed for user "me"', "Check user and password"),
        ("[Errno 111] Connection refused", "Start the server"),
    ],
)
def test_every_error_of_mlflows_has_its_own_cure(error, what_to_do):
    assert what_to_do in cure(error, "http://head:5000")


def test_no_command_shows_a_password(tmp_path):
    write_tiny(tmp_path)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}
    for arguments in (["run", "tiny.yaml", "--inline"], ["doctor", "--json"], ["ui"]):
        done = command(tmp_path, *arguments, env=environment)
        assert "secret" not in done.stdout + done.stderr
        assert "http://me:***@127.0.0.1:9" in done.stdout + done.stderr
    texts = [path for path in tmp_path.rglob("*") if path.suffix in (".txt", ".json", ".md")]
    assert not [path for path in texts if "secret" in path.read_text()]
    assert any(path.name == "result.json" for path in texts)
    assert json.loads((tmp_path / "runs/sweeps/tiny.files.json").read_text())["files"]


def test_an_address_that_can_be_none_is_refused_before_anything_is_trained(tmp_path):
    write_tiny(tmp_path)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "localhost:5000"}
    done = command(tmp_path, "run", "tiny.yaml", "--inline", env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Write `http://localhost:5000`" in done.stderr
    assert not (tmp_path / "runs" / "trials").exists()
    done = command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track", env=environment)
    assert done.returncode == 0, done.stderr
