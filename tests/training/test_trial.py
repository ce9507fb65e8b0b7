import dataclasses
import errno
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import nodebench
from nodebench.data.load import load_data
from nodebench.errors import Diverged, EvaluationLimit, StoreError
from nodebench.planning import entries
from nodebench.planning.missing import is_missing
from nodebench.planning.plan import points
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.identity import numerics
from nodebench.spec.training import Limits
from nodebench.store import Store, TrialFolder
from nodebench.sweep.file import Evaluate
from nodebench.training import loop as train_module
from nodebench.training import record
from nodebench.training.tasks.table import task_for
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, essence, options, tiny

DIGITS = {
    "data": {"name": "digits", "train_size": 100, "test_size": 50, "augment": ["crop", "flip"]},
    "model": {"name": "odenet", "width": 8, "norm": "bn"},
    "solver": {"method": "rk4", "steps": 1},
    "gradient": "recompute",
    "train": {"epochs": 4, "batch_size": 32},
}


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing of ours catches it."""


def kill_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise Killed

    return on_epoch


def test_a_tiny_trial_has_the_metrics_of_this_numerics(tmp_path):
    """If this fails, results have changed: add a revision, and pin the new ones."""
    sweep = tiny(tmp_path)
    result = run_trial(sweep.trials[0], Store(tmp_path), options(sweep, tmp_path))
    assert numerics(sweep.trials[0].spec) == 4
    assert result.summary["parameters"] == 71
    assert result.summary["train_loss"] == pytest.approx(0.68363929, rel=1e-5)
    assert result.summary["test_loss"] == pytest.approx(0.71883535, rel=1e-5)


@pytest.mark.parametrize("base", [TINY, DIGITS], ids=["spheres", "digits"])
@pytest.mark.parametrize("checkpoint_s", [0.0, 1e9], ids=["each epoch", "never"])
def test_a_killed_trial_goes_on_to_the_same_bits(tmp_path, base, checkpoint_s):
    sweep = tiny(tmp_path, base=base)
    trial = sweep.trials[0]
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    expected = run_trial(trial, whole, options(sweep, tmp_path))
    for epoch in (1, 2):
        with pytest.raises(Killed):
            run_trial(
                trial,
                broken,
                options(sweep, tmp_path, checkpoint_s=checkpoint_s),
                kill_after(epoch),
            )
        assert broken.folder(trial.id).result() is None
    found = run_trial(trial, broken, options(sweep, tmp_path))
    rows = [store.folder(trial.id).history() for store in (whole, broken)]
    assert essence(rows[0]) == essence(rows[1])
    assert essence([found.summary]) == essence([expected.summary])
    models = [torch.load(s.folder(trial.id).checkpoint, weights_only=True) for s in (whole, broken)]
    for name, weights in models[0]["model"].items():
        assert torch.equal(weights, models[1]["model"][name])


def test_two_runs_of_one_trial_are_equal_and_another_seed_is_not(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1])
    runs = [
        run_trial(trial, Store(tmp_path / name), options(sweep, tmp_path)).summary["train_loss"]
        for name, trial in zip("abc", [sweep.trials[0], *sweep.trials], strict=True)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_what_is_finished_is_not_done_again(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    first = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert run_trial(sweep.trials[0], store, options(sweep, tmp_path), kill_after(1)) == first
    assert [entry.missing for entry in entries(sweep, store, options(sweep, tmp_path))] == [False]


def test_divergence_is_a_result_with_its_epoch(tmp_path):
    base = {
        "data": {"name": "digits", "train_size": 640, "test_size": 50},
        "model": {"name": "odenet", "width": 8},
        "solver": {"method": "euler", "steps": 4},
        "train": {"epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 1e6}},
    }
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert (result.outcome, result.is_result) == ("diverged", True)
    assert str(result) == "DNF (diverged, epoch 1)"
    assert not entries(sweep, store, options(sweep, tmp_path))[0].missing


def test_a_limit_ends_a_trial_and_raising_it_makes_it_missing_again(tmp_path):
    adaptive = {**TINY, "solver": {"method": "dopri5", "tol": 1e-4}}
    sweep, store = tiny(tmp_path, base=adaptive), Store(tmp_path)
    trial = sweep.trials[0]
    low = dataclasses.replace(options(sweep, tmp_path), limits=Limits(nfe=5))
    high = dataclasses.replace(low, limits=Limits(nfe=5000))
    result = run_trial(trial, store, low)
    assert (result.outcome, result.limit) == ("nfe", 5)
    assert not entries(sweep, store, low)[0].missing
    assert entries(sweep, store, high)[0].missing
    assert run_trial(trial, store, high).outcome == "finished"


def test_a_deadline_ends_a_trial_and_it_goes_on_under_a_later_one(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial = sweep.trials[0]
    short = dataclasses.replace(options(sweep, tmp_path), limits=Limits(minutes=1e-9))
    assert run_trial(trial, store, short).outcome == "deadline"
    free = dataclasses.replace(short, limits=Limits())
    assert run_trial(trial, store, free).outcome == "finished"
    reference = run_trial(trial, Store(tmp_path / "other"), free)
    assert essence([store.folder(trial.id).result().summary]) == essence([reference.summary])


def test_a_crash_is_no_result_and_leaves_its_traceback(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_part.py").write_text("def model(spec, data):\n    raise KeyError('oops')\n")
    sweep, store = tiny(tmp_path, base={**TINY, "model": "broken_part:model"}), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert (result.outcome, result.is_result) == ("error", False)
    assert "KeyError: 'oops'" in (store.folder(sweep.trials[0].id).path / "error.txt").read_text()
    assert entries(sweep, store, options(sweep, tmp_path))[0].missing


def test_a_model_of_ones_own_runs_by_import_path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_part.py").write_text(
        "from torch import nn\n"
        "from nodebench.ode.block import ODEBlock\n"
        "class Field(nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))\n"
        "    def forward(self, t, y):\n"
        "        return self.net(y)\n"
        "def model(spec, data):\n"
        "    field = Field(spec.model.settings['width'])\n"
        "    block = ODEBlock(field, spec.solver, spec.gradient)\n"
        "    return nn.Sequential(block, nn.Linear(2, data.classes))\n"
    )
    model = {"name": "own_part:model", "settings": {"width": 5}}
    sweep, store = tiny(tmp_path, base={**TINY, "model": model}), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert result.outcome == "finished"
    assert result.summary["parameters"] == 2 * 5 + 5 + 5 * 2 + 2 + 2 * 2 + 2
    assert result.summary["nfe_forward"] == 2


def test_points_added_later_are_evaluated_without_training(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    plain = options(sweep, tmp_path)
    run_trial(trial, store, plain)
    rows = folder.history()
    two = dataclasses.replace(plain, evaluate=(Evaluate(methods=("euler",), steps=(2, 8)),))
    assert entries(sweep, store, two)[0].missing
    result = run_trial(trial, store, two, kill_after(1))
    points = folder.evaluations()
    assert folder.history() == rows
    # Its own solver and the limit besides what was asked for, of which the former is a part.
    assert [point["nfe"] for point in points] == [2, 512, 2, 8]
    assert points[0]["accuracy"] == result.summary["test_accuracy"] == points[2]["accuracy"]
    three = dataclasses.replace(plain, evaluate=(Evaluate(methods=("euler",), steps=(2, 8, 4)),))
    run_trial(trial, store, three)
    assert folder.evaluations()[:4] == points
    assert len(folder.evaluations()) == 5
    assert not entries(sweep, store, three)[0].missing


def test_an_evaluation_that_fails_is_a_point_with_a_reason(tmp_path):
    sweep, store = tiny(tmp_path, limits={"nfe": 20}), Store(tmp_path)
    wanted = (Evaluate(methods=("euler",), steps=(64, 2)),)
    run = dataclasses.replace(options(sweep, tmp_path), evaluate=wanted)
    assert run_trial(sweep.trials[0], store, run).outcome == "finished"
    own, limit, failed, good = store.folder(sweep.trials[0].id).evaluations()
    assert [row["outcome"] for row in (own, limit, failed, good)] == [
        "finished", "nfe", "nfe", "finished",
    ]  # fmt: skip
    assert own["solver_error"] > 0  # against a reference that may evaluate as often as it needs
    assert "more than 20 evaluations" in failed["reason"]


def test_a_resume_under_other_threads_is_on_record(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial = sweep.trials[0]
    with pytest.raises(Killed):
        run_trial(trial, store, options(sweep, tmp_path), kill_after(2))
    two = sweep.resources.model_copy(update={"cpus": 2})
    result = run_trial(trial, store, dataclasses.replace(options(sweep, tmp_path), resources=two))
    assert [environment["threads"] for environment in result.environments] == [1, 2]


def test_the_trial_file_names_every_setting(tmp_path):
    trial = Trial(TrialSpec.model_validate(TINY))
    sweep, store = tiny(tmp_path), Store(tmp_path)
    run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    values = json.loads((store.folder(trial.id).path / "trial.json").read_text())
    assert values["id"] == trial.id
    assert TrialSpec.model_validate(values["spec"]) == trial.spec


def test_a_divergence_found_by_the_test_pass_belongs_to_its_epoch(tmp_path, monkeypatch):
    def diverge(*_):
        raise Diverged("the loss on held-out data is nan")

    monkeypatch.setattr("nodebench.training.loop._test_metrics", diverge)
    sweep = tiny(tmp_path)
    result = run_trial(sweep.trials[0], Store(tmp_path), options(sweep, tmp_path))
    assert str(result) == "DNF (diverged, epoch 1)"


@pytest.mark.parametrize("checkpoint_s", [0.0, 1e9])
def test_what_a_stopped_trial_shows_does_not_depend_on_its_checkpoints(
    tmp_path, monkeypatch, checkpoint_s
):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    begin = dataclasses.replace(
        options(sweep, tmp_path, checkpoint_s=checkpoint_s), limits=Limits(nfe=9)
    )
    real = train_module._test_metrics

    def stop_in_the_third(model, task):
        if len(calls) == 2:
            raise EvaluationLimit("too many")
        calls.append(1)
        return real(model, task)

    calls: list[int] = []
    monkeypatch.setattr("nodebench.training.loop._test_metrics", stop_in_the_third)
    assert str(run_trial(trial, store, begin)) == "DNF (nfe, epoch 3)"
    rows = folder.history()
    assert [row["epoch"] for row in rows] == [1, 2]
    monkeypatch.undo()
    raised = dataclasses.replace(begin, limits=Limits())
    assert run_trial(trial, store, raised).outcome == "finished"
    assert folder.history()[:2] == rows  # to the second: MLflow has these points already


def test_a_crash_in_evaluation_leaves_the_training_finished(tmp_path, monkeypatch):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    first = run_trial(trial, store, options(sweep, tmp_path))
    more = dataclasses.replace(
        options(sweep, tmp_path), evaluate=(Evaluate(methods=("euler",), steps=(2,)),)
    )

    def out_of_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(
        "nodebench.training.tasks.classification.Classification.evaluate", out_of_memory
    )
    assert run_trial(trial, store, more) == first
    assert {point["outcome"] for point in folder.evaluations()} == {"out-of-memory"}
    folder.write_evaluations([])
    monkeypatch.setattr(
        "nodebench.training.tasks.classification.Classification.evaluate", lambda *_, **__: 1 / 0
    )
    assert run_trial(trial, store, more) == first
    assert entries(sweep, store, more)[0].missing
    assert "ZeroDivisionError" in (folder.path / "error.txt").read_text()


def test_a_point_under_a_limit_since_raised_is_evaluated_again(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    low = dataclasses.replace(
        options(sweep, tmp_path),
        evaluate=(Evaluate(methods=("euler",), steps=(64,)),),
        limits=Limits(nfe=20),
    )
    run_trial(trial, store, low)
    assert not entries(sweep, store, low)[0].missing
    high = dataclasses.replace(low, limits=Limits(nfe=100))
    assert entries(sweep, store, high)[0].missing
    run_trial(trial, store, high)
    assert folder.evaluations()[-1]["nfe"] == 64


def test_budgets_are_those_of_the_whole_network():
    spec = TrialSpec.model_validate(
        {"data": "digits", "model": {"name": "odenet", "blocks": 2},
         "solver": {"method": "euler", "steps": 2}}
    )  # fmt: skip
    wanted = points(Trial(spec), (Evaluate(methods=("rk4",), nfe=(8, 12)),))
    assert [point.steps for point in wanted if point.method == "rk4"] == [128, 1]


@pytest.mark.parametrize(
    "solver", [{"method": "euler", "steps": 2}, {"method": "euler", "adapt": {"every": 1}}]
)
def test_a_trained_network_is_given_back(tmp_path, monkeypatch, solver):
    sweep, store = tiny(tmp_path, grid={"solver": [solver]}), Store(tmp_path)
    trial = sweep.trials[0]
    result = run_trial(trial, store, options(sweep, tmp_path))
    monkeypatch.setenv("NODEBENCH_RUNS", str(tmp_path))
    before = torch.get_rng_state()
    model = nodebench.load_model(trial.id[:6])
    assert torch.equal(torch.get_rng_state(), before)
    data = load_data(trial.spec, tmp_path)
    found = task_for(data, trial.spec).evaluate(model)
    assert found.measures["accuracy"] == result.summary["test_accuracy"]
    assert found.measures["loss"] == result.summary["test_loss"]
    assert not model.training


def test_an_untrained_network_is_not_given_back(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    store.folder(sweep.trials[0].id).create(sweep.trials[0])
    with pytest.raises(StoreError, match="is not finished"):
        nodebench.load_model(sweep.trials[0].id, store)
    with pytest.raises(StoreError, match="no trial starts with `abc`"):
        nodebench.load_model("abc", store)


def test_a_solve_that_would_exceed_the_default_limit_is_no_result_for_a_higher_one(tmp_path):
    base = {**TINY, "solver": {"method": "rk4", "steps": 40_000}}
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path)
    trial, run = sweep.trials[0], options(sweep, tmp_path)
    result = run_trial(trial, store, run)
    assert (result.outcome, result.limit) == ("nfe", 100_000)
    assert result.reason.endswith("take fewer steps, or raise `limits.nfe`")
    assert not entries(sweep, store, run)[0].missing
    for limits in (Limits(nfe=200_000), Limits(nfe=None)):
        assert entries(sweep, store, dataclasses.replace(run, limits=limits))[0].missing


def test_a_shortage_of_memory_has_a_reason(tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("nodebench.training.trial.build", out_of_memory)
    sweep, store = tiny(tmp_path), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert result.outcome == "out-of-memory"
    assert result.reason.startswith("Python ran out of memory: use a smaller batch")


@pytest.mark.parametrize(("failures", "is_on_record"), [(1, True), (2, False)])
def test_a_disk_that_is_full_for_the_result_alone_costs_no_training(
    tmp_path, monkeypatch, failures, is_on_record
):
    """It is an `error` where that can be written, and is said where not even that can."""
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    trial, write_result = sweep.trials[0], TrialFolder.write_result
    folder, left = store.folder(trial.id), [None] * failures

    def write_if_there_is_room(self, result):
        if left:
            left.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        write_result(self, result)

    monkeypatch.setattr(TrialFolder, "write_result", write_if_there_is_room)
    with nullcontext() if is_on_record else pytest.raises(StoreError, match="nodebench gc"):
        result = run_trial(trial, store, options(sweep, tmp_path))
        assert result.outcome == "error"
        assert "No space left on device. `nodebench gc` lists files to delete" in result.reason
    assert is_missing(trial, folder.result(), store, options(sweep, tmp_path))
    again = []
    assert run_trial(trial, store, options(sweep, tmp_path), again.append).outcome == "finished"
    assert again == []  # no epoch is trained twice
    assert [row["epoch"] for row in folder.history()] == [1, 2, 3]


def test_the_first_interval_between_checkpoints_begins_with_the_training(tmp_path, monkeypatch):
    """Imports and data, which may take a minute, bring no checkpoint forward."""
    sweep = tiny(tmp_path)
    folder = Store(tmp_path / "runs").folder(sweep.trials[0].id)
    folder.create(sweep.trials[0])
    now = [0.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: now[0])
    kept = record.Record(sweep.trials[0], folder, options(sweep, tmp_path, checkpoint_s=5.0))
    state, saved = SimpleNamespace(elapsed_s=0.0, epoch=1, history=[{"epoch": 1}]), []
    state.save = lambda path, aside: saved.append(now[0])
    now[0] = 60.0
    kept.start_clock(state, epochs_saved=0)
    for now[0] in (64.9, 65.0, 69.9, 70.0):
        kept.keep_epoch(state)
    assert saved == [65.0, 70.0]
