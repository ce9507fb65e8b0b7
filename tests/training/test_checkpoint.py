import contextlib
import dataclasses
import os
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodebench.errors import StoreError
from nodebench.models.weights import MARKS_A_FOLDER
from nodebench.ode.adaptive.counts import StepTotals
from nodebench.planning import entries
from nodebench.store import Result, Store
from nodebench.training.checkpoint import EpochSums, read_checkpoint
from nodebench.training.record import Record
from nodebench.training.task import Loss
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, essence, options, tiny

ADAPTED = {
    **TINY,
    "solver": {"method": "euler", "steps": 2, "adapt": {"threshold": 0.01, "every": 3}},
}
RESET = {
    **TINY,
    "train": {**TINY["train"], "optimizer": {"name": "adam", "lr": 0.01}, "reset_optimizer": True},
}
BATCH_NORM = {
    "data": {"name": "digits", "train_size": 100, "test_size": 50, "augment": ["crop", "flip"]},
    "model": {"name": "odenet", "width": 8, "norm": "bn"},
    "solver": {"method": "euler", "steps": 1},
    "train": {"epochs": 2, "batch_size": 16, "optimizer": {"name": "adam", "lr": 0.01}},
}


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing of ours catches it."""


def killed_after_steps(monkeypatch, steps):
    """A trial dies after so many steps, having written a checkpoint before each next one."""
    taken = []
    between = Record.keep_step

    def dying(self):
        between(self)
        taken.append(self)
        if len(taken) > steps:
            raise Killed

    monkeypatch.setattr(Record, "keep_step", dying)


def weights(store, trial):
    return read_checkpoint(store.folder(trial.id).checkpoint)["model"]


@pytest.mark.parametrize("steps", [{}, {"steps": {}}, {"steps": {"batches": 2.0, "accepted": 9.0}}])
def test_sums_of_an_earlier_release_are_read(steps):
    sums = EpochSums.of({"loss": torch.ones(()), "batches": 2} | steps)
    assert (sums.batches, sums.samples) == (2, 0)
    assert sums.steps == StepTotals(**steps.get("steps", {}))


@pytest.mark.parametrize(
    "base", [TINY, ADAPTED, RESET, BATCH_NORM], ids=["plain", "adapted", "reset", "bn"]
)
@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_a_trial_killed_in_an_epoch_goes_on_to_the_same_bits(tmp_path, monkeypatch, base, steps):
    sweep = tiny(tmp_path, base=base)
    trial, always = sweep.trials[0], options(sweep, tmp_path, checkpoint_minutes=1e-9)
    whole, broken = Store(tmp_path / "whole"), Store(tmp_path / "broken")
    expected = run_trial(trial, whole, options(sweep, tmp_path))
    with monkeypatch.context() as patch:
        killed_after_steps(patch, steps)
        with pytest.raises(Killed):
            run_trial(trial, broken, always)
    kept = read_checkpoint(broken.folder(trial.id).checkpoint)
    assert kept["iteration"] == steps
    found = run_trial(trial, broken, options(sweep, tmp_path))
    histories = [store.folder(trial.id).history() for store in (whole, broken)]
    assert essence(histories[0]) == essence(histories[1])
    assert essence([found.summary]) == essence([expected.summary])
    for name, tensor in weights(whole, trial).items():
        assert torch.equal(tensor, weights(broken, trial)[name])


def test_sums_are_on_the_device_of_the_losses():
    sums = EpochSums()
    sums.add(Loss(torch.ones((), device="meta"), 16, {}))
    assert sums.loss.device.type == "meta"


@pytest.mark.parametrize("sums", [None, dataclasses.asdict(EpochSums())], ids=["none", "empty"])
def test_a_checkpoint_between_epochs_may_have_no_sums_or_empty_ones(tmp_path, sums):
    _, trial, store = broken_off(tmp_path)
    path = store.folder(trial.id).checkpoint
    assert read_checkpoint(path)["sums"] is None
    change(path, sums=sums)
    how = options(tiny(tmp_path), tmp_path)
    found, expected = (run_trial(trial, s, how) for s in (store, Store(tmp_path / "whole")))
    assert essence([found.summary]) == essence([expected.summary])


def test_an_epoch_in_two_parts_has_the_seconds_of_both(tmp_path, monkeypatch):
    sweep = tiny(tmp_path)
    trial, store = sweep.trials[0], Store(tmp_path)
    always = options(sweep, tmp_path, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        killed_after_steps(patch, 3)
        with pytest.raises(Killed):
            run_trial(trial, store, always)
    before = read_checkpoint(store.folder(trial.id).checkpoint)["sums"]["seconds"]
    run_trial(trial, store, always)
    assert store.folder(trial.id).history()[0]["epoch_s"] > before > 0


def broken_off(tmp_path):
    """A store with a trial killed after its second epoch, and what a whole one would be."""
    sweep = tiny(tmp_path, base={**TINY, "train": {**TINY["train"], "epochs": 4}})
    trial, store = sweep.trials[0], Store(tmp_path / "broken")

    def on_epoch(row):
        if row["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        run_trial(trial, store, options(sweep, tmp_path), on_epoch)
    return sweep, trial, store


def change(path, *left_out, **values):
    """A checkpoint with other values, or without some."""
    kept = {name: value for name, value in read_checkpoint(path).items() if name not in left_out}
    torch.save(kept | values, path)


def test_a_result_has_the_start_and_the_seconds_of_all_attempts(tmp_path):
    before = time.time()
    sweep, trial, store = broken_off(tmp_path)
    after = time.time()
    change(store.folder(trial.id).checkpoint, elapsed_s=7200.0)
    result = run_trial(trial, store, options(sweep, tmp_path))
    assert before <= result.started <= after
    assert 7200.0 < result.trained_s == result.seconds < 7200.0 + time.time() - after
    assert result.finished > after


def test_a_checkpoint_of_an_earlier_release_has_the_start_of_its_first_epoch(tmp_path):
    sweep, trial, store = broken_off(tmp_path)
    folder = store.folder(trial.id)
    change(folder.checkpoint, "started", "continued_s")
    result = run_trial(trial, store, options(sweep, tmp_path))
    first = folder.history()[0]
    assert result.started == first["time"] - first["epoch_s"]


def test_a_continuation_has_its_own_start_and_seconds(tmp_path):
    short, long = (trained(tmp_path, epochs=epochs) for epochs in (2, 4))
    store, trial = Store(tmp_path / "grown"), long.trials[0]
    run_trial(short.trials[0], store, options(short, tmp_path))
    change(store.folder(short.trials[0].id).checkpoint, elapsed_s=7200.0)
    going_on = options(long, tmp_path, continues={trial.id: short.trials[0].id})
    before = time.time()

    def on_epoch(_row):
        raise Killed

    with pytest.raises(Killed):
        run_trial(trial, store, going_on, on_epoch)
    result = run_trial(trial, store, going_on)
    kept = read_checkpoint(store.folder(trial.id).checkpoint)
    assert kept["elapsed_s"] > 7200.0  # a limit of minutes holds for the whole training
    assert result.started >= before
    assert 0.0 < result.trained_s < time.time() - before


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit_of_the_weights(path):
    content = bytearray(path.read_bytes())
    place = content.index(next(iter(read_checkpoint(path)["model"].values())).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)


def mark_the_weights_as_a_folder(path):
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[entry + 38] |= MARKS_A_FOLDER
    path.write_bytes(content)


DAMAGES = [cut_short, flip_a_bit_of_the_weights, mark_the_weights_as_a_folder]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(tmp_path, damage):
    sweep, trial, store = broken_off(tmp_path)
    folder = store.folder(trial.id)
    assert read_checkpoint(folder.checkpoint_before)["epoch"] == 2
    damage(folder.checkpoint)
    run_trial(trial, store, options(sweep, tmp_path))
    assert "is damaged" in folder.log_file.read_text()
    assert "resumed after epoch 2," in folder.log_file.read_text()
    whole = Store(tmp_path / "whole")
    run_trial(trial, whole, options(sweep, tmp_path))
    assert essence(folder.history()) == essence(whole.folder(trial.id).history())
    assert not folder.checkpoint_before.exists()


def test_with_both_checkpoints_damaged_a_trial_begins_anew(tmp_path):
    sweep, trial, store = broken_off(tmp_path)
    folder = store.folder(trial.id)
    for path in folder.checkpoints():
        cut_short(path)
    assert run_trial(trial, store, options(sweep, tmp_path)).outcome == "finished"
    assert [row["epoch"] for row in folder.history()] == [1, 2, 3, 4]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_checkpoint_is_refused_or_holds_what_it_held(tmp_path_factory, data):
    path = SAVED.setdefault("path", tmp_path_factory.mktemp("saved") / "checkpoint.pt")
    if "values" not in SAVED:
        torch.save({"model": {"a": torch.arange(9.0)}, "epoch": 3}, path)
        SAVED["bytes"], SAVED["values"] = path.read_bytes(), read_checkpoint(path)
        assert SAVED["values"]["epoch"] == 3
    content = bytearray(SAVED["bytes"])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    with contextlib.suppress(StoreError):
        found = read_checkpoint(path)
        assert found["epoch"] == 3
        assert torch.equal(found["model"]["a"], SAVED["values"]["model"]["a"])


SAVED: dict = {}


def trained(tmp_path, **train):
    """A sweep of one trial, trained so."""
    return tiny(tmp_path, base={**TINY, "train": {**TINY["train"], **train}})


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"test_every": 3},
        {"schedule": {"name": "milestones", "at": [1, 3], "gamma": 0.5}},
        {"schedule": {"name": "constant", "warmup": 3}},
    ],
    ids=["plain", "test_every", "milestones", "warmup"],
)
def test_more_epochs_go_on_from_the_shorter_training_to_the_same_bits(tmp_path, train):
    short, long = (trained(tmp_path, epochs=epochs, **train) for epochs in (2, 4))
    store, fresh = Store(tmp_path / "grown"), Store(tmp_path / "fresh")
    run_trial(short.trials[0], store, options(short, tmp_path))
    [entry] = entries(long, store, options(long, tmp_path))
    assert entry.continues == short.trials[0].id
    trial = entry.trial
    going_on = dataclasses.replace(options(long, tmp_path), continues={trial.id: entry.continues})
    epochs = []
    result = run_trial(trial, store, going_on, lambda row: epochs.append(row["epoch"]))
    assert epochs == [3, 4]
    assert result.tags["continues"] == short.trials[0].id
    run_trial(trial, fresh, options(long, tmp_path))
    histories = [s.folder(trial.id).history() for s in (store, fresh)]
    assert essence(histories[0]) == essence(histories[1])
    for name, tensor in weights(fresh, trial).items():
        assert torch.equal(tensor, weights(store, trial)[name])


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"schedule": "cosine"}, {"schedule": "cosine"}),
        ({}, {"batch_size": 8}),
        ({}, {"epochs": None, "iterations": 16}),
    ],
    ids=["a schedule over the whole length", "another recipe", "iterations"],
)
def test_what_is_not_the_same_training_begins_anew(tmp_path, short, long):
    short, store = trained(tmp_path, epochs=2, **short), Store(tmp_path / "grown")
    run_trial(short.trials[0], store, options(short, tmp_path))
    long = trained(tmp_path, **{"epochs": 4, **long})
    assert [entry.continues for entry in entries(long, store, options(long, tmp_path))] == [None]


def test_an_error_of_the_moment_costs_no_checkpoint(tmp_path, monkeypatch):
    sweep, trial, store = broken_off(tmp_path)
    folder = store.folder(trial.id)

    def out_of_memory(*_args, **_kwargs):
        raise MemoryError("for now")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", out_of_memory)
        assert run_trial(trial, store, options(sweep, tmp_path)).outcome == "out-of-memory"
    assert len(folder.checkpoints()) == 2


def test_what_is_trained_again_keeps_its_record_also_when_it_is_killed(tmp_path):
    """Else MLflow would get second points, with the times of the second training."""
    sweep, trial, store = broken_off(tmp_path)
    folder = store.folder(trial.id)
    run_trial(trial, store, options(sweep, tmp_path))
    before = folder.history()
    folder.checkpoint.unlink()
    (folder.path / "result.json").unlink()

    def on_epoch(row):
        raise Killed

    with pytest.raises(Killed):
        run_trial(trial, store, options(sweep, tmp_path), on_epoch)
    assert folder.history() == before
    run_trial(trial, store, options(sweep, tmp_path))
    assert folder.history() == before


def test_a_continuation_that_failed_at_its_start_still_continues(tmp_path):
    short, long = (trained(tmp_path, epochs=epochs) for epochs in (2, 4))
    store = Store(tmp_path / "grown")
    run_trial(short.trials[0], store, options(short, tmp_path))
    folder = store.folder(long.trials[0].id)
    folder.create(long.trials[0])
    folder.write_result(Result("error", "crashed", 0, {}, [], 0.0, 1.0))
    [entry] = entries(long, store, options(long, tmp_path))
    assert (entry.state, entry.continues) == ("failed", short.trials[0].id)
