"""The gradient `exact`: backprop if its graph fits into memory, otherwise recomputation.

Backprop keeps what every evaluation needs for its backward pass; recomputation keeps a few states
and solves again. The gradient is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nodebench.ode.buffers import without_side_effects
from nodebench.ode.field import Counted, ExactForm, slope
from nodebench.ode.fixed import grids_between
from nodebench.ode.gradients.backprop import backprop
from nodebench.ode.gradients.recompute import recompute
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

MEMORY_SHARE = 0.5
"""The share of the available memory that the graph of one solve may use."""

ADAPTIVE_EVALUATIONS = 500
"""The assumed number of evaluations of an adaptive solve, which is not known in advance."""


def exact(
    f: Counted, y0: Tensor, times: Sequence[float], solver: Solver, _gradient: Gradient
) -> list[Tensor]:
    """The states at `times`, by the form chosen at the first solve with this solver."""
    forms = f.memory.exact_forms
    if solver not in forms:
        forms[solver] = exact_form(f.module, y0, times, solver, f.memory.bytes)
    method = backprop if forms[solver] == "backprop" else recompute
    return method(f, y0, times, solver, exact_gradient(forms[solver], solver))


def exact_form(
    f: nn.Module, y0: Tensor, times: Sequence[float], solver: Solver, memory_bytes: float
) -> ExactForm:
    """`backprop` if its graph fits into `MEMORY_SHARE` of the given bytes, else `recompute`."""
    kept = kept_bytes(f, y0, times[0]) * _evaluations(solver, times)
    return "backprop" if kept <= MEMORY_SHARE * memory_bytes else "recompute"


def exact_gradient(form: ExactForm, solver: Solver) -> Gradient:
    """The settings of a form; recomputation uses segments if the steps are known in advance."""
    is_cut = form == "recompute" and solver.stepping == "fixed" and not solver.is_reversible
    return Gradient(name=form, segments="auto" if is_cut else None)


def kept_bytes(f: nn.Module, y: Tensor, t: float) -> int:
    """The bytes that each further evaluation of f in a solve keeps for its backward pass.

    Memory shared by all evaluations is excluded: parameters, and values computed from them once per
    solve.
    """
    own = {p.untyped_storage().data_ptr() for p in (*f.parameters(), *f.buffers())}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage reuses another's address

    def note(tensor: Tensor) -> Tensor:
        if tensor._is_zerotensor():  # the derivative of a constant in forward mode, without memory
            return tensor
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        without_side_effects(f, y),
        torch.enable_grad(),
        saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        slope(f, t, y.detach().clone().requires_grad_())
        first = sum(kept.values())
        slope(f, t, y.detach().clone().requires_grad_())
    return sum(kept.values()) - first


def _evaluations(solver: Solver, times: Sequence[float]) -> int:
    if solver.facts.kind == "adaptive":
        return ADAPTIVE_EVALUATIONS
    return (solver.stages or 4) * sum(grid.steps for grid in grids_between(times, solver))
