"""A report's folder: what stays in it, and what goes, when a report is written there again."""

import re

import pytest

from nodebench import api
from nodebench.errors import StoreError
from nodebench.execution.publishing import Publication
from nodebench.planning.lookup import load_sweep
from nodebench.report.folder import require_no_loss
from nodebench.report.page import write_report_folder
from nodebench.store import Store
from tests.support.fake_results import finish, made, steady
from tests.support.tiny_sweeps import tiny


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


def test_files_of_the_user_among_the_figures_stay(tmp_path):
    sweep, _ = made(tmp_path, steady)
    folder = tmp_path / "report"
    write_report_folder(sweep, Store(tmp_path / "runs"), folder)
    own = [folder / "figures" / name for name in ("mine.svg", "paper/figure.pdf")]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    write_report_folder(sweep, Store(tmp_path / "runs"), folder)
    assert all(path.read_text() == "mine" for path in own)


EVALUATED = {"seeds": [0, 1], "evaluate": {"methods": ["rk4"], "steps": [2, 4]}}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ("seeds=[0]", "1 trial that this sweep does not have (`{}`)"),
        ("solver.steps=3", "2 trials that this sweep does not have ("),
        ("train.epochs=1", "2 trials that this sweep does not have ("),
        ("evaluate={methods: [rk4], steps: [2]}", "evaluation points that this sweep does not"),
    ],
)
def test_a_change_by_set_takes_nothing_out_of_the_report(tmp_path, monkeypatch, change, lost):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, **EVALUATED), Store(tmp_path / "runs")
    finish(sweep, store)
    page = api.write_report(sweep, store)
    changed = load_sweep(tmp_path / "tiny.yaml", overrides=[change])
    for attempt in (
        lambda: api.write_report(changed, store),
        lambda: Publication(track=False).require_places(changed, store),
    ):
        with pytest.raises(StoreError) as caught:
            attempt()
        told = str(caught.value)
        shows = f"tiny --set `{change}`: the report in `reports/tiny` shows "
        assert told.startswith(shows + lost.format(sweep.trials[1].id))
        for cure in ("--set name=tiny-2", "run --no-report", "report --out", "run --replace"):
            assert cure in told
    assert "made:" not in page.with_name("sweep.yaml").read_text()
    named = load_sweep(tmp_path / "tiny.yaml", overrides=[change, "name=tiny-2"])
    Publication(track=False).require_places(named, store)
    Publication(track=False, write_report=False).require_places(changed, store)
    Publication(track=False, replace_other=True).require_places(changed, store)
    finish(changed, store)
    assert api.write_report(changed, store, "elsewhere").exists()


def test_a_change_by_set_may_add_to_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, **EVALUATED), Store(tmp_path / "runs")
    finish(sweep, store)
    api.write_report(sweep, store)
    more = ["seeds=[0, 1, 2]", "evaluate={methods: [rk4], steps: [2, 4, 8]}", "resources.cpus=2"]
    grown = load_sweep(tmp_path / "tiny.yaml", overrides=more)
    page = api.write_report(grown, store)
    assert "seeds=[0, 1, 2]" in page.with_name("sweep.yaml").read_text()
    assert api.write_report(load_sweep(page.parent), store)
    with pytest.raises(StoreError):
        api.write_report(load_sweep(tmp_path / "tiny.yaml", overrides=["resources.cpus=2"]), store)


def test_a_report_that_a_change_has_grown_is_not_shrunk_by_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, store = tmp_path / "tiny.yaml", Store(tmp_path / "runs")
    sweep = tiny(tmp_path, **EVALUATED)
    grown = load_sweep(file, overrides=["seeds=[0, 1, 2]"])
    finish(grown, store)
    api.write_report(grown, store)
    for attempt in (
        lambda: api.write_report(sweep, store),
        lambda: Publication(track=False).require_places(sweep, store),
    ):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert str(caught.value).startswith(
            "tiny: the report in `reports/tiny` shows 1 trial that this sweep does not have "
            f"(`{grown.trials[2].id}`); it was written with --set `seeds=[0, 1, 2]`. Repeat these "
            "changes, give it another name ("
        )
    Publication(track=False, replace_other=True).require_places(sweep, store)
    assert api.write_report(tiny(tmp_path, **EVALUATED | {"seeds": [0, 1, 2]}), store)
    assert api.write_report(tiny(tmp_path, **EVALUATED), store)  # a file that was edited


def test_an_edited_file_may_drop_what_the_changes_of_its_last_report_did_not_add(tmp_path):
    tiny(tmp_path)
    store, folder = Store(tmp_path / "runs"), tmp_path / "report"
    changed = load_sweep(tmp_path / "tiny.yaml", overrides=["limits.minutes=5"])
    finish(changed, store)
    api.write_report(changed, store, folder)
    require_no_loss(tiny(tmp_path, seeds=[0]), folder)


def test_a_report_that_cannot_be_read_is_not_replaced_by_a_change(tmp_path):
    sweep, folder = tiny(tmp_path), tmp_path / "report"
    finish(sweep, store := Store(tmp_path / "runs"))
    api.write_report(sweep, store, folder)
    changed = load_sweep(tmp_path / "tiny.yaml", overrides=["limits.minutes=5"])
    require_no_loss(changed, folder)
    (folder / "sweep.yaml").write_text("name: tiny\nof_another_release: 1\n")
    with pytest.raises(
        StoreError, match=r"sweep\.yaml` cannot be read, so what its report shows is"
    ):
        require_no_loss(changed, folder)
    (folder / "results.csv").unlink()
    require_no_loss(changed, folder)


def test_trials_of_a_report_are_those_of_its_table_after_code_changes(tmp_path):
    sweep, folder = tiny(tmp_path), tmp_path / "report"
    finish(sweep, store := Store(tmp_path / "runs"))
    api.write_report(sweep, store, folder)
    table = folder / "results.csv"
    table.write_text(table.read_text().replace(sweep.trials[0].id, "0123456789ab"))
    changed = load_sweep(tmp_path / "tiny.yaml", overrides=["limits.minutes=5"])
    with pytest.raises(StoreError, match="0123456789ab"):
        require_no_loss(changed, folder)


def test_untrained_sweep_has_no_report(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    finish(sweep, store)
    page = api.write_report(sweep, store, tmp_path / "report")
    before = {path: path.read_bytes() for path in page.parent.iterdir() if path.is_file()}
    empty = Store(tmp_path / "other")
    with pytest.raises(StoreError) as caught:
        api.write_report(sweep, empty, page.parent)
    told = "tiny: nothing has been trained, so there is nothing to report. `nodebench run` trains"
    assert str(caught.value).startswith(f"{told} its 2 trials; if they were trained in another")
    assert str(empty.root) in str(caught.value)
    assert before == {path: path.read_bytes() for path in before}
    row = {"epoch": 1, "iteration": 4, "time": 0, "test_accuracy": 0.5}
    empty.folder(sweep.trials[0].id).write_history([row])
    assert api.write_report(sweep, empty, tmp_path / "of-one-epoch").exists()


def test_evaluation_of_untrained_trials_writes_no_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, **EVALUATED), Store(tmp_path / "runs")
    launched = api.evaluate(sweep, store, inline=True, track=False)
    assert launched.page is None and not launched.complete
    assert not (tmp_path / "reports").exists()
