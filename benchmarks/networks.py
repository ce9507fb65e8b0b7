"""The studies' networks, as nodebench builds them and with torchdiffeq in the ODE block's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import torchdiffeq
from torch import Tensor, nn

from nodebench.data.dataset import Data, Split
from nodebench.models import plain_ode
from nodebench.models.build import build
from nodebench.models.device import to_device
from nodebench.models.dynamics import TimeConv
from nodebench.models.layers.conv import Conv2d
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.ode.block import ODEBlock, share_memory
from nodebench.spec import TrialSpec
from nodebench.training.loop import new_state
from nodebench.training.machine import memory_of_trial
from nodebench.training.steps.cuda_graph import CudaGraphSteps
from nodebench.training.steps.step import Step
from nodebench.training.steps.vmapped import VmappedSteps
from nodebench.training.tasks.table import task_for

BATCH = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = {"spheres": (2,), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}

S2_SIMPLE: dict[str, Any] = {
    "data": {"name": "spheres", "dim": 2},
    "model": {"name": "plainode", "field": "simple", "width": 32},
    "solver": {"method": "euler", "steps": 64},
    "train": {"epochs": 1, "batch_size": BATCH, "optimizer": {"name": "adam", "lr": 1e-4}},
}
S1_ODENET: dict[str, Any] = {
    "data": {"name": "mnist"},
    "model": {"name": "odenet"},
    "solver": {"method": "euler", "steps": 100},
    "train": {
        "epochs": 1,
        "batch_size": BATCH,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    },
}
S3_ODENET: dict[str, Any] = {
    "data": {"name": "mnist"},
    "model": {"name": "odenet", "dynamics": "prenorm", "stem": "res"},
    "solver": {"method": "dopri5", "tol": 1e-3},
    "train": S1_ODENET["train"],
}
S4_ODENET4: dict[str, Any] = {
    "data": {"name": "cifar10"},
    "model": {
        "name": "odenet4",
        "width": 16,
        "norm": {"stem": "bn", "residual": "bn", "ode": "ln"},
    },
    "solver": {"method": "euler", "steps": 32},
    "train": {
        "epochs": 1,
        "batch_size": BATCH,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    },
}


def spec_of(network: dict[str, Any], **changes: Any) -> TrialSpec:
    """A network's trial, fields of its top level changed."""
    return TrialSpec.model_validate({**network, **changes})


def random_batch(spec: TrialSpec) -> tuple[Data, tuple[Tensor, Tensor]]:
    """Inputs and targets in the shape of a trial's data: what they are does not matter here."""
    classes = 2 if spec.data.name == "spheres" else 10
    size = spec.train.batch_size
    inputs, targets = torch.rand(size, *SHAPES[spec.data.name]), torch.randint(classes, (size,))
    split = Split(inputs.to(DEVICE), targets.to(DEVICE))
    return Data(split, split, None, classes), (split.inputs, split.targets)


def _concatenated(layer: TimeConv, t: Tensor, y: Tensor) -> Tensor:
    """Time as one more channel, as the studies' own code has it; of each sample, or one for all."""
    times = t.reshape(-1, 1, 1, 1) if isinstance(t, Tensor) else t
    return layer.conv(torch.cat((torch.ones_like(y[:, :1]) * times, y), dim=1))


# Layers that nodebench compiles -> as users of torch have them.
AS_WRITTEN: dict[type[nn.Module], Callable[..., Tensor]] = {
    TimeConv: _concatenated,
    Conv2d: nn.Conv2d.forward,
    GroupNorm: nn.GroupNorm.forward,
}


class TorchdiffeqBlock(nn.Module):
    """What a user of torchdiffeq writes: f, `odeint` or its adjoint, a step size or tolerances."""

    settings: dict[str, Any]

    def __init__(self, block: ODEBlock, solve: Callable[..., Tensor]):
        super().__init__()
        self.f, self.solve, self.solver = block.f, solve, block.solver
        self.times = torch.tensor([0.0, block.t1])
        if block.solver.tol is None:
            self.settings = {"options": {"step_size": block.t1 / block.solver.step_count(block.t1)}}
        else:
            self.settings = {"rtol": block.solver.tol, "atol": block.solver.tol}

    def forward(self, y0: Tensor) -> Tensor:
        """y(t1)."""
        times = self.times.to(y0.device)
        return self.solve(self.f, y0, times, method=self.solver.method, **self.settings)[-1]


def with_torchdiffeq(spec: TrialSpec, data: Data, *, adjoint: bool = False) -> nn.Module:
    """The same network, its ODE blocks solved and differentiated by torchdiffeq."""
    solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    return with_blocks(spec, data, partial(TorchdiffeqBlock, solve=solve))


def with_blocks(spec: TrialSpec, data: Data, made: Callable[[ODEBlock], nn.Module]) -> nn.Module:
    """The same network with other blocks in place of its ODE blocks, and layers as users write."""
    with mock.patch.object(plain_ode, "DENSE_POSITIONS", 0):  # convolutions stay convolutions
        model = build(spec, data)
    for layer in model.modules():
        for kind, forward in AS_WRITTEN.items():
            if isinstance(layer, kind):
                layer.forward = partial(forward, layer)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ODEBlock):
                setattr(parent, name, made(child))
    return model


def upcoming(spec: TrialSpec, data: Data, batch: tuple[Tensor, Tensor]) -> Step:
    """A step of the network as nodebench trains it here."""
    model = to_device(build(spec, data), DEVICE).train()
    share_memory(model, memory_of_trial(float(DEVICE.type == "cuda")))
    state = new_state(model, spec)
    return Step(state, task_for(data, spec), batch)


def ours(spec: TrialSpec, data: Data, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """One step, with its sums of losses and accuracies; on a GPU as training takes it there."""
    return taking(upcoming(spec, data, batch))


def taking(step: Step) -> Callable[[], None]:
    """Takes a step again and again."""
    taker = CudaGraphSteps() if DEVICE.type == "cuda" else None

    def take() -> None:
        step.taken = False
        if taker:
            taker.take([step])
        step.take()

    return take


def training_step(
    model: nn.Module, spec: TrialSpec, batch: tuple[Tensor, Tensor]
) -> Callable[[], None]:
    """One step: forward, backward, update."""
    model.to(DEVICE).train()
    optimizer = new_state(model, spec).optimizer
    inputs, targets = batch

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def packed_step(network: dict[str, Any], seeds: int) -> Callable[[], None]:
    """A step of several seeds, taken as one."""
    return taking_together(packed_steps(network, seeds))


def packed_steps(network: dict[str, Any], seeds: int) -> list[Step]:
    """A step of each seed, with a batch of its own."""
    specs = [spec_of(network, seed=seed) for seed in range(seeds)]
    return [upcoming(spec, *random_batch(spec)) for spec in specs]


def taking_together(steps: Sequence[Step]) -> Callable[[], None]:
    """Takes the steps of packed seeds as one, again and again."""
    together = VmappedSteps()

    def take() -> None:
        for step in steps:
            step.taken = False
        together.take(steps)
        assert all(step.taken for step in steps)

    return take
