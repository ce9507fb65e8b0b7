"""Cells beside the baseline, claims, and the answer, on made-up results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nodebench.errors import InputError, SweepError
from nodebench.outcomes import compare, write_report
from nodebench.report import comparison_tables
from nodebench.report.answer import answer
from nodebench.report.comparisons import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    against_baseline,
    checked_claims,
    partner,
)
from nodebench.report.findings import Findings
from nodebench.store import Store
from nodebench.sweep import Sweep, load
from nodebench.trial_folder import Result
from sweeps import TINY, tiny, write_tiny

GRID = {"model.activation": ["relu", "tanh"], "solver.steps": [2, 8]}


def made(folder: Path, accuracy: Any, seeds: int = 3, **fields: Any) -> tuple[Sweep, Findings]:
    """A sweep whose trials' accuracies are given by (activation, steps, seed); None: missing."""
    sweep = tiny(folder, grid=GRID, seeds=list(range(seeds)), **fields)
    store = Store(folder / "runs")
    for trial in sweep.trials:
        value = accuracy(trial.spec.model.activation, trial.spec.solver.steps, trial.spec.seed)
        if value is None:
            continue
        folder_of = store.folder(trial.id)
        folder_of.create(trial)
        summary = {"test_accuracy": value, "epoch_s": 1.0, "nfe_forward": trial.spec.solver.steps}
        outcome = "diverged" if value == "diverged" else "finished"
        result = Result(outcome, "", 1, {} if value == "diverged" else summary, [], 0, 1)
        folder_of.write_result(result)
    return sweep, Findings(sweep, store)


def steady(activation: str, steps: int, seed: int) -> float:
    """Tanh is better by 0.1 at 8 steps, and by chance at 2; seeds differ more than cells."""
    better = {("tanh", 8): 0.1, ("tanh", 2): (0.04, -0.05, 0.02)[seed % 3]}
    wobble = (0.0, 0.001, 0.002)[seed % 3]
    return 0.5 + 0.1 * seed + better.get((activation, steps), 0.0) + wobble * (steps == 8)


def test_a_cell_is_compared_with_the_one_that_is_else_the_same(tmp_path):
    sweep, found = made(tmp_path, steady, baseline={"model.activation": "relu"})
    fine, coarse = found.compared[1], found.compared[0]
    assert [(c.cell, c.baseline) for c in found.compared] == [
        ("tanh 2", "relu 2"),
        ("tanh 8", "relu 8"),
    ]
    assert fine.difference.mean == pytest.approx(0.1)
    assert (fine.reading, coarse.reading) == ("better", "no clear difference")
    assert fine.p < 0.001 <= coarse.p
    table = comparison_tables.baseline(sweep, found.compared)
    assert table["difference %"].tolist()[1] == "+10.00"
    assert table["p (Holm)"].tolist()[1] == "< 0.001"


def test_a_cell_that_is_worse_says_so(tmp_path):
    _, found = made(tmp_path, steady, baseline={"model.activation": "tanh"})
    assert {c.cell: c.reading for c in found.compared}["relu 8"] == "worse"


def test_too_few_seeds_are_not_tested(tmp_path):
    _, found = made(tmp_path, steady, seeds=2, baseline={"model.activation": "relu"})
    assert [c.reading for c in found.compared] == ["too few seeds"] * 2


def test_a_trial_that_did_not_finish_is_no_pair(tmp_path):
    def broken(activation: str, steps: int, seed: int) -> float | str | None:
        if activation == "tanh" and seed == 1:
            return "diverged" if steps == 8 else None
        return steady(activation, steps, seed)

    _, found = made(tmp_path, broken, baseline={"model.activation": "relu"})
    assert [c.difference.n for c in found.compared] == [2, 2]


def test_a_cell_with_several_partners_has_none(tmp_path):
    sweep, _ = made(tmp_path, steady)
    assert partner(sweep, sweep.trials[0], {"model.width": 4}) is not None  # itself
    assert partner(sweep, sweep.trials[0], {"data.name": "spheres"}).id == sweep.trials[0].id
    assert partner(sweep, sweep.trials[0], {"model.activation": "sigmoid"}) is None


# ------------------------------------------------------------------------------------ claims


