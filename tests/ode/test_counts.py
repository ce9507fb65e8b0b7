"""Tests of the sums of steps over the batches of an epoch or a test."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from nodebench.ode.adaptive.counts import StepCounts, StepTotals

OF_BATCH = StepCounts(4.0, 1.0)
OF_SAMPLES = StepCounts(3.0, 0.5, torch.tensor([8, 14]))
MORE_SAMPLES = StepCounts(5.0, 0.0, torch.tensor([20]))
PER_SAMPLE = {"nfe_sample_min": 8.0, "nfe_sample_mean": 14.0, "nfe_sample_max": 20.0}


def sums_of(*batches: StepCounts) -> StepTotals:
    sums = StepTotals()
    for counts in batches:
        sums = sums.plus(counts)
    return sums


def test_without_adaptive_solves_there_is_nothing_to_measure() -> None:
    assert StepTotals().measures() == {}


def test_steps_are_means_over_batches() -> None:
    assert sums_of(OF_BATCH, StepCounts(5.0, 0.0)).measures() == {
        "steps_accepted": 4.5,
        "steps_rejected": 0.5,
    }


def test_the_evaluations_of_samples_are_measured_over_all_samples() -> None:
    steps = {"steps_accepted": 4.0, "steps_rejected": 0.25}
    assert sums_of(OF_SAMPLES, MORE_SAMPLES).measures() == steps | PER_SAMPLE


@pytest.mark.parametrize(
    "batches",
    [
        (OF_BATCH, OF_SAMPLES),
        (OF_SAMPLES, OF_BATCH),
        (OF_SAMPLES, OF_BATCH, OF_SAMPLES),
    ],
)
def test_nothing_is_said_of_samples_if_one_batch_lacks_them(
    batches: tuple[StepCounts, ...],
) -> None:
    assert set(sums_of(*batches).measures()) == {"steps_accepted", "steps_rejected"}


@pytest.mark.parametrize(
    ("values", "batches"),
    [
        ({}, ()),
        ({"batches": 1.0, "accepted": 4.0, "rejected": 1.0}, (OF_BATCH,)),
        (
            {
                "batches": 2.0, "accepted": 8.0, "rejected": 0.5,
                "samples": 3.0, "evaluations": 42.0, "least": 8.0, "most": 20.0,
            },
            (OF_SAMPLES, MORE_SAMPLES),
        ),
    ],
    ids=["none", "batch", "samples"],
)  # fmt: skip
def test_the_values_of_a_checkpoint_are_the_sums_again(
    values: dict[str, float], batches: tuple[StepCounts, ...]
) -> None:
    """Checkpoints of earlier releases have only the values that there were."""
    assert StepTotals(**values) == sums_of(*batches) == StepTotals(**asdict(sums_of(*batches)))
