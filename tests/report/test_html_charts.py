"""The chart of configurations in report.html, with networks that have no evaluations."""

import json
import re
import shutil
import subprocess

import pytest

from nodebench.report import notes
from nodebench.report.analysis.findings import Findings
from nodebench.report.html.data import Explored
from nodebench.report.page import write_report_folder
from nodebench.store import Result, Store
from tests.support.fake_results import made, steady
from tests.support.tiny_sweeps import tiny

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

IN_BROWSER = """
<script>
const until = async (is) => { while (!is()) await new Promise((next) => setTimeout(next, 50)); };
(async () => {
  await until(() => document.documentElement.dataset.charts === "drawn");
  const chart = document.querySelector("[data-chart=costs]");
  const marks = (kind) => chart.querySelectorAll(`svg .mark-${kind}.role-mark > *`).length;
  const told = { title: chart.querySelector("[aria-label*=' over ']").getAttribute("aria-label") };
  const count = () => [marks("symbol"), marks("rule")];
  told.all = count();
  const [first, ...others] = chart.querySelectorAll("fieldset input");
  others.forEach((box) => box.click());
  await until(() => marks("symbol") === 0);
  told.resnet = count();
  first.click(); others[0].click();
  await until(() => marks("symbol") === 1);
  told.odenet = count();
  document.body.dataset.told = JSON.stringify(told);
})();
</script>
"""


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


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_network_without_evaluations_is_a_line_across_the_chart(with_a_resnet, tmp_path):
    page = write_report_folder(*with_a_resnet, tmp_path / "report").page.with_name("report.html")
    page.write_text(page.read_text() + IN_BROWSER)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    (told,) = re.findall(r'<body data-told="([^"]*)"', done.stdout)
    assert json.loads(told.replace("&quot;", '"')) == {
        "title": "Configurations: test accuracy over NFE forward",
        "all": [2, 1],
        "resnet": [0, 1],
        "odenet": [1, 0],
    }
