"""Tests of cli/app.py."""

import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from nodebench.cli import app


@pytest.mark.parametrize("chosen", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_idle_threads_rest_unless_the_user_says_how_they_wait(chosen, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(chosen))
    app.let_idle_threads_sleep()
    assert os.environ == (chosen or {"GOMP_SPINCOUNT": app.SPINS})


def test_the_command_line_lets_idle_threads_rest_before_torch_is_loaded():
    code = (
        "import os, sys; from nodebench.cli import app; app.app = lambda: print("
        "os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules); app.command_line()"
    )
    free = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=free
    )
    assert done.stdout.split() == [app.SPINS, "False"]


def test_the_help_lists_every_verb_in_the_order_in_which_they_are_needed():
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app.app, ["--help"]).output)
    panels = {}
    for panel, verb in re.findall(r"^╭─ (.*?) ─|^│ ([a-z]+) ", text, re.MULTILINE):
        if panel:
            verbs = panels[panel] = []
        else:
            verbs.append(verb)
    del panels["Options"]
    assert {panel: tuple(verbs) for panel, verbs in panels.items()} == app.HELP_PANELS
    assert len(app.app.registered_commands) == len(app.PANEL_OF)
