"""What a plan says and does not refuse."""

import json

import pytest

from nodebench import api
from nodebench.cli import inspect
from nodebench.planning.doubts import doubts
from nodebench.planning.lookup import foreign
from nodebench.store import Store
from tests.support.tiny_sweeps import TINY, tiny, write_tiny


def said(tmp_path, solver, precision="float32", **fields):
    train = {**TINY["train"], "precision": precision}
    return doubts(tiny(tmp_path, base={**TINY, "solver": solver, "train": train}, **fields))


def test_a_checkpoint_evaluated_as_what_it_was_not_trained_as_is_said(tmp_path):
    trained = tiny(tmp_path).trials[0]
    folder = Store(tmp_path / "runs").folder(trained.id)
    folder.create(trained)
    folder.checkpoint.write_bytes(b"weights")
    grid = {"solver": [{"method": "euler", "steps": 2}, "dopri5"], "model.activation": ["relu"]}
    path = write_tiny(tmp_path, grid=grid)
    [told] = doubts(foreign(path, folder.checkpoint))
    start = f"`{folder.checkpoint}` was trained with `solver.method: euler`, `solver.steps: 2`"
    assert told.startswith(start)
    assert ". 1 of 2 configurations differs in this, so its results and verdicts are not" in told
    assert told.endswith("; `--only` leaves them out")
    assert (
        doubts(foreign(path, folder.checkpoint, overrides=["grid={train.batch_size: [8]}"])) == []
    )
    [told] = doubts(foreign(path, folder.checkpoint, overrides=["grid={'model.width': [5, 6]}"]))
    assert "`model.width: 4`. 2 of 2 configurations differ in this, so their" in told
    assert told.endswith("; set this with `--set`")
    elsewhere = tmp_path / "weights.pt"
    elsewhere.write_bytes(b"weights")
    assert doubts(foreign(path, elsewhere)) == []
    further = tiny(tmp_path, base={**TINY, "weights": str(folder.checkpoint)}, grid=grid)
    assert doubts(further) == []  # is trained on as something else


@pytest.mark.parametrize(
    ("precision", "tol", "is_said"),
    [
        ("float32", 1e-12, True), ("float32", 9e-8, True), ("float32", 1e-7, False),
        ("tf32", 1e-5, True), ("tf32", 1e-4, False), ("bf16", 1e-4, True), ("bf16", 1e-3, False),
    ],
)  # fmt: skip
def test_a_tolerance_that_is_finer_than_the_precision_is_said(tmp_path, precision, tol, is_said):
    found = said(tmp_path, {"method": "dopri5", "tol": tol}, precision)
    start = f"`solver.tol: {tol:g}` is below the resolution of {precision}"
    assert [text.startswith(start) for text in found] == ([True] if is_said else [])


def test_the_relative_tolerance_counts_wherever_it_is_given(tmp_path):
    fine = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-3}
    assert said(tmp_path, fine)[0].startswith("`solver.rtol: 1e-09`")
    assert said(tmp_path, {"method": "dopri5", "rtol": 1e-3, "atol": 1e-12}) == []
    evaluate = {"methods": ["dopri5"], "tols": [1e-3, 1e-10], "tol_factors": [1, 1e-6]}
    found = said(tmp_path, {"method": "dopri5"}, evaluate=evaluate)
    assert [text.partition("` is below the resolution")[0] for text in found] == [
        "`evaluate[0].tols: 1e-10",
        "`evaluate[0].tol_factors: 1e-06, so tol: 1e-09",
    ]
    base = {**TINY, "gradient": {"name": "adjoint", "solver": fine}}
    assert doubts(tiny(tmp_path, base=base))[0].startswith("`gradient.solver.rtol: 1e-09`")


def test_a_line_is_said_once_whatever_the_number_of_trials(tmp_path):
    fields = {"seeds": [0, 1, 2], "grid": {"model.width": [2, 3]}}
    assert len(said(tmp_path, {"method": "dopri5", "tol": 1e-9}, **fields)) == 1


def test_scripts_are_told_too(tmp_path):
    base = {**TINY, "solver": {"method": "dopri5", "tol": 1e-9}}
    sweep = tiny(tmp_path, base=base)
    plan = json.loads(inspect.plan_json(sweep, api.plan(sweep, Store(tmp_path / "runs")), {}))
    assert plan["doubts"] == doubts(sweep)


