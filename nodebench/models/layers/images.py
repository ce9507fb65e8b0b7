"""Images as compiled code takes them: in memory, the channels of a position lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap

COMPILED = (torch.float32, torch.float64)


def are_compiled(images: Tensor) -> bool:
    """Whether compiled code takes them, [batch, channels, height, width]."""
    return (
        images.dim() == 4
        and is_plain(images)
        and images.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether it lies in the CPU's memory, and no transform of torch.func has wrapped it."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in COMPILED
        and debug_unwrap(tensor, recurse=False) is tensor
    )


def to_array(images: Tensor) -> Any:
    """[batch, channels, height, width] -> an array [batch, height, width, channels]."""
    images = images.detach().contiguous(memory_format=torch.channels_last)
    return images.permute(0, 2, 3, 1).numpy()


def to_images(array: Any) -> Tensor:
    """[batch, height, width, channels] -> a tensor [batch, channels, height, width]."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def empty(shape: Sequence[int], like: Any) -> Any:
    """An array of the data type of another, in memory that torch counts among a step's."""
    return torch.empty(*shape, dtype=torch.from_numpy(like).dtype).numpy()
