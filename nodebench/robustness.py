"""One trained model under many solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nodebench.errors import DeadlineExceeded, OutOfMemory, TrialFailure
from nodebench.ode.block import solved_by
from nodebench.plan import Point, known_points, limit_of, point_key, point_row
from nodebench.solver_settings import Solver
from nodebench.store import FINISHED, Row, TrialFolder
from nodebench.sweepfile import Limits
from nodebench.task import Task


def evaluate_points(
    model: nn.Module,
    task: Task[Any],
    wanted: Sequence[Point],
    folder: TrialFolder,
    limits: Limits,
) -> None:
    """Evaluates the model at every wanted point that the folder lacks, and writes each at once.

    A point whose solve fails is a point without measures and with a reason.

    Raises:
        DeadlineExceeded: if time is up; the points that are left stay missing.
    """
    rows = known_points(folder, limits)
    done = {point_key(row) for row in rows}
    for solver, test_size in wanted:
        row = point_row(solver, test_size)
        if point_key(row) not in done:
            rows.append(row | _evaluated(model, task, solver, test_size, limits))
            folder.write_evaluations(rows)


def _evaluated(
    model: nn.Module,
    task: Task[Any],
    solver: Solver,
    test_size: int | None,
    limits: Limits,
) -> Row:
    try:
        with solved_by(model, solver):
            found = task.evaluate(model, size=test_size)
    except DeadlineExceeded:
        raise
    except TrialFailure as failure:
        limit = limit_of(failure.outcome, limits)
        return {"outcome": failure.outcome, "reason": str(failure), "limit": limit}
    except (MemoryError, torch.OutOfMemoryError) as error:
        return {"outcome": OutOfMemory.outcome, "reason": str(error)}
    return {"outcome": FINISHED, **found.measures, "nfe": found.nfe}
