"""Group norm, in the form that is fastest."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import debug_unwrap

COMPILED = (torch.float32, torch.float64)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, compiled for images on the CPU whose channels lie side by side.

    Shapes: [batch, channels, ...], as the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The input with mean 0 and variance 1 in each group, then scaled and shifted."""
        if not _is_compiled(x):
            return super().forward(x)
        out: Tensor = _Compiled.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return out


def _is_compiled(x: Tensor) -> bool:
    """Whether compiled code takes an input: none that a transform of torch.func has wrapped."""
    return (
        x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype in COMPILED
        and debug_unwrap(x, recurse=False) is x
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
    )


class _Compiled(torch.autograd.Function):
    """(x, scale, shift, groups, eps) -> the output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float
    ) -> Tensor:
        from nodebench.models.layers.norm_kernels import normalize  # numba takes a second
        from nodebench.ode.compiled import in_threads

        out, statistics = torch.empty_like(x), x.new_empty((2, len(x), groups))
        parameters = scale.detach().numpy(), shift.detach().numpy()
        in_threads(normalize, len(x), _rows(out), _rows(x), *parameters, statistics.numpy(), eps)
        ctx.groups, ctx.eps = groups, eps
        ctx.save_for_backward(x, scale, shift, statistics)
        return out

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, statistics = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is going to be differentiated itself
            out = F.group_norm(x, ctx.groups, scale, shift, ctx.eps)
            inputs = (x, scale, shift)
            needed = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(out, needed, by_out, create_graph=True))
            return *(next(found) if t.requires_grad else None for t in inputs), None, None
        from nodebench.models.layers.norm_kernels import pull_normalize
        from nodebench.ode.compiled import in_threads

        by_x, by_parameters = torch.empty_like(x), x.new_empty((2, len(x), len(scale)))
        by_out = by_out.contiguous(memory_format=torch.channels_last)
        in_threads(
            pull_normalize, len(x), _rows(by_x), by_parameters.numpy(), _rows(by_out), _rows(x),
            scale.detach().numpy(), statistics.numpy(),
        )  # fmt: skip
        return by_x, *by_parameters.sum(1).unbind(), None, None


def _rows(images: Tensor) -> Any:
    """[batch, channels, height, width] -> [batch, positions, channels], of the same memory."""
    return images.detach().permute(0, 2, 3, 1).flatten(1, 2).numpy()
