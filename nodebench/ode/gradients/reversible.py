"""The gradient `reversible`: backprop along a solve that is reversed step by step from its end.

Only the end of the solve is kept, and only one step's graph is in memory. The states are those of
the solve up to rounding errors, which a method that damps, or a contracting field, amplifies on the
way back.

Source: Zhuang et al. 2021 (MALI) for `alf`, Kidger et al. 2021 for `reversible_heun`,
McCallum, Foster 2024 for coupled methods.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nodebench.ode.field import Counted
from nodebench.ode.gradients.aca import whole_step
from nodebench.ode.gradients.random_state import require_not_random
from nodebench.ode.gradients.recorded_steps import never
from nodebench.ode.gradients.replay import Replay, replayed
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


def reversible(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`; the backward pass evaluates f to reverse and to differentiate steps.

    Raises:
        FieldError: if f draws random numbers, since it would be another function on the way back.
    """
    require_not_random(f, times[0], y0, "reversible")
    return replayed(f, y0, times, solver, Replay("reversible", whole_step, never))
