"""Steps of explicit Runge-Kutta methods."""

from __future__ import annotations

from nodebench.ode.steppers.stepper import RightHandSide, State, Stepper, moved
from nodebench.ode.tableau import EmbeddedTableau, Tableau


class RungeKutta(Stepper[float, tuple[State]]):
    """An explicit Runge-Kutta method. It carries only the solution."""

    def __init__(self, tableau: Tableau):
        self.tableau = tableau

    def start(self, _f: RightHandSide, _t: float, y: State, /) -> tuple[State]:
        """The solution."""
        return (y,)

    def step(self, f: RightHandSide, t: float, h: float, carry: tuple[State], /) -> tuple[State]:
        """Returns y + h sum_i b_i k_i."""
        (y,), tableau = carry, self.tableau
        slopes: list[State] = []
        for a, c in zip(tableau.a, tableau.c, strict=True):
            slopes.append(f(t + c * h, moved(y, h, a, slopes)))
        return (moved(y, h, tableau.b, slopes),)


class EmbeddedRungeKutta(Stepper[float, tuple[State, State]]):
    """Carries y and the step's last slope, which the next step uses as its first stage.

    This slope is f(t, y) itself if the last stage is evaluated at the step's result (dopri5,
    dopri8, bosh3, tsit5). For adaptive_heun and fehlberg2 it is close to it, as in torchdiffeq.

    It takes steps of known sizes, for gradients that repeat the accepted ones. `adaptive/` chooses
    the sizes and estimates errors.
    """

    def __init__(self, tableau: EmbeddedTableau):
        self.tableau = tableau

    def start(self, f: RightHandSide, t: float, y: State, /) -> tuple[State, State]:
        """The first slope is f(t, y)."""
        return y, f(t, y)

    def step(
        self, f: RightHandSide, t: float, h: float, carry: tuple[State, State], /
    ) -> tuple[State, State]:
        """Returns y + h sum_i b_i k_i, and the last slope."""
        (y, slope), tableau = carry, self.tableau
        slopes = [slope]
        for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            slopes.append(f(t + c * h, moved(y, h, a, slopes)))
        return moved(y, h, tableau.b, slopes), slopes[-1]
