from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nodebench.data.load import load_data
from nodebench.execution.seed_pack import Pack
from nodebench.models.build import build
from nodebench.ode.block import share_memory
from nodebench.planning import RunOptions
from nodebench.planning.seed_packs import obstacle, packs, rank
from nodebench.spec import TrialSpec
from nodebench.spec.identity import Cell
from nodebench.spec.training import Limits
from nodebench.store import Store
from nodebench.sweep.file import Resources, Stop
from nodebench.training import preparation
from nodebench.training.checkpoint import TrainState, read_checkpoint
from nodebench.training.loop import new_state
from nodebench.training.steps.step import Step
from nodebench.training.steps.vmapped import VmappedSteps
from nodebench.training.tasks.table import task_for
from nodebench.training.trial import attempt, run_trial
from tests.support.tiny_sweeps import TINY, essence, options, tiny

IMAGES = {
    "data": {"name": "digits", "train_size": 60, "test_size": 30, "augment": ["crop", "flip"]},
    "solver": {"method": "midpoint", "steps": 2},
    "train": {"epochs": 1, "batch_size": 16},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "folded": TINY,
    "compiled": {**TINY, "model": {"name": "plainode", "field": "linear", "activation": "silu"}},
    "linear": {**TINY, "model": {"name": "plainode", "field": "linear", "activation": "none"}},
    "adam": {**TINY, "train": {"epochs": 1, "batch_size": 16, "optimizer": "adam"}},
    "exact": {**TINY, "gradient": "exact"},
    "augmented": {**TINY, "model": {"name": "plainode", "width": 4, "augment_dim": 1}},
    "moving": {
        **TINY,
        "model": {
            "name": "plainode",
            "width": 4,
            "motion": "generalized-heavy-ball",
            "initial_velocity": "learned",
        },
    },
    "no ODE": {**IMAGES, "model": {"name": "resnet", "width": 4}},
    "perceptron": {**IMAGES, "model": "mlp"},
    **{
        norm: {**IMAGES, "model": {"name": "odenet", "width": 4, "norm": norm}}
        for norm in ("gn", "bn", "ln", "in", "nf", "wn", "ln+wn")
    },
    "staged": {**IMAGES, "model": {"name": "odenet10", "width": 4, "norm": "bn"}},
}


def state_of(spec: TrialSpec, task: Any, data: Any) -> TrainState:
    """A training in float64, one step after its beginning."""
    model = build(spec, data).double().train()
    share_memory(model, 2**30)
    state = new_state(model, spec)
    Step(state, task, in_double(next(task.batches(0)))).take()
    return state


def in_double(batch: Any) -> Any:
    return (batch[0].double(), batch[1])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of weight norms
@pytest.mark.parametrize("name", NETWORKS)
def test_a_packed_step_is_the_step_of_each_seed(name):
    apart, together = [], []
    for seed in range(3):
        spec = TrialSpec.model_validate({**NETWORKS[name], "seed": seed})
        assert obstacle(spec) is None
        data = load_data(spec, None)
        task = task_for(data, spec)
        state = state_of(spec, task, data)
        batch = in_double(next(task.batches(1)))
        together.append(Step(copy.deepcopy(state), task, batch))
        Step(state, task, batch).take()
        apart.append(state)
    VmappedSteps().take(together)
    assert all(each.taken for each in together)
    for alone, packed in zip(apart, together, strict=True):
        assert_same(alone, packed.state)


def assert_same(alone: TrainState, packed: TrainState) -> None:
    assert alone.iteration == packed.iteration == 2
    for left, right in (
        (alone.model.state_dict(), packed.model.state_dict()),
        (vars(alone.sums), vars(packed.sums)),
        (alone.optimizer.state_dict(), packed.optimizer.state_dict()),
    ):
        torch.testing.assert_close(dict(left), dict(right), rtol=1e-10, atol=1e-12)


@pytest.fixture
def three(tmp_path):
    """Three seeds, and what they are run with."""
    sweep = tiny(tmp_path, seeds=[0, 1, 2], resources={"pack_seeds": 3})
    return sweep.trials, options(sweep, tmp_path)


def run(trials, store, how):
    pack = Pack(trials, store, how)
    rows = list(pack.epochs())
    assert not pack.problems
    return rows


def test_seconds_of_training_are_without_the_evaluation_of_others(tmp_path, three, monkeypatch):
    now = [0.0]

    def monotonic() -> float:
        now[0] += 1
        return now[0]

    def evaluate(*_: object) -> None:
        now[0] += 1000

    clock = SimpleNamespace(monotonic=monotonic, time=time.time)
    monkeypatch.setattr("nodebench.training.record.time", clock)
    monkeypatch.setattr("nodebench.training.trial._evaluate", evaluate)
    trials, how = three
    run(trials, store := Store(tmp_path / "packed"), how)
    seconds = [store.folder(trial.id).result().trained_s for trial in trials]
    assert now[0] > 3000
    assert 0 < min(seconds) <= max(seconds) < 1000


