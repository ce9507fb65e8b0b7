"""What the functions of `import nodebench` have in common."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nodebench
from nodebench.errors import InputError, StoreError, SweepError
from nodebench.planning.lookup import load_sweep
from nodebench.store import Store
from tests.support.tiny_sweeps import write_tiny

OF_SWEEPS = [
    "compare", "doctor", "epochs", "evaluate", "export_archive", "figures", "merge", "plan",
    "repro", "results", "run", "sync", "time", "verdicts", "write_report",
]  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path, evaluate={"methods": ["rk4"], "steps": [2]})
    return Store(tmp_path / "runs")


def test_every_function_of_a_sweep_takes_its_name_too():
    for name in nodebench.__all__:
        first = next(iter(inspect.signature(getattr(nodebench, name)).parameters.values()), None)
        takes_sweeps = first is not None and str(first.annotation).startswith("SweepSource")
        assert takes_sweeps == (name in OF_SWEEPS), name


@pytest.mark.parametrize("source", ["tiny.yaml", Path("tiny.yaml"), "reports/tiny"])
def test_a_sweep_is_run_and_read_by_its_file_or_its_report(store, source):
    (trial,) = load_sweep("tiny.yaml").trials
    nodebench.run("tiny.yaml", inline=True, track=False)
    assert nodebench.run(source, store, inline=True, track=False).complete
    assert [entry.standing for entry in nodebench.plan(source)] == ["finished"]
    assert list(nodebench.results(source)["id"]) == [trial.id]
    assert set(nodebench.verdicts(source)) == {trial.id}
    assert nodebench.export_archive(source)[1] == [trial.id]
    name, finding = nodebench.doctor(source)[0]
    assert (name, finding.level) == ("python", "ok")


@pytest.mark.usefixtures("store")
def test_overrides_may_be_a_mapping():
    values = {"train.epochs": 5, "grid": {"solver.steps": [2, 4]}, "train.optimizer.lr": 1e-5}
    texts = ["train.epochs=5", "grid={solver.steps: [2, 4]}", "train.optimizer.lr=1e-5"]
    found = load_sweep("tiny.yaml", overrides={**values, "about": "no: sweep"})
    named = load_sweep("tiny.yaml", overrides=[*texts, "about='no: sweep'"])
    assert [t.id for t in found.trials] == [t.id for t in named.trials]
    assert found.about.startswith("no: sweep")
    with pytest.raises(InputError, match=r"`train.epochs` is of type `PosixPath`. Give"):
        load_sweep("tiny.yaml", overrides={"train.epochs": Path("5")})


def test_a_trial_is_repeated_by_its_id_and_compared_by_a_sweep_that_is_loaded(store):
    sweep = load_sweep("tiny.yaml")
    nodebench.run(sweep, inline=True, track=False)
    start = sweep.trials[0].id[:6]
    for order in ((start,), (start, sweep), (sweep, start), ("tiny.yaml", start)):
        assert nodebench.repro(*order).agrees
    with pytest.raises(InputError, match=r"is given by its id .*, found `<Sweep tiny: 1 trial>`"):
        nodebench.repro(sweep)
    told = nodebench.compare(sweep, Path("reports/tiny"))
    assert told.startswith("# reports/tiny compared with tiny\n")
    assert "the same" in told


def test_a_name_that_no_sweep_has_is_told_by_every_function(store):
    for call in (nodebench.run, nodebench.plan, nodebench.results, nodebench.time):
        with pytest.raises(SweepError, match="Did you mean `quickstart`"):
            call("quikstart")


def test_what_a_notebook_shows_is_one_line(store):
    sweep = load_sweep("tiny.yaml")
    (trial,) = sweep.trials
    assert repr(sweep) == "<Sweep tiny: 1 trial>"
    assert repr(nodebench.plan(sweep)) == f"[<Entry {trial.id}: new>]"
    launched = nodebench.run(sweep, inline=True, track=False)
    assert repr(launched) == "<Launched: 1 of 1 trial finished, report reports/tiny/README.md>"
    file, _ = nodebench.export_archive(sweep)
    imported = nodebench.import_archive(file, Store("other"))
    assert repr(imported) == (
        "Imported(sweep=<Sweep tiny: 1 trial>, merged=<Merged: 1 copied>, is_sweep_kept=True)"
    )
    assert repr(nodebench.merge(sweep, ["runs"], Store("other"))) == "[<Merged: 1 kept>]"
    assert repr(store) == f"Store('{store.root}')"
    assert len(repr(nodebench.verdicts(sweep)[trial.id])) < 200


def test_a_data_set_is_fetched_by_its_name_too():
    assert nodebench.fetch("digits") == nodebench.fetch(nodebench.data_sets(["digits"])[0])
    with pytest.raises(InputError, match="Did you mean `digits`"):
        nodebench.fetch("digts")


def test_an_archive_that_is_not_there_is_named(store):
    with pytest.raises(StoreError, match=r"`nothing\.zip` was not imported: there is no such"):
        nodebench.import_archive("nothing.zip", store)


def test_the_modules_that_the_docs_name_need_no_import_of_their_own():
    code = "import nodebench; print(nodebench.errors.InputError, nodebench.api.verdicts)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "InputError" in done.stdout
