"""Tests of training/evaluation.py on trained trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodebench.api import evaluate, run
from nodebench.execution.runner import Monitor
from nodebench.planning import entries
from nodebench.planning.missing import is_missing
from nodebench.report.analysis.verdict import VerdictWord, judge
from nodebench.spec.training import Limits
from nodebench.store import Result, Store
from nodebench.store.rows import Row
from nodebench.sweep import Sweep
from nodebench.sweep.file import Evaluate
from nodebench.training.trial import run_trial
from tests.support.coarse_reference import coarse_reference
from tests.support.tiny_sweeps import options, tiny

GRADIENTS = {"methods": ["euler"], "steps": [2, 8], "gradients": ["backprop", "adjoint"]}


def trained(sweep: Sweep, folder: Path) -> tuple[Result, list[Row]]:
    store = Store(folder / "runs")
    result = run_trial(sweep.trials[0], store, options(sweep, folder))
    return result, store.folder(sweep.trials[0].id).evaluations()


def test_a_points_factor_is_of_the_step_size_that_adaptation_came_to(tmp_path: Path) -> None:
    solver = {"method": "euler", "adapt": {"every": 1, "max_steps": 9}}
    block = {"methods": ["euler", "rk4"], "step_factors": [0.5]}
    result, rows = trained(tiny(tmp_path, grid={"solver": [solver]}, evaluate=block), tmp_path)
    own, _, half, half_rk4 = rows
    size = result.summary["step_size"]
    assert own["solver"] == {"method": "euler", "step_size": size}
    assert half["solver"] == {"method": "euler", "step_size": size / 2}
    assert half_rk4["solver"] == {"method": "rk4", "step_size": size / 2}
    assert own["accuracy"] == result.summary["test_accuracy"]


def test_batch_statistics_give_another_accuracy_and_leave_the_learned_ones(tmp_path: Path) -> None:
    base = {
        "data": {"name": "digits", "train_size": 64, "test_size": 64},
        "model": {"name": "odenet", "width": 4, "norm": "bn"},
        "solver": {"method": "euler", "steps": 2},
        "train": {"epochs": 2, "batch_size": 32},
    }
    block = {"methods": ["midpoint"], "steps": [2], "batch_norm": ["batch", "running"]}
    with coarse_reference(grows=True):
        result, rows = trained(tiny(tmp_path, base=base, evaluate=block), tmp_path)
    by_statistics: Mapping[str, list[Row]] = {"batch": rows[:3], "running": rows[3:]}
    assert [row["point"].get("batch_norm", "running") for row in rows] == ["batch"] * 3 + [
        "running"
    ] * 3
    own, own_batch = by_statistics["running"][0], by_statistics["batch"][0]
    assert own["loss"] == pytest.approx(result.summary["test_loss"], rel=1e-6)
    assert own["loss"] != own_batch["loss"]
    assert own["solver_error"] != own_batch["solver_error"]


@pytest.mark.usefixtures("coarse_reference")
def test_test_batches_of_other_sizes_cost_what_their_samples_need(tmp_path: Path) -> None:
    block = {
        "methods": ["dopri5"], "tols": [1e-4], "control": ["batch", "sample"],
        "batch_sizes": [1, 8, 32],
    }  # fmt: skip
    solver = [{"method": "dopri5", "tol": 1e-3}]
    _, rows = trained(tiny(tmp_path, grid={"solver": solver}, evaluate=block), tmp_path)
    found = {(row["point"]["control"], row["point"]["batch_size"]): row for row in rows}
    assert len(found) == 6
    assert all(row["outcome"] == "finished" for row in rows)
    assert {row["accuracy"] for row in rows} == {rows[0]["accuracy"]}
    assert [found["sample", size]["samples_per_pass"] for size in (1, 8, 32)] == [1, 8, 32]
    samples = [found["sample", size] for size in (1, 8, 32)]
    for name in ("nfe_sample_min", "nfe_sample_mean", "nfe_sample_max", "steps_accepted"):
        # Whatever else is in a batch; at 1e-5, float32's rounding would be a hundredth of an error.
        assert len({row[name] for row in samples}) == 1, name
    alone = found["batch", 1]
    assert alone["nfe"] == pytest.approx(samples[0]["nfe"]) == samples[0]["nfe_sample_mean"]
    assert alone["steps_accepted"] == pytest.approx(samples[0]["steps_accepted"])
    assert samples[2]["nfe"] == samples[2]["nfe_sample_max"]  # one batch, which waits for all
    assert "nfe_sample_mean" not in alone


@pytest.mark.usefixtures("coarse_reference")
def test_batches_and_steps_of_samples_leave_the_verdict_as_it_is(tmp_path: Path) -> None:
    solver, plain = [{"method": "dopri5", "tol": 1e-3}], {"methods": ["dopri5"], "tols": [1e-5]}
    about = {**plain, "control": ["sample"], "batch_sizes": [4]}
    sweep = tiny(tmp_path, grid={"solver": solver}, evaluate=[plain, about])
    trained(sweep, tmp_path)
    with_both = judge(sweep.trials[0], sweep, Store(tmp_path / "runs"))
    one = tiny(tmp_path, grid={"solver": solver}, evaluate=[plain])
    assert with_both == judge(one.trials[0], one, Store(tmp_path / "runs"))
    only = tiny(tmp_path, grid={"solver": solver}, evaluate=[about])
    assert judge(only.trials[0], only, Store(tmp_path / "runs")) is None


@pytest.mark.usefixtures("coarse_reference")
def test_a_systems_pairs_are_tested_in_batches_too(tmp_path: Path) -> None:
    base = {
        "data": {"name": "system", "train_size": 16, "test_size": 20},
        "model": "system",
        "solver": {"method": "dopri5", "tol": 1e-4},
        "train": {"epochs": 1, "batch_size": 8},
    }
    block = {"methods": ["dopri5"], "tols": [1e-4], "control": ["sample"], "batch_sizes": [8, 20]}
    _, rows = trained(tiny(tmp_path, base=base, evaluate=block), tmp_path)
    eights, all_ = rows
    assert (eights["samples_per_pass"], all_["samples_per_pass"]) == (20 / 3, 20)
    assert eights["samples"] == all_["samples"] == 20
    # Float32 rounds states of a few units.
    assert eights["error"] == pytest.approx(all_["error"], abs=1e-6)
    assert eights["nfe_sample_mean"] == all_["nfe_sample_mean"]
    assert all_["nfe"] == all_["nfe_sample_max"] >= eights["nfe"] >= eights["nfe_sample_mean"]


def test_gradients_are_measured_with_the_first_and_the_last_weights(tmp_path: Path) -> None:
    _, rows = trained(tiny(tmp_path, evaluate=GRADIENTS), tmp_path)
    assert len(rows) == 8
    found = {
        (r["point"]["gradient"], r["point"].get("at", "end"), r["point"]["steps"]): r for r in rows
    }
    for row in rows:
        assert row["outcome"] == "finished"
        assert 0 < row["gradient_error"] < 2
    assert (
        found["backprop", "start", 2]["gradient_error"]
        != found["backprop", "end", 2]["gradient_error"]
    )
    for weights in ("start", "end"):
        coarse, fine = (found["backprop", weights, n]["gradient_error"] for n in (2, 8))
        assert fine < coarse
    assert found["adjoint", "end", 8]["nfe_backward"] == 8


@pytest.mark.usefixtures("coarse_reference")
def test_a_gradient_block_leaves_the_verdict_to_the_others(tmp_path: Path) -> None:
    sweep = tiny(tmp_path, evaluate=GRADIENTS)
    trained(sweep, tmp_path)
    assert judge(sweep.trials[0], sweep, Store(tmp_path / "runs")) is None


@pytest.mark.usefixtures("coarse_reference")
def test_what_is_not_known_at_start_is_no_reason_to_train_again(tmp_path: Path) -> None:
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    first = run_trial(trial, store, options(sweep, tmp_path))
    more = dataclasses.replace(
        options(sweep, tmp_path), evaluate=(Evaluate.model_validate(GRADIENTS),)
    )
    assert is_missing(trial, first, store.folder(trial.id), more)
    assert entries(sweep, store, more)[0].is_trained
    assert run_trial(trial, store, more) == first
    assert not is_missing(trial, first, store.folder(trial.id), more)


BLOCK = {"methods": ["euler"], "steps": [2, 4]}


@pytest.mark.usefixtures("coarse_reference")
def test_a_trained_trial_without_its_checkpoint_is_not_trained_again_to_be_evaluated(
    tmp_path: Path,
) -> None:
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    run_trial(trial, store, options(sweep, tmp_path))
    wanted = tiny(tmp_path, evaluate=BLOCK)
    store.folder(trial.id).checkpoint.unlink()
    outcome = evaluate(wanted, store, Monitor(), inline=True, track=False, write_report=False)
    assert [(e.missing, e.is_trained) for e in outcome.entries] == [(True, False)]
    assert not store.folder(trial.id).checkpoint.exists()
    run(wanted, store, Monitor(), inline=True, track=False, write_report=False)
    assert "trained again" in store.folder(trial.id).log_file.read_text()


@pytest.mark.usefixtures("coarse_reference")
def test_points_after_the_deadline_have_it_as_their_reason(tmp_path: Path) -> None:
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    trial = sweep.trials[0]
    run_trial(trial, store, options(sweep, tmp_path))
    late = dataclasses.replace(
        options(sweep, tmp_path), evaluate=(Evaluate.model_validate(BLOCK),),
        limits=Limits(minutes=1e-9),
    )  # fmt: skip
    run_trial(trial, store, late)
    rows = store.folder(trial.id).evaluations()
    assert {row["outcome"] for row in rows} == {"deadline"}
    assert not entries(sweep, store, late)[0].missing
    later = dataclasses.replace(late, limits=Limits(minutes=10))
    assert entries(sweep, store, later)[0].missing
    run_trial(trial, store, later)
    assert {row["outcome"] for row in store.folder(trial.id).evaluations()} == {"finished"}


def test_a_spiral_is_judged_by_its_error(tmp_path: Path) -> None:
    base = {
        "data": {"name": "spiral", "windows": 4},
        "model": "neuralode",
        "solver": {"method": "euler", "steps": 1},
        "train": {"epochs": 1, "batch_size": 8},
    }
    sweep = tiny(tmp_path, base=base, evaluate={"methods": ["euler"], "step_factors": [0.5]})
    _, rows = trained(sweep, tmp_path)
    own, limit, half = rows
    assert (own["nfe"], half["nfe"], limit["nfe"]) == (199, 398, 199 * 32)
    assert own["order"] == pytest.approx(1.0, abs=0.1)
    found = judge(sweep.trials[0], sweep, Store(tmp_path / "runs"))
    assert found is not None and found.limit == limit["error"]


# ----------------------------------------------------------------------- a field in closed form

DECAY = """
import torch
from torch import nn
from nodebench.ode.block import ODEBlock

