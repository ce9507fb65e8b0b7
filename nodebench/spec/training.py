"""How a model is trained: optimizers, schedules, regularizers, and the length of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from nodebench.spec.settings import Settings, choice, from_name, parts_in
from nodebench.spec.vocabulary import (
    A_NUMBER,
    BelowOne,
    Count,
    Epochs,
    Flag,
    Iterations,
    NonNegative,
    Positive,
    PrecisionName,
    Samples,
)


class Optimizer(Settings):
    """What every optimiser has."""

    name: str
    lr: Positive
    weight_decay: NonNegative


class Sgd(Optimizer):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"]
    lr: Positive = 0.1
    momentum: NonNegative = 0.9
    nesterov: Flag = False
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


class Schedule(Settings):
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


class Term(Settings):
    """A term of the loss: `weight` times an integral along every solve, the mean over a batch.

    A weight of 0 only measures the integral.
    """

    weight: NonNegative

    @model_validator(mode="before")
    @classmethod
    def _from_weight(cls, value: Any) -> Any:
        return value if isinstance(value, dict | Settings) else {"weight": value}


class Kinetic(Term):
    """The kinetic energy, the integral of ‖f‖² (Finlay et al. 2020). A number is its weight."""


class Jacobian(Term):
    """The integral of ‖∂f/∂y‖² in the Frobenius norm (Finlay et al. 2020), by one random vector.

    The vector is drawn for each solve. Each evaluation of f takes one more. A number is its weight.
    """


class Taylor(Term):
    """The integral of the squared derivative of the solution of an `order` (Kelly et al. 2020).

    Each evaluation of f takes `order` - 1 more.
    """

    order: Annotated[int, Field(ge=2, le=6), A_NUMBER]

    @model_validator(mode="before")
    @classmethod
    def _has_an_order(cls, value: Any) -> Any:
        if not isinstance(value, dict | Settings):
            raise ValueError("`taylor` takes two numbers: give `{order: 2, weight: 0.01}`")
        return value


class Steer(Settings):
    """Solves of training end at a random time within `half_width` of their own (Ghosh et al. 2020).

    A number is its half width.
    """

    half_width: Positive

    @model_validator(mode="before")
    @classmethod
    def _from_half_width(cls, value: Any) -> Any:
        return value if isinstance(value, dict | Settings) else {"half_width": value}


class Regularize(Settings):
    """What makes the ODE easy to solve: terms of the training loss, and random ends of time.

    Each may be given alone or with others. Evaluation is free of them, evaluations of f that a term
    needs are counted apart (`nfe_regularization`), and the steps of an adaptive method follow the
    state's error alone. A list of regularizers, each with its `name`, is the same.
    """

    kinetic: Kinetic | None = None
    jacobian: Jacobian | None = None
    taylor: Taylor | None = None
    steer: Steer | None = None

    @property
    def parts(self) -> dict[str, Term | Steer]:
        """Those that are given, by name."""
        return {name: part for name, part in self if part is not None}

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        names = [part.get("name") if isinstance(part, dict) else part for part in value]
        if not all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in value):
            raise ValueError("each regularizer in a list is a mapping with a `name`")
        if len(set(names)) < len(names):
            raise ValueError("a regularizer stands once in a list")
        return {
            part["name"]: {key: inner for key, inner in part.items() if key != "name"}
            for part in value
        }


REGULARIZER_TERMS = tuple(
    name
    for name, field in Regularize.model_fields.items()
    if any(issubclass(part, Term) for part in parts_in(field).values())
)
"""The regularizers that add a term to the loss."""


class Train(Settings):
    """How long and with what a model is trained.

    The length is `epochs` or `iterations` (batches); a schedule counts in the same unit.
    `test_every` epochs, and at the end, the test set is evaluated; `iterations: 0` only does
    that, which is of use with `weights` from elsewhere. `batch_size` counts samples;
    of a trajectory, it is the most points that a window may have. `reset_optimizer` forgets the
    momentum at the start of every epoch, as released code that builds its optimiser anew does.
    With a `precision` below float32, parameters and ODE states are float32 all the same.
    """

    epochs: Epochs | None = None
    iterations: Iterations | None = None
    batch_size: Samples = 128
    drop_last: Flag = False
    reset_optimizer: Flag = False
    optimizer: OptimizerSettings = Sgd(name="sgd")
    schedule: ScheduleSettings = Constant(name="constant")
    regularize: Regularize | None = None
    precision: PrecisionName = "float32"
    test_every: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: from_name(v) if k in ("optimizer", "schedule") else v for k, v in value.items()}

    @property
    def can_continue(self) -> bool:
        """Whether a shorter training by this recipe is the beginning of this one.

        A cosine is not: its whole curve depends on the training's length. Nor are iterations,
        whose last epoch may be incomplete.
        """
        return self.epochs is not None and self.schedule.name != "cosine"

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if self.regularize is not None and not self.regularize.parts:
            self._complete(regularize=None)
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give either `epochs` or `iterations`, not both")
        if self.epochs is None and self.iterations is None:
            self._complete(epochs=10)
        return self


class Limits(Settings):
    """What a trial may cost: evaluations in one solve, and minutes in all. `null`: no limit.

    What a fixed method needs is known, and compared with `nfe`, before it begins.
    """

    nfe: Count | None = 100_000
    minutes: Positive | None = None
