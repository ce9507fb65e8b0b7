"""Solves of dense fields by embedded Runge-Kutta methods, with compiled step size control.

The whole batch shares each step; its size is chosen as in `ode/adaptive`. The search for it is not
differentiated: the gradient is that of the accepted steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nodebench.ode.adaptive.controlled import failure
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.dense.activation_kernels import BLOCK
from nodebench.ode.dense.adaptive_kernels import (
    REJECTED,
    REMEMBERED,
    SIZE,
    TIME,
    first_step,
    try_steps,
)
from nodebench.ode.dense.parts import ErrorControl, Floats, Layers
from nodebench.ode.dense.solve import Taken, columns_of, empty, scheme_of
from nodebench.ode.dense.solve_kernels import of_seed
from nodebench.ode.field import Counted
from nodebench.ode.tableau import EMBEDDED, Tableau
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import CONTROLLERS

CHUNK = 16
"""Steps whose layers are kept in one array; steps tried between two checks of a trial's limits."""


class ControlledSteps:
    """The steps of an adaptive solve of a field, from times[0] through all other times."""

    tableau: Tableau

    def __init__(self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver):
        self.tableau = EMBEDDED[solver.method]
        self._f, self._times = f, times
        control = solver.step_control
        assert solver.order is not None
        integral, proportional, _ = CONTROLLERS[control.controller]
        rtol, atol = map(float, solver.tolerances)
        batch, dim = y0.shape
        self._control = ErrorControl(
            sign=1.0 if times[-1] > times[0] else -1.0, batch=batch, dim=dim,
            rtol=rtol, atol=atol, integral=integral, proportional=proportional,
            order=float(solver.order), safety=control.safety,
            least=control.min_factor, most=control.max_factor,
        )  # fmt: skip

    def take(self, y: Floats, network: Layers, *, keeps: bool) -> Taken:
        """Solves from y [1, blocks, units, BLOCK].

        Raises:
            StepUnderflow: the error control asked for steps below the resolution of time.
            Diverged: the field is not finite, however small the step.
            TrialFailure: a limit of the trial was exceeded.
        """
        network = of_seed(network, 0)
        at = (y[0].copy(), np.empty_like(y[0]))  # the state and slope, updated by each step
        size = first_step(self._control, at, network)
        self._f.on_evaluations(2)
        clock = np.zeros(4)
        clock[[TIME, SIZE, REMEMBERED, REJECTED]] = self._times[0], size, 1.0, 0.0
        sizes, outputs, kept, states = list[Floats](), list[int](), list[Tensor](), list[Floats]()
        rejected = 0
        for number, end in enumerate(self._times[1:]):
            while clock[TIME] != end:
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
        shape = (*y.shape[:2], steps, network.rows, columns, BLOCK)
        return empty(shape, y)

    def _try(
        self, clock: Floats, end: float, at: tuple[Floats, Floats], layers: Floats, network: Layers
    ) -> tuple[Floats, int]:
        """The sizes of the accepted steps, and the number of steps tried."""
        sizes, scheme = np.zeros(CHUNK), scheme_of(self.tableau)
        accepted, tried, is_stuck = try_steps(
            clock, end, self._control, at, layers[0], sizes, network, scheme
        )
        self._f.on_evaluations(tried * (len(self.tableau.b) - 1))
        if is_stuck:
            raise failure(torch.tensor(clock[SIZE]), is_finite=math.isfinite(clock[REJECTED]))
        return sizes[:accepted], tried
