"""Ctrl-C at any moment of the command line: a line, status 130, and nothing half-written."""

import os
import subprocess
import sys

import pytest

from nodebench.cli import app
from tests.support.tiny_sweeps import heeding_interrupts, write_tiny

INTERRUPTED_AT_IMPORT = """
import os, signal, sys

module = sys.argv.pop(1)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from nodebench.__main__ import main
main()
"""


def interrupted(folder, module, *arguments):
    """What comes of a command that gets Ctrl-C as it begins to import a module."""
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_IMPORT, module, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=heeding_interrupts,
    )


@pytest.mark.parametrize(
    "module", ["nodebench.cli", "typer", "pydantic", "pydantic_core", "yaml", "nodebench.api"]
)
def test_an_interrupt_while_the_command_line_is_imported_is_a_line(tmp_path, module):
    write_tiny(tmp_path)
    done = interrupted(tmp_path, module, "run", "tiny.yaml")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted before anything began\n"
    assert os.listdir(tmp_path) == ["tiny.yaml"]


@pytest.mark.parametrize("module", ["pandas", "matplotlib", "numpy"])
def test_an_interrupt_of_a_report_is_a_line_and_leaves_no_page(tmp_path, module):
    write_tiny(tmp_path)
    done = interrupted(tmp_path, module, "report", "tiny.yaml")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert not list(tmp_path.glob("reports/*/README.md"))


@pytest.mark.parametrize("module", ["torch", "numpy", "torch.nn"])
def test_an_interrupt_of_a_run_while_torch_is_imported_leaves_no_result(tmp_path, module):
    write_tiny(tmp_path)
    arguments = ("run", "tiny.yaml", "--inline", "--no-track", "--no-report")
    done = interrupted(tmp_path, module, *arguments)
    assert (done.returncode, done.stderr) == (
        130,
        "interrupted; the same command resumes from here\n",
    )
    assert not list(tmp_path.glob("runs/trials/*/result.json"))


INTERRUPTED_IN_A_CALLBACK = """
import os, signal, sys, time, weakref
from nodebench.cli.interrupt import heed_interrupts, interruptible

class Thing:
    pass

number = signal.Signals[sys.argv[1]]
if number != signal.SIGINT:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
heed_interrupts()
thing = Thing()
watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
with interruptible():
    del thing
    time.sleep(30)
    print("the interrupt was lost")
"""


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_in_a_callback_where_python_drops_exceptions_is_not_lost(signal_name):
    """Each signal is repeated as itself: in a background job, SIGINT is ignored."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_CALLBACK, signal_name],
        capture_output=True, text=True, check=False, preexec_fn=heeding_interrupts,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.stderr.startswith("interrupted; the same command resumes from here\n")
    assert "ignored" not in done.stderr


def test_who_ignores_interrupts_is_not_interrupted(tmp_path):
    write_tiny(tmp_path)
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPTED_AT_IMPORT}"
    done = subprocess.run(
        [sys.executable, "-c", code, "yaml", "plan", "tiny.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_interrupt_while_the_first_is_answered_is_no_traceback(monkeypatch):
    def interrupted_again():
        raise KeyboardInterrupt

    for name in ("app", "take_over", "_have_a_home", "heed_interrupts"):
        monkeypatch.setattr(app, name, interrupted_again if name == "app" else lambda: None)
    with pytest.raises(SystemExit) as caught:
        app.command_line()
    assert caught.value.code == 130
