from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nodebench.data.dataset import Data
from nodebench.spec import TrialSpec
from nodebench.training.checkpoint import TrainState, read_checkpoint
from nodebench.training.loop import new_state, train
from nodebench.training.steps.step import Step
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of
from tests.support.tiny_trainings import CPU, DIGITS, begun, spec, trained

NORMED = {"name": "odenet", "width": 8, "norm": "bn"}


AUGMENTED = DIGITS | {"augment": ["crop", "flip"]}


RESUMABLE = {
    "momentum": {"train": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}},
    "adam": {"train": {"optimizer": {"name": "adam", "lr": 0.01}}},
    "rmsprop": {"train": {"optimizer": {"name": "rmsprop", "momentum": 0.5}}},
    "schedule": {"train": {"schedule": {"name": "cosine", "warmup": 1}}},
    "batch-norm": {"data": DIGITS, "model": NORMED, "gradient": "recompute"},
    "augmentation": {"data": AUGMENTED, "model": NORMED},
    **{
        f"{name} {solver['method']}": {"gradient": name, "solver": solver}
        for name, solver in (
            ({"name": "recompute", "segments": "auto"}, {"method": "rk4", "steps": 3}),
            ("aca", {"method": "dopri5", "tol": 1e-3}),
            ("symplectic", {"method": "midpoint", "steps": 3}),
            ("interpolated", {"method": "rk4", "steps": 3}),
            ("reversible", {"method": "alf", "steps": 3}),
            ("reversible", {"method": "reversible_heun", "steps": 3}),
            ("reversible", {"method": "rk4", "steps": 3, "coupling": 0.9}),
            ("exact", {"method": "euler", "steps": 3}),
        )
    },
    "adaptive": {"solver": {"method": "dopri5", "tol": 1e-3}, "gradient": "adjoint"},
    **{
        f"{name} by sample": {
            "gradient": name,
            "solver": {"method": method, "tol": 1e-3, "control": {"step": "sample", **control}},
        }
        for name, method, control in (
            ("backprop", "dopri5", {}),
            ("backprop", "tsit5", {"controller": "pi"}),
            ("aca", "tsit5", {}),
            ("recompute", "bosh3", {}),
            ("adjoint", "dopri5", {"controller": "pi"}),
        )
    },
}


BY_SAMPLE = {"method": "dopri5", "tol": 1e-3, "control": {"step": "sample"}}


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


def test_steps_counted_before_a_checkpoint_in_mid_epoch_are_part_of_the_epoch(
    tmp_path: Path,
) -> None:
    spheres = {"name": "spheres", "train_size": 60, "test_size": 30}
    trial = spec(data=spheres, solver=BY_SAMPLE, train={"epochs": 2, "batch_size": 20})
    path = tmp_path / "checkpoint.pt"
    whole, data = begun(trial)
    for item in train(whole, task_for(data, trial), trial):
        if isinstance(item, Step) and item.state.iteration == 4:  # the second of three
            item.state.save(path)
    rest, data = begun(trial)
    rest.load(read_checkpoint(path), CPU)
    list(rows_of(rest, task_for(data, trial), trial))
    assert same(rest, whole)
    for row in rest.history:
        least, mean, most = (row[f"nfe_sample_{name}"] for name in ("min", "mean", "max"))
        assert 8 <= least <= mean <= row["nfe_forward"] <= most
        tried = row["steps_accepted"] + row["steps_rejected"]
        assert mean == pytest.approx(2 + 6 * tried, rel=1e-12)


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
