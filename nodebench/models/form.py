"""The form in which a network runs fastest on a device: the one place where that is decided.

By the table here, and not by timing at run time, since a trial would not always give the same
bits then. The function is the same in every form.
"""

from __future__ import annotations

import torch
from torch import nn

from nodebench.models.precision import in_bfloat16

# How images lie in memory. On a CPU, with a pixel's channels side by side, a convolution over 64
# channels of 6 x 6 takes 3.9 ms instead of 4.9, forward and backward (batch 128, two threads). On a
# GPU nothing has been measured yet.
MEMORY_FORMATS = {"cpu": torch.channels_last, "cuda": torch.contiguous_format}


def placed(model: nn.Module, device: torch.device, precision: str = "float32") -> nn.Module:
    """The network on a device, in its form there; parameters keep their names and shapes."""
    model = model.to(device).to(memory_format=MEMORY_FORMATS[device.type])
    return in_bfloat16(model, device) if precision == "bf16" else model
