"""`python -m benchmarks.other_gradients`: our gradients beside their authors' and torchdiffeq's.

The authors of ACA and MALI published TorchDiffEqPack. It is no dependency of nodebench: install it
where this script finds it, without what it would bring along,

    pip install --no-deps --target /tmp/torchdiffeqpack torchdiffeqpack==1.0.1
    PYTHONPATH=/tmp/torchdiffeqpack python -m benchmarks.other_gradients

It imports NumPy and matplotlib without declaring them, and runs with torch 2.15. Its adjoint fails
with its own methods of fixed steps: it makes a list of their error estimate, which is None, and
adds their steps, a tensor, to a list; `mended` gives it lists. It has times and coefficients in
float32, which holds the step sizes here, powers of two, and a half, but not Runge-Kutta's sixths.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

STEPS = 16
TOLERANCE = 1e-9
PACK_METHODS = {"euler": ("euler", 1e-12), "midpoint": ("rk2", 1e-12), "rk4": ("rk4", 1e-7)}
"""Ours -> TorchDiffEqPack's word, and how near its gradients are."""

Solve = Callable[[nn.Module, Tensor], Tensor]


class TanhField(nn.Module):
    """f(t, y) = W₂ tanh(W₁ [t; y] + b₁) + b₂ in float64; states [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)
        self.double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt; TorchDiffEqPack may give the state as a tuple of one."""
        time = torch.ones_like(y[:, :1]) * t
        out: Tensor = self.last(torch.tanh(self.first(torch.cat((time, y), 1))))
        return out


@dataclass(frozen=True)
class Comparison:
    """Two ways to one gradient, and how near they are to be."""

    what: str
    ours: Solve
    theirs: Solve
    within: float


def comparisons() -> list[Comparison]:
    """Those that can be run here: TorchDiffEqPack's where it is installed."""
    fine = Solver(method="dopri5", tol=TOLERANCE)
    found = [
        Comparison("adjoint, dopri5: torchdiffeq", by_ours("adjoint", fine), by_torchdiffeq, 1e-7)
    ]
    try:
        pack = importlib.import_module("TorchDiffEqPack")
    except ImportError as error:
        print(f"without TorchDiffEqPack ({error}); see this script's beginning", file=sys.stderr)
        return found
    mended(importlib.import_module("TorchDiffEqPack.odesolver.fixed_grid_solver"))
    for ours, (theirs, within) in PACK_METHODS.items():
        solver = Solver(method=ours, steps=STEPS)
        aca = by_pack(pack.odesolve_adjoint, theirs)
        found.append(
            Comparison(f"aca, {ours}: TorchDiffEqPack", by_ours("aca", solver), aca, within)
        )
    aca = by_pack(pack.odesolve_adjoint, "dopri5")
    found.append(Comparison("aca, dopri5: TorchDiffEqPack", by_ours("aca", fine), aca, 1e-7))
    alf = Solver(method="alf", steps=STEPS)
    mali = by_pack(pack.odesolve_adjoint_sym12, "fixedstep_sym12async")
    found.append(
        Comparison("reversible, alf: TorchDiffEqPack", by_ours("reversible", alf), mali, 1e-12)
    )
    return found


def mended(module: Any) -> None:
    """Lets TorchDiffEqPack's methods of fixed steps give its adjoint lists."""
    for name in ("Euler", "RK2", "RK4"):
        method = getattr(module, name)

        def step(*given: Any, own: Callable[..., Any] = method.step, **settings: Any) -> Any:
            end, error, *rest = own(*given, **settings)
            return end, error or (), *rest

        def integrate(
            *given: Any, own: Callable[..., Any] = method.integrate, **settings: Any
        ) -> Any:
            found = own(*given, **settings)
            return (found[0], list(found[1])) if settings.get("return_steps") else found

        method.step, method.integrate = step, integrate


def by_ours(gradient: str, solver: Solver) -> Solve:
    """A solve by nodebench."""
    return lambda f, y0: ODEBlock(f, solver, Gradient(name=gradient))(y0)


def by_torchdiffeq(f: nn.Module, y0: Tensor) -> Tensor:
    """A solve by torchdiffeq's continuous adjoint."""
    times = torch.tensor([0.0, 1.0], dtype=y0.dtype)
    states: Tensor = torchdiffeq.odeint_adjoint(
        f, y0, times, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE
    )
    return states[-1]


def by_pack(solve: Callable[..., Any], method: str) -> Solve:
    """A solve by TorchDiffEqPack."""

    def solved(f: nn.Module, y0: Tensor) -> Tensor:
        step = None if method == "dopri5" else 1 / STEPS
        options = {
            "method": method, "h": step, "t0": 0.0, "t1": 1.0, "rtol": TOLERANCE,
            "atol": TOLERANCE, "print_neval": False, "neval_max": 500_000, "t_eval": None,
        }  # fmt: skip
        end: Tensor = solve(f, y0, options=options)
        return end

    return solved


def gradients(solve: Solve) -> Tensor:
    """DL/dy(0) and dL/dθ of one loss, as one vector."""
    f = TanhField()
    y0 = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(-1, 2, y0.numel(), dtype=torch.float64).view_as(y0)
    end = solve(f, y0)
    (end * weights + end.square()).sum().backward()
    return torch.cat([x.grad.flatten() for x in (y0, *f.parameters()) if x.grad is not None])


def main() -> int:
    """Prints each difference; 1 if any is larger than it may be."""
    are_near = True
    for each in comparisons():
        ours, theirs = gradients(each.ours), gradients(each.theirs)
        off = float((ours - theirs).norm() / theirs.norm())
        are_near &= off <= each.within
        print(f"{each.what:36} {off:.1e} (at most {each.within:.0e})")
    return 0 if are_near else 1


if __name__ == "__main__":
    sys.exit(main())
