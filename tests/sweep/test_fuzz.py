"""Whatever a sweep file, a `--set` or an `--only` says: a sweep or our error, soon, and no harm."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodebench.errors import SweepError
from nodebench.planning.selection import chosen
from nodebench.spec import TrialSpec
from nodebench.sweep import Sweep
from nodebench.sweep.file import SMALLER, SweepFile
from tests.support.tiny_sweeps import TINY
from tests.support.untrusted_files import HEAD, OWN_MODEL, outcome, outcome_of

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


WORDS = sorted(
    {
        *SweepFile.model_fields, *TrialSpec.model_fields, "method", "steps", "step_size", "tol",
        "rtol", "adapt", "epochs", "width", "norm", "ode", "settings", "optimizer", "schedule",
        "at", "when", "methods", "nfe", "tols", "test_size", "checksums", "augment", "cpus", "gpus",
    }
)  # fmt: skip
NAMES = [
    "spheres",
    "plainode",
    "odenet",
    "euler",
    "dopri5",
    OWN_MODEL,
    "sgd",
    "bn",
    "mlp",
    "t",
]
PATHS = ["solver.steps", "model.norm.ode", "model.name, data.name", "seed", "train.optimizer.lr"]

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.integers(-2, 20), st.floats(),
    st.sampled_from(NAMES), st.text(max_size=20), st.dates(), st.binary(max_size=5),
    st.just("x" * 300), st.sets(st.integers(), max_size=2),
)  # fmt: skip
keys = st.one_of(st.sampled_from(WORDS), st.sampled_from(PATHS), st.text(max_size=8))
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys | st.integers() | st.none(), inner, max_size=5)
    ),
    max_leaves=15,
)
groups = st.dictionaries(keys, trees, max_size=4)


@st.composite
def almost_sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """A sound sweep file in which some fields, at some depth, are something else."""
    tree: dict[str, Any] = {
        "name": "t",
        "base": {**TINY, "train": dict(TINY["train"])},
        "grid": {"solver.steps": [1, 2]},
        "evaluate": {"methods": ["euler"], "steps": [2]},
    }
    places = [tree, tree["base"], tree["base"]["train"], tree["grid"], tree["evaluate"]]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        key = draw(keys | st.sampled_from(sorted(place)))
        place[key] = draw(trees)
    return tree


@FUZZ
@given(tree=almost_sweeps() | groups | trees, size=st.sampled_from(["full", *SMALLER]))
def test_any_tree_is_a_sweep_or_our_error(folder, tree, size):
    path = folder / "sweep.yaml"
    path.write_text(yaml.dump(tree, allow_unicode=True), "utf-8", "surrogatepass")
    outcome(path, size=size)


@FUZZ
@given(content=st.text() | st.binary() | st.text("{}[]&*a:,-?!<\n \"'|>%@`#~0x.e_", max_size=40))
def test_any_text_and_any_bytes_are_our_error(folder, content):
    assert isinstance(outcome_of(folder, content), list)


@FUZZ
@given(text=st.text("{}[]&*a:,-?!<\n \"'|>~0x.e_1", max_size=20), end=st.sampled_from(PATHS))
def test_any_text_behind_a_sound_head_is_a_sweep_or_our_error(folder, text, end):
    outcome_of(folder, f"{HEAD}exclude: [{{{end}: {text}}}]")
    outcome_of(folder, HEAD + text)


assignments = st.builds(
    lambda key, value: f"{key}={value}",
    keys | st.sampled_from([*PATHS, "model.", ".", "", "grid", "seeds"]) | st.text(max_size=5),
    st.text(max_size=10) | trees.map(lambda tree: yaml.dump(tree, default_flow_style=True)),
)  # fmt: skip


@FUZZ
@given(texts=st.lists(assignments | st.text(max_size=10), min_size=1, max_size=3))
def test_any_override_is_a_sweep_or_our_error(folder, texts):
    outcome_of(folder, HEAD + "grid: {solver.steps: [1, 2]}", *texts)
    outcome_of(folder, HEAD + "grid: 5", *texts)


@FUZZ
@given(
    texts=st.lists(assignments | st.text(max_size=10), max_size=2),
    shard=st.text("0123456789/ -", max_size=8) | st.text(max_size=4) | st.just("1/" + "9" * 5000),
)
def test_any_choice_of_trials_is_some_trials_or_our_error(folder, texts, shard):
    found = outcome_of(folder, HEAD + "seeds: [0, 1]")
    assert isinstance(found, Sweep)
    with suppress(SweepError):
        assert chosen(found, texts, shard) <= {trial.id for trial in found.trials}
