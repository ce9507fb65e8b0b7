import dataclasses
import io
import json
from types import SimpleNamespace

import pytest
import torch

import nodebench
from nodebench.data.load import load_data
from nodebench.errors import StoreError
from nodebench.planning import entries
from nodebench.planning.plan import points
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.identity import numerics
from nodebench.spec.training import Limits
from nodebench.store import Store
from nodebench.sweep.file import Evaluate
from nodebench.training import record
from nodebench.training.checkpoint import trained_model
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
    assert numerics(sweep.trials[0].spec) == 6
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


@pytest.mark.usefixtures("coarse_reference")
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


@pytest.mark.usefixtures("coarse_reference")
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
    kept.follow(state, chance=None)
    kept.start_clock()
    for now[0] in (64.9, 65.0, 69.9, 70.0):
        kept.keep_epoch()
    assert saved == [65.0, 70.0]


def test_an_epoch_that_is_trained_again_keeps_its_first_row_unless_its_numbers_are_others(
    tmp_path,
):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    run_trial(trial, store, options(sweep, tmp_path))
    rows = folder.history()
    rows[0]["epoch_s"] = 1234.0
    rows[1] |= {"epoch_s": 1234.0, "train_loss": 5.0}  # as of a machine that rounds otherwise
    rows[2]["epoch_s"] = 1234.0
    folder.write_history(rows)
    for file in (folder.result_file, folder.checkpoint):
        file.unlink()
    run_trial(trial, store, options(sweep, tmp_path))
    again = folder.history()
    assert again[0] == rows[0]
    assert again[1]["train_loss"] < 5.0
    assert all(row["epoch_s"] < 1234.0 for row in again[1:])


def test_a_callback_that_raises_leaves_the_trial_free_though_its_frames_are_kept(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    with pytest.raises(Killed) as kept:  # as a notebook keeps the last traceback
        run_trial(sweep.trials[0], store, options(sweep, tmp_path), kill_after(1))
    assert kept.tb is not None
    assert not store.folder(sweep.trials[0].id).is_locked()


def wants_a_point(sweep, tmp_path, steps=8):
    wanted = (Evaluate(methods=("euler",), steps=(steps,)),)
    return dataclasses.replace(options(sweep, tmp_path), evaluate=wanted)


@pytest.mark.usefixtures("coarse_reference")
def test_weights_that_are_trained_again_are_nobodys_until_they_are_the_last(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    result = run_trial(trial, store, options(sweep, tmp_path))
    record = {path.name: path.read_bytes() for path in folder.files() if path.suffix != ".txt"}
    more = wants_a_point(sweep, tmp_path)
    folder.checkpoint.unlink()  # as `gc --checkpoints` does
    with pytest.raises(Killed):
        run_trial(trial, store, more, kill_after(2))
    [entry] = entries(sweep, store, more)
    assert (entry.missing, entry.is_trained) == (True, False)
    with pytest.raises(StoreError, match="there is no checkpoint"):
        trained_model(folder, tmp_path)
    assert folder.history_file.read_bytes() == record["history.jsonl"]
    assert run_trial(trial, store, more) == result
    assert "resumed after epoch 2" in folder.log_file.read_text()
    assert not folder.retraining.exists()
    again = torch.load(folder.checkpoint, weights_only=True)["model"]
    first = torch.load(io.BytesIO(record["checkpoint.pt"]), weights_only=True)["model"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert folder.history_file.read_bytes() == record["history.jsonl"]
    assert len(folder.evaluations()) == 3  # its own, the limit, and the one asked for


@pytest.mark.usefixtures("coarse_reference")
def test_weights_that_are_trained_again_to_other_numbers_replace_the_whole_record(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    result = run_trial(trial, store, wants_a_point(sweep, tmp_path, steps=4))
    rows, points = folder.history(), folder.evaluations()
    other = dataclasses.replace(result, summary={**result.summary, "test_loss": 0.7})
    folder.write_result(other)  # as if of a machine that rounds otherwise
    folder.write_history([{**row, "test_loss": 0.7} for row in rows])
    folder.write_evaluations([{**row, "loss": 0.7} for row in points])
    folder.checkpoint.unlink()
    again = run_trial(trial, store, wants_a_point(sweep, tmp_path))
    assert again.summary["test_loss"] == result.summary["test_loss"]
    assert essence(folder.history()) == essence(rows)
    found = folder.evaluations()
    assert [row["nfe"] for row in found] == [2, 512, 8]
    assert [row["loss"] for row in found[:2]] == [row["loss"] for row in points[:2]]


@pytest.mark.usefixtures("coarse_reference")
def test_points_that_failed_are_measured_again_if_failures_are_to_be_retried(tmp_path, monkeypatch):
    sweep, store = tiny(tmp_path), Store(tmp_path)
    trial, folder = sweep.trials[0], store.folder(sweep.trials[0].id)
    more = wants_a_point(sweep, tmp_path)

    def out_of_memory(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("nodebench.training.evaluation._Meter.measures", out_of_memory)
        run_trial(trial, store, more)
    assert {row["outcome"] for row in folder.evaluations()} == {"out-of-memory"}
    assert not entries(sweep, store, more)[0].missing
    retrying = dataclasses.replace(more, retry_failed=True)
    assert entries(sweep, store, retrying)[0].missing
    run_trial(trial, store, retrying)
    assert {row["outcome"] for row in folder.evaluations()} == {"finished"}
    assert not entries(sweep, store, retrying)[0].missing
