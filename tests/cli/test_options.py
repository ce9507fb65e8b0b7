from __future__ import annotations

import inspect
import pydoc
import re
from typing import get_type_hints

import pytest
import typer

import nodebench
from nodebench.cli.options import OF_LAUNCHES, Source, grouped
from nodebench.execution.launch_keywords import Launch, RunKeywords
from nodebench.execution.runner import Backend
from nodebench.planning.selection import Selection
from nodebench.store import Store
from tests.support.tiny_sweeps import tiny


def test_a_group_of_options_is_read_as_options_and_given_as_a_group():
    seen = []

    @grouped
    def verb(source: Source, place: Backend, part: Selection, more: bool = False) -> None:
        seen.append((source, place, part, more))

    assert [*inspect.signature(verb).parameters] == [
        "source", "changes", "size", "small", "inline", "cpu", "fail_fast",
        "only", "shard", "retry_failed", "more",
    ]  # fmt: skip
    app = typer.Typer()
    app.command()(verb)
    with pytest.raises(SystemExit) as ended:
        app(["a.yaml", "--set", "seeds=[1]", "--cpu", "--shard", "1/2"])
    assert ended.value.code == 0
    source, part = Source("a.yaml", ["seeds=[1]"]), Selection(only=[], shard="1/2")
    assert seen == [(source, Backend(cpu=True), part, False)]


def test_the_keywords_of_a_launch_are_its_fields_and_each_has_an_option():
    keywords = get_type_hints(RunKeywords)
    assert keywords == get_type_hints(Launch)
    assert keywords.keys() == OF_LAUNCHES.keys()


@pytest.mark.parametrize("function", [nodebench.run, nodebench.evaluate])
def test_an_unknown_keyword_is_refused_by_the_function_that_was_called(tmp_path, function):
    told = f"`nodebench.{function.__name__}`: `onyl` is not a known keyword. Did you mean `only`"
    with pytest.raises(TypeError, match=told):
        function(tiny(tmp_path), Store(tmp_path / "runs"), onyl="seed=0")


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        (
            {"epochs": 3},
            "`epochs` is a setting of the sweep: pass `nodebench.load_sweep(SWEEP, "
            "overrides={'train.epochs': 3})` as the sweep",
        ),
        ({"seed": 1}, "load_sweep(SWEEP, overrides={'seeds': [1]})` as the sweep"),
        ({"cpus": 2}, "load_sweep(SWEEP, overrides={'resources.cpus': 2})` as the sweep"),
        (
            {"small": True},
            "`small` is a keyword of `load_sweep`: pass `nodebench.load_sweep(SWEEP, small=True)`",
        ),
    ],
)
def test_a_keyword_of_the_sweep_is_told_where_it_belongs(tmp_path, keywords, told):
    with pytest.raises(TypeError, match=re.escape(told)):
        nodebench.run(tiny(tmp_path), Store(tmp_path / "runs"), **keywords)


def test_one_text_is_a_list_of_one(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1])
    assert Selection("seed=1").ids(sweep) == Selection(["seed=1"]).ids(sweep)
    assert Selection("seed=1").ids(sweep) == {sweep.trials[1].id}
    sweep = nodebench.load_sweep("quickstart", overrides="train.epochs=1")
    assert {trial.spec.train.epochs for trial in sweep.trials if trial.spec.train.epochs} == {1}


def test_the_commands_about_sweeps_are_functions_that_need_no_store():
    verbs = {"plan", "run", "evaluate", "time", "repro", "sync", "doctor"}
    assert verbs <= {*nodebench.__all__}
    for name in nodebench.__all__:
        store = inspect.signature(getattr(nodebench, name)).parameters.get("store")
        assert store is None or store.default is None, name


@pytest.mark.parametrize("function", [nodebench.run, nodebench.evaluate])
def test_help_shows_the_keywords_of_a_launch_with_their_defaults(function):
    shown = inspect.signature(function).parameters
    assert list(shown) == ["sweep", "store", "monitor", *get_type_hints(RunKeywords)]
    assert {name: shown[name].default for name in RunKeywords.__annotations__} == {
        name: getattr(Launch(), name) for name in RunKeywords.__annotations__
    }
    text = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert "retry_failed: 'bool' = False" in text
