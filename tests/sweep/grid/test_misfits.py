"""Combinations of a grid that are no trials: where they are told, and how `exclude` takes them."""

import pytest

from nodebench.sweep import load
from tests.support.planned_sweeps import BASE, faults, write_sweep

CURE = "To leave such combinations out, list them in `exclude`"
ALF = {"method": "alf", "steps": 2}


@pytest.mark.parametrize(
    ("base", "axes", "where", "is_cured_by_excluding"),
    [
        ({"gradient": "reversible", "solver": "dopri5"}, {"train.epochs": [1]}, "base", False),
        ({"gradient": "reversible", "solver": ALF}, {"solver": ["dopri5"]},
         "grid[1].solver", False),
        ({"solver": "dopri5"}, {"gradient": ["reversible"], "train.epochs": [1, 2]},
         "grid[1].gradient", True),
        ({"solver": ALF}, {"gradient": ["backprop", "reversible"], "solver": [ALF, "dopri5"]},
         "grid[1]", True),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_told_where_the_file_brings_them_together(
    tmp_path, base, axes, where, is_cured_by_excluding
):
    blocks = [{"solver": [ALF]}, axes]
    (fault,) = faults(write_sweep(tmp_path, base={**BASE, **base}, grid=blocks))
    assert fault.startswith(f"{where}: the gradient `reversible` does not suit `dopri5`")
    assert fault.endswith(CURE) == is_cured_by_excluding


def test_the_settings_of_one_group_that_do_not_go_together_are_told_with_the_cure(tmp_path):
    axes = {"solver.method": ["euler", "dopri5"], "solver.steps": [2]}
    base = {name: value for name, value in BASE.items() if name != "solver"}
    (fault,) = faults(write_sweep(tmp_path, base=base, grid=axes))
    assert fault.startswith("grid[0].solver: `dopri5` (adaptive) takes `tol`")
    assert fault.endswith(CURE)


GRID = {"solver": [ALF, "dopri5"], "gradient": ["backprop", "reversible"]}


@pytest.mark.parametrize("solver", [{"solver": "dopri5"}, {"solver.method": "dopri5"}])
def test_combinations_that_do_not_go_together_can_be_excluded(tmp_path, solver):
    entry = {**solver, "gradient": "reversible"}
    sweep = load(write_sweep(tmp_path, base=BASE, grid=GRID, exclude=[entry]))
    assert [(t.spec.solver.method, t.spec.gradient.name) for t in sweep.trials] == [
        ("alf", "backprop"), ("dopri5", "backprop"), ("alf", "reversible"),
    ]  # fmt: skip


def test_an_entry_of_exclude_hides_no_unknown_word_and_no_other_combination(tmp_path):
    grid = {**GRID, "gradient": ["backprop", "reversibel"]}
    exclude = [{"solver": "dopri5", "gradient": "reversibel"}]
    told = faults(write_sweep(tmp_path, base=BASE, grid=grid, exclude=exclude))
    assert [each.partition(":")[0] for each in told] == [
        "exclude[0].gradient.name", "grid[0].gradient[1]",
    ]  # fmt: skip
    assert all("Did you mean `reversible`?" in each for each in told)
    exclude = [{"solver.method": "dopri", "gradient.name": "reversible"}]
    told = faults(write_sweep(tmp_path, base=BASE, grid=GRID, exclude=exclude))
    assert told[0].startswith("exclude[0].solver.method: `dopri` is not a known method. Did you")
    other = [{"solver": "alf", "gradient": "reversible"}]
    (fault,) = faults(write_sweep(tmp_path, base=BASE, grid=GRID, exclude=other))
    assert "does not suit `dopri5`" in fault


WITHOUT_SOLVER = {name: value for name, value in BASE.items() if name != "solver"}


@pytest.mark.parametrize(
    ("solver", "entry", "why"),
    [
        ({}, {"solver.method": "dopri5"},
         "combination has no defaults. Write `solver.method: dopri5` in `base` or `grid`"),
        ({"solver": ["dopri5", ALF]}, {"solver.method": "dopri5", "solver.tol": 1e-3},
         "combination has no defaults. Write `solver.tol: 0.001` in `base` or `grid`"),
        ({"solver": ["dopri5", ALF]}, {"solver": "dopri5", "seed": 0},
         "it names a `seed`, and no seed makes it valid. Remove `seed` there"),
    ],
)  # fmt: skip
def test_the_entry_that_was_meant_to_exclude_a_combination_is_told_with_the_reason(
    tmp_path, solver, entry, why
):
    grid = {"gradient": ["backprop", "reversible"], **solver}
    exclude = [{"solver": "alf", "gradient": "adjoint"}, {"gradient": "reversible", **entry}]
    (fault,) = faults(write_sweep(tmp_path, base=WITHOUT_SOLVER, grid=grid, exclude=exclude))
    assert "the gradient `reversible` does not suit `dopri5`" in fault
    assert ". `exclude[1]` does not leave this out, because " in fault
    assert fault.endswith(why)


@pytest.mark.parametrize(
    "entry",
    [
        {"gradient": "reversible", "data.dim": 10}, {"gradient": "reversible", "solver.tol": 0.5},
        {"gradient": "reversible", "train.batch_size": 999}, {"seed": 1},
        {"seed": 1, "data.name": "spheres"},
    ],
)  # fmt: skip
def test_an_entry_that_would_leave_out_something_else_is_not_blamed(tmp_path, entry):
    """Writing its values in `base` would change the trials, and `exclude: [{}]` leaves out all."""
    grid = {"gradient": ["backprop", "reversible"], "solver": ["dopri5", ALF]}
    (fault,) = faults(write_sweep(tmp_path, base=WITHOUT_SOLVER, grid=grid, exclude=[entry]))
    assert "the gradient `reversible` does not suit `dopri5`" in fault
    assert "does not leave this out" not in fault


def test_an_entry_whose_default_would_be_another_was_not_meant(tmp_path):
    exclude = [{"gradient": "reversible", "solver.method": "bosh3"}]
    grid = {"gradient": ["backprop", "reversible"], "model.width": [32, 64]}
    (fault,) = faults(write_sweep(tmp_path, base=WITHOUT_SOLVER, grid=grid, exclude=exclude))
    assert "`exclude[0]`" not in fault


def test_a_mistake_in_base_is_told_once_whatever_the_number_of_models(tmp_path):
    base = {**BASE, "model": {"name": "mlp", "widht": 32}}
    grid = [{"model.name": ["odenet", "resnet", "odenet4", "plainode"]}, {"model": ["odenet"]}]
    (fault,) = faults(write_sweep(tmp_path, base=base, grid=grid))
    assert fault.startswith("base.model.widht: `widht` is not a known field. Did you mean `width`?")


@pytest.mark.parametrize(
    ("solver", "axis"),
    [
        ({"method": "euler", "step_size": 0.1, "tol": 0.1}, {"solver.control": [{}]}),
        ({"method": "dopri5", "steps": 3}, {"solver.tol": [0.1, 0.01]}),
    ],
)
def test_a_clash_that_base_has_alone_is_told_there(tmp_path, solver, axis):
    (fault,) = faults(write_sweep(tmp_path, base={**BASE, "solver": solver}, grid=axis))
    assert fault.startswith(f"base.solver: `{solver['method']}`")
