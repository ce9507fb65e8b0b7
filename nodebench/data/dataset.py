"""What a data set is to the rest of the package."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Inputs [n, ...], as uint8 images, uint8 codes or float32, and class targets [n] (int64)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: Tensor | slice) -> Split:
        return Split(self.inputs[index], self.targets[index])

    def to(self, device: torch.device) -> Split:
        """The split on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Data:
    """The splits of a data set, and how a batch of it is prepared.

    uint8 inputs are scaled to [0, 1], then normalised by `mean` and `std` per channel; but where
    there are `symbols`, inputs [n, length] are codes from 0 to `symbols` - 1, and 0 is padding.
    `augment` holds for training batches alone. `class_names` may be unknown, hence empty.
    """

    train: Split
    test: Split
    validation: Split | None
    classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augment: tuple[str, ...] = ()
    symbols: int | None = None
    class_names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, e.g. (channels, height, width)."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device) -> Data:
        """The data on a device, where it stays."""
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            validation=self.validation.to(device) if self.validation else None,
        )


def balanced(targets: Tensor, size: int, seed: int) -> Tensor:
    """Indices, in order, of a seeded subset with as many of each class as can be."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(targets), generator=generator)
    classes = targets[shuffled]
    # The rank of each sample within its class; the first of every class come first.
    rank = torch.zeros(len(targets), dtype=torch.int64)
    for label in torch.unique(classes):
        members = classes == label
        rank[members] = torch.arange(int(members.sum()))
    chosen = shuffled[torch.argsort(rank, stable=True)[:size]]
    return chosen.sort().values
