"""Solves of dense fields by embedded Runge-Kutta methods, whose steps are chosen in compiled code.

A step is one for the whole batch; its size follows as in `ode/adaptive`. The search for it is not
differentiated: the gradient is that of the accepted steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nodebench.ode.adaptive.controlled import failure
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.adaptive.step_size import SMALLEST_ERROR
from nodebench.ode.dense.activations import BLOCK, compiled
from nodebench.ode.dense.kernels import START, Network, evaluate, take_step
from nodebench.ode.dense.solve import Array, Taken, coefficients
from nodebench.ode.field import Counted
from nodebench.ode.tableau import EMBEDDED
from nodebench.spec.solver import Control, Solver
from nodebench.spec.vocabulary import CONTROLLERS

if TYPE_CHECKING:
    from nodebench.ode.tableau import EmbeddedTableau

CHUNK = 16
"""Steps whose layers are kept in one array; tries between two looks at the limits of a trial."""


class ControlledSteps:
    """The steps of an adaptive solve of a field from times[0] over all other times."""

    first = 1

    def __init__(self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver):
        self.tableau: EmbeddedTableau = EMBEDDED[solver.method]
        self._f, self._times, self._solver = f, times, solver
        self._sign = 1.0 if times[-1] > times[0] else -1.0
        self._batch, self._dim = y0.shape
        # The time, the next step's size, the error remembered and that of the last step tried.
        self._clock = np.array([times[0], 0.0, 1.0, 0.0])

    def take(self, y: Array, network: Network, *, keeps: bool) -> Taken:
        """Solves from y [1, blocks, units, BLOCK].

        Raises:
            StepUnderflow: the error control asked for steps below the resolution of time.
            Diverged: the field is not finite, however small a step.
            TrialFailure: a limit of the trial.
        """
        y, slope = y[0].copy(), np.empty_like(y[0])
        for _ in range(2):
            self._f.on_evaluation()
        self._clock[1] = first_step(self._sign, self._rule(), y, slope, network, self._batch, self._dim)
        sizes, outputs, kept, states = [], [], [], []
        rejected = 0
        for number, end in enumerate(self._times[1:]):
            while self._clock[0] != end:
                layers = self._layers(len(y), network, keeps=keeps)
                taken, tried = self._try(end, y, slope, layers, network)
                rejected += tried - len(taken)
                sizes.append(taken)
                kept.append(layers[:, :, : len(taken)] if keeps else layers)
            count = sum(map(len, sizes)) - len(outputs)
            outputs += [-1] * (count - 1) + [number]
            states.append(y[None].copy())
        self._f.on_counts(StepCounts(float(len(outputs)), float(rejected)))
        whole = np.concatenate(kept, 2) if keeps else kept[-1]
        return Taken(np.concatenate(sizes), np.array(outputs), np.stack(states), whole)

    def _layers(self, blocks: int, network: Network, *, keeps: bool) -> Array:
        shape = (1, blocks, CHUNK if keeps else 1, network.starts[-1], len(self.tableau.b), BLOCK)
        return np.empty(shape, network.weights.dtype)

    def _try(
        self, end: float, y: Array, slope: Array, layers: Array, network: Network
    ) -> tuple[Array, int]:
        """The sizes of the steps accepted, and how many were tried; y and slope are moved on."""
        sizes = np.zeros(CHUNK)
        accepted, tried, is_stuck = try_steps(
            self._clock, end, self._sign, self._rule(), y, slope, layers[0], sizes, network,
            *coefficients(self.tableau), np.array(self.tableau.e), self._batch, self._dim,
        )  # fmt: skip
        for _ in range(tried * (len(self.tableau.b) - 1)):
            self._f.on_evaluation()
        if is_stuck:
            raise failure(*torch.tensor(self._clock[[1, 3]]).unbind())
        return sizes[:accepted], tried

    def _rule(self) -> Array:
        """Tolerances, and what makes a step's size of an error."""
        control, order = self._solver.control or Control(), self._solver.order
        integral, proportional, _ = CONTROLLERS[control.controller]
        factors = control.safety, control.min_factor, control.max_factor
        return np.array([*self._solver.tolerances, integral, proportional, order, *factors])


