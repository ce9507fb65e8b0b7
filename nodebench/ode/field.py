"""A right-hand side f(t, y) as solvers call it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from nodebench.errors import FieldError


class Field(nn.Module):
    """A right-hand side whose time may be a number or a tensor.

    Those of nodebench are. Any other module is given a tensor without dimensions, of the state's
    type and device, whatever the solver.
    """


class Counted:
    """A module f(t, y) -> dy/dt, and what is called at each of its evaluations."""

    def __init__(self, module: nn.Module, on_evaluation: Callable[[], None]):
        self.module, self.on_evaluation = module, on_evaluation

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.on_evaluation()
        return slope(self.module, t, y)


def slope(module: nn.Module, t: float | Tensor, y: Tensor) -> Tensor:
    """dy/dt at a time and state.

    Raises:
        FieldError: if it has not the state's shape, in which arithmetic would broadcast it.
    """
    if not isinstance(t, Tensor) and not isinstance(module, Field):
        t = y.new_full((), t)  # filled on its device, which copying a number to it would stop
    dy = module(t, y)
    if not isinstance(dy, Tensor) or dy.shape != y.shape:
        found = list(dy.shape) if isinstance(dy, Tensor) else f"a {type(dy).__name__}"
        raise FieldError(
            f"f, a `{type(module).__name__}`, gives {found} for a state of shape {list(y.shape)}. "
            "dy/dt is a tensor of the state's shape"
        )
    return dy
