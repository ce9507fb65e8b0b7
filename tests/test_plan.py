from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.errors import SweepError
from nodebench.plan import require_points
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
