"""What is learned: a task gives training its batches and its loss, and testing its measures."""

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

    `nfe` and `forward_s` are evaluations and seconds per forward pass, of `samples` in the mean;
    `tested` is the number of all samples. `steps` is what `counts.measures` says of those of
    adaptive solves.
    """

    measures: dict[str, float]
    nfe: float
    forward_s: float
    samples: float = 1.0
    tested: int = 1
    steps: dict[str, float] = field(default_factory=dict)


class Task(ABC, Generic[BatchType]):
    """One trial's data as training and testing see it.

    `batches_per_epoch` is their number, and `device` where they lie. `test_passes` is the number of
    forward passes that testing takes. `chance` is the headline metric of a model that has learned
    nothing, where that is known.
    """

    batches_per_epoch: int
    test_passes: int = 1
    device: torch.device  # torch's types make it a descriptor, which cannot be set
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
    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",
        size: int | None = None,
        batch_size: int | None = None,
    ) -> Evaluation:
        """Tests a model in evaluation mode, on a subset of `size` samples if that is given.

        In batches of `batch_size`, where there are several samples; by default the task's own.

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
