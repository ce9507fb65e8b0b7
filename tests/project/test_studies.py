"""Every sweep file: it plans, and trials of every kind in it, cut short, run on generated files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nodebench.planning import RunOptions
from nodebench.report.analysis.sizes import caveat
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.point import EvaluationPoint
from nodebench.store import Store
from nodebench.sweep import Sweep, load
from nodebench.sweep.file import Evaluate, Resources, SizeName
from nodebench.training.trial import run_trial
from tests.support.coarse_reference import coarse_reference
from tests.support.fake_datasets import WRITERS

FILES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
MEDIUM = [path for path in FILES if "\nmedium:" in path.read_text(encoding="utf-8")]
STUDIES = ("S1", "S2", "S3", "S4")
OURS = {
    "quickstart", "gradient-accuracy", "gradient-memory", "gradient-methods", "regularization",
    "step-control", "augmentation", "motion",
}  # fmt: skip


def cut(trial: Trial, written: dict[str, Any]) -> Trial:
    """The trial with two small batches, narrow, few solver steps, and generated files."""
    tree = trial.spec.model_dump(exclude_none=True)
    tree["model"] |= {"width": 8} if tree["model"].get("width", 0) > 8 else {}
    if tree["data"]["name"] != "system":
        tree["data"] |= {"val_size": 10 if tree["data"].get("val_size") else 0} | written
    for size in ("train_size", "test_size"):
        tree["data"].pop(size, None)
        if tree["data"]["name"] in ("spheres", "three-minima", "digits"):
            tree["data"][size] = 40
    if tree["data"]["name"] == "spiral":
        tree["data"] = {"name": "spiral", "windows": 2}
    tree["train"].pop("epochs", None)
    tree["train"] |= {"iterations": 2, "batch_size": 8, "test_every": 100}
    solver = tree.get("solver", {})
    if "steps" in solver:
        solver["steps"] = min(solver["steps"], 2)
    if "step_size" in solver:
        solver["step_size"] = 0.1
    if "adapt" in solver:
        solver["adapt"]["every"] = 1
    return Trial(TrialSpec.model_validate(tree))


def representatives(sweep: Sweep) -> list[Trial]:
    """The first trial of every data set, model, norm, method and gradient."""
    kinds = ("data.name", "model.name", "model.field", "model.norm.ode", "solver.method",
             "gradient.name")  # fmt: skip
    first = {tuple(map(t.settings.get, kinds)): t for t in reversed(sweep.trials)}
    return list(first.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", ["full", "small"])
def test_a_sweep_file_is_named_after_what_it_shows_and_has_a_small_form(
    path: Path, size: SizeName
) -> None:
    sweep = load(path, size=size)
    assert sweep.name == path.stem + ("-small" if size == "small" else "")
    assert path.stem in OURS or any(study in sweep.about for study in STUDIES)
    if size == "small":
        assert len(sweep.trials) <= 12
        assert sweep.resources.gpus == 0


STUDY_S_OWN = ("data.", "model", "train.batch_size", "train.optimizer")
REDUCED = {
    "odenet4-normalization": {"data.train_size", "train.batch_size"},
    "regularization": {"data.train_size"},
}
"""Sweep -> what even its medium form has less of, since two cores would take days."""


@pytest.mark.parametrize("path", MEDIUM, ids=lambda path: path.stem)
def test_a_medium_form_has_the_study_s_data_network_and_batch(path: Path) -> None:
    sweep, full = load(path, size="medium"), load(path)
    assert sweep.name == f"{path.stem}-medium"
    assert sweep.resources.gpus == 0
    changed = sweep.made.instead
    assert changed or {trial.id for trial in sweep.trials} < {trial.id for trial in full.trials}
    own = {name for name in changed if name.startswith(STUDY_S_OWN)}
    assert own == REDUCED.get(path.stem, set())
    assert {trial.spec.seed for trial in sweep.trials} <= {t.spec.seed for t in full.trials}


@pytest.mark.parametrize("path", MEDIUM, ids=lambda path: path.stem)
def test_the_milestones_of_a_medium_form_are_in_proportion(path: Path) -> None:
    ours, theirs = (load(path, size=size).trials[0].settings for size in ("medium", "full"))
    if "train.epochs" not in theirs:  # a toy, whose medium form has fewer configurations
        assert ours == theirs
        return
    share = ours["train.epochs"] / theirs["train.epochs"]
    milestones = [round(share * epoch) for epoch in theirs.get("train.schedule.at", ())]
    reached = [milestone for milestone in milestones if milestone < ours["train.epochs"]]
    assert list(ours.get("train.schedule.at", ())) == reached


def test_what_gives_the_same_gradient_or_follows_the_epochs_is_no_doubt() -> None:
    sweep = load(FILES[0].parent / "odenet4-normalization.yaml", size="medium")
    assert {"gradient.name", "train.schedule.at"} < set(sweep.made.instead)
    assert caveat(sweep) == (
        "at 100 of 350 epochs, with `data.train_size` 10000, "
        "with `train.batch_size` 128 instead of 512"
    )
    other = load(FILES[0].parent / "mnist-resnet-odenet.yaml", size="medium")
    ids = {other.cell_label(trial): trial.id for trial in other.trials}
    assert caveat(other, [ids["resnet 6"]]) == "at 10 of 100 epochs"
    assert caveat(other, [ids["odenet 1 euler 8 backprop"]]) == (
        "at 10 of 100 epochs, with `solver.steps` 8 instead of 25, 100"
    )
    assert caveat(load(FILES[0].parent / "odenet4-normalization.yaml", size="small")) == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_trials_of_a_sweep_run_on_small_generated_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Coarse, since it is the wiring that is tested.
    monkeypatch.setattr(
        "nodebench.sweep.points.limit_point", lambda _spec: EvaluationPoint("rk4", steps=2)
    )
    store = Store(tmp_path / "runs")
    for trial in representatives(load(path)):
        name = trial.spec.data.name
        written = WRITERS[name](tmp_path, test=20) if name in WRITERS else {}
        short = cut(trial, written)
        point = Evaluate(methods=("rk4",), steps=(1,))
        with coarse_reference(steps=2):
            result = run_trial(short, store, RunOptions(tmp_path, evaluate=(point,)))
        assert result.outcome == "finished", result.reason
        assert result.summary["iteration"] == 2
        assert short.spec.data.headline in result.summary
        outcomes = [row["outcome"] for row in store.folder(short.id).evaluations()]
        # Its own solver, the limit and the point asked for.
        assert outcomes == ["finished"] * (3 if short.spec.solver else 0)


def test_every_sweep_of_the_studies_is_here() -> None:
    named = {
        "spiral", "mnist-resnet-odenet", "cifar10-resnet-odenet", "agnews-vdcnn", "spheres-solver",
        "spheres-adaptation", "toys-solver", "spheres-tolerance", "spheres-tolerance-adaptation",
        "mnist-solver", "cifar10-solver", "cifar10-tolerance", "cifar10-adaptation",
        "mnist-adjoint", "cifar10-tuning", "odenet4-normalization", "odenet10-normalization",
        "controls",
    }  # fmt: skip
    assert {path.stem for path in FILES} == named | OURS


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", ["spiral", "agnews-vdcnn", "spheres-adaptation", "odenet4-normalization"]
)
def test_every_kind_of_task_runs_on_a_gpu(name: str, tmp_path: Path) -> None:
    store, options = Store(tmp_path / "runs"), RunOptions(tmp_path, Resources(gpus=1))
    for trial in representatives(load(FILES[0].parent / f"{name}.yaml")):
        written = WRITERS[trial.spec.data.name](tmp_path)
        result = run_trial(cut(trial, written), store, options)
        assert result.outcome == "finished", result.reason
        assert result.environments[0]["device"] == "cuda"
