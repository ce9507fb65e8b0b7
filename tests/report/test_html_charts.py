"""The charts of report.html: what Vega-Lite draws of their layers, and networks without NFE."""

import json
import re

import pandas as pd
import pytest
import vl_convert

from nodebench.report import notes
from nodebench.report.analysis.findings import Findings
from nodebench.report.html import charts
from nodebench.report.html.data import Explored
from nodebench.report.html.library import VEGA_LITE
from nodebench.report.page import write_report_folder
from nodebench.store import Result, Store
from tests.support.browser import needs_browser, told_by_browser
from tests.support.fake_results import made, steady
from tests.support.tiny_sweeps import tiny

LOW, HIGH = (
    {"x": x, "y": y, "low": y - 1, "high": y + 1, "own": x == 1, "method": "rk4"}
    | {"series": "a", "cell": "a"}
    for x, y in ((1, 2), (2, 3))
)  # fmt: skip
SCALES = {"x": {"field": "x", "type": "quantitative"}, "color": {"field": "series"}}


def svg_of(layers, *rows):
    """What Vega-Lite draws of layers, 100 units to an axis: from 0 to 4 (y) and to 2 (x)."""
    scales = {**SCALES, "x": {**SCALES["x"], "scale": {"domain": [0, 2]}}}
    layers = json.loads(
        json.dumps([*layers]).replace('"y": {', '"y": {"scale": {"domain": [0, 4]}, ')
    )
    spec = {
        "width": 100,
        "height": 100,
        "data": {"values": rows},
        "encoding": scales,
        "layer": layers,
    }
    return vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)


def drawn(layers, *rows):
    """The kind and the place of every mark that Vega-Lite draws of layers.

    Places have y downwards: a row at y = 3 lies at 25.
    """
    marks = re.findall(
        r'aria-roledescription="(rule mark|area mark|line mark|point)"'
        r'(?: transform="translate\(([^)]*)\)")?(?: x2="([^"]*)" y2="([^"]*)")?(?: d="(M[^A"]*)")?',
        svg_of(layers, *rows),
    )
    return [
        (kind.removesuffix(" mark"), place or path, *filter(None, end))
        for kind, place, *end, path in marks
    ]


def test_a_configuration_is_a_point_with_a_line_from_end_to_end_of_its_interval():
    assert drawn(charts.POINTS, LOW, HIGH) == [
        ("rule", "50,75", "0", "-50"),
        ("rule", "100,50", "0", "-50"),
        ("point", "50,50"),
        ("point", "100,25"),
    ]


def test_a_row_without_an_x_is_a_line_from_edge_to_edge():
    assert drawn(charts.ACROSS, {**LOW, "x": None}) == [("rule", "0,50", "100", "0")]


def test_a_configuration_s_means_by_epoch_are_a_line_in_a_band_of_its_intervals():
    band, line, *points = drawn(charts.LINES_BY_EPOCH, LOW, HIGH)
    assert band == ("area", "M50,75L100,50L100,0L50,25Z")
    assert line == ("line", "M50,50L100,25")
    assert points == [("point", "50,50"), ("point", "100,25")]


def test_a_line_by_epoch_of_a_single_point_is_that_point():
    svg = svg_of(charts.LINES_BY_EPOCH, {**LOW, "cell": "b"}, LOW, HIGH)
    points = [mark for mark in re.findall("<path[^>]*>", svg) if '"point"' in mark]
    assert ['opacity="0"' in mark for mark in points] == [False, True, True]


@pytest.mark.parametrize("of_one", ["cell", "trial_id"])
def test_configurations_and_trials_of_one_color_have_a_line_each(of_one):
    others = ({**row, of_one: "b", "y": row["y"] - 1} for row in (LOW, HIGH))
    lines = [mark for mark in drawn(charts.LINES_BY_EPOCH, LOW, HIGH, *others) if mark[0] == "line"]
    assert lines == [("line", "M50,50L100,25"), ("line", "M50,75L100,50")]


def test_under_other_solvers_a_circle_marks_the_training_solver():
    found = drawn(charts.LINES_BY_SOLVER, LOW, HIGH)
    points = [place for kind, place in (mark[:2] for mark in found) if kind == "point"]
    assert points == ["50,50", "100,25", "50,50"]
    assert [mark for mark in found if mark[0] == "rule"] == [
        ("rule", "50,75", "0", "-50"), ("rule", "100,50", "0", "-50"),
    ]  # fmt: skip


@pytest.fixture
def with_a_resnet(tmp_path):
    """A residual network, and two ODE nets that differ in their steps; one seed each."""
    grid = [{"model": ["resnet"]}, {"model": ["odenet"], "solver.steps": [2, 4]}]
    sweep = tiny(
        tmp_path, base={"data": "digits", "solver": {"method": "euler", "steps": 1}}, grid=grid
    )
    store = Store(tmp_path / "runs")
    for number, trial in enumerate(sweep.trials):
        summary = {"test_accuracy": 0.9 - number / 10, "epoch_s": 1.0 + number}
        if trial.spec.solver is not None:
            summary["nfe_forward"] = float(trial.spec.solver.steps)
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))
    return sweep, store


def test_a_note_says_what_a_line_across_the_chart_is_where_there_is_one(with_a_resnet, tmp_path):
    _, all_with_evaluations = made(tmp_path / "plain", steady)
    notes_of = [
        Explored(found).charts["costs"].note
        for found in (Findings(*with_a_resnet), all_with_evaluations)
    ]
    assert [notes.LINES_ACROSS in note for note in notes_of] == [True, False]


ACROSS = """
await until(() => document.documentElement.dataset.charts === "drawn");
const chart = document.querySelector("[data-chart=costs]");
const marks = (kind) => chart.querySelectorAll(`svg .mark-${kind}.role-mark > *`).length;
told.title = chart.querySelector("[aria-label*=' over ']").getAttribute("aria-label");
const count = () => [marks("symbol"), marks("rule")];
told.all = count();
const [first, ...others] = chart.querySelectorAll("fieldset input");
others.forEach((box) => box.click());
await until(() => marks("symbol") === 0);
told.resnet = count();
first.click(); others[0].click();
await until(() => marks("symbol") === 1);
told.odenet = count();
"""


@needs_browser
def test_a_network_without_evaluations_is_a_line_across_the_chart(with_a_resnet, tmp_path):
    report = write_report_folder(*with_a_resnet, tmp_path / "report").page.parent
    assert told_by_browser(report, ACROSS, tmp_path) == {
        "title": "Configurations: test accuracy over NFE forward",
        "all": [2, 1],
        "resnet": [0, 1],
        "odenet": [1, 0],
    }


SHARES = """
await until(() => document.documentElement.dataset.charts === "drawn");
const axis = document.querySelector("[data-chart=costs] [aria-label^='Y-axis']");
told.shares = axis.getAttribute("aria-label").match(/values from (.*) to (.*)$/).slice(1);
"""


@needs_browser
def test_an_axis_of_shares_ends_at_100_percent_where_an_interval_does_not(tmp_path):
    sweep, findings = made(tmp_path, lambda activation, steps, seed: (0.1, 0.5, 0.99)[seed])
    points = pd.DataFrame(Explored(findings).embedded()["rows"]["configurations"])
    halves = points["test_accuracy ±"]
    assert (points["test_accuracy"] + halves > 1).all()
    assert (points["test_accuracy"] - halves < 0).all()
    report = write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report").page.parent
    assert told_by_browser(report, SHARES, tmp_path) == {"shares": ["0%", "100%"]}
