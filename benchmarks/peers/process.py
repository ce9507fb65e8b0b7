"""The JAX peers as one process that waits for requests, so that rounds can alternate with ours."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Took

ENVIRONMENT = Path(__file__).parents[2] / ".venv-peers"
PACKAGES = ("jax", "diffrax", "equinox", "optax", "torchode")


def site_packages() -> Path | None:
    """Where the peers are installed, if they are."""
    return next(ENVIRONMENT.glob("lib/python*/site-packages"), None)


def versions() -> dict[str, str]:
    """Of each peer that is installed."""
    site = site_packages()
    found = importlib.metadata.distributions(path=[str(site)]) if site else ()
    named = {each.metadata["Name"]: each.version for each in found}
    return {name: named[name] for name in PACKAGES if name in named}


def weights_of_field(block: nn.Module) -> dict[str, Tensor]:
    """Weight and bias of each layer of a block's field, as `field.<number>.weight` and so on.

    A convolution that is computed as a matrix hands over its kernel, which is what is trained.
    """
    parameters = [p for _, p in sorted(_by_layer(block), key=lambda pair: pair[0])]
    names = (f"field.{n // 2}.{('weight', 'bias')[n % 2]}" for n in range(len(parameters)))
    return dict(zip(names, parameters, strict=True))


def _by_layer(block: nn.Module) -> Iterator[tuple[tuple[int, int], Tensor]]:
    for name, parameter in block.named_parameters():
        (layer,) = re.findall(r"\d+", name)
        yield (int(layer), int(".bias" in name)), parameter


@dataclass(frozen=True)
class PeerCase:
    """A training step or a solve in the other process; a call times several of them there."""

    peer: JaxPeer
    number: int
    count: int

    def __call__(self) -> Took:
        """Seconds of one, the mean of `count` in a row."""
        return Took(self.peer.ask({"do": "time", "number": self.number, "count": self.count}))

    def losses(self, count: int) -> Tensor:
        """The losses before each of so many steps, which are taken."""
        found = self.peer.ask({"do": "losses", "number": self.number, "count": count})
        return torch.tensor(found)


class JaxPeer:
    """The process. Compiling is part of `case`, and so of no measurement."""

    def __init__(self) -> None:
        command = [
            str(ENVIRONMENT / "bin" / "python"), "-m", "benchmarks.peers.jax_server",
            str(torch.get_num_threads()),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip

    @classmethod
    def started(cls, stack: contextlib.ExitStack) -> JaxPeer | None:
        """The process, ended with the stack; None where the peers are not installed."""
        return stack.enter_context(cls()) if site_packages() else None

    def __enter__(self) -> JaxPeer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Raises RuntimeError if the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        if not (line := self.process.stdout.readline()):
            raise RuntimeError("the JAX peers' process ended; its error is printed above")
        return json.loads(line)

    def case(self, arrays: Mapping[str, Tensor], count: int, **settings: Any) -> PeerCase:
        """A case, its weights and batch handed over."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "arrays.npz"
            numbers: dict[str, Any] = {k: v.detach().cpu().numpy() for k, v in arrays.items()}
            np.savez(path, **numbers)
            number = self.ask({"do": "build", "arrays": str(path), **settings})
        return PeerCase(self, number, count)
