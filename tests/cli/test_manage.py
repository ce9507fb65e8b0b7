"""What `gc` says, and that it deletes only when told."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from nodebench.cli.manage import excess_text
from nodebench.planning.garbage import Wish, survey_store
from nodebench.store import Store
from tests.support.made_up_trials import ALL, KB, everything, known, put
from tests.support.tiny_sweeps import tiny


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), "Of this, 5.2 kB can be deleted with `--checkpoints` and `--orphans`"),
        (Wish(frozenset({"checkpoints"})), "can be deleted with `--checkpoints` and `--orphans`"),
        (Wish(frozenset({"orphans"})), "can be deleted with `--checkpoints` and `--orphans`"),
        (replace(ALL, unused_days=9), "can be deleted with a smaller `--older-than`"),
        (ALL, "the budget of 0 B: results of trials that a sweep plans, and files in use"),
    ],
)
def test_what_exceeds_a_budget_is_said_with_what_would_let_more_go(tmp_path, store, wish, expected):
    (planned,) = known(tiny(tmp_path), store)
    for trial_id in (planned, "orphan"):
        folder = put(store, trial_id)
    folder.log("x" * 5 * KB)
    wish = replace(wish, budget_bytes=0)
    found = survey_store(store, wish)
    text = excess_text(found, wish, 7 * KB, removed=True)
    assert text.startswith("7.0 kB remain, which exceeds the budget of 0 B")
    assert text.endswith(expected)
    assert "would remain" in excess_text(found, wish, 7 * KB, removed=False)


def test_the_command_lists_and_removes_only_when_told(tmp_path, store):
    (planned,) = known(tiny(tmp_path), store)
    put(store, planned)
    put(store, "orphan")
    (store.root / "mlflow.db").write_text("x" * KB)
    before = everything(store)

    def gc(*arguments):
        command = [sys.executable, "-m", "nodebench", "gc", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    listed = gc("--orphans")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[-1] == "nothing was deleted: pass `--delete`"
    assert [line.split()[-6:-3] for line in listed.stdout.splitlines()[2:3]] == [["2", "2.0", "kB"]]
    assert everything(store) == before
    done = gc("--budget", "10B")
    assert done.returncode == 1
    assert "can be deleted with `--checkpoints` and `--orphans`" in done.stderr
    done = gc("--checkpoints", "--orphans", "--budget", "10B", "--delete", "--json")
    assert done.returncode == 1  # the result stays
    assert "remain, which exceeds the budget of 10 B: results of trials" in done.stderr
    rows = json.loads(done.stdout)["items"]
    assert all(row["removed"] for row in rows)
    assert {row["trial"] for row in rows} == {planned, "orphan"}
    assert set(everything(store)) == set(before) - {
        f"trials/{planned}/checkpoint.pt",
        *(name for name in before if "orphan" in name),
    } | {f"trials/{planned}/log.txt"}
