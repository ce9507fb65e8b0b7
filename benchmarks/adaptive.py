"""Adaptive solves, forward and backward: ours beside torchdiffeq, torchode and diffrax."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from benchmarks.measure import Case, Row, compared, in_a_row, interleaved
from benchmarks.networks import (
    BATCH,
    DEVICE,
    S2_SIMPLE,
    S3_ODENET,
    TorchdiffeqBlock,
    ours,
    random_batch,
    spec_of,
    training_step,
    with_blocks,
    with_torchdiffeq,
)
from benchmarks.peers import torchode
from benchmarks.peers.process import JaxPeer, PeerCase, weights_of_field
from benchmarks.peers.torchode import TorchodeBlock
from nodebench.models.build import build
from nodebench.models.dynamics import autonomous
from nodebench.ode.block import ODEBlock, one_pass, share_memory
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.training.machine import memory_of_trial

TOL, IN_A_ROW, MOST_STEPS = 1e-3, 10, 64
NEAR = 0.02
"""How near the peers' losses are to ours, relatively: their controllers take other steps."""


def small_fields(rounds: int = 15) -> list[Row]:
    """Solves by dopri5 of S2's field on spheres, and of one of two layers of tanh."""
    adaptive = spec_of(S2_SIMPLE, solver={"method": "dopri5", "tol": TOL})
    model = {**S2_SIMPLE["model"], "init": "kaiming"}  # S2's own would take one step
    adaptive = spec_of(adaptive.model_dump(exclude_none=True), model=model)
    return [
        *_small_field("S2 simple field, dopri5 1e-3", _block_of(adaptive), "relu", rounds),
        *_small_field("tanh field 2-64-64-2, dopri5 1e-3", _tanh_block(), "tanh", rounds),
    ]


def _block_of(spec: Any) -> ODEBlock:
    torch.manual_seed(0)
    block: ODEBlock = build(spec, random_batch(spec)[0]).block
    return block


def _tanh_block() -> ODEBlock:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 2)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, gain=nn.init.calculate_gain("tanh"))
    field = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    solver = Solver(method="dopri5", tol=TOL)
    return ODEBlock(autonomous(field), solver, Gradient(name="backprop"))


def _small_field(what: str, block: ODEBlock, activation: str, rounds: int) -> list[Row]:
    y0 = torch.randn(BATCH, 2, device=DEVICE, requires_grad=True)
    share_memory(block.to(DEVICE), memory_of_trial(float(DEVICE.type == "cuda")))
    solves: dict[str, Callable[[], Tensor]] = {
        "ours": _solve(block, y0),
        "torchdiffeq": _solve(TorchdiffeqBlock(block, torchdiffeq.odeint), y0),
    }
    if torchode.is_installed():
        solves["torchode"] = _solve(TorchodeBlock(block), y0)
    with contextlib.ExitStack() as stack:
        peers: dict[str, PeerCase] = {}
        if peer := JaxPeer.started(stack):
            arrays = {**weights_of_field(block), "inputs": y0}
            for by in ("recursive", "direct"):
                peers[by] = peer.case(
                    arrays, IN_A_ROW, case="adaptive", by=by, tol=TOL, activation=activation,
                    most_steps=MOST_STEPS,
                )  # fmt: skip
        expected = solves["ours"]()
        for found in (*(s() for s in solves.values()), *(p.losses(1)[0] for p in peers.values())):
            torch.testing.assert_close(found.detach(), expected.detach(), rtol=NEAR, atol=0.0)
        cases: dict[str, Case] = {n: in_a_row(solve, IN_A_ROW) for n, solve in solves.items()}
        seconds = interleaved(cases | peers, rounds)
    asked = {"torchdiffeq": "2.5", "diffrax, recursive checkpointing": "0.8"}
    named = {
        "torchdiffeq": "torchdiffeq", "torchode": "torchode",
        "diffrax, recursive checkpointing": "recursive", "diffrax, direct": "direct",
    }  # fmt: skip
    return [
        compared(what, seconds["ours"], name, seconds.get(case, ()), asked.get(name, "–"))
        for name, case in named.items()
    ]


def _solve(block: nn.Module, y0: Tensor) -> Callable[[], Tensor]:
    """Forward and backward, gradients of y0 and the weights from zero."""

    def solve() -> Tensor:
        y0.grad = None
        block.zero_grad()
        with one_pass(block):
            loss = block(y0).square().sum() / len(y0)
        with one_pass(block):
            loss.backward()
        return loss

    return solve


def image_network(rounds: int = 5) -> list[Row]:
    """A training step of S3's network under dopri5. JAX's convolutions take many times as long."""
    spec = spec_of(S3_ODENET)
    data, batch = random_batch(spec)
    cases = {
        "ours": ours(spec, data, batch),
        "torchdiffeq": training_step(with_torchdiffeq(spec, data), spec, batch),
    }
    if torchode.is_installed():
        model = with_blocks(spec, data, TorchodeBlock)
        cases["torchode"] = training_step(model, spec, batch)
    seconds = interleaved(cases, rounds)
    what = "S3 OdeNet, MNIST, dopri5 1e-3, backprop"
    return [
        compared(what, seconds["ours"], name, seconds.get(name, ()), "1")
        for name in ("torchdiffeq", "torchode")
    ]
