"""The regularizer `jacobian`: the integral of ‖∂f/∂y‖² (Frobenius), estimated from one vector ε.

With noise ε of mean 0 and covariance I, the expectation of ‖J ε‖² is ‖J‖² (Hutchinson 1990). ε is
normal and drawn once per solve, so that an adaptive method sees the same function throughout. If f
mixes samples, as batch norm does, J is the Jacobian of the whole batch.

Source: Finlay, Jacobsen, Nurbekyan, Oberman 2020 (ICML), section 4. They use ‖εᵀ J‖², which has the
same mean and variance. Here it is J ε, the Taylor coefficient of order 1 along y + s ε, which every
gradient method can differentiate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebench.ode.regularizers.field_call import FieldCall
from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.regularizers.regularizer import Draws, Integrand, Regularizer
from nodebench.spec.training import Jacobian


class JacobianNorm(Regularizer):
    """∫ ‖J(t, y) ε‖² dt; each evaluation of f costs one more."""

    def __init__(self, _settings: Jacobian, draws: Draws):
        super().__init__()
        self._draws = draws

    def integrand(self, y0: Tensor) -> Integrand:
        """J ε, with ε drawn now."""
        noise = torch.randn(y0.shape, generator=self._draws.generator(), dtype=torch.float64)
        noise = noise.to(y0)

        def product(f: FieldCall, t: float | Tensor, y: Tensor, _dy: Tensor) -> Tensor:
            next_coefficient = f.series(t, 0.0)
            if next_coefficient is None:
                return directional(lambda y: f(t, y), (y,), (noise,))
            next_coefficient(y)
            return next_coefficient(noise)

        return product
