"""A report's folder: what stays in it, and what goes, while it is written again."""

import re

import pytest

from nodebench.report.page import write_report_folder
from nodebench.store import Store
from tests.support.fake_results import made, steady


def test_a_report_keeps_the_figures_of_the_page_before_it_until_it_is_written(
    tmp_path, monkeypatch
):
    sweep, _ = made(tmp_path, steady)
    store = Store(tmp_path / "runs")
    folder = tmp_path / "report"
    page = write_report_folder(sweep, store, folder).page
    shown = set(re.findall(r"figures/[\w-]+\.svg", page.read_text()))
    (folder / "figures" / "old.svg").write_text("of an earlier release")
    monkeypatch.setattr("nodebench.report.page.write_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report_folder(sweep, store, folder)
    assert shown and all((folder / name).exists() for name in shown)
    monkeypatch.undo()
    write_report_folder(sweep, store, folder)
    assert {f"figures/{path.name}" for path in (folder / "figures").glob("*.svg")} == shown
