"""What a sweep file may say around its trials: axes, seeds, evaluations, resources, limits."""

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
    GRADIENT_NUMBERS,
    METHODS,
    OWN,
    VERDICT_NUMBERS,
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
SizeName = Literal["small", "medium", "full"]
SMALLER: tuple[SizeName, ...] = ("small", "medium")
"""The sizes that a file has where it has a block of that name; it is itself the full one."""


class Evaluate(Settings):
    """Solvers under which every trained model is evaluated again, on the test set.

    Each of `methods` is taken with those of the lists that suit it: `steps`, evaluation budgets
    `nfe` and multiples `step_factors` of the training step size for fixed methods, `tols` and
    multiples `tol_factors` of the training tolerance for adaptive ones. `when` restricts the
    block to the cells that agree with it. `test_size` takes a balanced part of the test set.

    `batch_norm` lists the statistics of batch norm inside ODE blocks: the `running` averages of
    training, or those of each test `batch`. A block with `gradients` measures, instead of
    accuracies, the gradients of these methods with these solvers: how far they are from that of the
    ODE itself, with the weights `at` the `start` and the `end` of training. `own` is each trial's.
    """

    methods: tuple[MethodName, ...] = ()
    steps: tuple[Steps, ...] = ()
    nfe: tuple[Steps, ...] = ()
    step_factors: tuple[Factor, ...] = ()
    tols: tuple[Positive, ...] = ()
    tol_factors: tuple[Factor, ...] = ()
    test_size: Samples | None = None
    batch_norm: tuple[Statistics, ...] = ("running",)
    gradients: tuple[MeasuredGradient, ...] = ()
    at: tuple[Moment, ...] = ("start", "end")
    when: dict[str, Any] = {}

    @model_validator(mode="after")
    def _gradients_stand_alone(self) -> Self:
        if "scipy_solver" in self.methods and set(self.gradients) - {"adjoint", OWN}:
            raise ValueError(
                "`scipy_solver` runs outside of torch: it has an `adjoint` gradient only"
            )
        for name in ("test_size", "batch_norm") if self.gradients else ("at",):
            if name in self.model_fields_set:
                raise ValueError(
                    "`gradients` are measured on a training batch: they stand in a block of their "
                    f"own, without `{name}`"
                    if self.gradients
                    else f"`{name}` says when `gradients` are measured, of which there are none"
                )
        return self

    @model_validator(mode="after")
    def _every_method_gets_points(self) -> Self:
        if not self.methods and set(self.gradients) != {OWN}:
            raise ValueError("needs `methods`, unless its `gradients` are `[own]`")
        for method in self.methods:
            kind = METHODS[method].kind
            if self.nfe and METHODS[method].kind != "fixed":
                raise ValueError(
                    f"`nfe` needs a fixed number of stages, which `{method}` has not: give it a "
                    "block of its own, with `tols` or `tol_factors`"
                )
            fixed, adaptive = (
                self.steps + self.nfe + self.step_factors,
                self.tols + self.tol_factors,
            )
            if not (adaptive if kind == "adaptive" else fixed):
                wanted = "`tols` or `tol_factors`" if kind == "adaptive" else "`steps` or `nfe`"
                raise ValueError(f"`{method}` gets no point to be evaluated at: give {wanted}")
        return self


class Resources(Settings):
    """What one trial gets. `cpus` is also its number of threads.

    Up to `pack_seeds` trials that differ in their seed alone are trained together as one, with
    the resources of one: their steps are the same products over larger batches. `auto` does so
    where it is known to be faster. Networks that cannot be packed, such as those with an adaptive
    solver, are trained one by one whatever is asked.

    `gpus` may be a fraction, so that trials share a GPU; with `auto`, it is what the largest of
    them needs, measured before Ray starts. `--inline` gives each trial a whole one.
    """

    cpus: Count = 1
    gpus: NonNegative | Literal["auto"] = 0.0
    pack_seeds: Count | Literal["auto"] = 1

    @property
    def gpu_share(self) -> float:
        """`gpus`, of `auto` until it has been measured a whole one."""
        return 1.0 if self.gpus == "auto" else self.gpus

    @model_validator(mode="after")
    def _one_gpu_at_most(self) -> Self:
        if self.gpu_share > 1:
            raise ValueError(
                "a trial trains on one GPU: more than 1 would stand idle. "
                "Give `gpus: 1`, or a fraction so that trials share one"
            )
        return self


def _not_empty(values: Any) -> Any:
    if not values:
        raise ValueError("is empty, which leaves no trial")
    return values


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(
            f"has {shown(', '.join(map(str, twice)))} more than once, which is the same trial"
        )
    return values


