"""One trained model under many solvers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from nodebench.data.dataset import Data, balanced
from nodebench.errors import TrialFailure
from nodebench.ode.block import ode_blocks
from nodebench.plan import Point, point_key, point_row
from nodebench.spec import Solver, TrialSpec
from nodebench.store import FINISHED, Row
from nodebench.train import evaluate


def evaluate_points(
    model: nn.Module,
    data: Data,
    spec: TrialSpec,
    wanted: Sequence[Point],
    known: list[Row],
    on_point: Callable[[list[Row]], None],
) -> None:
    """Evaluates the model at every wanted point that is not known; `on_point` gets all so far.

    A point whose solve fails is a point without accuracy and with a reason.
    """
    done = {point_key(row) for row in known}
    rows = list(known)
    for solver, test_size in wanted:
        row = point_row(solver, test_size)
        if point_key(row) in done:
            continue
        split = data.test
        if test_size:
            split = split[balanced(split.targets.cpu(), test_size, 0).to(split.targets.device)]
        try:
            with _solved_by(model, solver):
                found = evaluate(model, data, split, spec.train.batch_size)
            row |= {"outcome": FINISHED, "accuracy": found.accuracy, "loss": found.loss}
            row["nfe"] = found.nfe
        except TrialFailure as failure:
            row |= {"outcome": failure.outcome, "reason": str(failure)}
        rows.append(row)
        on_point(rows)


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
