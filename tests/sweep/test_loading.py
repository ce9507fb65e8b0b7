import pytest

from nodebench.errors import SweepError
from nodebench.planning.launches import remember
from nodebench.planning.lookup import load_sweep
from nodebench.store.locations import default_store
from nodebench.sweep import load
from tests.support.planned_sweeps import BASE, sweep, trial, write_sweep

# ---------------------------------------------------------------------------------- expansion


def test_axes_multiply_and_the_last_varies_fastest(tmp_path):
    found = sweep(tmp_path, grid={"model.width": [8, 16], "solver.steps": [1, 2]}, seeds=[3, 4])
    cells = [(t.spec.model.width, t.spec.solver.steps, t.spec.seed) for t in found.trials]
    assert cells == [(w, s, seed) for w in (8, 16) for s in (1, 2) for seed in (3, 4)]


def test_zipped_axes_go_together(tmp_path):
    found = sweep(tmp_path, grid={"solver.method, solver.steps": [["euler", 32], ["rk4", 8]]})
    assert [(t.spec.solver.method, t.spec.solver.steps) for t in found.trials] == [
        ("euler", 32),
        ("rk4", 8),
    ]


def test_blocks_are_joined_and_equal_cells_are_one_trial(tmp_path):
    blocks = [{"solver.steps": [1, 2]}, {"solver.steps": [2, 3]}]
    assert [t.spec.solver.steps for t in sweep(tmp_path, grid=blocks).trials] == [1, 2, 3]


def test_solver_axes_do_not_multiply_a_resnet(tmp_path):
    found = sweep(tmp_path, grid={"model.name": ["resnet", "odenet"], "solver.steps": [1, 2, 3]})
    assert [t.spec.model.name for t in found.trials] == ["resnet"] + ["odenet"] * 3
    assert found.trials[0].spec.solver is None


def test_a_whole_group_replaces_the_base_and_a_path_into_it_still_counts(tmp_path):
    found = sweep(
        tmp_path, grid={"solver.tol": [0.1, 0.01], "solver": [{"method": "dopri5", "tol": 1}]}
    )
    assert [(t.spec.solver.steps, t.spec.solver.tol) for t in found.trials] == [
        (None, 0.1),
        (None, 0.01),
    ]


def test_exclude_drops_the_cells_that_agree(tmp_path):
    found = sweep(
        tmp_path,
        grid={"model.norm.ode": ["bn", "ln"], "solver.steps": [1, 2]},
        exclude=[{"model.norm.ode": "bn", "solver.steps": 2}],
    )
    cells = [(t.spec.model.norm.ode, t.spec.solver.steps) for t in found.trials]
    assert cells == [("bn", 1), ("ln", 1), ("ln", 2)]


def test_include_lays_base_over_another_files(tmp_path):
    (tmp_path / "below.yaml").write_text("base: {data: digits, model: {name: odenet, width: 16}}")
    path = write_sweep(
        tmp_path, "{name: t, include: below.yaml, base: {model: {stem: res}, solver: {tol: 0.1}}}"
    )
    model = load(path).trials[0].spec.model
    assert (model.width, model.stem) == (16, "res")


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("data: digits, model: {name: odenet, norm: bn}", "model: {norm: {ode: ln}}"),
        ("data: digits, model: odenet", "model: {width: 16}, data: {train_size: 10}"),
    ],
)
def test_shorthand_below_means_the_same_as_written_in_full(tmp_path, below, above):
    def settings(shorthand: str) -> dict[str, object]:
        (tmp_path / "below.yaml").write_text(f"base: {{{shorthand}}}")
        text = f"{{name: t, include: below.yaml, base: {{solver: {{tol: 0.1}}, {above}}}}}"
        return load(write_sweep(tmp_path, text)).trials[0].settings

    full = below.replace("norm: bn", "norm: {stem: bn, residual: bn, ode: bn}")
    full = full.replace("data: digits", "data: {name: digits}")
    full = full.replace("model: odenet", "model: {name: odenet}")
    assert full != below
    assert settings(below) == settings(full)


