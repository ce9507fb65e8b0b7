"""The gradient methods for solves, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nodebench.ode.field import Counted
from nodebench.ode.gradients.aca import aca
from nodebench.ode.gradients.adjoint import adjoint
from nodebench.ode.gradients.backprop import backprop
from nodebench.ode.gradients.exact import exact
from nodebench.ode.gradients.interpolated import interpolated
from nodebench.ode.gradients.recompute import recompute
from nodebench.ode.gradients.reversible import reversible
from nodebench.ode.gradients.symplectic import symplectic
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

GradientMethod: TypeAlias = Callable[
    [Counted, Tensor, Sequence[float], Solver, Gradient], list[Tensor]
]
"""(f, y0, times, solver, the gradient's settings) -> the states at times, with a gradient.

The states are not stacked, which would copy them into another memory layout. f's module owns the
parameters, and the buffers that a backward pass must not update. `f.memory` holds what a method
keeps from one solve of a block to the next.
"""

GRADIENT_METHODS: dict[str, GradientMethod] = {
    "backprop": backprop,
    "recompute": recompute,
    "adjoint": adjoint,
    "aca": aca,
    "symplectic": symplectic,
    "interpolated": interpolated,
    "reversible": reversible,
    "exact": exact,
}


def odeint(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, gradient: Gradient
) -> list[Tensor]:
    """The states at `times`, each of the shape of y0, with a gradient if autograd is on."""
    method = GRADIENT_METHODS[gradient.name] if torch.is_grad_enabled() else backprop
    return method(f, y0, times, solver, gradient)
