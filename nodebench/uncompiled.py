"""torch's optimizers without its compiler.

They import it at their first call, only to be left out of what it compiles, which is nothing
here: seconds of each process, as many as all the rest of torch takes.
"""

from __future__ import annotations

import inspect

import torch

for _method in vars(torch.optim.Optimizer).values():
    _inner = getattr(_method, "__wrapped__", None)
    if _inner is not None:
        _inner.__dynamo_disable = _inner  # where torch keeps what it would import


def step(optimizer: torch.optim.Optimizer) -> None:
    """`optimizer.step()`, hooks aside."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
