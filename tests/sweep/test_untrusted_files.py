"""Files that mean harm: refused soon, in few words, and nothing of them is run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodebench.cli.app import app
from nodebench.data.load import load_data as load_data
from nodebench.errors import InputError, SweepError
from nodebench.models.build import build
from nodebench.planning import lookup
from nodebench.spec import TrialSpec
from nodebench.store import Store
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import SweepFile
from nodebench.sweep.safe_yaml import LARGEST_BYTES, MOST_VALUES
from tests.support.tiny_sweeps import TINY, write_tiny
from tests.support.untrusted_files import CUSTOM, HEAD, outcome, outcome_of


def chain(link: str, count: int = 30) -> str:
    """Groups of which each holds the one before it ten times."""
    return "".join(f"a{i}: &a{i} {link.replace('*', f'*a{i - 1}')}\n" for i in range(1, count))


HOSTILE = {
    "deep": "[" * 10_000,
    "deep and closed": HEAD + "about: " + "[" * 200 + "]" * 200,
    "deep mappings": "name: t\nbase: " + "{a: " * 200 + "1" + "}" * 200,
    "laughs": "a0: &a0 [x]\n" + chain(f"[{', '.join('*' * 10)}]"),
    "laughs in cells": "a0: &a0 {x: 1}\n"
    + chain(f"{{{', '.join(f'k{i}: *' for i in range(10))}}}"),
    "laughs by merging": "a0: &a0 {x: 1}\n" + chain(f"{{<<: [{', '.join('*' * 10)}]}}"),
    "a chain of merges": "a0: &a0 {x: 1}\n" + chain("{<<: *}", 2000) + "<<: *a1999",
    "a loop in a list": HEAD + "exclude: &a [*a]",
    "a loop in a cell": HEAD + "exclude: [&a {model: *a}]",
    "a loop in settings": CUSTOM % "&a {x: *a}",
    "a loop in a key": "? &a [*a]\n: 1",
    "a list as key": "? [1]\n: 2",
    "a number as key": HEAD + "1: 2",
    "null as key": HEAD + "~: 2",
    "a number as key in settings": CUSTOM % "{1: 2, '1': 3}",
    "a key twice": HEAD + "seeds: [1]\nseeds: [2]",
    "a merge of a number": HEAD + "<<: 3",
    "text as mapping": "!!map abc",
    "text as number": HEAD + "seeds: [!!int abc]",
    "nothing as number": HEAD + "seeds: [!!int '']",
    "text as truth": HEAD + "margin: !!bool maybe",
    "text as time": HEAD + "margin: !!timestamp abc",
    "no digits": HEAD + "seeds: [0b_]",
    "5000 digits": HEAD + "seeds: [" + "9" * 5000 + "]",
    "5000 hex digits": HEAD + "seeds: [0x" + "f" * 5000 + "]",
    "100 digits": HEAD + "seeds: [" + "9" * 100 + "]",
    "100 digits as text": HEAD + "seeds: ['" + "9" * 100 + "']",
    "bytes": CUSTOM % "{a: !!binary aGVs/w==}",
    "a set": CUSTOM % "{a: !!set {x, y}}",
    "pairs": CUSTOM % "{a: !!omap [a: 1]}",
    "infinity in settings": CUSTOM % "{a: [.inf]}",
    "no number in settings": CUSTOM % "{a: {b: .nan}}",
    "infinity": HEAD + "margin: .inf",
    "half a character": HEAD + 'about: "\\ud800"',
    "a terminal's command": HEAD + 'about: "\\e[8m"',
    "no path": HEAD + 'include: "a\\0b"',
    "a long path": HEAD + "include: " + "a" * 5000,
    "many values": f"{HEAD}a: &a [{'1,' * 999}1]\nseeds: [{'*a, ' * (MOST_VALUES // 1000)}]",
    "large": HEAD + "#" * LARGEST_BYTES,
    "a path of 5000 parts": HEAD + "grid: {? " + "model." * 5000 + "x : [1]}",
    "many unknown keys": HEAD + "exclude: [{" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}]",
    "a long unknown key": HEAD + "? " + "steps" * 10_000 + "\n: 1",
    "a long wrong value": HEAD + "limits: " + "x" * 100_000,
    "parts of an import path": "name: t\nbase: {data: spheres, model: 'a..b:c'}",
    "small is a number": HEAD + "small: 3",
    "null everywhere": "\n".join(f"{name}: ~" for name in SweepFile.model_fields),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_refused_soon_in_few_words(tmp_path, text):
    faults = outcome_of(tmp_path, text)
    assert isinstance(faults, list)
    assert max(map(len, faults)) < 1000


def test_a_date_is_text_and_a_merged_mapping_may_be_changed(tmp_path):
    text = (
        "about: 2020-01-01\nname: t\nbase:\n  data: spheres\n  model: plainode\n"
        "  solver: &s {method: euler, steps: 2}\n"
        "  gradient: {name: adjoint, solver: {<<: *s, steps: 8}}\n"
    )
    found = outcome_of(tmp_path, text)
    assert isinstance(found, Sweep)
    assert found.about == "2020-01-01"
    assert found.trials[0].spec.gradient.solver.steps == 8


def test_what_is_no_file_is_not_included(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.yaml").write_text("include: b.yaml")
    (tmp_path / "b.yaml").write_text("include: a.yaml")
    (tmp_path / "bytes").write_bytes(b"\xff\0")
    for other in ("folder", "/dev/zero", "loop", "absent", "sweep.yaml", "a.yaml", "bytes", "3"):
        assert isinstance(outcome_of(tmp_path, f"{HEAD}include: {other}"), list), other
    assert isinstance(outcome_of(tmp_path, HEAD + "include: [a.yaml]"), list)


@pytest.mark.parametrize("source", ["a" * 5000, "a\0b", ".", "/dev/zero", "\udcff"])
def test_what_is_no_file_is_not_a_sweep(source):
    with pytest.raises(SweepError):
        lookup.load_sweep(source)


def test_too_many_trials_are_refused_at_once_with_their_number_and_axes(tmp_path):
    axes = {f"model.a{i}": list(range(10)) for i in range(5)}
    path = write_tiny(tmp_path, grid=[{"solver.steps": [1, 2]}, axes], seeds=list(range(11)))
    (fault,) = outcome(path)
    assert fault.startswith("grid: gives 1,100,022 trials; the maximum is 1,000,000.")
    assert "grid[1], has 10 of `model.a0` x 10 of `model.a1`" in fault
    assert fault.endswith("x 11 of `seeds`")


def test_a_number_of_trials_too_long_to_write_is_still_refused(tmp_path):
    axes = {f"model.a{i}": [1] * 10 for i in range(400)}
    (fault,) = outcome(write_tiny(tmp_path, grid=axes))
    assert "gives 10^400 trials" in fault


def test_after_a_thousand_wrong_cells_the_rest_is_not_checked(tmp_path):
    axes = {"model.widht": list(range(100)), "train.epochs": list(range(1, 101))}
    faults = outcome(write_tiny(tmp_path, grid=axes))
    assert "grid: 1000 configurations are invalid; the rest was not checked" in faults


@pytest.mark.parametrize(
    "tag",
    ["object/apply:os.system ['touch pwned']", "object/new:os.system ['touch pwned']",
     "name:os.system", "module:os", "object:os.system {}", "tuple [1]"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["", "about: ", "{head}seeds: [0, ", "name: t\nbase: "])
def test_tags_that_make_objects_are_refused(tmp_path, monkeypatch, tag, place):
    monkeypatch.chdir(tmp_path)
    text = f"{place.format(head=HEAD)}!!python/{tag}{']' if '[' in place else ''}\n"
    faults = outcome_of(tmp_path, text)
    assert isinstance(faults, list)
    overridden = outcome_of(tmp_path, HEAD, f"about=!!python/{tag}")
    assert "is not allowed. Leave it out" in overridden[0]
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that writes a file when it is imported: the path of that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    trace = tmp_path / "imported"
    (tmp_path / "mine.py").write_text(f"open({str(trace)!r}, 'w')\nnet = 1\n")
    return trace


PLACES = {
    "base": ({"base": {**TINY, "model": "mine:net"}}, []),
    "a name": ({"base": {**TINY, "model": {"name": "mine:net"}}}, []),
    "an axis": ({"grid": {"model": ["plainode", "mine:net"]}}, []),
    "a group": ({"grid": {"model": [{"name": "mine:net"}]}}, []),
    "a zipped axis": ({"grid": {"solver.steps, model": [[1, "mine:net"]]}}, []),
    "data": ({"base": {**TINY, "data": "mine:net"}}, []),
    "small": ({"small": {"model": "mine:net"}}, ["--small"]),
    "--set": ({}, ["--set", "model=mine:net"]),
    "--set base": ({}, ["--set", "base.model=mine:net"]),
    "include": ({"base": {}, "include": "below.yaml"}, []),
}


@pytest.mark.parametrize(("fields", "options"), PLACES.values(), ids=PLACES)
def test_a_plan_shows_every_import_path_and_imports_none(tmp_path, mine, capsys, fields, options):
    (tmp_path / "below.yaml").write_text(yaml.safe_dump({"base": {**TINY, "model": "mine:net"}}))
    write_tiny(tmp_path, **fields)
    app(["plan", "tiny.yaml", *options], standalone_mode=False)
    assert "\n`run` will import `mine:net`\n" in capsys.readouterr().out
    app(["status", "tiny.yaml", *options], standalone_mode=False)
    assert not mine.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"exclude": {"model": "mine:net"}, "grid": {"model": ["plainode", "mine:net"]}},
        {"evaluate": {"methods": ["rk4"], "steps": [1], "when": {"model.name": "plainode"}}},
        {"small": {"model": "mine:net"}},
    ],
)
def test_an_import_path_that_no_trial_has_is_not_imported(tmp_path, mine, fields):
    write_tiny(tmp_path, **fields)
    app(["plan", "tiny.yaml"], standalone_mode=False)
    sweep = load(tmp_path / "tiny.yaml")
    assert not any(trial.spec.import_paths for trial in sweep.trials)
    assert not mine.exists()


def test_a_trial_s_name_has_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = ["a\n`run` will import `x:y`", "b"]
    for name in weights:
        Path(name).write_text(name)
    found = outcome(write_tiny(tmp_path, grid={"weights": weights}))
    assert isinstance(found, Sweep)
    assert [found.label(t) for t in found.trials] == ["a `run` will import `x:y` · s0", "b · s0"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a\nb", "a.b", "~", "x" * 65])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    path = write_tiny(tmp_path)
    path.write_text(path.read_text().replace("name: tiny", f"name: {json.dumps(name)}"))
    assert any(fault.startswith("name: ") for fault in outcome(path))
    assert any(fault.startswith("name: ") for fault in outcome(path, f"name={json.dumps(name)}"))


def test_a_sweep_s_files_stay_in_their_folders(tmp_path):
    fields = {"weights": ["../../x"], "data.name": ["spheres"]}
    found = outcome(write_tiny(tmp_path, name="T-1_x", grid=fields))
    assert isinstance(found, Sweep)
    store = Store(tmp_path / "runs")
    assert store.sweep(found.name).file.parent == store.root / "sweeps"
    assert store.folder(found.trials[0].id).path.parent == store.root / "trials"


class Touch:
    """Unpickled by code that trusts it, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_weights_run_no_code(tmp_path):
    weights, trace = tmp_path / "weights.pt", tmp_path / "pwned"
    weights.write_bytes(pickle.dumps({"model": Touch(trace)}, protocol=2))
    spec = TrialSpec.model_validate({**TINY, "weights": str(weights)})
    with pytest.raises(InputError, match="cannot be read"):
        build(spec, load_data(spec, tmp_path))
    assert not trace.exists()


@pytest.mark.parametrize("weights", ["/dev/zero", ".", "absent", "x" * 5000])
def test_weights_that_are_no_file_are_planned_and_refused_when_needed(tmp_path, weights):
    found = outcome(write_tiny(tmp_path, base={**TINY, "weights": weights}))
    assert isinstance(found, Sweep)
    spec = found.trials[0].spec
    with pytest.raises(InputError, match="cannot be read"):
        build(spec, load_data(spec, tmp_path))