def claimed(tmp_path: Path, accuracy: Any = steady, seeds: int = 3, **claim: Any) -> Any:
    _, found = made(tmp_path, accuracy, seeds, claims=[{"says": "it is so", **claim}])
    [checked] = found.checked
    return checked


TANH, RELU = {"model.activation": "tanh"}, {"model.activation": "relu"}
FINE = {"solver.steps": 8}


@pytest.mark.parametrize(
    ("claim", "result"),
    [
        ({"of": {**TANH, **FINE}, "above": RELU}, REPRODUCED),
        ({"of": {**TANH, **FINE}, "above": RELU, "by": 0.05}, REPRODUCED),
        ({"of": {**TANH, **FINE}, "above": RELU, "by": 0.2}, NOT_REPRODUCED),
        ({"of": {**RELU, **FINE}, "above": TANH}, NOT_REPRODUCED),  # false, and found to be
        ({"of": {**RELU, **FINE}, "above": TANH, "by": -0.11}, REPRODUCED),
        ({"of": {**RELU, **FINE}, "below": TANH}, REPRODUCED),
        ({"of": TANH, "above": RELU}, NOT_REPRODUCED),  # not in every cell that it is about
        ({"of": {**TANH, **FINE}, "near": 0.7, "within": 0.01}, REPRODUCED),
        ({"of": {**TANH, **FINE}, "near": 0.8, "within": 0.01}, NOT_REPRODUCED),
        ({"of": FINE, "metric": "nfe_forward", "above": 7}, REPRODUCED),
        ({"of": FINE, "metric": "drop", "above": 0}, NOT_RUN),
    ],
)
def test_a_claim_is_reproduced_or_not(tmp_path, claim, result):
    assert claimed(tmp_path, **claim).result == result


def test_what_holds_on_average_but_within_the_doubt_is_not_reproduced(tmp_path):
    checked = claimed(tmp_path, of={**TANH, "solver.steps": 2}, above=RELU, by=-0.01)
    assert checked.result == NOT_REPRODUCED
    assert "within the doubt" in checked.numbers[0]


def test_one_seed_is_judged_by_its_number(tmp_path):
    checked = claimed(tmp_path, seeds=1, of={**TANH, **FINE}, above=RELU)
    assert (checked.result, checked.numbers) == (
        REPRODUCED,
        ("tanh 8: 10.00 % (n = 1) more than relu 8",),
    )


def test_a_claim_about_what_has_not_run_is_not_judged(tmp_path):
    def only_relu(activation: str, steps: int, seed: int) -> float | None:
        return steady(activation, steps, seed) if activation == "relu" else None

    assert claimed(tmp_path, only_relu, of={**TANH, **FINE}, above=RELU).result == NOT_RUN


def test_a_claim_of_speed_wants_seconds_that_compare(tmp_path):
    claim = {"says": "slow", "of": {"solver.steps": 4}, "metric": "timed_epoch_s"}
    claim["above"] = {"solver.steps": 2}
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, claims=[claim])
    store = Store(tmp_path / "runs")
    machine = {"hardware": "abacus", "device": "cpu", "threads": 1, "torch": "2", "time": 1.0}
    for trial in sweep.trials:
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 1, {"epoch_s": 9.0}, [], 0, 1))
    assert Findings(sweep, store).checked[0].result == NOT_RUN
    for trial, seconds in zip(sweep.trials, (1.0, 2.5), strict=True):
        store.folder(trial.id).add_timing({**machine, "timed_epoch_s": seconds})
    (checked,) = Findings(sweep, store).checked
    assert checked.result == REPRODUCED
    assert checked.numbers == ("steps 4: 1.50 (n = 1) more than steps 2",)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"above": 1, "below": 2}, "needs one of `above`, `below` and `near`"),
        ({}, "needs one of `above`, `below` and `near`"),
        ({"near": 0.5}, "`near` goes with `within`"),
        ({"above": 1, "metric": "test_acuracy"}, "Did you mean `test_accuracy`"),
        ({"above": 1, "of": {"model.widht": 4}}, "Did you mean `model.width`"),
        ({"above": {"model.activation": "sigmoid"}}, "agrees with no trial"),
        ({"above": 50}, "accuracies are shares of 1: 0.5 is 50 %"),
        ({"near": 0.5, "within": 0.1, "by": 0.1}, "`by` goes with `above` or `below`"),
    ],
)
def test_a_mistake_in_a_claim_is_named(tmp_path, claim, message):
    with pytest.raises(SweepError, match=message) as caught:
        tiny(tmp_path, grid=GRID, claims=[{"says": "so", **claim}])
    assert "claims[0]" in str(caught.value)


