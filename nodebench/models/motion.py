"""ODE blocks whose state has a velocity: equations of motion of second order.

A state is [x; v], position and velocity side by side in dimension 1: x [batch, channels, ...] and
v, of the same shape, make a state [batch, 2 * channels, ...].
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from nodebench.ode.field import Field, runs_as
from nodebench.ode.taylor.rules import RULES
from nodebench.ode.taylor.series import Series


class Motion(Field):
    """[x'; v'] as a function of [x; v] and of f: the velocity x', and the acceleration v'.

    Except for f and tanh, both are linear and do not depend on time, so that Taylor coefficients
    follow the same equations as states do.
    """

    speed_is_bounded = False

    def __init__(self, f: Field):
        super().__init__()
        self.f, self.takes_rows = f, f.takes_rows

    @abstractmethod
    def acceleration(self, x: Tensor, v: Tensor, f: Series) -> Tensor:
        """The acceleration v', for f at some time."""

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """[x'; v']."""
        return self._rate(y, lambda z: self.f(t, z), torch.tanh)

    def series(self, t: float | Tensor, rate: float, /) -> Series | None:
        """The series, if f has one."""
        f, tanh = self.f.series(t, rate), RULES[nn.Tanh](nn.Tanh())
        if f is None or not runs_as(self, Motion):
            return None
        return lambda y: self._rate(y, f, tanh)

    def _rate(self, y: Tensor, f: Series, tanh: Series) -> Tensor:
        x, v = y.chunk(2, 1)
        velocity = tanh(v) if self.speed_is_bounded else v
        return torch.cat((velocity, self.acceleration(x, v, f)), 1)


class SecondOrder(Motion):
    """x' = v, v' = f(t, [x; v]). Source: Norcliffe et al. 2020."""

    def acceleration(self, x: Tensor, v: Tensor, f: Series) -> Tensor:
        """The acceleration v'."""
        return f(torch.cat((x, v), 1))


class HeavyBall(Motion):
    """x' = v, v' = f(t, x) - γ v, where γ in (0, 1) is learned. Source: Xia et al. 2021."""

    def __init__(self, f: Field):
        super().__init__(f)
        self.damping = nn.Parameter(torch.tensor(-3.0))  # γ = 0.05, as in the source's code

    def acceleration(self, x: Tensor, v: Tensor, f: Series) -> Tensor:
        """The acceleration v'."""
        return f(x) - torch.sigmoid(self.damping) * v


class GeneralizedHeavyBall(HeavyBall):
    """x' = tanh(v), v' = f(t, x) - γ v - ξ x, where γ and ξ are learned. Source: Xia et al. 2021.

    ξ begins at zero, and may get either sign; the source's code begins at 0, 1 or 2, by experiment.
    """

    speed_is_bounded = True

    def __init__(self, f: Field):
        super().__init__(f)
        self.stiffness = nn.Parameter(torch.tensor(0.0))

    def acceleration(self, x: Tensor, v: Tensor, f: Series) -> Tensor:
        """The acceleration v'."""
        return super().acceleration(x, v, f) - self.stiffness * x


EQUATIONS_OF_MOTION: dict[str, type[Motion]] = {
    "second-order": SecondOrder,
    "heavy-ball": HeavyBall,
    "generalized-heavy-ball": GeneralizedHeavyBall,
}
"""Name -> the equation of motion of second order."""


class MovingBlock(nn.Module):
    """An ODE block that starts at [x; v(0)] and gives the position at its end.

    v(0) is zero, or g(0, x) for a field g. Shapes: [batch, channels, ...] -> the same.
    """

    def __init__(self, block: nn.Module, initial_velocity: Field | None):
        super().__init__()
        self.block = block
        self.initial_velocity = initial_velocity

    def forward(self, x: Tensor) -> Tensor:
        """x(t1)."""
        g = self.initial_velocity
        v = torch.zeros_like(x) if g is None else g(0.0, x)
        out: Tensor = self.block(torch.cat((x, v), 1)).chunk(2, 1)[0]
        return out
