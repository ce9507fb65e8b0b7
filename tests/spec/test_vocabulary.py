from __future__ import annotations

from typing import get_args

import pytest
import torch
from torchdiffeq._impl.odeint import SOLVERS

from nodebench.data import files, load
from nodebench.data.dataset import Data, Split
from nodebench.data.files import FILES
from nodebench.models import build
from nodebench.models.dynamics import Dynamics, TimeConv
from nodebench.models.layers.factory import (
    ACTIVATION_LAYERS,
    NORM_LAYERS,
    WEIGHT_NORM_LAYERS,
    LayerFactory,
)
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.ode.gradients import odeint
from nodebench.ode.solve import SOLVES
from nodebench.ode.tableau import EMBEDDED, TABLEAUS
from nodebench.spec import TrialSpec, data, training, vocabulary
from nodebench.spec.model import MODELS
from nodebench.spec.settings import parts_in
from nodebench.spec.solver import REVERSIBLE, Solver
from nodebench.spec.trial import DataSettings, ModelSettings
from nodebench.spec.vocabulary import METHODS
from nodebench.training import loop, optimization


def by_stepping(stepping: str) -> set[str]:
    return {name for name, method in METHODS.items() if method.stepping == stepping}


def test_steps_are_taken_by_us_or_by_a_library() -> None:
    assert set(get_args(vocabulary.Stepping)) == set(SOLVES)
    assert by_stepping("fixed") == {*TABLEAUS, *REVERSIBLE}
    assert by_stepping("embedded") == set(EMBEDDED)
    assert by_stepping("multistep") == {"implicit_adams"}
    assert by_stepping("scipy") == {"scipy_solver"}
    theirs = {name for name in EMBEDDED if METHODS[name].in_torchdiffeq}
    assert set(SOLVERS) >= theirs | by_stepping("multistep")
    assert set(EMBEDDED) - theirs == {"tsit5"}


def test_torchdiffeq_takes_the_steps_of_dense_output() -> None:
    solver = Solver(method="dopri5", dense_output=True)
    assert (solver.stepping, solver.facts.stepping) == ("dense_output", "embedded")
    assert not solver.has_stepper
    assert Solver(method="dopri5").has_stepper


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("rk4", "fixed"),
        ("dopri5", "adaptive"),
        ("scipy_solver", "adaptive"),
        ("implicit_adams", "multistep"),
    ],
)
def test_the_kind_of_a_method_is_which_settings_it_takes(method: str, kind: str) -> None:
    assert METHODS[method].kind == kind


def test_every_gradient_is_a_row_of_the_table() -> None:
    assert set(odeint.GRADIENT_METHODS) == set(vocabulary.GRADIENTS)


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_fixed_method_states_its_tableaus_stages(name: str) -> None:
    tableau = TABLEAUS[name]
    assert METHODS[name].stages == len(tableau.a) == len(tableau.b) == len(tableau.c)


@pytest.mark.parametrize("name", ["adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8"])
def test_an_adaptive_method_states_torchdiffeqs_order_and_stages(name: str) -> None:
    oracle = SOLVERS[name]
    assert METHODS[name].order == oracle.order
    assert METHODS[name].stages == len(oracle.tableau.beta) + 1


@pytest.mark.parametrize(
    ("literal", "table"),
    [
        (vocabulary.MethodName, vocabulary.METHODS),
        (vocabulary.NormName, vocabulary.NORM_WORDS),
        (vocabulary.GradientName, vocabulary.GRADIENTS),
        (vocabulary.ActivationName, vocabulary.ACTIVATIONS),
        (vocabulary.DynamicsName, vocabulary.DYNAMICS),
        (vocabulary.MotionName, vocabulary.MOTIONS),
        (vocabulary.Augmentation, vocabulary.AUGMENTATIONS),
        (vocabulary.ScipyMethod, vocabulary.SCIPY_METHODS),
    ],
    ids=["method", "norm", "gradient", "activation", "dynamics", "motion", "augmentation", "scipy"],
)
def test_what_a_sweep_may_name_is_what_the_table_holds(literal: object, table: object) -> None:
    assert list(get_args(literal)) == list(table)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (vocabulary.NORMS, NORM_LAYERS),
        (vocabulary.WEIGHT_NORMS, WEIGHT_NORM_LAYERS),
        (vocabulary.ACTIVATIONS, ACTIVATION_LAYERS),
        (MODELS, build.NETWORKS),
        (data.DATASETS, load.WHOLES | load.DRAWN),
        (training.OPTIMIZERS, optimization.OPTIMIZER_CLASSES),
    ],
    ids=["norms", "weight-norms", "activations", "models", "datasets", "optimizers"],
)
def test_facts_and_code_name_the_same_parts(facts: dict, code: dict) -> None:
    assert set(facts) == set(code)


