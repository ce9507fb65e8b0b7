from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from nodebench.errors import TrialOutcome
from nodebench.report.analysis.agreement import PublishedReading
from nodebench.report.analysis.columns import OUTCOME, TRIAL
from nodebench.report.analysis.published import (
    PublishedNumber,
    about,
    compared_number,
    compared_numbers,
    published_table,
    published_text,
    studies,
)
from nodebench.spec import TrialSpec
from nodebench.sweep import load
from nodebench.sweep.partial_cells import agrees

OURS = pd.Series([0.849, 0.85, 0.851])
SWEEPS = Path(__file__).parents[2] / "sweeps"
ENTRIES = [(sweep, entry) for sweep, study in studies().items() for entry in study.numbers]


def number(value: float | str, **fields: object) -> PublishedNumber:
    return PublishedNumber(cell={}, value=value, source="S0", **fields)


def said(theirs: PublishedNumber, ours: pd.Series[float] = OURS, obstacle: str = "") -> str:
    return compared_number("a cell", theirs, ours, obstacle).text


@pytest.mark.parametrize("name", studies())
def test_every_published_number_belongs_to_one_cell_of_its_sweep(name: str) -> None:
    sweep = load(SWEEPS / f"{name}.yaml")
    told = [entry for trial in sweep.trials for entry in about(name, trial.spec)]
    for entry in studies()[name].numbers:
        cells = {sweep.cell_label(t) for t in sweep.trials if agrees(t.spec, entry.cell)}
        assert len(cells) == 1, entry
        assert entry in told


@pytest.mark.parametrize(("sweep", "entry"), ENTRIES, ids=str)
def test_a_published_accuracy_is_a_share(sweep: str, entry: PublishedNumber) -> None:
    if entry.is_accuracy:
        assert 0.1 <= entry.number <= 1
    else:
        assert entry.number > 1


def test_no_cell_has_two_published_numbers_of_one_kind() -> None:
    for study in studies().values():
        kinds = [(str(sorted(entry.cell.items())), entry.what) for entry in study.numbers]
        assert len(set(kinds)) == len(kinds)


def test_a_small_sweep_shows_the_numbers_of_its_full_size() -> None:
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml", size="small")
    found = {sweep.cell_label(t): published_text(sweep.name, t.spec) for t in sweep.trials}
    assert found["resnet 6"] == "99.66"
    assert found["mlp"] == "98.4"


def test_a_medium_sweep_shows_the_numbers_of_its_full_size() -> None:
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml", size="medium")
    found = {sweep.cell_label(t): published_text(sweep.name, t.spec) for t in sweep.trials}
    assert found["resnet 6"] == "99.66"


def test_a_small_sweep_on_other_data_shows_no_published_numbers() -> None:
    for name in ("odenet4-normalization", "odenet10-normalization"):
        sweep = load(SWEEPS / f"{name}.yaml", size="small")
        assert {published_text(sweep.name, trial.spec) for trial in sweep.trials} == {""}


def test_a_published_number_is_shown_with_its_spread_or_how_it_was_found() -> None:
    cell = {"model.name": "resnet"}
    plain = PublishedNumber(cell=cell, value=0.987, spread=0.01, n=5, source="")
    assert str(plain) == "98.7 (s.d. 1, n = 5)"
    assert str(PublishedNumber(cell=cell, value=0.97, read_off=True, source="")) == "~97"
    limit = PublishedNumber(cell=cell, under="limit", value=0.5, source="")
    assert (str(limit), limit.what) == ("50", "test accuracy %, at the limit")


