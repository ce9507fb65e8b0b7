"""Training steps: ours beside torchdiffeq's on the same network, and beside the machine's own."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Case, Row, compared, in_a_row, interleaved
from benchmarks.networks import (
    DEVICE,
    S1_ODENET,
    S2_SIMPLE,
    S4_ODENET4,
    ours,
    packed_step,
    packed_steps,
    random_batch,
    spec_of,
    taking,
    taking_together,
    training_step,
    upcoming,
    with_torchdiffeq,
)
from benchmarks.peers import jax_steps
from benchmarks.peers.process import JaxPeer, PeerCase

SEEDS, IN_A_ROW = 10, 5
JAX_PEERS = {
    "scan": ("`jax.lax.scan`, jitted", "1"),
    "recursive": ("diffrax, recursive checkpointing", "1.3"),
    "direct": ("diffrax, direct adjoint", "1.3"),
}
"""Case -> name in the table, and the ratio asked."""


def small_domain(rounds: int = 15) -> list[Row]:
    """S2's field on spheres, of two positions, beside torchdiffeq and JAX."""
    spec = spec_of(S2_SIMPLE)
    data, batch = random_batch(spec)
    alone, packed = upcoming(spec, data, batch), packed_steps(S2_SIMPLE, SEEDS)
    cases: dict[str, Case] = {
        "ours": taking(alone),
        "packed": taking_together(packed),
        "torchdiffeq": training_step(with_torchdiffeq(spec, data), spec, batch),
    }
    with contextlib.ExitStack() as stack:
        peers: dict[str, PeerCase] = {}
        if peer := JaxPeer.started(stack):
            peers = jax_steps.training_cases(peer, spec, alone, packed, IN_A_ROW)
            jax_steps.require_same_losses(peers, alone, packed, cases)
        repeated = {name: in_a_row(case, IN_A_ROW) for name, case in cases.items()}
        seconds = interleaved({**repeated, **peers}, rounds)
    what = "S2 simple field, spheres 2-D, Euler 64, backprop"
    each_of = f"{what}, each of {SEEDS} seeds packed"
    each = [s / SEEDS for s in seconds["packed"]]
    by_vmap = [s / SEEDS for s in seconds.get("vmap", ())]
    beside, theirs = "torchdiffeq backprop", seconds["torchdiffeq"]
    return [
        compared(what, seconds["ours"], beside, theirs, "5"),
        *(
            compared(what, seconds["ours"], name, seconds.get(case, ()), asked)
            for case, (name, asked) in JAX_PEERS.items()
        ),
        compared(each_of, each, beside, theirs, "8"),
        compared(each_of, each, "ours, alone", seconds["ours"]),
        compared(each_of, each, "`jax.vmap` of `lax.scan`, each", by_vmap, "1"),
    ]


def image_network(rounds: int = 7) -> list[Row]:
    """S1's OdeNet on images of MNIST's size, and its operations beside a matrix product's."""
    spec = spec_of(S1_ODENET)
    data, batch = random_batch(spec)
    product, product_operations = matrix_product()
    seconds = interleaved(
        {
            "ours": ours(spec, data, batch),
            "backprop": training_step(with_torchdiffeq(spec, data), spec, batch),
            "adjoint": training_step(with_torchdiffeq(spec, data, adjoint=True), spec, batch),
            "product": product,
        },
        rounds,
    )
    what = "S1 OdeNet, MNIST, Euler 100, backprop"
    operations = step_operations(with_torchdiffeq(spec, data), batch[0])
    # As long as the matrix product would take for as many operations, over what the step takes.
    ideal = [s * operations / product_operations for s in seconds["product"]]
    return [
        compared(what, seconds["ours"], "torchdiffeq backprop", seconds["backprop"], "1.35"),
        compared(what, seconds["ours"], "torchdiffeq adjoint", seconds["adjoint"], "1.6"),
        compared(what, seconds["ours"], "a matrix product of as many operations", ideal, "0.8"),
    ]


def exact_gradient(rounds: int = 5) -> list[Row]:
    """S4's ODENet4: the exact gradient by the form that memory allows, and by recomputation."""
    data, batch = random_batch(spec_of(S4_ODENET4))
    cases = {}
    for name in ("exact", "recompute"):
        spec = spec_of(S4_ODENET4, gradient=name)
        cases[name] = ours(spec, data, batch)
    seconds = interleaved(cases, rounds)
    what = "S4 ODENet4, C = 16, LN, Euler 32, `exact`"
    return [compared(what, seconds["exact"], "our own `recompute`", seconds["recompute"], "1.3")]


def growth(rounds: int = 9) -> list[Row]:
    """S2's step as each of its sizes grows."""
    network = S2_SIMPLE
    sizes: dict[str, dict[int, dict[str, Any]]] = {
        "steps": {n: {"solver": {**network["solver"], "steps": n}} for n in (16, 32, 64, 128)},
        "width": {n: {"model": {**network["model"], "width": n}} for n in (16, 32, 64, 128)},
        "batch": {n: {"train": {**network["train"], "batch_size": n}} for n in (64, 128, 256, 512)},
    }
    rows = []
    for name, changes in sizes.items():
        cases = {}
        for size, change in changes.items():
            spec = spec_of(network, **change)
            cases[str(size)] = ours(spec, *random_batch(spec))
        rows += _grown(f"S2 simple field, {name}", interleaved(cases, rounds))
    packs = {str(n): packed_step(network, seeds=n) for n in (2, 5, 10, 20)}
    return rows + _grown("S2 simple field, seeds packed", interleaved(packs, rounds))


def _grown(what: str, seconds: dict[str, list[float]]) -> list[Row]:
    first, *others = seconds
    return [compared(f"{what}: {first}", seconds[first], n, seconds[n]) for n in others]


def matrix_product(size: int = 2048) -> tuple[partial[Tensor], int]:
    """A product of two square matrices, and its multiplications and additions."""
    a, b = torch.rand(2, size, size, device=DEVICE)
    return partial(torch.mm, a, b), 2 * size**3


def step_operations(model: nn.Module, inputs: Tensor) -> int:
    """Multiplications and additions of a step's convolutions and linear layers, by their shapes.

    The backward pass takes twice those of the forward pass: for the inputs and for the weights.
    The first layer's inputs need no gradient.
    """
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        per_output = layer.weight[0].numel()
        counts.append(2 * output.numel() * per_output)

    layers = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model.to(inputs.device)(inputs)
    for hook in hooks:
        hook.remove()
    return 3 * sum(counts) - counts[0]
