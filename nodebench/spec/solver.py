"""How an ODE is solved, and how the gradient through it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nodebench.spec.settings import NamedSettings, Settings
from nodebench.spec.vocabulary import (
    A_NUMBER,
    METHODS,
    SCIPY_METHODS,
    BelowOne,
    Count,
    Flag,
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

REVERSIBLE = ("alf", "reversible_heun")
ADAPTABLE = ("euler", "midpoint", "fehlberg2", "dopri5")


class Adapt(Settings):
    """How a solver is adapted during training (Ott et al. 2021).

    Every `every` iterations, accuracies on the current batch are compared; those that differ by
    more than `threshold` make the solver finer, a fixed method up to `max_steps` steps.
    """

    threshold: BelowOne = 0.1
    every: Count = 50
    max_steps: Steps | None = None


class Solver(Settings):
    """How an ODE is solved.

    A fixed method takes `steps`, or `step_size` h: ceil((t1 - t0)/h) steps, the last one shorter.
    An adaptive one takes `tol`, or `rtol` and `atol`. With several output times, steps are laid
    from each to the next. `coupling` λ makes a fixed Runge-Kutta method reversible (McCallum,
    Foster 2024), and `damping` η is a setting of `alf`. With `adapt`, what is given is the start,
    and may be left out.

    An adaptive method's steps end at every output time, or with `dense_output` at the last alone:
    the states between are interpolated, for fewer evaluations and, by some methods, less accuracy.
    """

    method: MethodName = "dopri5"
    steps: Steps | None = None
    step_size: Positive | None = None
    tol: Positive | None = None
    rtol: Positive | None = None
    atol: NonNegative | None = None
    scipy: ScipyMethod | None = None
    dense_output: Flag | None = None
    adapt: Adapt | None = None
    damping: Annotated[float, Field(gt=0.5, le=1), A_NUMBER] | None = None
    coupling: Annotated[float, Field(gt=0, le=1), A_NUMBER] | None = None

    @property
    def facts(self) -> Method:
        """The method's order, stages and kind."""
        return METHODS[self.method]

    @property
    def stages(self) -> int | None:
        """Evaluations of a step; a coupled method takes two."""
        per_step = self.facts.stages
        return per_step if per_step is None or self.coupling is None else 2 * per_step

    @property
    def is_reversible(self) -> bool:
        """Whether its steps can be taken back exactly."""
        return self.method in REVERSIBLE or self.coupling is not None

    @property
    def has_steps(self) -> bool:
        """Whether its steps, once their size is known, are of this project."""
        return self.facts.has_stepper and not self.dense_output

    @property
    def order(self) -> int | None:
        """The method's order; None where it varies from step to step."""
        return self.facts.order if self.scipy is None else SCIPY_METHODS[self.scipy]

    @property
    def tolerances(self) -> tuple[float, float]:
        """(rtol, atol)."""
        if self.tol is not None:
            return self.tol, self.tol
        assert self.rtol is not None and self.atol is not None
        return self.rtol, self.atol

    @property
    def is_embedded(self) -> bool:
        """Whether it is one of torchdiffeq's methods, which take a norm and interpolate."""
        return self.facts.kind == "adaptive" and self.facts.has_stepper

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
        else:
            self._refuse("scipy", instead="no such field: it belongs to `scipy_solver`")
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
        if self.dense_output and not self.is_embedded:
            why = "interpolates already" if self.scipy else f"is {self.facts.kind}"
            raise ValueError(f"`dense_output` is of adaptive methods; `{self.method}` {why}")
        if self.dense_output is False:
            self._complete(dense_output=None)
        if self.adapt is not None:
            self._settle_adaptation(self.adapt)
        if self.damping is not None and self.method != "alf":
            raise ValueError(f"`damping` is a setting of `alf`, not of `{self.method}`")
        if self.coupling is not None and (self.facts.kind != "fixed" or self.method in REVERSIBLE):
            raise ValueError(
                f"`coupling` makes a Runge-Kutta method of fixed steps reversible; `{self.method}` "
                "is not one. Remove it, or take euler, midpoint, heun2, heun3, rk4 or rk4_38"
            )
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


OWNERS = {
    "solver": ("adjoint", "interpolated"),
    "norm": ("adjoint", "interpolated"),
    "segments": ("recompute",),
    "nodes": ("interpolated",),
    "update_batch_norm": ("adjoint", "recompute"),
}
"""A setting of gradients -> those that it belongs to."""

