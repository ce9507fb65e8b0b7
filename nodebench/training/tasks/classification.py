"""The task of classifying labelled samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
from nodebench.errors import InputError
from nodebench.spec import TrialSpec
from nodebench.spec.point import limit_solver
from nodebench.store.rows import Row
from nodebench.training.task import Evaluation, Loss, Predictor, Task, finite
from nodebench.training.tasks.counted_model import CountedModel
from nodebench.training.tasks.paths import planar_solve, sample_paths

PATHS = 6  # per class


class Classification(Task[Batch]):
    """Classification of labelled samples by cross-entropy; the headline is accuracy."""

    def __init__(self, data: Data, spec: TrialSpec):
        self.data, self.seed, self.limit = data, spec.seed, limit_solver(spec)
        self.batch_size, self.drop_last = spec.train.batch_size, spec.train.drop_last
        self.batches_per_epoch = batches_per_epoch(len(data.train), self.batch_size, self.drop_last)
        held_out = [data.test, *([data.validation] if data.validation else [])]
        self.test_passes = sum(-(-len(split) // self.batch_size) for split in held_out)
        self.device = data.train.targets.device  # pyrefly: ignore[read-only]
        self.chance = _most_common(data.test)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """(inputs, class targets)."""
        return train_batches(self.data, self.seed, epoch, self.batch_size, self.drop_last)

    def sample(self, size: int) -> Batch:
        """The first samples of the first batch."""
        inputs, targets = next(self.batches(0))
        return inputs[:size], targets[:size]

    def loss(self, model: Predictor, batch: Batch) -> Loss:
        """Cross-entropy, and the number of correctly classified samples."""
        inputs, targets = batch
        logits = _logits(model(inputs), len(targets), self.data.classes)
        correct = (logits.detach().argmax(1) == targets).sum()
        return Loss(F.cross_entropy(logits, targets), len(targets), {"accuracy": correct})

    def tests(self) -> tuple[str, ...]:
        """`test`, and `val` if the data has validation samples."""
        return ("test", "val") if self.data.validation else ("test",)

    def evaluate(
        self,
        model: nn.Module,
        name: str = "test",
        size: int | None = None,
        batch_size: int | None = None,
    ) -> Evaluation:
        """Loss and accuracy over samples; a subset is balanced between classes.

        The batch size, by default the training's, affects the result under an adaptive solver,
        which chooses its steps for a whole batch.
        """
        split = self.data.validation if name == "val" else self.data.test
        assert split is not None
        if size:
            split = split[balanced(split.targets.cpu(), size, 0).to(self.device)]
        return evaluate_classifier(model, self.data, split, batch_size or self.batch_size)

    @torch.no_grad()
    def trajectories(self, model: nn.Module) -> list[Row]:
        """One row per path of some test samples, if the model integrates a two-dimensional state.

        Paths are solved by the model's own solver and at the limit: class, solver, times, states.
        """
        split = self.data.test
        chosen = split[balanced(split.targets.cpu(), PATHS * self.data.classes, 0).to(self.device)]
        solve = planar_solve(model, network_input(self.data, chosen.inputs))
        if solve is None:
            return []
        labels = chosen.targets.tolist()
        return [
            {"class": label, "under": under, "t": found.times, "states": states}
            for under, solver in (("own", solve.block.solver), ("limit", self.limit))
            if (found := sample_paths(solve.block, solve.y0, solver))
            for label, states in zip(labels, found.states, strict=True)
        ]


def _logits(output: object, samples: int, classes: int) -> Tensor:
    """A network's output, if it has a value for each sample and class.

    Raises:
        InputError: if it has not, because the user's own network returns something else.
    """
    if isinstance(output, Tensor) and output.shape == (samples, classes):
        return output
    found = f"{list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise InputError(
        f"the network's output for {samples} samples of {classes} classes is `{found}`: let it "
        f"return a tensor [{samples}, {classes}]"
    )


@torch.no_grad()
def evaluate_classifier(model: nn.Module, data: Data, split: Split, batch_size: int) -> Evaluation:
    """A classifier's mean loss, accuracy, and evaluations per batch on a split."""
    device = split.targets.device
    loss = torch.zeros((), device=device)
    are_correct: list[Tensor] = []
    counted = CountedModel(model, device)
    for inputs, targets in test_batches(data, split, batch_size):
        logits = _logits(counted(inputs), len(targets), data.classes)
        loss += F.cross_entropy(logits, targets, reduction="sum")
        are_correct.append(logits.argmax(1) == targets)
    count, correct = len(split), torch.cat(are_correct)
    measures = {"loss": finite(loss) / count, "accuracy": correct.sum().item() / count}
    found = counted.evaluation(measures, count)
    return replace(found, correct=correct.cpu(), chance=_most_common(split))


def _most_common(split: Split) -> float:
    """The share of the most common class."""
    return torch.bincount(split.targets).max().item() / len(split)
