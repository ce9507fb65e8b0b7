"""The fields of a sweep file around its trials: axes, seeds, evaluations, resources, limits."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nodebench.errors import shown, unknown
from nodebench.spec.settings import NamedSettings, Settings
from nodebench.spec.training import REGULARIZER_TERMS, Limits
from nodebench.spec.vocabulary import (
    A_NUMBER,
    METHODS,
    OWN,
    RESULT_NUMBERS,
    Count,
    Factor,
    Flag,
    Integer,
    MeasuredGradient,
    MethodName,
    NonNegative,
    Number,
    Positive,
    Samples,
    Size,
    Steps,
)

Statistics = Literal["running", "batch"]
Moment = Literal["start", "end"]
StepOf = Literal["batch", "sample"]
SizeName = Literal["small", "medium", "full"]
SMALLER: tuple[SizeName, ...] = ("small", "medium")
"""The sizes that a file has if it has a block of that name; the file itself is the full one."""


class Evaluate(Settings):
    """Solvers under which every trained model is evaluated again, on the test set.

    Each of `methods` uses the lists that apply to it. Fixed methods use `steps`, evaluation budgets
    `nfe`, and multiples `step_factors` of the training step size. Adaptive methods use `tols` and
    multiples `tol_factors` of the training tolerance. `when` restricts the block to configurations
    with these settings. `test_size` evaluates a balanced subset of the test set.

    A block with `batch_sizes` or `control` measures what solves cost in test batches of these sizes
    and, for embedded methods such as `dopri5`, with one step per `batch` or per `sample`.

    `batch_norm` lists the statistics of batch norm inside ODE blocks: the `running` averages of
    training, or those of each test `batch`. A block with `gradients` measures gradients instead of
    accuracies: the distance of each gradient method, with each solver, from the gradient of the
    ODE, with the weights `at` the `start` and the `end` of training. `own` is the trial's method.
    A gradient method is left out under solvers that it does not support.
    """

    methods: tuple[MethodName, ...] = ()
    steps: tuple[Steps, ...] = ()
    nfe: tuple[Steps, ...] = ()
    step_factors: tuple[Factor, ...] = ()
    tols: tuple[Positive, ...] = ()
    tol_factors: tuple[Factor, ...] = ()
    test_size: Samples | None = None
    batch_norm: tuple[Statistics, ...] = ("running",)
    batch_sizes: tuple[Samples, ...] = ()
    control: tuple[StepOf, ...] = ()
    gradients: tuple[MeasuredGradient, ...] = ()
    at: tuple[Moment, ...] = ("start", "end")
    when: dict[str, Any] = {}

    @model_validator(mode="after")
    def _gradients_stand_alone(self) -> Self:
        if "scipy_solver" in self.methods and set(self.gradients) - {"adjoint", OWN}:
            raise ValueError(
                "`scipy_solver` runs outside torch: it supports only the gradient `adjoint`"
            )
        of_tests = ("test_size", "batch_norm", "batch_sizes", "control")
        for name in of_tests if self.gradients else ("at",):
            if name in self.model_fields_set:
                raise ValueError(
                    "`gradients` are measured on a training batch: give them a block of their own, "
                    f"without `{name}`"
                    if self.gradients
                    else f"`{name}` says when `gradients` are measured, but there are none"
                )
        return self

    @model_validator(mode="after")
    def _every_method_gets_points(self) -> Self:
        if not self.methods and set(self.gradients) != {OWN}:
            raise ValueError("needs `methods`, unless `gradients` is `[own]`")
        for method in self.methods:
            kind = METHODS[method].kind
            if self.nfe and METHODS[method].kind != "fixed":
                raise ValueError(
                    f"`nfe` needs a fixed number of stages, but `{method}` has none: give it a "
                    "block of its own, with `tols` or `tol_factors`"
                )
            fixed, adaptive = (
                self.steps + self.nfe + self.step_factors,
                self.tols + self.tol_factors,
            )
            if not (adaptive if kind == "adaptive" else fixed):
                wanted = "`tols` or `tol_factors`" if kind == "adaptive" else "`steps` or `nfe`"
                raise ValueError(f"`{method}` has no evaluation points: give {wanted}")
        return self


class Resources(Settings):
    """The resources of one trial. `cpus` is also its number of threads.

    Up to `pack_seeds` trials that differ only in their seed are packed into one run with the
    resources of one trial: their steps are the same products over larger batches. `auto` packs
    where this is known to be faster. Networks that cannot be packed, such as those with an adaptive
    solver, are always trained individually.

    `gpus` may be a fraction, so that trials share a GPU. `auto` measures, before Ray starts, what
    the largest of them needs. With `--inline`, each trial has a whole GPU.
    """

    cpus: Count = 1
    gpus: NonNegative | Literal["auto"] = 0.0
    pack_seeds: Count | Literal["auto"] = 1

    @property
    def gpu_share(self) -> float:
        """`gpus` as a number; `auto` counts as a whole GPU until it has been measured."""
        return 1.0 if self.gpus == "auto" else self.gpus

    @model_validator(mode="after")
    def _one_gpu_at_most(self) -> Self:
        if self.gpu_share > 1:
            raise ValueError(
                "a trial trains on one GPU, so more than 1 would be idle. "
                "Give `gpus: 1`, or a fraction to share a GPU between trials"
            )
        return self


def _not_empty(values: Any) -> Any:
    if not values:
        raise ValueError("is empty, so there is no trial")
    return values


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(
            f"has {shown(', '.join(map(str, twice)))} more than once, which gives the same trial"
        )
    return values


class Range(Settings):
    """The distribution of a field's samples: one of these, bounds included."""

    uniform: tuple[Number, Number] | None = None
    log_uniform: tuple[Positive, Positive] | None = None
    integers: tuple[Integer, Integer] | None = None
    choice: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        given = {name: value for name, value in self if value is not None}
        if len(given) != 1:
            raise ValueError(f"needs one of {', '.join(f'`{n}`' for n in Range.model_fields)}")
        [(name, values)] = given.items()
        if name == "choice" and not values:
            raise ValueError("`choice` is empty")
        if name != "choice" and not values[0] < values[1]:
            raise ValueError(f"`{name}: {list(values)}`: the smaller number must come first")
        return self


