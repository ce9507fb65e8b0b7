"""Solves by an embedded Runge-Kutta method, with our own step size control.

Either all samples share one step, or each sample has its own: its own size, error and rejection.
All samples take their steps in the same calls of f, each at its own time. A sample that has reached
an output time waits there, with steps of size 0, until all have. A field of nodebench is then
called only for the others; any other field may rely on being called for the whole batch.

The search for a step size is not differentiated: the gradient is that of the accepted steps.

Source: Lienen, Günnemann 2022 (torchode) for steps per sample; Hairer, Nørsett, Wanner 1993,
II.4, for step sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from nodebench.errors import Diverged, StepUnderflow
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.adaptive.extent import EachSample, Extent, WholeBatch
from nodebench.ode.adaptive.step_size import Controller, first_size
from nodebench.ode.adaptive.tensor_steps import TensorSteps
from nodebench.ode.field import Norm, OnStep, OverStates, ignored
from nodebench.ode.solution import NOT_FINITE, Solution
from nodebench.ode.steppers.stepper import RightHandSide, State
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.solver import Solver

OnAccept: TypeAlias = Callable[[Tensor, Tensor, State, State], None]
"""(t, signed step or 0, y, slope) before a step that at least one sample accepted."""


def controlled(
    f: RightHandSide,
    y0: State,
    times: Sequence[float],
    solver: Solver,
    norm: Norm | None = None,
    on_step: OnStep = ignored,
) -> Solution:
    """The solution at each of `times`, where steps end exactly; see `ControlledSolve`.

    Raises:
        StepUnderflow: the error control asked for steps below the resolution of time.
        Diverged: f is not finite, however small the step.
    """
    solve = ControlledSolve(f, solver, times, norm, on_step=on_step)
    at = solve.start(y0)
    states = [y0]
    for end in times[1:]:
        at = solve.reach(end, at)
        states.append(at.y)
    return Solution(states, solve.counts())


class _At(NamedTuple):
    """The current point of a solve: times, states, slopes, the next step size, the last error."""

    t: Tensor
    y: State
    slope: State
    h: Tensor
    error: Tensor

    def of(self, rows: Tensor) -> _At:
        """The same for a subset of the samples."""
        return self._mapped(lambda x: x.index_select(0, rows))

    def with_rows(self, rows: Tensor, new: _At) -> _At:
        """A copy with new values for a subset of the samples."""
        return self._mapped(lambda old, part: old.index_copy(0, rows, part), new)

    def _mapped(self, change: Callable[..., Tensor], *others: _At) -> _At:
        """The results of `change` for each tensor; torch's `tree_map` takes a tenth longer."""
        return _At._make(
            tuple(map(change, *each)) if isinstance(each[0], tuple) else change(*each)
            for each in zip(self, *others, strict=True)
        )


