"""A network on its device: the form in which it runs fastest, and its precision.

The form is chosen from a table, not by timing at run time, because a trial would then not always
give the same bits. The function is the same in every form.

In bfloat16, the states of ODE blocks stay float32: a state is a sum of many small steps, and
bfloat16 would keep only its first two or three digits. Parameters, their gradients and losses stay
float32 too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebench.ode.block import ode_blocks

# The memory layout of images. On a CPU, a convolution over 64 channels of 6 x 6 takes 3.9 ms with
# channels last, otherwise 4.9 ms, forward and backward (batch 128, two threads). It has not been
# measured on a GPU yet.
MEMORY_FORMATS = {"cpu": torch.channels_last, "cuda": torch.contiguous_format}


def to_device(model: nn.Module, device: torch.device, precision: str = "float32") -> nn.Module:
    """The network on a device, in its fastest form; parameters keep their names and shapes."""
    model = model.to(device).to(memory_format=MEMORY_FORMATS[device.type])
    return in_bfloat16(model, device) if precision == "bf16" else model


def in_bfloat16(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, with convolutions and linear layers under `torch.autocast` from now on.

    This includes right-hand sides, wherever they are called: in the adjoint's backward pass too.
    """
    for part in (model, *(block.f for block in ode_blocks(model))):
        calls = _Calls(device)
        part.register_forward_pre_hook(calls.begin)
        part.register_forward_hook(calls.end, always_call=True)
    for block in ode_blocks(model):
        block.register_forward_pre_hook(_with_float32_state)
    return model


class _Calls:
    """Enters autocast at a module's call, and leaves it afterwards; calls may be nested."""

    def __init__(self, device: torch.device):
        self._device = device
        self._open: list[torch.autocast] = []

    def begin(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        self._open.append(torch.autocast(self._device.type, torch.bfloat16))
        self._open[-1].__enter__()

    def end(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor | None) -> Any:
        self._open.pop().__exit__(None, None, None)
        if output is not None and output.dtype == torch.bfloat16:  # None: the call has failed
            return output.float()
        return output


def _with_float32_state(_block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (y0,) = inputs
    return (y0.float() if y0.dtype == torch.bfloat16 else y0,)
