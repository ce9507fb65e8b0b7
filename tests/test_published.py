from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from nodebench.expansion import agrees
from nodebench.report.published import Published, about, reading, shown, studies
from nodebench.sweep import load

OURS = pd.Series([0.84, 0.85, 0.86])  # 0.85 ± 0.0248
SWEEPS = Path(__file__).parent.parent / "sweeps"
ENTRIES = [(sweep, entry) for sweep, study in studies().items() for entry in study.numbers]


def number(value: float, **fields: object) -> Published:
    return Published(cell={}, value=value, source="S0", **fields)


@pytest.mark.parametrize("name", studies())
def test_every_published_number_belongs_to_one_cell_of_its_sweep(name: str) -> None:
    sweep = load(SWEEPS / f"{name}.yaml")
    for entry in studies()[name].numbers:
        cells = {sweep.cell_label(t) for t in sweep.trials if agrees(t.spec, entry.cell)}
        assert len(cells) == 1, entry
        assert any(entry in about(name, trial.spec) for trial in sweep.trials)


@pytest.mark.parametrize(("sweep", "entry"), ENTRIES, ids=str)
def test_a_published_accuracy_is_a_share(sweep: str, entry: Published) -> None:
    if entry.metric == "test_accuracy":
        assert 0.1 <= entry.value <= 1
    else:
        assert entry.value > 1


def test_no_cell_has_two_published_numbers_of_one_kind() -> None:
    for study in studies().values():
        kinds = [(str(sorted(entry.cell.items())), entry.what) for entry in study.numbers]
        assert len(set(kinds)) == len(kinds)


def test_a_small_sweep_shows_the_numbers_of_its_full_size() -> None:
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml", size="small")
    found = {sweep.cell_label(t): shown(sweep.name, t.spec) for t in sweep.trials}
    assert found["resnet 6"] == "99.66"
    assert found["mlp"] == "98.4"


def test_a_medium_sweep_shows_the_numbers_of_its_full_size() -> None:
    sweep = load(SWEEPS / "mnist-resnet-odenet.yaml", size="medium")
    found = {sweep.cell_label(t): shown(sweep.name, t.spec) for t in sweep.trials}
    assert found["resnet 6"] == "99.66"


def test_a_small_sweep_on_other_data_shows_no_published_numbers() -> None:
    for name in ("odenet4-normalization", "odenet10-normalization"):
        sweep = load(SWEEPS / f"{name}.yaml", size="small")
        assert {shown(sweep.name, trial.spec) for trial in sweep.trials} == {""}


def test_a_published_number_is_shown_with_its_spread_or_how_it_was_found() -> None:
    cell = {"model.name": "resnet"}
    plain = Published(cell=cell, value=0.987, spread=0.01, n=5, source="")
    assert str(plain) == "98.7 (s.d. 1, n = 5)"
    assert str(Published(cell=cell, value=0.97, read_off=True, source="")) == "~97"
    limit = Published(cell=cell, under="limit", value=0.5, source="")
    assert (str(limit), limit.what) == ("50", "test accuracy %, at the limit")


@pytest.mark.parametrize(
    ("theirs", "word"),
    [
        (number(0.86, spread=0.01, n=3), "matches"),
        (number(0.90, spread=0.01, n=3), "differs"),
        (number(0.88), "matches"),  # one more of our trainings: within 0.0497
        (number(0.91), "differs"),
        (number(0.905, read_off=True), "matches"),  # which may be off by 0.01
        (number(20.0, metric="epoch_s"), "not comparable: another machine"),
    ],
)
def test_a_published_number_matches_or_not(theirs, word):
    assert reading(theirs, OURS).word == word


def test_the_difference_of_means_is_welch_s():
    for theirs in (0.86, 0.87, 0.8705, 0.8716, 0.8717, 0.872, 0.875, 0.88, 0.89):
        welch = stats.ttest_ind_from_stats(0.85, 0.01, 3, theirs, 0.02, 5, equal_var=False)
        word = "matches" if welch.pvalue > 0.05 else "differs"
        assert reading(number(theirs, spread=0.02, n=5), OURS).word == word


def test_what_cannot_be_compared_says_why():
    assert reading(number(0.9), OURS[:0]).word == "not run"
    assert reading(number(0.9), OURS[:1]).word == "not comparable: one seed"
    assert reading(number(0.9), OURS, "the small form").word == "not comparable: the small form"
    found = reading(number(0.9), OURS)
    assert found.difference.startswith("-5 ± ")


@pytest.mark.parametrize(
    ("count", "published", "word"),
    [(576_778, 577e3, "matches"), (208_010, 207e3, "differs"), (238_510, 0.24e6, "matches")],
)
def test_counts_of_parameters_match_to_the_digits_that_are_published(count, published, word):
    theirs = number(published, metric="parameters")
    assert reading(theirs, pd.Series([float(count)])).word == word