def test_a_published_best_epoch_stands_beside_the_best_epoch() -> None:
    """S4's Table 1 reports the epoch that tested best, in all six cells."""
    numbers = studies()["odenet10-normalization"].numbers
    assert [entry.metric for entry in numbers] == ["best_test_accuracy"] * 6
    sweep = load(SWEEPS / "odenet10-normalization.yaml")
    assert {published_text(sweep.name, trial.spec) for trial in sweep.trials} == {
        "76.2 †", "92.5 †", "92.6 †", "92.7 †", "93 †", "93.1 †",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (number(0.851, spread=0.001, n=3), "matches"),
        (number(0.854, n=5), "matches: a clear difference, but within the margin"),
        (number(0.90, spread=0.01, n=3), "differs"),
        (number(0.851, spread=0.01, n=3), "too uncertain to say: no number of our seeds would "
         "decide: the study's part alone is ± 2.48"),
        (number(0.858, n=50), "differs"),  # though by less than the margin, perhaps
        # By 5 seeds ± 2.776 * 0.001 * sqrt(1/5 + 1/5) = 0.0018, by 4 still ± 0.0021.
        (number(0.852, n=5, margin=0.004), "too uncertain to say: 5 of our seeds would decide"),
        (number(0.858, n=50, margin=0.02), "matches: a clear difference, but within the margin"),
        (number(0.849), "matches"),  # one training: 0.1 ± 0.5 points
        (number(0.86), "differs"),
        (number(0.849, read_off=True, margin=0.02), "matches"),  # 0.1 ± 1.5 points
        (number(0.849, read_off=True),
         "too uncertain to say: no number of our seeds would decide: "
         "the study's part alone is ± 1.2"),
        (number(20.0, metric="epoch_s"), "not comparable: another machine"),
        (number(0.851, not_comparable="another recipe"), "not comparable: another recipe"),
    ],
)  # fmt: skip
def test_a_published_number_has_a_reading_with_its_reason(theirs, text):
    assert said(theirs) == text


def test_our_spheres_differ_from_the_grid_search():
    ours = pd.Series([0.96, 0.963, 0.965, 0.967, 0.97])
    assert (ours.mean(), ours.std()) == (pytest.approx(0.965), pytest.approx(0.004, abs=3e-4))
    entry = next(e for e in studies()["spheres-solver"].numbers if e.cell.get("solver.steps") == 64)
    assert (entry.number, entry.spread, entry.n) == (0.987, 0.01, 5)
    assert compared_number("euler 64", entry, ours).reading is PublishedReading.DIFFERS


def test_a_mean_of_several_trainings_says_of_how_many():
    """Of the study with spreads and mean evaluations, five: an upper bound, which sources say."""
    means = [e for _, e in ENTRIES if e.spread is not None or e.metric == "nfe_forward_mean"]
    assert len(means) == 8
    assert {entry.n for entry in means} == {5}
    assert all("at most 5" in entry.source for entry in means)
    with pytest.raises(ValidationError, match="`spread` needs `n`"):
        number(0.9, spread=0.1)


def test_a_margin_of_a_count_is_a_share_of_it():
    assert number(100.5, metric="nfe_forward_mean").within == pytest.approx(10.05)
    assert number(100.5, metric="nfe_forward_mean", margin=0.2).within == pytest.approx(20.1)
    assert (number(0.9).within, number(0.9, margin=0.02).within) == (0.01, 0.02)
    assert number("577 K", metric="parameters").within is None


def test_numbers_read_off_a_figure_have_a_wider_margin():
    margins = [entry.within for _, entry in ENTRIES if entry.read_off]
    assert margins
    assert set(margins) == {0.02}


def test_incomparable_number_says_why():
    assert said(number(0.9), OURS[:0]) == "not run"
    assert said(number(0.9), OURS[:1]) == "not comparable: one seed"
    assert said(number(0.9), obstacle="the small form") == "not comparable: the small form"
    same = said(number(0.9), pd.Series([0.9, 0.9, 0.9]))
    assert same == "not comparable: every seed gives the same value (not tested)"
    assert compared_number("", number(0.9), OURS).difference == "-5.00 ± 0.50"
    assert compared_number("", number(0.9), OURS[:1]).difference == "-5.10"


