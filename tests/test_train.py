from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodebench.checkpoint import TrainState, read_checkpoint
from nodebench.data.dataset import Data, Split
from nodebench.data.load import load
from nodebench.errors import DeadlineExceeded, Diverged
from nodebench.models.build import build
from nodebench.ode.block import ODEBlock
from nodebench.solver_settings import Gradient, Solver
from nodebench.spec import Constant, Cosine, Milestones, TrialSpec
from nodebench.task import evaluate, task_for
from nodebench.train import learning_rate_factor, new_state
from nodebench.trial_folder import Row
from sweeps import rows_of

SPHERES = {"name": "spheres", "train_size": 50, "test_size": 30}
DIGITS = {"name": "digits", "train_size": 50, "test_size": 30}
PLAIN = {"name": "plainode", "width": 16}
EULER = {"method": "euler", "steps": 3}
CPU = torch.device("cpu")


def spec(**fields: object) -> TrialSpec:
    return TrialSpec(**{"data": SPHERES, "model": PLAIN, "solver": EULER} | fields)


def begun(trial: TrialSpec) -> tuple[TrainState, Data]:
    data = load(trial, Path("/nonexistent"))
    return new_state(build(trial, data), trial), data


def trained(trial: TrialSpec, on_epoch: Callable[[Row], None] = lambda _row: None) -> TrainState:
    state, data = begun(trial)
    for row in rows_of(state, task_for(data, trial), trial):
        on_epoch(row)
    return state


# --------------------------------------------------------------------------- learning rates


def test_milestones_in_epochs() -> None:
    schedule = Milestones(name="milestones", at=(2, 3.5), gamma=0.1)
    factors = [learning_rate_factor(schedule, i, unit=4, total=20) for i in range(20)]
    assert factors == pytest.approx([1.0] * 8 + [0.1] * 6 + [0.01] * 6)


def test_milestones_in_iterations() -> None:
    schedule = Milestones(name="milestones", at=(3,), gamma=0.5)
    factors = [learning_rate_factor(schedule, i, unit=1, total=6) for i in range(6)]
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_a_cosine_falls_from_one_towards_its_end() -> None:
    schedule = Cosine(name="cosine", final=0.2)
    factors = [learning_rate_factor(schedule, i, unit=5, total=100) for i in range(101)]
    assert (factors[0], factors[100]) == (1.0, pytest.approx(0.2))
    assert factors[50] == pytest.approx(0.6)
    assert factors[25] == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert factors == sorted(factors, reverse=True)


def test_a_warm_up_climbs_in_equal_parts() -> None:
    schedule = Constant(name="constant", warmup=2)
    factors = [learning_rate_factor(schedule, i, unit=4, total=20) for i in range(12)]
    assert factors == pytest.approx([i / 8 for i in range(1, 9)] + [1.0] * 4)
    in_iterations = [learning_rate_factor(schedule, i, unit=1, total=20) for i in range(4)]
    assert in_iterations == [0.5, 1.0, 1.0, 1.0]


def test_a_warm_up_multiplies_what_the_schedule_says() -> None:
    schedule = Milestones(name="milestones", at=(1,), gamma=0.1, warmup=4)
    factors = [learning_rate_factor(schedule, i, unit=1, total=8) for i in range(5)]
    assert factors == pytest.approx([0.25, 0.05, 0.075, 0.1, 0.1])


@pytest.mark.parametrize(
    ("length", "expected"),
    [({"epochs": 4}, [0.5, 0.5, 0.05, 0.05]), ({"iterations": 8}, [0.5, 0.05, 0.05, 0.05])],
    ids=["epochs", "iterations"],
)
def test_a_schedule_counts_in_the_unit_of_the_length(length: dict, expected: list) -> None:
    schedule = {"name": "milestones", "at": [2]}
    settings = {"batch_size": 25, "schedule": schedule, "optimizer": {"name": "sgd", "lr": 0.5}}
    history = trained(spec(train=settings | length)).history
    assert [row["lr"] for row in history] == pytest.approx(expected)


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
    with pytest.raises(DeadlineExceeded, match="after 1 iterations"):
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
        found = evaluate(Fixed(), data, split, batch_size)
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
    evaluate(Watching().train(), Data(split, split, None, 2), split, 2)
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
    assert evaluate(model, Data(split, split, None, 2), split, 3).nfe == 20


