"""Regularizers in a sweep file: forms, identity, and what is refused at plan time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nodebench.errors import SweepError
from nodebench.planning.seed_packs import obstacle
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.settings import flatten
from tests.support.tiny_sweeps import tiny
from tests.support.tiny_trainings import EULER, PLAIN, spec

DOPRI5 = {"method": "dopri5", "tol": 1e-3}
SPIRAL = {"data": {"name": "spiral"}, "model": {"name": "neuralode"}}


def regularized(
    regularize: object, train: dict[str, Any] | None = None, **fields: Any
) -> TrialSpec:
    return spec(train={"regularize": regularize} | (train or {}), **fields)


def test_a_trial_without_regularizers_keeps_its_id() -> None:
    plain = Trial(spec()).id
    assert plain == Trial(regularized(None)).id == Trial(regularized({})).id
    assert plain == Trial(regularized({"kinetic": None})).id
    ids = {
        Trial(regularized(each)).id
        for each in (
            {"kinetic": 0.1},
            {"kinetic": 0.2},
            {"jacobian": 0.1},
            {"taylor": {"order": 2, "weight": 0.1}},
            {"taylor": {"order": 3, "weight": 0.1}},
            {"steer": 0.1},
            {"kinetic": 0},
        )
    }
    ids |= {
        Trial(regularized(each, solver=DOPRI5)).id
        for each in (None, {"local_error": 0.1}, {"stiffness": 0.1})
    }
    assert len(ids | {plain}) == 11


@pytest.mark.parametrize(
    "form",
    [
        {"kinetic": 0.1, "taylor": {"order": 2, "weight": 0.01}, "steer": 0.5},
        {
            "kinetic": {"weight": 0.1},
            "taylor": {"order": 2, "weight": 0.01},
            "steer": {"half_width": 0.5},
        },
        [
            {"name": "kinetic", "weight": 0.1},
            {"name": "steer", "half_width": 0.5},
            {"name": "taylor", "order": 2, "weight": 0.01},
        ],
    ],
    ids=["short", "whole", "list"],
)
def test_one_trial_may_be_written_in_several_forms(form: object) -> None:
    trial = regularized(form)
    assert trial == regularized(
        {"kinetic": 0.1, "taylor": {"order": 2, "weight": 0.01}, "steer": 0.5}
    )
    settings = {k: v for k, v in flatten(trial).items() if "regularize" in k}
    assert settings == {
        "train.regularize.kinetic.weight": 0.1,
        "train.regularize.taylor.order": 2,
        "train.regularize.taylor.weight": 0.01,
        "train.regularize.steer.half_width": 0.5,
    }


def test_a_network_without_an_ode_has_nothing_to_regularize() -> None:
    fields = {"data": "digits", "model": "resnet"}
    assert regularized({"kinetic": 0.1}, **fields) == spec(**fields)


@pytest.mark.parametrize(
    ("regularize", "fields", "told"),
    [
        (
            {"kinetic": 0.1},
            {"solver": {"method": "implicit_adams", "steps": 4}},
            "excluded from error",
        ),
        (
            {"taylor": {"order": 2, "weight": 1}},
            {"solver": {"method": "scipy_solver"}, "gradient": "adjoint"},
            "`train.regularize.taylor` is integrated with the state but excluded from error",
        ),
        (
            {"local_error": 1},
            {"solver": EULER},
            "error control of an embedded method: use one such as `dopri5`",
        ),
        (
            {"stiffness": 1},
            {"solver": {"method": "dopri5", "dense_output": True}},
            "use one such as `dopri5`, and no `dense_output`",
        ),
        (
            {"local_error": 1},
            {"solver": DOPRI5, "gradient": "recompute"},
            "`train.regularize.local_error` needs .* use `gradient: backprop`",
        ),
        (
            {"stiffness": 1},
            {"solver": {"method": "bosh3"}},
            "which `bosh3` does not have .*: use `dopri5` or `tsit5`",
        ),
        ({"local_error": 1}, {"solver": {"method": "dopri8"}}, "Use a method of lower order"),
        ({"stiffness": 1}, {"solver": {"method": "dopri8"}}, "has too close together"),
        ({"steer": 0.5}, SPIRAL, "for `neuralode` comes from the data"),
        ({"steer": 0.5}, {"solver": EULER | {"adapt": {}}}, "leave out one of the two"),
        ({"steer": 1.0}, {}, "`train.regularize.steer.half_width: 1` reaches the start"),
        ({"steer": 0.0}, {}, "greater than 0"),
        ({"kinetic": -0.1}, {}, "greater than or equal to 0"),
        ({"taylor": 0.1}, {}, "`taylor` needs two numbers"),
        ({"taylor": {"order": 1, "weight": 0.1}}, {}, "greater than or equal to 2"),
        (["kinetic"], {}, "is a mapping with a `name`"),
        ([{"name": "kinetic", "weight": 1}] * 2, {}, "may appear only once in a list"),
    ],
)
def test_what_cannot_be_regularized_is_refused(regularize: object, fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        regularized(regularize, **fields)


@pytest.mark.parametrize("name", ["jacobian", "taylor"])
def test_derivatives_in_forward_mode_are_refused_in_bfloat16(name: str) -> None:
    part = {"order": 2, "weight": 0.1} if name == "taylor" else 0.1
    with pytest.raises(ValidationError, match=f"{name}` needs forward-mode derivatives"):
        regularized({name: part}, {"precision": "bf16"})
    regularized({"kinetic": 0.1}, {"precision": "bf16"})


def test_a_plan_tells_faults_by_their_path(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as caught:
        tiny(tmp_path, grid={"train.regularize": [{"kinetik": 0.1}, {"kinetic": "much"}]})
    told = str(caught.value)
    assert "train.regularize[0].kinetik" in told and "Did you mean `kinetic`?" in told
    assert (
        "train.regularize[1].kinetic" in told
        and "should be a number, found the text `much`" in told
    )


def test_regularized_seeds_are_not_trained_together_and_the_plan_says_why() -> None:
    assert obstacle(spec()) is None
    told = obstacle(regularized({"kinetic": 0.1, "steer": 0.5}, model=PLAIN))
    assert told is not None and told.startswith("`train.regularize` (`kinetic`, `steer`) is")


def test_labels_tell_weights_of_different_regularizers_apart(tmp_path: Path) -> None:
    grid = [
        {"train.regularize.kinetic.weight": [0.1]},
        {"train.regularize.jacobian.weight": [0.1]},
        {"train.regularize.steer.half_width": [0.1]},
    ]
    sweep = tiny(tmp_path, grid=grid)
    assert [sweep.cell_label(trial) for trial in sweep.trials] == [
        "kinetic.weight 0.1",
        "jacobian.weight 0.1",
        "half_width 0.1",
    ]
