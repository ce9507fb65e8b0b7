"""What is learned: a task gives training its batches and its loss, and testing its measures."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.data.batches import (
    Batch,
    batches_per_epoch,
    network_input,
    test_batches,
    train_batches,
)
from nodebench.data.dataset import Data, Split, balanced
from nodebench.data.system import Flow
from nodebench.data.trajectory import Trajectory, windows
from nodebench.errors import Diverged
from nodebench.ode.block import ode_blocks, path, recorded, solved_by, take_evaluations
from nodebench.spec import TrialSpec
from nodebench.spec.point import limit_solver
from nodebench.spec.seed import stream
from nodebench.spec.solver import Solver
from nodebench.store.result import Row
from nodebench.training.machine import synchronize

PATHS = 6  # of each class

BatchType = TypeVar("BatchType")

States = tuple[Tensor, Tensor]
"""Where states start, and where they end."""

Predictor = Callable[..., Tensor]
"""A model, or one with other parameters in the place of its own."""


@dataclass(frozen=True)
class Loss:
    """A batch's `mean` loss, to be minimised, and `sums` of other measures over its `samples`."""

    mean: Tensor
    samples: int
    sums: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """A model's loss and other measures on held-out data.

    `nfe` and `forward_s` are evaluations and seconds per forward pass.
    """

    measures: dict[str, float]
    nfe: float
    forward_s: float


class Task(ABC, Generic[BatchType]):
    """One trial's data as training and testing see it.

    `batches_per_epoch` is their number, and `device` where they lie. `test_passes` is the number of
    forward passes that testing takes. `chance` is the headline
    metric of a model that has learned nothing, where that is known.
    """

    batches_per_epoch: int
    test_passes: int = 1
    device: torch.device
    chance: float | None = None

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[BatchType]:
        """The training batches of one epoch, counted from 0; they follow from it and the seed."""

    @abstractmethod
    def sample(self, size: int) -> BatchType:
        """The first training batch, or part of it, of at most `size` samples."""

    @abstractmethod
    def loss(self, model: Predictor, batch: BatchType) -> Loss:
        """The model's loss on a batch, with a gradient."""

    @abstractmethod
    def tests(self) -> tuple[str, ...]:
        """What a model can be tested on: `test`, and `val` if there is validation data."""

    @abstractmethod
    def evaluate(self, model: nn.Module, name: str = "test", size: int | None = None) -> Evaluation:
        """Tests a model in evaluation mode, on a subset of `size` samples if that is given.

        Raises:
            Diverged: if the loss is not finite.
        """

    def trajectories(self, _model: nn.Module) -> list[Row]:
        """Paths that a report draws; none by default."""
        return []


def task_for(data: Data | Trajectory | Flow, spec: TrialSpec) -> Task[Any]:
    """The task that a trial's data poses."""
    return next(task for kind, task in TASKS.items() if isinstance(data, kind))(data, spec)


