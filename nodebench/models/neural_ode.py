"""An ODE whose solution is the output: `neuralode`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nodebench.data.trajectory import Trajectory
from nodebench.models.block import ode_block
from nodebench.models.dynamics import Autonomous
from nodebench.models.layers import LayerFactory
from nodebench.spec import TrialSpec
from nodebench.spec.model import NeuralOde


class NeuralOdeNet(nn.Module):
    """f of two linear layers, and its solution from a first state through given times.

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
