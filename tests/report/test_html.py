"""report.html: the tables and figures of the page, the data of its charts, and nothing else."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from nodebench.report.analysis.findings import Findings
from nodebench.report.html import document
from nodebench.report.html.data import Explored
from nodebench.report.html.document import html_page, unpacked
from nodebench.report.html.measures import axes
from nodebench.report.page import write_report_folder
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.browser import needs_browser, told_by_browser
from tests.support.coarse_reference import coarse_reference
from tests.support.fake_results import made, steady
from tests.support.tiny_sweeps import TINY, options, tiny


class Elements(HTMLParser):
    """Every element of a page, as its tag and its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep of three configurations and two seeds, trained and evaluated, and its report."""
    folder = tmp_path_factory.mktemp("trained")
    evaluate = {"methods": ["euler", "rk4"], "steps": [1, 2, 4]}
    sweep = tiny(folder, grid={"solver.steps": [1, 2, 4]}, seeds=[0, 1], evaluate=evaluate)
    store = Store(folder / "runs")
    with coarse_reference():
        for trial in sweep.trials:
            run_trial(trial, store, options(sweep, folder))
        return sweep, store, write_report_folder(sweep, store, folder / "report").page.parent


def embedded(folder):
    """What the scripts of a report's page read."""
    text = (folder / "report.html").read_text()
    (content,) = re.findall(r'id="report-data">([^<]+)<', text)
    return json.loads(unpacked(content))


def without_scripts(folder):
    text = (folder / "report.html").read_text()
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_networks_that_were_not_trained_have_a_page(tmp_path):
    base = {**TINY, "train": {"iterations": 0, "batch_size": 16}}
    sweep, store = (
        tiny(tmp_path, base=base, grid={"solver.steps": [1, 2]}),
        Store(tmp_path / "runs"),
    )
    with coarse_reference():
        for trial in sweep.trials:
            run_trial(trial, store, options(sweep, tmp_path))
        report = write_report_folder(sweep, store, tmp_path / "report")
    assert report.undrawn == []
    assert {*embedded(report.page.parent)["rows"]["epochs"]["epoch"]} == {0}


def test_the_embedded_trials_are_those_of_results_csv(trained):
    _, _, folder = trained
    found = pd.DataFrame(embedded(folder)["rows"]["trials"])
    table = pd.read_csv(folder / "results.csv", dtype={"id": str})
    assert list(found) == list(table)
    for name in table:
        ours, theirs = found[name], table[name]
        if theirs.notna().any() and pd.api.types.is_numeric_dtype(theirs):
            assert np.array_equal(ours.astype(float), theirs.astype(float), equal_nan=True), name
        else:
            assert [str(v) for v in ours if v not in (None, "")] == [
                str(v) for v in theirs.dropna()
            ]


def test_embedded_curves_are_the_histories(trained):
    sweep, store, folder = trained
    rows = pd.DataFrame(embedded(folder)["rows"]["epochs"])
    for trial in sweep.trials:
        history = store.folder(trial.id).history()
        curve = rows[rows["trial_id"] == trial.id]
        assert list(curve["epoch"]) == [row["epoch"] for row in history]
        losses = [row["train_loss"] for row in history]
        np.testing.assert_allclose(curve["train_loss"], losses, rtol=1e-4)
        np.testing.assert_allclose(
            curve["so_far_s"], np.cumsum([row["epoch_s"] for row in history]), rtol=1e-4
        )


def test_a_configuration_is_the_mean_of_its_two_trials_with_a_line_between_them(trained):
    _, _, folder = trained
    rows = embedded(folder)["rows"]
    configurations, trials = (pd.DataFrame(rows[n]) for n in ("configurations", "trials"))
    for cell, own in trials.groupby("cell"):
        (row,) = configurations[configurations["cell"] == cell].to_dict("records")
        assert row["n"] == 2
        assert row["test_accuracy"] == pytest.approx(own["test_accuracy"].mean(), rel=1e-4)
        half = (own["test_accuracy"].max() - own["test_accuracy"].min()) / 2
        assert row["test_accuracy ±"] == pytest.approx(half, rel=1e-3, abs=1e-6)


