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
    for ending in ("svg", "png"):
        (folder / "figures" / f"old.{ending}").write_text("of an earlier release")
    page.write_text(f"{page.read_text()}\n![old](figures/old.svg)\n")
    monkeypatch.setattr("nodebench.report.page.write_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report_folder(sweep, store, folder)
    assert shown and all((folder / name).exists() for name in shown)
    monkeypatch.undo()
    write_report_folder(sweep, store, folder)
    assert {f"figures/{path.name}" for path in (folder / "figures").glob("*.svg")} == shown


def test_what_the_user_keeps_among_the_figures_stays(tmp_path):
    sweep, _ = made(tmp_path, steady)
    folder = tmp_path / "report"
    write_report_folder(sweep, Store(tmp_path / "runs"), folder)
    own = [folder / "figures" / name for name in ("mine.svg", "paper/figure.pdf")]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    write_report_folder(sweep, Store(tmp_path / "runs"), folder)
    assert all(path.read_text() == "mine" for path in own)
