"""The evaluation points that a sweep requests for its trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nodebench.errors import Fault, SweepError
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.point import (
    EvaluationPoint,
    gradient_of,
    limit_point,
    own_point,
    point_of,
)
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import METHODS, OWN
from nodebench.sweep.compose import with_lines
from nodebench.sweep.file import Evaluate
from nodebench.sweep.partial_cells import agrees
from nodebench.sweep.safe_yaml import parse
from nodebench.sweep.sweep import Sweep


def points(trial: Trial, blocks: Sequence[Evaluate]) -> list[EvaluationPoint]:
    """All points at which to measure a trial's model.

    These are the requested points and, since a verdict needs both, the training solver and the
    limit, on the same samples and with the same statistics.
    """
    found: list[EvaluationPoint] = []
    measured: set[tuple[int | None, str]] = set()
    for point in asked(trial, blocks):
        how = (point.test_size, point.batch_norm)
        if point.is_about_accuracy and how not in measured:
            measured.add(how)
            for end in (own_point(trial), limit_point(trial.spec)):
                same = replace(end, test_size=point.test_size, batch_norm=point.batch_norm)
                found.append(same)
        found.append(point)
    return list(dict.fromkeys(found))


def asked(trial: Trial, blocks: Sequence[Evaluate]) -> list[EvaluationPoint]:
    """The points that a sweep's `evaluate` blocks name."""
    found = [
        point
        for block in blocks
        if trial.spec.solver is not None and agrees(trial.spec, block.when)
        for point in _points_of(trial.spec, block)
    ]
    return list(dict.fromkeys(found))


def _points_of(spec: TrialSpec, block: Evaluate) -> Iterator[EvaluationPoint]:
    has_batch_norm = spec.model.normalizes_batches_in_ode
    assert spec.solver is not None
    assert spec.gradient is not None
    for at in block.at if OWN in block.gradients else ():
        yield replace(point_of(spec.solver), gradient=spec.gradient.name, at=at)
    for method in block.methods:
        for point in _solvers(spec, method, block):
            for gradient in _gradients(spec, method, block):
                for at in block.at:
                    yield replace(point, gradient=gradient, at=at)
            for statistics in () if block.gradients else block.batch_norm:
                if statistics == "running" or has_batch_norm:
                    on = replace(point, test_size=block.test_size, batch_norm=statistics)
                    yield from _batches_of(spec, on, block)


def _batches_of(
    spec: TrialSpec, point: EvaluationPoint, block: Evaluate
) -> Iterator[EvaluationPoint]:
    """The point, with each control of steps and in batches of each size that a block requests."""
    if spec.data.kind == "trajectories":  # one sample, which is tested as a whole
        yield from () if block.batch_sizes or block.control else (point,)
        return
    for control in block.control or (None,):
        if control and METHODS[point.method].stepping != "embedded":
            continue
        if control == "sample" and point.batch_norm == "batch":
            continue  # a batch's statistics mix samples
        sizes = block.batch_sizes or ((spec.train.batch_size,) if control else (None,))
        yield from (replace(point, control=control, batch_size=size) for size in sizes)


def _gradients(spec: TrialSpec, method: str, block: Evaluate) -> Iterator[str]:
    """The gradients that a block measures under a method, if they suit it."""
    own = spec.solver
    solver = own if own and own.method == method else _any_solver(method)
    for name in block.gradients:
        if name != OWN and not gradient_of(spec, name, solver).misfit(solver):
            yield name


def _any_solver(method: str) -> Solver:
    return Solver(method=method, steps=None if METHODS[method].kind == "adaptive" else 1)


def _solvers(spec: TrialSpec, method: str, block: Evaluate) -> Iterator[EvaluationPoint]:
    trained = spec.solver
    assert trained is not None
    facts = METHODS[method]
    if facts.kind == "adaptive":
        yield from (EvaluationPoint(method, tol=tol) for tol in block.tols)
        if trained.facts.kind == "adaptive":
            yield from (EvaluationPoint(method, tol_factor=factor) for factor in block.tol_factors)
        return
    yield from (EvaluationPoint(method, steps=steps) for steps in block.steps)
    span = spec.model.span
    if facts.stages and span and spec.model.ode_blocks:
        per_step = facts.stages * spec.model.ode_blocks  # of the whole network
        for nfe in block.nfe:
            steps, rest = divmod(nfe - facts.start * spec.model.ode_blocks, per_step)
            if steps > 0 and not rest:
                yield EvaluationPoint(method, steps=steps)
    if trained.facts.kind != "adaptive":
        for factor in block.step_factors:
            if factor <= 1 or _fits(trained, factor, span):
                yield EvaluationPoint(method, step_factor=factor)


def _fits(trained: Solver, factor: float, span: float | None) -> bool:
    """Whether the step size times the factor stays within the interval."""
    if span is None or (trained.adapt and trained.steps is trained.step_size is None):
        return True
    return factor * (trained.step_size or span / trained.step_count(span)) <= span


@dataclass(frozen=True)
class Unusable:
    """Budgets of an `evaluate` block that a method cannot use in any configuration."""

    block: int
    method: str
    budget: str
    """The name of their list, such as `nfe`."""

    values: tuple[float, ...]


def unusable(sweep: Sweep) -> Iterator[Unusable]:
    """The budgets that an `evaluate` block lists for a method and no configuration can use."""
    specs = [cell.spec for cell in dict.fromkeys(trial.cell for trial in sweep.trials)]
    for number, block in enumerate(sweep.evaluate):
        meant = [s for s in specs if s.solver is not None and agrees(s, block.when)]
        for method in block.methods if meant else ():
            for budget in _budgets(method):
                values = tuple(
                    value
                    for value in getattr(block, budget)
                    if not any(_can_use(spec, method, block, {budget: (value,)}) for spec in meant)
                )
                if values:
                    yield Unusable(number, method, budget, values)


def _can_use(
    spec: TrialSpec, method: str, block: Evaluate, budget: dict[str, tuple[float, ...]]
) -> bool:
    return any(_solvers(spec, method, block.model_copy(update=_NO_BUDGETS | budget)))


_NO_BUDGETS: dict[str, tuple[float, ...]] = dict.fromkeys(
    ("steps", "nfe", "step_factors", "tols", "tol_factors"), ()
)


def _budgets(method: str) -> tuple[str, ...]:
    """The lists of a block that suit a kind of method, but not each of their values."""
    return ("tol_factors",) if METHODS[method].kind == "adaptive" else ("nfe", "step_factors")


def require_points(sweep: Sweep, source: str) -> None:
    """Rejects an `evaluate` block that gives no trial of the sweep a point.

    Raises:
        SweepError: with every such block.
    """
    faults = [
        Fault(
            f"evaluate[{number}]",
            "gives no evaluation point for any trial: `nfe` must be a multiple of a method's "
            "stages (times the ODE blocks; use `steps` for a model by import path), `step_factors` "
            "need a training with steps, `tol_factors` one with a tolerance, and `gradients` must "
            "suit the methods",
        )
        for number, block in enumerate(sweep.evaluate)
        if not any(asked(trial, [block]) for trial in sweep.trials)
    ]
    if faults:
        tree = parse(sweep.text)
        raise SweepError(source, with_lines(faults, Path(sweep.origin.file), tree, sweep.made.size))