def test_a_solver_is_written_by_its_method_alone(tmp_path):
    def solvers(**fields) -> list[tuple[str, int | None]]:
        base = {**BASE, "data": "digits", "model": "odenet", "solver": "euler"}
        found = load(write_sweep(tmp_path, base=base, **fields)).trials
        return [(trial.spec.solver.method, trial.spec.solver.steps) for trial in found]

    assert solvers(grid={"solver.steps": [2, 4]}) == [("euler", 2), ("euler", 4)]
    both = {"solver": ["dopri5", {"method": "rk4", "steps": 2}]}
    assert solvers(grid=both) == [("dopri5", None), ("rk4", 2)]
    assert solvers(grid=both, exclude=[{"solver": "rk4", "solver.steps": 2}]) == [("dopri5", None)]
    with pytest.raises(SweepError, match=r"base\.solver \(line 4\): .*steps"):
        solvers()


def test_settings_of_one_s_own_part_are_paths_wherever_a_grid_takes_them(tmp_path):
    widths = {"model.settings.width": [8, 16, 32]}
    found = load(
        write_sweep(
            tmp_path,
            base={**BASE, "model": {"name": "my.nets:Net"}},
            grid=widths,
            baseline={"model.settings.width": 8},
            exclude=[{"model.settings.width": 32}],
        )
    )
    assert [t.spec.model.settings["width"] for t in found.trials] == [8, 16]


def test_small_replaces_fields_and_axes_and_renames_the_sweep(tmp_path):
    path = write_sweep(
        tmp_path,
        grid={"solver.steps": [8, 16, 32], "model.width": [8, 16]},
        small={"train.epochs": 1, "solver.steps": [2], "model.width": 8, "seeds": [7]},
    )
    found = load(path, size="small")
    assert found.name == "t-small"
    assert [t.spec for t in found.trials] == [
        trial(
            model={"name": "odenet", "width": 8},
            solver={"method": "euler", "steps": 2},
            train={"epochs": 1},
            seed=7,
        ).spec
    ]


def test_a_file_may_have_a_medium_form_beside_its_small_one(tmp_path):
    sizes = {"small": {"train.epochs": 1}, "medium": {"train.epochs": 3, "seeds": [0, 1]}}
    path = write_sweep(tmp_path, **sizes)
    small, medium, full = (load(path, size=size) for size in ("small", "medium", "full"))
    assert [s.name for s in (small, medium, full)] == ["t-small", "t-medium", "t"]
    assert [s.made.size for s in (small, medium, full)] == ["small", "medium", "full"]
    assert [s.trials[0].spec.train.epochs for s in (small, medium, full)] == [1, 3, 10]
    assert [len(s.trials) for s in (small, medium, full)] == [1, 2, 1]


def test_a_smaller_size_knows_what_the_full_one_has_instead(tmp_path):
    fields = {"train.epochs": 3, "data.train_size": 100, "solver.steps": [8], "seeds": [5]}
    grid = {"solver.steps": [8, 16], "train.batch_size": [32, 64]}
    path = write_sweep(tmp_path, grid=grid, medium={**fields, "train.batch_size": 16})
    assert load(path, size="medium").made.instead == {
        "train.epochs": [10],
        "data.train_size": [],
        "train.batch_size": [32, 64],
    }  # 8 steps are of the full size
    assert load(path).made.instead == {}


def test_a_report_s_own_file_is_of_its_size(tmp_path):
    path = write_sweep(tmp_path, medium={"train.epochs": 3})
    kept = tmp_path / "kept.yaml"
    kept.write_text(load(path, size="medium").text)
    assert load(kept).made == load(path, size="medium").made
    changed = load(kept, ["train.epochs=4"]).made
    assert (changed.size, changed.instead) == ("medium", {"train.epochs": [10]})


def test_a_report_of_before_sizes_had_names_is_the_small_form(tmp_path):
    for value, size in ((True, "small"), (False, "full")):
        path = write_sweep(tmp_path, made={"small": value, "changed": ["seeds=[1]"]})
        assert (load(path).made.size, load(path).made.changed) == (size, ("seeds=[1]",))


