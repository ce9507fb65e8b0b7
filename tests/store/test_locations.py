import os
from pathlib import Path

import pytest

from nodebench.errors import InputError, StoreError, TrackingError
from nodebench.execution.ray_cluster import address
from nodebench.store import Store
from nodebench.store.locations import (
    data_root,
    default_store,
    tracking_file,
    tracking_uri,
)
from tests.support.tiny_sweeps import tiny, write_tiny


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(store=None):
    store = store or default_store()
    return store.root, data_root(), tracking_uri(store), address()


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_a_variable_that_is_empty_or_blank_counts_as_unset(monkeypatch, value):
    unset = found()
    for name in ("NODEBENCH_RUNS", "NODEBENCH_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.setenv(name, value)
    assert found() == unset
    assert unset[0] == Path.cwd() / "runs"
    assert unset[3] is None


def test_what_a_shell_would_expand_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("NODEBENCH_RUNS", " ~/runs ")
    monkeypatch.setenv("NODEBENCH_DATA", "$HOME/data")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/mlflow.db?timeout=20")
    assert found()[:2] == (tmp_path / "me" / "runs", tmp_path / "me" / "data")
    assert found()[2] == f"sqlite:///{tmp_path}/me/mlflow.db?timeout=20"
    assert tracking_file(found()[2]) == tmp_path / "me" / "mlflow.db"
    monkeypatch.setenv("NODEBENCH_RUNS", "~nobody-of-this-name/runs")
    with pytest.raises(StoreError, match="this user does not exist"):
        default_store()


@pytest.mark.parametrize("value", [".", "./", "sweeps/.."])
def test_a_store_is_never_the_users_folder(tmp_path, monkeypatch, value):
    (tmp_path / "sweeps").mkdir()
    file = write_tiny(tmp_path / "sweeps")
    file.write_text("# mine\n" + file.read_text())
    before = file.read_text()
    monkeypatch.setenv("NODEBENCH_RUNS", value)
    with pytest.raises(StoreError, match="has `sweeps`, which nodebench did not write"):
        default_store()
    with pytest.raises(StoreError, match="NODEBENCH_RUNS"):
        Store(tmp_path).sweep("tiny").keep("name: tiny", {})
    assert file.read_text() == before
    assert os.listdir(tmp_path) == ["sweeps"]


@pytest.mark.parametrize(
    "path", ["trials/mine/notes.txt", "trials", "index.json", "sweeps/make.py", "sweeps/a/b.yaml"]
)
def test_a_folder_with_files_of_a_stores_names_is_no_store(tmp_path, path):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(StoreError, match="which nodebench did not write"):
        Store(tmp_path).require_own()


def test_a_store_may_lie_among_other_files_and_knows_itself(tmp_path):
    (tmp_path / "events.out").write_text("of TensorBoard, say")
    store = Store(tmp_path)
    store.require_own()
    store.sweep("tiny").keep("name: tiny", {"aa": "one"})
    (tmp_path / "trials" / "mine").mkdir(parents=True)
    store.require_own()


def test_a_store_of_an_earlier_release_is_known_for_one(tmp_path):
    store, sweep = Store(tmp_path / "runs"), tiny(tmp_path)
    store.sweep("tiny").keep(sweep.text, {"aa": "one"})
    for name in (".nodebench", "sweeps/tiny.files.json"):
        (store.root / name).unlink()
    store.folder("aa").create(sweep.trials[0])
    (store.root / "index.json").write_text("{}")
    store.sweep("tiny").keep("name: tiny", {"aa": "one"})
    assert store.sweep("tiny").file.read_text() == "name: tiny"


def test_a_file_is_no_store_and_no_folder_of_data(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for name, place in (("NODEBENCH_RUNS", default_store), ("NODEBENCH_DATA", data_root)):
        monkeypatch.setenv(name, "file")
        with pytest.raises(InputError, match=f"{name} is .*file`, which is a file"):
            place()


@pytest.mark.parametrize(
    ("uri", "cure"),
    [
        ("localhost:5000", "its scheme is missing. Write `http://localhost:5000`"),
        ("10.0.0.1:5000/ml", "its scheme is missing. Write `http://10.0.0.1:5000/ml`"),
        ("'http://head:5000'", "quotes"),
        ("file:///me/mlruns", "Write `sqlite:////me/mlruns/mlflow.db`"),
        ("file:mlruns", "Write `sqlite:///mlruns/mlflow.db`"),
        ("./mlruns/", "Write `sqlite:///./mlruns/mlflow.db`"),
        ("mlflow.db", "Write `sqlite:///mlflow.db`"),
        ("sqlite:///:memory:", "lost at the end"),
        ("sqlite://", "lost at the end"),
        ("sqlite:///.", "that is a folder"),
        ("sqlite:/mlflow.db", "that is not an address"),
        ("http://", "that is not an address"),
        ("http:///ml", "that is not an address"),
        ("postgres://head/ml", "write its scheme as `postgresql://head/ml`"),
    ],
)
def test_an_address_that_can_reach_no_mlflow_is_refused_with_what_to_write(
    tmp_path, monkeypatch, uri, cure
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError) as caught:
        tracking_uri(Store(tmp_path))
    assert f"`{uri}`" in str(caught.value)
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http://head:5000",
        "https://me@head/ml",
        "postgresql+psycopg2://head/ml",
        "postgresql:///ml?host=/run",
        "databricks",
        "databricks://profile",
        "azureml://eastus/ml",
        "arn:aws:sagemaker:eu:1:mlflow/x",
    ],
)
def test_every_other_address_is_mlflows_to_judge(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(Store(tmp_path)) == uri
    assert tracking_file(uri) is None
