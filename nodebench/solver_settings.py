"""How an ODE is solved, and how the gradient through it is taken."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import model_validator

from nodebench.part import Named, Part
from nodebench.vocabulary import (
    METHODS,
    BelowOne,
    Count,
    GradientName,
    Method,
    MethodName,
    NonNegative,
    Positive,
    ScipyMethod,
    Steps,
)

NO_END = 1e18
"""Steps that stand for all larger numbers, which may be infinite."""

ADAPTABLE = ("euler", "midpoint", "fehlberg2", "dopri5")


class Adapt(Part):
    """How a solver is adapted during training (Ott et al. 2021).

    Every `every` iterations, accuracies on the current batch are compared; those that differ by
    more than `threshold` make the solver finer, a fixed method up to `max_steps` steps.
    """

    threshold: BelowOne = 0.1
    every: Count = 50
    max_steps: Steps | None = None


class Solver(Part):
    """How an ODE is solved.

    A fixed method takes `steps`, or `step_size` h: ceil((t1 - t0)/h) steps, the last one shorter.
    An adaptive one takes `tol`, or `rtol` and `atol`. With several output times, steps are laid
    from each to the next. With `adapt`, what is given is the start, and may be left out.
    """

    method: MethodName = "dopri5"
    steps: Steps | None = None
    step_size: Positive | None = None
    tol: Positive | None = None
    rtol: Positive | None = None
    atol: NonNegative | None = None
    scipy: ScipyMethod | None = None
    adapt: Adapt | None = None

    @property
    def facts(self) -> Method:
        """The method's order, stages and kind."""
        return METHODS[self.method]

    @property
    def tolerances(self) -> tuple[float, float]:
        """(rtol, atol)."""
        if self.tol is not None:
            return self.tol, self.tol
        assert self.rtol is not None and self.atol is not None
        return self.rtol, self.atol

    def step_count(self, span: float) -> int:
        """Steps that a fixed-grid method takes over a time interval of length `span`."""
        if self.steps is not None:
            return self.steps
        assert self.step_size is not None
        return max(1, math.ceil(min(span / self.step_size, NO_END) - 1e-9))

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if self.facts.kind == "adaptive":
            self._refuse("steps", "step_size", instead="`tol`, or `rtol` and `atol`")
        else:
            if self.facts.kind == "fixed":
                self._refuse("tol", "rtol", "atol", instead="`steps` or `step_size`")
            both = self.steps is not None and self.step_size is not None
            neither = self.steps is None and self.step_size is None
            if both or (neither and self.adapt is None):
                raise ValueError(f"`{self.method}` takes either `steps` or `step_size`")
        if self.facts.kind != "fixed":
            self._settle_tolerance()
        if self.adapt is not None:
            self._settle_adaptation(self.adapt)
        if self.method == "scipy_solver":
            self._complete(scipy=self.scipy or "RK45")
        else:
            self._refuse("scipy", instead="no such field: it belongs to `scipy_solver`")
        return self

    def _settle_adaptation(self, adapt: Adapt) -> None:
        if self.method not in ADAPTABLE:
            known = ", ".join(ADAPTABLE)
            raise ValueError(f"`adapt` is defined for {known}, not for `{self.method}`")
        if self.facts.kind == "fixed":
            self._complete(adapt=adapt.model_copy(update={"max_steps": adapt.max_steps or 500}))
        elif adapt.max_steps is not None:
            raise ValueError(
                f"`adapt.max_steps` is for fixed methods, which `{self.method}` is not"
            )
        elif self.tol is None:
            raise ValueError("`adapt` changes one tolerance: give `tol`, not `rtol` and `atol`")

    def _refuse(self, *names: str, instead: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise ValueError(
                f"`{self.method}` ({self.facts.kind}) takes {instead}, not `{given[0]}`. "
                f"Remove it, set it to null, or give the whole `solver` on this axis"
            )

    def _settle_tolerance(self) -> None:
        """Writes a tolerance in one way: `tol` where rtol = atol, else both."""
        if self.tol is not None and (self.rtol is not None or self.atol is not None):
            raise ValueError("`tol` means rtol = atol: give it alone, or `rtol` and `atol`")
        if self.tol is None and (self.rtol is None) != (self.atol is None):
            raise ValueError("`rtol` and `atol` go together; `tol` sets both")
        if self.tol is None and self.rtol == self.atol:
            default = 1e-3 if self.adapt is None else 1e-6
            self._complete(tol=default if self.rtol is None else self.rtol, rtol=None, atol=None)


class Gradient(Named):
    """How the gradient through an ODE block is taken.

    The adjoint's own `solver` is the forward one unless given; with the `seminorm` (Kidger et al.
    2021), its error control leaves out the parameters' gradients.
    """

    name: GradientName = "backprop"
    solver: Solver | None = None
    norm: Literal["default", "seminorm"] = "default"

    @model_validator(mode="after")
    def _only_the_adjoint_solves(self) -> Self:
        if self.name != "adjoint" and (self.solver or self.norm != "default"):
            raise ValueError(f"`solver` and `norm` are settings of `adjoint`, not of `{self.name}`")
        if self.solver and self.solver.adapt:
            raise ValueError("the adjoint's own `solver` cannot `adapt`: leave out one of the two")
        return self

    def beside(self, solver: Solver) -> Gradient:
        """The same without what has no effect beside this solver of the forward pass."""
        backward = self.solver or solver
        norm = self.norm if backward.facts.kind == "adaptive" else "default"
        own = None if self.solver == solver else self.solver
        return self.model_copy(update={"norm": norm, "solver": own})