class ControlledSolve:
    """One solve in progress: `start` it, `reach` one time after another, then read its `counts`.

    `on_accept` is called for each accepted step, and `on_step` with its slopes, which have their
    gradients. `norm` measures the errors of a step for the whole batch. `steps` computes the steps,
    by default in torch.
    """

    def __init__(
        self,
        f: RightHandSide,
        solver: Solver,
        times: Sequence[float],
        norm: Norm | None = None,
        on_accept: OnAccept = ignored,
        steps: TensorSteps | None = None,
        on_step: OnStep = ignored,
    ):
        assert solver.order is not None
        self._f, self._solver = f, solver
        self._on_accept, self._on_step = on_accept, on_step
        self._first, self._sign = times[0], 1 if times[-1] > times[0] else -1
        self._extent: Extent = EachSample() if solver.by_sample else WholeBatch(norm)
        self._steps = steps or TensorSteps(EMBEDDED[solver.method], self._extent)
        self._controller = Controller(solver.step_control, solver.order)
        self._accepted, self._tried = torch.zeros(()), torch.zeros(())
        self._is_finite = True  # whether the last rejected step was finite
        self._takes_rows = solver.by_sample and isinstance(f, OverStates) and f.takes_rows

    def start(self, y: State) -> _At:
        """The start of a solve, with the first slope and the size of the first step."""
        t = self._extent.number(self._first, y)
        _, slope = self._steps.start(self._f, self._first, y)
        h = first_size(self._f, t, y, slope, self._solver, self._extent, self._sign)
        self._accepted = self._tried = torch.zeros_like(t, dtype=torch.int64)
        return _At(t, y, slope, h, torch.ones_like(t))

    def reach(self, end: float, at: _At) -> _At:
        """Takes steps until all samples have reached `end`."""
        while (arrived := int((at.t == end).sum())) < at.t.numel():
            if arrived and self._takes_rows:
                at = self._step_of_others(end, at)
            else:
                at = self._step_of_all(end, at)
        return at

    def _step_of_all(self, end: float, at: _At) -> _At:
        """Tries a step of all samples; those that have arrived take one of size 0."""
        after, accepted, signed = self._step(end, at)
        if signed is not None:
            self._on_accept(at.t, signed, at.y, at.slope)
        self._accepted, self._tried = self._accepted + accepted, self._tried + (at.t != end)
        return after

    def _step_of_others(self, end: float, at: _At) -> _At:
        """Tries a step of the samples that have not arrived, without evaluating f for the rest."""
        rows = (at.t != end).nonzero().squeeze(1)
        after, accepted, signed = self._step(end, at.of(rows))
        if signed is not None:
            steps = torch.zeros_like(at.h).index_copy(0, rows, signed)
            self._on_accept(at.t, steps, at.y, at.slope)
        self._accepted = self._accepted.index_add(0, rows, accepted.long())
        self._tried = self._tried.index_add(0, rows, torch.ones_like(rows))
        return at.with_rows(rows, after)

    def _step(self, end: float, at: _At) -> tuple[_At, Tensor, Tensor | None]:
        """Tries one step: the point after it, which samples accepted it, and the signed steps.

        The signed steps are 0 for samples that rejected it; None if all did.
        """
        left = (end - at.t).abs()
        h = torch.minimum(at.h, left)  # 0 for samples that have arrived
        after, slopes = self._steps.tried(self._f, at.t, self._sign * h, at.y, at.slope)
        error = self._error(h, at.y, after, slopes)
        accepted = (error <= 1) & (left > 0)
        stuck = (left > 0) & ((at.t + self._sign * h == at.t) | ~at.h.isfinite())
        flags = [accepted.any(), accepted.all(), error.isfinite().all(), stuck.any()]
        any_accepted, all_accepted, is_finite, is_stuck = torch.stack(flags).tolist()
        if not all_accepted:
            self._is_finite = is_finite
        if is_stuck:
            raise failure(h[stuck], is_finite=self._is_finite)
        sized = at._replace(
            h=torch.where(left > 0, h * self._controller.factor(error, at.error, accepted), at.h),
            error=self._controller.remembered(error, at.error, accepted),
        )
        if not any_accepted:
            return sized, accepted, None
        signed = torch.where(accepted, self._sign * h, 0.0)
        if torch.is_grad_enabled() and not is_finite:  # NaN times a gradient of 0 is not 0
            after, slopes = self._steps.tried(self._f, at.t, signed, at.y, at.slope)
        self._on_step(self._steps.tableau, signed, at.y, slopes)
        slope = slopes[-1]
        moved = sized._replace(
            t=torch.where(accepted, torch.where(at.h < left, at.t + signed, end), at.t),
            y=after if all_accepted else self._steps.chosen(accepted, after, at.y),
            slope=slope if all_accepted else self._steps.chosen(accepted, slope, at.slope),
        )
        return moved, accepted, signed

    @torch.no_grad()
    def _error(self, h: Tensor, before: State, after: State, slopes: Sequence[State]) -> Tensor:
        """The norm of a step's error relative to the tolerance; 0 for a step of size 0."""
        rtol, atol = self._solver.tolerances
        errors = self._steps.error(h, slopes)
        shares = tuple(
            e / (atol + rtol * torch.maximum(x.abs(), y.abs()))
            for e, x, y in zip(errors, before, after, strict=True)
        )
        return torch.where(h > 0, self._extent.size(shares).double(), 0.0)

    def counts(self) -> StepCounts:
        """The step counts of the solve so far."""
        rejected = self._tried - self._accepted
        stages = len(self._steps.tableau.b)
        accepted, rejected = self._accepted.double().mean(), rejected.double().mean()
        of_samples = 2 + (stages - 1) * self._tried if self._solver.by_sample else None
        return StepCounts(float(accepted), float(rejected), of_samples)


def failure(h: Tensor, *, is_finite: bool) -> Diverged | StepUnderflow:
    """The error that ends a solve whose samples are stuck.

    `h` are their step sizes, and `is_finite` is whether the last rejected step was finite.
    """
    if not (is_finite and h.isfinite().all()):
        return Diverged(f"{NOT_FINITE}, however small the step")
    of = f" of {len(h)} samples" if h.dim() and len(h) > 1 else ""
    return StepUnderflow(f"the solver's step{of} fell to {float(h.min()):.1e}")
