"""Independent streams of random numbers from one seed."""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the purpose that `names` spell out, e.g. `stream(0, "order", epoch)`.

    Purposes do not affect each other: drawing more data leaves the weights unchanged. A stream is
    derived and never advanced, so a resumed training needs no generator's state.
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
