"""The blocks of a feature stage: residual or ODE, over the same right-hand sides."""

from __future__ import annotations

from torch import nn

from nodebench.models.dynamics import Dynamics, ResidualBlock
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.block import ODEBlock
from nodebench.spec import TrialSpec
from nodebench.spec.network import SingleStage


def ode_block(spec: TrialSpec, f: nn.Module) -> ODEBlock:
    """An ODE block over f, solved and differentiated as the spec says."""
    assert spec.solver is not None
    assert spec.gradient is not None
    return ODEBlock(f, spec.solver, spec.gradient, spec.model.length)


def feature_stage(spec: TrialSpec, channels: int, space: int, activation: str) -> nn.Sequential:
    """The blocks of a network with one feature stage: residual or ODE, depending on its model."""
    settings = spec.model
    assert isinstance(settings, SingleStage)
    norm = settings.norm.ode if settings.has_ode else settings.norm.residual
    layer = LayerFactory(norm, activation, space)

    def block() -> nn.Module:
        f = Dynamics(settings.dynamics, channels, layer)
        return ode_block(spec, f) if settings.has_ode else ResidualBlock(f)

    return nn.Sequential(*(block() for _ in range(settings.blocks)))
