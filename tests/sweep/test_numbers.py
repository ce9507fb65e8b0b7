"""What a number of a sweep file is, and how large it may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nodebench.ode.fixed import Grid
from nodebench.spec.settings import Settings
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import LARGEST_INT
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import Range, SweepFile
from nodebench.sweep.safe_yaml import dump, parse
from tests.support.tiny_sweeps import TINY, write_tiny
from tests.support.untrusted_files import CUSTOM, HEAD, outcome_of

CORE = {
    "true": True, "True": True, "FALSE": False, "null": None, "~": None, "": None,
    "0": 0, "-7": -7, "+3": 3, "010": 10, "-010": -10, "0o10": 8, "0x1F": 31,
    "1e-1": 0.1, "1E5": 1e5, ".5": 0.5, "-.5e+3": -500.0, "5.": 5.0, "1.5": 1.5, "12e03": 12000.0,
    **dict.fromkeys(
        ["yes", "Yes", "on", "no", "off", "y", "n", "1_000", "1:30", "1:30.5", "0b11", "0o8",
         "2024-01-01", "2001-12-14t21:59:43.10-05:00", "=", ".", "e5", "1e", "0x", "1.2.3"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", CORE)
def test_plain_values_are_those_of_yaml_1_2(text: str) -> None:
    is_text = CORE[text] is None and text not in ("null", "~", "")
    expected = text if is_text else CORE[text]
    [found] = parse(f"[{text or 'null'}]")
    assert (found, type(found)) == (expected, type(expected))


def test_numbers_without_end_are_those_of_yaml_1_2() -> None:
    assert parse("[.inf, -.INF, +.Inf]") == [float("inf"), -float("inf"), float("inf")]
    assert parse("[.nan, .NaN]")[1] != parse("[.NaN]")[0]


@pytest.mark.parametrize("text", ["!!int 1_000", "!!int 1:30", "!!bool yes", "!!float 1_0.5"])
def test_a_tag_makes_no_number_of_what_is_none(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="does not fit its tag"):
        parse(f"a: {text}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-LARGEST_INT, LARGEST_INT)
        | st.floats(allow_nan=False) | st.sampled_from(list(CORE))
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=6,
    )
)  # fmt: skip
def test_what_is_written_is_read_again_as_it_was(value: Any) -> None:
    read = parse(dump({"a": value}))["a"]
    assert repr(read) == repr(value)


def test_whoever_changes_a_tree_changes_no_other_of_the_same_text() -> None:
    text = "base: {seeds: [1, 2]}"
    parse(text)["base"]["seeds"].append(3)
    assert parse(text) == {"base": {"seeds": [1, 2]}}


def test_a_number_is_one_in_the_settings_of_an_own_part_as_everywhere(tmp_path) -> None:
    found = outcome_of(tmp_path, CUSTOM % "{a: 1e-1, b: 010, c: yes, d: 1_000, e: true}")
    assert isinstance(found, Sweep)
    settings = found.trials[0].settings["model.settings"]
    assert settings == {"a": 0.1, "b": 10, "c": "yes", "d": "1_000", "e": True}
    again = load(write_tiny(tmp_path, **{**parse(found.text), "name": "again"}))
    assert again.trials[0].id == found.trials[0].id


def all_parts(owner: type[Settings] = Settings) -> Iterator[type[Settings]]:
    for part in owner.__subclasses__():
        yield part
        yield from all_parts(part)


def takes(field: Any, value: Any) -> bool:
    try:
        field.validate_python(value)
    except ValidationError:
        return False
    return True


FIELDS = {
    f"{part.__name__}.{name}": TypeAdapter(info.rebuild_annotation())
    for part in all_parts()
    if part.__module__.startswith("nodebench")
    for name, info in part.model_fields.items()
    if (part.__name__, name) != ("PublishedNumber", "value")  # text where it is as printed
}
SHAPES = (lambda x: x, lambda x: [x], lambda x: [x, x])


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_for_numbers_takes_no_truth_and_no_text(name: str) -> None:
    field = FIELDS[name]
    for shape in SHAPES:
        numbers = [number for number in (1, 2, 4, 0.5) if takes(field, shape(number))]
        if not numbers or takes(field, shape({"any": "value"})):
            continue
        for value in (True, False, str(numbers[0]), "1_000", "yes"):
            assert not takes(field, shape(value)), (name, value)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if takes(field, True)])
def test_a_field_for_truth_takes_no_number_and_no_text(name: str) -> None:
    if not takes(FIELDS[name], {"any": "value"}):
        for value in (1, 0, "yes", "true", "on"):
            assert not takes(FIELDS[name], value), value


TOO_LARGE = {
    "model.t1=1e300": "base.model.t1: should be less than or equal to 1000000",
    "model.width=1000000000": "base.model.width: should be less than or equal to 65536",
    "train.batch_size=1000000000000": "base.train.batch_size: should be less than or equal to",
    "train.epochs=1e15": "base.train.epochs: should be less than or equal to 1000000",
    "train={iterations: 1000000000000}": "base.train.iterations: should be less than or equal to",
    "data.train_size=10000000000": "base.data.train_size: should be less than or equal to",
    "data.dim=100000000": "base.data.dim: should be less than or equal to 65536",
    "data={name: spheres, dim: 60000, train_size: 60000}": "3,660,000,000 numbers",
    "data={name: spiral, span: 1e300}": "base.data.span: should be less than or equal to 1000000",
    "model={name: odenet, width: 20000}": "base.model.width: should be less than or equal to 4096",
    "model={name: odenet, augment_dim: 20000}": "base.model.augment_dim: should be less than",
    "model={name: odenet, blocks: 100000}": "base.model.blocks: should be less than or equal to",
    "model={name: mlp, hidden: [1000000000]}": "base.model.hidden[0]: should be less than",
    "solver.steps=1000000000": "base.solver.steps: should be less than or equal to 1000000",
    "solver={method: euler, step_size: 1e-9}": "`solver.step_size: 1e-09` gives 1e+09 steps",
    "solver={method: euler, step_size: 5e-324}": "gives inf steps over a time of 1",
    "gradient={name: adjoint, solver: {method: rk4, step_size: 1e-9}}": "`gradient.solver.step_s",
    "solver={method: euler, adapt: {max_steps: 1000000000}}": "base.solver.adapt.max_steps:",
    "evaluate={methods: [euler], steps: [1000000000]}": "evaluate[0].steps[0]: should be less",
    "evaluate={methods: [euler], nfe: [1e12]}": "evaluate[0].nfe[0]: should be less than",
    "evaluate={methods: [euler], step_factors: [1e-9]}": "evaluate[0].step_factors[0]: should be",
    "evaluate={methods: [euler], step_factors: [1e99]}": "evaluate[0].step_factors[0]: should be",
    "seeds=[1e300]": "seeds[0]: should fit in 64 bits",
    "search={samples: 1000000000, space: {train.optimizer.lr: {uniform: [0, 1]}}}": "gives 1,000,0",
}  # fmt: skip


@pytest.mark.parametrize("change", TOO_LARGE)
def test_a_size_that_nobody_means_is_refused_by_its_place(tmp_path, change: str) -> None:
    found = outcome_of(tmp_path, yaml.safe_dump({"name": "t", "base": TINY}), change)
    assert isinstance(found, list)
    assert any(TOO_LARGE[change] in message for message in found), found


def test_numbers_in_words_are_named_as_such(tmp_path) -> None:
    found = outcome_of(tmp_path, HEAD + "margin: on\nlimits: {nfe: true}\nresources: {cpus: '2'}")
    assert found == [
        "limits.nfe: should be a number, found `true`",
        "margin: should be a number, found the text `on`",
        "resources.cpus: should be a number, found the text `2`",
    ]


def test_a_grid_of_very_many_times_is_never_a_list() -> None:
    times = iter(Grid(0.0, 1.0, 10**18))
    assert [next(times) for _ in range(3)] == [0.0, 1e-18, 2e-18]
    assert Solver(method="euler", step_size=5e-324).step_count(1.0) == 10**18


def test_all_fields_were_looked_at() -> None:
    assert {"Solver.steps", "Range.integers", "SweepFile.seeds", "Claim.above"} <= FIELDS.keys()
    assert issubclass(Range, Settings)
    assert issubclass(SweepFile, Settings)