def test_a_held_out_loss_that_is_not_finite_is_divergence() -> None:
    split = Split(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(Diverged, match="held-out"):
        evaluate(nn.Identity(), Data(split, split, None, 2), split, 2)


# ----------------------------------------------------------------------------------- resuming


NORMED = {"name": "odenet", "width": 8, "norm": "bn"}
AUGMENTED = DIGITS | {"augment": ["crop", "flip"]}
RESUMABLE = {
    "momentum": {"train": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}},
    "adam": {"train": {"optimizer": {"name": "adam", "lr": 0.01}}},
    "rmsprop": {"train": {"optimizer": {"name": "rmsprop", "momentum": 0.5}}},
    "schedule": {"train": {"schedule": {"name": "cosine", "warmup": 1}}},
    "batch-norm": {"data": DIGITS, "model": NORMED, "gradient": "recompute"},
    "augmentation": {"data": AUGMENTED, "model": NORMED},
    "adaptive": {"solver": {"method": "dopri5", "tol": 1e-3}, "gradient": "adjoint"},
}
CLOCKS = ("time", "epoch_s", "peak_memory_bytes")


def same(one: TrainState, other: TrainState) -> bool:
    """Whether weights, buffers and history agree to the bit, clocks aside."""
    weights = zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    timeless = [
        [{k: v for k, v in row.items() if k not in CLOCKS} for row in state.history]
        for state in (one, other)
    ]
    return timeless[0] == timeless[1] and all(
        name == twin and torch.equal(value, its) for (name, value), (twin, its) in weights
    )


@pytest.mark.parametrize("case", RESUMABLE)
def test_two_epochs_and_two_more_are_four_to_the_bit(case: str, tmp_path: Path) -> None:
    fields = RESUMABLE[case]
    settings = {"epochs": 4, "batch_size": 20} | fields.get("train", {})
    trial = spec(**fields | {"train": settings})
    whole = trained(trial)
    path = tmp_path / "checkpoint.pt"
    first, data = begun(trial)
    for row in rows_of(first, task_for(data, trial), trial):
        if row["epoch"] == 2:
            first.save(path)
            break
    torch.manual_seed(123)
    rest, data = begun(trial)
    rest.load(read_checkpoint(path), CPU)
    assert (rest.epoch, rest.iteration, len(rest.history)) == (2, 6, 2)
    list(rows_of(rest, task_for(data, trial), trial))
    assert same(rest, whole)


def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    def trial(epochs: int) -> TrialSpec:
        return spec(train={"epochs": epochs, "batch_size": 20})

    path = tmp_path / "checkpoint.pt"
    trained(trial(2)).save(path)
    state, data = begun(trial(4))
    state.load(read_checkpoint(path), CPU)
    list(rows_of(state, task_for(data, trial(4)), trial(4)))
    assert same(state, trained(trial(4)))


def test_random_layers_go_on_where_they_were(tmp_path: Path) -> None:
    trial = spec(train={"epochs": 4, "batch_size": 20})
    path = tmp_path / "checkpoint.pt"

    def with_dropout() -> tuple[TrainState, Data]:
        state, data = begun(trial)
        state.model.head = nn.Sequential(nn.Dropout(0.5), state.model.head)
        torch.manual_seed(5)
        return new_state(state.model, trial), data

    whole, data = with_dropout()
    for row in rows_of(whole, task_for(data, trial), trial):
        if row["epoch"] == 2:
            whole.save(path)
    rest, data = with_dropout()
    torch.rand(100)
    rest.load(read_checkpoint(path), CPU)
    list(rows_of(rest, task_for(data, trial), trial))
    assert same(rest, whole)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    trial = spec(train={"epochs": 2, "batch_size": 20})
    state = trained(trial)
    state.save(tmp_path / "checkpoint.pt")
    again, data = begun(trial)
    again.load(read_checkpoint(tmp_path / "checkpoint.pt"), CPU)
    assert not list(rows_of(again, task_for(data, trial), trial))
    assert same(again, state)


def test_a_checkpoint_keeps_what_it_was_given(tmp_path: Path) -> None:
    trial = spec(train={"epochs": 1})
    state = trained(trial)
    state.elapsed_s = 12.5
    state.environments = [{"host": "here", "threads": 1}]
    path = tmp_path / "deep" / "checkpoint.pt"
    state.save(path)
    other, _ = begun(trial)
    other.load(read_checkpoint(path), CPU)
    assert (other.elapsed_s, other.environments) == (12.5, state.environments)
    assert other.history == state.history
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_the_seed_decides_the_result_and_the_global_generator_does_not() -> None:
    def run(seed: int) -> TrainState:
        return trained(spec(data=AUGMENTED, model=NORMED, seed=seed, train={"epochs": 1}))

    torch.manual_seed(1)
    first = run(0)
    torch.manual_seed(2)
    assert same(first, run(0))
    assert not same(first, run(1))
