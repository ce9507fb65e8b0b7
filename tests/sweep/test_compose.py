"""A sweep file as one tree: the lines in which its mistakes are."""

import os
from pathlib import Path

import pytest

from nodebench.errors import SweepError
from nodebench.sweep import load
from tests.support.planned_sweeps import lines, write_sweep

HEAD = """name: t
base:
  data: digits
  model: odenet
  solver: {method: euler, steps: 4}
"""
"""The first five lines of a file."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seedz: [1]\n", {"seedz": 6}),
        ("seeds:\n  - 0\n  - -1\n", {"seeds[1]": 8}),
        ("  train:\n    optimizer: {lr: 1,\n      momentum: x}\n",
         {"base.train.optimizer.momentum": 8}),
        ("grid:\n  - {}\n  - train.epochs: [1]\n    model.norm.ode:\n      - gn\n      - xn\n",
         {"grid[1].model.norm.ode[1]": 11}),
        ("grid:\n  model.norm.ode: [gn, bn, xn, yn]\n",
         {"grid[0].model.norm.ode[2]": 7, "grid[0].model.norm.ode[3]": 7}),
        ("grid:\n  solver.method, solver.steps:\n    - [rk4, 2]\n    - [rk5, 2]\n    - [rk4, x]\n",
         {"grid[0].solver.method[1]": 9, "grid[0].solver.steps[2]": 10}),
        ("grid:\n  model:\n    - odenet\n    - name: odenet\n      widht: 8\n",
         {"grid[0].model[1].widht": 10}),
        ("grid:\n  solver.stepz: [1, 2]\n", {"grid[0].solver.stepz": 7}),
        ("grid:\n  - solver.steps: [1, 2]\n    solver.method: [dopri5]\n", {"grid[0].solver": 7}),
        ("grid:\n  solver.method, solver.steps: [[rk4]]\n",
         {"grid[0].solver.method, solver.steps": 7}),
        ("claims:\n  - says: x\n    of: {}\n    above: 0\n  - above: 0\n", {"claims[1].says": 10}),
        ("exclude:\n  - train: {epochs: 1}\n    solver:\n      stepz: 3\n",
         {"exclude[0].solver.stepz": 9}),
    ],
)  # fmt: skip
def test_a_mistake_has_the_line_of_its_place(tmp_path, text, expected):
    path = write_sweep(tmp_path, HEAD + text)
    assert lines(path) == expected


SMALL = "grid:\n  solver.steps: [1, 2]\nsmall:\n  train.epochs: 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  solver.steps: [1, x]\n", {"grid[0].solver.steps[1]": 10}),
        ("  model.widht: 3\n", {"base.model.widht": 10}),
        ("  base.model: odnet\n", {"base.model": 10}),
        ("  grid:\n    solver.steps:\n      - 1\n      - x\n", {"grid[0].solver.steps[1]": 13}),
        ("  seeds: [x]\n", {"seeds[0]": 10}),
        ("  limits: {minutes: x}\n", {"limits.minutes": 10}),
        ("  solvr.steps: 3\n", {"small.solvr.steps": 10}),
    ],
)  # fmt: skip
def test_a_mistake_of_a_smaller_size_has_the_line_in_its_block(tmp_path, text, expected):
    assert lines(write_sweep(tmp_path, HEAD + SMALL + text), size="small") == expected


def test_the_line_is_that_of_the_file_whatever_its_form(tmp_path):
    text = HEAD + "grid:\n  - &a\n    solver.steps: [1, x]\n  - {<<: *a, seeds: [1]}\n"
    found = lines(write_sweep(tmp_path, text))
    assert found["grid[0].solver.steps[1]"] == found["grid[1].solver.steps[1]"] == 8


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("model.width=x", "base.model.width"),
        ("solver.steps=0", "base.solver.steps"),
        ("solver.steps=[1, 0]", "grid[0].solver.steps[1]"),
        ("solver={method: euler, steps: 0}", "base.solver.steps"),
        ("solver.tol=0.1", "base.solver"),
        ("grid={train.epochs: [0]}", "grid[0].train.epochs[0]"),
        ("seeds=[-1]", "seeds[0]"),
        ("solvr.steps=0", "--set solvr.steps"),
    ],
)
def test_a_value_of_set_has_no_line_although_the_file_has_another_there(tmp_path, override, place):
    text = HEAD + "grid:\n  - solver.steps: [1, 2]\nseeds: [0]\n"
    assert lines(write_sweep(tmp_path, text), overrides=[override]) == {place: None}


def test_an_included_value_has_no_line_and_one_of_the_file_has_its_own(tmp_path):
    included = "base:\n  data: digits\n  model: {name: odenet, width: x}\n  solver: {steps: 4}\n"
    (tmp_path / "other.yaml").write_text(included)
    path = write_sweep(
        tmp_path,
        "name: t\ninclude: other.yaml\nbase:\n  model: {norm: gm}\n  solver: {method: eulr}\n",
    )
    assert lines(path) == {
        "base.model.width": None, "base.model.norm": 4, "base.solver.method": 5
    }  # fmt: skip
    assert lines(write_sweep(tmp_path, "name: t\ninclude: no.yaml\n")) == {"include": 2}


def test_a_line_is_told_after_the_place(tmp_path):
    with pytest.raises(SweepError) as caught:
        load(write_sweep(tmp_path, f"{HEAD}seeds: [x]\n"))
    told = "seeds[0] (line 6): should be a number, found the text `x`"
    assert str(caught.value).splitlines()[1:] == [f"  {told}"]


def test_a_pipe_which_cannot_be_read_twice_has_mistakes_without_lines(tmp_path):
    read, write = os.pipe()
    os.write(write, f"{HEAD}seeds: [x]\n".encode())
    os.close(write)
    assert lines(Path(f"/dev/fd/{read}")) == {"seeds[0]": None}
