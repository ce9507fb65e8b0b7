"""Random crops and flips of training images."""

from __future__ import annotations

import torch
from torch import Tensor

from nodebench.spec.seed import stream

CROP_PADDING = 4
"""Pixels added to each side of an image before a random crop."""


def generator_of(seed: int, *names: str | int) -> torch.Generator:
    """The generator of one of a seed's streams."""
    return torch.Generator().manual_seed(stream(seed, *names))


class Augmentation:
    """The random crops and flips of one epoch, drawn at once."""

    def __init__(
        self, names: tuple[str, ...], count: int, seed: int, epoch: int, device: torch.device
    ):
        generator = generator_of(seed, "augment", epoch)
        shifts = torch.randint(0, 2 * CROP_PADDING + 1, (2, count), generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        self.shifts = shifts.to(device) if "crop" in names else None
        self.flips = flips.to(device) if "flip" in names else None

    def apply(self, batch: Tensor, place: slice) -> Tensor:
        """The batch at `place` in the epoch, cropped and flipped as drawn for it."""
        if self.shifts is not None:
            batch = _cropped(batch, *self.shifts[:, place])
        if self.flips is not None:
            both = torch.cat((batch, batch.flip(-1)))
            flips = self.flips[place]
            chosen = torch.arange(len(flips), device=flips.device) + len(flips) * flips
            batch = torch.index_select(both, 0, chosen)
        return batch


def _cropped(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """A window of each padded image, at its own offset and of the original size.

    In memory, a window of one channel is a stretch of the same length at every offset. Whole
    stretches are copied, and strides then skip the pixels between the window's rows.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (CROP_PADDING,) * 4)
    across, whole = padded.stride(2), padded.stride(1)
    length = (height - 1) * across + width
    stretches = padded.as_strided((padded.numel() - length + 1, length), (1, 1))
    first = torch.arange(count * channels, device=images.device).view(count, channels) * whole
    starts = first + (down * across + right)[:, None]
    rows = torch.index_select(stretches, 0, starts.flatten())
    strides = (channels * length, length, across, 1)
    return rows.as_strided((count, channels, height, width), strides).contiguous()
