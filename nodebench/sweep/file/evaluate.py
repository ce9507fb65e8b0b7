"""The solvers and gradients under which trained models are evaluated."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import (
    METHODS,
    OWN,
    Factor,
    MeasuredGradient,
    MethodName,
    Positive,
    Samples,
    Steps,
)

Statistics = Literal["running", "batch"]
Moment = Literal["start", "end"]
StepOf = Literal["batch", "sample"]


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
