"""The gradient `recompute`: backprop that repeats parts of the solve in the backward pass."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nodebench.errors import InputError
from nodebench.ode.buffers import Rewound, buffers_of, copies, settled_weights
from nodebench.ode.field import Counted
from nodebench.ode.fixed import grids_between
from nodebench.ode.gradients.backprop import backprop, solve_on
from nodebench.ode.steppers.stepper import AnyStepper
from nodebench.ode.steppers.table import stepper_of
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

StepTimes = Sequence[float]


def recompute(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; only the state at the start of each segment of the solve is kept.

    The backward pass repeats the segments, the last first, with the graph of one at a time in
    memory. The gradient is backprop's.

    Source: Gholami, Keutzer, Biros 2019 (ANODE), for one segment; for several, Griewank 1992.
    """
    if gradient.segments is None:
        kept = buffers_of(f.module, but_batch_norm=bool(gradient.update_batch_norm))
        return _again(kept, lambda y: backprop(f, y, times, solver, gradient), y0)
    if solver.stepping != "fixed":
        raise InputError(f"`segments` need fixed steps, which `{solver.method}` does not take")
    times_of_steps = [list(grid) for grid in grids_between(times, solver)]
    states, y = [y0], y0
    for number, segment in enumerate(_cut(times_of_steps, gradient.segments)):
        solved = partial(_segment, f, [grid for grid, _ in segment], stepper_of(solver), number)
        _, *found = _again(buffers_of(f.module), solved, y)
        y = found[-1]
        states += [state for state, (_, is_end) in zip(found, segment, strict=True) if is_end]
    return states


def _segment(
    f: Counted, part: Sequence[StepTimes], stepper: AnyStepper, number: int, y: Tensor
) -> list[Tensor]:
    """Solves one segment. Power iterations advance once per solve, in its first segment."""
    with settled_weights(f.module) if number else contextlib.nullcontext():
        return solve_on(part, f, y, stepper)


def _again(
    buffers: Sequence[Tensor], solve: Callable[[Tensor], list[Tensor]], y0: Tensor
) -> list[Tensor]:
    """A solve that keeps only y0, and that the backward pass repeats.

    The repetition starts with these buffers as they were before the solve, and afterwards restores
    their current values.
    """
    before = copies(buffers)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return contextlib.nullcontext(), Rewound(buffers, before)

    states: list[Tensor] = checkpoint(solve, y0, use_reentrant=False, context_fn=contexts)
    return states


def _cut(grids: Sequence[StepTimes], segments: int | str) -> Iterator[list[tuple[StepTimes, bool]]]:
    """Cuts the steps of some grids into segments of nearly equal numbers of steps.

    A segment is a list of (part of a grid, whether it is the grid's last). `auto` makes as many
    segments as each has steps: the square root of the number of steps.
    """
    total = sum(len(grid) - 1 for grid in grids)
    if total == 0:
        return
    count = round(math.sqrt(total)) if segments == "auto" else min(int(segments), total)
    bounds = [total * number // count for number in range(count + 1)]
    for start, end in itertools.pairwise(bounds):
        segment, before = list[tuple[StepTimes, bool]](), 0
        for grid in grids:
            steps = len(grid) - 1
            first, last = max(start - before, 0), min(end - before, steps)
            if first < last:
                segment.append((grid[first : last + 1], last == steps))
            before += steps
        yield segment