class Range(Settings):
    """Where samples of a field are drawn from: one of these, bounds included."""

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
            raise ValueError(f"`{name}: {list(values)}`: the smaller comes first")
        return self


class Stop(NamedSettings):
    """Early stopping by ASHA (Li et al. 2020, "A system for massively parallel tuning").

    After `grace` epochs, and each time that `reduction` times as many have passed, only the best
    1/`reduction` of the trials that came so far go on, by their headline metric on validation
    data. Which these are depends on the order in which trials come so far.
    """

    name: Literal["asha"] = "asha"
    grace: Count = 1
    reduction: Annotated[int, Field(ge=2), A_NUMBER] = 3


class Search(Settings):
    """Random samples of a `space`, path -> range, for sweeps that tune rather than compare.

    Every cell of the grid is tried with each of `samples` draws. More samples, or more fields,
    leave the earlier draws as they were.
    """

    samples: Count
    space: Annotated[dict[str, Range], AfterValidator(_not_empty)]
    seed: Size = 0
    stop: Stop | None = None


class Claim(Settings):
    """What a paper `says` of a sweep's cells, as a relation that can be checked.

    The `source` names the paper and its table or figure. Without one it is an expectation of ours,
    which reports keep apart from what papers claim.

    The `metric` (a column of `results.csv`, by default the headline) of the cells `of` is `above`
    or `below` a number or that of the cells that are as these but for what is named there, `by` so
    much at least (of a negative number: less by no more than that); or it is `near` a number,
    `within` so much. Accuracies are shares of 1.
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
            raise ValueError("`near` goes with `within`, which says how near")
        if self.metric is not None and self.metric not in MEASURES:
            raise ValueError(f"`metric`: {unknown(self.metric, 'metric', MEASURES)}")
        if self.by and self.near is not None:
            raise ValueError("`by` goes with `above` or `below`")
        return self

    @property
    def other(self) -> float | dict[str, Any]:
        """The number or the cells that it compares with."""
        return next(x for x in (self.above, self.below, self.near) if x is not None)

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The partial cells in it, by their field's name."""
        other = "below" if self.above is None else "above"
        return {"of": self.of} | ({other: self.other} if isinstance(self.other, dict) else {})


class Made(Settings):
    """How a sweep came of its file; nodebench writes this into a report's `sweep.yaml`.

    Its `size`; of another than the full one, what this has `instead` of a trial's fields; what was
    `changed` by `--set`, and whether it `has_other_cells` than its file for that.
    """

    size: SizeName = "full"
    instead: dict[str, Any] = {}
    changed: tuple[str, ...] = ()
    has_other_cells: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_report(cls, tree: Any) -> Any:
        """Reports once said `small: true`."""
        if isinstance(tree, dict) and isinstance(tree.get("small"), bool):
            is_small = tree["small"]
            tree = {key: value for key, value in tree.items() if key != "small"}
            return {"size": "small", **tree} if is_small else tree
        return tree


def full_name(name: str) -> str:
    """The name of the file of which a sweep is a smaller size: `spiral` of `spiral-small`."""
    for size in SMALLER:
        name = name.removesuffix(f"-{size}")
    return name


def _is_file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"`{name}` names folders, so it has letters, digits, `-` and `_` only, at most 64 of "
            "them, and starts with a letter or digit"
        )
    return name


class SweepFile(Settings):
    """A sweep file, as it is written; `sweep.load` expands it to trials.

    A report compares each cell with the one that agrees with the `baseline` and is else the same,
    and checks `claims`, what a paper says of them. By `margin` of the headline metric (an accuracy
    as a share of 1), a trained model may change under a finer solver and still be called an ODE. A
    checkpoint is written every `checkpoint_minutes`, also inside an epoch. `small` and `medium` are
    what `--size` replaces, path -> value: a form for minutes, and one that is nearly the study.
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


MEASURES: tuple[str, ...] = (
    *(f"{on}_{what}" for what in ("accuracy", "error", "loss") for on in ("test", "train", "val")),
    "best_test_accuracy", "best_test_error", "parameters", "timed_epoch_s", "peak_memory_bytes",
    "nfe_forward", "nfe_forward_mean", "nfe_backward", "step_size", "tol",
    "step_memory_bytes", *VERDICT_NUMBERS, *GRADIENT_NUMBERS,
    "nfe_regularization", *(f"regularizer_{name}" for name in REGULARIZER_TERMS),
)  # fmt: skip
"""What a claim may be about: columns of `results.csv`."""
