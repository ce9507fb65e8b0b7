"""Tests of training/preparation.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.spec.gradient import Gradient
from nodebench.training import preparation
from tests.support.tiny_sweeps import options, tiny


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ("backprop", "keep_freed_memory"),
        ("adjoint", "keep_freed_memory"),
        ("recompute", "return_freed_memory"),
        ("exact", "return_freed_memory"),
    ],
)
def test_freed_memory_is_kept_unless_a_graph_may_be_made_in_segments(
    gradient: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("keep_freed_memory", "return_freed_memory"):
        monkeypatch.setattr(preparation, name, lambda name=name: called.append(name))
    sweep = tiny(tmp_path)
    spec = sweep.trials[0].spec.model_copy(update={"gradient": Gradient(name=gradient)})
    preparation.prepare_trial(spec, options(sweep, tmp_path))
    assert called == [expected]
