from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from nodebench.api import compare, write_report
from nodebench.errors import InputError
from nodebench.planning.lookup import load_sweep
from nodebench.report.analysis.findings import all_results
from nodebench.report.comparison import Side, comparison, read_side
from nodebench.store import Result, Store
from tests.support.fake_results import finished, made, steady
from tests.support.tiny_sweeps import TINY, tiny
from tests.support.tiny_trainings import EULER


def test_two_stores_of_one_sweep_are_compared_cell_by_cell(tmp_path):
    for name, better in (("before", 0.0), ("after", 0.1)):
        folder = tmp_path / name
        folder.mkdir()

        def accuracy(activation, steps, seed, better=better):
            return steady(activation, steps, seed) + better * (1 + seed / 100) * (
                activation == "relu"
            )

        sweep, _ = made(folder, accuracy)
        write_report(sweep, Store(folder / "runs"), folder / "report")
    sides = [str(tmp_path / name / "report") for name in ("before", "after")]
    text = compare(*sides, Store(tmp_path / "none"))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert "+10.10 ± 0.25" in lines["relu steps 8"]
    assert "better" in lines["relu steps 8"]
    assert "the same" in lines["tanh steps 2"]


def test_a_comparison_has_the_evaluations_of_both_sides(tmp_path):
    sides = [
        pd.DataFrame(
            {"cell": ["a", "b", "c"], "model.width": [1, 2, 3], "data.name": "spheres", "seed": 0,
             "outcome": "finished", "test_accuracy": 0.5, "nfe_forward": evaluations}
        )
        for evaluations in ([8.0, 19.94, math.nan], [8.0, 26.3, math.nan])
    ]  # fmt: skip
    text = comparison(Side("one", sides[0]), Side("other", sides[1]))
    heading, _, *rows = (line for line in text.splitlines() if line.startswith("|"))
    place = [name.strip() for name in heading.split("|")].index("NFE")
    assert [row.split("|")[place].strip() for row in rows] == ["8", "19.9 to 26.3", "–"]
    diverged = {**sides[0].iloc[0], "seed": 1, "outcome": "diverged", "nfe_forward": 500.0}
    alone = {**sides[0].iloc[0], "seed": 2, "nfe_forward": 100.0}
    more = pd.concat([sides[0], pd.DataFrame([diverged, alone])])
    text = comparison(Side("one", more), Side("other", sides[1]))
    (row,) = (line for line in text.splitlines() if line.startswith("| a "))
    assert row.split("|")[place].strip() == "8"  # of the seed that both have
    without = [side.drop(columns="nfe_forward") for side in sides]
    assert "NFE" not in comparison(Side("one", without[0]), Side("other", without[1]))


def test_sweeps_of_one_name_are_named_by_what_distinguishes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep, store = made(tmp_path, steady)[0], Store(tmp_path / "runs")
    file = Path(sweep.origin.file).name
    changed = load_sweep(file, overrides=["margin=0.02"], store=store)
    (tmp_path / "other.yaml").write_text(Path(file).read_text())
    for other, names in (
        (changed, (sweep.name, f"{sweep.name} (--set margin=0.02)")),
        (Path("other.yaml"), (f"{sweep.name} ({file})", f"{sweep.name} (other.yaml)")),
        (sweep, (sweep.name, sweep.name)),
    ):
        title, what, *_ = compare(sweep, other, store).split("\n\n")
        assert title == f"# {names[1]} compared with {names[0]}"
        assert f"from `{names[0]}` to `{names[1]}`" in what


