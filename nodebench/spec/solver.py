"""How an ODE is solved."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from nodebench.spec.settings import Incomplete, NamedSettings, Settings
from nodebench.spec.vocabulary import (
    A_NUMBER,
    METHODS,
    SCIPY_METHODS,
    BelowOne,
    ControllerName,
    Count,
    Flag,
    Method,
    MethodName,
    NonNegative,
    Positive,
    ScipyMethod,
    Stepping,
    Steps,
)

NO_END = 1e18
"""A number of steps that stands for all larger numbers, even infinity."""

REVERSIBLE = ("alf", "reversible_heun")
ADAPTABLE = ("euler", "midpoint", "fehlberg2", "dopri5")


class Control(Settings):
    """How an embedded Runge-Kutta method chooses its steps: per `batch`, or per `sample`.

    With `sample`, each sample has its own step size, error and rejections, and is done when it has
    reached the end, whatever the others need (Lienen, Günnemann 2022). The step size is multiplied
    by a factor that the `controller` computes from the error, at least `min_factor` and at most
    `max_factor`; the defaults are torchdiffeq's.
    """

    step: Literal["batch", "sample"] = "batch"
    controller: ControllerName = "i"
    safety: Annotated[float, Field(gt=0, le=1), A_NUMBER] = 0.9
    min_factor: Annotated[float, Field(gt=0, lt=1), A_NUMBER] = 0.2
    max_factor: Annotated[float, Field(gt=1, le=100), A_NUMBER] = 10.0


class Adapt(Settings):
    """How a solver is adapted during training (Ott et al. 2021).

    Every `every` iterations, the accuracy on the current batch is compared with that under a finer
    solver. A difference above `threshold` makes the solver finer, for a fixed method up to
    `max_steps` steps.
    """

    threshold: BelowOne = 0.1
    every: Count = 50
    max_steps: Steps | None = None


class Solver(NamedSettings):
    """How an ODE is solved.

    A fixed method takes `steps`, or `step_size` h: ceil((t1 - t0)/h) steps, the last one shorter.
    An adaptive one takes `tol`, or `rtol` and `atol`. With several output times, a fixed method
    takes its steps from each time to the next. `coupling` λ makes a fixed Runge-Kutta method
    reversible (McCallum, Foster 2024), and `damping` η is a setting of `alf`. With `adapt`, steps
    or tolerance are only the start and may be left out.

    An adaptive method's steps end at every output time, or with `dense_output` only at the last:
    the other states are interpolated, with fewer evaluations and, for some methods, less accuracy.
    """

    named_by: ClassVar[str] = "method"

    method: MethodName = "dopri5"
    steps: Steps | None = None
    step_size: Positive | None = None
    tol: Positive | None = None
    rtol: Positive | None = None
    atol: NonNegative | None = None
    scipy: ScipyMethod | None = None
    dense_output: Flag | None = None
    control: Control | None = None
    adapt: Adapt | None = None
    damping: Annotated[float, Field(gt=0.5, le=1), A_NUMBER] | None = None
    coupling: Annotated[float, Field(gt=0, le=1), A_NUMBER] | None = None

    @property
    def facts(self) -> Method:
        """The method's order, stages and kind."""
        return METHODS[self.method]

    @property
    def stages(self) -> int | None:
        """Evaluations per step; a coupled method needs twice as many."""
        per_step = self.facts.stages
        return per_step if per_step is None or self.coupling is None else 2 * per_step

    @property
    def is_reversible(self) -> bool:
        """Whether its steps can be reversed exactly."""
        return self.method in REVERSIBLE or self.coupling is not None

    @property
    def stepping(self) -> Stepping:
        """Who takes its steps, and what decides their sizes."""
        return "dense_output" if self.dense_output else self.facts.stepping

    @property
    def has_stepper(self) -> bool:
        """Whether nodebench takes its steps, and so can repeat them one by one."""
        return self.stepping in ("fixed", "embedded")

    @property
    def order(self) -> int | None:
        """The method's order; None if it varies from step to step."""
        return self.facts.order if self.scipy is None else SCIPY_METHODS[self.scipy]

    @property
    def tolerances(self) -> tuple[float, float]:
        """(rtol, atol)."""
        if self.tol is not None:
            return self.tol, self.tol
        assert self.rtol is not None and self.atol is not None
        return self.rtol, self.atol

    @property
    def step_control(self) -> Control:
        """The `control` of an embedded method, or its default."""
        return self.control or Control()

    @property
    def by_sample(self) -> bool:
        """Whether each sample has its own steps."""
        return self.control is not None and self.control.step == "sample"

    @property
    def by_batch(self) -> Solver:
        """The same with one step for all samples, as solves with sums over samples need it."""
        control = self.control and self.control.model_copy(update={"step": "batch"})
        return self.model_copy(update={"control": control})

    def step_count(self, span: float) -> int:
        """Steps that a fixed-grid method takes over a time interval of length `span`."""
        if self.steps is not None:
            return self.steps
        assert self.step_size is not None
        return max(1, math.ceil(min(span / self.step_size, NO_END) - 1e-9))

    @model_validator(mode="after")
    def _settle_method(self) -> Self:
        if self.method == "scipy_solver":
            self._complete(scipy=self.scipy or "RK45")
        elif self.scipy is not None:
            raise ValueError(f"`scipy` is a setting of `scipy_solver`, not of `{self.method}`")
        if self.facts.kind == "adaptive":
            self._refuse("steps", "step_size", instead="`tol`, or `rtol` and `atol`")
        else:
            if self.facts.kind == "fixed":
                self._refuse("tol", "rtol", "atol", instead="`steps` or `step_size`")
            both = self.steps is not None and self.step_size is not None
            neither = self.steps is None and self.step_size is None
            if both or (neither and self.adapt is None):
                kind = ValueError if both else Incomplete
                raise kind(f"`{self.method}` takes either `steps` or `step_size`")
        if self.facts.kind != "fixed":
            self._settle_tolerance()
        self._settle_control()
        if self.adapt is not None:
            self._settle_adaptation(self.adapt)
        if self.damping is not None and self.method != "alf":
            raise ValueError(f"`damping` is a setting of `alf`, not of `{self.method}`")
        if self.coupling is not None and (self.facts.kind != "fixed" or self.method in REVERSIBLE):
            raise ValueError(
                "`coupling` makes a Runge-Kutta method with fixed steps reversible, but "
                f"`{self.method}` is not one. Remove it, or use euler, midpoint, heun2, heun3, rk4 "
                "or rk4_38"
            )
        return self

    def _settle_control(self) -> None:
        """Settles what only embedded methods have: a `control`, or `dense_output`."""
        is_embedded = self.facts.stepping == "embedded"
        if self.control is not None and not is_embedded:
            raise ValueError(f"`control` is of methods such as `dopri5`, not of `{self.method}`")
        if not self.facts.in_torchdiffeq:
            self._complete(control=self.control or Control())
        if self.dense_output and (self.control or not is_embedded):
            why = "interpolates already" if self.scipy else f"is {self.facts.kind}"
            why = "has no interpolation with a `control` of its steps" if self.control else why
            raise ValueError(f"`dense_output` is for adaptive methods; `{self.method}` {why}")
        if self.dense_output is False:
            self._complete(dense_output=None)

    def _settle_adaptation(self, adapt: Adapt) -> None:
        if self.method not in ADAPTABLE:
            known = ", ".join(ADAPTABLE)
            raise ValueError(f"`adapt` supports {known}, not `{self.method}`")
        if self.facts.kind == "fixed":
            self._complete(adapt=adapt.model_copy(update={"max_steps": adapt.max_steps or 500}))
        elif adapt.max_steps is not None:
            raise ValueError(
                f"`adapt.max_steps` is for fixed methods; `{self.method}` is {self.facts.kind}"
            )
        elif self.tol is None:
            raise ValueError("`adapt` changes one tolerance: give `tol`, not `rtol` and `atol`")

    def _refuse(self, *names: str, instead: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise ValueError(
                f"`{self.method}` ({self.facts.kind}) takes {instead}, not `{given[0]}`. Remove "
                f"`{given[0]}`; if `base` has it for other solvers, set it to null here"
            )

    def _settle_tolerance(self) -> None:
        """Writes a tolerance in one way: `tol` if rtol = atol, otherwise both."""
        if self.tol is not None and (self.rtol is not None or self.atol is not None):
            raise ValueError("`tol` means rtol = atol: give either `tol`, or `rtol` and `atol`")
        if self.tol is None and (self.rtol is None) != (self.atol is None):
            raise Incomplete("give both `rtol` and `atol`, or `tol`, which sets both")
        if self.tol is None and self.rtol == self.atol:
            default = 1e-3 if self.adapt is None else 1e-6
            self._complete(tol=default if self.rtol is None else self.rtol, rtol=None, atol=None)