class Field(nn.Module):
    def __init__(self, stiffening=0.0):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(3.0))
        self.stiffening = stiffening

    def forward(self, t, y):
        return -self.rate * y - self.stiffening / (1.0001 - t) * (y - 1)

class Decay(nn.Module):
    \"\"\"The middle shell is told by its radius, which decays like exp(-3 t).\"\"\"

    def __init__(self, spec, data):
        super().__init__()
        field = Field(spec.model.settings.get("stiffening", 0.0))
        self.block = ODEBlock(field, spec.solver, spec.gradient)
        self.factor = spec.model.settings["factor"]

    def forward(self, x):
        radius = self.block(x.norm(dim=1, keepdim=True)) / self.factor
        middle = ((radius > 0.2) & (radius < 0.35)).float() + 0 * radius
        return torch.cat((1 - middle, middle), 1)
"""


def decay(folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Sweep:
    (folder / "decay_model.py").write_text(DECAY)
    monkeypatch.syspath_prepend(folder)
    model = {"name": "decay_model:Decay", "settings": {"factor": math.exp(-3)}}
    base = {"data": {"name": "spheres", "train_size": 16, "test_size": 200}, "model": model}
    base |= {"solver": {"method": "euler", "steps": 64}, "train": {"iterations": 0}}
    return tiny(folder, base=base, **fields)


def test_verdicts_on_a_field_in_closed_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Euler's factor (1 - 3/n)^n is 0.79 of exp(-3) at 16 steps, and 0.86 at 32.

    By 0.79, radii up to 0.44 look like the middle shell's, most of the outer shell's; by 0.86 up
    to 0.407, less than 2 % of these.
    """
    grid = {
        "solver.steps, model.settings": [
            [64, {"factor": math.exp(-3)}],
            [4, {"factor": (1 - 3 / 4) ** 4}],
        ]
    }
    evaluate = {"methods": ["euler"], "steps": [4, 8, 16, 32, 64, 128, 256]}
    sweep = decay(tmp_path, monkeypatch, grid=grid, evaluate=evaluate)
    store = Store(tmp_path / "runs")
    found = []
    for trial in sweep.trials:
        run_trial(trial, store, options(sweep, tmp_path))
        found.append(judge(trial, sweep, store))
    fine, coarse = found
    assert fine is not None and coarse is not None
    assert (fine.word, fine.own, fine.limit, fine.drop) == (VerdictWord.ODE, 1.0, 1.0, 0.0)
    assert fine.sufficient_steps == 32
    assert fine.order == pytest.approx(1.0, abs=0.1)
    assert (coarse.word, coarse.own) == (VerdictWord.RESNET, 1.0)
    assert coarse.limit == coarse.own - coarse.drop == 0.5


