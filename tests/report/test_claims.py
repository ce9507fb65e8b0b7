from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nodebench.api import write_report
from nodebench.errors import SweepError
from nodebench.report.analysis.baseline import partners, trial_of_each_cell
from nodebench.report.analysis.claims import Judgement, checked_claims, claims_table
from nodebench.report.analysis.columns import CELL
from nodebench.report.analysis.findings import Findings
from nodebench.store import Result, Store
from nodebench.sweep import load
from nodebench.sweep.partial_cells import agrees
from tests.support.fake_results import FINE, GRID, RELU, TANH, made, steady
from tests.support.tiny_sweeps import TINY, tiny, write_tiny

SWEEPS = Path(__file__).parents[2] / "sweeps"
HOLDS, FAILS, UNDECIDED, NOT_RUN = (
    Judgement.HOLDS, Judgement.FAILS, Judgement.UNDECIDED, Judgement.NOT_RUN
)  # fmt: skip


def claimed(tmp_path: Path, accuracy: Any = steady, seeds: int = 3, **claim: Any) -> Any:
    _, found = made(tmp_path, accuracy, seeds, claims=[{"says": "it is so", **claim}])
    [checked] = found.checked
    return checked


@pytest.mark.parametrize(
    ("claim", "judgement"),
    [
        ({"of": {**TANH, **FINE}, "above": RELU}, HOLDS),
        ({"of": {**TANH, **FINE}, "above": RELU, "by": 0.05}, HOLDS),
        ({"of": {**TANH, **FINE}, "above": RELU, "by": 0.2}, FAILS),
        ({"of": {**RELU, **FINE}, "above": TANH}, FAILS),  # false, and found to be
        ({"of": {**RELU, **FINE}, "above": TANH, "by": -0.11}, HOLDS),
        ({"of": {**RELU, **FINE}, "below": TANH}, HOLDS),
        ({"of": TANH, "above": RELU, "by": 0.05}, UNDECIDED),  # in one cell of two
        ({"of": TANH, "above": RELU, "by": 0.15}, FAILS),  # in one, while the other is undecided
        ({"of": TANH, "above": RELU}, UNDECIDED),
        ({"of": {**TANH, **FINE}, "near": 0.7, "within": 0.3}, HOLDS),
        ({"of": {**TANH, **FINE}, "near": 0.1, "within": 0.1}, FAILS),
        ({"of": FINE, "metric": "nfe_forward", "above": 7}, HOLDS),
        ({"of": FINE, "metric": "nfe_forward", "above": 8}, FAILS),
        ({"of": FINE, "metric": "drop", "above": 0}, NOT_RUN),
    ],
)
def test_a_claim_holds_or_not(tmp_path, claim, judgement):
    assert claimed(tmp_path, **claim).judgement is judgement


def test_what_is_within_the_doubt_is_undecided_on_both_sides(tmp_path):
    """A claim is not refuted by seeds that say little either."""
    coarse = {**TANH, "solver.steps": 2}  # 0.33 ± 11.7 points more than relu
    for number, by in enumerate((-0.01, 0.01)):
        checked = claimed(tmp_path / str(number), of=coarse, above=RELU, by=by)
        assert checked.judgement is UNDECIDED
    for number, near in enumerate((0.7, 0.8)):  # 0.701 ± 0.25
        checked = claimed(tmp_path / f"near {number}", of={**TANH, **FINE}, near=near, within=0.01)
        assert checked.judgement is UNDECIDED


def test_the_same_difference_in_every_pair_says_that_it_was_not_tested(tmp_path):
    def apart(activation: str, _steps: int, seed: int) -> float:
        return (0.95 if activation == "tanh" else 0.45) + 0.01 * seed

    checked = claimed(tmp_path, apart, of={**TANH, **FINE}, above=RELU, source="S0")
    assert checked.text == "reproduced, the same in every seed (not tested)"
    assert checked.numbers == ("tanh steps 8: 50.00 points more than relu steps 8 (n = 3)",)


def test_a_line_without_a_source_is_an_expectation(tmp_path):
    lines = [
        {"says": "theirs", "source": "S0, Table 1", "of": {**TANH, **FINE}, "above": RELU},
        {"says": "ours", "of": {**RELU, **FINE}, "above": TANH},
    ]
    sweep, found = made(tmp_path, steady, claims=lines)
    claimed, expected = (claims_table([checked]).to_dict("records") for checked in found.checked)
    assert {"claim": "theirs", "source": "S0, Table 1"}.items() <= claimed[0].items()
    assert {"expectation": "ours", "result": "not met"}.items() <= expected[0].items()
    assert claimed[0]["result"] == "reproduced"
    page = write_report(sweep, Store(tmp_path / "runs"), tmp_path / "report").read_text()
    assert page.index("| reproduced |") < page.index("## Expectations") < page.index("**not met**")


