"""Runs of one sweep on several machines, compared in a report."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from nodebench import api
from nodebench.report.analysis.findings import Findings
from nodebench.report.answer import answer, listed
from nodebench.report.machines import machines_table
from nodebench.report.result_tables import result_tables
from nodebench.store import Store
from nodebench.store.merge import merge_store
from tests.support.fake_results import made

A = {"host": "a", "hardware": "AMD", "device": "cpu", "threads": 1, "torch": "2.15.0"}
B = {"host": "b", "hardware": "Intel", "device": "cpu", "threads": 2, "torch": "2.15.0"}


def on(folder, environment, accuracy, *, seconds=1.0, **fields):
    """A sweep whose trials ran on a machine, with the accuracies of (activation, steps, seed)."""
    sweep, _ = made(folder, accuracy, **fields)
    store = Store(folder / "runs")
    for trial in sweep.trials:
        if result := store.folder(trial.id).result():
            summary = result.summary | ({"epoch_s": seconds} if result.summary else {})
            store.folder(trial.id).write_result(
                replace(result, summary=summary, environments=[environment])
            )
    return sweep, store


def steady(activation, steps, seed):
    return 0.5 + 0.01 * seed + (0.1 if activation == "tanh" else 0.0) + 0.001 * steps


def other(activation, steps, seed):
    """As `steady` at relu, 2 steps, and nearly so at 8; tanh is worse at 8, and scatters at 2."""
    by = {
        ("relu", 2): (0.0, 0.0, 0.0),
        ("relu", 8): (0.001, -0.002, 0.0012),
        ("tanh", 2): (0.01, -0.02, 0.012),
        ("tanh", 8): (0.05, 0.06, 0.055),
    }[activation, steps]
    return steady(activation, steps, seed) - by[seed]


NOT_TESTED = "the same difference in every pair (not tested)"


@pytest.fixture
def compared(tmp_path):
    sweep, ours = on(tmp_path / "a", A, steady)
    _, theirs = on(tmp_path / "b", B, other, seconds=3.0)
    merged = merge_store([t.id for t in sweep.trials], theirs, ours)
    assert (len(merged.kept), len(merged.conflicts)) == (3, 9)
    return sweep, ours, Findings(sweep, ours)


def test_each_configuration_has_a_row_with_the_agreement_of_machines(compared):
    sweep, _, found = compared
    table = machines_table(sweep, found.machines).set_index("configuration")
    assert list(table["agree?"]) == [
        "identical", "yes", "too uncertain to say", "no"
    ]  # fmt: skip
    assert set(table["other machine"]) == {"Intel, 2 threads, torch 2.15.0"}
    assert set(table["n"]) == {"3"}
    assert set(table["s/epoch here"]) == {"1.00 (all equal)"}
    assert set(table["s/epoch there"]) == {"3.00 (all equal)"}
    assert table["accuracy % here"].iloc[0] == "51.20 ± 2.48"
    worse = table.loc["tanh steps 8"]
    assert (worse["accuracy % here"], worse["accuracy % there"]) == (
        "61.80 ± 2.48", "56.30 ± 2.15"
    )  # fmt: skip


def test_the_report_has_a_section_a_line_in_its_answer_and_a_table_of_every_trial(
    compared, tmp_path
):
    sweep, ours, _ = compared
    page = " ".join(api.write_report(sweep, ours, tmp_path / "report").read_text().split())
    assert "## The same trial on other machines" in page
    assert (
        "of 4 comparisons, 1 identical, 1 agreeing, 1 differing and 1 too uncertain to say." in page
    )
    assert "lies within the margin (1 percentage point)" in page
    assert "(#the-same-trial-on-other-machines)" in page
    rows = pd.read_csv(tmp_path / "report" / "machines.csv")
    assert len(rows) == 12
    assert set(rows["machine"]) == {"Intel, 2 threads, torch 2.15.0"}
    assert set(rows["machine_here"]) == {"AMD, 1 thread, torch 2.15.0"}


def test_report_omits_machines_if_there_is_only_one(tmp_path):
    sweep, store = on(tmp_path / "a", A, steady)
    page = api.write_report(sweep, store, tmp_path / "report").read_text()
    assert "machines" not in page
    assert not (tmp_path / "report" / "machines.csv").exists()
    found = Findings(sweep, store)
    tables = result_tables(sweep, found.results, found.judged, found.timed)
    assert "hardware" not in tables.main
    assert "hardware" not in tables.details


def test_hardware_is_a_column_where_it_varies(tmp_path):
    sweep, ours = on(tmp_path / "a", A, lambda a, s, seed: None if s == 8 else steady(a, s, seed))
    _, theirs = on(tmp_path / "b", B, steady)
    merged = merge_store([t.id for t in sweep.trials], theirs, ours)
    assert len(merged.copied) == 6
    found = Findings(sweep, ours)
    tables = result_tables(sweep, found.results, found.judged, found.timed)
    columns = {**tables.main, **tables.details}
    assert list(columns["hardware"]) == ["AMD", "Intel", "AMD", "Intel"]


def test_runs_of_one_seed_on_several_hosts_count_as_one_seed(tmp_path):
    sweep, ours = on(tmp_path / "a", A, steady, seeds=1)
    for host in "xyz":
        _, theirs = on(tmp_path / host, {**B, "host": host}, other, seeds=1)
        merge_store([t.id for t in sweep.trials], theirs, ours)
    found = Findings(sweep, ours)
    table = machines_table(sweep, found.machines).set_index("configuration")
    assert len(found.machines) == 3 * len(sweep.trials)
    assert set(table["n"]) == {"1"}
    assert table.loc["tanh steps 8", "agree?"] == "too few seeds"


def test_another_outcome_there_is_counted_and_left_out_of_the_means(tmp_path):
    sweep, ours = on(tmp_path / "a", A, steady)
    _, theirs = on(
        tmp_path / "b", B,
        lambda a, s, seed: "diverged" if (a, seed) == ("tanh", 2) else steady(a, s, seed) + 0.1,
    )  # fmt: skip
    merge_store([t.id for t in sweep.trials], theirs, ours)
    table = machines_table(sweep, Findings(sweep, ours).machines).set_index("configuration")
    assert table.loc["tanh steps 2", "n"] == "2"
    assert table.loc["tanh steps 2", "agree?"] == "too few seeds; 1 with another outcome"
    assert table.loc["relu steps 2", "agree?"] == NOT_TESTED


@pytest.mark.parametrize("lost", [0.001, 0.02])
def test_machines_with_the_same_difference_in_every_pair_are_not_tested(tmp_path, lost):
    sweep, ours = on(tmp_path / "a", A, steady)
    _, theirs = on(tmp_path / "b", B, lambda a, s, seed: steady(a, s, seed) - lost)
    merge_store([t.id for t in sweep.trials], theirs, ours)
    found = Findings(sweep, ours)
    assert set(machines_table(sweep, found.machines)["agree?"]) == {NOT_TESTED}
    assert f"4 with {NOT_TESTED}" in listed(answer(found))


def test_a_report_is_written_again_when_another_machine_s_runs_come_in(compared, tmp_path):
    sweep, ours, _ = compared
    folder = ours.folder(sweep.trials[0].id)
    before = folder.stamp()
    folder.write_elsewhere([])
    assert folder.stamp() != before
    folder.elsewhere_file.unlink()
    assert len(folder.stamp()) == len(before) - 1
