"""A task: it provides the batches and the loss of training, and the measures of testing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nodebench.errors import Diverged
from nodebench.store.rows import Row

BatchType = TypeVar("BatchType")

Predictor = Callable[..., Tensor]
"""A model, or a model with other parameters in place of its own."""


@dataclass(frozen=True)
class Loss:
    """A batch's `mean` loss, to be minimised, and `sums` of other measures over its `samples`."""

    mean: Tensor
    samples: int
    sums: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """A model's loss and other measures on held-out data.

    `nfe` and `forward_s` are evaluations and seconds per forward pass, and `samples` is the mean
    number of samples in a pass; `tested` is the total number of samples. `steps` has the measures
    of `StepTotals` for the steps of adaptive solves. Of a classifier, `correct` says which samples
    are classified correctly, and `chance` is the share of their most common class.
    """

    measures: dict[str, float]
    nfe: float
    forward_s: float
    samples: float = 1.0
    tested: int = 1
    steps: dict[str, float] = field(default_factory=dict)
    correct: Tensor | None = None
    chance: float | None = None


class Task(ABC, Generic[BatchType]):
    """One trial's data as seen by training and testing.

    `device` is the device of the batches. `test_passes` is the number of forward passes that
    testing takes. `chance` is the headline metric of a model that has learned nothing, if known.
    """

    batches_per_epoch: int
    test_passes: int = 1
    device: torch.device  # torch's types make it a descriptor, which cannot be set
    chance: float | None = None

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[BatchType]:
        """The training batches of an epoch, counted from 0; determined by epoch and seed."""

    @abstractmethod
    def sample(self, size: int) -> BatchType:
        """The first training batch, or a part of it with at most `size` samples."""

    @abstractmethod
    def loss(self, model: Predictor, batch: BatchType) -> Loss:
        """The model's differentiable loss on a batch."""

    @abstractmethod
    def tests(self) -> tuple[str, ...]:
        """The names of the test data: `test`, and `val` if there is validation data."""

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",
        size: int | None = None,
        batch_size: int | None = None,
    ) -> Evaluation:
        """Tests a model in evaluation mode, on a subset of `size` samples if that is given.

        If there are several samples, batches have `batch_size` samples, by default the task's own.

        Raises:
            Diverged: if the loss is not finite.
        """

    def trajectories(self, _model: nn.Module, /) -> list[Row]:
        """Paths that a report draws; none by default."""
        return []


def finite(loss: Tensor) -> float:
    """A loss on held-out data as a number.

    Raises:
        Diverged: if it is not finite.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss on held-out data is {value}")
    return value