def test_a_field_that_stiffens_without_end_stops_at_the_limit_and_the_sweep_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [{"factor": 1.0}, {"factor": 1.0, "stiffening": 1e3}]
    sweep = decay(
        tmp_path,
        monkeypatch,
        grid={"model.settings": settings, "solver": [{"method": "dopri5", "tol": 1e-6}]},
        limits={"nfe": 500},
        evaluate={"methods": ["dopri5"], "tols": [1e-2, 1e-9]},
    )
    monkeypatch.chdir(tmp_path)
    outcome = run(sweep, Store(tmp_path / "runs"), Monitor(), inline=True, track=False)
    assert outcome.complete
    results = [entry.result for entry in outcome.entries]
    assert [result.outcome for result in results if result] == ["finished", "nfe"]
    assert outcome.page is not None
    assert "DNF (nfe, epoch 1)" in outcome.page.read_text()


@pytest.mark.usefixtures("coarse_reference")
def test_a_point_counts_the_samples_that_another_solver_loses_and_gains(tmp_path: Path) -> None:
    base = {
        "data": {"name": "digits", "train_size": 200, "test_size": 100},
        "model": {"name": "odenet", "width": 8, "t1": 6.0},
        "solver": {"method": "euler", "steps": 1},
        "train": {"epochs": 3, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
    }
    block = {"methods": ["euler"], "steps": [1, 3, 50], "test_size": 90}
    sweep = tiny(tmp_path, base=base, evaluate=block)
    _, rows = trained(sweep, tmp_path)
    own, *others = rows
    assert "lost" not in own
    assert {row["chance"] for row in rows} == {0.1}
    for row in others:
        if row["solver"] == own["solver"]:
            continue
        net = row["lost"] - row["gained"]
        assert net == round(90 * (own["accuracy"] - row["accuracy"]))
    assert any(row.get("lost") and row["gained"] for row in others)
    folder = Store(tmp_path / "runs").folder(sweep.trials[0].id)
    folder.write_evaluations(rows[:1])  # as if it had been killed after the first point
    evaluate(sweep, store=Store(tmp_path / "runs"), inline=True, track=False)
    again = folder.evaluations()
    counts = [[(row.get("lost"), row.get("gained")) for row in each] for each in (rows, again)]
    assert counts[0] == counts[1]
