"""Labels: from what varies, cut where there is little room, and never a reason to have no page."""

import csv
from pathlib import Path

import pytest

from nodebench import api
from nodebench.api import write_report
from nodebench.execution.runner import Monitor
from nodebench.planning.lookup import foreign
from nodebench.report.figures import pareto
from nodebench.report.figures.curves import file_names
from nodebench.store import Store
from nodebench.sweep import load
from nodebench.sweep.labels import LONGEST_DRAWN, cut, figure_labels, headings, labeled
from nodebench.training.trial import run_trial
from tests.support.coarse_reference import coarse_reference
from tests.support.fake_results import made, steady
from tests.support.tiny_sweeps import TINY, options, tiny, write_tiny

ROOT = Path(__file__).parents[2]
REPORTED = [table.parent for table in sorted((ROOT / "reports").glob("*/results.csv"))]
LONG = "x" * 600


def cells(*settings):
    return {
        str(i): {"model.name": "mine:net", "model.settings": each}
        for i, each in enumerate(settings)
    }


def test_of_an_own_part_s_settings_those_that_vary_are_its_label():
    found = labeled(
        cells({"width": 8, "note": LONG}, {"width": 4, "note": LONG}), ["model.settings"]
    )
    assert list(found.values()) == ["width 8", "width 4"]
    deep = labeled(cells({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}), ["model.settings"])
    assert list(deep.values()) == ["b 1", "b 3"]
    other = labeled(cells({"act": "tanh"}, {"act": "relu", "extra": 1}), ["model.settings"])
    assert list(other.values()) == ["tanh", "relu 1"]


def test_a_number_has_its_name_unless_it_follows_a_text_of_its_group(tmp_path):
    methods = [{"method": "euler", "steps": 8}, {"method": "rk4", "steps": 2}]
    sweep = tiny(tmp_path, grid={"model.augment_dim": [0, 2], "solver": methods})
    found = sorted({sweep.cell_label(trial) for trial in sweep.trials})
    assert found[:2] == ["augment_dim 0 euler 8", "augment_dim 0 rk4 2"]
    grid = {"model.field, model.width": [["simple", 8], ["linear", 16]], "solver.steps": [2, 4]}
    sweep = tiny(tmp_path, grid=grid)
    found = sorted({sweep.cell_label(trial) for trial in sweep.trials})
    assert found[0] == "width 16 linear steps 2"


def test_a_boolean_has_its_name():
    found = labeled(
        cells({"act": "tanh", "bias": True}, {"act": "relu", "bias": False}), ["model.settings"]
    )
    assert list(found.values()) == ["tanh bias True", "relu bias False"]


def test_a_figure_s_labels_are_short_and_no_two_alike():
    labels = [LONG, f"{LONG}y", f"{LONG}z", "short", "x" * 35 + "… (2)"]
    found = figure_labels(labels)
    assert len(set(found.values())) == len(labels)
    assert max(map(len, found.values())) <= LONGEST_DRAWN
    assert found["short"] == "short"
    assert found[LONG] == "x" * 39 + "…"


def test_a_figure_s_labels_are_no_formulas_and_none_is_hidden_from_its_legend():
    assert figure_labels(["$x_{$", "_mine:net"]) == {"$x_{$": r"\$x_{\$", "_mine:net": " _mine:net"}


def test_a_text_is_cut_with_an_ellipsis():
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "ab…")


def test_file_names_are_bounded_and_no_two_alike():
    values = [LONG, f"{LONG}y", "a/b", "a b", "A-B", "…", "../x", 0.5]
    found = file_names(values)
    assert len({name.lower() for name in found.values()}) == len(values)
    assert all(0 < len(name) <= 64 and "/" not in name for name in found.values())


def long_label_of_each(cells, _varying):
    """Labels of some 600 letters, of which the first 600 are alike."""
    return {key: f"${LONG}_{{{number}" for number, key in enumerate(cells)}


def test_long_labels_are_cut_in_a_sweep_s_figures_alone(tmp_path, monkeypatch):
    sweep = tiny(tmp_path, grid={"model.width": [2, 3]})
    monkeypatch.setattr("nodebench.sweep.sweep.labeled", long_label_of_each)
    drawn = sweep.drawn
    short = figure_labels(sweep.labels.values())
    assert drawn.labels == {key: short[label] for key, label in sweep.labels.items()}
    assert min(map(len, sweep.labels.values())) > len(LONG)
    assert drawn.trials == sweep.trials


@pytest.fixture
def long_labels(tmp_path, monkeypatch):
    """A trained sweep of two long labels."""
    grid = {"model.name, model.width": [["plainode", 4], ["plainode", 6]]}
    evaluate = {"methods": ["euler", "rk4"], "steps": [2, 4]}
    sweep, store = tiny(tmp_path, grid=grid, evaluate=evaluate), Store(tmp_path / "runs")
    with coarse_reference():
        for trial in sweep.trials:
            run_trial(trial, store, options(sweep, tmp_path))
    monkeypatch.setattr("nodebench.sweep.sweep.labeled", long_label_of_each)
    return sweep, store


