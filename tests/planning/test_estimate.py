import pytest

from nodebench.cli import inspect, text
from nodebench.planning import entries
from nodebench.planning.estimate import forecast, recorded_costs, slots
from nodebench.planning.options import Demand
from nodebench.store import Result, Store
from nodebench.store.rows import ERRORS_RULE
from nodebench.sweep.file import Evaluate, Resources
from nodebench.sweep.points import points
from tests.support.tiny_sweeps import TINY, options, tiny

HARDWARE = [{"hardware": "abacus"}]


def rows(epochs, seconds, start=1000.0, pause=0.0):
    """Epochs of so many seconds, with a pause in the middle."""
    return [
        {"epoch": n, "time": start + n * seconds + (pause if n > epochs / 2 else 0.0)}
        for n in range(1, epochs + 1)
    ]


@pytest.fixture
def half_done(tmp_path):
    """Of four seeds and 10 epochs: two finished, in 100 and 120 s, one at epoch 4, one new."""
    base = {**TINY, "train": {**TINY["train"], "epochs": 10}}
    sweep, store = tiny(tmp_path, base=base, seeds=[0, 1, 2, 3]), Store(tmp_path / "runs")
    for trial, seconds in zip(sweep.trials, (10.0, 12.0), strict=False):
        history = rows(10, seconds, pause=5000.0)
        folder = store.folder(trial.id)
        folder.write_history(history)
        end = history[-1]["time"]
        folder.write_result(Result("finished", "", 10, {}, HARDWARE, 0.0, end))
    store.folder(sweep.trials[2].id).write_history(rows(4, 11.0))
    store.folder(sweep.trials[2].id).checkpoint.touch()
    return sweep, store, entries(sweep, store, options(sweep, tmp_path))


def test_what_is_left_follows_from_what_trials_took_pauses_aside(half_done):
    sweep, store, found = half_done
    costs = recorded_costs(found, store, hardware=None)
    cost = costs[sweep.trials[0].cell.key]
    assert (cost.low, cost.seconds, cost.high) == pytest.approx((100, 110, 120))
    one = forecast(found, costs, store, slots=1)
    assert (one.known, one.unknown) == (2, 0)
    assert one.seconds == pytest.approx(0.6 * 110 + 110)
    two = forecast(found, costs, store, slots=2)
    assert two.seconds == pytest.approx(110)
    assert (two.low, two.high) == pytest.approx((100, 120))


def test_evaluation_costs_what_the_points_that_are_asked_for_took_in_another_trial(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1], evaluate={"methods": ["euler"], "steps": [3, 5]})
    store = Store(tmp_path / "runs")
    asked = points(sweep.trials[0], sweep.evaluate)
    unasked = points(sweep.trials[0], (Evaluate(methods=("rk4",), steps=(99,)),))
    for trial, known in zip(sweep.trials, ({*asked, *unasked}, asked[:1]), strict=True):
        folder = store.folder(trial.id)
        history = rows(sweep.trials[0].spec.train.epochs, 10.0)
        folder.write_history(history)
        folder.write_result(Result("finished", "", 2, {}, HARDWARE, 0.0, history[-1]["time"]))
        folder.checkpoint.touch()
        measured = {"outcome": "finished", "measuring_s": 7.0, "errors_rule": ERRORS_RULE}
        folder.write_evaluations([{"point": point.row, **measured} for point in known])
    found = entries(sweep, store, options(sweep, tmp_path))
    assert [entry.missing for entry in found] == [False, True]
    left = forecast(found, recorded_costs(found, store, None), store, slots=1)
    assert left.seconds == pytest.approx(7.0 * (len(asked) - 1))


def test_evaluations_that_no_trial_has_measured_are_said_to_be_left_out(tmp_path):
    sweep = tiny(tmp_path, seeds=[0, 1, 2], evaluate={"methods": ["euler"], "steps": [3]})
    store = Store(tmp_path / "runs")
    asked = points(sweep.trials[0], sweep.evaluate)
    measured = {"outcome": "finished", "measuring_s": 7.0, "errors_rule": ERRORS_RULE}
    begun, done = (store.folder(trial.id) for trial in sweep.trials[:2])
    said = []

    def say():
        found = entries(sweep, store, options(sweep, tmp_path))
        left = forecast(found, recorded_costs(found, store, None), store, slots=1)
        said.append(text.forecast_text(left, is_running=False))

    begun.write_history(rows(2, 10.0))
    say()
    history = rows(3, 10.0)
    done.write_history(history)
    done.write_result(Result("finished", "", 3, {}, HARDWARE, 0.0, history[-1]["time"]))
    done.checkpoint.touch()
    for known in (asked[:1], asked):
        done.write_evaluations([{"point": point.row, **measured} for point in known])
        say()
    without = "; without evaluation points that no trial has measured yet"
    assert [each.endswith(without) for each in said] == [True, True, False]


