"""Evaluation points: what a sweep wants to know of every trained model besides its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from nodebench.expansion import agrees
from nodebench.identity import Trial
from nodebench.solver_settings import Solver
from nodebench.spec import TrialSpec
from nodebench.sweepfile import Evaluate
from nodebench.vocabulary import METHODS


@dataclass(frozen=True)
class Point:
    """One thing to measure of a model: the test set under a solver, or a gradient.

    The solver takes `steps` over each interval, or the training's steps or tolerance times a
    factor; what an adapted solver came to is known only after training. `gradient` asks for that
    method's gradient on a training batch instead, at the `start` or the `end` of training.
    `batch_norm` says which statistics normalise inside ODE blocks: those learned, or a batch's.
    """

    method: str
    steps: int | None = None
    step_factor: float | None = None
    tol: float | None = None
    tol_factor: float | None = None
    test_size: int | None = None
    batch_norm: Literal["running", "batch"] = "running"
    gradient: str | None = None
    at: Literal["start", "end"] = "end"

    @property
    def row(self) -> dict[str, Any]:
        """How the store names it: the fields that are not at their default."""
        return {k: v for k, v in asdict(self).items() if v != getattr(Point, k, None)}

    def solver(self, trained: Solver, span: float | None) -> Solver:
        """The solver, for a model trained by `trained` over intervals of length `span`."""
        own = trained.model_copy(update={"adapt": None})
        is_same = self.method == own.method
        if is_same and 1 in (self.step_factor, self.tol_factor):
            return own
        settings: dict[str, Any] = {"method": self.method, "steps": self.steps, "tol": self.tol}
        if is_same:
            settings["scipy"] = own.scipy
            if own.facts.kind == "multistep":  # of the iteration inside a step
                settings["rtol"], settings["atol"] = own.tolerances
        if self.tol_factor is not None:
            rtol, atol = (tolerance * self.tol_factor for tolerance in own.tolerances)
            settings |= {"rtol": rtol, "atol": atol}
        if self.step_factor is not None:
            settings |= _scaled(own, self.step_factor, span)
        return Solver(**settings)


def _scaled(trained: Solver, factor: float, span: float | None) -> dict[str, Any]:
    """The step size times a factor; without a known span, the number of steps divided by it."""
    if span is None:
        if trained.step_size is None:
            return {"steps": max(1, round(trained.step_count(1.0) / factor))}
        return {"step_size": trained.step_size * factor}
    size = trained.step_size or span / trained.step_count(span)
    return {"step_size": min(size * factor, span)}


def limit_point(spec: TrialSpec) -> Point:
    """Where accuracy no longer depends on the solver, unless a finer point is evaluated.

    Of a trajectory, the steps are those from one observation to the next.
    """
    return Point("rk4", steps=128 if spec.model.span is not None else 8)


def limit_solver(spec: TrialSpec, times: int = 1) -> Solver:
    """The limit's solver, with so many times its steps."""
    limit = limit_point(spec)
    return Solver(method=limit.method, steps=times * (limit.steps or 1))


def reference_solver(spec: TrialSpec) -> Solver:
    """What stands for the ODE itself: the limit with twice as many steps."""
    return limit_solver(spec, times=2)


def known_point(row: dict[str, Any]) -> Point:
    """The point that a row of the store is about."""
    return Point(**row["point"])


def points(trial: Trial, blocks: Sequence[Evaluate]) -> list[Point]:
    """Everything to measure of a trial's model.

    Beside what is asked for, that is the training solver and the limit, on the same samples and
    with the same statistics: a verdict needs both.
    """
    found: list[Point] = []
    measured: set[tuple[int | None, str]] = set()
    for point in asked(trial, blocks):
        how = (point.test_size, point.batch_norm)
        if not point.gradient and how not in measured:
            measured.add(how)
            for end in (own_point(trial), limit_point(trial.spec)):
                same = replace(end, test_size=point.test_size, batch_norm=point.batch_norm)
                found.append(same)
        found.append(point)
    return list(dict.fromkeys(found))


def asked(trial: Trial, blocks: Sequence[Evaluate]) -> list[Point]:
    """The points that a sweep's `evaluate` blocks name."""
    found = [
        point
        for block in blocks
        if trial.spec.solver is not None and agrees(trial.spec, block.when)
        for point in _points_of(trial.spec, block)
    ]
    return list(dict.fromkeys(found))


def own_point(trial: Trial) -> Point:
    """The solver that a model was trained with."""
    trained = trial.spec.solver
    assert trained is not None
    if trained.facts.kind == "adaptive":
        return Point(trained.method, tol_factor=1.0)
    return Point(trained.method, step_factor=1.0)


def is_own(trial: Trial, point: Point) -> bool:
    """Whether a point is the training solver's, whatever the samples and statistics."""
    own = own_point(trial)
    names = ("method", "steps", "step_factor", "tol", "tol_factor")
    return all(getattr(own, name) == getattr(point, name) for name in names)


def _points_of(spec: TrialSpec, block: Evaluate) -> Iterator[Point]:
    has_batch_norm = spec.model.normalises_batches_in_ode
    for method in block.methods:
        for point in _solvers(spec, method, block):
            for gradient in block.gradients:
                for at in block.at:
                    yield replace(point, gradient=gradient, at=at)
            for statistics in () if block.gradients else block.batch_norm:
                if statistics == "running" or has_batch_norm:
                    yield replace(point, test_size=block.test_size, batch_norm=statistics)


def _solvers(spec: TrialSpec, method: str, block: Evaluate) -> Iterator[Point]:
    trained = spec.solver
    assert trained is not None
    facts = METHODS[method]
    if facts.kind == "adaptive":
        yield from (Point(method, tol=tol) for tol in block.tols)
        if trained.facts.kind == "adaptive":
            yield from (Point(method, tol_factor=factor) for factor in block.tol_factors)
        return
    yield from (Point(method, steps=steps) for steps in block.steps)
    span = spec.model.span
    if facts.stages and span and spec.model.ode_blocks:
        per_step = facts.stages * spec.model.ode_blocks  # of the whole network
        for nfe in block.nfe:
            steps, rest = divmod(nfe - facts.start * spec.model.ode_blocks, per_step)
            if steps > 0 and not rest:
                yield Point(method, steps=steps)
    if trained.facts.kind != "adaptive":
        for factor in block.step_factors:
            if factor <= 1 or _fits(trained, factor, span):
                yield Point(method, step_factor=factor)


def _fits(trained: Solver, factor: float, span: float | None) -> bool:
    """Whether so long a step stays within the interval, which no step exceeds."""
    if span is None or (trained.adapt and trained.steps is trained.step_size is None):
        return True
    return factor * (trained.step_size or span / trained.step_count(span)) <= span
