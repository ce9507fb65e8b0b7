"""A data set in the form that the rest of the package uses."""

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

    uint8 inputs are scaled to [0, 1], then normalised by `mean` and `std` per channel. If `symbols`
    is set, inputs [n, length] are instead codes from 0 to `symbols` - 1, and 0 is padding.
    `augment` applies to training batches only. `class_names` is empty if they are unknown.
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
    """Sorted indices of a random subset with classes as balanced as possible."""
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
