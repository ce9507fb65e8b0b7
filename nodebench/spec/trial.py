"""The spec of a trial.

Every class is immutable, rejects unknown fields, and completes itself during validation: shorthand
is expanded and settings without effect become None, so that two ways of writing the same trial are
equal afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import model_validator

from nodebench.spec.data import DATASETS, CustomData, Dataset
from nodebench.spec.gradient import Gradient
from nodebench.spec.model import MODELS, CustomModel
from nodebench.spec.network import Model
from nodebench.spec.settings import Settings, choice, from_name
from nodebench.spec.solver import Solver
from nodebench.spec.training import INTEGRALS, STEP_SUMS, Steer, Train
from nodebench.spec.vocabulary import METHODS, MOST_STEPS, Size

if TYPE_CHECKING:
    DataSettings: TypeAlias = Dataset
    ModelSettings: TypeAlias = Model
else:
    DataSettings = choice("data set", DATASETS, CustomData)
    ModelSettings = choice("model", MODELS, CustomModel)


CANNOT_REGULARIZE: tuple[tuple[tuple[str, ...], Callable[[TrialSpec, Solver], bool], str], ...] = (
    (
        INTEGRALS,
        lambda _spec, solver: solver.stepping not in ("fixed", "embedded"),
        "is integrated with the state but excluded from error control, which `{method}` does not "
        "support: use a fixed method, or an embedded one such as `dopri5`",
    ),
    (
        INTEGRALS,
        lambda _spec, solver: solver.by_sample,
        "is integrated with the state and left out of the error control, which "
        "`control.step: sample` cannot do: take one step per batch (`control.step: batch`)",
    ),
    (
        STEP_SUMS,
        lambda _spec, solver: solver.stepping != "embedded",
        "is an estimate by the error control of an embedded method: use one such as `dopri5`, and "
        "no `dense_output`",
    ),
    (
        ("local_error",),
        lambda _spec, solver: solver.method == "dopri8",
        "would be rounding: errors of `dopri8` are below the resolution of float32. Use a method "
        "of lower order, such as `dopri5`",
    ),
    (
        STEP_SUMS,
        lambda spec, _solver: spec.gradient is not None and spec.gradient.name != "backprop",
        "needs the gradient of the solver's own steps: use `gradient: backprop`",
    ),
    (
        ("stiffness",),
        lambda _spec, solver: not solver.facts.estimates_stiffness,
        "compares two stages at the end of a step, which `{method}` does not have or has too close "
        "together: use "
        + " or ".join(f"`{name}`" for name, facts in METHODS.items() if facts.estimates_stiffness),
    ),
    (
        ("jacobian", "taylor"),
        lambda spec, _solver: spec.train.precision == "bf16",
        "needs forward-mode derivatives, which torch does not support in bfloat16: use the "
        "precision `float32` or `tf32`",
    ),
    (
        ("steer",),
        lambda spec, _solver: spec.model.span is None,
        "changes the end time of a solve, which for `{model}` comes from the data: leave it out",
    ),
    (
        ("steer",),
        lambda _spec, solver: solver.adapt is not None,
        "changes the end time of a solve, but `solver.adapt` compares solves with the same end: "
        "leave out one of the two",
    ),
)
"""Regularizers, a test whether they are unsuitable for a trial and its solver, and the reason."""


class TrialSpec(Settings):
    """One training, fully resolved. Its fields, and nothing else, determine the result.

    It begins with weights drawn from the `seed`, or with those in the file `weights`: a
    `state_dict` that torch saved, or a checkpoint of a trial.
    """

    data: DataSettings
    model: ModelSettings
    solver: Solver | None = Solver()
    gradient: Gradient | None = Gradient()
    train: Train = Train()
    weights: str | None = None
    seed: Size = 0

    @property
    def import_paths(self) -> tuple[str, ...]:
        """The import paths of a user's own parts."""
        return tuple(part.name for part in (self.data, self.model) if ":" in part.name)

    @property
    def is_trained(self) -> bool:
        """Whether its weights are trained or from a file, not just drawn."""
        return self.train.iterations != 0 or self.weights is not None

    def steps_of(self, solver: Solver) -> int | None:
        """Steps that a solver takes over one of the model's blocks; None if it is adaptive."""
        return None if solver.facts.kind == "adaptive" else solver.step_count(self.model.length)

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: from_name(v) if k in ("data", "model") else v for k, v in value.items()}

    @model_validator(mode="after")
    def _complete_and_check(self) -> Self:
        kind = self.data.kind
        if kind and (misfit := self.model.misfit(kind)):
            others = ", ".join(name for name, model in MODELS.items() if kind in model.kinds)
            raise ValueError(
                f"{misfit}, but `{self.data.name}` has {kind}. Models for {kind}: {others}"
            )
        if kind == "trajectories" and self.train.batch_size == 1:
            raise ValueError(
                "`train.batch_size` counts the times in a window of a trajectory, and the first is "
                "its start: use at least 2"
            )
        if not self.model.has_ode:
            train = self.train.model_copy(update={"regularize": None})
            self._complete(solver=None, gradient=None, train=train)
        elif self.solver is None or self.gradient is None:
            raise ValueError("a model with an ODE block needs a `solver` and a `gradient`")
        else:
            if misfit := self.gradient.misfit(self.solver):
                raise ValueError(misfit)
            gradient = self.gradient.suited_to(self.solver)
            if not self.model.normalizes_batches_in_ode:
                gradient = gradient.model_copy(update={"update_batch_norm": None})
            self._complete(gradient=gradient)
        if self.solver is None or self.gradient is None:
            return self
        self._require_regularizable(self.solver)
        self._require_few_steps("solver", self.solver)
        if self.gradient.solver is not None:
            self._require_few_steps("gradient.solver", self.gradient.solver)
        if self.solver.dense_output and self.model.span is not None:
            raise ValueError(
                f"`solver.dense_output` has no effect for `{self.model.name}`, whose ODE has one "
                "output time: leave it out"
            )
        if self.solver.by_sample:
            self._require_independent_samples()
        if self.solver.adapt and self.data.metric != "accuracy":
            raise ValueError(f"`solver.adapt` needs accuracies, but `{self.data.name}` has none")
        return self

    def _require_regularizable(self, solver: Solver) -> None:
        """Rejects regularizers that are unsuitable for the model or the solver."""
        parts = self.train.regularize.parts if self.train.regularize else {}
        for names, is_refused, why in CANNOT_REGULARIZE:
            for name in names:
                if name in parts and is_refused(self, solver):
                    told = why.format(method=solver.method, model=self.model.name)
                    raise ValueError(f"`train.regularize.{name}` {told}")
        steer = parts.get("steer")
        if isinstance(steer, Steer) and steer.half_width >= self.model.length:
            raise ValueError(
                f"`train.regularize.steer.half_width: {steer.half_width:g}` reaches the start of a "
                f"solve over a time of {self.model.length:g}: use a smaller one"
            )

    def _require_independent_samples(self) -> None:
        """Rejects steps per sample if a sample's slope depends on other samples."""
        if self.data.kind == "trajectories":
            why = f"`{self.data.name}` is one trajectory, without a batch of samples"
        elif self.model.normalizes_batches_in_ode:
            why = "batch norm inside ODE blocks makes each sample's slope depend on all others"
        else:
            return
        raise ValueError(f"`solver.control.step: sample` cannot be: {why}. Leave it out")

    def _require_few_steps(self, path: str, solver: Solver) -> None:
        """Rejects a step size that is so small that a solve would practically never end."""
        span = self.model.span
        if solver.step_size is None or span is None or solver.step_count(span) <= MOST_STEPS:
            return
        raise ValueError(
            f"`{path}.step_size: {solver.step_size:g}` gives {span / solver.step_size:.3g} steps "
            f"over a time of {span:g}; the maximum is {MOST_STEPS:,}"
        )
