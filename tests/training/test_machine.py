"""What a trial takes of its machine."""

from __future__ import annotations

import subprocess
import sys

GROWTH = """
import torch
from contextlib import nullcontext
from nodebench.training.machine import freed_memory_returned, keep_freed_memory, memory_in_use

cpu = torch.device("cpu")
torch.set_num_threads(1)
keep_freed_memory()
for context in (freed_memory_returned, nullcontext):
    before = memory_in_use(cpu)
    with context():
        blocks = [torch.ones(1 << 17, dtype=torch.double) for _ in range(100)]
        del blocks[::2]
    print((memory_in_use(cpu) - before) / (1 << 20))
    del blocks
"""


def test_of_a_hundred_megabytes_the_freed_half_is_kept_unless_it_is_returned():
    command = [sys.executable, "-c", GROWTH]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    returned, kept = map(float, done.stdout.split())
    assert 45 < returned < 60
    assert 95 < kept < 110
