"""The ODE block: a layer that maps y(0) to y(t1)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nodebench.errors import DeadlineExceeded, EvaluationLimit
from nodebench.ode.adaptive.counts import StepCounts, total
from nodebench.ode.adaptive.deterministic import require_deterministic
from nodebench.ode.adaptive.independence import require_independent
from nodebench.ode.field import Counted, ExactForm, Memory, OnStep
from nodebench.ode.gradients.odeint import odeint
from nodebench.ode.regularizers.augmented import Augmented
from nodebench.ode.regularizers.regularization import Regularization
from nodebench.ode.solve import least_evaluations
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver


class BlockSolve(NamedTuple):
    """One solve by a block: the initial state, the times, and the states at those times."""

    block: ODEBlock
    y0: Tensor
    times: Sequence[float]
    states: Tensor


@dataclass
class PassCounts:
    """What a model's ODE blocks did in one forward or backward pass; filled in at its end."""

    evaluations: list[int] = field(default_factory=list)
    """The calls of f by each block, in order."""
    step_counts: list[StepCounts] = field(default_factory=list)
    """The step counts of each adaptive solve."""

    @property
    def nfe(self) -> int:
        """The calls of f by all blocks."""
        return sum(self.evaluations)

    @property
    def steps(self) -> StepCounts | None:
        """The steps of all adaptive solves; None if there were none."""
        return total(self.step_counts)


class ODEBlock(nn.Module):
    """Integrates dy/dt = f(t, y) from 0 to `t1`.

    `solver` and `gradient` may be replaced at any time, to run the same weights under another
    solver. `evaluations` counts the calls of f since the start of the last pass (see `one_pass`),
    and `step_counts` holds the step counts of its adaptive solves. Exceeding `max_evaluations` in
    one pass, or calling f after `deadline` (in seconds of time.monotonic), raises from inside f,
    which stops a solve that would never return.

    Before the first solve by an adaptive method, f is evaluated twice at the same point to check
    that it is deterministic. Before the first solve with steps per sample, f is also checked to
    treat samples independently.

    `memory` holds the bytes that gradient methods may use, and what they keep from solve to solve.
    The `regularization` of a training step, if any, may move the end of a solve, adds its integrals
    to the state, and sums what it needs of each step. `on_solve` is called after each solve.
    """

    def __init__(self, f: nn.Module, solver: Solver, gradient: Gradient, t1: float = 1.0):
        super().__init__()
        self.f = f
        self.solver = solver
        self.gradient = gradient
        self.t1 = t1
        self.evaluations = 0
        self.step_counts: list[StepCounts] = []
        self.max_evaluations: int | None = None
        self.deadline: float | None = None
        self.memory = Memory()
        self.regularization: Regularization | None = None
        self.on_solve: Callable[[BlockSolve], None] | None = None
        self._checked_modes: set[tuple[bool, bool]] = set()
        """The modes (training, by sample) in which f has passed its checks."""

    def forward(self, y0: Tensor) -> Tensor:
        """y(t1), of the shape of y0."""
        end = self.regularization.end(self.t1) if self.regularization else self.t1
        return self.states(y0, (0.0, end))[-1]

    def trajectory(self, y0: Tensor, times: Sequence[float]) -> Tensor:
        """The states at `times`, of shape `[len(times), *y0.shape]`; y0 is y(times[0])."""
        return torch.stack(self.states(y0, times))

    def states(self, y0: Tensor, times: Sequence[float]) -> list[Tensor]:
        """The states at `times` as a list, each of the shape of y0."""
        self._require_affordable(times)
        self._require_function(times[0], y0)
        if self.regularization:
            states = self.regularization.states(self.f, y0, times, self._solve)
        else:
            states = self._solve(self.f, y0, times)
        if self.on_solve:
            self.on_solve(BlockSolve(self, y0, times, torch.stack(states)))
        return states

    @property
    def exact_forms(self) -> dict[Solver, ExactForm]:
        """Whether the gradient `exact` uses backprop or recomputation, by solver."""
        return self.memory.exact_forms

    def _solve(
        self, f: nn.Module, y0: Tensor, times: Sequence[float], on_step: OnStep | None = None
    ) -> list[Tensor]:
        norm = f.norm if isinstance(f, Augmented) else None
        counted = Counted(f, self._count, self.memory, norm, self.step_counts.append, on_step)
        return odeint(counted, y0, times, self.solver, self.gradient)

    def _count(self, evaluations: int) -> None:
        self.evaluations += evaluations
        self._require_few(self.evaluations, self.solver)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineExceeded("the trial's time was up in the middle of a solve")

    def _require_function(self, t: float, y0: Tensor) -> None:
        """Checks once per mode that f has the properties that the solver relies on."""
        by_sample = self.solver.by_sample
        known = (self.training, by_sample)
        if self.solver.facts.kind == "fixed" or known in self._checked_modes:
            return
        require_deterministic(self.f, t, y0)
        if by_sample:
            require_independent(self.f, t, y0)
        self._checked_modes |= {known, (self.training, False)}

    def _require_affordable(self, times: Sequence[float]) -> None:
        """Rejects a solve that is known in advance to exceed the evaluation limit."""
        self._require_few(self.evaluations + least_evaluations(times, self.solver), self.solver)
        if self.gradient.name == "adjoint" and torch.is_grad_enabled():
            backward = self.gradient.backward(self.solver)
            self._require_few(least_evaluations(times, backward), backward)

    def _require_few(self, evaluations: int, solver: Solver) -> None:
        if self.max_evaluations is not None and evaluations > self.max_evaluations:
            finer = "a larger `tol`" if solver.facts.kind == "adaptive" else "fewer steps"
            raise EvaluationLimit(
                f"a pass of `{solver.method}` needs more than {self.max_evaluations} evaluations: "
                f"take {finer}, or raise `limits.nfe`"
            )


