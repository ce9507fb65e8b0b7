"""What a trial takes of its machine."""

from __future__ import annotations

import torch

from nodebench.training.machine import (
    freed_memory_returned,
    keep_freed_memory,
    memory_in_use,
    release_memory,
)

CPU = torch.device("cpu")


def growth_after_freeing_100_blocks() -> float:
    """Of the process, in MB: blocks of a megabyte, each second one freed, then the rest."""
    release_memory(CPU)
    before = memory_in_use(CPU)
    blocks = [torch.ones(1 << 17, dtype=torch.double) for _ in range(100)]
    del blocks[::2]
    grown = (memory_in_use(CPU) - before) / 1e6
    del blocks
    return grown


def test_freed_memory_is_kept_except_where_it_would_leave_gaps():
    keep_freed_memory()
    assert growth_after_freeing_100_blocks() > 90
    with freed_memory_returned():
        assert growth_after_freeing_100_blocks() < 65
    assert growth_after_freeing_100_blocks() > 90
