"""Fields of dense layers, and the conditions for a compiled solve of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nodebench.ode.dense.parts import COMPILED_ACTIVATIONS
from nodebench.ode.field import Counted, Field, WholeSolve, runs_as
from nodebench.ode.fixed import steps
from nodebench.ode.tableau import Tableau
from nodebench.ode.taylor.rules import series_of_sequence
from nodebench.ode.taylor.series import Series
from nodebench.spec.solver import Solver


class DenseField(Field):
    """f(t, y) = g(y), where g is linear layers with the same activation between them.

    Shapes: y [batch, dim] -> [batch, dim].
    """

    def __init__(self, g: nn.Sequential):
        super().__init__()
        self.g = g

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        out: Tensor = self.g(y)
        return out

    def series(self, _t: float | Tensor, _rate: float, /) -> Series | None:
        """The series, by the rules of all layers."""
        return series_of_sequence(self.g) if runs_as(self, DenseField) else None

    def whole_solve(self, y0: Tensor, /) -> WholeSolve | None:
        """A compiled solve, or None if the field is not compiled for this state."""
        return _WholeDenseSolve(self) if is_compiled(self, y0) else None


def is_dense(g: nn.Sequential) -> bool:
    """Whether a sequence of layers can be a `DenseField`."""
    layers, activations = g[::2], g[1::2]
    return all(isinstance(part, nn.Linear) and part.bias is not None for part in layers) and (
        len(layers) == len(activations) + 1
        and len({type(part) for part in activations}) == 1
        and type(g[1]) in COMPILED_ACTIVATIONS
        and all(_has_compiled_settings(part) for part in activations)
    )


def _has_compiled_settings(activation: nn.Module) -> bool:
    """Whether an activation has torch's default settings, which are compiled in."""
    plain = type(activation)()
    names = ("negative_slope", "alpha", "beta", "threshold")
    return all(getattr(activation, n, None) == getattr(plain, n, None) for n in names)


def is_compiled(field: nn.Module, y: Tensor) -> bool:
    """Whether a solve from this state is compiled: on the CPU, in float32 or float64."""
    return (
        isinstance(field, DenseField)
        and y.dim() == 2
        and y.device.type == "cpu"
        and y.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


class _WholeDenseSolve:
    def __init__(self, field: DenseField):
        self._field = field

    def on_grids(
        self, f: Counted, y0: Tensor, grids: Iterable[Iterable[float]], tableau: Tableau
    ) -> list[Tensor]:
        from nodebench.ode.dense.solve import FixedSteps, dense_solve  # numba takes a second

        sizes: list[float] = []
        outputs: list[int] = []
        for number, grid in enumerate(grids):
            sizes += [h for _, h in steps(grid)]
            outputs += [-1] * (len(sizes) - len(outputs) - 1) + [number]
        f.on_evaluations(len(sizes) * len(tableau.b))
        return dense_solve(self._field.g, y0, FixedSteps(tableau, sizes, outputs))

    def controlled(
        self, f: Counted, y0: Tensor, times: Sequence[float], solver: Solver
    ) -> list[Tensor]:
        from nodebench.ode.dense.adaptive import ControlledSteps
        from nodebench.ode.dense.solve import dense_solve

        return dense_solve(self._field.g, y0, ControlledSteps(f, y0, times, solver))
