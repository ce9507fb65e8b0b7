from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nodebench.errors import SweepError
from nodebench.planning import entries
from nodebench.planning.launches import remember
from nodebench.planning.plan import orphans
from nodebench.planning.seed_packs import packs
from nodebench.planning.selection import chosen
from nodebench.store import Result, Store
from nodebench.sweep.points import require_points
from tests.support.tiny_sweeps import TINY, options, tiny

DOPRI5 = {"solver": [{"method": "dopri5", "tol": 1e-3}]}


@pytest.mark.parametrize(
    ("grid", "block"),
    [
        ({}, {"methods": ["rk4"], "nfe": [6, 10]}),
        (DOPRI5, {"methods": ["euler"], "step_factors": [0.5]}),
        ({}, {"methods": ["dopri5"], "tol_factors": [0.1]}),
    ],
    ids=["stages", "step-factors", "tol-factors"],
)
def test_a_block_that_gives_no_point_is_refused(tmp_path: Path, grid: dict, block: dict) -> None:
    sweep = tiny(tmp_path, grid=grid, evaluate=[{"methods": ["rk4"], "steps": [2]}, block])
    told = r"evaluate\[1\] \(line \d+\): gives no evaluation point for any trial"
    with pytest.raises(SweepError, match=told):
        require_points(sweep, "sweep.yaml")


def test_only_and_shard_leave_a_part_of_the_plan(tmp_path):
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 3, 4]}, seeds=[0, 1])
    ids = [trial.id for trial in sweep.trials]
    assert chosen(sweep, [], "1/1") == frozenset(ids)
    assert chosen(sweep, ["solver.steps=3"], "1/1") == frozenset(ids[2:4])
    assert chosen(sweep, ["solver.steps=3", "seed=1"], "1/1") == {ids[3]}
    parts = [chosen(sweep, [], f"{i}/4") for i in range(1, 5)]
    assert sorted(map(len, parts)) == [1, 1, 2, 2]
    assert frozenset().union(*parts) == frozenset(ids)


def shards(sweep, number, only=()):
    """The trials of each shard, in the order of the sweep."""
    parts = [chosen(sweep, only, f"{i}/{number}") for i in range(1, number + 1)]
    return [[trial for trial in sweep.trials if trial.id in part] for part in parts]


@pytest.mark.parametrize("only", [[], ["seed=1"], ["solver.steps=3"]])
def test_every_trial_is_in_one_shard_and_shards_are_equal(tmp_path, only):
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 3, 4, 5, 6]}, seeds=[0, 1, 2])
    for number in range(1, 18):
        parts = shards(sweep, number, only)
        ids = [trial.id for part in parts for trial in part]
        assert len(set(ids)) == len(ids)
        assert set(ids) == chosen(sweep, only, "1/1")
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_seeds_stay_in_one_shard_where_they_are_packed(tmp_path):
    fields = {"seeds": [0, 1, 2, 3, 4], "resources": {"pack_seeds": 5}}
    sweep = tiny(tmp_path, grid={"solver.steps": [2, 3, 4, 5, 6]}, **fields)
    packing = options(sweep, tmp_path)
    for part in shards(sweep, 5):
        assert [len(pack) for pack in packs(part, packing, slots=1)] == [5]
    one, other = ({trial.cell.key for trial in part} for part in shards(sweep, 2))
    assert (len(one), len(other)) == (3, 3)
    assert len(one & other) == 1  # the fifth, whose seeds are divided


@pytest.mark.parametrize(
    ("only", "shard", "message"),
    [
        (["solver.stepz=3"], "1/1", "Did you mean `solver.steps`?"),
        (["solver.steps"], "1/1", "should read `dotted.path=value`"),
        (["solver.steps=[3"], "1/1", "the value of `solver.steps=[3` is not plain YAML: a comma"),
        (["=3"], "1/1", "should read `dotted.path=value`, as in `seed=0`"),
        (["solver.steps="], "1/1", "should read `dotted.path=value`"),
        (["steps=2"], "1/1", "Did you mean `solver.steps`?"),
        (["solver.steps=9"], "1/1", "has `solver.steps=9`. In its trials, `solver.steps` is `2`"),
        (["solver.method=eulr"], "1/1", "has `solver.method=eulr`. Did you mean `euler`? In its"),
        (["seed=[0, 1]"], "1/1", "Give one value, and run once for each. In its trials, `seed` is"),
        (["solver.tol=0.1"], "1/1", "has `solver.tol=0.1`. None has a `solver.tol`"),
        (["solver=rk4"], "1/1", "has `solver=rk4`. In its trials, `solver.method` is `euler`"),
        (["seed=0", "seed=1"], "1/1", "`seed=0` and `seed=1` exclude each other: run once for"),
        (["model=mlp", "model.name=resnet"], "1/1", "`model=mlp` and `model.name=resnet` exclude"),
        (["train.drop_last=true"], "1/1", "has `train.drop_last=true`. In its trials, "),
        (
            ["train.optimizer.betas=[0.5, 0.9]"],
            "1/1",
            "has `train.optimizer.betas=[0.5, 0.9]`. In its trials, "
            "`train.optimizer.betas` is `[0.9, 0.999]`",
        ),
        ([], "0/2", "should read i/n"),
        ([], "3/2", "should read i/n"),
        ([], "half", "should read i/n"),
    ],
)
def test_a_part_that_cannot_be_is_refused(tmp_path, only, shard, message):
    with pytest.raises(SweepError) as caught:
        chosen(tiny(tmp_path), only, shard)
    assert message in str(caught.value)


