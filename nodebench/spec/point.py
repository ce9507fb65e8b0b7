"""An evaluation point: one thing to measure of a trained model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from nodebench.spec.gradient import Gradient
from nodebench.spec.identity import Trial
from nodebench.spec.solver import Control, Solver
from nodebench.spec.trial import TrialSpec


@dataclass(frozen=True)
class EvaluationPoint:
    """One thing to measure of a model: the test set under a solver, or a gradient.

    The solver takes `steps` over each interval, or the training's step size or tolerance times a
    factor, since an adapted solver is known only after training. `gradient` requests that method's
    gradient on a training batch instead, at the `start` or the `end` of training. `batch_norm` says
    which statistics normalise inside ODE blocks: the running averages, or those of a batch.
    `batch_size` is the task's unless given; `control` makes an embedded method take one step per
    `batch` or per `sample`, whatever the training solver does.
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
    batch_size: int | None = None
    control: Literal["batch", "sample"] | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The point as the store has it: the fields that are not at their default."""
        return {k: v for k, v in asdict(self).items() if v != getattr(EvaluationPoint, k, None)}

    def solver(self, trained: Solver, span: float | None) -> Solver:
        """The solver, for a model trained by `trained` over intervals of length `span`."""
        own = trained.model_copy(update={"adapt": None})
        is_same = self.method == own.method
        if is_same and 1 in (self.step_factor, self.tol_factor):
            return self._controlled(own)
        settings: dict[str, Any] = {"method": self.method, "steps": self.steps, "tol": self.tol}
        if is_same:
            kept = ["scipy", "dense_output", "control", "damping"]
            if self.step_factor is not None or self.gradient:
                kept.append("coupling")  # other points, such as the limit, are of rk4 itself
            settings |= {name: getattr(own, name) for name in kept}
            if own.facts.kind == "multistep":  # the tolerances of the iteration inside a step
                settings["rtol"], settings["atol"] = own.tolerances
        if self.tol_factor is not None:
            rtol, atol = (tolerance * self.tol_factor for tolerance in own.tolerances)
            settings |= {"rtol": rtol, "atol": atol}
        if self.step_factor is not None:
            settings |= _scaled(own, self.step_factor, span)
        return self._controlled(Solver(**settings))

    def _controlled(self, solver: Solver) -> Solver:
        """The solver, with one step per batch or per sample if the point says so."""
        if self.control is None:
            return solver
        control = (solver.control or Control()).model_copy(update={"step": self.control})
        return Solver.model_validate(solver.model_dump() | {"control": control.model_dump()})

    @property
    def is_about_batches(self) -> bool:
        """Whether it measures the cost of batches."""
        return self.batch_size is not None or self.control is not None

    @property
    def is_about_accuracy(self) -> bool:
        """Whether it measures the model's accuracy under a solver."""
        return self.gradient is None and not self.is_about_batches


def _scaled(trained: Solver, factor: float, span: float | None) -> dict[str, Any]:
    """The step size times a factor; without a known span, the steps divided by the factor."""
    if span is None:
        if trained.step_size is None:
            return {"steps": max(1, round(trained.step_count(1.0) / factor))}
        return {"step_size": trained.step_size * factor}
    size = trained.step_size or span / trained.step_count(span)
    return {"step_size": min(size * factor, span)}


def gradient_of(spec: TrialSpec, name: str, solver: Solver) -> Gradient:
    """A gradient to measure: the trial's own, with its settings, if it has this name."""
    own = spec.gradient
    return (own if own and own.name == name else Gradient(name=name)).suited_to(solver)


def limit_point(spec: TrialSpec) -> EvaluationPoint:
    """The limit, at which accuracy should no longer depend on the solver.

    It is used unless a finer point is evaluated. For a trajectory, the steps are those from one
    observation to the next.
    """
    return EvaluationPoint("rk4", steps=spec.model.limit_steps)


def limit_solver(spec: TrialSpec, times: int = 1) -> Solver:
    """The limit's solver, with its steps multiplied by a factor."""
    limit = limit_point(spec)
    return Solver(method=limit.method, steps=times * (limit.steps or 1))


def reference_solver(spec: TrialSpec) -> Solver:
    """The solver that stands for the ODE itself: the limit with twice as many steps."""
    return limit_solver(spec, times=2)


def known_point(row: dict[str, Any]) -> EvaluationPoint:
    """The point of a row in the store."""
    return EvaluationPoint(**row["point"])


def own_point(trial: Trial) -> EvaluationPoint:
    """The point with the solver that a model was trained with."""
    assert trial.spec.solver is not None
    return point_of(trial.spec.solver)


def point_of(trained: Solver) -> EvaluationPoint:
    """A training's solver as a point."""
    if trained.facts.kind == "adaptive":
        return EvaluationPoint(trained.method, tol_factor=1.0)
    return EvaluationPoint(trained.method, step_factor=1.0)


def is_training_solver(trial: Trial, point: EvaluationPoint) -> bool:
    """Whether a point uses the training solver, with any samples and statistics."""
    own = own_point(trial)
    names = ("method", "steps", "step_factor", "tol", "tol_factor")
    return point.control is None and all(getattr(own, n) == getattr(point, n) for n in names)
