"""Extra evaluations of f for a regularizer, without side effects and with correct derivatives."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nodebench.ode.field import Field, slope
from nodebench.ode.taylor.rules import Rule, rule_for
from nodebench.ode.taylor.series import Series


class FieldCall:
    """f as a regularizer's integrand calls it, at a point where a solve has just evaluated it.

    It draws the same dropout mask, updates no norms, and counts its evaluations separately.
    `norms` are those of f, from `norms_of`; `mask` is a context that repeats the previous mask.
    """

    def __init__(
        self,
        f: nn.Module,
        norms: Sequence[nn.Module],
        mask: Callable[[], AbstractContextManager[None]],
        on_evaluations: Callable[[int], None],
    ):
        self._f, self._norms, self._mask = f, norms, mask
        self._on_evaluations = on_evaluations

    def __call__(self, t: float | Tensor, y: Tensor) -> Tensor:
        """f(t, y)."""
        self._on_evaluations(1)
        with self._mask(), by_formulas(self._norms):
            return slope(self._f, t, y)

    def series(self, t: float | Tensor, rate: float, /) -> Series | None:
        """Like `Field.series`. Each coefficient after the first counts as one evaluation of f."""
        found = self._f.series(t, rate) if isinstance(self._f, Field) else None
        if found is None:
            return None
        orders = itertools.count()

        def counted(coefficient: Tensor, /) -> Tensor:
            if next(orders):
                self._on_evaluations(1)
            return found(coefficient)

        return counted


def norms_of(f: nn.Module) -> list[nn.Module]:
    """The norms that update statistics, or whose second derivatives torch gets wrong."""
    kinds = (_BatchNorm, _InstanceNorm, nn.LayerNorm)
    return [part for part in f.modules() if isinstance(part, kinds)]


@contextlib.contextmanager
def by_formulas(norms: Sequence[nn.Module]) -> Generator[None]:
    """A context in which norms are computed from their formulas, and update no statistics.

    torch's second derivatives of batch and layer norm are wrong if the inner derivative is in
    forward mode (pytorch issues 196699, 196700; in torch 2.15, so is the gradient of a first one).
    A batch norm with its own `forward` keeps it, and is only kept from updating its statistics.
    """
    rules = [(norm, rule) for norm in norms if (rule := rule_for(norm))]
    others = [norm for norm in norms if isinstance(norm, _BatchNorm) and norm.training]
    kept = [(n, n.running_mean, n.running_var, n.num_batches_tracked) for n in others]
    try:
        for norm, rule in rules:
            norm.forward = functools.partial(_by_formula, rule, norm)
        for norm in others:
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        yield
    finally:
        for norm, _ in rules:
            del norm.forward
        for norm, mean, variance, count in kept:
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, count


def _by_formula(rule: Rule, norm: nn.Module, x: Tensor) -> Tensor:
    return rule(norm)(x)