def share_memory(model: nn.Module, memory_bytes: int) -> None:
    """Divides the memory that a trial may use equally among the model's ODE blocks."""
    blocks = ode_blocks(model)
    for block in blocks:
        block.memory.bytes = memory_bytes / len(blocks)


def ode_blocks(model: nn.Module) -> list[ODEBlock]:
    """The ODE blocks of a model, each once, in order; no block is inside another."""
    if isinstance(model, ODEBlock):
        return [model]
    found = (block for part in model.children() for block in ode_blocks(part))
    return list(dict.fromkeys(found))


def by_backprop(model: nn.Module) -> bool:
    """Whether all ODE blocks use backprop; for the gradient `exact`, known after a first step."""
    forms = (
        block.exact_forms.get(block.solver) if block.gradient.name == "exact" else "backprop"
        for block in ode_blocks(model)
    )
    return all(form == "backprop" for form in forms)


@contextlib.contextmanager
def one_pass(model: nn.Module) -> Generator[PassCounts]:
    """A context for one forward or backward pass; yields its counts, which are read at its end.

    The blocks count from 0, so that `max_evaluations` limits this pass alone. Passes do not nest.
    """
    blocks, counts = ode_blocks(model), PassCounts()
    for block in blocks:
        block.evaluations = 0
        block.step_counts.clear()
    try:
        yield counts
    finally:
        counts.evaluations = [block.evaluations for block in blocks]
        counts.step_counts = [each for block in blocks for each in block.step_counts]


@contextlib.contextmanager
def replaced(modules: Iterable[nn.Module], **values: object) -> Generator[None]:
    """Temporarily gives attributes of modules these values."""
    before = [(module, name, getattr(module, name)) for module in modules for name in values]
    try:
        for module, name, _ in before:
            setattr(module, name, values[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextlib.contextmanager
def solved_by(
    model: nn.Module, solver: Solver, gradient: Gradient | None = None
) -> Generator[None]:
    """Temporarily gives the model's ODE blocks another solver and, if given, another gradient."""
    values = {"solver": solver} | ({"gradient": gradient} if gradient else {})
    with replaced(ode_blocks(model), **values):
        yield


@contextlib.contextmanager
def recorded(model: nn.Module) -> Generator[list[BlockSolve]]:
    """Collects the solves of the model's ODE blocks, in order."""
    solves: list[BlockSolve] = []
    with replaced(ode_blocks(model), on_solve=solves.append):
        yield solves


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Generator[None]:
    """Makes batch norm inside ODE blocks use batch statistics even in evaluation mode."""
    norms = [
        norm
        for block in ode_blocks(model)
        for norm in block.modules()
        if isinstance(norm, _BatchNorm)
    ]
    # Without running statistics, torch uses batch statistics.
    with replaced(norms, running_mean=None, running_var=None):
        yield
