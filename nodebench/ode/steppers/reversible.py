"""Methods whose steps can be reversed exactly, for the gradient `reversible`.

Such a method carries more than the solution. All earlier states can be reconstructed from its final
carry, which is all that the backward pass needs.
"""

from __future__ import annotations

from abc import abstractmethod

from nodebench.ode.steppers.runge_kutta import RungeKutta
from nodebench.ode.steppers.stepper import CarryType, RightHandSide, State, Stepper, moved


class ReversibleStepper(Stepper[float, CarryType]):
    """A method whose steps can be reversed."""

    @abstractmethod
    def back(self, f: RightHandSide, t: float, h: float, carry: CarryType, /) -> CarryType:
        """The carry before the step from t to t + h, given the carry after it."""


class AsynchronousLeapfrog(ReversibleStepper[tuple[State, State]]):
    """Carries y and a velocity v, which follows f(t, y) at the middle of each step. Order 2.

    With `damping` η in (1/2, 1], v moves by 2η(f − v); η = 1 means no damping.

    Source: Mutze 2013; Zhuang, Dvornek, Tatikonda, Duncan 2021 (MALI), algorithm 2 and appendix.
    """

    def __init__(self, damping: float = 1.0):
        self.rate = 2 * damping

    def start(self, f: RightHandSide, t: float, y: State, /) -> tuple[State, State]:
        """The velocity starts as f(t, y)."""
        return y, f(t, y)

    def step(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """Half a step with the old velocity, half with the new one."""
        y, v = carry
        middle = _plus(y, v, h / 2)
        v = _mixed(v, f(t + h / 2, middle), self.rate)
        return _plus(middle, v, h / 2), v

    def back(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """The same half steps in reverse."""
        y, v = carry
        middle = _plus(y, v, -h / 2)
        slope = f(t + h / 2, middle)
        # v = (1 - rate) before + rate slope, solved for `before`.
        v = _mixed(v, slope, self.rate / (self.rate - 1))
        return _plus(middle, v, -h / 2), v


class ReversibleHeun(ReversibleStepper[tuple[State, State, State]]):
    """Carries y, a second solution z and the slope f(t, z). Order 2.

    Source: Kidger, Foster, Li, Lyons 2021, algorithm 1, without noise.
    """

    def start(self, f: RightHandSide, t: float, y: State, /) -> tuple[State, State, State]:
        """Both solutions start at y."""
        return y, y, f(t, y)

    def step(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State, State], /
    ) -> tuple[State, State, State]:
        """A leapfrog step of z over y, then a step of y by the mean of the slopes at both ends."""
        y, z, slope = carry
        z = _leapt(y, z, slope, h)
        after = f(t + h, z)
        return _plus(_plus(y, slope, h / 2), after, h / 2), z, after

    def back(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State, State], /
    ) -> tuple[State, State, State]:
        """The same step with -h."""
        y, z, slope = carry
        z = _leapt(y, z, slope, -h)
        before = f(t, z)
        return _plus(_plus(y, slope, -h / 2), before, -h / 2), z, before


class Coupled(ReversibleStepper[tuple[State, State]]):
    """Any one-step method made reversible: carries y and a second solution z. Its order is kept.

    With the method's increment Ψ_h(t, y) and a `coupling` λ in (0, 1]:
    y' = λ y + (1 − λ) z + Ψ_h(t, z), and z' = z − Ψ_{−h}(t + h, y').

    Source: McCallum, Foster 2024, equation 3.
    """

    def __init__(self, method: RungeKutta, coupling: float):
        self.method, self.coupling = method, coupling

    def start(self, _f: RightHandSide, _t: float, y: State, /) -> tuple[State, State]:
        """Both solutions start at y."""
        return y, y

    def step(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """A step of y from z, then a step of z by the method backwards from the new y."""
        y, z = carry
        (moved_z,) = self.method.step(f, t, h, (z,))  # z + Ψ_h(t, z)
        y = moved(moved_z, self.coupling, (1.0, -1.0), (y, z))
        return y, self._increment(f, t + h, -h, y, z, -1.0)

    def back(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """Reverses the step of z, then that of y."""
        y, z = carry
        z = self._increment(f, t + h, -h, y, z, 1.0)
        (moved_z,) = self.method.step(f, t, h, (z,))
        return moved(z, 1 / self.coupling, (1.0, -1.0), (y, moved_z)), z

    def _increment(
        self, f: RightHandSide, t: float, h: float, start: State, onto: State, sign: float
    ) -> State:
        """Returns onto + sign Ψ_h(t, start)."""
        (after,) = self.method.step(f, t, h, (start,))
        return moved(onto, sign, (1.0, -1.0), (after, start))


def _plus(y: State, slope: State, h: float) -> State:
    return moved(y, h, (1.0,), (slope,))


def _mixed(v: State, slope: State, rate: float) -> State:
    """Returns v + rate (slope − v)."""
    return tuple(x.lerp(k, rate) for x, k in zip(v, slope, strict=True))


def _leapt(y: State, z: State, slope: State, h: float) -> State:
    """2 y − z + h slope."""
    return tuple(2 * a - b + h * k for a, b, k in zip(y, z, slope, strict=True))