class Classification(Task[Batch]):
    """Labelled samples, cross-entropy, accuracy."""

    def __init__(self, data: Data, spec: TrialSpec):
        self.data, self.seed, self.limit = data, spec.seed, limit_solver(spec)
        self.batch_size, self.drop_last = spec.train.batch_size, spec.train.drop_last
        self.batches_per_epoch = batches_per_epoch(len(data.train), self.batch_size, self.drop_last)
        held_out = [data.test, *([data.validation] if data.validation else [])]
        self.test_passes = sum(-(-len(split) // self.batch_size) for split in held_out)
        self.device = data.train.targets.device
        counts = torch.bincount(data.test.targets)
        self.chance = counts.max().item() / len(data.test)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """(inputs, class targets)."""
        return train_batches(self.data, self.seed, epoch, self.batch_size, self.drop_last)

    def sample(self, size: int) -> Batch:
        """The first samples of the first batch."""
        inputs, targets = next(self.batches(0))
        return inputs[:size], targets[:size]

    def loss(self, model: Predictor, batch: Batch) -> Loss:
        """Cross-entropy, and the number of samples that are right."""
        inputs, targets = batch
        logits = model(inputs)
        correct = (logits.detach().argmax(1) == targets).sum()
        return Loss(F.cross_entropy(logits, targets), len(targets), {"accuracy": correct})

    def tests(self) -> tuple[str, ...]:
        """`test`, and `val` where the data has validation samples."""
        return ("test", "val") if self.data.validation else ("test",)

    def evaluate(self, model: nn.Module, name: str = "test", size: int | None = None) -> Evaluation:
        """Loss and accuracy over samples; a subset is balanced between classes.

        The batch size is part of the result under an adaptive solver, whose steps suit a whole
        batch.
        """
        split = self.data.validation if name == "val" else self.data.test
        assert split is not None
        if size:
            split = split[balanced(split.targets.cpu(), size, 0).to(self.device)]
        return evaluate_classifier(model, self.data, split, self.batch_size)

    @torch.no_grad()
    def trajectories(self, model: nn.Module) -> list[Row]:
        """A row a path, of some test samples, if the model integrates a state of two dimensions.

        Under its own solver and at the limit: class, solver, times, states.
        """
        if len(list(ode_blocks(model))) != 1:
            return []
        split = self.data.test
        chosen = split[balanced(split.targets.cpu(), PATHS * self.data.classes, 0).to(self.device)]
        with recorded(model.eval()) as solves, solved_by(model, Solver(method="euler", steps=1)):
            model(network_input(self.data, chosen.inputs))
        take_evaluations(model)
        if len(solves) != 1 or solves[0].y0.dim() < 2 or solves[0].y0.flatten(1).shape[1] != 2:
            return []
        solve = solves[0]
        labels = chosen.targets.tolist()
        return [
            {"class": label, "under": under, "t": found.times, "states": states}
            for under, solver in (("own", solve.block.solver), ("limit", self.limit))
            if (found := path(solve.block, solve.y0, solver))
            for label, states in zip(labels, found.states, strict=True)
        ]


@torch.no_grad()
def evaluate_classifier(model: nn.Module, data: Data, split: Split, batch_size: int) -> Evaluation:
    """A classifier's mean loss, accuracy, and evaluations per batch on a split."""
    model.eval()
    device = split.targets.device
    loss, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    evaluations = batches = 0
    take_evaluations(model)
    synchronize(device)
    start = time.perf_counter()
    for inputs, targets in test_batches(data, split, batch_size):
        logits = model(inputs)
        loss += F.cross_entropy(logits, targets, reduction="sum")
        correct += (logits.argmax(1) == targets).sum()
        evaluations += sum(take_evaluations(model))
        batches += 1
    count = len(split)
    measures = {"loss": _finite(loss) / count, "accuracy": correct.item() / count}
    seconds = time.perf_counter() - start  # reading the loss has waited for the device
    return Evaluation(measures, evaluations / batches, seconds / batches)


class TrajectoryFit(Task[Tensor]):
    """A trajectory learned from windows of its noisy observations, and tested on its whole span.

    Source: the spiral of `saparina/neural-ode`.
    """

    def __init__(self, data: Trajectory, spec: TrialSpec):
        self.data, self.seed, self.most = data, spec.seed, spec.train.batch_size
        self.batches_per_epoch = data.windows
        self.device = data.exact.device

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
        """The whole span."""
        return ("test",)

    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",  # noqa: ARG002 - there is one trajectory
        size: int | None = None,  # noqa: ARG002 - which is taken whole
    ) -> Evaluation:
        """The extrapolation error over the whole span, against the states without noise.

        `error` is the root mean square distance per coordinate, `loss` its square.
        """
        take_evaluations(model)
        start = time.perf_counter()
        loss = _finite(F.mse_loss(self._solved(model), self.data.exact))
        seconds = time.perf_counter() - start
        measures = {"loss": loss, "error": math.sqrt(loss)}
        return Evaluation(measures, float(sum(take_evaluations(model))), seconds)

    def trajectories(self, model: nn.Module) -> list[Row]:
        """Time, observed, exact and learned state of every point."""
        states = (self.data.observed, self.data.exact, self._solved(model))
        observed, exact, learned = (x.tolist() for x in states)
        names = ("t", "observed", "exact", "learned")
        rows = zip(self.data.times.tolist(), observed, exact, learned, strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @torch.no_grad()
    def _solved(self, model: nn.Module) -> Tensor:
        """The learned trajectory over the whole span, from the true start."""
        model.eval()
        states: Tensor = model(self.data.exact[0], self.data.times.tolist())
        return states


class FlowFit(Task[States]):
    """A system learned from where it takes states; the error is that over held-out states."""

    def __init__(self, data: Flow, spec: TrialSpec):
        self.data, self.seed = data, spec.seed
        self.batch_size, self.drop_last = spec.train.batch_size, spec.train.drop_last
        count = len(data.train.starts)
        self.batches_per_epoch = batches_per_epoch(count, self.batch_size, self.drop_last)
        self.device = data.train.starts.device

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
        """The held-out pairs."""
        return ("test",)

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",  # noqa: ARG002 - there is no validation data
        size: int | None = None,
    ) -> Evaluation:
        """`error`, the root mean square distance per coordinate, and `loss`, its square."""
        model.eval()
        pairs = self.data.test
        take_evaluations(model)
        start = time.perf_counter()
        loss = _finite(F.mse_loss(model(pairs.starts[:size]), pairs.ends[:size]))
        seconds = time.perf_counter() - start
        measures = {"loss": loss, "error": math.sqrt(loss)}
        return Evaluation(measures, float(sum(take_evaluations(model))), seconds)


def _finite(loss: Tensor) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss on held-out data is {value}")
    return value


TASKS: dict[type, Callable[..., Task[Any]]] = {
    Data: Classification,
    Trajectory: TrajectoryFit,
    Flow: FlowFit,
}
"""What a loader gives -> the task that it poses."""
