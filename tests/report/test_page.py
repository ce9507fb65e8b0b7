import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from nodebench import api
from nodebench.execution.runner import Monitor, run_inline
from nodebench.report.analysis import frames
from nodebench.report.analysis.published import PublishedStudy, compared_numbers, published_table
from nodebench.report.analysis.sizes import opening
from nodebench.report.figures.curves import file_names
from nodebench.report.figures.style import save
from nodebench.report.page import write_report_folder
from nodebench.report.result_tables import result_tables
from nodebench.store import Result, Store
from nodebench.sweep import load
from nodebench.training.trial import run_trial
from tests.support.fake_results import GRID, HERE, RELU, ended, made, partly_failed, steady
from tests.support.tiny_sweeps import TINY, options, tiny, write_tiny


@pytest.fixture
def made_up(tmp_path):
    return partly_failed(tmp_path)


def test_the_page_has_table_figures_failures_and_provenance(made_up, tmp_path):
    sweep, store = made_up
    page = write_report_folder(sweep, store, tmp_path / "report").page
    text = page.read_text()
    assert "**4 of 6 trials finished; 1 diverged, 1 not run yet.**" in text
    assert "DNF (diverged, epoch 2)" in text
    assert "loss is nan" in text
    for fact in ("hardware: abacus", "commit: abc", "torch: 2", "threads per trial: 1"):
        assert fact in text
    anchors = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines()}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        is_there = link[1:] in anchors if link[0] == "#" else (page.parent / link).exists()
        assert is_there or link == "../../docs/reports.md", link
    frame = pd.read_csv(page.parent / "results.csv")
    assert list(frame["id"]) == [trial.id for trial in sweep.trials]
    assert (page.parent / "sweep.yaml").read_text() == sweep.text