def test_settings_that_no_trial_has_at_once_are_named(tmp_path):
    sweep = tiny(tmp_path, grid={"solver.steps, model.width": [[2, 4], [3, 5]]})
    assert len(chosen(sweep, ["solver.steps=2", "model.width=4"], "1/1")) == 1
    with pytest.raises(SweepError) as caught:
        chosen(sweep, ["solver.steps=2", "model.width=5"], "1/1")
    assert "has `solver.steps=2` and `model.width=5` at once: leave one out" in str(caught.value)


def test_a_network_without_an_ode_has_no_solver_to_select(tmp_path):
    base = {**TINY, "data": "digits", "model": {"name": "resnet", "width": 4}}
    solver = {"method": "dopri5", "tol": 1e-3}
    names = [{"model.name": ["resnet"]}, {"model.name": ["odenet"]}]
    sweep = tiny(tmp_path, base={**base, "solver": solver}, grid=names)
    resnet, odenet = (trial.id for trial in sweep.trials)
    for only in ("solver.method=dopri5", "solver.tol=1e-3", "gradient=backprop"):
        assert chosen(sweep, [only], "1/1") == {odenet}, only
    assert chosen(sweep, ["model.norm.ode=gn"], "1/1") == {odenet}
    assert chosen(sweep, ["model.norm=gn"], "1/1") == {resnet, odenet}
    assert chosen(sweep, ["solver=null"], "1/1") == {resnet}


def test_a_setting_that_is_off_can_be_selected(tmp_path):
    base = {**TINY, "data": "digits", "model": {"name": "resnet", "width": 4}}
    solver = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3}
    names = [{"model.name": ["resnet"]}, {"model.name": ["odenet"]}]
    sweep = tiny(tmp_path, base={**base, "solver": solver}, grid=names)
    _, odenet = (trial.id for trial in sweep.trials)
    for only in (
        ["solver.dense_output=false"],
        ["gradient.update_batch_norm=false"],
        ["solver.rtol=1e-3", "solver.atol=1e-3", "solver.tol=null"],
    ):
        assert chosen(sweep, only, "1/1") == {odenet}, only
    recompute = tiny(tmp_path, base={**TINY, "gradient": {"name": "recompute", "segments": 1}})
    assert len(chosen(recompute, ["gradient.segments=1"], "1/1")) == 1


def test_trials_of_an_earlier_form_of_the_file_are_orphans(tmp_path):
    store = Store(tmp_path / "runs")
    old, new = tiny(tmp_path, seeds=[0, 1]), tiny(tmp_path, seeds=[1, 2])
    remember(old, store)
    assert orphans(new, store) == {old.trials[0].id: old.label(old.trials[0])}
    remember(new, store)
    assert orphans(new, store).keys() == {old.trials[0].id}
    assert orphans(old, store).keys() == {new.trials[1].id}
    planned = entries(new, store, options(new, tmp_path))
    begun = [replace(planned[0], continues=old.trials[0].id), *planned[1:]]
    assert orphans(new, store, begun) == {}


def test_a_failure_is_missing_only_if_it_is_to_be_tried_again(tmp_path):
    sweep, store = tiny(tmp_path), Store(tmp_path / "runs")
    store.folder(sweep.trials[0].id).write_result(Result("diverged", "", 0, {}, [], 0.0, 1.0))
    for retry in (False, True):
        [entry] = entries(sweep, store, options(sweep, tmp_path, retry_failed=retry))
        assert entry.missing == retry
