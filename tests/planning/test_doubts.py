"""What a plan says and does not refuse."""

import json

import pytest

from nodebench import api
from nodebench.cli import inspect
from nodebench.planning.doubts import doubts
from nodebench.planning.lookup import foreign
from nodebench.store import Store
from tests.support.tiny_sweeps import TINY, tiny, write_tiny


def said(tmp_path, solver, precision="float32", **fields):
    train = {**TINY["train"], "precision": precision}
    return doubts(tiny(tmp_path, base={**TINY, "solver": solver, "train": train}, **fields))


def test_a_checkpoint_evaluated_as_what_it_was_not_trained_as_is_said(tmp_path):
    trained = tiny(tmp_path).trials[0]
    folder = Store(tmp_path / "runs").folder(trained.id)
    folder.create(trained)
    folder.checkpoint.write_bytes(b"weights")
    grid = {"solver": [{"method": "euler", "steps": 2}, "dopri5"], "model.activation": ["relu"]}
    path = write_tiny(tmp_path, grid=grid)
    [told] = doubts(foreign(path, folder.checkpoint))
    start = f"`{folder.checkpoint}` was trained with `solver.method: euler`, `solver.steps: 2`"
    assert told.startswith(start)
    assert ". 1 of 2 configurations differs in this, so its results and verdicts are not" in told
    assert told.endswith("; `--only` leaves them out")
    assert (
        doubts(foreign(path, folder.checkpoint, overrides=["grid={train.batch_size: [8]}"])) == []
    )
    [told] = doubts(foreign(path, folder.checkpoint, overrides=["grid={'model.width': [5, 6]}"]))
    assert "`model.width: 4`. 2 of 2 configurations differ in this, so their" in told
    assert told.endswith("; set this with `--set`")
    elsewhere = tmp_path / "weights.pt"
    elsewhere.write_bytes(b"weights")
    assert doubts(foreign(path, elsewhere)) == []
    further = tiny(tmp_path, base={**TINY, "weights": str(folder.checkpoint)}, grid=grid)
    assert doubts(further) == []  # is trained on as something else


@pytest.mark.parametrize(
    ("precision", "tol", "is_said"),
    [
        ("float32", 1e-12, True), ("float32", 9e-8, True), ("float32", 1e-7, False),
        ("tf32", 1e-5, True), ("tf32", 1e-4, False), ("bf16", 1e-4, True), ("bf16", 1e-3, False),
    ],
)  # fmt: skip
def test_a_tolerance_that_is_finer_than_the_precision_is_said(tmp_path, precision, tol, is_said):
    found = said(tmp_path, {"method": "dopri5", "tol": tol}, precision)
    start = f"`solver.tol: {tol:g}` is below the resolution of {precision}"
    assert [text.startswith(start) for text in found] == ([True] if is_said else [])


def test_the_relative_tolerance_counts_wherever_it_is_given(tmp_path):
    fine = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-3}
    assert said(tmp_path, fine)[0].startswith("`solver.rtol: 1e-09`")
    assert said(tmp_path, {"method": "dopri5", "rtol": 1e-3, "atol": 1e-12}) == []
    evaluate = {"methods": ["dopri5"], "tols": [1e-3, 1e-10], "tol_factors": [1, 1e-6]}
    found = said(tmp_path, {"method": "dopri5"}, evaluate=evaluate)
    assert [text.partition("` is below the resolution")[0] for text in found] == [
        "`evaluate[0].tols: 1e-10",
        "`evaluate[0].tol_factors: 1e-06, so tol: 1e-09",
    ]
    base = {**TINY, "gradient": {"name": "adjoint", "solver": fine}}
    assert doubts(tiny(tmp_path, base=base))[0].startswith("`gradient.solver.rtol: 1e-09`")


def test_a_line_is_said_once_whatever_the_number_of_trials(tmp_path):
    fields = {"seeds": [0, 1, 2], "grid": {"model.width": [2, 3]}}
    assert len(said(tmp_path, {"method": "dopri5", "tol": 1e-9}, **fields)) == 1


def test_scripts_are_told_too(tmp_path):
    base = {**TINY, "solver": {"method": "dopri5", "tol": 1e-9}}
    sweep = tiny(tmp_path, base=base)
    plan = json.loads(inspect.plan_json(sweep, api.plan(sweep, Store(tmp_path / "runs")), {}))
    assert plan["doubts"] == doubts(sweep)
