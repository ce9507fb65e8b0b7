"""How a trial ends that does not finish: its outcome, its reason, and what is kept."""

import dataclasses
import errno
from contextlib import nullcontext

import pytest
import torch

from nodebench.errors import Diverged, EvaluationLimit, StoreError
from nodebench.planning import entries
from nodebench.planning.missing import is_missing
from nodebench.spec.training import Limits
from nodebench.store import Store, TrialFolder
from nodebench.sweep.file import Evaluate
from nodebench.training import loop as train_module
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, essence, options, tiny


def test_divergence_is_a_result_with_its_epoch(tmp_path):
    base = {
        "data": {"name": "digits", "train_size": 640, "test_size": 50},
        "model": {"name": "odenet", "width": 8},
        "solver": {"method": "euler", "steps": 4},
        "train": {"epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 1e6}},
    }
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert (result.outcome, result.is_error) == ("diverged", False)
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
    assert (result.outcome, result.is_error) == ("error", True)
    assert result.reason == f"KeyError: 'oops' (`{tmp_path / 'broken_part.py'}`, line 2)"
    assert "KeyError: 'oops'" in (store.folder(sweep.trials[0].id).path / "error.txt").read_text()
    assert entries(sweep, store, options(sweep, tmp_path))[0].missing


@pytest.mark.parametrize("iterations", [0, 1])
@pytest.mark.parametrize(
    ("output", "found"), [("self.linear(x)", "[128, 3]"), ("[x]", "list"), ("x[1:]", "[127, 2]")]
)
def test_a_users_network_with_another_output_than_a_value_per_class_is_an_error(
    iterations, output, found, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"wrong_output_{abs(hash((iterations, output)))}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, spec, data):\n        super().__init__()\n"
        "        self.linear = nn.Linear(2, 3)\n\n"
        f"    def forward(self, x):\n        return {output}\n"
    )
    data = {"name": "spheres", "train_size": 128, "test_size": 128}
    train = {"iterations": iterations, "batch_size": 128}
    base = {**TINY, "data": data, "model": f"{name}:Net", "train": train}
    sweep, store = tiny(tmp_path, base=base), Store(tmp_path / "runs")
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert (result.outcome, result.reason) == (
        "error",
        f"the network's output for 128 samples of 2 classes is `{found}`: let it return a tensor "
        "[128, 2]",
    )


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


@pytest.mark.parametrize(
    ("allocate", "reason"),
    [
        (lambda: bytearray(2**62), "Python ran out of memory: use a smaller batch"),
        (lambda: torch.zeros(2**43), "can't allocate memory: you tried to allocate 35184372088832"),
    ],
)
def test_a_shortage_of_memory_has_a_reason_and_a_remedy(tmp_path, monkeypatch, allocate, reason):
    def out_of_memory(*_):
        return allocate()

    monkeypatch.setattr("nodebench.training.preparation.build", out_of_memory)
    sweep, store = tiny(tmp_path), Store(tmp_path)
    result = run_trial(sweep.trials[0], store, options(sweep, tmp_path))
    assert result.outcome == "out-of-memory"
    assert result.reason.startswith(reason)
    assert result.reason.endswith(": use a smaller batch or model, or fewer steps")


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
    assert is_missing(trial, folder.result(), folder, options(sweep, tmp_path))
    again = []
    assert run_trial(trial, store, options(sweep, tmp_path), again.append).outcome == "finished"
    assert again == []  # no epoch is trained twice
    assert [row["epoch"] for row in folder.history()] == [1, 2, 3]
