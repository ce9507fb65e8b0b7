"""The regularizer `steer`: each training solve ends at a random time around its nominal end.

It adds nothing to the loss. A fixed-step method takes the same number of steps to any end; with a
`step_size`, the number of steps depends on the end.

Source: Ghosh, Behl, Dupont, Torr, Namboodiri 2020 (NeurIPS), equation 5: uniform in
(t1 − b, t1 + b).
"""

from __future__ import annotations

import torch

from nodebench.ode.regularizers.regularizer import Draws, Regularizer
from nodebench.spec.training import Steer


class RandomEnd(Regularizer):
    """An end drawn uniformly from (t1 − b, t1 + b), where b is the half width."""

    def __init__(self, settings: Steer, draws: Draws):
        super().__init__()
        self._half_width, self._draws = settings.half_width, draws

    def end(self, t1: float) -> float:
        """The next solve's end."""
        share = torch.rand((), generator=self._draws.generator(), dtype=torch.float64).item()
        return t1 + self._half_width * (2 * share - 1)
