"""ODEs whose solution is the output: `neuralode`, and `system`, whose coefficients are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nodebench.data.system import Flow, moved_by_matrix
from nodebench.data.trajectory import Trajectory
from nodebench.models.block import ode_block
from nodebench.models.dynamics import Autonomous
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.field import Field
from nodebench.spec import TrialSpec
from nodebench.spec.model import KnownSystem, NeuralOde


class NeuralOdeNet(nn.Module):
    """An f of two linear layers, and its solution from an initial state at given times.

    Shapes: y0 [dim], times -> [len(times), dim].
    """

    def __init__(self, spec: TrialSpec, data: Trajectory):
        super().__init__()
        settings = spec.model
        assert isinstance(settings, NeuralOde)
        (dim,) = data.input_shape
        f = nn.Sequential(
            nn.Linear(dim, settings.width, bias=False),
            LayerFactory(activation=settings.activation).act(),
            nn.Linear(settings.width, dim),
        )
        self.block = ode_block(spec, Autonomous(f))

    def forward(self, y0: Tensor, times: Sequence[float]) -> Tensor:
        """The states at `times`, of which y0 is the first."""
        return self.block.trajectory(y0, times)


class LinearSystem(Field):
    """f(t, y) = A y. Shapes: y [batch, dim] -> [batch, dim]."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        out: Tensor = y @ self.matrix.T
        return out


class VanDerPol(Field):
    """x' = v, v' = a (1 - x²) v - b x with coefficients (a, b). Shapes: [batch, 2] -> the same."""

    def __init__(self, coefficients: Tensor):
        super().__init__()
        self.coefficients = nn.Parameter(coefficients)

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        x, v = y.unbind(-1)
        damping, stiffness = self.coefficients
        return torch.stack((v, damping * (1 - x * x) * v - stiffness * x), -1)


FIELDS: dict[str, type[LinearSystem] | type[VanDerPol]] = {
    "decay": LinearSystem,
    "rotation": LinearSystem,
    "van-der-pol": VanDerPol,
}
"""System -> its right-hand side."""


class SystemNet(nn.Module):
    """The system's state after the data's span, from a start. Shapes: [batch, dim] -> the same."""

    def __init__(self, spec: TrialSpec, data: Flow):
        super().__init__()
        settings = spec.model
        assert isinstance(settings, KnownSystem)
        coefficients = (1 + settings.off) * data.coefficients
        self.block = ode_block(spec, FIELDS[data.system](coefficients.float()))
        self.span = data.span

    def forward(self, y0: Tensor) -> Tensor:
        """The state at the end, by the block's solver."""
        return self.block.states(y0, (0.0, self.span))[-1]

    @property
    def is_solved(self) -> bool:
        """Whether its solution has a closed form."""
        return isinstance(self.block.f, LinearSystem)

    def solution(self, y0: Tensor) -> Tensor:
        """The state at the end in closed form, if the system has one."""
        f = self.block.f
        assert isinstance(f, LinearSystem)
        return moved_by_matrix(f.matrix, y0, self.span)
