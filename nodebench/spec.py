"""What a trial may be.

Every class is immutable, refuses fields that it does not know, and completes itself during
validation: shorthand is expanded and settings without effect become None, so that two ways of
writing one trial are equal afterwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pydantic import model_validator

from nodebench.data_settings import DATASETS, CustomData, Dataset
from nodebench.model_settings import MODELS, CustomModel, Model
from nodebench.part import Named, Part, choice, from_name
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
    Size,
)

if TYPE_CHECKING:
    DataSettings: TypeAlias = Dataset
    ModelSettings: TypeAlias = Model
else:
    DataSettings = choice("data set", DATASETS, CustomData)
    ModelSettings = choice("model", MODELS, CustomModel)


ADAPTABLE = ("euler", "midpoint", "fehlberg2", "dopri5")


class Adapt(Part):
    """How a solver is adapted during training (Ott et al. 2021).

    Every `every` iterations, accuracies on the current batch are compared; those that differ by
    more than `threshold` make the solver finer, a fixed method up to `max_steps` steps.
    """

    threshold: BelowOne = 0.1
    every: Count = 50
    max_steps: Count | None = None


class Solver(Part):
    """How an ODE is solved.

    A fixed method takes `steps`, or `step_size` h: ceil((t1 - t0)/h) steps, the last one shorter.
    An adaptive one takes `tol`, or `rtol` and `atol`. With several output times, steps are laid
    from each to the next. With `adapt`, what is given is the start, and may be left out.
    """

    method: MethodName = "dopri5"
    steps: Count | None = None
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
        return max(1, math.ceil(span / self.step_size - 1e-9))

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
            raise ValueError(f"`adapt` is defined for {', '.join(ADAPTABLE)} only")
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


class Optimizer(Part):
    """What every optimiser has."""

    name: str
    lr: Positive
    weight_decay: NonNegative


class Sgd(Optimizer):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"]
    lr: Positive = 0.1
    momentum: NonNegative = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a `momentum` above 0")
        return self


class Adam(Optimizer):
    """Adam, weight decay added to the gradient (torch.optim.Adam)."""

    name: Literal["adam"]
    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0


class AdamW(Optimizer):
    """Adam, weight decay decoupled from the gradient (torch.optim.AdamW)."""

    name: Literal["adamw"]
    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01


class RmsProp(Optimizer):
    """RMSprop (torch.optim.RMSprop)."""

    name: Literal["rmsprop"]
    lr: Positive = 1e-2
    alpha: NonNegative = 0.99
    momentum: NonNegative = 0.0
    weight_decay: NonNegative = 0.0


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RmsProp,
}


class Schedule(Part):
    """What every schedule has: a linear `warmup` from 0, in the unit of the training's length."""

    name: str
    warmup: NonNegative = 0.0


class Constant(Schedule):
    """The learning rate stays."""

    name: Literal["constant"]


class Milestones(Schedule):
    """The learning rate is multiplied by `gamma` at each point of `at`."""

    name: Literal["milestones"]
    at: tuple[Positive, ...]
    gamma: Positive = 0.1


class Cosine(Schedule):
    """The learning rate falls along half a cosine to `final` times its start."""

    name: Literal["cosine"]
    final: NonNegative = 0.0


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "milestones": Milestones,
    "cosine": Cosine,
}

if TYPE_CHECKING:
    OptimizerSettings: TypeAlias = Optimizer
    ScheduleSettings: TypeAlias = Schedule
else:
    OptimizerSettings = choice("optimizer", OPTIMIZERS)
    ScheduleSettings = choice("schedule", SCHEDULES)


class Train(Part):
    """How long and with what a model is trained.

    The length is `epochs` or `iterations` (batches); a schedule counts in the same unit.
    `test_every` epochs, and at the end, the test set is evaluated. `batch_size` counts samples;
    of a trajectory, it is the most points that a window may have. `reset_optimizer` forgets the
    momentum at the start of every epoch, as released code that builds its optimiser anew does.
    """

    epochs: Count | None = None
    iterations: Count | None = None
    batch_size: Count = 128
    drop_last: bool = False
    reset_optimizer: bool = False
    optimizer: OptimizerSettings = Sgd(name="sgd")
    schedule: ScheduleSettings = Constant(name="constant")
    test_every: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: from_name(v) if k in ("optimizer", "schedule") else v for k, v in value.items()}

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give either `epochs` or `iterations`, not both")
        if self.epochs is None and self.iterations is None:
            self._complete(epochs=10)
        return self


class TrialSpec(Part):
    """One training, fully resolved. Its fields, and nothing else, decide the result."""

    data: DataSettings
    model: ModelSettings
    solver: Solver | None = Solver()
    gradient: Gradient | None = Gradient()
    train: Train = Train()
    seed: Size = 0

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: from_name(v) if k in ("data", "model") else v for k, v in value.items()}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        reads, kind = self.model.reads, self.data.kind
        if reads and kind and kind not in reads:
            raise ValueError(
                f"`{self.model.name}` reads {' or '.join(reads)}, and `{self.data.name}` is made "
                f"of {kind}"
            )
        if not self.model.has_ode:
            self._complete(solver=None, gradient=None)
        elif self.solver is None or self.gradient is None:
            raise ValueError("a model with an ODE block needs a `solver` and a `gradient`")
        else:
            self._complete(gradient=self.gradient.beside(self.solver))
        if self.solver is None or self.gradient is None:
            return self
        if self.solver.adapt and self.data.metric != "accuracy":
            raise ValueError(f"`solver.adapt` compares accuracies, which `{self.data.name}` lacks")
        if self.solver.method == "scipy_solver" and self.gradient.name != "adjoint":
            raise ValueError(
                "`scipy_solver` runs outside of torch: only `gradient: adjoint` can train it"
            )
        return self
