"""Training with regularizers: the loss, what is logged, resuming, and what evaluation sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nodebench.errors import Diverged
from nodebench.ode.block import ODEBlock
from nodebench.spec import TrialSpec
from nodebench.training.checkpoint import TrainState, read_checkpoint
from nodebench.training.loop import train
from nodebench.training.steps.step import Step
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of
from tests.support.tiny_trainings import CPU, begun, spec, trained
from tests.training.test_resuming import same

ALL = {
    "kinetic": 0.1,
    "jacobian": 0.1,
    "taylor": {"order": 2, "weight": 0.01},
    "steer": 0.5,
}


def trial(regularize: object, epochs: int = 2, **fields: object) -> TrialSpec:
    return spec(train={"epochs": epochs, "batch_size": 20, "regularize": regularize}, **fields)


def test_the_loss_that_is_minimized_has_the_weighted_terms() -> None:
    settings = trial({"kinetic": 0.7, "taylor": {"order": 2, "weight": 0.2}})
    state, data = begun(settings)
    task = task_for(data, settings)
    batch = next(task.batches(0))
    with state.regularized() as penalty:
        loss = task.loss(state.model, batch)
    assert penalty is not None
    total = loss.mean + 0.7 * penalty.terms["kinetic"] + 0.2 * penalty.terms["taylor"]
    expected = torch.autograd.grad(total, list(state.model.parameters()))
    Step(state, task, batch).take()
    for parameter, gradient in zip(state.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_terms_and_their_evaluations_are_logged_apart_from_loss_and_nfe() -> None:
    plain, regularized = trained(trial(None)).history, trained(trial(ALL)).history
    row = regularized[0]
    assert row["nfe_forward"] == plain[0]["nfe_forward"] == 3
    assert row["nfe_regularization"] == 6  # a product for the Jacobian, one for the derivative
    assert {"regularizer_kinetic", "regularizer_jacobian", "regularizer_taylor"} < row.keys()
    assert all(row[name] > 0 for name in row if name.startswith("regularizer_"))
    assert not any("regulariz" in name for name in plain[0])


def test_a_weight_of_zero_measures_and_changes_nothing() -> None:
    zero = {"kinetic": 0.0, "jacobian": 0.0}
    plain, measured = trained(trial(None)), trained(trial(zero))
    for (_, one), (_, other) in zip(
        plain.model.state_dict().items(), measured.model.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert measured.history[-1]["regularizer_kinetic"] > 0


def test_a_larger_weight_leaves_a_smaller_term() -> None:
    def term(weight: float) -> float:
        settings = {"optimizer": {"name": "adam", "lr": 0.01}, "regularize": {"kinetic": weight}}
        trial = spec(train={"epochs": 20, "batch_size": 25} | settings)
        return trained(trial).history[-1]["regularizer_kinetic"]

    terms = [term(weight) for weight in (0.0, 1.0, 30.0)]
    assert terms[0] > 2 * terms[1] > 4 * terms[2] > 0


@pytest.mark.parametrize("solver", [{"method": "euler", "steps": 3}, {"method": "dopri5"}])
def test_two_epochs_and_two_more_are_four_to_the_bit(solver: dict, tmp_path: Path) -> None:
    settings = trial(ALL, epochs=4, solver=solver)
    whole = trained(settings)
    path = tmp_path / "checkpoint.pt"
    first, data = begun(settings)
    for row in rows_of(first, task_for(data, settings), settings):
        if row["epoch"] == 2:
            first.save(path)
            break
    torch.manual_seed(123)
    rest, data = begun(settings)
    rest.load(read_checkpoint(path), CPU)
    list(rows_of(rest, task_for(data, settings), settings))
    assert same(rest, whole)


def test_a_training_cut_within_an_epoch_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings = trial(ALL)
    whole = trained(settings)
    path = tmp_path / "checkpoint.pt"
    cut, data = begun(settings)
    for number, item in enumerate(train(cut, task_for(data, settings), settings)):
        if number == 2:
            assert isinstance(item, Step)
            cut.save(path)
            break
    rest, data = begun(settings)
    rest.load(read_checkpoint(path), CPU)
    assert rest.sums.regularizer_evaluations == 12
    list(rows_of(rest, task_for(data, settings), settings))
    assert same(rest, whole)


def test_testing_sees_no_regularizers() -> None:
    settings = trial(ALL)
    state = trained(settings)
    data = begun(settings)[1]
    found = task_for(data, settings).evaluate(state.model)
    assert found.nfe == 3
    assert found.measures["loss"] == pytest.approx(state.history[-1]["test_loss"], rel=1e-6)
    plain = trial(None)
    assert task_for(data, plain).evaluate(state.model).measures == found.measures


def test_seeds_draw_other_numbers() -> None:
    def terms(seed: int) -> float:
        state, data = begun(trial({"jacobian": 0.0}, seed=seed))
        weights = begun(trial(None))[0].model.state_dict()
        state.model.load_state_dict(weights)
        batch = next(task_for(data, trial(None)).batches(0))
        with state.regularized() as penalty:
            task_for(data, trial(None)).loss(state.model, batch)
        assert penalty is not None
        return penalty.terms["jacobian"].item()

    assert terms(0) == terms(0) != terms(1)


class Exploding(nn.Module):
    """Its kinetic energy is infinite where its loss is not."""

    def __init__(self, block: ODEBlock, head: nn.Module):
        super().__init__()
        self.block, self.head = block, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.block(x * 1e25).clamp(-1, 1))
        return out


def test_an_infinite_term_is_a_divergence() -> None:
    settings = trial({"kinetic": 0.1}, model={"name": "plainode", "width": 4, "field": "linear"})
    state, data = begun(settings)
    exploding = Exploding(state.model.block, state.model.head)
    other = TrainState(exploding, state.optimizer, regularizers=state.regularizers)
    with pytest.raises(Diverged, match="the training loss became"):
        list(rows_of(other, task_for(data, settings), settings))
