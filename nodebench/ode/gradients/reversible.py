"""The gradient `reversible`: backprop along a solve that is taken back step by step from its end.

Of the solve its end alone is kept, and one step's graph is in memory. The states are those of the
solve but for rounding, which a method that damps, or a contracting field, magnifies on its way.

Source: Zhuang et al. 2021 (MALI) for `alf`, Kidger et al. 2021 for `reversible_heun`,
McCallum, Foster 2024 for coupled methods.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nodebench.errors import FieldError
from nodebench.ode.field import Counted
from nodebench.ode.gradients.aca import whole_step
from nodebench.ode.gradients.recorded_steps import is_random, never
from nodebench.ode.gradients.replay import replayed
from nodebench.spec.solver import Gradient, Solver


def reversible(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; a step back evaluates f to find where it began, and once again.

    Raises:
        FieldError: if f draws random numbers, so that it is another function on its way back.
    """
    if is_random(f.module):
        raise FieldError(
            "the gradient `reversible` runs a solve backwards, which f cannot with dropout in it: "
            "take the dropout out of f, or the gradient `recompute` or `aca`"
        )
    return replayed(f, y0, times, solver, whole_step, "reversible", never)