def test_combinations_that_equal_others_are_counted_with_what_has_no_effect(tmp_path):
    base = {"data": "digits", "model": "odenet4"}
    grid = {
        "model": ["resnet4", "odenet4"],
        "solver": [{"method": "euler", "steps": 2}, {"method": "euler", "steps": 4}],
        "gradient": ["backprop", "adjoint"],
    }
    sweep = tiny(tmp_path, base=base, grid=grid, seeds=[0, 1])
    assert len(sweep.trials) == 2 * 5
    assert doubts(sweep) == [
        "3 combinations of the grid equal others and are left out: `solver`, `gradient` have no "
        "effect for `resnet4`"
    ]
    excluded = tiny(tmp_path, base=base, grid=grid, exclude=[{"model.name": "resnet4"}])
    assert doubts(excluded) == []


def test_a_setting_without_effect_for_a_model_with_an_ode_is_told_with_its_label(tmp_path):
    grid = {
        "model.norm": ["gn", "bn"],
        "gradient": ["adjoint"],
        "gradient.update_batch_norm": [True, False],
    }
    sweep = tiny(tmp_path, base={"data": "digits", "model": "odenet4"}, grid=grid)
    [told] = doubts(sweep)
    assert told == (
        "1 combination of the grid equals another and is left out: `gradient.update_batch_norm` "
        "has no effect for `gn`"
    )


def test_a_combination_that_is_written_twice_is_counted_without_a_cause(tmp_path):
    grid = [{"solver": ["dopri5", {"method": "dopri5", "tol": 1e-3}]}, {"model.width": [4]}]
    base = TINY | {"solver": "dopri5"}
    assert doubts(tiny(tmp_path, base=base, grid=grid)) == [
        "2 combinations of the grid equal others and are left out"
    ]


def test_combinations_that_are_repeated_for_different_reasons_have_a_line_each(tmp_path):
    grid = [
        {"model": ["resnet4"], "solver": ["dopri5", "bosh3", "tsit5"]},
        {"model": ["mlp"], "gradient": ["backprop", "adjoint"]},
        {"model.name": ["odenet4", "odenet4"]},
    ]
    assert doubts(tiny(tmp_path, base={"data": "digits"}, grid=grid)) == [
        "2 combinations of the grid equal others and are left out: `solver` has no effect for "
        "`resnet4`",
        "1 combination of the grid equals another and is left out: `gradient` has no effect for "
        "`mlp`",
        "1 combination of the grid equals another and is left out",
    ]


def test_evaluation_budgets_that_no_configuration_can_use_are_told(tmp_path):
    evaluate = [
        {"methods": ["euler", "rk4"], "nfe": [4, 6, 8], "step_factors": [0.5, 3]},
        {"methods": ["dopri5"], "tols": [0.01], "tol_factors": [10]},
    ]
    assert doubts(tiny(tmp_path, evaluate=evaluate)) == [
        "`evaluate[0].step_factors`: `euler` skips `3`: it needs a training with fixed steps, and "
        "a step within the interval",
        "`evaluate[0].nfe`: `rk4` skips `6`: it needs multiples of its stages times the ODE "
        "blocks (`steps` takes any number)",
        "`evaluate[0].step_factors`: `rk4` skips `3`: it needs a training with fixed steps, and "
        "a step within the interval",
        "`evaluate[1].tol_factors`: `dopri5` skips `10`: it needs a training with a tolerance",
    ]
    some = {"solver.steps": [2, 4]}  # the step of one of them is small enough
    assert not any(
        "step_factors" in told for told in doubts(tiny(tmp_path, grid=some, evaluate=evaluate))
    )


def test_a_baseline_that_every_configuration_has_is_told(tmp_path):
    text = "`baseline` matches every configuration, so the report compares none with it"
    grid = {"solver.steps": [2, 4]}
    assert text in doubts(tiny(tmp_path, grid=grid, baseline={"solver.method": "euler"}))
    assert text not in doubts(tiny(tmp_path, grid=grid, baseline={"solver.steps": 2}))