def test_packed_trials_are_what_they_are_alone_to_rounding(tmp_path, three):
    trials, how = three
    packed, alone = Store(tmp_path / "packed"), Store(tmp_path / "alone")
    rows = run(trials, packed, how)
    assert [set(row) for row in rows] == [{trial.id for trial in trials}] * 3
    for trial in trials:
        expected = run_trial(trial, alone, how)
        found = packed.folder(trial.id).result()
        assert found.outcome == "finished"
        assert [e.get("packed") for e in found.environments] == [3]
        assert "packed" not in expected.environments[0]
        assert found.summary["train_loss"] == pytest.approx(expected.summary["train_loss"], 1e-5)
        assert found.summary["nfe_forward"] == expected.summary["nfe_forward"]
        one, other = (
            read_checkpoint(store.folder(trial.id).checkpoint)["model"] for store in (packed, alone)
        )
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_steps_are_really_taken_together(tmp_path, three, monkeypatch):
    trials, how = three
    taken, take = [], Step.take
    monkeypatch.setattr(Step, "take", lambda step: (taken.append(step.taken), take(step)))
    run(trials, Store(tmp_path / "runs"), how)
    assert taken == [True] * 3 * 12


def test_a_checkpoint_has_its_own_seed_alone(tmp_path, three):
    trials, how = three
    packed, alone = Store(tmp_path / "packed"), Store(tmp_path / "alone")
    run(trials, packed, how)
    run_trial(trials[0], alone, how)
    sizes = [s.folder(trials[0].id).checkpoint.stat().st_size for s in (packed, alone)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_pack_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, three):
    trials, how = three
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    run(trials, whole, how)
    cut = Pack(trials, broken, how).epochs()
    next(cut)
    cut.close()
    assert all(broken.folder(trial.id).result() is None for trial in trials)
    assert [broken.folder(trial.id).packed for trial in trials] == [3, 3, 3]
    run(trials, broken, how)
    for trial in trials:
        histories = [essence(s.folder(trial.id).history()) for s in (whole, broken)]
        assert histories[0] == histories[1]


def test_trials_that_stand_elsewhere_join_their_pack(tmp_path, three):
    trials, how = three
    store, alone = Store(tmp_path / "runs"), Store(tmp_path / "alone")
    begun = attempt(trials[1], store, how)
    for _ in range(6):  # into its second epoch
        next(begun)
    begun.close()
    run(trials, store, how)
    for trial in trials:
        run_trial(trial, alone, how)
        one, other = (s.folder(trial.id).history() for s in (store, alone))
        assert [row["iteration"] for row in one] == [4, 8, 12]
        assert one[-1]["train_loss"] == pytest.approx(other[-1]["train_loss"], rel=1e-5)


def test_a_seed_that_diverges_does_not_harm_the_others(tmp_path, three, monkeypatch):
    trials, how = three

    def task(data, spec):
        if spec.seed == 1:
            data.train.inputs[7:] = float("inf")
        return task_for(data, spec)

    healthy, store = Store(tmp_path / "healthy"), Store(tmp_path / "runs")
    run(trials, healthy, how)
    monkeypatch.setattr(preparation, "task_for", task)
    run(trials, store, how)
    outcomes = [store.folder(trial.id).result().outcome for trial in trials]
    assert outcomes == ["finished", "diverged", "finished"]
    for trial in (trials[0], trials[2]):
        one, other = (s.folder(trial.id).result().summary["train_loss"] for s in (healthy, store))
        assert one == pytest.approx(other, rel=1e-5)


def test_a_trial_held_elsewhere_is_left_out(tmp_path, three, monkeypatch):
    monkeypatch.setattr("nodebench.store.trial_folder.TRIAL_WAIT_S", 0.1)
    trials, how = three
    store = Store(tmp_path / "runs")
    with store.folder(trials[2].id).locked():
        pack = Pack(trials, store, how)
        assert len(list(pack.epochs())) == 3
    assert list(pack.problems) == [trials[2].id]
    assert not pack.has_results
    assert store.folder(trials[0].id).result().outcome == "finished"


def test_what_cannot_be_done_together_is_done_one_by_one(tmp_path, three, monkeypatch):
    trials, how = three
    store, alone = Store(tmp_path / "runs"), Store(tmp_path / "alone")

    def refuse(*_arguments, **_more):
        raise ValueError("no rule for that")

    with monkeypatch.context() as patch:  # after the solve, whose evaluations must not be counted
        patch.setattr("nodebench.training.steps.vmapped.torch.autograd.grad", refuse)
        run(trials, store, how)
    run_trial(trials[0], alone, how)
    histories = [s.folder(trials[0].id).history() for s in (store, alone)]
    assert essence(histories[0]) == essence(histories[1])
    log = store.folder(trials[2].id).log_file.read_text()
    assert "plain steps are used: ValueError: no rule for that" in log


