"""Tests of data/system.py: systems whose solutions are known."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nodebench.data.load import load_data
from nodebench.data.system import Flow
from nodebench.errors import DataError
from nodebench.models.build import build
from nodebench.ode.block import ode_blocks, solved_by
from nodebench.spec import TrialSpec
from nodebench.spec.solver import Solver
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of
from tests.support.tiny_trainings import begun

FINE = Solver(method="dopri8", tol=1e-12)


def spec(system: str, rate: float, span: float, **fields: object) -> TrialSpec:
    data = {"name": "system", "system": system, "rate": rate, "span": span}
    settings = {"data": data, "model": {"name": "system", "off": 0.0}, "solver": FINE.model_dump()}
    return TrialSpec.model_validate(settings | fields)


def flow(trial: TrialSpec) -> Flow:
    data = load_data(trial, Path("/nonexistent"))
    assert isinstance(data, Flow)
    return data


@pytest.mark.parametrize("system", ["decay", "rotation", "van-der-pol"])
def test_the_ends_are_where_the_true_system_takes_its_starts(system: str) -> None:
    trial = spec(system, 5.0, 1.5)
    data = flow(trial)
    model = build(trial, data).double()
    with solved_by(model, FINE), torch.no_grad():
        ends = model(data.train.starts.double())
    torch.testing.assert_close(ends.float(), data.train.ends, rtol=1e-5, atol=1e-6)


def test_a_decay_has_rates_from_one_to_the_largest_and_mixes_coordinates() -> None:
    matrix = flow(spec("decay", 27.0, 1.0)).coefficients
    assert torch.equal(matrix, matrix.T)
    np.testing.assert_allclose(torch.linalg.eigvalsh(-matrix), [1, 3, 9, 27], rtol=1e-12)
    assert (matrix.abs() > 0.1).all()


def test_a_rotation_turns_by_its_rate() -> None:
    data = flow(spec("rotation", math.pi / 2, 1.0))
    x, y = data.test.starts.T
    torch.testing.assert_close(data.test.ends, torch.stack((-y, x), 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("system", ["decay", "rotation"])
def test_a_solution_in_closed_form_is_the_solve(system: str) -> None:
    trial = spec(system, 5.0, 1.5)
    model = build(trial, flow(trial)).double()
    y0 = torch.randn(3, model.block.f.matrix.shape[0], dtype=torch.float64)
    with solved_by(model, FINE):
        torch.testing.assert_close(model.solution(y0), model(y0), rtol=1e-9, atol=1e-9)


def test_coefficients_that_are_off_are_learned() -> None:
    training = {"epochs": 30, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.02}}
    trial = spec("van-der-pol", 1.0, 1.0, model="system", train=training, gradient="aca")
    trial = trial.model_copy(update={"solver": Solver(method="rk4", steps=4)})
    state, data = begun(trial)
    before = ode_blocks(state.model)[0].f.coefficients.tolist()
    rows = list(rows_of(state, task_for(data, trial), trial))
    assert before == pytest.approx([1.1, 1.1])
    assert ode_blocks(state.model)[0].f.coefficients.tolist() == pytest.approx([1, 1], abs=0.03)
    assert rows[-1]["test_error"] < 0.1 * rows[0]["test_error"] + 0.01
    assert rows[-1]["nfe_backward"] == 16


def test_a_system_that_cannot_be_solved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_args: object, **_how: object) -> object:
        return SimpleNamespace(success=False, message="the step became too small")

    monkeypatch.setattr("scipy.integrate.solve_ivp", stopped)
    with pytest.raises(DataError, match="over a time of 1: the step became too small"):
        load_data(spec("van-der-pol", 1.0, 1.0), Path())