def test_what_is_trained_again_for_its_weights_takes_a_whole_training(tmp_path):
    base = {**TINY, "train": {**TINY["train"], "epochs": 10}}
    evaluate = {"methods": ["euler"], "steps": [3]}
    sweep = tiny(tmp_path, base=base, seeds=[0, 1], evaluate=evaluate)
    store = Store(tmp_path / "runs")
    for trial in sweep.trials:
        folder = store.folder(trial.id)
        folder.write_history(rows(10, 3600.0))
        folder.write_result(Result("finished", "", 10, {}, HARDWARE, 0.0, 1.0))
    found = entries(sweep, store, options(sweep, tmp_path))
    assert [entry.standing for entry in found] == ["retrains", "retrains"]
    left = forecast(found, recorded_costs(found, store, None), store, slots=1)
    assert left.seconds == pytest.approx(2 * 36000.0)
    folder.checkpoint.touch()
    kept = entries(sweep, store, options(sweep, tmp_path))
    assert [entry.standing for entry in kept] == ["retrains", "incomplete"]
    left = forecast(kept, recorded_costs(kept, store, None), store, slots=1)
    assert left.seconds == pytest.approx(36000.0)
    text = inspect.plan_text(sweep, found, {}, store)
    assert "2 finished trials are trained again from scratch" in text
    assert "trained again" not in inspect.plan_text(sweep, kept[1:], {}, store)


def test_without_its_checkpoint_a_trial_that_met_a_limit_begins_at_its_first_epoch(half_done):
    sweep, store, found = half_done
    costs = recorded_costs(found, store, hardware=None)
    folder = store.folder(sweep.trials[2].id)
    folder.write_result(Result("deadline", "", 4, {}, HARDWARE, 0.0, 1.0, limit=1.0))
    for is_there, seconds in ((True, 0.6 * 110), (False, 110)):
        if not is_there:
            folder.checkpoint.unlink()
        [entry] = entries(sweep, store, Demand(), {sweep.trials[2].id})
        assert entry.missing  # as the limit has been raised
        assert forecast([entry], costs, store, slots=1).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("epoch_s", "later", "seconds"),
    [
        (12.0, 0, None),  # compilation, for all we know
        (120.0, 0, 9 * 120.0),
        (12.0, 2, 7 * 0.5),
    ],
)
def test_a_first_epoch_tells_of_others_only_if_compilation_is_a_small_part_of_it(
    tmp_path, epoch_s, later, seconds
):
    history = [
        {"epoch": n, "iteration": 4 * n, "epoch_s": epoch_s, "time": 1000.0 + n * 0.5}
        for n in range(1, 2 + later)
    ]
    lengths = ({"epochs": 10}, {"epochs": None, "iterations": 40})
    for number, length in enumerate(lengths):
        base = {**TINY, "train": {**TINY["train"], **length}}
        sweep = tiny(tmp_path, base=base)
        store = Store(tmp_path / f"runs{number}")
        folder = store.folder(sweep.trials[0].id)
        folder.write_history(history)
        folder.checkpoint.touch()
        found = entries(sweep, store, options(sweep, tmp_path))
        left = forecast(found, recorded_costs(found, store, None), store, slots=1)
        assert (left and left.seconds) == (seconds and pytest.approx(seconds))


def test_other_hardware_says_nothing(half_done):
    _, store, found = half_done
    assert recorded_costs(found, store, "another") == {}
    assert len(recorded_costs(found, store, "abacus")) == 1


