"""torchode's dopri5 in an ODE block's place; it is found in the peers' own environment."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.process import site_packages
from nodebench.ode.block import ODEBlock


def is_installed() -> bool:
    """Whether torchode can be imported here, with this environment's torch."""
    site = site_packages()
    if site and str(site) not in sys.path:
        sys.path.append(str(site))  # last, so that all else is this environment's
    return importlib.util.find_spec("torchode") is not None


class TorchodeBlock(nn.Module):
    """y(t1) with an integral controller, and, as torchode has it, a step size for each sample."""

    def __init__(self, block: ODEBlock):
        super().__init__()
        self.f, self.t1, tol = block.f, block.t1, block.solver.tol
        self.torchode: Any = importlib.import_module("torchode")
        term = self.torchode.ODETerm(self._flat)
        steps = self.torchode.Dopri5(term=term)
        control = self.torchode.IntegralController(atol=tol, rtol=tol, term=term)
        self.solve = self.torchode.AutoDiffAdjoint(steps, control)
        self.shape = torch.Size()

    def _flat(self, t: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.f(t, y.view(self.shape))
        return out.flatten(1)

    def forward(self, y0: Tensor) -> Tensor:
        """y(t1), of the shape of y0."""
        self.shape = y0.shape
        times = torch.tensor([0.0, self.t1], device=y0.device).repeat(len(y0), 1)
        problem = self.torchode.InitialValueProblem(y0=y0.flatten(1), t_eval=times)
        end: Tensor = self.solve.solve(problem).ys[:, -1]
        return end.view(self.shape)
