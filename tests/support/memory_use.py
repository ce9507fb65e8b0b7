"""The most memory that tensors take at once, counted to the byte."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nodebench.training.machine import memory_of


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that lives at once of what `work` makes."""
    return memory_of(torch.device("cpu"), work)