SOLVERS_OF: dict[str, tuple[Callable[[Solver], bool], str]] = {
    "aca": (
        lambda solver: solver.has_steps,
        "it takes the steps of a solve again; take another method, or the gradient `adjoint`",
    ),
    "interpolated": (
        lambda solver: solver.has_steps,
        "it takes steps of the solve to its nodes; take another method, or the gradient `adjoint`",
    ),
    "symplectic": (
        lambda solver: solver.has_steps and not solver.is_reversible,
        "it takes the stages of a Runge-Kutta method; take one, or the gradient `aca`",
    ),
    "reversible": (
        lambda solver: solver.is_reversible,
        "it runs a solve backwards; take `alf`, `reversible_heun`, or a fixed Runge-Kutta method "
        "with a `coupling`",
    ),
}
"""Which solvers a gradient takes, and what to do about another; those not named take all."""


class Gradient(NamedSettings):
    """How the gradient through an ODE block is taken.

    The adjoint's own `solver` is the forward one unless given; with the `seminorm` (Kidger et al.
    2021), its error control leaves out the parameters' gradients. `recompute` solves a block of
    fixed steps again in so many `segments`, one unless given: `auto` is the square root of its
    steps. `interpolated` keeps the state at so many `nodes`.

    `adjoint` and `recompute` evaluate f again in the backward pass. With `update_batch_norm`, these
    evaluations update the running statistics of batch norm inside the block, after those of the
    forward pass, as in the released code of S1 and S4 (`docs/studies.md`).
    """

    name: GradientName = "backprop"
    solver: Solver | None = None
    norm: Literal["default", "seminorm"] = "default"
    segments: Count | Literal["auto"] | None = None
    nodes: Annotated[int, Field(ge=2, le=1000), A_NUMBER] | None = None
    update_batch_norm: Flag | None = None

    @model_validator(mode="after")
    def _has_settings_of_its_own(self) -> Self:
        for setting, owners in OWNERS.items():
            if self.name not in owners and getattr(self, setting) not in (None, "default", False):
                known = " and ".join(f"`{owner}`" for owner in owners)
                raise ValueError(f"`{setting}` is a setting of {known}, not of `{self.name}`")
        if self.solver and self.solver.adapt:
            raise ValueError("the adjoint's own `solver` cannot `adapt`: leave out one of the two")
        if self.solver and self.solver.dense_output:
            raise ValueError("the adjoint's `solver` ends at every time: leave `dense_output` out")
        if self.segments == 1:
            self._complete(segments=None)
        if self.update_batch_norm is False:
            self._complete(update_batch_norm=None)
        if self.update_batch_norm and self.segments is not None:
            raise ValueError(
                "`segments` evaluate the last steps first, while `update_batch_norm` is of "
                "statistics in the order of time: leave out one of the two"
            )
        return self

    def require_use(self, solver: Solver) -> None:
        """Refuses settings that do nothing with this solver of the forward pass.

        Raises:
            ValueError: which says why.
        """
        fits, cure = SOLVERS_OF.get(self.name, (None, ""))
        if fits and not fits(solver):
            raise ValueError(f"the gradient `{self.name}` does not suit `{solver.method}`: {cure}")
        if self.segments is not None and solver.is_reversible:
            raise ValueError(
                f"`{solver.method}` carries more than its state from step to step, so `segments` "
                "cannot begin anew: leave them out, or take the gradient `aca` or `reversible`"
            )
        if self.segments is not None and solver.facts.kind != "fixed":
            raise ValueError(
                f"`segments` are of fixed steps, and `{solver.method}` is {solver.facts.kind}: "
                "leave them out, or take a fixed method"
            )
        if self.norm == "seminorm" and (self.solver or solver).method == "scipy_solver":
            raise ValueError("`scipy_solver` has a norm of its own: leave out `norm: seminorm`")

    def suits(self, solver: Solver) -> bool:
        """Whether it can be taken through a solve by this solver."""
        if solver.method == "scipy_solver" and self.name != "adjoint":
            return False
        try:
            self.require_use(solver)
        except ValueError:
            return False
        return True

    def suited_to(self, solver: Solver) -> Gradient:
        """The same without what has no effect with this solver of the forward pass."""
        backward = self.solver or solver
        norm = self.norm if backward.is_embedded else "default"
        own = None if self.solver == solver else self.solver
        segments = self.segments if solver.facts.kind == "fixed" else None
        return self.model_copy(update={"norm": norm, "solver": own, "segments": segments})
