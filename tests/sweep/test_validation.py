import pytest

from nodebench.errors import SweepError
from nodebench.sweep import load
from tests.support.planned_sweeps import BASE, faults, write_sweep


def test_all_mistakes_are_named_at_once_by_path_with_the_nearest_word(tmp_path):
    text = """
name: t
base:
  data: digits
  model: {name: odenet, widht: 64}
  solver: {method: dopri, steps: 0}
"""
    found = faults(write_sweep(tmp_path, text))
    assert len(found) == 3
    assert found[0].startswith(
        "base.model.widht: `widht` is not a known field. Did you mean `width`?"
    )
    assert found[1].startswith(
        "base.solver.method: `dopri` is not a known method. Did you mean `dopri5`?"
    )
    assert found[2] == "base.solver.steps: should be greater than or equal to 1, found `0`"


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"seedz": [1]}, "seedz", "Did you mean `seeds`?"),
        ({"seeds": 3}, "seeds", "found `3`: write `[0, 1, 2]` for 3 seeds"),
        ({"base": {**BASE, "train": {"learning_rate": 1}}}, "base.train.learning_rate",
         "not a field here. Did you mean `train.optimizer.lr`?"),
        ({"base": {**BASE, "train": {"lr": 1}}}, "base.train.lr", "mean `train.optimizer.lr`?"),
        ({"base": {**BASE, "learning_rate": 1}}, "base.learning_rate", "`train.optimizer.lr`?"),
        ({"base": {**BASE, "gradient": {"method": "adjoint"}}}, "base.gradient.method",
         "not a known field. Did you mean `name`?"),
        ({"base": {**BASE, "solver": {"name": "dopri5"}}}, "base.solver.name", "mean `method`?"),
        ({"base": {**BASE, "model": {"type": "odenet"}}}, "base.model: needs a `name`.",
         "Did you mean `name` by `type`?"),
        ({"base": {**BASE, "model": {"norm": "gn", "nmae": "odenet"}}}, "base.model",
         "Did you mean `name` by `nmae`?"),
        ({"grid": {"gradient.type": ["adjoint"]}}, "grid[0].gradient.type", "mean `name`?"),
        ({"baseline": {"solver.name": "euler"}}, "baseline.solver.name", "mean `solver.method`?"),
        ({"grid": {"model.norm.ode": ["none"]}}, "grid[0].model.norm.ode", "Did you mean `nf`?"),
        ({"seeds": [-1]}, "seeds[0]", "greater than or equal to 0"),
        ({"grid": {"solver.stepz": [1]}}, "grid[0].solver.stepz", "Did you mean `steps`?"),
        ({"grid": {"solver.steps": 3}}, "grid[0].solver.steps", "a list of values"),
        ({"grid": [{}, {"model.norm.ode": ["xn"]}]}, "grid[1].model.norm.ode", "not a known norm"),
        ({"grid": {"solver.method, solver.steps": [["euler"]]}}, "grid[0]", "varies 2 fields"),
        ({"exclude": [{"solver.stepz": 1}]}, "exclude", "solver.steps"),
        ({"exclude": [{"model.name": "odenet"}]}, "exclude", "excludes every trial"),
        ({"name": "../x"}, "name", "letters, digits"),
        ({"name": "a/b"}, "name", "letters, digits"),
        ({"resources": {"gpus": 2}}, "resources", "one GPU"),
        ({"resources": {"pack_seeds": "yes"}}, "resources.pack_seeds",
         "`yes` is not a known pack_seeds. Known: auto. Otherwise, it should be a number."),
        ({"evaluate": {"methods": ["dopri5"], "nfe": [4]}}, "evaluate[0]", "`nfe`"),
        ({"seeds": []}, "seeds", "is empty"),
        ({"grid": []}, "grid", "is empty"),
        ({"grid": {"seed": [1]}}, "grid[0].seed", "`seeds`"),
        ({"grid": {"solver.steps": [1], "solver.method, solver.steps": [["rk4", 1]]}},
         "grid[0]", "two axes"),
        ({"exclude": [{"model.norm.ode": "bnn"}]}, "exclude[0]", "matches no trial"),
        ({"exclude": [{"model.norm.ode": "bnn"}], "grid": {"model.norm": ["gn", "bn"]}},
         "exclude[0]", "none has `model.norm.ode=bnn`. Did you mean `bn`? In its trials, "),
        ({"baseline": {"solver.method": "eulr"}, "grid": {"solver.method": ["rk4", "euler"]}},
         "baseline", "has `solver.method=eulr`. Did you mean `euler`? In its trials, "
         "`solver.method` is `rk4`, `euler`"),
        ({"baseline": {"solver.steps": 9}, "grid": {"solver.steps": [2, 4]}},
         "baseline", "none has `solver.steps=9`. In its trials, `solver.steps` is `2`, `4`"),
        ({"exclude": [{"solver.steps": 2, "model.width": 8}],
          "grid": {"solver.steps, model.width": [[2, 4], [3, 8]]}},
         "exclude[0]", "none has `model.width=8` and `solver.steps=2` at once: leave one out"),
        ({"evaluate": {"methods": ["euler"], "nfe": [4], "when": {"solver.method": "rk5"}}},
         "evaluate[0].when", "matches no trial"),
        ({"base": {**BASE, "train": {"optimizer": {"name": "adam", "betas": [1.5, 0.9]}}}},
         "base.train.optimizer.betas[0]", "less than 1"),
        ({"evaluate": {"methods": ["euler", "rk45"], "nfe": [4]}},
         "evaluate[0].methods[1]", "Did you mean `rk4`?"),
        ({"grid": {"model.norms.ode": ["bn"]}}, "grid[0].model.norms", "Did you mean `norm`?"),
        ({"include": "absent.yaml"}, "include", "does not exist"),
        ({"small": 3}, "small", "mapping"),
        ({"medium": [1]}, "medium", "mapping"),
        ({"grid": {"solver.steps, solver.steps": [[1, 2]]}}, "grid[0]", "names a field twice"),
        ({"base": {**BASE, "seed": 1}}, "base.seed", "`seeds`"),
        ({"base": {**BASE, "data": "spheres"}}, "base", "takes images"),
        ({"base": {**BASE, "data": "spheres", "model": {"name": "plainode", "field": "conv"}}},
         "base", "`model.field: conv` takes images (`simple` or `linear` takes vectors), but"),
        ({"base": {**BASE, "model": "plainode"}}, "base", "simple` takes vectors (`conv` takes"),
        ({"base": {**BASE, "model": {"name": "mlp", "width": 8}}}, "base.model.width",
         "`mlp` has no `width`. Known: name, hidden, activation, dropout."),
        ({"base": {**BASE, "model": "mlp"}, "grid": {"model.width": [8]}}, "grid[0].model.width",
         "`mlp` has no `width`. Known: name, hidden, activation, dropout."),
        ({"base": {**BASE, "train": {"optimizer": {"betas": [0.9, 0.99]}}}},
         "base.train.optimizer", "needs a `name`. Known: sgd, adam"),
        ({"claims": [{"says": "x", "metric": "acuracy", "above": 0.5}]}, "claims[0]",
         "Did you mean `test_accuracy`?"),
        ({"claims": [{"says": "x", "metric": "val_accuracy", "above": 0.5}]}, "claims[0]",
         "`val_accuracy` needs validation data: set `data.val_size` above 0"),
        ({"base": {**BASE, "data": {"name": "digits", "train_size": 2000}}}, "base.data", "1347"),
        ({"base": {**BASE, "model": {"name": "odenet", "width": 40}}}, "base.model", "group norm"),
        ({"base": {**BASE, "solver": {"method": "dopri5", "steps": 3}}}, "base.solver", "`tol`"),
        ({"base": {**BASE, "solver": {"method": "euler"}}}, "base.solver", "`step_size`"),
        ({"base": {**BASE, "solver": {"method": "scipy_solver"}}}, "base", "adjoint"),
        ({"base": {**BASE, "solver": {"method": "scipy_solver"},
                   "gradient": {"name": "adjoint", "norm": "seminorm"}}}, "base", "its own norm"),
        ({"base": {**BASE, "gradient": {"name": "adjoint", "norm": "seminorm",
                   "solver": {"method": "scipy_solver"}}}}, "base", "has its own norm"),
        ({"base": {**BASE, "solver": {"method": "dopri5"},
                   "gradient": {"name": "recompute", "segments": 3}}}, "base", "need fixed steps"),
        ({"base": {**BASE, "train": {"epochs": 1, "iterations": 1}}}, "base.train", "not both"),
        ({"base": {"model": "odenet"}}, "base.data", "is missing"),
        ({"base": {"data": "spiral", "model": "neuralode", "solver": {"method": "euler",
                   "step_size": 0.1}, "train": {"batch_size": 1}}}, "base", "at least 2"),
        ({"grid": {"solver.steps": [1, 2]}, "baseline": {"solver.adapt": {}}},
         "baseline", "matches no trial"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_path(tmp_path, fields, where, what):
    (fault,) = faults(write_sweep(tmp_path, **fields))
    assert fault.startswith(f"{where}")
    assert what in fault


@pytest.mark.parametrize(
    ("base", "axes", "where", "what"),
    [
        ({"solver": {"method": "eulerr"}}, {"solver": ["dopri5"]},
         "base.solver.method", "Did you mean `euler`?"),
        ({"solver": "eulerr"}, {"solver.method": ["dopri5"]}, "base.solver", "mean `euler`?"),
        ({"solver": {"method": "euler", "stepz": 2}}, {"solver": ["dopri5"]},
         "base.solver.stepz", "Did you mean `steps`?"),
        ({"model": {"name": "odenet", "norm": "xn"}}, {"model": ["odenet4"]},
         "base.model.norm", "not a known norm"),
        ({"model": {"name": "odenet", "width": 0}},
         {"model.name": ["odenet", "odenet4"], "model.width": [32]},
         "base.model.width", "or equal to 1"),
        ({"solver": {"method": "dopri5", "steps": 2}}, {"solver": ["dopri5"]},
         "base.solver", "takes `tol`, or `rtol` and `atol`, not `steps`"),
        ({"train": {"epochs": 0}}, {"train.epochs": [1, 2]}, "base.train.epochs", "or equal to 1"),
    ],
)  # fmt: skip
def test_mistakes_in_what_the_grid_replaces_of_base_are_named(tmp_path, base, axes, where, what):
    (fault,) = faults(write_sweep(tmp_path, base={**BASE, **base}, grid=axes))
    assert fault.startswith(f"{where}: ")
    assert what in fault


@pytest.mark.parametrize(
    ("base", "axes"),
    [
        ({"solver": {"steps": 4}}, {"solver.method": ["euler", "rk4"]}),
        ({"solver": {"steps": 4}}, {"solver": ["dopri5"]}),
        ({"solver": "euler"}, {"solver.steps": [2, 4]}),
        ({"solver": "euler"}, {"solver": ["dopri5"]}),
        ({"solver": {"method": "dopri5", "rtol": 0.1}}, {"solver": ["dopri5"]}),
        ({"solver": {"method": "dopri5", "steps": 2}},
         {"solver": ["dopri5", "bosh3"], "solver.steps": [None]}),
        ({"model": {"width": 32}}, {"model.name": ["odenet4", "odenet6"]}),
        ({"model": {"name": "odenet", "order": "preact"}}, {"model.name": ["odenet4"]}),
        ({"model": {"name": "odenet", "order": "preact"}},
         {"model.name": ["odenet4"], "model.order": ["preact", "postact"]}),
    ],
)  # fmt: skip
def test_what_the_grid_completes_may_be_incomplete_in_base(tmp_path, base, axes):
    assert load(write_sweep(tmp_path, base={**BASE, **base}, grid=axes)).trials


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object:os.system {}", "3"])
def test_what_is_not_a_sweep_is_refused(tmp_path, text):
    assert len(faults(write_sweep(tmp_path, text))) == 1


def test_a_file_that_includes_itself_is_refused(tmp_path):
    path = write_sweep(tmp_path, include="sweep.yaml")
    assert "includes itself" in faults(path)[0]


def test_what_an_absent_include_would_hold_is_not_called_missing(tmp_path):
    path = write_sweep(tmp_path, "{name: t, include: absent.yaml, base: {model: {width: 8}}}")
    (fault,) = faults(path)
    assert fault.startswith("include: ")


def test_overriding_part_of_a_zipped_axis_is_refused(tmp_path):
    path = write_sweep(tmp_path, grid={"solver.method, solver.steps": [["euler", 2]]})
    assert "zipped" in faults(path, overrides=["solver.steps=3"])[0]


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_size_that_a_file_lacks_is_refused_by_those_that_it_has(tmp_path, size):
    other = "medium" if size == "small" else "small"
    for blocks, sizes in (({}, "`full`"), ({other: {"train.epochs": 1}}, f"`full`, `{other}`")):
        with pytest.raises(SweepError) as caught:
            load(write_sweep(tmp_path, **blocks), size=size)
        (fault,) = map(str, caught.value.faults)
        assert fault.startswith(f"{size}: `--size {size}` needs a `{size}:` block")
        assert fault.endswith(f"; the file has {sizes}")


@pytest.mark.parametrize("text", ["include=other.yaml", "small.train.epochs=1", "medium=3"])
def test_what_is_read_from_the_file_alone_cannot_be_set(tmp_path, text):
    (fault,) = faults(write_sweep(tmp_path), overrides=[text])
    assert "not a known field" in fault


def test_an_unknown_override_is_refused(tmp_path):
    assert "Did you mean `solver`?" in faults(write_sweep(tmp_path), overrides=["solvr.steps=3"])[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train.epochs=", "has no value. To go back to the default, write `train.epochs=null`"),
        ("train.epochs= ", "has no value"),
        ("train.epochs", "should read `dotted.path=value`"),
        ("train.epochs: 2", "should read `dotted.path=value`: `train.epochs=2`?"),
        (
            "seeds=[18446744073709551616]",
            "is not plain YAML: a number does not fit in 64 bits",
        ),
        ("seeds=[1", "is not plain YAML: a comma or `]` is missing"),
    ],
)
def test_an_override_without_a_readable_value_is_refused(tmp_path, text, told):
    (fault,) = faults(write_sweep(tmp_path), overrides=[text])
    assert told in fault


def test_data_of_different_metrics_are_two_sweeps(tmp_path):
    parts = [{"data": ["digits"]}, {"data": ["spiral"], "model": ["neuralode"]}]
    (fault,) = faults(write_sweep(tmp_path, grid=parts, base={**BASE, "train": {"iterations": 1}}))
    assert "digits by accuracy, spiral by error" in fault


def test_settings_of_an_optimizer_without_a_name_are_those_of_the_default_one(tmp_path):
    named = {"train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.3}}}
    bare = {"train": {"epochs": 1, "optimizer": {"lr": 0.3}}}
    sweeps = [load(write_sweep(tmp_path, base={**BASE, **train})) for train in (named, bare)]
    plain = {**BASE, "train": {"epochs": 1}}
    sweeps.append(load(write_sweep(tmp_path, base=plain), overrides=["train.optimizer.lr=0.3"]))
    assert len({sweep.trials[0].id for sweep in sweeps}) == 1
    grid = {"train.optimizer.lr": [0.1, 0.3]}
    by_axis = load(write_sweep(tmp_path, base=plain, grid=grid))
    assert sweeps[0].trials[0].id in {trial.id for trial in by_axis.trials}
