"""Whether Ray can be started here, or joined, is known before anything is run."""

import os
import socket
import threading
from pathlib import Path

import pytest

from nodebench.errors import ResourceError
from nodebench.execution import ray_cluster
from nodebench.execution.preflight import require_machine
from nodebench.execution.ray_cluster import address, require_answer, temporary_folder
from nodebench.planning import RunOptions
from nodebench.sweep.file import Resources
from tests.support.cli_process import command
from tests.support.tiny_sweeps import write_tiny


@pytest.mark.parametrize("text", ["", " ", "local", None])
def test_no_address_is_this_machine_alone(monkeypatch, text):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if text is not None:
        monkeypatch.setenv("RAY_ADDRESS", text)
    assert address() is None


@pytest.mark.parametrize("text", ["head:6379", "10.0.0.1:6379", "[::1]:6379", " head:1 ", "auto"])
def test_the_address_of_a_head_names_a_cluster(monkeypatch, text):
    monkeypatch.setenv("RAY_ADDRESS", text)
    assert address() == text.strip()


@pytest.mark.parametrize(
    "text",
    ["head", "ray://head:10001", "http://head:8265", ":6379", "head:", "head:0", "head:65536",
     "::1:6379", "a b:6379", "head:6379/x", "auto:1x", "h" * 5000],
)  # fmt: skip
def test_what_names_no_cluster_is_refused_in_a_sentence(tmp_path, monkeypatch, text):
    monkeypatch.setenv("RAY_ADDRESS", text)
    with pytest.raises(ResourceError, match="`host:port`") as caught:
        require_machine(RunOptions(tmp_path, Resources()), inline=False)
    assert len(str(caught.value)) < 450
    require_machine(RunOptions(tmp_path, Resources()), inline=True)


def test_a_wrong_address_ends_with_status_two_and_creates_nothing(tmp_path):
    write_tiny(tmp_path)
    done = command(tmp_path, "run", "tiny.yaml", env={**os.environ, "RAY_ADDRESS": "ray://x:1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["tiny.yaml"]


def answering(answer: bytes | None):
    """The address of a server that gives one answer, or none."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        line, _ = server.accept()
        line.recv(100)
        if answer is not None:
            line.sendall(answer)
            line.close()
        held.append(line)

    held = [server]
    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}", held


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "not Ray"), (b"", "not Ray"), (None, "timed out")],
)
def test_what_answers_and_is_not_ray_is_refused_within_seconds(monkeypatch, answer, reason):
    monkeypatch.setattr(ray_cluster, "ANSWER_S", 0.2)
    where, held = answering(answer)
    with pytest.raises(ResourceError, match=reason):
        require_answer(where)
    for each in held:
        each.close()


def test_a_head_answers_by_its_settings():
    where, held = answering(b"\0\0\x12\4\0\0\0\0\0")
    require_answer(where)
    for each in held:
        each.close()


@pytest.mark.parametrize("where", ["127.0.0.1:1", "no.such.host.invalid:1", f"{'x' * 80}:1"])
def test_nobody_there_is_said(where):
    with pytest.raises(ResourceError, match="where no cluster answers"):
        require_answer(where)


LONG = "/tmp/" + "x" * 80


def test_a_long_tmpdir_is_replaced_by_a_short_one(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", LONG)
    assert temporary_folder() == Path("/tmp")
    monkeypatch.setenv("TMPDIR", "/proc/sys")
    assert temporary_folder() == Path("/tmp")


def test_letters_of_several_bytes_count_as_such(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    room = ray_cluster.SOCKET_PATH_BYTES - len(ray_cluster.SOCKET) - len("/tmp//")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "é" * room)
    assert temporary_folder() == Path("/tmp")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "e" * room)
    assert temporary_folder() == Path("/tmp/" + "e" * room)


@pytest.mark.parametrize(
    ("folder", "why"), [(LONG, "is too long for"), ("/proc/sys", "cannot be written")]
)
def test_a_folder_that_was_named_for_ray_and_is_of_no_use_is_refused(
    tmp_path, monkeypatch, folder, why
):
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ResourceError, match=rf"{why}.*RAY_TMPDIR"):
        require_machine(RunOptions(tmp_path, Resources()), inline=False)
    require_machine(RunOptions(tmp_path, Resources()), inline=True)


def test_whatever_keeps_ray_from_starting_is_one_sentence(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from nodebench.execution.ray_tune import session

    def init(**_how):
        raise Exception("The current node\ntimed out " + "." * 1000)

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ResourceError, match="The current node timed out") as caught,
        session(tmp_path),
    ):
        pass
    assert "--inline" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == []


def test_a_cluster_that_cannot_be_joined_is_named(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from nodebench.execution.ray_tune import session

    def init(**_how):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    words = r"RAY_ADDRESS is `auto`.*unset RAY_ADDRESS"
    with pytest.raises(ResourceError, match=words), session(tmp_path):
        pass


@pytest.mark.slow
def test_auto_with_nothing_there_ends_before_mlflow_hears_of_it(tmp_path):
    write_tiny(tmp_path)
    environment = {**os.environ, "RAY_ADDRESS": "auto", "RAY_TMPDIR": str(tmp_path / "none")}
    done = command(tmp_path, "run", "tiny.yaml", env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("RAY_ADDRESS is `auto`, which cannot be joined")
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize("home", ["/proc/sys", None])
def test_ray_gets_a_token_where_it_cannot_keep_one(monkeypatch, home):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home if home is None else lambda: Path(home))
    ray_cluster._bring_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")


def test_ray_keeps_its_own_token_in_a_home_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    ray_cluster._bring_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.listdir(tmp_path) == []


@pytest.fixture
def home_with_token(tmp_path, monkeypatch):
    """A home folder in which Ray has left a token, and no variable about it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")


@pytest.mark.parametrize(
    ("where", "variables", "mode"),
    [
        ("127.0.0.1:6379", {}, "token"),
        ("localhost:6379", {}, "token"),
        ("192.0.2.77:6379", {}, None),  # nobody else is shown what lies in the home folder
        ("no.such.host.invalid:6379", {}, None),
        ("192.0.2.77:6379", {"RAY_AUTH_TOKEN": "given"}, "token"),
        ("192.0.2.77:6379", {"RAY_AUTH_TOKEN_PATH": "/a/file"}, "token"),
        ("127.0.0.1:6379", {"RAY_AUTH_MODE": "disabled"}, "disabled"),
        ("auto", {}, None),  # Ray sees to it
        ("", {"RAY_AUTH_TOKEN": "given"}, None),
    ],
)
def test_a_token_is_shown_to_this_machine_and_to_whom_it_was_given_for(
    home_with_token, monkeypatch, where, variables, mode
):
    monkeypatch.setenv("RAY_ADDRESS", where)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ray_cluster.SETTINGS:
        monkeypatch.setenv(name, "")  # put back at the end
    ray_cluster.quieten()
    assert os.environ.get("RAY_AUTH_MODE") == mode


def test_a_cluster_that_cannot_be_joined_says_how_a_token_is_given():
    assert "RAY_AUTH_MODE to `token`" in ray_cluster.TO_JOIN
    assert "RAY_AUTH_TOKEN" in ray_cluster.TO_JOIN
