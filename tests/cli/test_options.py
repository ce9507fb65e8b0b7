from __future__ import annotations

import inspect

import pytest
import typer

import nodebench
from nodebench import api
from nodebench.cli.options import OF_LAUNCHES, Source, grouped
from nodebench.execution import launch
from nodebench.execution.runner import Backend
from nodebench.planning.selection import Selection
from nodebench.store import Store
from tests.support.tiny_sweeps import Quiet, tiny


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


def test_every_keyword_of_a_launch_is_one_of_its_parts_and_another_is_refused(tmp_path):
    keywords = {"only", "shard", "retry_failed", "inline", "cpu", "fail_fast"}
    keywords |= {"track", "require_mlflow", "write_report", "replace_other"}
    parts = launch.Selection, launch.Backend, launch.Publication
    assert {name for part in parts for name in inspect.signature(part).parameters} == keywords
    assert launch.RunKeywords.__annotations__.keys() == keywords == OF_LAUNCHES.keys()
    with pytest.raises(TypeError, match="Did you mean `inline`"):
        api.run(tiny(tmp_path), Store(tmp_path / "runs"), Quiet(), inlin=True)


def test_one_text_is_a_list_of_one():
    how = {"only": "solver.steps=2"}
    assert launch.Launch.from_keywords(how).selection.only == ["solver.steps=2"]
    sweep = nodebench.load_sweep("quickstart", overrides="train.epochs=1")
    assert {trial.spec.train.epochs for trial in sweep.trials if trial.spec.train.epochs} == {1}


def test_the_commands_about_sweeps_are_functions_that_need_no_store():
    verbs = {"plan", "run", "evaluate", "time", "repro", "sync", "doctor"}
    assert verbs <= {*nodebench.__all__}
    for name in {*nodebench.__all__} - {"Data", "ODEBlock", "Split"}:
        store = inspect.signature(getattr(nodebench, name)).parameters.get("store")
        assert store is None or store.default is None, name
