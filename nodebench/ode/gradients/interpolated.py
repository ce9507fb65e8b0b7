"""The gradient `interpolated`: the adjoint along a state that is interpolated, not solved again.

The solve keeps its states at Chebyshev nodes in each interval between two output times. In the
backward pass, y(t) is the polynomial through these states, in barycentric form. The adjoint system
is then only (a, g): smaller, and free of the instability of solving y backwards.

Source: Daulbaev et al. 2020 (NeurIPS), section 3; Berrut, Trefethen 2004, equation 5.4. The nodes
here are of the second kind, which include both ends.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nodebench.ode.buffers import additional_calls
from nodebench.ode.field import Counted, OverStates
from nodebench.ode.gradients.adjoint import VectorProducts, norm_of_adjoint
from nodebench.ode.gradients.random_state import require_not_random
from nodebench.ode.gradients.recorded_steps import Keep, RecordedStep, Trace, traced
from nodebench.ode.solve import solve
from nodebench.ode.steppers.stepper import State
from nodebench.ode.weight_cache import weights_made_once
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

NODES = 8
"""Enough for the interpolation error of a smooth solution to stay below common tolerances."""


def interpolated(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; each interior node costs the evaluations of one more step.

    Raises:
        FieldError: if f draws random numbers.
    """
    require_not_random(f, times[0], y0, "interpolated")
    later = _Solve.apply(f, times, solver, gradient, y0, *f.parameters)
    return [y0, *later]


class _Solve(torch.autograd.Function):
    """y0 -> the states at times[1:]."""

    @staticmethod
    def forward(
        ctx: Any,
        f: Counted,
        times: Sequence[float],
        solver: Solver,
        gradient: Gradient,
        y0: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        count = gradient.nodes or NODES
        nodes = [chebyshev(t0, t1, count) for t0, t1 in itertools.pairwise(times)]
        trace = traced(f, y0, times, solver, _over([t for inner in nodes for t in inner]))
        ctx.f, ctx.times, ctx.solver = f, times, gradient.backward(solver)
        ctx.norm = norm_of_adjoint(f, gradient, of_states=1)
        paths = _paths(f, trace, nodes)
        ctx.nodes = [path.times for path in paths]
        ctx.save_for_backward(*(path.states for path in paths), *parameters)
        return tuple(trace.states[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_state: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        paths = [Interpolant(*each) for each in zip(ctx.nodes, kept, strict=False)]
        parameters = kept[len(paths) :]
        a = torch.zeros_like(by_state[0])
        gradients = tuple(torch.zeros_like(p) for p in parameters)
        spans = [(after, before) for before, after in itertools.pairwise(ctx.times)]
        intervals = reversed(list(zip(paths, by_state, spans, strict=True)))
        with additional_calls(ctx.f.module):
            for path, by, span in intervals:
                field = _adjoint_field(ctx.f, path, parameters)
                start = (a + by, *gradients)
                a, *rest = solve(field, start, span, ctx.solver, ctx.norm).states[-1]
                gradients = tuple(rest)
        return (None,) * 4 + (a, *gradients)


class Interpolant:
    """A solution between two times, interpolated from its states at nodes."""

    def __init__(self, times: Sequence[float], states: Tensor):
        self.times, self.states = times, states
        self._resolution = 1e-12 * abs(times[-1] - times[0])
        ends = {0, len(times) - 1}
        self._weights = [(-1) ** j * (0.5 if j in ends else 1.0) for j in range(len(times))]

    def __call__(self, t: float) -> Tensor:
        """The state at a time."""
        for number, node in enumerate(self.times):
            if abs(t - node) <= self._resolution:
                return self.states[number]
        weights = [w / (t - node) for w, node in zip(self._weights, self.times, strict=True)]
        total = sum(weights)
        shares = self.states.new_tensor([weight / total for weight in weights])
        state: Tensor = torch.tensordot(shares, self.states, dims=1)
        return state


def _over(nodes: Sequence[float]) -> Keep:
    """A test of whether a step from t to t + h passes a node; true if in doubt due to rounding."""
    in_order = sorted(nodes)

    def passes(t: float, h: float) -> bool:
        margin = 1e-6 * abs(h)
        first = bisect_right(in_order, min(t, t + h) - margin)
        return first < len(in_order) and in_order[first] <= max(t, t + h) + margin

    return passes


def _paths(f: Counted, trace: Trace[float], nodes: Sequence[Sequence[float]]) -> list[Interpolant]:
    """The solution between each pair of consecutive output times."""
    paths = []
    with additional_calls(f.module), weights_made_once():
        for number, (steps, own) in enumerate(zip(trace.intervals, nodes, strict=True)):
            inner = [_state_at(f, trace, steps, t) for t in own[1:-1]]
            ends = trace.states[number], trace.states[number + 1]
            paths.append(Interpolant(own, torch.stack([ends[0], *inner, ends[1]])))
    return paths


def chebyshev(t0: float, t1: float, count: int) -> list[float]:
    """Chebyshev nodes of the second kind, both ends included."""
    inner = [
        (t0 + t1) / 2 - (t1 - t0) / 2 * math.cos(math.pi * j / (count - 1))
        for j in range(1, count - 1)
    ]
    return [t0, *inner, t1]


def _state_at(
    f: Counted, trace: Trace[float], steps: Sequence[RecordedStep[float]], t: float
) -> Tensor:
    """The state at time t, by a step from the start of the recorded step that contains t."""
    sign = 1 if steps[0].h > 0 else -1
    last = bisect_right(steps, sign * t, key=lambda step: sign * step.t) - 1
    step = steps[max(last, 0)]
    assert step.before is not None, "`_over` keeps the steps that contain a node"
    ((y,), *_) = trace.stepper.step(OverStates(f), step.t, t - step.t, step.before)
    return y


def _adjoint_field(
    f: Counted, path: Interpolant, parameters: tuple[Tensor, ...]
) -> Callable[..., State]:
    products_at = VectorProducts(f, parameters, "interpolated")

    def right_hand_side(t: float | Tensor, state: State) -> State:
        _, products = products_at(t, path(float(t)), -state[0])
        return tuple(products)

    return right_hand_side
