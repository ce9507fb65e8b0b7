"""The blocks of a feature stage: residual or ODE, over the same right-hand sides."""

from __future__ import annotations

from torch import nn

from nodebench.models.dynamics import Dynamics, ResidualBlock
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.motion import EQUATIONS_OF_MOTION, MovingBlock
from nodebench.ode.block import ODEBlock
from nodebench.ode.field import Field
from nodebench.spec import TrialSpec
from nodebench.spec.model import Moving
from nodebench.spec.network import SingleStage


def ode_block(spec: TrialSpec, f: nn.Module) -> ODEBlock:
    """An ODE block over f, solved and differentiated as the spec says."""
    assert spec.solver is not None
    assert spec.gradient is not None
    return ODEBlock(f, spec.solver, spec.gradient, spec.model.length)


def moving_block(spec: TrialSpec, f: Field, g: Field | None = None) -> nn.Module:
    """An ODE block that follows the model's equation of motion.

    Args:
        spec: the trial.
        f: the field, of `field_states` states side by side.
        g: x -> v(0), if the initial velocity is learned.
    """
    assert isinstance(spec.model, Moving)
    motion = EQUATIONS_OF_MOTION.get(spec.model.motion)
    return MovingBlock(ode_block(spec, motion(f)), g) if motion else ode_block(spec, f)


def feature_stage(spec: TrialSpec, channels: int, space: int, activation: str) -> nn.Sequential:
    """The blocks of a network with one feature stage: residual or ODE, depending on its model."""
    settings = spec.model
    assert isinstance(settings, SingleStage)
    norm = settings.norm.ode if settings.has_ode else settings.norm.residual
    layer = LayerFactory(norm, activation, space)

    def field(states: int = 1) -> Dynamics:
        return Dynamics(settings.dynamics, states * channels, layer, channels)

    def block() -> nn.Module:
        if not settings.has_ode:
            return ResidualBlock(field())
        if not isinstance(settings, Moving):
            return ode_block(spec, field())
        is_learned = settings.initial_velocity == "learned"
        return moving_block(spec, field(settings.field_states), field() if is_learned else None)

    return nn.Sequential(*(block() for _ in range(settings.blocks)))
