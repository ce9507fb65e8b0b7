from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.data.dataset import Data, Split
from nodebench.errors import DeadlineExceeded, Diverged
from nodebench.models.build import build
from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.store.rows import Row
from nodebench.training.tasks.classification import evaluate_classifier
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of
from tests.support.tiny_trainings import DIGITS, SPHERES, begun, spec, trained

# ---------------------------------------------------------------------------------- training


def test_the_loss_falls_on_spheres() -> None:
    adam = {"name": "adam", "lr": 0.01}
    trial = spec(
        seed=1,
        data={"name": "spheres", "train_size": 200, "test_size": 200},
        model={"name": "plainode", "width": 32},
        solver={"method": "euler", "steps": 4},
        train={"iterations": 300, "batch_size": 100, "optimizer": adam, "test_every": 150},
    )
    history = trained(trial).history
    assert history[0]["train_loss"] > 0.6
    assert history[-1]["train_loss"] < 0.2
    assert history[-1]["test_accuracy"] > 0.9


def test_one_step_of_sgd_is_what_it_is_by_hand() -> None:
    trial = spec(
        train={
            "iterations": 1,
            "batch_size": 50,
            "optimizer": {"name": "sgd", "lr": 0.25, "momentum": 0, "weight_decay": 0.1},
        }
    )
    state, data = begun(trial)
    twin = build(trial, data)
    loss = F.cross_entropy(twin(data.train.inputs), data.train.targets)
    loss.backward()
    list(rows_of(state, task_for(data, trial), trial))
    assert state.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for after, before in zip(state.model.parameters(), twin.parameters(), strict=True):
        expected = before - 0.25 * (before.grad + 0.1 * before)
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("iterations", "ends"), [(2, [2]), (3, [3]), (7, [3, 6, 7]), (9, [3, 6, 9])]
)
def test_iterations_end_exactly(iterations: int, ends: list[int]) -> None:
    state = trained(spec(train={"iterations": iterations, "batch_size": 20}))
    assert state.iteration == iterations
    assert [row["iteration"] for row in state.history] == ends
    assert [row["epoch"] for row in state.history] == list(range(1, len(ends) + 1))


def test_every_epoch_is_reported_with_its_row() -> None:
    rows: list[Row] = []
    state = trained(spec(train={"epochs": 3, "batch_size": 20}), rows.append)
    assert rows == state.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert state.epoch == 3
    assert all(row["epoch_s"] > 0 and row["peak_memory_bytes"] > 1e6 for row in rows)
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


@pytest.mark.parametrize(("drop_last", "per_epoch"), [(False, 3), (True, 2)])
def test_an_incomplete_batch_is_trained_on_unless_dropped(drop_last: bool, per_epoch: int) -> None:
    state = trained(spec(train={"epochs": 2, "batch_size": 20, "drop_last": drop_last}))
    assert [row["iteration"] for row in state.history] == [per_epoch, 2 * per_epoch]


# `_train_epoch` raises UnboundLocalError (`lr`) here, because there is no batch in the epoch.
def test_a_batch_larger_than_the_data_is_trained_on_though_drop_last_is_set() -> None:
    state = trained(spec(train={"epochs": 2, "batch_size": 64, "drop_last": True}))
    assert state.iteration == 2


@pytest.mark.parametrize(
    ("gradient", "backward"), [("backprop", 0), ("recompute", 12), ("adjoint", 12)]
)
def test_a_row_has_the_evaluations_per_pass(gradient: str, backward: int) -> None:
    solver = {"method": "rk4", "steps": 3}
    trial = spec(solver=solver, gradient=gradient, train={"epochs": 2, "batch_size": 20})
    for row in trained(trial).history:
        assert (row["nfe_forward"], row["nfe_backward"]) == (12, backward)
        assert not [name for name in row if name.startswith("nfe_forward.")]


def test_several_blocks_are_also_counted_apart() -> None:
    model = {"name": "odenet", "width": 8, "blocks": 2}
    trial = spec(data=DIGITS, model=model, gradient="recompute", train={"epochs": 1})
    (row,) = trained(trial).history
    found = {name: value for name, value in row.items() if name.startswith("nfe")}
    assert found == {
        "nfe_forward": 6, "nfe_forward.0": 3, "nfe_forward.1": 3,
        "nfe_backward": 6, "nfe_backward.0": 3, "nfe_backward.1": 3,
    }  # fmt: skip


