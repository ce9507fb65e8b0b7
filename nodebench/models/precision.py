"""Networks that compute in bfloat16, but for the states of their ODE blocks.

A state is a sum of many small steps, of which bfloat16 would lose all but the first two or three
digits: it stays float32, and so do parameters, their gradients and losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nodebench.ode.block import ode_blocks


def in_bfloat16(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, its convolutions and linear layers under `torch.autocast` from now on.

    Right-hand sides are too, wherever they are called from, as in the adjoint's backward pass.
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
        self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor | None) -> Any:
        self._open.pop().__exit__(None, None, None)
        if output is not None and output.dtype == torch.bfloat16:  # None: the call has failed
            return output.float()
        return output


def _with_float32_state(_block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (y0,) = inputs
    return (y0.float() if y0.dtype == torch.bfloat16 else y0,)
