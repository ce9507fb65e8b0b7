"""Batches of data that already lie on the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from nodebench.data.augmentation import Augmentation, generator_of
from nodebench.data.dataset import Data, Split

Batch = tuple[Tensor, Tensor]


def train_batches(
    data: Data, seed: int, epoch: int, batch_size: int, drop_last: bool
) -> Iterator[Batch]:
    """The batches of one epoch, shuffled and augmented.

    Order and augmentation depend only on (seed, epoch), so that a resumed epoch is identical.
    """
    count = len(data.train)
    device = data.train.targets.device
    order = torch.randperm(count, generator=generator_of(seed, "order", epoch)).to(device)
    augmentation = Augmentation(data.augment, count, seed, epoch, device)
    used = batches_per_epoch(count, batch_size, drop_last) * batch_size
    for start in range(0, min(used, count), batch_size):
        index = order[start : start + batch_size]
        inputs = torch.index_select(data.train.inputs, 0, index)  # several times as fast as [index]
        inputs = augmentation.apply(inputs, slice(start, start + batch_size))
        yield network_input(data, inputs), torch.index_select(data.train.targets, 0, index)


def batches_per_epoch(count: int, batch_size: int, drop_last: bool) -> int:
    """The number of batches of `count` samples; at least one, even if it is incomplete."""
    return max(1, count // batch_size if drop_last else -(-count // batch_size))


def test_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """The batches of a split in order, unaugmented."""
    for start in range(0, len(split), batch_size):
        chosen = slice(start, start + batch_size)
        yield network_input(data, split.inputs[chosen]), split.targets[chosen]


def network_input(data: Data, inputs: Tensor) -> Tensor:
    """A network's input: scaled and normalised float32 values; for text, int32 codes."""
    if data.symbols is not None:
        return inputs.int()
    is_image = inputs.dtype == torch.uint8
    if not (is_image or data.mean):
        return inputs
    full = 255.0 if is_image else 1.0
    inputs = inputs.to(torch.float32, copy=True)  # a copy to change in place
    if not data.mean:
        return inputs.div_(full)
    mean, std = (_of_channels(x, full, inputs.ndim, inputs.device) for x in (data.mean, data.std))
    return inputs.sub_(mean).div_(std)


@lru_cache
def _of_channels(values: tuple[float, ...], full: float, ndim: int, device: torch.device) -> Tensor:
    """One value per channel, shaped to broadcast over batches with `ndim` dimensions."""
    return torch.tensor(values, device=device).mul_(full).view(-1, *(1,) * (ndim - 2))
