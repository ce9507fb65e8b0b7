"""Whatever a sweep file, a `--set` or an `--only` says: a sweep or our error, soon, and no harm."""

import json
import pickle
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodebench import sources
from nodebench.cli.sweeps import plan as plan_command
from nodebench.cli.sweeps import status as status_command
from nodebench.data.load import load as load_data
from nodebench.errors import InputError, SweepError
from nodebench.models.build import build
from nodebench.planning import chosen
from nodebench.point import points
from nodebench.spec import TrialSpec
from nodebench.store import Store
from nodebench.sweep import Sweep, load
from nodebench.sweepfile import SweepFile
from nodebench.tree import LARGEST_BYTES, MOST_VALUES
from sweeps import TINY, write_tiny

SECONDS = 5.0
"""Of computing, the most that one file may take; a hang would take minutes."""

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

HEAD = "name: t\nbase: {data: spheres, model: plainode, solver: {method: euler, steps: 2}}\n"
CUSTOM = "name: t\nbase: {data: spheres, model: {name: 'mine:net', settings: %s}}\n"


def outcome(path: Path, *overrides: str, small: bool = False) -> Sweep | list[str]:
    """The sweep that a file is, or what is wrong with it; anything else fails the test."""
    before, start = sorted(path.parent.iterdir()), time.process_time()
    try:
        found = sources.load_sweep(path, overrides=overrides, small=small)
        for trial in found.trials[:20]:
            assert len(trial.id) == len(trial.recipe_id) == 12
            assert found.label(trial).isprintable()
            points(trial, found.evaluate)
        json.dumps([trial.settings for trial in found.trials[:20]], allow_nan=False)
        assert isinstance(yaml.safe_load(found.text), dict)
    except SweepError as error:
        return messages(error, path.parent)
    finally:
        assert time.process_time() - start < SECONDS
        assert sorted(path.parent.iterdir()) == before
    return found


def messages(error: SweepError, folder: Path) -> list[str]:
    assert Path(error.source).parent == folder
    assert error.faults
    assert all(fault.where and fault.what for fault in error.faults)
    return [str(fault) for fault in error.faults]


def outcome_of(folder: Path, content: str | bytes, *overrides: str) -> Sweep | list[str]:
    path = folder / "sweep.yaml"
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    return outcome(path, *overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ------------------------------------------------------------------------------ arbitrary input

WORDS = sorted(
    {
        *SweepFile.model_fields, *TrialSpec.model_fields, "method", "steps", "step_size", "tol",
        "rtol", "adapt", "epochs", "width", "norm", "ode", "settings", "optimizer", "schedule",
        "at", "when", "methods", "nfe", "tols", "test_size", "checksums", "augment", "cpus", "gpus",
    }
)  # fmt: skip
NAMES = ["spheres", "plainode", "odenet", "euler", "dopri5", "mine:net", "sgd", "bn", "mlp", "t"]
PATHS = ["solver.steps", "model.norm.ode", "model.name, data.name", "seed", "train.optimizer.lr"]

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.integers(-2, 20), st.floats(),
    st.sampled_from(NAMES), st.text(max_size=20), st.dates(), st.binary(max_size=5),
    st.just("x" * 300), st.sets(st.integers(), max_size=2),
)  # fmt: skip
keys = st.one_of(st.sampled_from(WORDS), st.sampled_from(PATHS), st.text(max_size=8))
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys | st.integers() | st.none(), inner, max_size=5)
    ),
    max_leaves=15,
)
groups = st.dictionaries(keys, trees, max_size=4)


@st.composite
def almost_sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """A sound sweep file in which some fields, at some depth, are something else."""
    tree: dict[str, Any] = {
        "name": "t",
        "base": {**TINY, "train": dict(TINY["train"])},
        "grid": {"solver.steps": [1, 2]},
        "evaluate": {"methods": ["euler"], "steps": [2]},
    }
    places = [tree, tree["base"], tree["base"]["train"], tree["grid"], tree["evaluate"]]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        key = draw(keys | st.sampled_from(sorted(place)))
        place[key] = draw(trees)
    return tree


@FUZZ
@given(tree=almost_sweeps() | groups | trees, small=st.booleans())
def test_any_tree_is_a_sweep_or_our_error(folder, tree, small):
    path = folder / "sweep.yaml"
    path.write_text(yaml.dump(tree, allow_unicode=True), "utf-8", "surrogatepass")
    outcome(path, small=small)


@FUZZ
@given(content=st.text() | st.binary() | st.text("{}[]&*a:,-?!<\n \"'|>%@`#~0x.e_", max_size=40))
def test_any_text_and_any_bytes_are_our_error(folder, content):
    assert isinstance(outcome_of(folder, content), list)


