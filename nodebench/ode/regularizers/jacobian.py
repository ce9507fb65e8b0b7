"""The regularizer `jacobian`: the integral of ‖∂f/∂y‖² in the Frobenius norm, by one sample.

With noise ε of mean 0 and covariance I, the expectation of ‖J ε‖² is ‖J‖² (Hutchinson 1990). ε is
normal, and one for each solve, which an adaptive method therefore sees as the same function
throughout. If samples depend on each other in f, as by batch norm, J is that of the whole batch.

Source: Finlay, Jacobsen, Nurbekyan, Oberman 2020 (ICML), section 4. They take ‖εᵀ J‖², whose mean
and variance are the same; J ε, the Taylor coefficient of order 1 along y + s ε, is what every
gradient method can differentiate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nodebench.ode.regularizers.forward_mode import directional
from nodebench.ode.regularizers.regularizer import Draws, FieldCall, Integrand, Regularizer
from nodebench.spec.training import Jacobian


class JacobianNorm(Regularizer):
    """∫ ‖J(t, y) ε‖² dt; each evaluation of f takes one more."""

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
