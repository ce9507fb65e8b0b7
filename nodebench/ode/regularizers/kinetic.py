"""The regularizer `kinetic`: the integral of ‖f(t, y)‖², the energy of a sample's path.

It costs no additional evaluations of f.

Source: Finlay, Jacobsen, Nurbekyan, Oberman 2020 (ICML), equation 7. The authors' code takes half
the mean over dimensions; here it is the sum, as in the formula. An equivalent weight of theirs is
2 × dimensions times ours.
"""

from __future__ import annotations

from torch import Tensor

from nodebench.ode.regularizers.regularizer import Draws, Integrand, Regularizer
from nodebench.spec.training import Kinetic


class KineticEnergy(Regularizer):
    """∫ ‖dy/dt‖² dt."""

    def __init__(self, _settings: Kinetic, _draws: Draws):
        super().__init__()

    def integrand(self, _y0: Tensor) -> Integrand:
        """dy/dt."""
        return lambda _f, _t, _y, dy: dy
