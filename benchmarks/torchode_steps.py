"""`python -m benchmarks.torchode_steps`: steps per sample, compared with torchode's.

torchode is not a dependency of nodebench: `make bench-peers` installs it for this script.

The problem is a batch of van der Pol oscillators with dampings from 0.1 to 20, by dopri5 and tsit5.
Both sides have an integral controller (safety 0.9, factors 0.2 to 10), one norm and one choice of
the first step. torchode's controller also shrinks a step after an accepted one, which torchdiffeq's
and ours do not, and has its tolerances in float32; `as_ours` changes both, so that the steps of
every sample can be compared. The script returns 1 if one of them differs.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.torchode import is_installed
from nodebench.ode.field import Counted, Field, OverStates, ignored
from nodebench.ode.solve import solve
from nodebench.spec.solver import Solver

BATCH, END, TOL, ROUNDS = 64, 2.0, 1e-6, 7
WITHIN = 1e-10
"""How near the ends are to be: a step's size multiplies the rounding of small errors."""


class VanDerPol(Field):
    """x'' = mu (1 - x²) x' - x, with a damping mu for each sample: y = (x, x', mu)."""

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        x, v, mu = y.unbind(1)
        return torch.stack((v, mu * (1 - x * x) * v - x, torch.zeros_like(mu)), 1)


@dataclass(frozen=True)
class Solved:
    """The states at the end, and the steps tried: of each sample, or of the batch."""

    end: Tensor
    accepted: float
    tried: Tensor


def by_nodebench(y0: Tensor, method: str, step: str) -> Solved:
    """One step a `batch` or a `sample`."""
    f = OverStates(Counted(VanDerPol(), ignored))
    solver = Solver(method=method, tol=TOL, control={"step": step})
    ((_,), (end,)), counts = solve(f, (y0,), (0.0, END), solver)
    assert counts is not None
    tried = torch.tensor(counts.accepted + counts.rejected)
    if counts.of_samples is not None:
        tried = (counts.of_samples - 2) // ((solver.stages or 0) - 1)
    return Solved(end, counts.accepted, tried)


def by_torchode(y0: Tensor, method: str, *, as_ours: bool = False) -> Solved:
    """A step per sample, with its own controller or one that does as ours."""
    torchode = importlib.import_module("torchode")
    field = VanDerPol()
    term = torchode.ODETerm(lambda _t, y: field(0.0, y))
    steps = {"tsit5": torchode.Tsit5, "dopri5": torchode.Dopri5}[method](term=term)
    controller: Any = torchode.IntegralController(atol=TOL, rtol=TOL, term=term)
    if as_ours:
        own_factor = controller.dt_factor
        controller.dt_factor = lambda state, error: torch.where(
            error < 1, own_factor(state, error).clamp(min=1.0), own_factor(state, error)
        )
        controller.atol = controller.rtol = torch.tensor(TOL, dtype=torch.float64)
    times = torch.tensor([0.0, END], dtype=y0.dtype).repeat(len(y0), 1)
    problem = torchode.InitialValueProblem(y0=y0, t_eval=times)
    found = torchode.AutoDiffAdjoint(steps, controller).solve(problem)
    accepted = float(found.stats["n_accepted"].double().mean())
    return Solved(found.ys[:, -1], accepted, found.stats["n_steps"])


def milliseconds(solves: dict[str, Callable[[], Solved]]) -> dict[str, float]:
    """The median of interleaved rounds, after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in solves}
    for _ in range(ROUNDS + 1):
        for name, solved in solves.items():
            start = time.perf_counter()
            solved()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def compared(y0: Tensor, method: str) -> bool:
    """Prints what a method takes on both sides; whether steps and ends are the same."""
    ours, alike = by_nodebench(y0, method, "sample"), by_torchode(y0, method, as_ours=True)
    theirs, of_batch = by_torchode(y0, method), by_nodebench(y0, method, "batch")
    differing = int((ours.tried != alike.tried).sum())
    off = float((ours.end - alike.end).abs().max())
    print(
        f"{method}: of {BATCH} samples, {differing} take other steps than torchode with our rule "
        f"(ends within {off:.0e}); accepted and tried steps, mean over samples: "
        f"{ours.accepted:.2f} of {float(ours.tried.double().mean()):.2f}, torchode by its own rule "
        f"{theirs.accepted:.2f} of {float(theirs.tried.double().mean()):.2f}; most tried "
        f"{int(ours.tried.max())} and {int(theirs.tried.max())}, with one step per batch "
        f"{int(of_batch.tried)}"
    )
    took = milliseconds(
        {
            "nodebench": lambda: by_nodebench(y0, method, "sample"),
            "torchode": lambda: by_torchode(y0, method),
            "one step per batch": lambda: by_nodebench(y0, method, "batch"),
        }
    )
    print(
        f"{method}: {took['nodebench']:.1f} ms, torchode {took['torchode']:.1f} ms "
        f"({took['torchode'] / took['nodebench']:.2f} times), one step per batch "
        f"{took['one step per batch']:.1f} ms"
    )
    return not differing and off <= WITHIN


@torch.no_grad()
def main() -> int:
    """Compares both methods on one thread."""
    if not is_installed():
        print("torchode is not installed: `make bench-peers`")
        return 2
    torch.set_num_threads(1)
    mu = torch.linspace(0.1, 20, BATCH, dtype=torch.float64)
    y0 = torch.stack((torch.full_like(mu, 2.0), torch.zeros_like(mu), mu), 1)
    are_same = [compared(y0, method) for method in ("dopri5", "tsit5")]
    return 0 if all(are_same) else 1


if __name__ == "__main__":
    sys.exit(main())