def test_a_baseline_that_no_trial_has_is_a_mistake(tmp_path):
    with pytest.raises(SweepError, match="baseline: agrees with no trial"):
        tiny(tmp_path, grid=GRID, baseline={"model.width": 1000})


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([29.0, 31.0], "30.0 ± 12.7"),
        ([1234.0], "1234"),
        ([0.00123, 0.00125], "0.001240 ± 0.000127"),
    ],
)
def test_a_claims_number_has_the_digits_of_its_interval(tmp_path, numbers, shown):
    claim = {"says": "so", "metric": "nfe_forward", "above": 0}
    sweep, store = tiny(tmp_path, seeds=list(range(len(numbers))), claims=[claim]), Store(tmp_path)
    for trial, number in zip(sweep.trials, numbers, strict=True):
        store.folder(trial.id).create(trial)
        result = Result("finished", "", 1, {"test_accuracy": 0.5, "nfe_forward": number}, [], 0, 1)
        store.folder(trial.id).write_result(result)
    (checked,) = Findings(sweep, store).checked
    assert f": {shown} (n = {len(numbers)})" in checked.numbers[0]


# ------------------------------------------------------------------------------------ answer


def test_the_answer_names_what_is_no_better_than_chance(tmp_path):
    summary = {"chance": 0.5}
    sweep, store = tiny(tmp_path, grid={"solver.steps": [2, 4]}), Store(tmp_path / "runs")
    for trial, accuracy in zip(sweep.trials, (0.505, 0.52), strict=True):
        store.folder(trial.id).create(trial)
        made = Result("finished", "", 1, {**summary, "test_accuracy": accuracy}, [], 0, 1)
        store.folder(trial.id).write_result(made)
    assert "No better than chance, to within 1 %: `steps 2`." in answer(Findings(sweep, store))


def test_the_answer_tells_the_best_the_baseline_and_the_claims(tmp_path):
    claims = [
        {"says": "yes", "of": {**TANH, **FINE}, "above": RELU},
        {"says": "no", "of": {**RELU, **FINE}, "above": TANH},
    ]
    _, found = made(tmp_path, steady, claims=claims, baseline=RELU)
    text = answer(found)
    assert "The highest test accuracy is that of `tanh 8`, 70.10 ± " in text
    assert "next is `tanh 2`" in text
    assert "Of 2 compared with the baseline, 1 better and 1 without a clear difference." in text
    assert "Of the claims stated: 1 reproduced and 1 not reproduced." in text


def test_there_is_nothing_to_answer_before_anything_has_finished(tmp_path):
    sweep = tiny(tmp_path, grid=GRID, baseline=RELU)
    assert answer(Findings(sweep, Store(tmp_path / "runs"))) == ""


def test_the_front_is_of_what_none_surpasses(tmp_path):
    _, found = made(tmp_path, steady)
    front = found.frontier.set_index("cell")
    assert front["front_nfe"].to_dict() == {
        "relu 2": False,
        "relu 8": False,
        "tanh 2": True,
        "tanh 8": True,
    }
    assert isinstance(found.frontier, pd.DataFrame)
    assert checked_claims(found.sweep, found.results) == []
    assert against_baseline(found.sweep, found.results) == []


def test_the_page_says_what_was_set_and_that_it_is_the_small_form(tmp_path):
    data = {"name": "spheres", "train_size": 64, "test_size": 32}
    fields = {"grid": GRID, "limits": {"nfe": 500}, "base": {**TINY, "data": data}}
    sweep = load(write_tiny(tmp_path, "tiny-small", **fields))
    page = write_report(sweep, Store(tmp_path / "runs"), tmp_path / "report").read_text()
    assert "data.test_size 32" in page
    assert "model.width 4" in page
    assert "limits.nfe 500" in page
    assert "model.activation" not in page.partition("Alike")[2].partition("\n")[0]
    assert "**This is the small form of the sweep" in page