def test_one_seed_is_judged_by_its_number(tmp_path):
    def apart(activation: str, _steps: int, _seed: int) -> float:
        return 0.9 if activation == "tanh" else 0.6

    checked = claimed(tmp_path, apart, seeds=1, of={**TANH, **FINE}, above=RELU, source="S0")
    assert (checked.text, checked.numbers) == (
        "reproduced by one seed",
        ("tanh steps 8: 30.00 points more than relu steps 8 (n = 1)",),
    )


@pytest.mark.parametrize(
    ("claim", "test_size", "judgement"),
    [
        # 10 points more than 50 %: 1.96 √((0.6 · 0.4 + 0.5 · 0.5) / N) is 24.3 points for 32.
        ({"of": {**TANH, **FINE}, "above": RELU}, 32, UNDECIDED),
        ({"of": {**TANH, **FINE}, "above": RELU}, 200, HOLDS),  # 9.7 points
        ({"of": {**TANH, **FINE}, "below": RELU}, 32, UNDECIDED),
        ({"of": {**TANH, **FINE}, "below": RELU}, 200, FAILS),
        ({"of": {**TANH, **FINE}, "above": 0.5}, 80, UNDECIDED),  # 60 ± 10.7 %
        ({"of": {**TANH, **FINE}, "above": 0.5}, 100, HOLDS),  # 60 ± 9.6 %
        ({"of": FINE, "metric": "nfe_forward", "above": 7}, 32, HOLDS),
    ],
)
def test_what_other_test_samples_could_overturn_is_undecided_by_one_seed(
    tmp_path, claim, test_size, judgement
):
    base = {**TINY, "data": {**TINY["data"], "test_size": test_size}}
    lines = [{"says": "so", **claim}]
    _, found = made(tmp_path, steady, seeds=1, base=base, claims=lines)
    [checked] = found.checked
    assert checked.judgement is judgement
    if judgement is UNDECIDED:
        assert checked.text == "undecided, within the sampling error of its test samples"


@pytest.mark.parametrize(
    ("test_size", "own", "judgement"),
    [
        (20, 1.0, UNDECIDED),  # 20 of 100 lost, none gained: 1.96 √((0.2 - 0.04) / 20) is 17.5 %
        (None, 1.0, HOLDS),  # of CIFAR-10's 10,000: 0.8 %
        (200, 1.0, HOLDS),  # 5.5 %
        (200, 0.7, UNDECIDED),  # up to 30 % were wrong and became right: 11.7 %
    ],
)
def test_the_sampling_error_of_a_drop_counts_the_samples_lost_and_gained(
    tmp_path, test_size, own, judgement
):
    evaluate = {"methods": ["rk4"], "steps": [4], "test_size": test_size}
    claim = {"says": "so", "metric": "drop", "above": 0.1}
    base = {**TINY, "data": "cifar10", "model": {"name": "odenet4", "width": 16}}
    sweep = tiny(tmp_path, base=base, evaluate=evaluate, claims=[claim])
    cell = sweep.cell_label(sweep.trials[0])
    row = {CELL: cell, "seed": 0, "drop": 0.2, "own": own, "verdict": "ResNet in disguise"}
    [checked] = checked_claims(sweep, pd.DataFrame([row]).assign(outcome="finished"))
    assert checked.judgement is judgement


@pytest.mark.parametrize("above", [0.4, 0.9])
def test_a_claim_does_not_hold_by_the_seeds_that_did_not_fail(tmp_path, above):
    def failing(_activation: str, _steps: int, seed: int) -> float | str:
        return "diverged" if seed == 2 else 0.6 + seed / 100

    checked = claimed(tmp_path, failing, 4, of={**TANH, **FINE}, above=above, source="S0")
    assert checked.numbers[0].endswith("% (n = 3 of 4)")
    if above == 0.4:
        assert checked.judgement is UNDECIDED
        assert checked.text == "undecided since some seeds have no value"
    else:
        assert checked.judgement is FAILS  # whatever the failed seed had been


