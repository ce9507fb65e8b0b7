"""Solves of dense fields by embedded Runge-Kutta methods, whose steps are chosen in compiled code.

A step is one for the whole batch; its size follows as in `ode/adaptive`. The search for it is not
differentiated: the gradient is that of the accepted steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodebench.ode.adaptive.controlled import failure
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.adaptive.step_size import SMALLEST_ERROR
from nodebench.ode.compiled import compiled, compiled_part
from nodebench.ode.dense.activations import BLOCK
from nodebench.ode.dense.kernels import (
    START,
    copy,
    copy_back,
    evaluate_field,
    of_seed,
    take_step,
)
from nodebench.ode.dense.parts import Floats, Layers
from nodebench.ode.dense.solve import Taken, columns_of, empty, scheme_of
from nodebench.ode.field import Counted
from nodebench.ode.tableau import EMBEDDED, Tableau
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import CONTROLLERS

CHUNK = 16
"""Steps whose layers are kept in one array; tries between two looks at the limits of a trial."""


class Way(NamedTuple):
    """What the steps of a solve follow: tolerances, and a controller's exponents and bounds."""

    sign: float
    """1 or -1: the direction of time."""

    batch: int
    dim: int
    rtol: float
    atol: float
    integral: float
    proportional: float
    order: float
    safety: float
    least: float
    most: float


class ControlledSteps:
    """The steps of an adaptive solve of a field from times[0] over all other times."""

    tableau: Tableau

    def __init__(self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver):
        self.tableau = EMBEDDED[solver.method]
        self._f, self._times = f, times
        control = solver.step_control
        assert control is not None and solver.order is not None
        integral, proportional, _ = CONTROLLERS[control.controller]
        rtol, atol = map(float, solver.tolerances)
        batch, dim = y0.shape
        self._way = Way(
            1.0 if times[-1] > times[0] else -1.0, batch, dim, rtol, atol,
            integral, proportional, float(solver.order),
            control.safety, control.min_factor, control.max_factor,
        )  # fmt: skip

    def take(self, y: Floats, network: Layers, *, keeps: bool) -> Taken:
        """Solves from y [1, blocks, units, BLOCK].

        Raises:
            StepUnderflow: the error control asked for steps below the resolution of time.
            Diverged: the field is not finite, however small a step.
            TrialFailure: a limit of the trial.
        """
        network = of_seed(network, 0)
        at = (y[0].copy(), np.empty_like(y[0]))  # the state and slope, moved on by each step
        size = first_step(self._way, at, network)
        self._f.on_evaluations(2)
        # The time, the next step's size, the error remembered, and that of the last step rejected.
        clock = np.array([self._times[0], size, 1.0, 0.0])
        sizes, outputs, kept, states = list[Floats](), list[int](), list[Tensor](), list[Floats]()
        rejected = 0
        for number, end in enumerate(self._times[1:]):
            while clock[0] != end:
                layers = self._layers(y, network, keeps=keeps)
                taken, tried = self._try(clock, end, at, layers.numpy(), network)
                rejected += tried - len(taken)
                sizes.append(taken)
                kept.append(layers[:, :, : len(taken)] if keeps else layers)
            count = sum(map(len, sizes)) - len(outputs)
            outputs += [-1] * (count - 1) + [number]
            states.append(at[0][None].copy())
        self._f.on_counts(StepCounts(float(len(outputs)), float(rejected)))
        whole = torch.cat(kept, 2) if keeps else kept[-1]
        return Taken(np.concatenate(sizes), np.array(outputs), np.stack(states), [whole])

    def _layers(self, y: Floats, network: Layers, *, keeps: bool) -> Tensor:
        steps = CHUNK if keeps else 1
        columns = columns_of(scheme_of(self.tableau))
        shape = (*y.shape[:2], steps, network.starts[-1], columns, BLOCK)
        return empty(shape, y)

    def _try(
        self, clock: Floats, end: float, at: tuple[Floats, Floats], layers: Floats, network: Layers
    ) -> tuple[Floats, int]:
        """The sizes of the steps accepted, and how many were tried."""
        sizes, scheme = np.zeros(CHUNK), scheme_of(self.tableau)
        accepted, tried, is_stuck = try_steps(
            clock, end, self._way, at, layers[0], sizes, network, scheme
        )
        self._f.on_evaluations(tried * (len(self.tableau.b) - 1))
        if is_stuck:
            raise failure(torch.tensor(clock[1]), is_finite=math.isfinite(clock[3]))
        return sizes[:accepted], tried


