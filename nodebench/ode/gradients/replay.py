"""Gradients that repeat the steps of a solve, the last first, each with its own graph.

In all of them, the solve itself has no graph, and the gradient is that of its steps, as in
backprop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from nodebench.ode.field import Counted, OverStates
from nodebench.ode.fixed import Carry
from nodebench.ode.gradients.adjoint import require_own_tensors
from nodebench.ode.gradients.buffers import buffers_kept, settled_weights
from nodebench.ode.gradients.random_state import Generator
from nodebench.ode.gradients.recorded_steps import (
    RecordedStep,
    Trace,
    always,
    traced,
)
from nodebench.ode.reversible import ReversibleStepper
from nodebench.spec.solver import Solver

Tensors: TypeAlias = "tuple[Tensor, ...]"

Pull: TypeAlias = Callable[["BackwardSolve", RecordedStep, Carry], Carry]
"""(the solve, a step, dL/d(carry after it)) -> dL/d(carry before it); adds dL/dθ to the solve."""


class BackwardSolve:
    """The backward pass of one solve: its field, and the gradients accumulated so far."""

    def __init__(self, f: Counted, trace: Trace, parameters: Tensors, gradient: str):
        self.f, self.stepper, self.parameters = OverStates(f), trace.stepper, parameters
        self.draws = Generator(trace.states[0])
        self._module, self._gradient, self._is_checked = f.module, gradient, False
        self.by_parameter = [torch.zeros_like(p) for p in parameters]

    def taken_back(self, step: RecordedStep, after: Carry) -> Carry:
        """The carry before a step, from the carry after it."""
        assert isinstance(self.stepper, ReversibleStepper)
        return self.stepper.back(self.f, step.t, step.h, after)

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
    pull: Pull,
    gradient: str,
    keep: Callable[[float, float], bool] = always,
) -> list[Tensor]:
    """The states at `times`, whose gradient `pull` propagates back step by step.

    `gradient` is the method's name, for error messages. Steps whose carry the solve does not `keep`
    are reversed.
    """
    parameters = tuple(p for p in f.module.parameters() if p.requires_grad)
    later = _Replay.apply(f, times, solver, (pull, gradient, keep), y0, *parameters)
    return [y0, *later]


class _Replay(torch.autograd.Function):
    """y0 -> the states at times[1:]."""

    @staticmethod
    def forward(
        ctx: Any,
        f: Counted,
        times: Sequence[float],
        solver: Solver,
        way: tuple[Pull, str, Callable[[float, float], bool]],
        y0: Tensor,
        *parameters: Tensor,
    ) -> Tensors:
        pull, gradient, keep = way
        trace = traced(f, y0, times, solver, keep)
        ctx.f, ctx.start, ctx.pull, ctx.gradient = f, times[0], pull, gradient
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
        trace, module = ctx.together(saved[:at]), ctx.f.module
        solve = BackwardSolve(ctx.f, trace, saved[at:], ctx.gradient)
        by: Carry = tuple(tuple(map(torch.zeros_like, state)) for state in trace.end)
        carry = trace.end
        with torch.no_grad(), buffers_kept(module), settled_weights(module):
            for steps, by_output in reversed(list(zip(trace.intervals, by_state, strict=True))):
                by = ((by[0][0] + by_output,), *by[1:])
                for step in reversed(steps):
                    with solve.draws.back_at(step.draws):
                        carry = step.before or solve.taken_back(step, carry)
                        by = ctx.pull(solve, step._replace(before=carry), by)
            with solve.draws.back_at(trace.draws):
                by = solve.pulled(partial(solve.stepper.start, solve.f, ctx.start), carry[:1], by)
        return (None,) * 4 + (by[0][0], *solve.by_parameter)


def _apart(trace: Trace) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Trace]]:
    """A trace's tensors, and a function that rebuilds the trace from them."""
    leaves, form = tree_flatten(trace)
    rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def together(tensors: Sequence[Tensor]) -> Trace:
        filled = list(rest)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        trace: Trace = tree_unflatten(filled, form)
        return trace

    return [leaves[place] for place in places], together
