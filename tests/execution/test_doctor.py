import json
import os
import shutil
import socket
import sqlite3
from collections import namedtuple

import pytest

from nodebench.execution import doctor
from nodebench.execution.doctor import CHECKS, Case, Finding
from nodebench.store import Store
from tests.support.cli_process import command
from tests.support.tiny_sweeps import TINY, tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    return Case(Store(tmp_path / "runs"), tmp_path / "data")


def check(name, case):
    return list(CHECKS[name](case))


def about(case, tmp_path, **data):
    """The same case about a sweep with this data set."""
    base = {"data": data, "model": "odenet", "train": {"epochs": 1}}
    return Case(case.store, case.data_root, tiny(tmp_path, base=base))


def test_an_empty_folder_is_healthy_and_stays_empty(case, tmp_path):
    names = set(CHECKS) - {"versions", "gpu"}  # which depend on the machine
    found = {name: check(name, case) for name in names}
    assert {f.level for findings in found.values() for f in findings} == {"ok"}
    assert os.listdir(tmp_path) == []


def test_versions_are_compared_with_the_lock_file(case, tmp_path, monkeypatch):
    installed = {
        "torch": "2.15.0+cpu",
        "torchvision": "0.1",
        "numba": "1",
        "ray": "2",
        "mlflow": "3",
    }

    def version(name):
        if name not in installed:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    lock = "torch==2.15.0 \\\n    --hash=sha256:00\ntorchvision==0.2 ; python_version > '3'\n"
    (tmp_path / "requirements.lock").write_text(lock)
    torch, vision, diffeq, numba, ray, _ = check("versions", case)
    assert (torch.level, torch.found) == ("ok", "torch 2.15.0+cpu, as locked")
    assert vision.level == "warning"
    assert vision.found == "torchvision 0.1, but `requirements.lock` has 0.2"
    assert diffeq == Finding("problem", "torchdiffeq is not installed", "pip install torchdiffeq")
    assert numba == Finding("ok", "numba 1")
    assert ray == Finding("ok", "ray 2")


def test_a_folder_that_cannot_be_written_is_a_problem_for_runs_alone(case):
    for folder in (case.store.root, case.data_root):
        folder.mkdir()
        folder.chmod(0o555)
    try:
        (runs,), (data,) = check("runs", case), check("data folder", case)
    finally:
        for folder in (case.store.root, case.data_root):
            folder.chmod(0o755)
    assert (runs.level, data.level) == ("problem", "warning")
    assert "NODEBENCH_RUNS" in runs.cure


@pytest.mark.parametrize(("free", "level"), [(6e9, "ok"), (1e9, "warning"), (1e8, "problem")])
def test_little_room_is_said(case, monkeypatch, free, level):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free))
    (found,) = check("runs", case)
    assert found.level == level
    assert f"{free / 1e9:.1f} GB free" in found.found


def test_data_that_cannot_be_downloaded_is_a_problem_and_other_data_a_warning(case, tmp_path):
    (mnist,) = check("data sets", about(case, tmp_path, name="mnist"))
    assert mnist.level == "warning"
    assert "`mnist` has none of its files in" in mnist.found
    assert "`nodebench data mnist`" in mnist.cure
    base = {**TINY, "data": "agnews-small", "model": "odevdcnn"}
    (news,) = check("data sets", Case(case.store, case.data_root, tiny(tmp_path, base=base)))
    assert news.level == "problem"
    assert "`agnews-small` has none of its files in" in news.found
    (digits,) = check("data sets", about(case, tmp_path, name="digits"))
    assert digits == Finding("ok", "`digits` needs no files")


def test_data_that_is_there_is_verified(case):
    folder = case.data_root / "datasets" / "AG_NEWS_SMALL"
    folder.mkdir(parents=True)
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("not the news")
    (found,) = check("data sets", case)
    assert found.level == "problem"
    assert "is damaged" in found.found


def test_mlflow_is_asked_and_its_file_is_not_made(case, monkeypatch):
    from mlflow import MlflowClient

    (found,) = check("mlflow", case)
    assert (found.level, case.store.root.exists()) == ("ok", False)
    case.store.root.mkdir()
    file = case.store.root / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    (found,) = check("mlflow", case)
    assert found.level == "ok"
    assert found.found.endswith("answers and has 1 experiment")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:////{file}")  # a name not asked before
    (found,) = check("mlflow", case)
    assert found.level == "problem"
    assert "out-of-date database schema" in found.found
    file.write_bytes(b"no database" * 100)
    (found,) = check("mlflow", case)
    assert found.level == "problem"
    assert "not a database" in found.found


def test_an_mlflow_server_that_is_away_or_silent_is_a_problem_within_seconds(case, monkeypatch):
    from nodebench.tracking import client

    monkeypatch.setattr(client, "MLFLOW_ANSWER_S", 1)
    before = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        (silent,) = check("mlflow", case)
    (away,) = check("mlflow", case)
    assert (silent.level, away.level) == ("problem", "problem")
    assert "refused" in away.found
    assert os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") == before
    for uri in (
        "nothing://x",
        "http://127.0.0.1:99999",
        "postgresql://127.0.0.1:1/x",
        "sqlite:////proc/none/mlflow.db",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (found,) = check("mlflow", case)
        assert found.level == "problem"
        assert uri in found.found


def test_every_gpu_is_said_with_its_memory_and_driver(case, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(doctor, "_driver", lambda: "570.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (unseen,) = check("gpu", case)
    assert unseen.level == "warning"
    assert "driver 570.1 is installed, but torch" in unseen.found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70e9, 80e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", "GPU {}".format)
    one, two = check("gpu", case)
    assert one.found.startswith("GPU 0, 70.0 of 80.0 GB free, driver 570.1, CUDA ")
    assert (one.level, two.level) == ("ok", "ok")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    sweep = tiny(tmp_path, resources={"gpus": 0.5})
    (wanted,) = check("gpu", Case(case.store, case.data_root, sweep))
    assert wanted.level == "warning"
    assert "--cpu" in wanted.cure


def test_a_temporary_folder_too_deep_for_ray_is_a_problem(case, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "deep/" * 12)
    (found,) = check("ray", case)
    assert found.level == "problem"
    assert "RAY_TMPDIR" in found.cure


@pytest.mark.slow
def test_ray_is_started_if_asked_for(case):
    (found,) = check("ray", Case(case.store, case.data_root, with_ray=True))
    assert found.level == "ok", found
    assert "CPU" in found.found


def test_what_runs_and_what_was_interrupted_is_said(case):
    for name in ("aa", "bb"):
        folder = case.store.folder(name)
        folder.path.mkdir(parents=True)
        folder.checkpoint.write_text("begun")
    with case.store.sweep("tiny").run_lock("1/2"), case.store.folder("aa").locked():
        sweep, trial = check("locks", case)
        (begun,) = check("trials", case)
    assert sweep.found.startswith(f"`tiny.1-of-2` is held by process {os.getpid()} on ")
    assert trial.found.startswith(f"`aa` is held by process {os.getpid()} on ")
    assert (begun.level, begun.found) == ("warning", "1 interrupted: bb")
    assert check("locks", case) == [Finding("ok", "nothing is running")]


def test_the_command_ends_with_status_one_for_a_problem_in_lines_or_json(tmp_path):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    done = command(tmp_path, "doctor", "--json", env=environment)
    assert done.returncode == 1, done.stderr
    checks = json.loads(done.stdout)["checks"]
    assert {row["check"] for row in checks} == set(CHECKS)
    assert [row["level"] for row in checks if row["check"] == "mlflow"] == ["problem"]
    assert os.listdir(tmp_path) == []
