"""The scoreboard: every published number and claim, beside what committed reports found."""

from pathlib import Path

import pytest
import yaml

from nodebench.errors import InputError
from nodebench.report.analysis.published import PublishedStudy, studies
from nodebench.report.page import write_report_folder
from nodebench.report.scoreboard import scoreboard_page
from nodebench.store import Result, Store
from nodebench.sweep import load
from tests.support.cli_process import command
from tests.support.tiny_sweeps import TINY, write_tiny

ROOT = Path(__file__).parents[2]
SWEEPS, REPORTS = ROOT / "sweeps", ROOT / "reports"

FINE, COARSE = {"solver.steps": 8}, {"solver.steps": 4}
NUMBERS = [
    {"cell": COARSE, "value": 0.5, "source": "S9, table"},
    {"cell": FINE, "value": 0.9, "source": "S9, table"},
    {"cell": FINE, "metric": "parameters", "value": "5", "source": "S9, table"},
]
CLAIMS = [
    {"says": "fine is better", "source": "S9", "of": FINE, "above": COARSE},
    {"says": "fine is slower", "source": "S9", "of": FINE, "above": COARSE,
     "metric": "timed_epoch_s"},
    {"says": "our own guess", "above": 0},
]  # fmt: skip


def publish(numbers, monkeypatch):
    """Lets a study have published these numbers of the sweep `tiny`."""
    found = PublishedStudy.model_validate({"data": TINY["data"]["name"], "numbers": numbers})
    monkeypatch.setattr("nodebench.report.analysis.published.studies", lambda: {"tiny": found})
    monkeypatch.setattr("nodebench.report.scoreboard.studies", lambda: {"tiny": found})


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A sweep of a made-up study in three sizes."""
    publish(NUMBERS, monkeypatch)
    sizes = {"small": {"train.epochs": 1, "seeds": [0]}, "medium": {"train.epochs": 2}}
    (tmp_path / "sweeps").mkdir()
    return write_tiny(tmp_path / "sweeps", about="A study (S9).", grid={"solver.steps": [4, 8]},
                      seeds=[0, 1, 2], claims=CLAIMS, resources={"gpus": 0.5}, **sizes)  # fmt: skip


def reported(study, size, accuracy):
    """Writes the report of a size in which a trial has this accuracy, by steps and seed."""
    sweep, store = load(study, size=size), Store(study.parent.parent / "runs")
    for trial in sweep.trials:
        found = accuracy(trial.spec.solver.steps, trial.spec.seed)
        summary = {"test_accuracy": found, "parameters": 5}
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))
    write_report_folder(sweep, store, study.parent.parent / "reports" / sweep.name)


def lines(study):
    """The rows of the study's table, by what they are about."""
    page = scoreboard_page(study.parent, study.parent.parent / "reports")
    rows = page.partition("## S9")[2].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return {what: rest for _, what, *rest in cells}


def test_line_that_has_not_run_names_its_command(study):
    found = lines(study)
    assert list(found) == [
        "`steps 4`: test accuracy %",
        "`steps 8`: test accuracy %",
        "`steps 8`: parameters",
        "fine is better",
        "fine is slower",
    ]
    needs = "not run: needs `make medium-tiny`"
    assert {tuple(row[2:]) for row in found.values()} == {("–", "–", needs)}
    tree = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({name: tree[name] for name in tree if name != "medium"}))
    assert lines(study)["fine is better"][-1] == "not run: needs `make sweep-tiny` on a GPU"


def test_the_largest_size_that_has_run_counts(study):
    def steady(steps, seed):
        return {4: 0.5 + 0.001 * seed, 8: 0.9 + 0.002 * seed}[steps]

    reported(study, "small", steady)
    found = lines(study)
    small = "[small](tiny-small/README.md)"
    undecided = "undecided: run in the small form; needs `make medium-tiny`"
    assert found["`steps 4`: test accuracy %"] == [
        "50", "S9, table", "50.00 (n = 1)", small, undecided,
    ]  # fmt: skip
    assert found["`steps 8`: parameters"][2:] == ["5 (n = 1)", small, "matches"]
    assert found["fine is better"][2:] == [
        "steps 8: 40.00 points more than steps 4 (n = 1)", small, undecided,
    ]  # fmt: skip
    assert found["fine is slower"][-1] == "not run: needs `nodebench time tiny --size small`"

    reported(study, "medium", steady)
    medium, doubt = "[medium](tiny-medium/README.md)", "at 2 of 3 epochs"
    found = lines(study)
    assert found["`steps 4`: test accuracy %"][2:] == [
        "50.10 ± 0.25 (n = 3)", medium, f"matches: {doubt}",
    ]  # fmt: skip
    assert found["fine is better"][3:] == [medium, f"matches: {doubt}"]

    reported(study, "full", lambda steps, seed: steady(12 - steps, seed))
    found = lines(study)
    full = "[full](tiny/README.md)"
    assert found["`steps 4`: test accuracy %"][3:] == [full, "**differs**"]
    assert found["fine is better"][3:] == [full, "**differs**"]
    assert found["fine is slower"][-1] == "not run: needs `nodebench time tiny`"