@pytest.mark.usefixtures("rendered_figures")
def test_labels_of_600_letters_leave_a_report_with_all_its_figures(long_labels, tmp_path):
    problems = []
    page = write_report(*long_labels, tmp_path / "report", on_problem=problems.append)
    assert problems == []
    figures = {path.stem for path in (tmp_path / "report" / "figures").glob("*.svg")}
    assert {"accuracy", "loss", "robustness", "heat-map", "paths", "frontier"} <= figures
    assert LONG in page.read_text()  # tables have room
    assert "## Figures that failed" not in page.read_text()


def test_a_figure_that_fails_is_named_on_the_page_and_takes_nothing_else(tmp_path, monkeypatch):
    sweep, _ = made(tmp_path, steady)
    monkeypatch.setattr(pareto, "pareto_figure", lambda *_: 1 / 0)
    problems = []
    page = write_report(
        sweep, Store(tmp_path / "runs"), tmp_path / "report", on_problem=problems.append
    )
    assert problems == ["frontier: ZeroDivisionError: division by zero"]
    text = page.read_text()
    assert "## Figures that failed\n\n- frontier: ZeroDivisionError" in text
    assert "## Provenance" in text
    assert (tmp_path / "report" / "report.html").exists()


def test_a_run_says_which_figure_its_report_lacks_and_tries_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = tiny(tmp_path, grid={"model.width": [2, 3]}), Store(tmp_path / "runs")
    with monkeypatch.context() as patched:
        patched.setattr(pareto, "pareto_figure", lambda *_: 1 / 0)
        first = api.run(sweep, store, Monitor(), inline=True, track=False)
        assert first.published.undrawn == ["frontier: ZeroDivisionError: division by zero"]
    assert api.run(sweep, store, Monitor(), inline=True, track=False).published.undrawn == []
    assert (tmp_path / "reports" / "tiny" / "figures" / "frontier.svg").exists()


def test_two_weights_of_long_names_are_two_sweeps(tmp_path):
    path, names = write_tiny(tmp_path, base=TINY), set()
    for end in "ab":
        weights = tmp_path / f"{'w' * 100}{end}.pt"
        weights.write_bytes(b"")
        names.add(foreign(path, weights).name)
    assert len(names) == 2
    assert max(map(len, names)) == 64


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint-before.pt"])
def test_a_trials_weights_are_known_by_the_trial_wherever_they_are_named_from(
    name, tmp_path, monkeypatch
):
    path, own = write_tiny(tmp_path, base=TINY), tmp_path / "0123456789ab"
    own.mkdir()
    (own / name).write_bytes(b"")
    monkeypatch.chdir(own)
    expected = f"tiny-0123456789ab{name.removeprefix('checkpoint').removesuffix('.pt')}"
    assert foreign(path, Path(name)).name == foreign(path, own / name).name == expected


@pytest.mark.parametrize(
    ("paths", "headings_of_them"),
    [
        (["model.name", "model.norm", "solver.method", "solver.steps"],
         ["model", "norm", "solver", "steps"]),
        (["solver.method", "solver.tol", "gradient.solver.method", "gradient.solver.tol"],
         ["solver", "solver.tol", "gradient.solver", "gradient.solver.tol"]),
        (["model.norm.ode", "train.optimizer.lr", "data.name"], ["norm.ode", "lr", "data"]),
        (["gradient.norm", "model.norm"], ["gradient.norm", "model.norm"]),
    ],
)  # fmt: skip
def test_a_heading_is_as_short_as_is_clear(paths, headings_of_them):
    assert list(headings(paths).values()) == headings_of_them


def test_a_regularizer_s_weight_is_told_with_the_regularizer(tmp_path):
    sweep = tiny(tmp_path, grid={"train.regularize.kinetic.weight": [0.01, 0.1]})
    assert list(sweep.labels.values()) == ["kinetic.weight 0.01", "kinetic.weight 0.1"]
    weight, order = "train.regularize.taylor.weight", "train.regularize.taylor.order"
    sweep = tiny(tmp_path, grid={weight: [0.01, 0.1], order: [2, 3]})
    assert sweep.labels[sweep.trials[0].cell.key] == "taylor.weight 0.01 order 2"
    assert sweep.headings == {weight: "taylor.weight", order: "taylor.order"}


@pytest.mark.parametrize("folder", REPORTED, ids=lambda p: p.name)
def test_labels_of_committed_reports_stay(folder):
    """Scoreboards and comparisons find a report's cells by their labels."""
    sweep = load(folder / "sweep.yaml")
    labels = {trial.id: sweep.cell_label(trial) for trial in sweep.trials}
    with (folder / "results.csv").open(encoding="utf-8") as table:
        recorded = {row["id"]: row["cell"] for row in csv.DictReader(table)}
    known = labels.keys() & recorded.keys()
    assert known, "no trial of the report is one of its sweep's: nothing was compared"
    assert {i: labels[i] for i in known} == {i: recorded[i] for i in known}
