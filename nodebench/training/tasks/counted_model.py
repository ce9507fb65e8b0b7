"""A model whose forward passes are counted while it is tested."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from nodebench.ode.adaptive.counts import StepTotals
from nodebench.ode.block import one_pass
from nodebench.training.machine import synchronize
from nodebench.training.task import Evaluation


class CountedModel:
    """A model in evaluation mode, whose calls count as passes over held-out data.

    It sums up the seconds, the evaluations and the adaptive steps of these passes.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self._device = model.eval(), device
        self._passes, self._evaluations = 0, 0
        self._steps = StepTotals()
        synchronize(device)
        self._start = time.perf_counter()

    def __call__(self, *inputs: Any) -> Any:
        """The model's outputs."""
        with one_pass(self._model) as counts:
            outputs = self._model(*inputs)
        self._passes += 1
        self._evaluations += counts.nfe
        if steps := counts.steps:
            self._steps = self._steps.plus(steps)
        return outputs

    def evaluation(self, measures: dict[str, float], samples: int) -> Evaluation:
        """The evaluation with these measures over `samples` in total; waits for the device."""
        synchronize(self._device)
        seconds = time.perf_counter() - self._start
        return Evaluation(
            measures,
            nfe=self._evaluations / self._passes,
            forward_s=seconds / self._passes,
            samples=samples / self._passes,
            tested=samples,
            steps=self._steps.measures(),
        )