class Stop(NamedSettings):
    """Early stopping by ASHA (Li et al. 2020, "A system for massively parallel tuning").

    After `grace` epochs, and again each time that the number of epochs has grown by the factor
    `reduction`, the best 1/`reduction` of the trials that have reached this point continue, by
    their headline metric on validation data. The choice depends on the order of their arrival.
    """

    name: Literal["asha"] = "asha"
    grace: Count = 1
    reduction: Annotated[int, Field(ge=2), A_NUMBER] = 3


class Search(Settings):
    """Random samples of a `space`, path -> range, for sweeps that tune rather than compare.

    Every configuration of the grid is combined with each of `samples` samples. Adding samples or
    fields does not change the earlier samples.
    """

    samples: Count
    space: Annotated[dict[str, Range], AfterValidator(_not_empty)]
    seed: Size = 0
    stop: Stop | None = None


class Claim(Settings):
    """A statement that a paper `says` about a sweep's configurations, as a relation to check.

    The `source` names the paper and its table or figure. A claim without a source is an expectation
    of ours, which reports list separately.

    The claim is about the `metric` (a column of `results.csv`, by default the headline) of the
    configurations `of`. It is `above` or `below` a number, or the metric of the otherwise identical
    configuration with the settings named there, by at least `by` (a negative `by` allows it to fall
    short by that much). Or it is `near` a number, `within` a distance. Accuracies are shares of 1.
    """

    says: str
    of: dict[str, Any] = {}
    metric: str | None = None
    above: Number | dict[str, Any] | None = None
    below: Number | dict[str, Any] | None = None
    by: Number = 0.0
    near: Number | None = None
    within: Positive | None = None
    source: str = ""

    @model_validator(mode="after")
    def _is_one_relation(self) -> Self:
        given = [name for name in ("above", "below", "near") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs one of `above`, `below` and `near`")
        if (self.near is None) != (self.within is None):
            raise ValueError("`near` and `within`, the largest distance, need each other")
        if self.metric is not None and self.metric not in MEASURES:
            raise ValueError(f"`metric`: {unknown(self.metric, 'metric', MEASURES)}")
        if self.by and self.near is not None:
            raise ValueError("`by` needs `above` or `below`")
        return self

    @property
    def other(self) -> float | dict[str, Any]:
        """The number or the cells that it compares with."""
        return next(x for x in (self.above, self.below, self.near) if x is not None)

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The claim's partial cells, by the name of their field."""
        other = "below" if self.above is None else "above"
        return {"of": self.of} | ({other: self.other} if isinstance(self.other, dict) else {})


WRITTEN_FIELD = "made"
"""The field that nodebench writes, not users."""


class Made(Settings):
    """How a sweep was made from its file; nodebench writes this into a report's `sweep.yaml`.

    `size` is its size. For a smaller size, `instead` has the values of the full size that it
    replaces. `changed` lists what `--set` changed, and `has_other_cells` says whether this changed
    the configurations.
    """

    size: SizeName = "full"
    instead: dict[str, Any] = {}
    changed: tuple[str, ...] = ()
    has_other_cells: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_report(cls, tree: Any) -> Any:
        """Converts `small: true`, which older reports have."""
        if isinstance(tree, dict) and isinstance(tree.get("small"), bool):
            is_small = tree["small"]
            tree = {key: value for key, value in tree.items() if key != "small"}
            return {"size": "small", **tree} if is_small else tree
        return tree


def full_name(name: str) -> str:
    """The name of a sweep without its smaller size: `spiral` for `spiral-small`."""
    for size in SMALLER:
        name = name.removesuffix(f"-{size}")
    return name


def _is_file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"`{name}` names folders, so it may have only letters, digits, `-` and `_`, at most 64 "
            "of them, and must start with a letter or digit"
        )
    return name


