"""How a model is trained: optimizers, schedules, regularizers, and how long."""

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
    """The settings that every optimiser has."""

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
    """The setting of every schedule: a linear `warmup` from 0, in the training's unit of length."""

    name: str
    warmup: NonNegative = 0.0


class Constant(Schedule):
    """The learning rate is constant."""

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
    """A term of the loss: `weight` times an integral or a sum along every solve.

    It is the mean over a batch. A weight of 0 only measures it.
    """

    weight: NonNegative

    @model_validator(mode="before")
    @classmethod
    def _from_weight(cls, value: Any) -> Any:
        return value if isinstance(value, (dict, Settings)) else {"weight": value}


class Integral(Term):
    """A term that is an integral along every solve."""


class StepSum(Term):
    """A term that is a sum over the steps of every solve, from what its error control computes."""


class Kinetic(Integral):
    """The kinetic energy, the integral of ‖f‖² (Finlay et al. 2020). A number is its weight."""


class Jacobian(Integral):
    """The integral of ‖∂f/∂y‖² in the Frobenius norm (Finlay et al. 2020).

    It is estimated with one random vector per solve, which doubles the evaluations of f. A number
    is its weight.
    """


class Taylor(Integral):
    """The integral of the squared `order`-th derivative of the solution (Kelly et al. 2020).

    Each evaluation of f requires `order` - 1 further ones.
    """

    order: Annotated[int, Field(ge=2, le=6), A_NUMBER]

    @model_validator(mode="before")
    @classmethod
    def _has_an_order(cls, value: Any) -> Any:
        if not isinstance(value, (dict, Settings)):
            raise ValueError("`taylor` needs two numbers, such as `{order: 2, weight: 0.01}`")
        return value


class LocalError(StepSum):
    """The sum over steps of the estimated local error times the step (Pal et al. 2021).

    A number is its weight.
    """


class Stiffness(StepSum):
    """The sum over steps of an estimate of the stiffness (Pal et al. 2021). A number is its weight.

    It needs dopri5 or tsit5, whose last two stages are at the end of the step.
    """


class Steer(Settings):
    """Solves in training end at a random time within `half_width` of t1 (Ghosh et al. 2020).

    A number is its half width.
    """

    half_width: Positive

    @model_validator(mode="before")
    @classmethod
    def _from_half_width(cls, value: Any) -> Any:
        return value if isinstance(value, (dict, Settings)) else {"half_width": value}


class Regularize(Settings):
    """Regularizers make the ODE easy to solve: terms of the training loss, and random end times.

    They can be combined. Evaluation does not use them. The evaluations of f that a term needs are
    counted separately (`nfe_regularization`), and an adaptive method chooses its steps by the error
    of the state alone. `local_error` and `stiffness` need an embedded method, such as dopri5, and
    the gradient `backprop`. A list of regularizers, each with its `name`, has the same meaning.
    """

    kinetic: Kinetic | None = None
    jacobian: Jacobian | None = None
    taylor: Taylor | None = None
    local_error: LocalError | None = None
    stiffness: Stiffness | None = None
    steer: Steer | None = None

    @property
    def parts(self) -> dict[str, Term | Steer]:
        """The regularizers that are set, by name."""
        return {name: part for name, part in self if part is not None}

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        names = [part.get("name") if isinstance(part, dict) else part for part in value]
        if not all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in value):
            raise ValueError("each regularizer in a list is a mapping with a `name`")
        if len(set(names)) < len(names):
            raise ValueError("a regularizer may appear only once in a list")
        return {
            part["name"]: {key: inner for key, inner in part.items() if key != "name"}
            for part in value
        }


def _regularizers(kind: type[Term]) -> tuple[str, ...]:
    return tuple(
        name
        for name, field in Regularize.model_fields.items()
        if any(issubclass(part, kind) for part in parts_in(field).values())
    )


INTEGRALS, STEP_SUMS = _regularizers(Integral), _regularizers(StepSum)

REGULARIZER_TERMS = (*INTEGRALS, *STEP_SUMS)
"""The regularizers that add a term to the loss."""


def _optimizer(value: Any) -> Any:
    """Shorthand for an optimizer: its name alone, or settings of the default one."""
    if isinstance(value, dict) and value and value.keys() <= Sgd.model_fields.keys():
        return {"name": "sgd", **value}
    return from_name(value)


class Train(Settings):
    """The length and the optimisation of a training.

    The length is given in `epochs` or `iterations` (batches); a schedule uses the same unit. The
    test set is evaluated every `test_every` epochs and at the end; `iterations: 0` only evaluates
    it, which is useful with `weights` from elsewhere. `batch_size` counts samples; for a
    trajectory, it is the largest number of points in a window. `reset_optimizer` resets the
    momentum at the start of every epoch, like released code that builds its optimiser again.
    Settings of an `optimizer` without a `name` are those of `sgd`. With a `precision` below
    float32, parameters and ODE states remain float32.
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
        shorthand = {"optimizer": _optimizer, "schedule": from_name}
        return {key: shorthand[key](v) if key in shorthand else v for key, v in value.items()}

    @property
    def can_continue(self) -> bool:
        """Whether a shorter training by this recipe is the beginning of this one.

        With a cosine schedule it is not: the whole curve depends on the training's length. Nor is
        it with a length in iterations, since the last epoch may be incomplete.
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
    """The limits of a trial: evaluations in one solve, and minutes in total. `null`: no limit.

    The needs of a fixed method are known in advance and compared with `nfe` before it starts.
    """

    nfe: Count | None = 100_000
    minutes: Positive | None = None
