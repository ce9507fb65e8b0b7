import os

from nodebench import api
from nodebench.execution import publishing
from nodebench.execution.runner import Monitor
from nodebench.planning.freshness import is_tracked
from nodebench.store import Store
from tests.support.tiny_sweeps import tiny


def run(sweep, store, **how):
    return api.run(sweep, store, Monitor(), inline=True, **how)


def test_a_launch_with_nothing_to_do_writes_nothing_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    page = run(sweep, store).page
    first = page.stat().st_mtime_ns
    assert is_tracked(sweep, store)
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "BackgroundTracker", None)  # which would raise if it were called
        assert run(sweep, store).page == page
    assert page.stat().st_mtime_ns == first


def test_whatever_is_new_or_gone_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    page = run(sweep, store).page
    page.unlink()
    run(sweep, store)
    assert page.exists()
    before = page.read_text()
    grown = tiny(tmp_path, seeds=[0, 1])
    assert not is_tracked(grown, store)
    run(grown, store)
    assert page.read_text() != before
    (store.root / "mlflow.db").unlink()
    assert not is_tracked(grown, store)
    other = tiny(tmp_path, name="other")
    run(other, store)  # makes MLflow's file anew, without this sweep
    assert not is_tracked(grown, store)
    run(grown, store)
    assert (store.root / "mlflow.db").exists()
    history = store.folder(grown.trials[0].id).path / "history.jsonl"
    os.utime(history, ns=(1, 1))
    assert not is_tracked(grown, store)


def test_a_report_without_one_of_its_figures_is_written_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    page = run(sweep, store, track=False).page
    figure = next(page.with_name("figures").glob("*.svg"))
    figure.unlink()
    run(sweep, store, track=False)
    assert figure.exists()
