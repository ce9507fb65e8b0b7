"""Steps that a taker takes in place of their trainings, or fails to take."""

from types import SimpleNamespace

import pytest
import torch

from nodebench.errors import EvaluationLimit
from nodebench.training.steps.step import Step, try_to_take


def failing(error):
    """A taker that raises an error."""

    def take(_steps):
        raise error

    return SimpleNamespace(take=take)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no rule"),
        torch.OutOfMemoryError("no room"),
        MemoryError("no room"),
        TypeError("?"),
    ],
)
def test_a_step_that_cannot_be_taken_is_left_to_its_training_with_the_reason(error):
    step = Step(None, None, None)
    told = try_to_take(failing(error), [step])
    assert told.startswith(f"{type(error).__name__}: {error}\nTraceback ")
    assert "in take" in told


def test_a_failure_of_the_trial_is_no_problem_of_the_taker():
    step = Step(None, None, None)
    assert try_to_take(failing(EvaluationLimit("too many")), [step]) is None
