from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.errors import SweepError
from nodebench.plan import points, require_points
from sweeps import tiny

DOPRI5 = {"solver": [{"method": "dopri5", "tol": 1e-3}]}


@pytest.mark.parametrize(
    ("grid", "block"),
    [
        ({}, {"methods": ["rk4"], "nfe": [6, 10]}),
        (DOPRI5, {"methods": ["euler"], "step_factors": [0.5]}),
        ({}, {"methods": ["dopri5"], "tol_factors": [0.1]}),
    ],
    ids=["stages", "step-factors", "tol-factors"],
)
def test_a_block_that_gives_no_point_is_refused(tmp_path: Path, grid: dict, block: dict) -> None:
    sweep = tiny(tmp_path, grid=grid, evaluate=[{"methods": ["rk4"], "steps": [2]}, block])
    with pytest.raises(SweepError, match=r"evaluate\[1\]: gives no trial a point"):
        require_points(sweep, "sweep.yaml")


def test_a_block_may_leave_some_trials_or_budgets_out(tmp_path: Path) -> None:
    sweep = tiny(tmp_path, evaluate={"methods": ["euler", "rk4"], "nfe": [6, 8]})
    require_points(sweep, "sweep.yaml")
    found = [(s.method, s.steps) for s, _ in points(sweep.trials[0], sweep.evaluate)]
    assert found == [("euler", 6), ("euler", 8), ("rk4", 2)]


def test_a_step_is_never_longer_than_the_interval(tmp_path: Path) -> None:
    block = {"methods": ["euler"], "step_factors": [0.5, 1, 1.5, 2]}
    sweep = tiny(tmp_path, grid={"solver.steps": [1]}, evaluate=block)
    sizes = [solver.step_size for solver, _ in points(sweep.trials[0], sweep.evaluate)]
    assert sizes == [0.5, 1.0]


def test_a_trajectory_has_no_points_by_budget(tmp_path: Path) -> None:
    base = {"data": "spiral", "model": "neuralode", "solver": {"method": "euler", "step_size": 0.1}}
    block = {"methods": ["euler"], "nfe": [8], "step_factors": [0.5]}
    sweep = tiny(tmp_path, base=base, evaluate=block)
    sizes = [solver.step_size for solver, _ in points(sweep.trials[0], sweep.evaluate)]
    assert sizes == [0.05]
