import pytest

from nodebench.api import run
from nodebench.errors import ResourceError, SweepError
from nodebench.execution.costs import probed
from nodebench.execution.runner import Monitor, run_inline
from nodebench.planning import entries
from nodebench.store import Result, Store
from nodebench.sweep import load
from tests.support.tiny_sweeps import TINY, options, tiny, write_tiny

BASE = {**TINY, "data": {**TINY["data"], "val_size": 16}}
SPACE = {
    "train.optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
    "model.width": {"integers": [2, 8]},
    "solver.steps": {"choice": [1, 2]},
}


def searched(tmp_path, samples=6, space=SPACE, **search):
    return tiny(tmp_path, base=BASE, search={"samples": samples, "space": space, **search})


def drawn(sweep, path):
    return [trial.settings[path] for trial in sweep.trials]


def test_samples_lie_in_their_ranges_and_are_the_same_each_time(tmp_path):
    sweep = searched(tmp_path, samples=50)
    rates = drawn(sweep, "train.optimizer.lr")
    assert len(set(rates)) == 50
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    # Of a log-uniform law over three decades, two thirds are below 1e-2, ± 4 standard errors.
    assert 0.4 < sum(rate < 1e-2 for rate in rates) / 50 < 0.93
    assert set(drawn(sweep, "model.width")) == set(range(2, 9))
    assert set(drawn(sweep, "solver.steps")) == {1, 2}
    again = searched(tmp_path, samples=50)
    assert [t.id for t in again.trials] == [t.id for t in sweep.trials]
    assert drawn(searched(tmp_path, samples=50, seed=1), "train.optimizer.lr") != rates


def test_more_samples_and_more_fields_leave_the_first_draws_as_they_were(tmp_path):
    few, many = searched(tmp_path), searched(tmp_path, samples=9)
    assert [t.id for t in many.trials[:6]] == [t.id for t in few.trials]
    wider = {**SPACE, "train.optimizer.weight_decay": {"uniform": [0, 1e-3]}}
    rates = [drawn(searched(tmp_path, space=s), "train.optimizer.lr") for s in (SPACE, wider)]
    assert rates[0] == rates[1]


def test_every_cell_and_seed_is_tried_with_each_sample(tmp_path):
    search = {"samples": 3, "space": {"train.optimizer.lr": SPACE["train.optimizer.lr"]}}
    grid = {"model.width": [2, 4]}
    sweep = tiny(tmp_path, base=BASE, grid=grid, seeds=[0, 1], search=search)
    assert len(sweep.trials) == 12
    assert len(set(drawn(sweep, "train.optimizer.lr"))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": TINY}, "search (line 19): needs validation data: set `data.val_size` above 0"),
        ({"space": {"train.lr": {"uniform": [0, 1]}}}, "`train.lr` is not a known field"),
        ({"space": {"model.width": {"uniform": [1, 0]}}}, "the smaller number must come first"),
        ({"space": {"model.width": {"choice": [1], "uniform": [0, 1]}}}, "needs one of"),
        ({"space": {"model.width": {"log_uniform": [0, 1]}}}, "should be greater than 0"),
        ({"space": {}}, "is empty"),
        ({"samples": 0}, "greater than or equal to 1"),
        ({"stop": {"name": "asha", "reduction": 1}}, "greater than or equal to 2"),
        ({"stop": "median"}, "median"),
        ({"grid": {"model.width": [2, 4]}}, "is also in the grid's axis `model.width`"),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path, change, message):
    fields = {"samples": 2, "space": SPACE, **change}
    base = fields.pop("base", BASE)
    grid = {"grid": fields.pop("grid")} if "grid" in fields else {}
    path = write_tiny(tmp_path, base=base, search=fields, **grid)
    with pytest.raises(SweepError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "search" in str(caught.value)


def test_early_stopping_needs_ray(tmp_path):
    sweep = searched(tmp_path, stop="asha")
    with pytest.raises(ResourceError, match="leave out `--inline`"):
        run(sweep, Store(tmp_path / "runs"), inline=True, track=False)


def test_a_search_with_early_stopping_can_be_probed(tmp_path):
    sweep = searched(tmp_path, samples=1, stop="asha")
    costs, _ = probed(sweep, Store(tmp_path / "runs"))
    assert len(costs) == len(sweep.trials)


def test_what_a_search_gave_up_is_no_result_for_another_sweep(tmp_path):
    sweep, store = searched(tmp_path, samples=1, stop="asha"), Store(tmp_path / "runs")
    [trial] = sweep.trials
    store.folder(trial.id).write_result(
        Result("stopped", "other trials were better", 1, {}, [], 0, 1)
    )
    within = options(sweep, tmp_path, stop=sweep.search.stop)
    [entry] = entries(sweep, store, within)
    assert (entry.missing, str(entry.result)) == (False, "stopped (epoch 1)")
    [elsewhere] = entries(sweep, store, options(sweep, tmp_path))
    assert elsewhere.missing
    run_inline(sweep.trials, store, options(sweep, tmp_path), Monitor())
    assert store.folder(trial.id).result().outcome == "finished"


def test_a_field_that_is_set_is_not_drawn(tmp_path):
    path = write_tiny(tmp_path, base=BASE, search={"samples": 3, "space": SPACE})
    sweep = load(path, ["model.width=5"])
    assert drawn(sweep, "model.width") == [5, 5, 5]
    assert len(set(drawn(sweep, "train.optimizer.lr"))) == 3
