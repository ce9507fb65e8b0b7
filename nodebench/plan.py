"""What a sweep still wants: trials without a result, and points not yet evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodebench.errors import DeadlineExceeded, EvaluationLimit, Fault, SweepError
from nodebench.solver_settings import Solver
from nodebench.spec import TrialSpec
from nodebench.store import FINISHED, Result, Row, State, Store, TrialFolder
from nodebench.sweep import Sweep, Trial, agrees
from nodebench.sweepfile import Evaluate, Limits, Resources
from nodebench.vocabulary import METHODS, MethodName

CHECKPOINT_S = 5.0
"""Seconds of training between checkpoints at most, epochs being longer aside."""


@dataclass(frozen=True)
class RunOptions:
    """What a trial is run with, and what does not decide its result."""

    data_root: Path
    resources: Resources = Resources()
    limits: Limits = Limits()
    evaluate: tuple[Evaluate, ...] = ()
    checkpoint_s: float = CHECKPOINT_S
    tags: dict[str, str] = field(default_factory=dict)


Point = tuple[Solver, int | None]
"""A solver, and the number of test samples (None: all)."""


def points(trial: Trial, blocks: Sequence[Evaluate]) -> list[Point]:
    """The points at which a sweep's `evaluate` blocks want this trial's model."""
    found: list[Point] = []
    for block in blocks:
        if trial.spec.solver is not None and agrees(trial.spec, block.when):
            for method in block.methods:
                found += [
                    (solver, block.test_size) for solver in _solvers(trial.spec, method, block)
                ]
    return list(dict.fromkeys(found))


def require_points(sweep: Sweep, source: str) -> None:
    """Refuses an `evaluate` block that gives no trial of the sweep a point.

    Raises:
        SweepError: with every such block.
    """
    faults = [
        Fault(
            f"evaluate[{number}]",
            "gives no trial a point: `nfe` must be a multiple of a method's stages (times the "
            "ODE blocks), `step_factors` need a training by steps, `tol_factors` one by tolerance",
        )
        for number, block in enumerate(sweep.evaluate)
        if not any(points(trial, [block]) for trial in sweep.trials)
    ]
    if faults:
        raise SweepError(source, faults)


def _solvers(spec: TrialSpec, method: MethodName, block: Evaluate) -> Iterator[Solver]:
    trained = spec.solver
    assert trained is not None
    facts = METHODS[method]
    if facts.kind == "adaptive":
        yield from (Solver(method=method, tol=tol) for tol in block.tols)
        if trained.facts.kind == "adaptive" and trained.adapt is None:
            rtol, atol = trained.tolerances
            for factor in block.tol_factors:
                yield Solver(method=method, rtol=rtol * factor, atol=atol * factor)
        return
    yield from (Solver(method=method, steps=steps) for steps in block.steps)
    span = spec.model.span
    if facts.stages and span:
        per_step = facts.stages * spec.model.ode_blocks  # of the whole network
        for nfe in block.nfe:
            if nfe % per_step == 0:
                yield Solver(method=method, steps=nfe // per_step)
    if trained.facts.kind != "adaptive" and trained.adapt is None:
        for factor in block.step_factors:
            if size := _scaled(trained, factor, span):
                yield Solver(method=method, step_size=size)


def _scaled(trained: Solver, factor: float, span: float | None) -> float | None:
    """A multiple of the training step size; one step spans the interval, and is no longer."""
    if span is None:
        return trained.step_size and trained.step_size * factor
    return min(span, factor * (trained.step_size or span / trained.step_count(span)))


def point_row(solver: Solver, test_size: int | None) -> Row:
    """How a point is written down, before its outcome is known."""
    return {"solver": solver.model_dump(exclude_none=True), "test_size": test_size}


def point_key(row: Row) -> str:
    """The identity of an evaluated point."""
    return str((sorted(row["solver"].items()), row["test_size"]))


@dataclass(frozen=True)
class Entry:
    """A trial of the plan, where it stands, and whether a run would do anything for it."""

    trial: Trial
    state: State
    result: Result | None
    missing: bool


def entries(sweep: Sweep, store: Store, options: RunOptions) -> list[Entry]:
    """The plan of a sweep against what the store has."""
    results = store.results(trial.id for trial in sweep.trials)
    found = []
    for trial in sweep.trials:
        result = results.get(trial.id)
        missing = is_missing(trial, result, store, options)
        state = store.folder(trial.id).state(result)
        found.append(Entry(trial, state, result, missing))
    return found


def is_missing(trial: Trial, result: Result | None, store: Store, options: RunOptions) -> bool:
    """Whether a trial lacks its result, a point, or was stopped by a limit raised since."""
    if result is None or not result.is_result:
        return True
    if result.outcome == FINISHED:
        wanted = {point_key(point_row(*point)) for point in points(trial, options.evaluate)}
        known = known_points(store.folder(trial.id), options.limits) if wanted else []
        return not wanted <= set(map(point_key, known))
    return _was_raised(result.limit, result.outcome, options.limits)


def known_points(folder: TrialFolder, limits: Limits) -> list[Row]:
    """The evaluated points, but for those that failed by a limit which has been raised since."""
    return [
        row
        for row in folder.evaluations()
        if not _was_raised(row.get("limit"), row["outcome"], limits)
    ]


def _was_raised(hit: float | None, outcome: str, limits: Limits) -> bool:
    limit = limit_of(outcome, limits)
    return hit is not None and (limit is None or limit > hit)


def limit_of(outcome: str, limits: Limits) -> float | None:
    """The limit that an outcome is about."""
    by_outcome = {EvaluationLimit.outcome: limits.nfe, DeadlineExceeded.outcome: limits.minutes}
    return by_outcome.get(outcome)
