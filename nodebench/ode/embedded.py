"""Steps of embedded Runge-Kutta methods, for gradients that repeat the accepted ones.

`adaptive/` chooses the steps and estimates their errors.
"""

from __future__ import annotations

from nodebench.ode.fixed import Carry, RightHandSide, RungeKutta, State, moved


class EmbeddedRungeKutta(RungeKutta):
    """Carries y and the step's last slope, which the next step uses as its first stage.

    This slope is f(t, y) itself if the last stage is evaluated at the step's result (dopri5,
    dopri8, bosh3, tsit5). For adaptive_heun and fehlberg2 it is close to it, as in torchdiffeq.
    """

    def start(self, f: RightHandSide, t: float, y: State) -> Carry:
        """The first slope is f(t, y)."""
        return y, f(t, y)

    def step(self, f: RightHandSide, t: float, h: float, carry: Carry) -> Carry:
        """Returns y + h sum_i b_i k_i, and the last slope."""
        (y, slope), tableau = carry, self.tableau
        slopes = [slope]
        for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            slopes.append(f(t + c * h, moved(y, h, a, slopes)))
        return moved(y, h, tableau.b, slopes), slopes[-1]
