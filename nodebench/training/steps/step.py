"""One training step, and those that may take it faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nodebench.errors import TrialFailure
from nodebench.ode.block import steps_taken, take_evaluations
from nodebench.training import optimization
from nodebench.training.checkpoint import TrainState
from nodebench.training.task import Loss, Task


@dataclass
class Step:
    """One batch's step, which a training is about to take: now, its state can be saved.

    Whoever iterates over a training may take the step instead of it, and then calls `finish`.
    """

    state: TrainState
    task: Task[Any]
    batch: Any
    taken: bool = False

    def take(self) -> None:
        """Forward, backward, and the optimizer's update, unless the step has been taken."""
        if self.taken:
            return
        state = self.state
        with state.regularized() as penalty:
            loss = self.task.loss(state.model, self.batch)
        objective = penalty.added_to(loss.mean) if penalty else loss.mean
        assert state.sums is not None
        state.sums.count_steps(steps_taken(state.model))
        forward = take_evaluations(state.model)
        state.optimizer.zero_grad()
        objective.backward()
        backward = take_evaluations(state.model)
        if penalty:
            state.sums.add_penalty(penalty, loss.samples)
        if hook := state.hook:
            nfe = sum(forward)
            hook.after_backward(state.model, self.task, self.batch, loss, nfe, state.iteration)
        self.finish(loss, forward, backward)

    def finish(self, loss: Loss, forward: list[int], backward: list[int]) -> None:
        """What is left once gradients are there: the update, and the epoch's sums.

        `forward` and `backward` are the evaluations of each ODE block.
        """
        state = self.state
        assert state.sums is not None
        state.sums.count(forward, backward)
        optimization.step_optimizer(state.optimizer)
        state.sums.add(loss)
        state.iteration += 1
        self.taken = True


CANNOT_TAKE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""What torch raises of a step that it can neither batch nor capture, or has no memory for."""


class StepTaker(Protocol):
    """Takes steps instead of their trainings, where that is faster."""

    def take(self, steps: Sequence[Step]) -> None:
        """Takes those that it can, and leaves the others as they are."""


def problem_of_taking(taker: StepTaker, steps: Sequence[Step]) -> str | None:
    """Lets a taker take steps; returns its problem if it could not, which may come again.

    Nothing of a step that failed is left: its own training takes it, or meets the failure.
    """
    problem = None
    try:
        taker.take(steps)
    except TrialFailure:
        pass
    except CANNOT_TAKE as error:
        problem = f"{type(error).__name__}: {error}"
    for step in steps:
        if not step.taken:
            take_evaluations(step.state.model)
    return problem