def test_a_drop_is_not_claimed_to_be_small_where_the_limit_failed(tmp_path):
    claim = {"says": "so", "metric": "drop", "below": 0.1}
    sweep = tiny(tmp_path, seeds=[0, 1, 2, 3], claims=[claim])
    row = {CELL: sweep.cell_label(sweep.trials[0]), "outcome": "finished", "own": 0.9}
    kept = [{**row, "seed": n, "drop": 0.01 + n / 1000, "verdict": "ODE"} for n in range(3)]
    failed = {**row, "seed": 3, "drop": None, "verdict": "undecided"}
    for rows, judgement in ((kept, HOLDS), ([*kept, failed], UNDECIDED), ([failed], UNDECIDED)):
        [checked] = checked_claims(sweep, pd.DataFrame(rows))
        assert checked.judgement is judgement


def test_a_cell_is_not_compared_with_itself(tmp_path):
    checked = claimed(tmp_path, of={}, above=RELU, by=-0.2)
    assert checked.judgement is HOLDS
    assert [text.partition(":")[0] for text in checked.numbers] == ["tanh steps 2", "tanh steps 8"]


def test_a_claim_by_one_seed_or_in_the_small_form_says_so(tmp_path):
    claim = {"says": "so", "of": TANH, "above": 0, "source": "S0"}
    fields = {
        "claims": [claim, {**claim, "below": 0.1, "above": None}],
        "small": {"solver.steps": [2]},
    }
    write_tiny(tmp_path, grid=GRID, **fields)
    sweep, store = load(tmp_path / "tiny.yaml", size="small"), Store(tmp_path / "runs")
    for trial in sweep.trials:
        ended = Result("finished", "", 1, {"test_accuracy": 0.5}, [], 0, 1)
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(ended)
    page = write_report(sweep, store, tmp_path / "report").read_text()
    both = "1 reproduced by one seed and 1 not reproduced by one seed"
    assert f"**[Claims](#claims):** {both} (in the small form)." in page
    assert "**The conditions are not those of the full sweep: run in the small form.**" in page
    assert "| reproduced by one seed " in page


def test_a_claim_about_what_has_not_run_is_not_judged(tmp_path):
    def only_relu(activation: str, steps: int, seed: int) -> float | None:
        return steady(activation, steps, seed) if activation == "relu" else None

    missing = claimed(tmp_path, only_relu, of={**TANH, **FINE}, above=RELU)
    assert (missing.judgement, missing.text) == (NOT_RUN, "not run")


def test_one_cell_is_enough_to_refute_a_claim(tmp_path):
    def without_coarse(activation: str, steps: int, seed: int) -> float | None:
        return steady(activation, steps, seed) if steps == 8 else None

    assert claimed(tmp_path, without_coarse, of=RELU, above=TANH).judgement is FAILS
    assert claimed(tmp_path / "true", without_coarse, of=TANH, above=RELU).judgement is NOT_RUN


def test_a_claim_of_speed_wants_seconds_that_compare(tmp_path):
    claim = {"says": "slow", "of": {"solver.steps": 4}, "metric": "timed_epoch_s"}
    claim["above"] = {"solver.steps": 2}
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 4]}, claims=[claim])
    store = Store(tmp_path / "runs")
    machine = {"hardware": "abacus", "device": "cpu", "threads": 1, "torch": "2", "time": 1.0}
    for trial in sweep.trials:
        store.folder(trial.id).create(trial)
        store.folder(trial.id).write_result(Result("finished", "", 1, {"epoch_s": 9.0}, [], 0, 1))
    assert Findings(sweep, store).checked[0].text == "not run"
    for trial, seconds in zip(sweep.trials, (1.0, 2.5), strict=True):
        store.folder(trial.id).add_timing({**machine, "timed_epoch_s": seconds})
    (checked,) = Findings(sweep, store).checked
    assert checked.judgement is HOLDS
    assert checked.numbers == ("steps 4: 1.50 more than steps 2",)
    assert checked.text == "met by one timing pass"


@pytest.mark.parametrize(("cells", "judgement"), [({**RELU, **FINE}, FAILS), ({}, UNDECIDED)])
def test_one_of_many_cells_that_fails_by_little_may_do_so_by_chance(tmp_path, cells, judgement):
    """0.04 below the bound, ± 0.031 by the interval of one cell, ± 0.059 by those of four."""

    def accuracy(activation, steps, seed):
        is_low = (activation, steps) == ("relu", 8)
        return (0.46 if is_low else 0.7) + (-0.0125, 0.0, 0.0125)[seed] * (1 if is_low else 0.5)

    assert claimed(tmp_path, accuracy, of=cells, above=0.5).judgement is judgement


