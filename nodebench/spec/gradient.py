"""How the gradient through the solve of an ODE is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nodebench.spec.settings import NamedSettings
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import A_NUMBER, Count, Flag, GradientName

OWNERS = {
    "solver": ("adjoint", "interpolated"),
    "norm": ("adjoint", "interpolated"),
    "segments": ("recompute",),
    "nodes": ("interpolated",),
    "update_batch_norm": ("adjoint", "recompute"),
}
"""A setting of gradients -> the gradients that have it."""

SOLVERS_OF: dict[str, tuple[Callable[[Solver], bool], str]] = {
    "aca": (
        lambda solver: solver.has_stepper,
        "it repeats the steps of a solve; use another method, or the gradient `adjoint`",
    ),
    "interpolated": (
        lambda solver: solver.has_stepper and not solver.by_sample,
        "it needs steps that end at its nodes; use another method, one step per batch "
        "(`control.step: batch`), or the gradient `adjoint`",
    ),
    "symplectic": (
        lambda solver: solver.has_stepper and not (solver.is_reversible or solver.by_sample),
        "it needs the stages of a Runge-Kutta method, each at one time; use one with one step per "
        "batch, or the gradient `aca`",
    ),
    "reversible": (
        lambda solver: solver.is_reversible,
        "it runs a solve backwards; use `alf`, `reversible_heun`, or a fixed Runge-Kutta method "
        "with a `coupling`",
    ),
}
"""Gradient -> whether it supports a solver, and the remedy if not. Others support all in torch."""


class Gradient(NamedSettings):
    """How the gradient through an ODE block is computed.

    `solver` is the adjoint's solver, by default the forward one. With the `seminorm` (Kidger et al.
    2021), its error control ignores the parameters' gradients. `recompute` repeats a solve with
    fixed steps in this number of `segments`, by default one; `auto` is the square root of the
    steps. `interpolated` stores the state at this number of `nodes`.

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
            raise ValueError("the adjoint's `solver` cannot `adapt`: leave out one of the two")
        if self.solver and self.solver.dense_output:
            raise ValueError("the adjoint's `solver` stops at every time: leave out `dense_output`")
        if self.solver and self.solver.by_sample:
            raise ValueError(
                "the adjoint's `solver` sums over samples: use one step per batch there"
            )
        if self.segments == 1:
            self._complete(segments=None)
        if self.update_batch_norm is False:
            self._complete(update_batch_norm=None)
        if self.update_batch_norm and self.segments is not None:
            raise ValueError(
                "`segments` evaluate the last steps first, but `update_batch_norm` needs the "
                "order of time: leave out one of the two"
            )
        return self

    def misfit(self, solver: Solver) -> str:
        """Why the method or its settings do not work with this forward solver; empty if they do."""
        if solver.method == "scipy_solver" and self.name != "adjoint":
            return "`scipy_solver` runs outside torch, so its gradient can only be `adjoint`"
        fits, cure = SOLVERS_OF.get(self.name, (None, ""))
        if fits and not fits(solver):
            how = "`, `control.step: sample" if solver.by_sample else ""
            return f"the gradient `{self.name}` does not suit `{solver.method}{how}`: {cure}"
        if self.segments is not None and solver.is_reversible:
            return (
                f"`{solver.method}` carries more than its state from step to step, so `segments` "
                "cannot restart it: leave them out, or use the gradient `aca` or `reversible`"
            )
        if self.segments is not None and solver.facts.kind != "fixed":
            return (
                f"`segments` need fixed steps, but `{solver.method}` is {solver.facts.kind}: "
                "leave them out, or use a fixed method"
            )
        if self.norm == "seminorm" and (self.solver or solver).method == "scipy_solver":
            return "`scipy_solver` has its own norm: leave out `norm: seminorm`"
        return ""

    def backward(self, solver: Solver) -> Solver:
        """The solver of the backward pass, for gradients that solve an ODE there."""
        return self.solver or solver.by_batch

    def suited_to(self, solver: Solver) -> Gradient:
        """The same without settings that have no effect with this solver of the forward pass."""
        backward = self.backward(solver)
        has_norm = backward.facts.stepping == "embedded"  # others do not measure errors by a norm
        norm = self.norm if has_norm else "default"
        own = None if self.solver == solver.by_batch else self.solver
        segments = self.segments if solver.facts.kind == "fixed" else None
        return self.model_copy(update={"norm": norm, "solver": own, "segments": segments})
