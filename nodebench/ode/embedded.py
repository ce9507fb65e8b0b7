"""Embedded Runge-Kutta methods: a step, and an estimate of its error from the same evaluations."""

from __future__ import annotations

from nodebench.ode.fixed import Carry, RightHandSide, RungeKutta, State, moved


class EmbeddedRungeKutta(RungeKutta):
    """Carries y and a slope, the step's last, which the next one takes for its first stage.

    That is f(t, y) itself where the last stage is the step (dopri5, dopri8, bosh3), and close to
    it in adaptive_heun and fehlberg2, as in torchdiffeq.
    """

    def start(self, f: RightHandSide, t: float, y: State) -> Carry:
        """The first slope is f(t, y)."""
        return y, f(t, y)

    def step(self, f: RightHandSide, t: float, h: float, carry: Carry) -> Carry:
        """Y + h sum_i b_i k_i, and the last slope."""
        (y, slope), tableau = carry, self.tableau
        slopes = [slope]
        for a, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            slopes.append(f(t + c * h, moved(y, h, a, slopes)))
        return moved(y, h, tableau.b, slopes), slopes[-1]