def test_two_seeds_show_both_differences_instead_of_an_interval():
    accuracy = compared_number("", number(0.9), OURS[1:])
    assert accuracy.difference == "-4.95 (-5.00, -4.90)"
    count = number(21.9, n=5, metric="nfe_forward_mean")
    found = compared_number("", count, pd.Series([23.9, 21.4]))
    assert found.difference == "+0.75 (-0.5, +2)"
    assert compared_number("", number(0.9), pd.Series([0.85, 0.85])).difference == "-5.00"


@pytest.mark.parametrize(
    ("count", "printed", "word"),
    [
        (576_778, "577 K", "matches"),
        (208_010, "207 K", "differs"),
        (238_510, "0.24 M", "matches"),
        (601_482, "0.60 M", "matches"),  # which has two digits
        (551_000, "0.60 M", "differs"),
        (576_778, "0.60 M", "differs"),
        (232_970, "0.22 M", "differs"),
        (577_930, "577 K", "differs"),  # of CIFAR-10, where S1 prints MNIST's
    ],
)
def test_counts_of_parameters_match_to_the_digits_that_are_printed(count, printed, word):
    theirs = number(printed, metric="parameters")
    assert str(theirs) == printed
    assert said(theirs, pd.Series([float(count)]), "the small form") == word


@pytest.mark.parametrize("value", [0.60e6, "many", "0.60M", "1,000 K"])
def test_parameters_are_text_as_printed(value):
    with pytest.raises(ValidationError, match="`value`"):
        number(value, metric="parameters")


@pytest.mark.parametrize(("timed", "shown"), [({"timed_epoch_s": 3.0}, 3.0), ({}, 4.0)])
def test_seconds_are_those_of_the_timing_pass_where_there_was_one(timed, shown):
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml")
    rows = [
        {TRIAL: trial.id, OUTCOME: TrialOutcome.FINISHED, "epoch_s": 4.0, **timed}
        for trial in sweep.trials
    ]
    found = compared_numbers(sweep, pd.DataFrame(rows), pd.DataFrame())
    seconds = [each.ours for each in found if each.entry.metric == "epoch_s"]
    assert seconds
    assert {value for ours in seconds for value in ours} == {shown}


def test_published_numbers_are_a_table_with_their_margins():
    found = [
        compared_number("a", number(0.849, n=5), OURS), compared_number("b", number(21.9, n=5,
        metric="nfe_forward_mean"), pd.Series([20.0, 21.0, 22.0])),
        compared_number("c", number("577 K", metric="parameters"), pd.Series([576_778.0])),
    ]  # fmt: skip
    table = published_table(found)
    assert list(table["margin"]) == ["1", "2.19", "–"]
    assert list(table["published"]) == ["84.9 (n = 5)", "21.9 (n = 5)", "577 K"]


def test_the_perceptron_of_1998_is_not_compared_with_another_recipe():
    numbers = studies()["mnist-resnet-odenet"].numbers
    (accuracy,) = [e for e in numbers if e.cell == {"model.name": "mlp"} and e.is_accuracy]
    assert "1998" in accuracy.not_comparable


def test_one_stem_has_the_parameters_that_chen_et_al_print():
    """Residual: of the convolutional one, neither count would fit."""
    sweep = load(SWEEPS / "mnist-adjoint.yaml")
    assert {trial.settings["model.stem"] for trial in sweep.trials} == {"res"}


def test_the_table_s_cells_have_the_recipe_of_the_authors_later_script():
    def recipe(spec: TrialSpec) -> tuple[object, ...]:
        optimizer, schedule = spec.train.optimizer, spec.train.schedule
        assert spec.solver is None or (spec.solver.method, spec.solver.steps) == ("euler", 8)
        return (spec.model.width, spec.train.batch_size, spec.train.epochs, optimizer.lr,
                optimizer.momentum, tuple(schedule.at))  # fmt: skip

    sweep = load(SWEEPS / "odenet10-normalization.yaml")
    assert {recipe(t.spec) for t in sweep.trials} == {(64, 512, 350, 0.1, 0.9, (150, 250))}
    assert sweep.trials[0].spec.seed == 502