def test_what_fails_clearly_in_one_of_many_cells_fails(tmp_path):
    def accuracy(activation, steps, seed):
        return (0.4 if (activation, steps) == ("relu", 8) else 0.7) + 0.01 * seed

    assert claimed(tmp_path, accuracy, above=0.5).judgement is FAILS


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"above": 1, "below": 2}, "needs one of `above`, `below` and `near`"),
        ({}, "needs one of `above`, `below` and `near`"),
        ({"near": 0.5}, "`near` and `within`, the largest distance, need each other"),
        ({"above": 1, "metric": "test_acuracy"}, "Did you mean `test_accuracy`"),
        ({"above": 1, "of": {"model.widht": 4}}, "Did you mean `model.width`"),
        ({"above": {"model.activation": "sigmoid"}}, "matches no trial"),
        ({"above": 50}, "accuracies are shares of 1: 0.5 is 50 %"),
        ({"near": 0.5, "within": 0.1, "by": 0.1}, "`by` needs `above` or `below`"),
    ],
)
def test_a_mistake_in_a_claim_is_named(tmp_path, claim, message):
    with pytest.raises(SweepError, match=message) as caught:
        tiny(tmp_path, grid=GRID, claims=[{"says": "so", **claim}])
    assert "claims[0]" in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([29.0, 30.0, 31.0], "30.00 ± 2.48"),
        ([29.0, 31.0], "30.0 (29.0, 31.0)"),
        ([1234.0], "1234"),
        ([1.65e-7], "1.65e-07"),
        ([3.54e29], "3.54e+29"),
        ([0.00123, 0.00124, 0.00125], "0.0012400 ± 0.0000248"),
        ([2.0, 2.0, 8.0], "4.00 [0, 12.61]"),  # no number of evaluations is negative
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


def test_a_claims_percentages_are_those_that_can_be(tmp_path):
    claim = {"says": "so", "above": 0.5}
    sweep, store = tiny(tmp_path, seeds=[0, 1, 2], claims=[claim]), Store(tmp_path)
    for trial, accuracy in zip(sweep.trials, (0.5, 0.97, 0.98), strict=True):
        store.folder(trial.id).create(trial)
        result = Result("finished", "", 1, {"test_accuracy": accuracy}, [], 0, 1)
        store.folder(trial.id).write_result(result)
    (checked,) = Findings(sweep, store).checked
    assert ": 81.67 [13.53, 100] % (n = 3)" in checked.numbers[0]
    assert checked.text == "undecided"  # by the whole interval, 81.7 ± 68.1


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_claim_of_a_study_has_something_to_compare(path):
    sweep = load(path)
    for claim in sweep.claims:
        about = [trial for trial in trial_of_each_cell(sweep) if agrees(trial.spec, claim.of)]
        assert about, claim.says
        if isinstance(claim.other, dict):
            others = [t for t in about if not agrees(t.spec, claim.other)]
            assert others, claim.says
            assert {t.cell.key for t in others} <= partners(sweep, claim.other).keys(), claim.says


OTHERS = ("gradient-", "regularization", "step-control", "augmentation", "motion")
"""How the sweeps begin that are about the claims of other papers."""


def test_what_the_course_work_asks_is_expected_by_us_and_claimed_by_nobody():
    """A task of S3 has no result; S1 ran no control, and Chen et al. trained no perceptron."""
    expected = {
        path.stem: sum(not claim.source for claim in load(path).claims)
        for path in SWEEPS.glob("*.yaml")
    }
    assert {name: count for name, count in expected.items() if count} == {
        "mnist-adjoint": 2, "controls": 1, "mnist-resnet-odenet": 1, "gradient-methods": 2,
        "step-control": 1,
    }  # fmt: skip
    claimed_of = {claim.source.split(",")[0] for p in SWEEPS.glob("*.yaml")
                  if not p.stem.startswith(OTHERS)
                  for claim in load(p).claims}  # fmt: skip
    assert claimed_of == {"", "S1", "S2", "S4", "Chen et al. 2018"}


def test_nobody_claims_that_runge_kutta_takes_longer_for_as_many_evaluations():
    sweep = load(SWEEPS / "cifar10-resnet-odenet.yaml")
    assert not [claim for claim in sweep.claims if claim.metric == "timed_epoch_s"]


def test_the_claims_of_a_table_of_best_epochs_are_about_best_epochs():
    sweep = load(SWEEPS / "odenet10-normalization.yaml")
    assert {claim.metric for claim in sweep.claims} == {"best_test_accuracy"}