@compiled
def first_step(way, at, network):
    """A first step's size, as `step_size.first_size`; fills the first slope."""
    y, slope = at
    output = network.starts[-2]
    values = np.zeros((network.starts[-1], 1, BLOCK), y.dtype)
    raw, change = np.zeros_like(values), np.zeros_like(y)
    for block in range(len(y)):
        copy(values, y[block], START, START)
        evaluate_field(network, values, START, raw)
        copy_back(slope[block], values, output, START)
    d0, d1 = scaled_size(y, y, way), scaled_size(slope, y, way)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h = y.dtype.type(way.sign * h0)
    for block in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                values[i, 0, j] = y[block, i, j] + h * slope[block, i, j]
        evaluate_field(network, values, START, raw)
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                change[block, i, j] = values[output + i, 0, j] - slope[block, i, j]
    d2 = scaled_size(change, y, way) / h0
    if d1 <= 1e-15 and d2 <= 1e-15:
        return min(100 * h0, max(1e-6, h0 * 1e-3))
    return min(100 * h0, (0.01 / max(d1, d2)) ** (1 / way.order))


@compiled_part
def scaled_size(x, y, way):
    """The root mean square of x as a share of the tolerance at y."""
    total = 0.0
    for block in range(len(x)):
        for i in range(way.dim):
            for j in range(min(BLOCK, way.batch - block * BLOCK)):
                share = x[block, i, j] / (way.atol + way.rtol * abs(y[block, i, j]))
                total += share * share
    return math.sqrt(total / (way.batch * way.dim))


@compiled
def try_steps(clock, end, way, at, layers, sizes, network, scheme):
    """Tries as many steps as there is room for `sizes`, until `end`.

    Returns how many were accepted and tried, and whether the solve cannot go on.
    """
    y, slope = at
    after, raw = np.zeros_like(y), np.zeros((layers.shape[2], 1, BLOCK), y.dtype)
    output, last = network.starts[-2], len(scheme.b) - 1
    accepted = 0
    for tried in range(len(sizes)):
        t, size = clock[0], clock[1]
        left = abs(end - t)
        if left == 0:
            return accepted, tried, False
        h = min(size, left)
        total = 0.0
        for block in range(len(y)):
            values = layers[block, accepted % layers.shape[1]]
            for i in range(len(values)):
                for j in range(BLOCK):
                    values[i, 0, j] = 0  # the first slope has no evaluation here
            copy(values, slope[block], output, START)
            take_step(network, values, START, raw, y[block], way.sign * h, scheme)
            copy_back(after[block], raw, START, START)
            samples = min(BLOCK, way.batch - block * BLOCK)
            total += squared_error(values, y[block], after[block], h, network, scheme, way, samples)
        error = math.sqrt(total / (way.batch * way.dim))
        clock[1] = h * factor(error, clock[2], way)
        if not error <= 1:
            clock[3] = error
        if t + way.sign * h == t or not math.isfinite(size):
            return accepted, tried + 1, True
        if error <= 1:
            for block in range(len(y)):
                values = layers[block, accepted % layers.shape[1]]
                for i in range(y.shape[1]):
                    for j in range(BLOCK):
                        y[block, i, j] = after[block, i, j]
                copy_back(slope[block], values, output, last)
            sizes[accepted] = way.sign * h
            accepted += 1
            clock[0] = t + way.sign * h if size < left else end
            if way.proportional > 0:
                clock[2] = max(error, SMALLEST_ERROR)
    return accepted, len(sizes), False


@compiled_part
def squared_error(values, y, after, h, network, scheme, way, samples):
    """The sum of squares of a step's errors as shares of the tolerance, of some samples."""
    output, total = network.starts[-2], 0.0
    for i in range(way.dim):
        for j in range(samples):
            error = 0.0
            for stage in range(len(scheme.e)):
                error += scheme.e[stage] * values[output + i, stage, j]
            share = h * error / (way.atol + way.rtol * max(abs(y[i, j]), abs(after[i, j])))
            total += share * share
    return total


@compiled_part
def factor(error, before, way):
    """What a step's size is multiplied by, as `Controller.factor`."""
    least = way.least
    if not math.isfinite(error):
        return least
    if error <= 1:
        found = way.safety * error ** (-(way.integral + way.proportional) / way.order)
        found *= before ** (way.proportional / way.order)
    else:
        found = way.safety * error ** (-1 / way.order)
    if way.proportional == 0 and error < 1:
        least = 1.0
    return min(max(found, least), way.most)