def test_evaluations_of_a_test_are_not_part_of_training() -> None:
    class Spying(nn.Module):
        calls = 0

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            self.calls += 1
            return 0 * y

    trial = spec(train={"epochs": 2, "batch_size": 20})
    state, data = begun(trial)
    state.model.block.f = spying = Spying()
    list(rows_of(state, task_for(data, trial), trial))
    assert [row["nfe_forward"] for row in state.history] == [3, 3]
    assert spying.calls == 2 * (3 + 2) * 3  # 3 batches of training and 2 of testing


def test_a_network_without_ode_blocks_has_no_evaluations() -> None:
    trial = spec(
        data=DIGITS, model={"name": "resnet", "width": 8, "blocks": 1}, train={"epochs": 1}
    )
    (row,) = trained(trial).history
    assert not [name for name in row if name.startswith("nfe")]


def test_the_test_set_is_evaluated_as_often_as_asked_and_at_the_end() -> None:
    history = trained(spec(train={"epochs": 5, "batch_size": 50, "test_every": 2})).history
    assert ["test_accuracy" in row for row in history] == [False, True, False, True, True]
    assert ["test_loss" in row for row in history] == [False, True, False, True, True]


def test_validation_metrics_appear_with_validation_data() -> None:
    held_out = SPHERES | {"val_size": 24}
    (row,) = trained(spec(data=held_out, train={"epochs": 1})).history
    assert row["val_accuracy"] * 24 == pytest.approx(round(row["val_accuracy"] * 24))
    assert row["val_loss"] != row["test_loss"]
    (row,) = trained(spec(train={"epochs": 1})).history
    assert "val_accuracy" not in row


def test_validation_data_do_not_change_the_training() -> None:
    (without,) = trained(spec(train={"epochs": 1})).history
    (with_,) = trained(spec(data=SPHERES | {"val_size": 24}, train={"epochs": 1})).history
    assert without["train_loss"] == with_["train_loss"]
    assert without["test_loss"] == with_["test_loss"]


def test_a_loss_that_is_not_finite_is_divergence() -> None:
    trial = spec(
        data=DIGITS,
        model={"name": "odenet", "width": 8},
        solver={"method": "euler", "steps": 4},
        train={"epochs": 20, "batch_size": 10, "optimizer": {"name": "sgd", "lr": 1e6}},
    )
    state, data = begun(trial)
    with pytest.raises(Diverged, match=r"training loss became nan by iteration \d+ \(epoch \d+\)"):
        list(rows_of(state, task_for(data, trial), trial))
    assert state.iteration < 100


def test_training_stops_at_its_deadline() -> None:
    trial = spec(train={"epochs": 2, "batch_size": 20})
    state, data = begun(trial)
    with pytest.raises(DeadlineExceeded, match=r"after 1 iteration$"):
        list(rows_of(state, task_for(data, trial), trial, deadline=0.0))


# -------------------------------------------------------------------------------- evaluation


def test_an_evaluation_counts_samples() -> None:
    """The last, incomplete batch weighs as much as its samples do."""

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    split = Split(logits, torch.zeros(5, dtype=torch.int64))
    data = Data(split, split, None, classes=2)
    right, wrong = math.log1p(math.exp(-9)), 9 + math.log1p(math.exp(-9))
    for batch_size in (1, 2, 4, 5, 100):
        found = evaluate_classifier(Fixed(), data, split, batch_size)
        assert found.measures["accuracy"] == pytest.approx(0.8)
        assert found.measures["loss"] == pytest.approx((4 * right + wrong) / 5, rel=1e-5)
        assert found.nfe == 0


def test_an_evaluation_is_in_evaluation_mode_and_without_gradient() -> None:
    class Watching(nn.Module):
        seen: list[tuple[bool, bool]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append((self.training, torch.is_grad_enabled()))
            return x

    split = Split(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    evaluate_classifier(Watching().train(), Data(split, split, None, 2), split, 2)
    assert Watching.seen == [(False, False)] * 2


def test_an_evaluation_has_the_evaluations_of_a_pass() -> None:
    f = nn.Linear(2, 2)

    class Field(nn.Module):
        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return f(y)

    solver, gradient = Solver(method="midpoint", steps=5), Gradient(name="adjoint")
    model = nn.Sequential(*(ODEBlock(Field(), solver, gradient) for _ in range(2)))
    model(torch.zeros(1, 2))  # what was counted before does not matter
    split = Split(torch.rand(7, 2), torch.zeros(7, dtype=torch.int64))
    assert evaluate_classifier(model, Data(split, split, None, 2), split, 3).nfe == 20


def test_a_held_out_loss_that_is_not_finite_is_divergence() -> None:
    split = Split(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(Diverged, match="held-out"):
        evaluate_classifier(nn.Identity(), Data(split, split, None, 2), split, 2)
