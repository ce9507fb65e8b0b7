"""Gradients that repeat the steps of a solve, the last first, each with its own graph.

In all of them, the solve itself has no graph, and the gradient is that of its steps, as in
backprop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from nodebench.ode.buffers import additional_calls
from nodebench.ode.field import Counted, OverStates
from nodebench.ode.gradients.adjoint import require_own_tensors
from nodebench.ode.gradients.random_state import Generator
from nodebench.ode.gradients.recorded_steps import (
    Keep,
    RecordedStep,
    Trace,
    always,
    traced,
)
from nodebench.ode.steppers.reversible import ReversibleStepper
from nodebench.ode.steppers.stepper import Carry
from nodebench.spec.solver import Solver

Tensors: TypeAlias = "tuple[Tensor, ...]"

Pull: TypeAlias = Callable[["BackwardSolve", RecordedStep[Any], Carry, Carry], Carry]
"""(the solve, a step, the carry before it, dL/d(carry after it)) -> dL/d(carry before it).

It adds dL/dθ to the solve.
"""


@dataclass(frozen=True)
class Replay:
    """A gradient method that repeats steps: its name, for error messages, and what it does.

    `pull` differentiates a step. Steps whose carry the solve does not `keep` are reversed.
    """

    name: str
    pull: Pull
    keep: Keep = always


class BackwardSolve:
    """The backward pass of one solve: its field, and the gradients accumulated so far."""

    def __init__(self, f: Counted, trace: Trace[Any], parameters: Tensors, gradient: str):
        self.f, self.stepper, self.parameters = OverStates(f), trace.stepper, parameters
        self.draws = Generator(trace.states[0])
        self._module, self._gradient, self._is_checked = f.module, gradient, False
        self.by_parameter = [torch.zeros_like(p) for p in parameters]

    def taken_back(self, step: RecordedStep[Any], after: Carry) -> Carry:
        """The carry before a step, from the carry after it."""
        assert isinstance(self.stepper, ReversibleStepper)
        before: Carry = self.stepper.back(self.f, step.t, step.h, after)
        return before

    def pulled(self, function: Callable[..., Carry], inputs: Carry, by_output: Carry) -> Carry:
        """Differentiates a function of states once: dL/d(inputs), given dL/d(outputs).

        Raises:
            FieldError: on the first call, if f uses a tensor with a gradient that it does not own.
        """
        leaves = [[x.detach().requires_grad_() for x in state] for state in inputs]
        with torch.enable_grad():
            outputs = function(*(tuple(state) for state in leaves))
        pairs = [
            (out, by)
            for state, by_state in zip(outputs, by_output, strict=True)
            for out, by in zip(state, by_state, strict=True)
            if out.requires_grad
        ]
        flat = [x for state in leaves for x in state]
        if not self._is_checked:
            require_own_tensors([out for out, _ in pairs], flat, self._module, self._gradient)
            self._is_checked = True
        found = _gradients(pairs, [*flat, *self.parameters])
        for total, gradient in zip(self.by_parameter, found[len(flat) :], strict=True):
            if gradient is not None:
                total.add_(gradient)
        filled = iter(
            torch.zeros_like(x) if g is None else g for g, x in zip(found, flat, strict=False)
        )
        return tuple(tuple(next(filled) for _ in state) for state in inputs)


def _gradients(
    pairs: list[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    if not pairs:  # f depends on nothing that has a gradient
        return [None] * len(inputs)
    outputs, by_output = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, by_output, allow_unused=True)


def replayed(
    f: Counted,
    y0: Tensor,
    times: Sequence[float],
    solver: Solver,
    method: Replay,
) -> list[Tensor]:
    """The states at `times`, whose gradient is propagated back step by step."""
    later = _ReplayedSolve.apply(f, times, solver, method, y0, *f.parameters)
    return [y0, *later]


class _ReplayedSolve(torch.autograd.Function):
    """y0 -> the states at times[1:]."""

    @staticmethod
    def forward(
        ctx: Any,
        f: Counted,
        times: Sequence[float],
        solver: Solver,
        method: Replay,
        y0: Tensor,
        *parameters: Tensor,
    ) -> Tensors:
        trace = traced(f, y0, times, solver, method.keep)
        ctx.f, ctx.start, ctx.method = f, times[0], method
        # Some of its tensors are outputs: only autograd can save them without a reference cycle.
        kept, ctx.together = _apart(trace)
        ctx.save_for_backward(*kept, *parameters)
        ctx.parameters = len(parameters)
        return tuple(trace.states[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by_state: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        at = len(saved) - ctx.parameters
        trace = ctx.together(saved[:at])
        solve = BackwardSolve(ctx.f, trace, saved[at:], ctx.method.name)
        by: Carry = tuple(tuple(map(torch.zeros_like, state)) for state in trace.end)
        carry = trace.end
        with additional_calls(ctx.f.module):
            for steps, by_output in reversed(list(zip(trace.intervals, by_state, strict=True))):
                by = ((by[0][0] + by_output,), *by[1:])
                for step in reversed(steps):
                    with solve.draws.back_at(step.draws):
                        kept = step.before
                        carry = solve.taken_back(step, carry) if kept is None else kept
                        by = ctx.method.pull(solve, step, carry, by)
            with solve.draws.back_at(trace.draws):
                by = solve.pulled(partial(solve.stepper.start, solve.f, ctx.start), carry[:1], by)
        return (None,) * 4 + (by[0][0], *solve.by_parameter)


def _apart(trace: Trace[Any]) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Trace[Any]]]:
    """A trace's tensors, and a function that rebuilds the trace from them."""
    leaves, form = tree_flatten(trace)
    rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def together(tensors: Sequence[Tensor]) -> Trace[Any]:
        filled = list(rest)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        trace: Trace[Any] = tree_unflatten(filled, form)
        return trace

    return [leaves[place] for place in places], together