def test_overrides_replace_fields_axes_and_top_level_fields(tmp_path):
    path = write_sweep(tmp_path, grid={"solver.steps": [8, 16]})
    found = load(path, ["solver.steps=3", "seeds=[1, 2]", "resources.cpus=2", "train.epochs=5"])
    assert [(t.spec.solver.steps, t.spec.seed) for t in found.trials] == [(3, 1), (3, 2)]
    assert found.resources.cpus == 2
    assert found.trials[0].spec.train.epochs == 5


def test_the_resolved_file_expands_to_the_same_trials(tmp_path):
    path = write_sweep(tmp_path, grid={"solver.steps": [8, 16]}, small={"train.epochs": 1})
    first = load(path, ["model.width=16"], size="small")
    again = tmp_path / "again.yaml"
    again.write_text(first.text)
    assert [t.id for t in load(again).trials] == [t.id for t in first.trials]


def test_yaml_floats_without_a_dot_are_numbers(tmp_path):
    path = write_sweep(
        tmp_path,
        "{name: t, base: {data: digits, model: odenet, solver: {method: dopri5, tol: 1e-3}}}",
    )
    assert load(path).trials[0].spec.solver.tol == 0.001


def test_exclude_may_name_a_seed_beside_other_fields(tmp_path):
    grid, entry = {"solver.steps": [1, 2]}, {"seed": 1, "solver.steps": 2}
    found = sweep(tmp_path, grid=grid, seeds=[0, 1], exclude=[entry]).trials
    assert [(t.spec.solver.steps, t.spec.seed) for t in found] == [(1, 0), (1, 1), (2, 0)]


# -------------------------------------------------------------------------------------- labels


def test_columns_that_vary_tell_the_cells_apart(tmp_path):
    found = sweep(
        tmp_path,
        grid=[
            {"model": [{"name": "resnet"}]},
            {"model.norm": ["gn", "bn"], "solver": [{"method": "euler", "steps": 2},
                                                   {"method": "dopri5", "tol": 0.1}]},
        ],
    )  # fmt: skip
    assert found.varying == [
        "model.name",
        "model.norm.stem",
        "solver.method",
    ]
    assert len({found.label(t) for t in found.trials}) == len(found.trials)


def test_cells_that_differ_by_an_absent_setting_are_told_apart(tmp_path):
    found = sweep(
        tmp_path,
        grid={"solver": [{"method": "euler", "steps": 2}, {"method": "euler", "step_size": 0.3}]},
    )
    assert len({found.label(t) for t in found.trials}) == 2


def test_numbers_alone_are_labeled_by_what_they_are(tmp_path):
    numbers = sweep(tmp_path, grid={"model.width": [8, 16]})
    assert [numbers.label(t) for t in numbers.trials] == ["width 8 · s0", "width 16 · s0"]
    words = sweep(tmp_path, grid={"solver.method": ["euler", "rk4"], "solver.steps": [1, 2]})
    assert words.cell_label(words.trials[0]) == "euler 1"


def test_no_two_cells_have_one_label(tmp_path):
    base = {k: v for k, v in BASE.items() if k != "train"}
    grid = [{"train.epochs": [4], "model.norm": ["bn", "ln"]}]
    grid += [{"train.iterations": [4], "model.norm": ["bn", "ln"]}]
    found = sweep(tmp_path, base=base, grid=grid)
    assert len({found.cell_label(trial) for trial in found.trials}) == 4
    assert "iterations 4" in found.cell_label(found.trials[-1])


@pytest.mark.parametrize(
    ("overrides", "has_other_cells"),
    [
        ([], False),
        (["seeds=[0, 1]", "resources.cpus=2"], False),
        (["grid={solver.steps: [2]}"], False),
        (["solver.steps=[2, 16]"], True),
        (["train.epochs=9"], True),
    ],
)
def test_a_resolved_file_says_how_it_was_made(tmp_path, overrides, has_other_cells):
    path = write_sweep(tmp_path, grid={"solver.steps": [2, 4]})
    found = load(path, overrides)
    path.write_text(found.text)
    assert load(path).made == found.made
    assert found.made.changed == tuple(overrides)
    assert found.made.has_other_cells is has_other_cells
    assert load(path, ["seeds=[5]"]).made.changed == (*overrides, "seeds=[5]")