@pytest.mark.usefixtures("rendered_figures")
def test_the_same_data_gives_the_same_bytes(made_up, tmp_path):
    sweep, store = made_up
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write_report_folder(sweep, store, folder)
    files = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert any(file.suffix == ".svg" for file in files)
    for file in files:
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_note_says_that_packed_seconds_are_of_all_seeds(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    for packed, is_said in ((1, False), (2, True)):
        for trial in sweep.trials:
            here = {**HERE, "packed": packed}
            store.folder(trial.id).write_result(ended(0.8, environments=[here]))
        text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
        assert ("Where seeds were packed into one run" in text) is is_said


@pytest.mark.parametrize("epochs", [1, 3])
def test_seconds_of_a_single_epoch_are_said_to_include_compilation(tmp_path, epochs):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    store.folder(sweep.trials[0].id).create(sweep.trials[0])
    store.folder(sweep.trials[0].id).write_result(ended(0.9, epoch=epochs))
    page = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert ("the first, which includes compilation" in page) == (epochs == 1)


@pytest.mark.parametrize(("field", "is_said"), [("host", False), ("torch", True)])
def test_a_trial_that_resumed_on_another_host_alone_resumed_under_the_same(
    tmp_path, field, is_said
):
    sweep, store = tiny(tmp_path, seeds=[0]), Store(tmp_path / "runs")
    environments = [{**HERE, field: value} for value in ("one", "two")]
    store.folder(sweep.trials[0].id).write_result(ended(0.8, environments=environments))
    text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert ("resumed under other versions, threads or hardware" in text) is is_said


def test_a_commit_is_named_with_its_uncommitted_changes(tmp_path):
    sweep, store = tiny(tmp_path, seeds=[0, 1]), Store(tmp_path / "runs")
    for trial, (commit, dirty) in zip(sweep.trials, [("b1", "no"), ("a2", "yes")], strict=True):
        tags = {"commit": commit, "dirty": dirty}
        store.folder(trial.id).write_result(ended(0.8, tags=tags))
    text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert "- commit: a2 (with uncommitted changes), b1\n" in text


def test_a_sweep_without_results_still_has_a_page(tmp_path):
    sweep = tiny(tmp_path)
    report = write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    text = report.page.read_text()
    assert "0 of 1 trial finished" in text


def test_results_are_tidy(made_up):
    sweep, store = made_up
    frame = frames.result_frame(sweep, store)
    assert list(frame["seed"]) == [0, 1, 2] * 2
    assert frame["test_accuracy"].isna().sum() == 2
    epochs = frames.epoch_frame(sweep, store)
    assert len(epochs) == 10
    assert math.isclose(epochs["train_loss"].max(), 1.0)
    assert TINY["model"]["name"] == frame["model.name"].unique().item()


def test_published_numbers_stand_beside_ours(tmp_path):
    # A loose tolerance of a method of higher order is no limit.
    evaluate = [
        {"methods": ["euler", "rk4"], "steps": [1, 160]},
        {"methods": ["dopri5"], "tols": [1.0]},
    ]
    path = write_tiny(
        tmp_path, name="spheres-solver", grid={"solver.steps": [2, 4]}, evaluate=evaluate
    )
    sweep, store = load(path), Store(tmp_path / "runs")
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
    results, evaluated = frames.result_frame(sweep, store), frames.evaluation_frame(sweep, store)
    judged = frames.verdict_frame(sweep, store)
    table = published_table(compared_numbers(sweep, results, judged))
    assert list(table["configuration"]) == ["steps 2"] * 2  # of 4 steps, nothing is published
    assert list(table["what"]) == ["test accuracy %", "test accuracy %, at the limit"]
    assert list(table["published"]) == ["~97.1", "~48.9"]
    own = results["test_accuracy"][0]
    finest = evaluated[(evaluated["test.method"] == "rk4") & (evaluated["test.steps"] == 160)]
    limit = finest["accuracy"].iloc[0]
    assert list(table["ours"]) == [f"{100 * own:.2f}", f"{100 * limit:.2f}"]
    details = result_tables(sweep, results, judged, pd.DataFrame()).details
    assert list(details["published"]) == ["~97.1", "–"]
    text = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    assert "## Published numbers" in text


def test_a_sweep_of_other_data_has_no_published_numbers(tmp_path):
    digits = {"data": "digits", "model": "mlp", "train": {"epochs": 1}}
    sweep = load(write_tiny(tmp_path, name="spheres-solver", base=digits))
    assert compared_numbers(sweep, pd.DataFrame(), pd.DataFrame()) == []


def test_the_page_says_what_was_set_and_that_it_is_the_small_form(tmp_path):
    data = {"name": "spheres", "train_size": 64, "test_size": 32}
    fields = {"grid": GRID, "limits": {"nfe": 500}, "base": {**TINY, "data": data}}
    file = write_tiny(tmp_path, **fields, about="All seeds.", small={"seeds": [1]})
    sweep = load(file, size="small")
    report = write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    page = report.page.read_text()
    assert "data.test_size: 32" in page
    assert "model.width: 4" in page
    assert "limits.nfe: 500" in page
    assert "model.activation" not in page.partition("## Shared settings")[2].partition("## ")[0]
    form, about = page.split("\n\n")[1:3]
    assert form.startswith("**This is the small form of the sweep")
    assert form.endswith("that of the full size, and ends with what this form changes.**")
    assert about == "All seeds. Small form: `seeds=[1]`."


def test_a_medium_form_is_compared_and_its_doubt_named(tmp_path, monkeypatch):
    fields = {"grid": {"solver.steps": [4, 8]}, "seeds": [0, 1, 2]}
    medium = {"train.epochs": 1, "solver.steps": [2, 4]}
    write_tiny(tmp_path, **fields, base={**TINY, "train": {**TINY["train"], "epochs": 3}},
               medium=medium, claims=[{"says": "so", "source": "S", "above": 0}])  # fmt: skip
    theirs = {
        "data": TINY["data"]["name"],
        "numbers": [
            {"cell": {"solver.steps": 2}, "value": 0.5, "margin": 0.1, "source": "S"},
            {"cell": {"solver.steps": 4}, "value": 0.9, "source": "S"},
            {"cell": {"solver.steps": 4}, "metric": "parameters", "value": "5", "source": "S"},
        ],
    }
    study = PublishedStudy.model_validate(theirs)
    monkeypatch.setattr("nodebench.report.analysis.published.studies", lambda: {"tiny": study})
    sweep, store = load(tmp_path / "tiny.yaml", size="medium"), Store(tmp_path / "runs")
    for trial in sweep.trials:
        summary = {"test_accuracy": 0.5 + 0.01 * trial.spec.seed, "parameters": 5}
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))
    found = published_table(
        compared_numbers(sweep, frames.result_frame(sweep, store), pd.DataFrame())
    )
    assert list(found["reading"]) == [
        "matches: at 1 of 3 epochs, with `solver.steps` 2 instead of 4, 8",
        "differs: at 1 of 3 epochs",
        "matches",
    ]
    page = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    doubt = "at 1 of 3 epochs, with `solver.steps` 2 instead of 4, 8"
    assert f"**This is the medium form of the sweep: {doubt}. Claims and published" in page
    assert f"**The conditions are not those of the full sweep: {doubt}.**" in page
    assert "**[Claims](#claims):** 1 reproduced (in the medium form)." in page
    assert "of 3 comparable numbers, 2 matching and 1 differing." in page
    assert (tmp_path / "report" / "sweep.yaml").read_text() == sweep.text