@compiled
def first_step(sign, rule, y, slope, network, batch, dim):
    """A first step's size, as `step_size.first_size`; fills the first slope."""
    rtol, atol, order = rule[0], rule[1], rule[4]
    output = network.starts[-2]
    values = np.zeros((network.starts[-1], 1, BLOCK), y.dtype)
    raw, ahead = np.zeros_like(values), np.zeros_like(y)
    for block in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                values[i, 0, j] = y[block, i, j]
        evaluate(network, START, values, START, raw)
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                slope[block, i, j] = values[output + i, 0, j]
    d0, d1 = scaled_size(y, y, rtol, atol, batch, dim), scaled_size(slope, y, rtol, atol, batch, dim)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    for block in range(len(y)):
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                values[i, 0, j] = y[block, i, j] + y.dtype.type(sign * h0) * slope[block, i, j]
        evaluate(network, START, values, START, raw)
        for i in range(y.shape[1]):
            for j in range(BLOCK):
                ahead[block, i, j] = values[output + i, 0, j] - slope[block, i, j]
    d2 = scaled_size(ahead, y, rtol, atol, batch, dim) / h0
    if d1 <= 1e-15 and d2 <= 1e-15:
        h1 = max(1e-6, h0 * 1e-3)
    else:
        h1 = (0.01 / max(d1, d2)) ** (1 / order)
    return min(100 * h0, h1)


@compiled
def scaled_size(x, y, rtol, atol, batch, dim):
    """The root mean square of x as a share of the tolerance at y."""
    total = 0.0
    for block in range(len(x)):
        for i in range(dim):
            for j in range(min(BLOCK, batch - block * BLOCK)):
                share = x[block, i, j] / (atol + rtol * abs(y[block, i, j]))
                total += share * share
    return math.sqrt(total / (batch * dim))


@compiled
def try_steps(
    clock, end, sign, rule, y, slope, layers, sizes, network, a, b, e, batch, dim
):
    """Tries as many steps as there is room for `sizes`, until `end`.

    Returns how many were accepted and tried, and whether the solve cannot go on.
    """
    after, raw = np.zeros_like(y), np.zeros((layers.shape[2], 1, BLOCK), y.dtype)
    output = network.starts[-2]
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
            for i in range(output):  # the first slope has no evaluation here
                for j in range(BLOCK):
                    values[i, 0, j] = 0
            for i in range(y.shape[1]):
                for j in range(BLOCK):
                    values[output + i, 0, j] = slope[block, i, j]
            take_step(network, START, values, START, raw, y[block], sign * h, a, b, START + 1)
            for i in range(y.shape[1]):
                for j in range(BLOCK):
                    after[block, i, j] = raw[i, 0, j]
            samples = min(BLOCK, batch - block * BLOCK)
            total += squared_error(values, output, y[block], after[block], h, e, rule, samples, dim)
        error = math.sqrt(total / (batch * dim))
        clock[3] = error
        if t + sign * h == t or not math.isfinite(size):
            return accepted, tried + 1, True
        clock[1] = h * factor(error, clock[2], rule)
        if error <= 1:
            for block in range(len(y)):
                values = layers[block, accepted % layers.shape[1]]
                for i in range(y.shape[1]):
                    for j in range(BLOCK):
                        y[block, i, j] = after[block, i, j]
                        slope[block, i, j] = values[output + i, len(b) - 1, j]
            sizes[accepted] = sign * h
            accepted += 1
            clock[0] = t + sign * h if size < left else end
            if rule[3] > 0:
                clock[2] = max(error, SMALLEST_ERROR)
    return accepted, len(sizes), False


@compiled
def squared_error(values, output, y, after, h, e, rule, samples, dim):
    """The sum of squares of a step's errors as shares of the tolerance, of some samples."""
    rtol, atol = rule[0], rule[1]
    total = 0.0
    for i in range(dim):
        for j in range(samples):
            error = 0.0
            for stage in range(len(e)):
                error += e[stage] * values[output + i, stage, j]
            share = h * error / (atol + rtol * max(abs(y[i, j]), abs(after[i, j])))
            total += share * share
    return total


@compiled
def factor(error, before, rule):
    """What a step's size is multiplied by, as `Controller.factor`."""
    integral, proportional, order, safety = rule[2], rule[3], rule[4], rule[5]
    least, most = rule[6], rule[7]
    if not math.isfinite(error):
        return least
    if error <= 1:
        found = safety * error ** (-(integral + proportional) / order)
        found *= before ** (proportional / order)
    else:
        found = safety * error ** (-1 / order)
    if proportional == 0 and error < 1:
        least = 1.0
    return min(max(found, least), most)
