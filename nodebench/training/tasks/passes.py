"""Counts the forward passes of a model that is being tested."""

from __future__ import annotations

import time

import torch
from torch import nn

from nodebench.ode.adaptive.counts import StepTotals
from nodebench.ode.block import steps_taken, take_evaluations
from nodebench.training.machine import synchronize
from nodebench.training.task import Evaluation


class ForwardPasses:
    """Counts seconds, evaluations and adaptive steps of a model's passes over held-out data."""

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self._device = model, device
        self._passes, self._evaluations = 0, 0
        self._steps = StepTotals()
        take_evaluations(model)
        synchronize(device)
        self._start = time.perf_counter()

    def count(self) -> None:
        """Counts one pass; its evaluations are taken from the model."""
        if counts := steps_taken(self._model):
            self._steps = self._steps.plus(counts)
        self._evaluations += sum(take_evaluations(self._model))
        self._passes += 1

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