@pytest.mark.parametrize("packed", [1, 2])
def test_each_trial_of_a_pack_that_was_interrupted_took_its_share_of_the_time(tmp_path, packed):
    base = {**TINY, "train": {**TINY["train"], "epochs": 10}}
    sweep, store = tiny(tmp_path, base=base, seeds=[0, 1]), Store(tmp_path / "runs")
    for trial in sweep.trials:
        folder = store.folder(trial.id)
        folder.create(trial, packed)
        folder.write_history(rows(4, 10.0))
        folder.checkpoint.touch()
    found = entries(sweep, store, options(sweep, tmp_path))
    assert [entry.standing for entry in found] == ["interrupted", "interrupted"]
    left = forecast(found, recorded_costs(found, store, None), store, slots=1)
    assert left.seconds == pytest.approx(2 * 60.0 / packed)


def test_cells_of_unknown_cost_are_taken_like_the_others(half_done, tmp_path):
    _, store, _ = half_done
    base = {**TINY, "train": {**TINY["train"], "epochs": 10}}
    wider = tiny(tmp_path, base=base, seeds=[0, 1, 2, 3], grid={"model.width": [4, 8]})
    found = entries(wider, store, options(wider, tmp_path))
    left = forecast(found, recorded_costs(found, store, None), store, slots=1)
    assert (left.known, left.unknown) == (2, 4)
    assert left.seconds == pytest.approx(0.6 * 110 + 110 + 4 * 110)
    assert forecast(found, {}, store, slots=1) is None


def test_the_range_of_a_forecast_includes_the_least_and_the_most_for_unknown_cells(tmp_path):
    grid = {"model.width": [4, 8, 16]}
    sweep, store = tiny(tmp_path, seeds=[0, 1], grid=grid), Store(tmp_path / "runs")
    for trial, seconds in zip(sweep.trials[::2], (10.0, 30.0), strict=False):
        store.folder(trial.id).write_history(rows(2, seconds))
        store.folder(trial.id).checkpoint.touch()
    found = entries(sweep, store, options(sweep, tmp_path))
    costs = recorded_costs(found, store, None)
    assert len(costs) == 2
    left = forecast(found, costs, store, slots=1)
    assert (left.known, left.unknown) == (4, 2)
    short, long = sorted(cost.seconds for cost in costs.values())
    known = sum((1 - 2 / sweep.trials[0].spec.train.epochs) * s + s for s in (short, long))
    assert left.low == pytest.approx(known + 2 * short)
    assert left.seconds == pytest.approx(known + short + long)
    assert left.high == pytest.approx(known + 2 * long)


def test_a_cell_without_an_evaluation_is_assumed_to_be_evaluated_like_the_others(tmp_path):
    evaluate = {"methods": ["euler"], "steps": [3]}
    sweep = tiny(tmp_path, seeds=[0], grid={"model.width": [4, 8]}, evaluate=evaluate)
    store = Store(tmp_path / "runs")
    done, begun = (store.folder(trial.id) for trial in sweep.trials)
    history = rows(sweep.trials[0].spec.train.epochs, 10.0)
    done.write_history(history)
    done.write_result(Result("finished", "", 2, {}, HARDWARE, 0.0, history[-1]["time"]))
    done.checkpoint.touch()
    measured = {"outcome": "finished", "measuring_s": 7.0, "errors_rule": ERRORS_RULE}
    asked = points(sweep.trials[0], sweep.evaluate)
    done.write_evaluations([{"point": point.row, **measured} for point in asked])
    begun.write_history(rows(2, 10.0))
    found = entries(sweep, store, options(sweep, tmp_path))
    costs = recorded_costs(found, store, None)
    left = forecast(found, costs, store, slots=1)
    training = costs[sweep.trials[1].cell.key].seconds
    assert left.seconds == pytest.approx(training + 7.0 * len(asked))


def test_a_machine_has_as_many_slots_as_its_scarcest_resource(monkeypatch):
    monkeypatch.setattr("nodebench.planning.estimate.cpu_count", lambda: 8)
    assert slots(Resources(cpus=2), gpus=0) == 4
    assert slots(Resources(cpus=1, gpus=0.5), gpus=2) == 4
    assert slots(Resources(cpus=16), gpus=0) == 1
    assert [slots(Resources(gpus=share), gpus=1) for share in (0.1, 0.2, 0.3)] == [8, 5, 3]
    assert slots(Resources(gpus=0.1), gpus=1, cpus=32) == 10
