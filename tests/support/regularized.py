"""Solves with regularizers."""

from __future__ import annotations

from torch import Tensor

from nodebench.ode.block import ODEBlock
from nodebench.ode.regularizers.table import Penalty, Regularizers
from nodebench.spec.training import Regularize

ALL_TERMS = {"kinetic": 0.3, "jacobian": 0.2, "taylor": {"order": 3, "weight": 0.1}}


def penalty(
    block: ODEBlock, y0: Tensor, settings: object, iteration: int = 0, seed: int = 0
) -> tuple[Penalty, Tensor]:
    regularizers = Regularizers(Regularize.model_validate(settings), seed)
    with regularizers.of_step(block, iteration) as found:
        y = block(y0)
    return found, y


def loss_of(block: ODEBlock, y0: Tensor) -> Tensor:
    found, y = penalty(block, y0, ALL_TERMS)
    return found.added_to(y.square().sum())
