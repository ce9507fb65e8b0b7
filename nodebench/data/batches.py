"""Batches of data that already lie on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split
from nodebench.seeds import stream

Batch = tuple[Tensor, Tensor]
PADDING = 4  # pixels on each side before a random crop


def train_batches(
    data: Data, seed: int, epoch: int, batch_size: int, drop_last: bool
) -> Iterator[Batch]:
    """The batches of one epoch, shuffled and augmented.

    Order and augmentation follow from (seed, epoch), so that a resumed epoch is the same one.
    """
    count = len(data.train)
    device = data.train.targets.device
    order = torch.randperm(count, generator=_generator(seed, "order", epoch)).to(device)
    moves = _Moves(data.augment, count, seed, epoch, device)
    images = _padded(data.train.inputs) if "crop" in data.augment else data.train.inputs
    used = batches_per_epoch(count, batch_size, drop_last) * batch_size
    for start in range(0, min(used, count), batch_size):
        index = order[start : start + batch_size]
        inputs = moves.apply(images, index, slice(start, start + batch_size))
        yield prepared(data, inputs), data.train.targets[index]


def batches_per_epoch(count: int, batch_size: int, drop_last: bool) -> int:
    """The number of batches that `count` samples make; at least one, if it is incomplete."""
    return max(1, count // batch_size if drop_last else -(-count // batch_size))


def test_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """The batches of a split in order, unaugmented."""
    for start in range(0, len(split), batch_size):
        chosen = slice(start, start + batch_size)
        yield prepared(data, split.inputs[chosen]), split.targets[chosen]


def prepared(data: Data, inputs: Tensor) -> Tensor:
    """A network's input: float32, scaled and normalised; of text, the codes as int32."""
    if data.symbols is not None:
        return inputs.int()
    is_image = inputs.dtype == torch.uint8
    if not (is_image or data.mean):
        return inputs
    full = 255.0 if is_image else 1.0
    inputs = inputs.to(torch.float32, copy=True)  # which the rest changes in place
    if not data.mean:
        return inputs.div_(full)
    shape = (-1, *(1 for _ in range(inputs.ndim - 2)))
    mean, std = (
        torch.tensor(x, device=inputs.device).mul_(full).view(shape) for x in (data.mean, data.std)
    )
    return inputs.sub_(mean).div_(std)


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, *names))


def _padded(images: Tensor) -> Tensor:
    """All square windows of the padded images: [n, channels, shifts, shifts, height, width].

    A view of strides, not a copy: cropping is then plain indexing.
    """
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    return padded.unfold(2, height, 1).unfold(3, width, 1)


class _Moves:
    """The random crops and flips of one epoch, drawn at once."""

    def __init__(
        self, names: tuple[str, ...], count: int, seed: int, epoch: int, device: torch.device
    ):
        generator = _generator(seed, "augment", epoch)
        shifts = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        self.shifts = shifts.to(device) if "crop" in names else None
        self.flips = flips.to(device) if "flip" in names else None

    def apply(self, images: Tensor, index: Tensor, place: slice) -> Tensor:
        """The images of `index`, moved as drawn for the batch at `place` in the epoch."""
        if self.shifts is None:
            batch = images[index]
        else:
            down, right = self.shifts[:, place]
            batch = images[index, :, down, right]
        if self.flips is not None:
            batch = torch.where(self.flips[place].view(-1, 1, 1, 1), batch.flip(-1), batch)
        return batch
