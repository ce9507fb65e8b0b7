"""Tests of cli/app.py."""

import os
import re
import subprocess
import sys

import pytest
import typer
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


def complaint(*words):
    """What is printed on a command line that typer refuses, without its frame."""
    told = CliRunner().invoke(app.app, words)
    assert told.exit_code == 2
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]", " ", told.output).split())


def test_a_misspelt_or_guessed_command_is_told_the_one_that_is_meant():
    assert "No such command 'rnu'. Did you mean 'run'?" in complaint("rnu", "quickstart")
    told = complaint("compare", "quickstart", "spiral")
    assert "No such command 'compare'. Did you mean 'report --compare'?" in told
    assert not app.GUESSED.keys() & app.PANEL_OF.keys()
    for source in ("first.yaml", "sweeps/first.yml", "quickstart"):
        assert f"No such command '{source}'. Did you mean 'run {source}'?" in complaint(source)
    for guessed, meant in app.GUESSED.items():
        verb, *options = meant.split()
        assert complaint(guessed).count("Did you mean") == 1
        command = typer.main.get_command(app.app).get_command(None, verb)
        assert {*options} <= {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--epochs", "--set train.epochs=VALUE"),
        ("--learning-rate", "--set train.optimizer.lr=VALUE"),
        ("--seeds", "--set seeds=VALUE"),
        ("--solver.steps", "--set solver.steps=VALUE"),
        ("--tol", "--set gradient.solver.tol=VALUE, --set solver.tol=VALUE"),
    ],
)
def test_an_option_that_is_a_setting_is_told_how_to_set_it(option, meant):
    told = complaint("run", "quickstart", option, "5")
    assert f"No such option: {option} (Possible options: {meant})" in told


def test_other_options_keep_the_suggestions_of_typer():
    assert "No such option: --fail-fats (Possible options: --fail-fast" in complaint(
        "run", "quickstart", "--fail-fats"
    )
    assert "--set" not in complaint("gc", "--epochs")
    assert "--set" not in complaint("report", "quickstart", "spiral")