def test_the_same_store_gives_the_same_bytes(tmp_path):
    sweep, _ = made(tmp_path, steady, baseline=RELU)
    store = Store(tmp_path / "runs")
    for name in ("one", "other"):
        write_report(sweep, store, tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert {"README.md", "report.html", "results.csv"} <= set(map(str, files))
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_the_html_page_needs_nothing_beside_it(tmp_path):
    sweep, _ = made(tmp_path, steady, baseline=RELU)
    write_report(sweep, Store(tmp_path / "runs"), tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text()
    assert 'src="figures' not in text
    assert 'href="results.csv"' not in text
    assert text.count("data:image/svg+xml;base64,") >= 1
    assert 'download="results.csv"' in text
    assert "<td" in text
    assert "| cell" not in text


# ----------------------------------------------------------------------------------- compare


def test_two_stores_of_one_sweep_are_compared_cell_by_cell(tmp_path):
    for name, better in (("before", 0.0), ("after", 0.1)):
        folder = tmp_path / name
        folder.mkdir()

        def accuracy(activation, steps, seed, better=better):
            return steady(activation, steps, seed) + better * (activation == "relu")

        sweep, _ = made(folder, accuracy)
        write_report(sweep, Store(folder / "runs"), folder / "report")
    sides = [str(tmp_path / name / "report") for name in ("before", "after")]
    text = compare(*sides, Store(tmp_path / "none"))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "+10.00 ± 0.00" in lines["relu 8"]
    assert "better" in lines["relu 8"]
    assert "the same" in lines["tanh 2"]


def finished(folder, **fields):
    """The report folder of a sweep whose trials all have the accuracy 0.5 + seed / 10."""
    folder.mkdir()
    sweep, store = tiny(folder, **fields), Store(folder / "runs")
    for trial in sweep.trials:
        store.folder(trial.id).create(trial)
        summary = {"test_accuracy": 0.5 + trial.spec.seed / 10}
        store.folder(trial.id).write_result(Result("finished", "", 1, summary, [], 0, 1))
    write_report(sweep, store, folder / "report")
    return str(folder / "report")


def test_cells_that_only_one_side_tells_apart_are_not_mixed(tmp_path):
    seeds = [0, 1, 2]
    plain = finished(tmp_path / "plain", seeds=seeds)
    grid = {"gradient": ["backprop", {"name": "adjoint", "norm": "seminorm"}]}
    both = finished(tmp_path / "both", seeds=seeds, grid=grid)
    rows = [line for line in compare(plain, both).splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 1
    assert rows[0].split("|")[1].strip() == "backprop"
    assert rows[0].count("60.00 ± 24.84") == 2
    assert "the same" in rows[0]


def test_a_report_beside_itself_has_both_columns(tmp_path):
    one = finished(tmp_path / "one")
    heading = next(line for line in compare(one, one).splitlines() if line.startswith("| cell"))
    assert [name.strip() for name in heading.split("|")[2:4]] == ["from", "to"]


def test_sweeps_that_share_no_cell_are_told_what_sets_them_apart(tmp_path):
    one, other = (
        finished(tmp_path / str(steps), grid={"solver.steps": [steps]}) for steps in (2, 4)
    )
    with pytest.raises(InputError, match=r"`solver\.steps` is 2\.0 in the one, 4\.0 in the other"):
        compare(one, other)


def test_what_is_in_one_of_two_is_named(tmp_path):
    for name, grid in (("a", {"solver.steps": [2, 4]}), ("b", {"solver.steps": [4, 8]})):
        finished(tmp_path / name, grid=grid)
    text = compare(str(tmp_path / "a" / "report"), str(tmp_path / "b" / "report"))
    assert f"Only in {tmp_path / 'a' / 'report'}: steps 2." in text
    assert f"Only in {tmp_path / 'b' / 'report'}: steps 8." in text


def test_what_cannot_be_compared_is_named(tmp_path):
    with pytest.raises(InputError, match="is neither a sweep, nor a report's folder"):
        compare(str(tmp_path / "nothing"), str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="HEAD:nowhere"):
        compare("HEAD:nowhere", "HEAD:nowhere")
