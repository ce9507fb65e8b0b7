"""Steps of each sample's own, beside torchode's: the same numbers, and seconds.

torchode is not a dependency: install it for this comparison alone, and name where.

    pip install --target /tmp/torchode --no-deps torchode sympy mpmath torchtyping "typeguard<3"
    PYTHONPATH=/tmp/torchode python -m benchmarks.torchode_steps

Van der Pol's oscillators with dampings between 0.1 and 20, a batch of them at once, by tsit5 and
dopri5. Both sides have the same controller (integral, safety 0.9, factors 0.2 to 10), the same
norm, and the same first step, so that steps can be compared one by one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.field import Counted, Field, OverStates
from nodebench.ode.solve import solve
from nodebench.spec.solver import Solver

BATCH, END, TOL, ROUNDS = 64, 2.0, 1e-6, 5


class VanDerPol(Field):
    """x'' = mu (1 - x²) x' - x, a damping mu for each sample: y = (x, x', mu)."""

    takes_rows = True

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        x, v, mu = y.unbind(1)
        return torch.stack((v, mu * (1 - x * x) * v - x, torch.zeros_like(mu)), 1)


def ours(y0: Tensor, method: str, step: str, field: Field) -> tuple[Tensor, StepCounts]:
    """The states at the end, and the steps."""
    found: list[StepCounts] = []
    f = OverStates(Counted(field, lambda: None, on_counts=found.append))
    solver = Solver(method=method, tol=TOL, control={"step": step})
    ((_,), (y,)) = solve(f, (y0,), (0.0, END), solver)
    return y, found[0]


def theirs(y0: Tensor, method: str, field: Field) -> tuple[Tensor, Any]:
    """The same by torchode."""
    import torchode as to

    term = to.ODETerm(lambda _t, y: field(0.0, y))
    step_method = {"tsit5": to.Tsit5, "dopri5": to.Dopri5}[method](term=term)
    controller = to.IntegralController(atol=TOL, rtol=TOL, term=term)
    solver = to.AutoDiffAdjoint(step_method, controller)
    ends = torch.tensor([[0.0, END]], dtype=y0.dtype).repeat(len(y0), 1)
    solution = solver.solve(to.InitialValueProblem(y0=y0, t_eval=ends))
    return solution.ys[:, -1], solution.stats


def seconds(solved: Callable[[], object]) -> float:
    """The median of a few rounds, after one that warms up."""
    solved()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        solved()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def main() -> None:
    """Prints a line for each method."""
    mu = torch.linspace(0.1, 20, BATCH, dtype=torch.float64)
    y0 = torch.stack((torch.full_like(mu, 2.0), torch.zeros_like(mu), mu), 1)
    field = VanDerPol()
    for method in ("dopri5", "tsit5"):
        y, counts = ours(y0, method, "sample", field)
        _, of_batch = ours(y0, method, "batch", field)
        expected, stats = theirs(y0, method, field)
        accepted, tried = stats["n_accepted"].double(), stats["n_steps"].double()
        print(
            f"{method}: largest difference {float((y - expected).abs().max()):.1e}; accepted "
            f"steps, mean {counts.accepted:.2f} here, {float(accepted.mean()):.2f} in torchode; "
            f"rejected {counts.rejected:.2f}, {float((tried - accepted).mean()):.2f}; one step a "
            f"batch accepts {of_batch.accepted:.0f} and rejects {of_batch.rejected:.0f}"
        )
        here = seconds(lambda m=method: ours(y0, m, "sample", field))  # type: ignore[misc]
        there = seconds(lambda m=method: theirs(y0, m, field))  # type: ignore[misc]
        shared = seconds(lambda m=method: ours(y0, m, "batch", field))  # type: ignore[misc]
        print(
            f"{method}: {1e3 * here:.1f} ms here, {1e3 * there:.1f} ms in torchode "
            f"({there / here:.2f} times), {1e3 * shared:.1f} ms with one step a batch"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
