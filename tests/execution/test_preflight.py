"""What would fail at the end is refused before anything starts, in one sentence."""

import os
import shutil
import subprocess
import time

import pytest

from nodebench import api
from nodebench.cli import app
from nodebench.cli.progress import say_published
from nodebench.cli.run import _status
from nodebench.errors import InputError, ResourceError
from nodebench.execution.preflight import require_places
from nodebench.execution.runner import Monitor
from nodebench.files import require_writable
from nodebench.spec.settings import MODEL_ARGUMENTS, import_part
from nodebench.store import Store
from tests.support.cli_process import command, new_python
from tests.support.tiny_sweeps import TINY, tiny, write_tiny


@pytest.fixture
def read_only(tmp_path):
    """A folder that even root cannot write."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a read-only file system cannot be mounted here: it takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refused(tmp_path, *arguments, **environment):
    """What `run` says of a sweep that it refuses."""
    write_tiny(tmp_path)
    settings = {**os.environ, **environment}
    done = command(tmp_path, "run", "tiny.yaml", "--inline", *arguments, env=settings)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").touch()
    said = refused(tmp_path).replace(f"{tmp_path}/", "")
    assert "`runs`, which is a file: set it to a folder" in said
    done = command(tmp_path, "plan", "tiny.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "NODEBENCH_RUNS" in done.stderr


def test_a_store_under_proc_is_refused(tmp_path):
    assert "NODEBENCH_RUNS" in refused(tmp_path, NODEBENCH_RUNS="/proc/sys/runs")


@pytest.mark.parametrize("place", ["runs/trials", "runs/sweeps", "reports", "reports/tiny/figures"])
def test_a_file_in_the_place_of_a_folder_is_found_before(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"cannot be written|but a store needs a folder"):
        api.run(tiny(tmp_path), Store(tmp_path / "runs"), inline=True)
    (tmp_path / "tiny.yaml").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_read_only_store_and_a_read_only_folder_are_refused(tmp_path, read_only, monkeypatch):
    sweep = tiny(tmp_path)
    with pytest.raises(ResourceError, match=r"cannot be written .*NODEBENCH_RUNS"):
        api.run(sweep, Store(read_only / "runs"), inline=True)
    monkeypatch.chdir(read_only)
    with pytest.raises(ResourceError, match=r"reports/tiny.* cannot be written .*--no-report"):
        api.run(sweep, Store(tmp_path / "runs"), inline=True)
    with pytest.raises(ResourceError, match="--out"):
        api.write_report(sweep, Store(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
    assert api.plan(sweep, Store(read_only / "runs"))[0].missing


def test_what_is_written_to_is_left_as_it_was(tmp_path):
    require_places(Store(tmp_path / "runs"), tmp_path / "reports" / "x")
    require_writable(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path):
    (tmp_path / "runs").symlink_to("nowhere")
    with pytest.raises(OSError, match="is not a folder"):
        require_writable(tmp_path / "runs")


def test_a_report_that_cannot_be_written_keeps_the_trials_and_says_what_catches_up(
    tmp_path, monkeypatch, capsys
):
    def full(*_arguments, **_settings):
        raise OSError(28, "No space left on device", "reports/tiny/README.md")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nodebench.report.page.write_report_folder", full)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    done = api.run(sweep, store, Monitor(), inline=True, track=False)
    assert done.complete
    assert done.page is None
    say_published(sweep, done.published)
    said = capsys.readouterr().err
    assert "No space left on device: 'reports/tiny/README.md'" in said
    assert "`nodebench report tiny` writes it later" in said
    assert _status(done) == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = api.run(sweep, store, Monitor(), inline=True, track=False)
    assert (_status(again), again.published.report_problem) == (0, None)
    assert again.page.exists()


def test_the_command_ends_with_status_one_for_a_report_that_could_not_be_written(tmp_path):
    write_tiny(tmp_path)
    run = ("run", "tiny.yaml", "--inline", "--no-track")
    assert command(tmp_path, *run).returncode == 0
    page = tmp_path / "reports" / "tiny" / "README.md"
    page.unlink()
    page.mkdir()
    write_tiny(tmp_path, seeds=[0, 1])
    done = command(tmp_path, *run)
    assert done.returncode == 1
    assert done.stdout.endswith("tiny: 2 of 2 trials finished\n")
    assert "`nodebench report tiny` writes it later" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


SOURCES = {
    "syntax": ("def net(:", "line 1: SyntaxError: invalid syntax"),
    "division": ("\n1/0", "line 2: ZeroDivisionError: division by zero"),
    "exit": ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
    "lacks a package": ("import no_such_package", "line 1: ModuleNotFoundError"),
    "recursion": ("def f():\n    f()\nf()", "RecursionError"),
    "assertion": ("assert False, 'not\\nnow'", "line 1: AssertionError: not now"),
    "lacks the name": ("", "`own_code` has no `net`"),
}


@pytest.mark.parametrize(("text", "reason"), SOURCES.values(), ids=SOURCES)
def test_own_code_that_cannot_be_imported_is_an_error_with_its_place(
    tmp_path, monkeypatch, text, reason
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_code.py").write_text(text)
    with pytest.raises(InputError) as caught:
        import_part("own_code:net", MODEL_ARGUMENTS)
    assert reason in str(caught.value)
    assert "`own_code:net`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_code_that_is_not_there_is_told_from_what_it_lacks():
    with pytest.raises(InputError, match=r"No module named 'not_there'\. Give `package.module"):
        import_part("not_there.inner:net", MODEL_ARGUMENTS)


def test_a_syntax_error_in_own_code_ends_with_status_two(tmp_path):
    (tmp_path / "own.py").write_text("def net(:")
    write_tiny(tmp_path, base={**TINY, "model": "own:net"})
    done = command(tmp_path, "run", "tiny.yaml", "--inline")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "runs").exists()


def test_a_pipe_that_nobody_writes_to_is_refused_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("nodebench.sweep.safe_yaml.WRITER_WAIT_S", 0.1)
    os.mkfifo(tmp_path / "pipe.yaml")
    start = time.monotonic()
    with pytest.raises(InputError, match="pipe without a writer"):
        api.load_sweep(tmp_path / "pipe.yaml")
    assert time.monotonic() - start < 2


def test_a_sweep_may_come_by_a_pipe(tmp_path):
    text = write_tiny(tmp_path).read_text()
    done = command(tmp_path, "plan", "/dev/stdin", input=text)
    assert done.stdout.endswith("tiny: 1 trial, 1 to run\n"), done.stderr


def test_a_working_folder_that_was_removed_is_said(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    done = new_python(folder, "plan", "x.yaml", preexec_fn=lambda: shutil.rmtree(folder))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the working folder has been removed" in done.stderr


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    write_tiny(tmp_path)
    assert command(tmp_path, "run", "tiny.yaml", "--inline", "--no-track").returncode == 0
    (tmp_path / "runs" / "index.json").unlink(missing_ok=True)
    (tmp_path / "runs" / "index.json").mkdir()
    done = command(tmp_path, "plan", "tiny.yaml")
    assert (done.returncode, done.stderr) == (2, f"`{tmp_path}/runs/index.json`: Is a directory\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "`ulimit -u`"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "`ulimit -v`"),
        (MemoryError(), "`ulimit -v`"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "the system refused"),
        (OSError(28, "No space left on device", "runs/x"), "`runs/x`: No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys, error, words):
    def refuse():
        raise error

    for name in ("app", "take_over", "_have_a_home"):
        monkeypatch.setattr(app, name, refuse if name == "app" else lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        app.command_line()
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_user_without_a_home_gets_one_that_is_not_there(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(app.Path, "home", no_home)
    monkeypatch.delenv("HOME")
    app._have_a_home()
    assert os.environ["HOME"] == "/nonexistent"


def test_mlflow_is_not_required_where_it_is_not_written(tmp_path):
    with pytest.raises(InputError, match="contradict each other"):
        api.run(tiny(tmp_path), Store(tmp_path / "runs"), track=False, require_mlflow=True)
    assert not (tmp_path / "runs").exists()
