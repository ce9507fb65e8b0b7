"""S2's training step in JAX, with the weights, batch and optimizer of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.process import JaxPeer, PeerCase, weights_of_field
from nodebench.spec import TrialSpec
from nodebench.training.steps.step import Step

CHECKED_STEPS, NEAR = 3, 1e-5


def training_cases(
    peer: JaxPeer, spec: TrialSpec, alone: Step, packed: Sequence[Step], in_a_row: int
) -> dict[str, PeerCase]:
    """The step by `lax.scan` and by diffrax's two adjoints, and packed seeds by `vmap` of scan."""
    assert spec.solver is not None and spec.solver.method == "euler"
    assert spec.train.optimizer.name == "adam"
    facts: dict[str, Any] = {
        "case": "training", "steps": spec.solver.steps, "activation": "relu",
        "lr": spec.train.optimizer.lr,
    }  # fmt: skip
    one = arrays_of(alone)
    cases = {
        by: peer.case(one, in_a_row, by=by, packed=False, **facts)
        for by in ("scan", "recursive", "direct")
    }
    each = [arrays_of(step) for step in packed]
    stacked = {name: torch.stack([arrays[name] for arrays in each]) for name in one}
    return {**cases, "vmap": peer.case(stacked, in_a_row, by="scan", packed=True, **facts)}


def arrays_of(step: Step) -> dict[str, Tensor]:
    """A step's weights and batch."""
    model: Any = step.state.model
    inputs, targets = step.batch
    head = {"head.weight": model.head.weight, "head.bias": model.head.bias}
    return {**weights_of_field(model.block), **head, "inputs": inputs, "targets": targets}


def require_same_losses(
    peers: dict[str, PeerCase],
    alone: Step,
    packed: Sequence[Step],
    take: dict[str, Callable[[], object]],
) -> None:
    """Raises AssertionError unless every peer has our losses before each of the first steps."""
    expected = {
        "ours": losses([alone], take["ours"])[:, 0],
        "packed": losses(packed, take["packed"]),
    }
    for name, peer in peers.items():
        found = peer.losses(CHECKED_STEPS)
        same = expected["packed" if name == "vmap" else "ours"]
        torch.testing.assert_close(found.to(same.dtype), same, rtol=NEAR, atol=NEAR)


def losses(steps: Sequence[Step], take: Callable[[], object]) -> Tensor:
    """Each step's loss before each of the first takes. Shape: [CHECKED_STEPS, len(steps)]."""
    totals = [torch.zeros(len(steps))]
    for _ in range(CHECKED_STEPS):
        take()
        sums = [step.state.sums.loss.cpu() for step in steps]
        totals.append(torch.stack(sums) / len(steps[0].batch[1]))
    return torch.stack(totals).diff(dim=0)