def test_a_limit_of_evaluations_ends_each_trial_by_itself(tmp_path, three):
    trials, how = three
    store = Store(tmp_path / "runs")
    run(trials, store, replace(how, limits=Limits(nfe=1)))
    assert [store.folder(t.id).result().outcome for t in trials] == ["nfe"] * 3


# ------------------------------------------------------------------------------ who is packed


def packing(size, **changes):
    return RunOptions(Path(), Resources(pack_seeds=size), **changes)


def test_packs_keep_the_order_and_hold_what_differs_in_its_seed_alone(tmp_path):
    sweep = tiny(tmp_path, grid=[{"solver.steps": [1, 2]}], seeds=[0, 1, 2])

    def steps(size):
        found = packs(sweep.trials, packing(size), slots=1)
        return [[(t.spec.solver.steps, t.spec.seed) for t in pack] for pack in found]

    assert steps(1) == [[(s, seed)] for s in (1, 2) for seed in (0, 1, 2)]
    assert steps(2) == [[(1, 0), (1, 1)], [(1, 2)], [(2, 0), (2, 1)], [(2, 2)]]
    assert steps("auto") == [[(1, 0), (1, 1), (1, 2)], [(2, 0), (2, 1), (2, 2)]]


def test_packs_leave_no_place_empty_and_take_what_is_trained_or_searched_alone(tmp_path):
    trials = tiny(tmp_path, seeds=list(range(6))).trials

    def sizes(slots, **changes):
        return [len(pack) for pack in packs(trials, packing("auto", **changes), slots)]

    assert (sizes(1), sizes(2), sizes(4), sizes(16)) == ([6], [3, 3], [2, 2, 2], [1] * 6)
    assert sizes(1, stop=Stop()) == [1] * 6
    assert sizes(1, trained=frozenset({trials[0].id, trials[3].id})) == [1, 4, 1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"solver": {"method": "dopri5"}}, "different steps"),
        ({"gradient": "adjoint"}, "adjoint"),
        ({"gradient": "recompute"}, "recompute"),
        ({"model": {"name": "mlp", "dropout": 0.5}}, "dropout"),
        ({**IMAGES, "model": {"name": "odenet", "norm": "ln+sn"}}, "spectral"),
        ({"data": "spiral", "model": "neuralode"}, "trajectory"),
        ({"model": {"name": "networks:Linear"}}, "user"),
    ],
)
def test_what_cannot_be_packed_is_trained_alone(changes, why):
    spec = TrialSpec.model_validate({**TINY, **changes})
    assert why in obstacle(spec)
    trials = [Cell(spec).trial(seed) for seed in (0, 1)]
    assert [len(pack) for pack in packs(trials, packing(8), slots=1)] == [1, 1]


def test_the_pack_that_probably_takes_longest_ranks_first(tmp_path):
    mlp = {"model": [{"name": "mlp"}]}
    steps = {"solver": [{"method": "euler", "steps": 8}, {"method": "rk4", "step_size": 0.25}]}
    tight = {"solver": [{"method": "dopri5", "tol": 1.0e-3}]}
    long = {"train.epochs": [200]}
    sweep = tiny(tmp_path, grid=[mlp, steps, tight, long], seeds=[0, 1, 2])
    found = sorted(packs(sweep.trials, packing(2), slots=1), key=rank, reverse=True)
    told = [
        (len(pack), getattr(spec.solver, "method", None), spec.train.epochs)
        for pack in found
        for spec in [pack[0].spec]
    ]
    assert told == [
        *[(2, "euler", 200), (1, "euler", 200)],
        *[(1, "dopri5", 3)] * 3,
        *[(2, "rk4", 3), (2, "euler", 3), (1, "rk4", 3), (1, "euler", 3)],
        *[(2, None, 3), (1, None, 3)],
    ]


def test_auto_packs_where_it_pays():
    cell = Cell(TrialSpec.model_validate({**IMAGES, "model": "odenet"}))
    trials = [cell.trial(seed) for seed in (0, 1)]
    assert [len(pack) for pack in packs(trials, packing("auto"), slots=1)] == [1, 1]


def test_a_pack_that_has_ended_is_given_no_steps_to_take(tmp_path, three):
    trials, how = three
    taken = []

    class Counting:
        def take(self, steps):
            taken.append(len(steps))

    pack = Pack(trials, Store(tmp_path), how)
    pack._taker = Counting()
    for _ in pack.epochs():
        pass
    assert set(taken) == {3}