def test_the_folder_of_a_report_is_its_sweep(tmp_path):
    path = write_sweep(tmp_path)
    assert load_sweep(tmp_path).trials == load_sweep(path).trials


def test_a_sweep_that_was_launched_here_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("NODEBENCH_RUNS", str(tmp_path / "runs"))
    launched = sweep(tmp_path)
    remember(launched, default_store())
    assert load_sweep("t").trials == launched.trials
    with pytest.raises(SweepError, match="there is no such file"):
        load_sweep("another")


def test_an_override_without_its_group_is_told_the_whole_path(tmp_path):
    path = write_sweep(tmp_path, base=BASE)
    for text, meant in (("epochs=5", "train.epochs"), ("lr=0.1", "train.optimizer.lr")):
        with pytest.raises(SweepError, match=f"is not a known field.*`?{meant}"):
            load(path, [text])


def test_an_override_reaches_into_an_axis_over_the_whole_group(tmp_path):
    path = write_sweep(
        tmp_path, grid=[{"model": [{"name": "resnet", "width": 8}]}, {"model.width": [16]}]
    )
    assert [t.spec.model.width for t in load(path, ["model.width=32"]).trials] == [32, 32]
    norms = [t.spec.model.norm.stem for t in load(path, ["model.norm=bn"]).trials]
    assert norms == ["bn", "bn"]


@pytest.mark.parametrize(
    "entry",
    [
        {"model.norm": "bn"},
        {"model": {"norm": {"ode": "bn"}}},
        {"solver": {"steps": 4.0}, "model.norm.ode": "bn"},
        {"seed": 1},
    ],
)
def test_exclude_understands_what_a_grid_does(tmp_path, entry):
    fields = {"grid": {"model.norm": ["bn", "ln"]}, "seeds": [0, 1]}
    kept = sweep(tmp_path, **fields, exclude=[entry]).trials
    assert len(kept) == 2
    assert all(t.spec.model.norm.ode == "ln" or t.spec.seed == 0 for t in kept)


def test_exclude_reads_floats_without_a_dot(tmp_path):
    text = (
        "{name: t, base: {data: digits, model: odenet}, grid: {solver.tol: [1e-3, 1e-4]},"
        " exclude: {solver.tol: 1e-3}}"
    )
    assert [t.spec.solver.tol for t in load(write_sweep(tmp_path, text)).trials] == [1e-4]


def test_a_report_says_what_is_small_or_was_set(tmp_path):
    small = {"train.epochs": 1, "grid": [{"solver.steps": [1, 2, 3]}]}
    path = write_sweep(tmp_path, about="All.", small=small)
    assert load(path).about == "All."
    found = load(path, ["seeds=[3]"], size="small")
    assert found.about == (
        "All. Small form: `grid=[{solver.steps: [1, 2, 3]}]`, `train.epochs=1`. "
        "Run with: `seeds=[3]`."
    )


def test_one_block_may_be_set_without_a_list(tmp_path):
    path = write_sweep(tmp_path)
    changed = load(path, ["evaluate={methods: [rk4], nfe: [8]}", "grid={solver.steps: [1, 2]}"])
    assert len(changed.evaluate) == 1
    assert len(changed.trials) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: größe\n".encode("latin-1"), "is not UTF-8 text (byte 9). Save it as UTF-8"),
        ("name: x\n".encode("utf-16"), "is not UTF-8 text (byte 1). Save it as UTF-8"),
        (b"name: 12\n", "name (line 1): should be text, found the number `12`: write it in quotes"),
    ],
)
def test_what_is_no_text_says_how_to_make_it_one(tmp_path, content, message):
    (tmp_path / "odd.yaml").write_bytes(content)
    with pytest.raises(SweepError) as caught:
        load(tmp_path / "odd.yaml")
    assert message in str(caught.value)
