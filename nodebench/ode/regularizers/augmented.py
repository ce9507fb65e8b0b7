"""A right-hand side dy/dt = f augmented with integrals along its solution, dq/dt = g(t, y, dy/dt).

State and integrals are columns of one tensor, so every solver and every gradient method works with
them, and an integral costs only the evaluations of f in its integrand. An adaptive method controls
the errors of the state alone, as in the code of Finlay et al. 2020 and Kelly et al. 2020: a solve
takes the same steps as without integrals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from nodebench.ode.field import Field, slope
from nodebench.ode.gradients.random_state import Generator, is_random
from nodebench.ode.regularizers.field_call import FieldCall, norms_of
from nodebench.ode.regularizers.regularizer import Integrand
from nodebench.ode.steppers.stepper import State


def samples_in(y0: Tensor) -> int:
    """The number of samples in a state; one without a batch is one sample."""
    return len(y0) if y0.dim() > 1 else 1


class Augmented(Field):
    """State and integrals as rows [samples, numbers + integrals]; an unbatched state is one row.

    `start` is the time and the state at which the solve starts. `on_evaluations` is called for each
    evaluation of f by an integrand.
    """

    takes_rows = False  # an integrand's noise is drawn for the whole batch

    def __init__(
        self,
        f: nn.Module,
        integrands: Sequence[Integrand],
        start: tuple[float, Tensor],
        on_evaluations: Callable[[int], None],
    ):
        super().__init__()
        self.f, self._integrands, self._on_evaluations = f, integrands, on_evaluations
        t0, y0 = start
        self._shape, self._samples = y0.shape, samples_in(y0)
        self._is_channels_last = y0.dim() == 4 and y0.is_contiguous(
            memory_format=torch.channels_last
        )
        self.is_random = is_random(f, t0, y0)
        self._draws = Generator(y0) if self.is_random else None
        self._norms = norms_of(f)

    def forward(self, t: float | Tensor, rows: Tensor) -> Tensor:
        """(dy/dt, dq/dt) of every sample."""
        y = self._state(rows)
        if isinstance(t, Tensor) and t.dim():  # a time for each sample
            t = t.reshape(-1, *(1,) * (y.dim() - 1))
        mask = partial(self._drawn_as_before, self._draws.state() if self._draws else None)
        dy = slope(self.f, t, y)
        call = FieldCall(self.f, self._norms, mask, self._on_evaluations)
        squares = [self._flat(g(call, t, y, dy)).square().sum(1) for g in self._integrands]
        return torch.cat([self._flat(dy), torch.stack(squares, 1)], 1)

    def start(self, y0: Tensor) -> Tensor:
        """The initial state, with integrals of 0."""
        return torch.cat([self._flat(y0), y0.new_zeros(self._samples, len(self._integrands))], 1)

    def state_rows(self, rows: Tensor) -> Tensor:
        """The columns of the state, [samples, numbers]."""
        return rows[:, : self._numbers]

    def apart(self, rows: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Splits rows into the states, and the integrals [samples, integrals] at the last time."""
        return [self._state(each) for each in rows], rows[-1][:, self._numbers :]

    def norm(self, state: State) -> Tensor:
        """The root mean square of the state alone, for an adaptive method's error control."""
        (rows,) = state
        return self.state_rows(rows).square().mean().sqrt()

    @property
    def _numbers(self) -> int:
        return self._shape.numel() // self._samples

    def _flat(self, y: Tensor) -> Tensor:
        """One row per sample, in the order of the state's memory."""
        if self._is_channels_last:
            y = y.movedim(1, -1)
        return y.reshape(self._samples, -1)

    def _state(self, rows: Tensor) -> Tensor:
        y = self.state_rows(rows).contiguous()  # compiled layers require it
        if self._is_channels_last:
            batch, channels, height, width = self._shape
            return y.reshape(batch, height, width, channels).movedim(-1, 1)
        return y.reshape(self._shape)

    def _drawn_as_before(self, drawn: Tensor | None) -> AbstractContextManager[None]:
        return self._draws.back_at(drawn) if self._draws else contextlib.nullcontext()
