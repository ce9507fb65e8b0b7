"""Every committed report: the trials of its sweep, and readings that its numbers bear."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodebench.api import import_archive
from nodebench.planning.lookup import load_sweep
from nodebench.report.analysis.columns import read_results
from nodebench.store import Store

ROOT = Path(__file__).parents[2]
REPORTED = [table.parent for table in sorted((ROOT / "reports").glob("*/results.csv"))]
ARCHIVES = sorted((ROOT / "reports").glob("*/trials.nodebench.zip"))
MOST_CHARACTERS = 100
"""As wide as a report's main table may be."""


def tables(folder: Path) -> Iterator[list[dict[str, str]]]:
    """The tables of a report's page, each as its rows by column."""
    lines: list[str] = []
    for line in [*(folder / "README.md").read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            head, _, *rows = ([cell.strip() for cell in row.split("|")[1:-1]] for row in lines)
            yield [dict(zip(head, row, strict=True)) for row in rows]
            lines = []


def published(folder: Path) -> list[dict[str, str]]:
    """The rows of published numbers that a report compares with its own."""
    return [row for rows in tables(folder) for row in rows if {"published", "reading"} <= {*row}]


@pytest.mark.parametrize("folder", REPORTED, ids=lambda p: p.name)
def test_the_sweep_of_a_committed_report_has_the_trials_of_its_table(folder: Path) -> None:
    with (folder / "results.csv").open() as table:
        recorded = {row["id"] for row in csv.DictReader(table)}
    assert {trial.id for trial in load_sweep(folder).trials} == recorded


def test_published_numbers_matched_by_reports_lie_within_their_margins() -> None:
    rows = [
        row
        for folder in REPORTED
        for row in published(folder)
        if row["what"] != "parameters" and row["reading"].startswith("matches")
    ]
    assert rows
    for row in rows:
        difference, _, half = row["difference"].partition("±")
        assert abs(float(difference)) + float(half) <= float(row["margin"]), row


@pytest.mark.parametrize("file", ARCHIVES, ids=lambda p: p.parent.name)
def test_the_trials_next_to_a_report_have_the_numbers_of_its_table(
    file: Path, tmp_path: Path
) -> None:
    """So that the table is made from trials, and another machine can go on from them."""
    found = import_archive(file, store := Store(tmp_path / "runs"))
    assert found.sweep.name == file.parent.name
    table = read_results(file.with_name("results.csv")).set_index("trial_id")
    for trial_id in found.merged.copied:
        result = store.folder(trial_id).result()
        assert result is not None and result.outcome == table.loc[trial_id, "outcome"]
        for name, value in result.summary.items():
            assert table.loc[trial_id, name] == value, (trial_id, name)
    assert set(table.index[table["outcome"] != "missing"]) == {*found.merged.copied}


@pytest.mark.parametrize("folder", REPORTED, ids=lambda p: p.name)
def test_the_main_table_of_a_report_fits_a_page(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.count("\n- **") >= 1, "the answer is a list"
    main = page[page.index("\n|") :].strip().split("\n\n")[0]
    assert max(map(len, main.splitlines())) <= MOST_CHARACTERS
