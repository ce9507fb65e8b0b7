import json
import subprocess
import sys
from pathlib import Path

import pytest

from nodebench.spec import Trial, TrialSpec
from nodebench.spec.identity import REVISIONS, numerics
from nodebench.sweep import load
from tests.support.planned_sweeps import BASE, sweep, trial


def test_ids_are_what_they_were():
    """If this fails, results in users' stores lose their names: add a revision instead."""
    assert trial().id == "f874a79b0832"
    assert trial(model="resnet").id == "123de6919573"
    assert trial(data="spheres", model="plainode", seed=3).id == "105360c91ac0"


def test_a_revision_renames_the_trials_that_it_affects_and_no_others():
    images = {"data": "digits", "model": {"name": "plainode", "field": "conv"}}
    grouped = {each.number: each for each in REVISIONS}[6]
    for norm, is_grouped in (
        ("bn", False),
        ("in", False),
        ("wn", False),
        ("gn", True),
        ("ln+sn", True),
    ):
        spec = trial(model={"name": "odenet", "norm": norm}).spec
        assert grouped.affects(spec) == is_grouped
        assert numerics(spec) == 7
    assert numerics(trial(data="cifar10", model="resnet18").spec) == 7
    for method, number in (("euler", 4), ("midpoint", 5), ("dopri5", 6)):
        assert numerics(trial(**images, solver={"method": method, "adapt": {}}).spec) == number
    assert numerics(trial(**images, solver={"method": "midpoint", "steps": 2}).spec) == 4
    for more, number in (({}, 6), ({"control": {}}, 4)):
        solver = {"method": "dopri5", "tol": 1e-3, **more}
        assert numerics(trial(**images, solver=solver).spec) == number
    adjoint = {"name": "adjoint", "solver": {"method": "dopri5", "tol": 1e-3}}
    assert numerics(trial(**images, gradient=adjoint).spec) == 6
    for field in ("simple", "linear"):
        toy = {"data": "spheres", "model": {"name": "plainode", "field": field}}
        assert numerics(trial(**toy, solver={"method": "euler", "steps": 2}).spec) == 6
    for field, activation, number in (
        ("simple", "tanh", 6), ("simple", "softplus", 11), ("linear", "softplus", 11)
    ):  # fmt: skip
        toy = {
            "data": "spheres",
            "model": {"name": "plainode", "field": field, "activation": activation},
        }
        assert numerics(trial(**toy, solver={"method": "euler", "steps": 2}).spec) == number
    unfolded = toy | {"data": {"name": "spheres", "dim": 11}}
    unfolded["model"] = toy["model"] | {"field": "simple"}
    assert numerics(trial(**unfolded, solver={"method": "euler", "steps": 2}).spec) == 6
    softplus = {"data": "digits", "model": {**images["model"], "activation": "softplus"}}
    assert numerics(trial(**softplus, solver={"method": "euler", "steps": 2}).spec) == 4
    for field, dim, number in (
        ("simple", 3, 8), ("simple", 10, 8), ("simple", 11, 6), ("linear", 3, 6)
    ):  # fmt: skip
        toy = {
            "data": {"name": "spheres", "dim": dim},
            "model": {"name": "plainode", "field": field},
        }
        assert numerics(trial(**toy, solver={"method": "euler", "steps": 2}).spec) == number
    of_samples = {"method": "dopri5", "tol": 1e-3, "control": {"step": "sample"}}
    for settings, number in (
        ({"solver": {"method": "dopri5", "tol": 1e-3}}, 9),
        ({"solver": of_samples}, 7),
        ({"solver": of_samples, "gradient": {"name": "adjoint"}}, 9),
        ({"gradient": adjoint}, 9),
        ({"solver": {"method": "rk4", "steps": 2}}, 7),
    ):
        assert numerics(trial(model={"name": "odenet"}, **settings).spec) == number
        without_time = {"name": "odenet", "dynamics": "preact"}
        assert numerics(trial(model=without_time, **settings).spec) == 7
        with_instance_norm = without_time | {"norm": "in"}
        assert numerics(trial(model=with_instance_norm, **settings).spec) == number
    minima = {"data": "three-minima", "model": {"name": "plainode", "field": "simple"}}
    assert numerics(trial(**minima, solver={"method": "euler", "steps": 2}).spec) == 6
    assert numerics(trial(data="spiral", model="neuralode").spec) == 5
    euler = {"method": "euler", "steps": 2}
    for regularizer, number in (
        ({"taylor": {"weight": 0.1, "order": 2}}, 10),
        ({"kinetic": 0.1}, 10),
        ({"steer": 0.1}, 4),
    ):
        train = {"regularize": regularizer}
        assert numerics(trial(**images, solver=euler, train=train).spec) == number
    assert [each.number for each in REVISIONS] == sorted({each.number for each in REVISIONS})