def test_a_line_by_epoch_is_the_mean_over_two_seeds_with_a_band_between_them(trained):
    _, _, folder = trained
    rows = embedded(folder)["rows"]
    means, trials = (pd.DataFrame(rows[name]) for name in ("means_by_epoch", "epochs"))
    assert len(means) == len(trials) / 2
    for (cell, epoch), own in trials.groupby(["cell", "epoch"]):
        is_it = (means["cell"] == cell) & (means["epoch"] == epoch)
        [row] = means[is_it].to_dict("records")
        assert row["n"] == 2
        assert row["train_loss"] == pytest.approx(own["train_loss"].mean(), rel=1e-3)
        half = (own["train_loss"].max() - own["train_loss"].min()) / 2
        assert row["train_loss ±"] == pytest.approx(half, rel=1e-2, abs=1e-3)


def test_the_page_can_fetch_nothing(trained):
    _, _, folder = trained
    page = Elements((folder / "report.html").read_text())
    (policy,) = (each["content"] for each in page.of("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert not [a for tag in ("link", "iframe", "object", "base", "form") for a in page.of(tag)]
    assert [each["src"] for each in page.of("script") if "src" in each] == []
    assert all(each["src"].startswith("data:image/") for each in page.of("img"))
    assert "url(" not in without_scripts(folder)


def test_without_scripts_it_has_the_tables_and_figures_of_the_page(trained):
    _, _, folder = trained
    page = Elements(without_scripts(folder))
    text = (folder / "README.md").read_text()
    figures = re.findall(r"!\[[^\]]*\]\(figures/", text)
    assert len(page.of("img")) == len(figures) > 3
    tables = len(re.findall(r"^\|[:-]+\|", text, re.MULTILINE))
    assert len(page.of("table")) == tables + 1  # and that of single trials
    folded = [each for each in page.of("details") if each.get("class") == "static"]
    assert folded
    assert all("open" in each for each in folded)
    assert all("hidden" in each for each in page.of("figure"))


def test_a_static_figure_is_folded_with_its_caption_only_below_a_chart(tmp_path):
    under = "\n\n".join(
        ["# A", "## One", "![chart](chart:costs)", "![cost](figures/cost.svg)", "Its caption.",
         "More.", "## Two", "![cost](figures/cost-2.svg)", "Another caption."]
    )  # fmt: skip
    page = html_page(under, tmp_path, {}, ["cost"])
    (folded,) = re.findall(r"<details class=.*?</details>", page, re.DOTALL)
    assert "<summary>Static figure: cost</summary>" in folded
    assert folded.endswith("<p>Its caption.</p></details>")
    assert "<p>More.</p>" in page
    assert "<p>Another caption.</p>" in page


def test_the_table_of_trials_has_a_row_for_each_and_is_in_the_html_page_alone(trained):
    sweep, _, folder = trained
    part = without_scripts(folder).partition('<h2 id="trials">')[2].partition("<h2")[0]
    assert [trial.id for trial in sweep.trials] == re.findall(r"<td[^>]*>([0-9a-f]{12})</td>", part)
    assert "## Trials" not in (folder / "README.md").read_text()
    assert "chart:" not in (folder / "README.md").read_text()


def test_a_text_that_links_to_another_file_of_the_machine_does_not_take_it_along(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a key")
    about = f"See [this]({secret}), ![that]({secret}) and [these](../secret.txt)."
    sweep, _ = made(tmp_path / "sweep", steady, about=about)
    folder = tmp_path / "report"
    write_report_folder(sweep, Store(tmp_path / "sweep" / "runs"), folder)
    page = (folder / "report.html").read_text()
    assert base64.b64encode(b"a key").decode() not in page
    assert "data:text/csv" in page  # its own tables


def test_links_within_the_page_lead_to_headings(trained):
    _, _, folder = trained
    page = Elements(without_scripts(folder))
    targets = [each["href"] for each in page.of("a") if each["href"].startswith("#")]
    names = {each.get("id") for each in page.of("h2")}
    assert targets
    assert {target[1:] for target in targets} <= names


def test_there_is_a_chart_of_everything_that_was_measured(trained):
    sweep, store, _ = trained
    assert {*Explored(Findings(sweep, store)).charts} == {"costs", "epochs", "solvers"}


def test_axes_are_what_varies_with_the_headline_first(trained):
    sweep, store, _ = trained
    found = axes(Findings(sweep, store).results, sweep, always="test_accuracy")
    assert found[0].field == "test_accuracy"
    assert (found[0].format, found[0].least, found[0].most) == (".2~%", 0, 1)
    [loss] = (axis for axis in found if axis.field == "train_loss")
    assert (loss.least, loss.most) == (0, None)
    titles = {axis.field: axis.title for axis in found}
    assert titles["solver.steps"] == "steps"
    assert "parameters" not in titles  # the same in all trials
    assert "solver.method" not in titles


def test_long_trainings_are_thinned_evenly_and_keep_what_was_measured(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    history = [
        {"epoch": e, "iteration": e, "train_loss": 1 / e, "epoch_s": 1.0, "time": 0.0}
        | ({"test_accuracy": 0.5} if e % 100 == 0 else {})
        for e in range(1, 2001)
    ]
    store.folder(sweep.trials[0].id).write_history(history)
    rows = pd.DataFrame(Explored(Findings(sweep, store)).embedded()["rows"]["epochs"])
    assert 100 < len(rows) <= 150
    assert rows["test_accuracy"].notna().sum() == 20
    assert (rows["epoch"].iloc[0], rows["epoch"].iloc[-1]) == (1, 2000)
    assert rows["so_far_s"].iloc[-1] == 2000
    assert rows["epoch"].diff().max() <= 30


def test_charts_that_cannot_be_made_leave_a_static_page_and_are_named(tmp_path, monkeypatch):
    def missing():
        raise ImportError("no library")

    monkeypatch.setattr(document, "drawing_library", missing)
    sweep, _ = made(tmp_path, steady)
    report = write_report_folder(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    assert report.undrawn == ["charts of report.html: ImportError: no library"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "report-data" not in page
    assert "data:image/" in page


def test_a_label_is_text_whatever_it_contains(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    page = html_page("# <b>x</b>\n\n![a](a.svg) </script>", tmp_path, {"x": "</script>"})
    assert "<b>" not in page
    assert page.count("</script>") == page.count("<script")


USED = """
const table = document.querySelector("#trials ~ .table table");
const shown = () => [...table.rows].slice(1).filter((row) => !row.hidden);
const column = (n) => shown().map((row) => row.cells[n].textContent);
const heading = table.rows[0].cells[1];
const button = heading.querySelector("button");
button.focus();
told.focused = document.activeElement === button;
button.click(); button.click();
told.descending = column(1);
told.direction = heading.getAttribute("aria-sort");
const input = document.querySelector("#trials ~ .filter input");
const ask = (text) => {
  input.value = text;
  input.dispatchEvent(new Event("input"));
  return column(1);
};
told.filtered = ask("steps>1 seed=0");
told.excluded = ask("-finished");
ask("");
await until(() => document.documentElement.dataset.charts === "drawn");
const chart = document.querySelector("[data-chart=costs]");
const points = () => chart.querySelectorAll("svg .mark-symbol path").length;
const title = () => chart.querySelector("[aria-label*=' over ']").getAttribute("aria-label");
told.drawn = points();
const [x, y] = chart.querySelectorAll("select");
x.value = "solver.steps"; x.dispatchEvent(new Event("change"));
await until(() => title().endsWith("over steps"));
chart.querySelector("fieldset input").click();
await until(() => points() === 2);
told.title = title();
told.fewer = points();
told.folded = [...document.querySelectorAll("details.static")].every((each) => !each.open);
table.rows[1].querySelector("button").click();
const dialog = document.querySelector("dialog");
await until(() => dialog.querySelector("svg .mark-line path"));
told.dialog = dialog.open && dialog.textContent.includes("train.optimizer.lr");
const texts = (selector) => [...dialog.querySelectorAll(selector)].map((n) => n.textContent);
const numbers = texts("dd");
told.shown = ["started", "train_loss"].map((name) => numbers[texts("dt").indexOf(name)]);
told.epochs = texts(".role-axis-label text").filter((label) => !label.includes("%"));
"""


@needs_browser
def test_in_a_browser_tables_sort_and_filter_and_charts_are_drawn(trained, tmp_path):
    _, _, folder = trained
    told = told_by_browser(folder, USED, tmp_path)
    started, loss = told.pop("shown")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", started)
    assert float(loss) == float(f"{float(loss):.5g}")
    epochs = told.pop("epochs")
    assert epochs and all(label.isdecimal() for label in epochs)
    assert told == {
        "focused": True,
        "descending": ["4", "4", "2", "2", "1", "1"],
        "direction": "descending",
        "filtered": ["4", "2"],
        "excluded": [],
        "drawn": 3,
        "title": "Configurations: test accuracy over steps",
        "fewer": 2,
        "folded": True,
        "dialog": True,
    }
