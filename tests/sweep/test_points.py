"""Tests of sweep/points.py, and of spec/point.py, whose points it chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.errors import SweepError
from nodebench.spec.point import EvaluationPoint, known_point, limit_point
from nodebench.spec.solver import Solver
from nodebench.sweep.points import asked, points, require_points
from tests.support.tiny_sweeps import TINY, tiny

SPIRAL = {"data": "spiral", "model": "neuralode", "solver": {"method": "euler", "step_size": 0.1}}


def test_a_block_may_leave_some_trials_or_budgets_out(tmp_path: Path) -> None:
    sweep = tiny(tmp_path, evaluate={"methods": ["euler", "rk4"], "nfe": [6, 8]})
    require_points(sweep, "sweep.yaml")
    found = asked(sweep.trials[0], sweep.evaluate)
    assert found == [
        EvaluationPoint("euler", steps=6),
        EvaluationPoint("euler", steps=8),
        EvaluationPoint("rk4", steps=2),
    ]


def test_the_training_solver_and_the_limit_are_evaluated_besides(tmp_path: Path) -> None:
    blocks = [{"methods": ["euler"], "steps": [4], "test_size": size} for size in (8, None)]
    sweep = tiny(tmp_path, evaluate=blocks)
    found = points(sweep.trials[0], sweep.evaluate)
    assert [(p.method, p.steps, p.step_factor, p.test_size) for p in found] == [
        ("euler", None, 1.0, 8), ("rk4", 128, None, 8), ("euler", 4, None, 8),
        ("euler", None, 1.0, None), ("rk4", 128, None, None), ("euler", 4, None, None),
    ]  # fmt: skip
    assert found[4] == limit_point(sweep.trials[0].spec)


def test_a_step_is_never_longer_than_the_interval(tmp_path: Path) -> None:
    block = {"methods": ["euler"], "step_factors": [0.5, 1, 1.5, 2]}
    sweep = tiny(tmp_path, grid={"solver.steps": [1]}, evaluate=block)
    factors = [point.step_factor for point in asked(sweep.trials[0], sweep.evaluate)]
    assert factors == [0.5, 1.0]


def test_a_trajectory_has_no_points_by_budget(tmp_path: Path) -> None:
    block = {"methods": ["euler"], "nfe": [8], "step_factors": [0.5]}
    sweep = tiny(tmp_path, base=SPIRAL, evaluate=block)
    (point,) = asked(sweep.trials[0], sweep.evaluate)
    solver = point.solver(sweep.trials[0].spec.solver, None)
    assert solver == Solver(method="euler", step_size=0.05)


@pytest.mark.parametrize(
    ("trained", "point", "expected"),
    [
        ({"method": "euler", "steps": 4}, {"method": "rk4", "step_factor": 0.5},
         {"method": "rk4", "step_size": 0.25}),
        ({"method": "euler", "steps": 4}, {"method": "euler", "step_factor": 1.0},
         {"method": "euler", "steps": 4}),
        ({"method": "euler", "step_size": 0.3, "adapt": {}}, {"method": "euler", "step_factor": 1},
         {"method": "euler", "step_size": 0.3}),
        ({"method": "euler", "step_size": 1.5, "adapt": {}}, {"method": "rk4", "step_factor": 2},
         {"method": "rk4", "step_size": 2.0}),
        ({"method": "dopri5", "rtol": 0.25, "atol": 0.5}, {"method": "bosh3", "tol_factor": 0.5},
         {"method": "bosh3", "rtol": 0.125, "atol": 0.25}),
        ({"method": "scipy_solver", "tol": 0.1, "scipy": "LSODA"},
         {"method": "scipy_solver", "tol": 0.5},
         {"method": "scipy_solver", "tol": 0.5, "scipy": "LSODA"}),
        ({"method": "implicit_adams", "steps": 8, "tol": 1e-5},
         {"method": "implicit_adams", "steps": 16},
         {"method": "implicit_adams", "steps": 16, "tol": 1e-5}),
    ],
    ids=["factor", "own", "own-adapted", "capped", "tolerance", "scipy", "multistep"],
)  # fmt: skip
def test_a_solver_follows_from_a_point_and_the_training(
    trained: dict, point: dict, expected: dict
) -> None:
    found = EvaluationPoint(**point).solver(Solver(**trained), 2.0)
    assert found == Solver(**expected)


def test_batch_statistics_are_an_axis_where_there_is_batch_norm_in_an_ode_block(
    tmp_path: Path,
) -> None:
    block = {"methods": ["euler"], "steps": [4], "batch_norm": ["running", "batch"]}
    base = {**TINY, "data": "digits", "model": {"name": "odenet4", "width": 4}}
    grid = {"model.norm.ode": ["bn", "bn+wn", "ln"]}
    sweep = tiny(tmp_path, base=base, grid=grid, evaluate=block)
    found = [[p.batch_norm for p in asked(t, sweep.evaluate)] for t in sweep.trials]
    assert found == [["running", "batch"], ["running", "batch"], ["running"]]


def test_gradients_are_measured_at_start_and_end_and_need_no_limit(tmp_path: Path) -> None:
    block = {"methods": ["euler"], "steps": [4], "gradients": ["backprop", "adjoint"]}
    sweep = tiny(tmp_path, evaluate=block)
    found = points(sweep.trials[0], sweep.evaluate)
    assert [(p.gradient, p.at) for p in found] == [
        ("backprop", "start"), ("backprop", "end"), ("adjoint", "start"), ("adjoint", "end"),
    ]  # fmt: skip


def test_a_factor_divides_the_steps_between_the_observations_of_a_trajectory() -> None:
    trained = Solver(method="euler", steps=4)
    found = EvaluationPoint("rk4", step_factor=0.5).solver(trained, None)
    assert found == Solver(method="rk4", steps=8)
    assert EvaluationPoint("rk4", step_factor=8).solver(trained, None).steps == 1


def test_the_limit_of_a_trajectory_is_in_steps_between_observations(tmp_path: Path) -> None:
    spec = tiny(tmp_path, base=SPIRAL).trials[0].spec
    assert limit_point(spec) == EvaluationPoint("rk4", steps=8)


def test_scipy_has_no_gradient_but_the_adjoints(tmp_path: Path) -> None:
    block = {"methods": ["scipy_solver"], "tols": [0.1], "gradients": ["backprop"]}
    with pytest.raises(SweepError, match="outside torch"):
        tiny(tmp_path, evaluate=block)


def test_a_point_is_known_again_from_its_row() -> None:
    point = EvaluationPoint("dopri5", tol_factor=0.1, test_size=7, batch_norm="batch")
    assert point.row == {
        "method": "dopri5", "tol_factor": 0.1, "test_size": 7, "batch_norm": "batch",
    }  # fmt: skip
    assert known_point({"point": point.row}) == point


def test_a_trials_own_gradient_is_a_point_with_its_own_solver(tmp_path: Path) -> None:
    grid = [
        {"gradient": [{"name": "recompute", "segments": "auto"}], "solver.steps": [4]},
        {"gradient": ["aca"], "solver": [{"method": "dopri5", "tol": 1e-3}]},
    ]
    sweep = tiny(tmp_path, grid=grid, evaluate={"gradients": ["own"], "at": ["start"]})
    found = [asked(trial, sweep.evaluate) for trial in sweep.trials]
    assert found == [
        [EvaluationPoint("euler", step_factor=1.0, gradient="recompute", at="start")],
        [EvaluationPoint("dopri5", tol_factor=1.0, gradient="aca", at="start")],
    ]
    assert points(sweep.trials[0], sweep.evaluate) == found[0]


def test_only_own_gradients_need_no_methods(tmp_path: Path) -> None:
    for block in ({}, {"gradients": ["backprop"]}, {"gradients": ["own", "adjoint"]}):
        with pytest.raises(SweepError, match="needs `methods`"):
            tiny(tmp_path, evaluate={**block})


ADAPTIVE = [{"method": "dopri5", "tol": 1e-3}]


def test_test_batches_and_steps_of_samples_are_points_without_a_verdict(tmp_path: Path) -> None:
    block = {
        "methods": ["dopri5", "rk4"], "tols": [1e-3], "steps": [4], "test_size": 20,
        "control": ["batch", "sample"], "batch_sizes": [1, 10],
    }  # fmt: skip
    sweep = tiny(tmp_path, grid={"solver": ADAPTIVE}, evaluate=block)
    found = points(sweep.trials[0], sweep.evaluate)
    assert [(p.method, p.control, p.batch_size, p.test_size) for p in found] == [
        ("dopri5", control, size, 20) for control in ("batch", "sample") for size in (1, 10)
    ]  # of rk4 none, whose steps no error chooses; neither the training solver nor the limit
    assert all(known_point({"point": p.row}) == p for p in found)
    assert all(p.is_about_batches for p in found)


def test_batch_sizes_alone_take_every_method_and_a_control_alone_the_trainings_batches(
    tmp_path: Path,
) -> None:
    sizes = {"methods": ["rk4"], "steps": [4], "batch_sizes": [1, 10]}
    control = {"methods": ["dopri5"], "tols": [1e-3], "control": ["sample"]}
    sweep = tiny(tmp_path, grid={"solver": ADAPTIVE}, evaluate=[sizes, control])
    assert points(sweep.trials[0], sweep.evaluate) == [
        EvaluationPoint("rk4", steps=4, batch_size=1),
        EvaluationPoint("rk4", steps=4, batch_size=10),
        EvaluationPoint("dopri5", tol=1e-3, control="sample", batch_size=16),
    ]


def test_a_trajectory_has_no_test_batches(tmp_path: Path) -> None:
    block = {"methods": ["rk4"], "steps": [4], "batch_sizes": [1]}
    sweep = tiny(tmp_path, base=SPIRAL, evaluate=block)
    with pytest.raises(SweepError, match="gives no evaluation point for any trial"):
        require_points(sweep, "sweep.yaml")


def test_gradients_that_a_solver_cannot_have_are_no_points(tmp_path: Path) -> None:
    solver = {"method": "dopri5", "tol": 1e-3, "control": {"step": "sample"}}
    names = ["symplectic", "interpolated", "reversible", "aca", "backprop"]
    block = {"methods": ["dopri5", "rk4"], "tols": [1e-3], "steps": [4], "gradients": names}
    sweep = tiny(tmp_path, grid={"solver": [solver]}, evaluate={**block, "at": ["end"]})
    found = [(p.method, p.gradient) for p in asked(sweep.trials[0], sweep.evaluate)]
    assert found == [
        ("dopri5", "aca"), ("dopri5", "backprop"), ("rk4", "symplectic"), ("rk4", "interpolated"),
        ("rk4", "aca"), ("rk4", "backprop"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "gradient"),
    [("euler", "reversible"), ("alf", "symplectic"), ("implicit_adams", "aca")],
)
def test_a_gradient_is_measured_only_with_solvers_that_it_suits(
    tmp_path: Path, method: str, gradient: str
) -> None:
    block = {"methods": [method], "steps": [4], "gradients": [gradient, "backprop"]}
    sweep = tiny(tmp_path, evaluate=block)
    assert {p.gradient for p in asked(sweep.trials[0], sweep.evaluate)} == {"backprop"}
    none = tiny(tmp_path, evaluate={**block, "gradients": [gradient]})
    with pytest.raises(SweepError, match="`gradients` must suit the methods"):
        require_points(none, "sweep.yaml")


def test_the_trained_method_keeps_its_settings_at_other_steps(tmp_path: Path) -> None:
    solver = {"method": "euler", "steps": 4, "coupling": 0.9}
    block = {"methods": ["euler", "midpoint"], "step_factors": [0.5]}
    sweep = tiny(tmp_path, grid={"solver": [solver]}, evaluate=block)
    half, other = asked(sweep.trials[0], sweep.evaluate)
    trained = sweep.trials[0].spec.solver
    assert half.solver(trained, 1.0) == Solver(method="euler", step_size=0.125, coupling=0.9)
    assert other.solver(trained, 1.0) == Solver(method="midpoint", step_size=0.125)


def test_budgets_and_the_limit_are_of_the_method_without_coupling(tmp_path: Path) -> None:
    solver = {"method": "rk4", "steps": 4, "coupling": 0.9}
    evaluate = {"methods": ["rk4"], "nfe": [32]}
    trial = (sweep := tiny(tmp_path, base={**TINY, "solver": solver}, evaluate=evaluate)).trials[0]
    trained = trial.spec.solver
    own, limit, budget = (p.solver(trained, 1.0) for p in points(trial, sweep.evaluate))
    assert own == trained
    assert limit == Solver(method="rk4", steps=128)
    assert budget == Solver(method="rk4", steps=8)
    assert (budget.stages or 0) * 8 == 32
    gradient = EvaluationPoint("rk4", steps=8, gradient="reversible")
    assert gradient.solver(trained, 1.0).coupling == 0.9