def test_defaults_are_what_they_were():
    """Ids leave defaults out, so a changed default would rename nothing and change results."""
    spec = trial(train={"schedule": {"name": "milestones", "at": [1]}}).spec
    assert json.loads(spec.model_dump_json()) == {
        "data": {
            "name": "digits", "train_size": None, "test_size": None, "val_size": 0,
            "subset_seed": 0, "augment": [], "normalize": True,
        },
        "model": {
            "name": "odenet", "stem": "conv", "width": 64, "augment_dim": 0, "blocks": 1,
            "dropout": 0.0, "activation": "relu",
            "norm": {"stem": "gn", "residual": None, "ode": "gn"}, "dynamics": "postnorm",
            "t1": 1.0, "motion": "first-order", "initial_velocity": "zero",
        },
        "solver": {
            "method": "euler", "steps": 4, "step_size": None, "tol": None, "rtol": None,
            "atol": None, "scipy": None, "dense_output": None, "control": None, "adapt": None,
            "damping": None, "coupling": None,
        },
        "gradient": {
            "name": "backprop", "solver": None, "norm": "default", "segments": None,
            "nodes": None, "update_batch_norm": None,
        },
        "train": {
            "epochs": 10, "iterations": None, "batch_size": 128, "drop_last": False,
                "reset_optimizer": False, "regularize": None,
            "precision": "float32",
            "test_every": 1,
            "optimizer": {
                "name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0,
            },
            "schedule": {"name": "milestones", "at": [1.0], "gamma": 0.1, "warmup": 0.0},
        },
        "weights": None,
            "seed": 0,
    }  # fmt: skip


def test_ids_are_the_same_in_another_process_with_another_hash_seed():
    code = (
        "from nodebench.spec import TrialSpec; from nodebench.spec import Trial;"
        f"print(Trial(TrialSpec.model_validate({BASE!r})).id)"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == trial().id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"solver": {"method": "dopri5", "tol": 0.1}}, {"solver": {"rtol": 0.1, "atol": 0.1}}),
        ({"solver": {"steps": 4.0, "method": "euler"}}, {}),
        ({"model": {"norm": "bn", "name": "odenet"}},
         {"model": {"name": "odenet", "norm": {"stem": "bn", "ode": "bn", "residual": "bn"}}}),
        ({"gradient": "backprop"}, {"gradient": {"name": "backprop"}}),
        ({"gradient": {"name": "recompute", "update_batch_norm": True}},
         {"gradient": "recompute"}),  # there is no batch norm in the block
        ({"train": {"optimizer": "sgd"}}, {"train": {"optimizer": {"name": "sgd", "lr": 0.1}}}),
        ({"model": "resnet"}, {"model": "resnet", "solver": {"method": "rk4", "steps": 9}}),
    ],
)  # fmt: skip
def test_two_ways_of_writing_a_trial_have_one_id(one, other):
    assert trial(**one).id == trial(**other).id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"train": {"epochs": 11}},
        {"solver": {"method": "euler", "steps": 5}},
        {"model": {"name": "odenet", "norm": {"ode": "ln"}}},
        {"data": {"name": "digits", "augment": ["crop"]}},
    ],
)
def test_whatever_changes_the_result_changes_the_id(change):
    assert trial(**change).id != trial().id


def test_the_recipe_leaves_the_length_out():
    assert trial(train={"epochs": 3}).recipe_id == trial(train={"epochs": 9}).recipe_id
    assert trial(train={"epochs": 3}).recipe_id != trial(seed=1, train={"epochs": 3}).recipe_id


def test_names_limits_and_resources_are_not_in_the_id(tmp_path):
    plain = sweep(tmp_path)
    other = sweep(
        tmp_path,
        limits={"nfe": 9},
        resources={"cpus": 2},
        evaluate={"methods": ["euler"], "nfe": [4]},
    )
    assert plain.trials[0].id == other.trials[0].id


def test_the_source_of_a_part_by_import_path_is_in_the_id(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for number, text in enumerate(("a = 1", "a = 2")):
        (tmp_path / f"mine{number}.py").write_text(text)
        part = Trial(TrialSpec.model_validate({**BASE, "model": f"mine{number}:a"}))
        identity = dict(part._identity)
        assert f"mine{number}:a" in identity["sources"]
        ids.append(identity["sources"][f"mine{number}:a"])
    assert ids[0] != ids[1]
    assert "mine0" not in sys.modules


@pytest.mark.parametrize("name", ["quickstart", "controls", "mnist-adjoint", "cifar10-tuning"])
def test_a_trial_of_a_sweep_is_named_as_one_that_stands_alone(name):
    for shared in load(Path("sweeps") / f"{name}.yaml").trials:
        alone = Trial(TrialSpec.model_validate(shared.spec.model_dump(exclude_none=True)))
        assert shared == alone
        assert (shared.id, shared.recipe_id) == (alone.id, alone.recipe_id)
        assert list(shared.settings.items()) == list(alone.settings.items())


def test_settings_without_effect_are_not_in_the_id():
    adjoint = {"name": "adjoint", "norm": "seminorm", "solver": {"method": "euler", "steps": 4}}
    assert trial(gradient=adjoint).id == trial(gradient="adjoint").id
    both = [{"name": "digits", "augment": names} for names in (["crop", "flip"], ["flip", "crop"])]
    assert trial(data=both[0]).id == trial(data=both[1]).id
