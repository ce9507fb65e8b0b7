"""The task of fitting one trajectory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.data.trajectory import Trajectory, windows
from nodebench.ode.block import one_pass
from nodebench.spec import TrialSpec
from nodebench.store.rows import Row
from nodebench.training.task import Evaluation, Loss, Predictor, Task, finite
from nodebench.training.tasks.counted_model import CountedModel


class TrajectoryFit(Task[Tensor]):
    """A trajectory learned from windows of its noisy observations, and tested on its whole span.

    Source: the spiral of `saparina/neural-ode`.
    """

    def __init__(self, data: Trajectory, spec: TrialSpec):
        self.data, self.seed, self.most = data, spec.seed, spec.train.batch_size
        self.batches_per_epoch = data.windows
        self.device = data.exact.device  # pyrefly: ignore[read-only]

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Windows, as indices of at most `batch_size` points."""
        return windows(self.data, self.seed, epoch, self.most)

    def sample(self, size: int) -> Tensor:  # noqa: ARG002 - a window is a few points already
        """The first window."""
        return next(self.batches(0))

    def loss(self, model: Predictor, batch: Tensor) -> Loss:
        """The mean squared error over a window, solved from its first observation."""
        observed = self.data.observed[batch.to(self.device)]
        states = model(observed[0], self.data.times[batch].tolist())
        return Loss(F.mse_loss(states, observed), len(batch), {})

    def tests(self) -> tuple[str, ...]:
        """`test`, the whole span."""
        return ("test",)

    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",  # noqa: ARG002 - there is one trajectory
        size: int | None = None,  # noqa: ARG002 - it is solved as a whole
        batch_size: int | None = None,  # noqa: ARG002 - in one batch
    ) -> Evaluation:
        """The extrapolation error over the whole span, against the states without noise.

        `error` is the root mean square distance per coordinate, `loss` its square.
        """
        counted = CountedModel(model, self.device)
        loss = finite(F.mse_loss(self._solved(counted), self.data.exact))
        return counted.evaluation({"loss": loss, "error": math.sqrt(loss)}, samples=1)

    def trajectories(self, model: nn.Module) -> list[Row]:
        """Time, observed, exact and learned state of every point."""
        with one_pass(model):
            states = (self.data.observed, self.data.exact, self._solved(model.eval()))
        observed, exact, learned = (x.tolist() for x in states)
        names = ("t", "observed", "exact", "learned")
        rows = zip(self.data.times.tolist(), observed, exact, learned, strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @torch.no_grad()
    def _solved(self, model: Predictor) -> Tensor:
        """The learned trajectory over the whole span, from the true start."""
        states: Tensor = model(self.data.exact[0], self.data.times.tolist())
        return states
