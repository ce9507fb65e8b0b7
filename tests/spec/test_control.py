"""The `control` of a solver's steps in a trial: its identity, defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nodebench.spec import Trial
from nodebench.spec.gradient import Gradient
from nodebench.spec.point import EvaluationPoint, is_training_solver
from nodebench.spec.solver import Control, Solver
from nodebench.spec.vocabulary import METHODS
from tests.support.tiny_trainings import spec

BY_SAMPLE = {"method": "dopri5", "tol": 1e-3, "control": {"step": "sample"}}


def test_a_solver_without_a_control_keeps_its_id() -> None:
    def of(control: object) -> str:
        return Trial(spec(solver={"method": "dopri5", "tol": 1e-3, "control": control})).id

    plain = Trial(spec(solver={"method": "dopri5", "tol": 1e-3})).id
    assert of(None) == plain
    ids = {of({"step": "batch"}), of({"step": "sample"}), of({"step": "sample", "safety": 0.8})}
    assert len(ids | {plain}) == 4
    assert of({}) == of({"step": "batch", "controller": "i", "max_factor": 10})


def test_a_method_that_torchdiffeq_lacks_always_has_a_control() -> None:
    own = [name for name, facts in METHODS.items() if not facts.in_torchdiffeq]
    assert own == ["tsit5"]
    solver = Solver(method="tsit5", tol=1e-3)
    assert solver.control == Control(step="batch", controller="i")
    assert Solver(method="dopri5", tol=1e-3).control is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "rk4", "steps": 4, "control": {}}, "methods such as `dopri5`, not of `rk4`"),
        ({"method": "scipy_solver", "control": {}}, "not of `scipy_solver`"),
        ({**BY_SAMPLE, "dense_output": True}, "no interpolation with a `control`"),
        ({"method": "tsit5", "dense_output": True}, "no interpolation with a `control`"),
        ({"method": "dopri5", "control": {"step": "samples"}}, "step"),
        ({"method": "dopri5", "control": {"controller": "pid"}}, "controller"),
        ({"method": "dopri5", "control": {"safety": 1.1}}, "safety"),
        ({"method": "dopri5", "control": {"min_factor": 0}}, "min_factor"),
        ({"method": "dopri5", "control": {"max_factor": 1}}, "max_factor"),
    ],
)
def test_a_control_that_a_method_cannot_have_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Solver(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gradient": "symplectic"}, "`symplectic` does not suit `dopri5`, `control.step: sample`"),
        ({"gradient": "interpolated"}, "one step per batch"),
        ({"gradient": {"name": "adjoint", "solver": BY_SAMPLE}}, "sums over samples"),
        ({"data": "digits", "model": {"name": "odenet", "norm": "bn"}}, "depend on all others"),
        ({"data": "spiral", "model": "neuralode"}, "is one trajectory"),
        ({"train": {"regularize": {"kinetic": 0.1}}}, "regularize.kinetic.*one step per batch"),
        ({"train": {"regularize": {"jacobian": 0.1}}}, "regularize.jacobian.*one step per batch"),
        ({"train": {"regularize": {"taylor": {"order": 2, "weight": 0.1}}}}, "one step per batch"),
    ],
)
def test_steps_of_samples_own_are_refused_where_samples_are_not_alone(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**{"solver": BY_SAMPLE, **fields})
    one_a_batch = {**BY_SAMPLE, "control": {"step": "batch"}}
    if "solver" not in str(fields):
        spec(**{"solver": one_a_batch, **fields})


def test_a_random_end_needs_no_norm_and_is_taken_by_samples() -> None:
    assert spec(solver=BY_SAMPLE, train={"regularize": {"steer": 0.1}}).solver.by_sample


def test_a_backward_solve_has_one_step_a_batch_with_the_rest_of_the_control() -> None:
    solver = Solver(**{**BY_SAMPLE, "control": {"step": "sample", "controller": "pi"}})
    expected = Solver(**{**BY_SAMPLE, "control": {"step": "batch", "controller": "pi"}})
    assert Gradient(name="adjoint").backward(solver) == expected
    given = spec(solver=solver, gradient={"name": "adjoint", "solver": expected})
    assert given.gradient == spec(solver=solver, gradient="adjoint").gradient


def test_a_points_control_is_the_trainings_or_its_own() -> None:
    trained = Solver(**{**BY_SAMPLE, "control": {"step": "sample", "controller": "pi"}})
    same = EvaluationPoint("dopri5", tol=1e-5).solver(trained, 1.0)
    assert same.control == trained.control
    assert EvaluationPoint("bosh3", tol=1e-5).solver(trained, 1.0).control is None
    batch = EvaluationPoint("dopri5", tol_factor=1.0, control="batch").solver(trained, 1.0)
    assert batch.control == Control(step="batch", controller="pi")
    assert batch.tol == trained.tol
    asked = EvaluationPoint("bosh3", tol=1e-5, control="sample").solver(trained, 1.0)
    assert asked.control == Control(step="sample")


def test_a_point_with_another_control_is_not_the_training_solvers() -> None:
    trial = Trial(spec(solver=BY_SAMPLE))
    own = EvaluationPoint("dopri5", tol_factor=1.0)
    assert is_training_solver(trial, own)
    assert not is_training_solver(trial, EvaluationPoint("dopri5", tol_factor=1.0, control="batch"))
