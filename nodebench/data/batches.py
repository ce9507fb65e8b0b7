"""Batches of data that already lie on the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from nodebench.data.dataset import Data, Split
from nodebench.spec.seed import stream

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
    used = batches_per_epoch(count, batch_size, drop_last) * batch_size
    for start in range(0, min(used, count), batch_size):
        index = order[start : start + batch_size]
        inputs = torch.index_select(data.train.inputs, 0, index)  # several times as fast as [index]
        inputs = moves.apply(inputs, slice(start, start + batch_size))
        yield network_input(data, inputs), torch.index_select(data.train.targets, 0, index)


def batches_per_epoch(count: int, batch_size: int, drop_last: bool) -> int:
    """The number of batches that `count` samples make; at least one, if it is incomplete."""
    return max(1, count // batch_size if drop_last else -(-count // batch_size))


def test_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """The batches of a split in order, unaugmented."""
    for start in range(0, len(split), batch_size):
        chosen = slice(start, start + batch_size)
        yield network_input(data, split.inputs[chosen]), split.targets[chosen]


def network_input(data: Data, inputs: Tensor) -> Tensor:
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
    mean, std = (_of_channels(x, full, inputs.ndim, inputs.device) for x in (data.mean, data.std))
    return inputs.sub_(mean).div_(std)


@lru_cache
def _of_channels(values: tuple[float, ...], full: float, ndim: int, device: torch.device) -> Tensor:
    """A value for each channel, shaped for batches of this number of dimensions."""
    return torch.tensor(values, device=device).mul_(full).view(-1, *(1,) * (ndim - 2))


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, *names))


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

    def apply(self, batch: Tensor, place: slice) -> Tensor:
        """The images of the batch at `place` in the epoch, moved as drawn for it."""
        if self.shifts is not None:
            batch = _cropped(batch, *self.shifts[:, place])
        if self.flips is not None:
            both = torch.cat((batch, batch.flip(-1)))
            flips = self.flips[place]
            chosen = torch.arange(len(flips), device=flips.device) + len(flips) * flips
            batch = torch.index_select(both, 0, chosen)
        return batch


def _cropped(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """A window of each image's own in the padded images, of the images' size.

    In memory, a window of one channel is a stretch that is as long for every place: these are
    copied whole, and the pixels between the window's rows are then left out by strides.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    across, whole = padded.stride(2), padded.stride(1)
    length = (height - 1) * across + width
    stretches = padded.as_strided((padded.numel() - length + 1, length), (1, 1))
    first = torch.arange(count * channels, device=images.device).view(count, channels) * whole
    starts = first + (down * across + right)[:, None]
    rows = torch.index_select(stretches, 0, starts.flatten())
    strides = (channels * length, length, across, 1)
    return rows.as_strided((count, channels, height, width), strides).contiguous()
