"""The task of learning a system from pairs of states."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.data.batches import batches_per_epoch
from nodebench.data.system import Flow
from nodebench.spec import TrialSpec
from nodebench.spec.seed import stream
from nodebench.training.task import Evaluation, Loss, Predictor, Task, finite
from nodebench.training.tasks.counted_model import CountedModel

States = tuple[Tensor, Tensor]
"""Initial states, and the states that a system takes them to."""


class FlowFit(Task[States]):
    """A system learned from pairs of states; the error is measured on held-out pairs."""

    def __init__(self, data: Flow, spec: TrialSpec):
        self.data, self.seed = data, spec.seed
        self.batch_size, self.drop_last = spec.train.batch_size, spec.train.drop_last
        count = len(data.train.starts)
        self.batches_per_epoch = batches_per_epoch(count, self.batch_size, self.drop_last)
        self.device = data.train.starts.device  # pyrefly: ignore[read-only]

    def batches(self, epoch: int) -> Iterator[States]:
        """(starts, ends), in an order drawn for each epoch."""
        generator = torch.Generator().manual_seed(stream(self.seed, "batches", epoch))
        order = torch.randperm(len(self.data.train.starts), generator=generator)
        for number in range(self.batches_per_epoch):
            index = order[number * self.batch_size :][: self.batch_size].to(self.device)
            yield self.data.train.starts[index], self.data.train.ends[index]

    def sample(self, size: int) -> States:
        """The first pairs of the first batch."""
        starts, ends = next(self.batches(0))
        return starts[:size], ends[:size]

    def loss(self, model: Predictor, batch: States) -> Loss:
        """The mean squared error of the ends."""
        starts, ends = batch
        return Loss(F.mse_loss(model(starts), ends), len(starts), {})

    def tests(self) -> tuple[str, ...]:
        """`test`, the held-out pairs."""
        return ("test",)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",  # noqa: ARG002 - there is no validation data
        size: int | None = None,
        batch_size: int | None = None,
    ) -> Evaluation:
        """`error`, the root mean square distance per coordinate, and `loss`, its square.

        All pairs are solved at once, unless a `batch_size` is given.
        """
        starts, ends = self.data.test.starts[:size], self.data.test.ends[:size]
        count, most = len(starts), batch_size or len(starts)
        total = torch.zeros((), device=self.device)
        counted = CountedModel(model, self.device)
        for first in range(0, count, most):
            part, expected = starts[first : first + most], ends[first : first + most]
            total += F.mse_loss(counted(part), expected) * (len(part) / count)
        loss = finite(total)
        return counted.evaluation({"loss": loss, "error": math.sqrt(loss)}, count)
