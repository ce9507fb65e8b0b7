from __future__ import annotations

from pathlib import Path

import pytest

from nodebench.planning import freshness
from nodebench.planning.freshness import state_of
from nodebench.store import Store
from tests.support.planned_sweeps import sweep


@pytest.mark.parametrize("file", ["ode/fixed.py", "report/analysis/published.yaml", "api.py"])
def test_a_change_in_any_room_makes_reports_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    code, planned, store = tmp_path / "code", sweep(tmp_path), Store(tmp_path / "runs")
    (code / file).parent.mkdir(parents=True)
    (code / file).write_text("one")
    monkeypatch.setattr(freshness, "PACKAGE", code)
    before = state_of(planned, store)
    (code / file).write_text("two")
    assert state_of(planned, store) != before