class SweepFile(Settings):
    """A sweep file as it is written; `sweep.load` expands it to trials.

    A report compares each configuration with its baseline: the one with the settings of `baseline`
    and otherwise identical. It also checks `claims`. A trained model may lose up to `margin` of the
    headline metric (accuracy as a share of 1) under a finer solver and still count as an ODE. A
    checkpoint is written at least every `checkpoint_minutes`, also inside an epoch. `small` and
    `medium` are the values that `--size` replaces, path -> value: a form that takes minutes, and
    one close to the study. `exclude` leaves out every combination of the grid that has all settings
    of an entry, path -> value; an invalid combination is compared without defaults.
    """

    name: Annotated[str, AfterValidator(_is_file_name)]
    about: str = ""
    include: str | None = None
    base: dict[str, Any] = {}
    grid: Annotated[tuple[dict[str, Any], ...], AfterValidator(_not_empty)] = ({},)
    seeds: Annotated[tuple[Size, ...], AfterValidator(_not_empty), AfterValidator(_distinct)] = (0,)
    exclude: tuple[dict[str, Any], ...] = ()
    search: Search | None = None
    evaluate: tuple[Evaluate, ...] = ()
    baseline: dict[str, Any] = {}
    claims: tuple[Claim, ...] = ()
    resources: Resources = Resources()
    limits: Limits = Limits()
    margin: NonNegative = 0.01
    checkpoint_minutes: Positive = 5.0
    small: dict[str, Any] = {}
    medium: dict[str, Any] = {}
    made: Made = Made()


MEASURES = (*RESULT_NUMBERS, *(f"regularizer_{name}" for name in REGULARIZER_TERMS))
"""The columns of `results.csv` that a claim may be about."""
