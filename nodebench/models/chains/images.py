"""Images in the form that compiled code takes: channels last in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

COMPILED = (torch.float32, torch.float64)

_TYPES = {np.dtype(str(dtype).removeprefix("torch.")): dtype for dtype in COMPILED}


def are_compiled(images: Tensor) -> bool:
    """Whether compiled code takes these images [batch, channels, height, width]."""
    return (
        images.dim() == 4
        and len(images) > 0
        and is_plain(images)
        and images.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is float32 or float64 on the CPU, outside of torch.func and forward mode."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in COMPILED
        and peek_interpreter_stack() is None  # of torch.func
        and forward_ad._current_level < 0
    )


def have_plain_weights(module: nn.Module, x: Tensor) -> bool:
    """Whether compiled code takes all parameters of a module together with an input."""
    return all(is_plain(each) and each.dtype == x.dtype for each in module.parameters())


def to_array(images: Tensor) -> Any:
    """[batch, channels, height, width] -> an array [batch, height, width, channels]."""
    images = images.detach().contiguous(memory_format=torch.channels_last)
    return images.permute(0, 2, 3, 1).numpy()


def to_images(array: Any) -> Tensor:
    """[batch, height, width, channels] -> a tensor [batch, channels, height, width]."""
    return torch.from_numpy(array.transpose(0, 3, 1, 2))  # not a view, so it may change in place


def array_for(shape: Sequence[int], like: Any, spare: Any = None) -> Any:
    """An uninitialised array with the data type of another, in memory that torch counts.

    `spare`, which has that type, is returned instead if its shape fits.
    """
    if spare is not None and spare.shape == tuple(shape):
        return spare
    return torch.empty(tuple(shape), dtype=_TYPES[like.dtype]).numpy()