@pytest.mark.parametrize(
    ("table", "union"),
    [
        (MODELS, ModelSettings),
        (data.DATASETS, DataSettings),
        (training.OPTIMIZERS, training.OptimizerSettings),
        (training.SCHEDULES, training.ScheduleSettings),
    ],
    ids=["models", "datasets", "optimizers", "schedules"],
)
def test_a_union_of_settings_admits_the_parts_of_its_table(table: dict, union: object) -> None:
    admitted = {tag: part for tag, part in parts_in(union).items() if tag != "custom"}
    assert admitted == table


@pytest.mark.parametrize("table", [MODELS, data.DATASETS, training.OPTIMIZERS])
def test_a_part_is_filed_under_its_own_name(table: dict) -> None:
    for name, part in table.items():
        assert name in get_args(part.model_fields["name"].annotation)
        assert all(table[other] is part for other in get_args(part.model_fields["name"].annotation))


def test_files_belong_to_known_data_sets() -> None:
    assert set(files.FILES) <= set(data.DATASETS)
    assert {name for name, files in FILES.items() if not files.checksums} == {"tiny-imagenet"}
    assert FILES["tiny-imagenet"].check
    filed = {n for n, p in data.DATASETS.items() if issubclass(p, data.Filed)}
    assert filed == set(files.FILES)


@pytest.mark.parametrize("name", vocabulary.DYNAMICS)
def test_a_form_is_built_as_it_is_described(name: str) -> None:
    form = vocabulary.DYNAMICS[name]
    layers = list(Dynamics(name, 8, LayerFactory("gn")).layers)
    kinds = {GroupNorm: "norm", torch.nn.ReLU: "act"}
    assert " ".join(kinds.get(type(layer), "conv") for layer in layers) == form.layers
    assert {isinstance(layer, TimeConv) for layer in layers} == {False, form.time}
    convs = [
        layer
        for layer in Dynamics(name, 8, LayerFactory("gn")).modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    assert {conv.in_channels - conv.out_channels for conv in convs} == {int(form.time)}
    assert {conv.bias is not None for conv in convs} == {form.bias}


def test_every_optimizer_takes_the_settings_that_its_part_has() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    model = torch.nn.ParameterList([weight])
    for name, part in training.OPTIMIZERS.items():
        trial = TrialSpec(
            data={"name": "spheres"},
            model="plainode",
            train={"optimizer": {"name": name, "lr": 0.125}},
        )
        optimizer = loop.new_state(model, trial).optimizer
        assert optimizer.param_groups[0]["lr"] == 0.125
        assert part.model_fields.keys() - {"name"} <= optimizer.param_groups[0].keys()


def test_a_split_is_as_long_as_its_targets() -> None:
    split = Split(torch.zeros(5, 2), torch.arange(5))
    assert len(split) == 5
    assert split[torch.tensor([3, 1])].targets.tolist() == [3, 1]
    assert Data(split, split, None, classes=5).input_shape == (2,)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("ln", ("ln", None)),
        ("wn", ("nf", "wn")),
        ("nf", ("nf", None)),
        ("bn+sn", ("bn", "sn")),
    ],
)
def test_a_norm_word_says_what_is_normalized(word: str, parts: tuple) -> None:
    assert vocabulary.norm_parts(word) == parts
    assert word in vocabulary.NORM_WORDS