def test_cells_that_only_one_side_tells_apart_are_not_mixed(tmp_path):
    seeds = [0, 1, 2]
    plain = finished(tmp_path / "plain", seeds=seeds)
    grid = {"gradient": ["backprop", {"name": "adjoint", "norm": "seminorm"}]}
    both = finished(tmp_path / "both", seeds=seeds, grid=grid)
    rows = [line for line in compare(plain, both).splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 1
    assert rows[0].split("|")[1].strip() == "backprop"
    assert rows[0].count("60.00 ± 24.84") == 2
    assert "the same" in rows[0]


def test_a_setting_that_only_some_cells_of_one_side_have_is_not_mixed_with_them(tmp_path):
    seeds = [0, 1, 2]
    plain = finished(tmp_path / "plain", seeds=seeds)
    grid = {"train.regularize": [{}, {"kinetic": {"weight": 0.01}}]}
    both = finished(tmp_path / "both", seeds=seeds, grid=grid)
    rows = [line for line in compare(plain, both).splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 1
    assert "kinetic" not in rows[0]
    assert rows[0].count("60.00 ± 24.84") == 2


def test_settings_of_words_and_numbers_are_those_that_a_table_has(tmp_path):
    grid = {"gradient": [{"name": "recompute", "segments": n} for n in ("auto", 4)]}
    report = finished(tmp_path / "one", grid=grid)
    sweep, store = tiny(tmp_path / "one", grid=grid), Store(tmp_path / "one" / "runs")
    text = comparison(read_side(report, store), Side("store", all_results(sweep, store)))
    assert "Only in" not in text
    assert text.count("the same") == 2


def test_a_report_beside_itself_has_both_columns(tmp_path):
    one = finished(tmp_path / "one")
    lines = compare(one, one).splitlines()
    heading = next(line for line in lines if line.startswith("| configuration"))
    assert [name.strip() for name in heading.split("|")[2:4]] == ["from", "to"]


def test_a_report_of_an_earlier_release_with_the_ids_of_mlflows_runs_is_read(tmp_path):
    one = finished(tmp_path / "one", seeds=[0, 1])
    before = compare(one, one)
    table = pd.read_csv(file := Path(one) / "results.csv", dtype=str)
    run_ids = [f"{number}e" for number in range(len(table))]
    table.assign(mlflow_run=run_ids).to_csv(file, index=False)
    assert compare(one, one) == before


def test_constant_settings_prevent_no_match_and_are_named(tmp_path):
    grid = {"solver.steps": [2, 4]}
    short = finished(tmp_path / "short", grid=grid)
    base = {
        **TINY,
        "train": {**TINY["train"], "epochs": 6},
        "data": {**TINY["data"], "draw_seed": 1},
    }
    longer = finished(tmp_path / "long", grid=grid, base=base)
    text = compare(short, longer)
    assert "Only in" not in text
    assert text.count("the same") == 2
    assert "All configurations also differ in `train.epochs` (3 to 6)." in text
    assert f"Only `{longer}` records `data.draw_seed` (1)." in text
    assert "Only" not in compare(short, short)
    assert "also differ" not in compare(short, short)


def test_only_settings_that_prevent_a_match_are_named_as_its_obstacle(tmp_path):
    one = finished(tmp_path / "one", grid={"solver.steps": [2, 3]})
    base = {**TINY, "train": {**TINY["train"], "epochs": 6}}
    other = finished(tmp_path / "other", grid={"solver.steps": [4, 5]}, base=base)
    with pytest.raises(InputError) as caught:
        compare(one, other)
    assert str(caught.value).endswith("`solver.steps` is 2, 3 in one, 4, 5 in the other")


def test_setting_that_varies_on_one_side_is_matched_by_its_value(tmp_path):
    short = finished(tmp_path / "short")
    both = finished(tmp_path / "both", grid={"train.epochs": [3, 6]})
    text = compare(short, both)
    assert "also differ" not in text
    assert f"Only in {both}: epochs 6." in text


def test_results_on_other_data_are_not_compared(tmp_path):
    three = {**TINY, "data": {**TINY["data"], "name": "three-minima"}}
    one, other = (finished(tmp_path / str(i), base=base) for i, base in enumerate((TINY, three)))
    with pytest.raises(InputError, match=r"`data\.name` is spheres in one, three-minima in the"):
        compare(one, other)


def test_sweeps_that_share_no_cell_are_told_what_sets_them_apart(tmp_path):
    one, other = (
        finished(tmp_path / str(steps[0]), grid={"solver.steps": steps}) for steps in ([2, 3], [4])
    )
    with pytest.raises(InputError, match=r"`solver\.steps` is 2, 3 in one, 4 in the other"):
        compare(one, other)


def test_cells_of_only_one_side_are_named(tmp_path):
    for name, grid in (("a", {"solver.steps": [2, 4]}), ("b", {"solver.steps": [4, 8]})):
        finished(tmp_path / name, grid=grid)
    text = compare(str(tmp_path / "a" / "report"), str(tmp_path / "b" / "report"))
    assert f"Only in {tmp_path / 'a' / 'report'}: steps 2." in text
    assert f"Only in {tmp_path / 'b' / 'report'}: steps 8." in text


def test_incomparable_inputs_raise_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="is neither a sweep, nor a report's folder"):
        compare(str(tmp_path / "nothing"), str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="HEAD:nowhere"):
        compare("HEAD:nowhere", "HEAD:nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no `results.csv`: write its report again"),
        ("", r"results\.csv` is damaged, or no report's table: No columns"),
        ('garbage\n"unclosed', r"results\.csv` is damaged"),
        ("a,b\n1,2\n", "it has no column `id`, `cell`, `seed`, `outcome`"),
    ],
)
def test_a_damaged_report_is_named(tmp_path, text, message):
    report = Path(finished(tmp_path / "a"))
    if text is None:
        (report / "results.csv").unlink()  # the store has the results, which are not the report's
    else:
        (report / "results.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        compare(str(report), str(report))


def test_errors_are_compared_to_four_digits(tmp_path):
    names = []
    for name, errors in (("a", (0.0101, 0.0111, 0.0105)), ("b", (0.0134, 0.0146, 0.0137))):
        (tmp_path / name).mkdir()
        base = {"data": "spiral", "model": "neuralode", "solver": EULER, "train": {"iterations": 1}}
        sweep, store = tiny(tmp_path / name, base=base, seeds=[0, 1, 2]), Store(tmp_path / name)
        for trial, error in zip(sweep.trials, errors, strict=True):
            store.folder(trial.id).create(trial)
            ended = Result("finished", "", 1, {"test_error": error}, [], 0, 1)
            store.folder(trial.id).write_result(ended)
        write_report(sweep, store, tmp_path / name / "report")
        names.append(str(tmp_path / name / "report"))
    assert "| +0.0033 ± 0.0004 | < 0.001" in compare(*names)
    assert "worse" in compare(*names)


def test_weights_tell_cells_apart(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    sides = [
        pd.DataFrame(
            {"cell": ["a", "b"], "weights": ["a.pt", "b.pt"], "seed": 0, "outcome": "finished",
             "solver.steps": 2, "test_accuracy": accuracies}
        )
        for accuracies in ([0.5, 0.6], [0.7, 0.8])
    ]  # fmt: skip
    text = comparison(Side("one", sides[0]), Side("other", sides[1]))
    assert [line.split("|")[1].strip() for line in text.splitlines()[-2:]] == ["a", "b"]


def test_without_git_a_commit_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git cannot be run"):
        compare("HEAD:reports/quickstart", "HEAD:reports/quickstart")
