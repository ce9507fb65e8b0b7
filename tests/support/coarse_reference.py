"""Evaluation without a fine reference, which takes most of the time of a tiny trial."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nodebench.spec.solver import Solver


@contextmanager
def coarse_reference(steps: int = 8, *, grows: bool = False) -> Iterator[None]:
    """For tests that evaluate trained models, and do not ask how large the solver's errors are.

    A reference that `grows` takes more steps where it cannot tell an error; another gives none.
    """
    coarse = Solver(method="rk4", steps=steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nodebench.training.evaluation.reference_solver", lambda _spec: coarse)
        for name in () if grows else ("solves.SOLVE_GROWTH", "gradients.GRADIENT_GROWTH"):
            patch.setattr(f"nodebench.training.numerical_error.{name}", 1)
        yield
