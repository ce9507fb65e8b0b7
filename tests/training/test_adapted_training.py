"""Trainings whose solver adapts: what is counted, resumed and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nodebench.data.load import load_data
from nodebench.errors import Diverged, InputError
from nodebench.models.build import build
from nodebench.ode.block import ode_blocks
from nodebench.spec import TrialSpec
from nodebench.spec.solver import Solver
from nodebench.training.adaptation import (
    adaptation_for,
)
from nodebench.training.checkpoint import TrainState, read_checkpoint
from nodebench.training.loop import new_state
from nodebench.training.task import Loss
from nodebench.training.tasks.table import task_for
from tests.support.tiny_sweeps import rows_of

SPHERES = {"name": "spheres", "train_size": 64, "test_size": 32}


def trial(**solver: object) -> TrialSpec:
    return TrialSpec(
        data=SPHERES,
        model={"name": "plainode", "width": 8},
        solver=solver,
        train={"epochs": 6, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
    )


def begun(spec: TrialSpec) -> tuple[TrainState, object]:
    data = load_data(spec, Path("/nonexistent"))
    model, task = build(spec, data), task_for(data, spec)
    return new_state(model, spec, adaptation_for(model, task, spec)), task


@pytest.mark.parametrize(
    "solver",
    [
        {"method": "euler", "adapt": {"every": 3}},
        {"method": "midpoint", "step_size": 0.25, "adapt": {"every": 5}},
        {"method": "dopri5", "adapt": {"every": 5}},
        {"method": "fehlberg2", "tol": 1e-2, "adapt": {"every": 5}},
    ],
    ids=["euler", "midpoint", "dopri5", "fehlberg2"],
)
def test_an_adapted_training_goes_on_from_its_checkpoint_to_the_bit(
    solver: dict, tmp_path: Path
) -> None:
    spec, path = trial(**solver), tmp_path / "checkpoint.pt"
    whole, task = begun(spec)
    for row in rows_of(whole, task, spec):
        if row["epoch"] == 3:
            whole.save(path)
    rest, task = begun(spec)
    rest.load(read_checkpoint(path), torch.device("cpu"))
    list(rows_of(rest, task, spec))
    weights = [p.detach() for p in whole.model.parameters()]
    assert all(map(torch.equal, weights, rest.model.parameters()))
    name = "step_size" if "adapt" in solver and spec.solver.facts.kind == "fixed" else "tol"
    assert [r[name] for r in whole.history] == [r[name] for r in rest.history]
    assert len({r[name] for r in whole.history}) > 1
    assert sum(r["nfe_adaptation"] for r in whole.history) > 0
    last = ode_blocks(rest.model)[0].solver
    assert whole.history[-1][name] == pytest.approx(getattr(last, name))


def test_a_checkpoint_keeps_the_adapted_solver_where_those_of_earlier_releases_do(
    tmp_path: Path,
) -> None:
    spec, path = trial(method="euler", adapt={"every": 3}), tmp_path / "checkpoint.pt"
    state, task = begun(spec)
    list(rows_of(state, task, spec))
    state.save(path)
    adapted = read_checkpoint(path)["hook"]
    assert Solver.model_validate(adapted["solver"]) == ode_blocks(state.model)[0].solver
    assert adapted.keys() == {"solver", "recent", "evaluations"}


def test_evaluations_of_the_adaptation_are_not_those_of_training() -> None:
    spec = trial(method="euler", steps=4, adapt={"every": 1000})
    state, task = begun(spec)
    rows = list(rows_of(state, task, spec))
    assert {row["nfe_forward"] for row in rows} == {4}
    assert {row["nfe_adaptation"] for row in rows} == {0}
    every = trial(method="euler", steps=4, adapt={"every": 1, "threshold": 0.99})
    state, task = begun(every)
    first = next(iter(rows_of(state, task, every)))
    assert first["nfe_forward"] <= 4
    assert first["nfe_adaptation"] > 4


def test_evaluations_of_a_failed_reference_are_not_those_of_training_either() -> None:
    spec = trial(method="dopri5", tol=1e-2, adapt={"every": 1})
    state, task = begun(spec)
    block = ode_blocks(state.model)[0]
    block.max_evaluations = 20  # enough for training at this tolerance, not for a reference
    rows = list(rows_of(state, task, spec))
    assert max(row["nfe_forward"] for row in rows) <= 20
    assert all(row["nfe_adaptation"] > 20 for row in rows)


def test_looking_at_a_model_leaves_no_trace_in_it() -> None:
    spec = TrialSpec(
        data={"name": "digits", "train_size": 16, "test_size": 8},
        model={"name": "odenet4", "width": 4, "norm": "bn+sn", "dropout": 0.5},
        solver={"method": "euler", "adapt": {"every": 1}},
    )
    data = load_data(spec, Path("/nonexistent"))
    model, task = build(spec, data).train(), task_for(data, spec)
    buffers = [buffer.clone() for buffer in model.buffers()]
    random = torch.get_rng_state()
    adaptation = adaptation_for(model, task, spec)
    batch = next(task.batches(0))
    loss = Loss(torch.zeros(()), 16, {"accuracy": torch.tensor(8)})
    adaptation.after_backward(model, task, batch, loss, 4, 0)
    assert adaptation.end_epoch()["nfe_adaptation"] > 0
    assert all(map(torch.equal, buffers, model.buffers()))
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("how", ["trajectory", "states"])
def test_a_step_size_is_chosen_however_the_block_is_called(how: str) -> None:
    spec = trial(method="euler", adapt={"every": 1})
    data = load_data(spec, Path("/nonexistent"))
    task, usual, other = task_for(data, spec), build(spec, data), build(spec, data)
    other.forward = lambda x: other.head(getattr(other.block, how)(x, (0.0, 1.0))[-1].flatten(1))
    first, second = (adaptation_for(model, task, spec) for model in (usual, other))
    assert first.step_size == second.step_size < 1


def test_a_block_that_is_never_solved_has_no_step_size() -> None:
    spec = trial(method="euler", adapt={"every": 1})
    data = load_data(spec, Path("/nonexistent"))
    model = build(spec, data)
    model.forward = lambda x: model.head(x.flatten(1))
    with pytest.raises(InputError, match="first ODE block is not used"):
        adaptation_for(model, task_for(data, spec), spec)


def test_adaptation_is_of_one_tolerance_of_accuracies() -> None:
    with pytest.raises(ValidationError, match="give `tol`, not"):
        Solver(method="dopri5", rtol=1e-3, atol=1e-4, adapt={})
    with pytest.raises(ValidationError, match=r"`adapt.max_steps` is for fixed methods"):
        Solver(method="dopri5", adapt={"max_steps": 9})
    with pytest.raises(ValidationError, match="needs accuracies, but `spiral` has none"):
        TrialSpec(data="spiral", model="neuralode", solver={"method": "euler", "adapt": {}})


def test_the_adaptive_default_starts_at_the_papers_tolerance() -> None:
    assert Solver(method="dopri5", adapt={}).tol == 1e-6
    assert Solver(method="dopri5").tol == 1e-3


@pytest.mark.parametrize("method", ["rk4", "bosh3", "implicit_adams"])
def test_adaptation_is_for_methods_that_the_paper_gives_a_reference(method: str) -> None:
    with pytest.raises(ValidationError, match="`adapt` supports euler, midpoint"):
        Solver(method=method, **({} if method == "bosh3" else {"steps": 2}), adapt={})


def test_a_model_without_an_ode_block_cannot_adapt() -> None:
    spec = TrialSpec.model_validate(
        {"data": SPHERES, "model": "plainode", "solver": {"method": "euler", "adapt": {}},
         "train": {"epochs": 1}}
    )  # fmt: skip
    task = task_for(load_data(spec, Path()), spec)
    with pytest.raises(InputError, match="the model has no `ODEBlock`"):
        adaptation_for(nn.Linear(2, 2), task, spec)


@pytest.mark.parametrize("fails", ["the reference", "the larger step"])
def test_a_solve_that_only_compares_and_fails_leaves_the_solver_as_it_was(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = trial(method="euler", steps=20, adapt={"every": 1})
    state, task = begun(spec)
    before = ode_blocks(state.model)[0].solver
    if fails == "the reference":
        for block in ode_blocks(state.model):
            block.max_evaluations = 30  # of which the midpoint rule needs more
    else:
        plain = task.loss

        def loss(model: nn.Module, batch: object) -> Loss:
            solver = ode_blocks(model)[0].solver
            if solver.method == "euler" and solver.step_size > 1.05 * before.step_size:
                raise Diverged("a state is not finite")
            return plain(model, batch)

        monkeypatch.setattr(task, "loss", loss)
    rows = list(rows_of(state, task, spec))
    assert len(rows) == 6
    assert ode_blocks(state.model)[0].solver == before
    assert {row["nfe_forward"] for row in rows} == {20}
