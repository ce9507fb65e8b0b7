"""One trained model under many solvers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from nodebench.data.dataset import Data, balanced
from nodebench.errors import DeadlineExceeded, OutOfMemory, TrialFailure
from nodebench.ode.block import ode_blocks
from nodebench.plan import Point, known_points, limit_of, point_key, point_row
from nodebench.spec import Solver, TrialSpec
from nodebench.store import FINISHED, Row, TrialFolder
from nodebench.sweepfile import Limits
from nodebench.train import evaluate


def evaluate_points(
    model: nn.Module,
    data: Data,
    spec: TrialSpec,
    wanted: Sequence[Point],
    folder: TrialFolder,
    limits: Limits,
) -> None:
    """Evaluates the model at every wanted point that the folder lacks, and writes each at once.

    A point whose solve fails is a point without accuracy and with a reason.

    Raises:
        DeadlineExceeded: if time is up; the points that are left stay missing.
    """
    rows = known_points(folder, limits)
    done = {point_key(row) for row in rows}
    for solver, test_size in wanted:
        row = point_row(solver, test_size)
        if point_key(row) not in done:
            rows.append(row | _evaluated(model, data, spec, solver, test_size, limits))
            folder.write_evaluations(rows)


def _evaluated(
    model: nn.Module,
    data: Data,
    spec: TrialSpec,
    solver: Solver,
    test_size: int | None,
    limits: Limits,
) -> Row:
    split = data.test
    if test_size:
        split = split[balanced(split.targets.cpu(), test_size, 0).to(split.targets.device)]
    try:
        with _solved_by(model, solver):
            found = evaluate(model, data, split, spec.train.batch_size)
    except DeadlineExceeded:
        raise
    except TrialFailure as failure:
        limit = limit_of(failure.outcome, limits)
        return {"outcome": failure.outcome, "reason": str(failure), "limit": limit}
    except (MemoryError, torch.OutOfMemoryError) as error:
        return {"outcome": OutOfMemory.outcome, "reason": str(error)}
    values = {"accuracy": found.accuracy, "loss": found.loss, "nfe": found.nfe}
    return {"outcome": FINISHED, **values}


@contextlib.contextmanager
def _solved_by(model: nn.Module, solver: Solver) -> Iterator[None]:
    trained = [(block, block.solver) for block in ode_blocks(model)]
    try:
        for block, _ in trained:
            block.solver = solver
        yield
    finally:
        for block, own in trained:
            block.solver = own