@FUZZ
@given(text=st.text("{}[]&*a:,-?!<\n \"'|>~0x.e_1", max_size=20), end=st.sampled_from(PATHS))
def test_any_text_behind_a_sound_head_is_a_sweep_or_our_error(folder, text, end):
    outcome_of(folder, f"{HEAD}exclude: [{{{end}: {text}}}]")
    outcome_of(folder, HEAD + text)


assignments = st.builds(
    lambda key, value: f"{key}={value}",
    keys | st.sampled_from([*PATHS, "model.", ".", "", "grid", "seeds"]) | st.text(max_size=5),
    st.text(max_size=10) | trees.map(lambda tree: yaml.dump(tree, default_flow_style=True)),
)  # fmt: skip


@FUZZ
@given(texts=st.lists(assignments | st.text(max_size=10), min_size=1, max_size=3))
def test_any_override_is_a_sweep_or_our_error(folder, texts):
    outcome_of(folder, HEAD + "grid: {solver.steps: [1, 2]}", *texts)
    outcome_of(folder, HEAD + "grid: 5", *texts)


@FUZZ
@given(
    texts=st.lists(assignments | st.text(max_size=10), max_size=2),
    shard=st.text("0123456789/ -", max_size=8) | st.text(max_size=4) | st.just("1/" + "9" * 5000),
)
def test_any_choice_of_trials_is_some_trials_or_our_error(folder, texts, shard):
    found = outcome_of(folder, HEAD + "seeds: [0, 1]")
    assert isinstance(found, Sweep)
    with suppress(SweepError):
        assert chosen(found, texts, shard) <= {trial.id for trial in found.trials}


# --------------------------------------------------------------------------------- hostile YAML


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
        sources.load_sweep(source)


def test_too_many_trials_are_refused_at_once_with_their_number_and_axes(tmp_path):
    axes = {f"model.a{i}": list(range(10)) for i in range(5)}
    path = write_tiny(tmp_path, grid=[{"solver.steps": [1, 2]}, axes], seeds=list(range(11)))
    (fault,) = outcome(path)
    assert fault.startswith("grid: makes 1,100,022 trials, and 1,000,000 is the most.")
    assert "grid[1], has 10 of `model.a0` x 10 of `model.a1`" in fault
    assert fault.endswith("x 11 of `seeds`")


def test_a_number_of_trials_too_long_to_write_is_still_refused(tmp_path):
    axes = {f"model.a{i}": [1] * 10 for i in range(400)}
    (fault,) = outcome(write_tiny(tmp_path, grid=axes))
    assert "makes 10^400 trials" in fault


def test_after_a_thousand_wrong_cells_the_rest_is_not_checked(tmp_path):
    axes = {"model.widht": list(range(100)), "train.epochs": list(range(1, 101))}
    faults = outcome(write_tiny(tmp_path, grid=axes))
    assert "grid: 1000 cells are wrong; the rest was not checked" in faults


# --------------------------------------------------------------------------- code and files


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
    assert "plain values" in overridden[0]
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
    "base": ({"base": {**TINY, "model": "mine:net"}}, {}),
    "a name": ({"base": {**TINY, "model": {"name": "mine:net"}}}, {}),
    "an axis": ({"grid": {"model": ["plainode", "mine:net"]}}, {}),
    "a group": ({"grid": {"model": [{"name": "mine:net"}]}}, {}),
    "a zipped axis": ({"grid": {"solver.steps, model": [[1, "mine:net"]]}}, {}),
    "data": ({"base": {**TINY, "data": "mine:net"}}, {}),
    "small": ({"small": {"model": "mine:net"}}, {"small": True}),
    "--set": ({}, {"changes": ["model=mine:net"]}),
    "--set base": ({}, {"changes": ["base.model=mine:net"]}),
    "include": ({"base": {}, "include": "below.yaml"}, {}),
}


@pytest.mark.parametrize(("fields", "options"), PLACES.values(), ids=PLACES)
def test_a_plan_shows_every_import_path_and_imports_none(tmp_path, mine, capsys, fields, options):
    (tmp_path / "below.yaml").write_text(yaml.safe_dump({"base": {**TINY, "model": "mine:net"}}))
    write_tiny(tmp_path, **fields)
    plan_command("tiny.yaml", **options)
    assert "\nimports `mine:net` when it runs\n" in capsys.readouterr().out
    status_command("tiny.yaml", **options)
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
    plan_command("tiny.yaml")
    sweep = load(tmp_path / "tiny.yaml")
    assert not any(trial.spec.import_paths for trial in sweep.trials)
    assert not mine.exists()


def test_a_trial_s_name_has_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = ["a\nimports `x:y` when it runs", "b"]
    for name in weights:
        Path(name).write_text(name)
    found = outcome(write_tiny(tmp_path, grid={"weights": weights}))
    assert isinstance(found, Sweep)
    assert [found.label(t) for t in found.trials] == ["a imports `x:y` when it runs · s0", "b · s0"]


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
    assert store.sweep_file(found.name).parent == store.root / "sweeps"
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