def test_the_verdicts_are_counted(study):
    reported(study, "full", lambda _steps, seed: 0.5 + 0.001 * seed)
    page = scoreboard_page(study.parent, study.parent.parent / "reports")
    assert "| study | matches | differs | undecided | not comparable | not run |" in page
    assert "| S9 | 2 | 1 | 1 | 0 | 1 |" in page


@pytest.mark.parametrize("is_run", [False, True])
def test_seconds_of_another_machine_are_not_comparable(study, is_run, monkeypatch):
    seconds = {"cell": FINE, "metric": "epoch_s", "value": 60, "source": "S9, table"}
    publish([*NUMBERS, seconds], monkeypatch)
    if is_run:
        reported(study, "small", lambda _steps, seed: 0.5)
    verdict = lines(study)["`steps 8`: s/epoch, on their machine"][-1]
    assert verdict == "not comparable: another machine"


def test_a_number_of_ours_stands_in_a_report_s_table(study):
    reported(study, "full", lambda _steps, seed: 0.5 + 0.001 * seed)
    table = study.parent.parent / "reports" / "tiny" / "results.csv"
    text = table.read_text()
    assert lines(study)["`steps 4`: test accuracy %"][2] == "50.10 ± 0.25 (n = 3)"
    table.write_text(text.replace(",0.501,", ",0.507,"))
    assert lines(study)["`steps 4`: test accuracy %"][2] == "50.30 ± 0.90 (n = 3)"


def test_a_trial_of_older_numerics_does_not_count(study):
    reported(study, "full", lambda _steps, seed: 0.5 + 0.001 * seed)
    table = study.parent.parent / "reports" / "tiny" / "results.csv"
    text = table.read_text()
    for trial in load(study).trials:
        text = text.replace(trial.id, trial.id[::-1])
    table.write_text(text)
    assert {row[-1] for row in lines(study).values()} == {"not run: needs `make medium-tiny`"}


def test_the_command_writes_the_page_of_the_folder_it_is_in(study):
    folder = study.parent.parent
    assert command(folder, "scoreboard").stdout == "reports/README.md\n"
    assert "fine is better" in (folder / "reports" / "README.md").read_text()
    done = command(folder / "reports", "scoreboard")
    assert (done.returncode, "has no sweep files" in done.stderr) == (2, True)


def test_a_file_with_fewer_cells_than_the_study_has_fewer_lines(study):
    tree = yaml.safe_load(study.read_text())
    tree["grid"] = {"solver.steps": [8]}
    study.write_text(yaml.safe_dump({k: tree[k] for k in tree if k not in ("claims", "medium")}))
    assert list(lines(study)) == ["`plainode`: test accuracy %", "`plainode`: parameters"]


def test_a_scoreboard_of_no_sweeps_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no sweep files"):
        scoreboard_page(tmp_path, tmp_path)


def test_every_published_number_and_every_claim_with_a_source_is_a_line():
    page = scoreboard_page(SWEEPS, REPORTS)
    sweeps = [load(path) for path in SWEEPS.glob("*.yaml")]
    numbers = sum(len(study.numbers) for study in studies().values())
    sourced = sum(bool(claim.source) for sweep in sweeps for claim in sweep.claims)
    rows = [row for row in page.splitlines() if row.startswith("| ") and "---" not in row]
    titles = len({"summary", "S1", "S2", "S3", "S4", "Others"}) + 5  # and a row of counts for each
    assert len(rows) - titles == numbers + sourced
    assert (REPORTS / "README.md").read_text() == page, "nodebench scoreboard"