def test_a_medium_form_with_the_study_s_settings_says_that_it_has_some_of_its_trials(tmp_path):
    write_tiny(tmp_path, grid={"solver.steps": [2, 4]}, medium={"solver.steps": [2]})
    assert opening(load(tmp_path / "tiny.yaml", size="medium")).startswith(
        "This is the medium form of the sweep: some of its trials. Its description"
    )


def test_the_same_store_gives_the_same_bytes(tmp_path):
    sweep, _ = made(tmp_path, steady, baseline=RELU)
    store = Store(tmp_path / "runs")
    for name in ("one", "other"):
        write_report_folder(sweep, store, tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert {"README.md", "report.html", "results.csv"} <= set(map(str, files))
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_the_html_page_needs_nothing_beside_it(tmp_path):
    sweep, _ = made(tmp_path, steady, baseline=RELU)
    write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text()
    assert 'src="figures' not in text
    assert 'href="results.csv"' not in text
    assert text.count("data:image/webp;base64,") >= 1
    assert 'download="results.csv"' in text
    assert "<td" in text
    assert "| cell" not in text


def test_a_reason_leaves_a_table_a_table(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    (trial,) = sweep.trials
    reason = "mat1 | mat2\nSize mismatch"
    store.folder(trial.id).write_result(ended(0.0, outcome="error", reason=reason, summary={}))
    page = write_report_folder(sweep, store, tmp_path / "report").page.read_text()
    (row,) = (line for line in page.splitlines() if "Size mismatch" in line)
    assert r"mat1 \| mat2 Size mismatch" in row
    assert row.replace(r"\|", "").count("|") == 5


def test_obsolete_table_is_removed(made_up, tmp_path):
    sweep, store = made_up
    stale = tmp_path / "report" / "timings.csv"
    stale.parent.mkdir()
    stale.write_text("trial")
    write_report_folder(sweep, store, stale.parent)
    assert not stale.exists()


@pytest.mark.usefixtures("rendered_figures")
def test_figures_by_values_with_dots_are_as_many_files(tmp_path):
    for name in file_names([0.1, 0.2, "pkg.nets:Net"]).values():
        save(plt.figure(), tmp_path / f"robustness-{name}")
    names = {path.name for path in tmp_path.glob("*.svg")}
    assert names == {"robustness-0.1.svg", "robustness-0.2.svg", "robustness-pkg.nets-Net.svg"}


def test_figures_are_those_that_were_drawn_and_problems_are_told(tmp_path, monkeypatch, caplog):
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 3]}), Store(tmp_path / "runs")
    run_inline(sweep.trials, store, options(sweep, tmp_path), Monitor())
    folder = tmp_path / "drawn"
    folder.mkdir()
    (folder / "mine.svg").write_text("<svg/>")

    def fail(*_arguments):
        raise AssertionError("made up")

    monkeypatch.setattr("nodebench.report.figures.pareto.pareto_figure", fail)
    problems: list[str] = []
    drawn = api.figures(sweep, folder, store, on_problem=problems.append)
    assert set(drawn) == {"accuracy", "loss", "paths"}
    assert all(path.is_file() for path in drawn.values())
    assert problems == ["frontier: AssertionError: made up"]
    assert 'raise AssertionError("made up")' in caplog.text  # its traceback


def test_the_page_names_the_sweep_file_where_it_was_written(made_up, tmp_path, monkeypatch):
    sweep, store = made_up
    monkeypatch.chdir(tmp_path)
    for folder, command in (
        (Path("reports/mine"), "nodebench run reports/mine/sweep.yaml"),
        (tmp_path / "a place", "nodebench run 'a place/sweep.yaml'"),
        (tmp_path.parent / f"{tmp_path.name}-elsewhere", "nodebench run sweep.yaml"),
    ):
        page = write_report_folder(sweep, store, folder).page.read_text()
        assert page.rstrip().endswith(f"\n    {command}")
