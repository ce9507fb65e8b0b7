"""The state that training changes, and its checkpoints."""

from __future__ import annotations

import contextlib
import io
import operator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nodebench.data.load import load_data
from nodebench.errors import StoreError
from nodebench.files import write
from nodebench.models.build import build
from nodebench.models.weights import read_tensors
from nodebench.ode.adaptive.counts import StepTotals
from nodebench.ode.block import PassCounts, ode_blocks
from nodebench.ode.regularizers.table import Penalty, Regularizers
from nodebench.spec.solver import Solver
from nodebench.store import TrialFolder
from nodebench.store.rows import Row
from nodebench.training.adaptation import Adaptation
from nodebench.training.machine import peak_memory
from nodebench.training.task import Loss

ADAPTATION_KEY = "hook"
"""The key of the solver's adaptation in a checkpoint; checkpoints of earlier releases have it."""


@dataclass
class EpochSums:
    """Sums over the batches of an epoch so far, on the device of the losses added."""

    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    measures: dict[str, Tensor] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0
    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)
    steps: StepTotals = StepTotals()
    seconds: float = 0.0
    peak_memory: int = 0
    regularizers: dict[str, Tensor] = field(default_factory=dict)
    regularizer_evaluations: int = 0

    @classmethod
    def of(cls, values: dict[str, Any]) -> EpochSums:
        """The sums of a checkpoint."""
        return cls(**values | {"steps": StepTotals(**values.get("steps", {}))})

    def add(self, loss: Loss) -> None:
        """Adds a batch's loss and measures."""
        self.loss = self.loss + loss.mean.detach() * loss.samples
        for name, value in loss.sums.items():
            self.measures[name] = self.measures.get(name, 0) + value
        self.samples += loss.samples
        self.batches += 1

    def add_penalty(self, penalty: Penalty, samples: int) -> None:
        """Adds the values of a batch's regularizers, and the evaluations made for them."""
        for name, term in penalty.terms.items():
            before = self.regularizers.get(name, 0)
            self.regularizers[name] = before + term.detach() * samples
        self.regularizer_evaluations += penalty.evaluations

    def count(self, forward: PassCounts, backward: PassCounts) -> None:
        """Adds a batch's evaluations by block, and the steps of its forward pass's solves."""
        zeros = [0] * len(forward.evaluations)
        self.forward = list(map(operator.add, self.forward or zeros, forward.evaluations))
        self.backward = list(map(operator.add, self.backward or zeros, backward.evaluations))
        if steps := forward.steps:
            self.steps = self.steps.plus(steps)

    def to(self, device: torch.device) -> EpochSums:
        """The same sums on a device."""
        moved = {
            each: {name: value.to(device) for name, value in getattr(self, each).items()}
            for each in ("measures", "regularizers")
        }
        return replace(self, loss=self.loss.to(device), **moved)


@dataclass
class TrainState:
    """Everything that training changes; `sums` are those of the current epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    adaptation: Adaptation | None = None
    regularizers: Regularizers | None = None
    epoch: int = 0
    iteration: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    elapsed_s: float = 0.0
    continues: str | None = None
    """The trial id of the shorter training that this one continues."""
    continued_s: float = 0.0
    """The part of the elapsed seconds that belongs to that training."""
    started: float = 0.0
    """When the first attempt began, in seconds since 1970."""
    history: list[Row] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)

    def regularized(self) -> AbstractContextManager[Penalty | None]:
        """A context for the solves of the next training step, with its regularizers if any."""
        if self.regularizers is None:
            return contextlib.nullcontext()
        return self.regularizers.of_step(self.model, self.iteration)

    def save(self, path: Path, aside: Path | None = None) -> None:
        """Writes a checkpoint atomically; the previous one is moved to `aside`, if given."""
        if self.sums.batches:
            peak = peak_memory(self.sums.loss.device)
            self.sums.peak_memory = max(self.sums.peak_memory, peak)
        values = {
            # Cloned: a pack's parameters are views, for which torch would save the whole tensor.
            "model": {name: x.clone() for name, x in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "iteration": self.iteration,
            "sums": asdict(self.sums) if self.sums.batches else None,
            "elapsed_s": self.elapsed_s,
            "continues": self.continues,
            "continued_s": self.continued_s,
            "started": self.started,
            "history": self.history,
            "environments": self.environments,
            ADAPTATION_KEY: self.adaptation.state_dict() if self.adaptation else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        content = io.BytesIO()
        torch.save(values, content)
        write(path, content.getvalue(), aside)

    def load(self, values: dict[str, Any], device: torch.device) -> None:
        """Restores the state of a checkpoint."""
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.epoch, self.iteration = values["epoch"], values["iteration"]
        sums = values.get("sums")
        self.sums = EpochSums.of(sums).to(device) if sums else EpochSums()
        self.elapsed_s, self.history = values["elapsed_s"], values["history"]
        self.continues, self.continued_s = values.get("continues"), values.get("continued_s", 0.0)
        self.started = values.get("started") or _first_start(values) or self.started
        self.environments = values["environments"]
        if self.adaptation:
            self.adaptation.load_state_dict(self.model, values[ADAPTATION_KEY])
        torch.set_rng_state(values["random"])
        if device.type == "cuda" and values["random_cuda"]:
            torch.cuda.set_rng_state(values["random_cuda"][0])

    def continue_from(self, shorter: str, values: dict[str, Any], device: torch.device) -> None:
        """Continues a shorter training from its last checkpoint."""
        started = self.started
        self.load(values, device)
        self.continues, self.continued_s, self.started = shorter, self.elapsed_s, started

    def adopt_solver(self, path: Path) -> None:
        """Takes over the adapted solver of the checkpoint that the initial weights are from."""
        values = read_tensors(path)
        if self.adaptation and isinstance(values, dict) and values.get(ADAPTATION_KEY):
            self.adaptation.load_state_dict(self.model, values[ADAPTATION_KEY])


def _first_start(values: dict[str, Any]) -> float | None:
    """When training began, for a checkpoint of an earlier release, which does not record it."""
    if values.get("continues") or not values["history"]:
        return None  # the first epoch was another trial's, or there is none yet
    first: Row = values["history"][0]
    return float(first["time"] - first.get("epoch_s", 0.0))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's values, on the CPU.

    Raises:
        StoreError: if there is no such file, or it is damaged: truncated, or with changed bits.
        OSError: if it cannot be read now, although it may be intact.
    """
    try:
        values: dict[str, Any] = read_tensors(path)
    except FileNotFoundError as error:
        raise StoreError(f"there is no checkpoint `{path}`") from error
    except ValueError as error:
        raise StoreError(f"the checkpoint `{path}` is damaged: {error}") from error
    return values


def newest_checkpoint(folder: TrialFolder) -> dict[str, Any] | None:
    """The newest intact checkpoint; damaged ones are logged and set aside."""
    for path in folder.checkpoints():
        try:
            return read_checkpoint(path)
        except StoreError as error:
            folder.log(str(error))
            folder.discard(path)
    return None


def restore(model: nn.Module, values: dict[str, Any]) -> None:
    """Loads the weights and the adapted solver of a checkpoint into a model."""
    model.load_state_dict(values["model"])
    if adapted := values[ADAPTATION_KEY]:
        for block in ode_blocks(model):
            block.solver = Solver.model_validate(adapted["solver"])


def trained_model(folder: TrialFolder, data_root: Path) -> nn.Module:
    """A finished trial's network, in evaluation mode, on the CPU.

    Its ODE blocks have the solver from the end of training.

    Raises:
        StoreError: if the trial has not finished its training, or its checkpoint is damaged or
            was deleted.
    """
    spec, result = folder.trial().spec, folder.result()
    if result is None or not result.is_finished:
        state = "not finished" if result is None else str(result)
        raise StoreError(f"the training in `{folder.path}` is {state}: run its sweep first")
    if not folder.checkpoint.exists():
        raise StoreError(
            f"there is no checkpoint `{folder.checkpoint}`: `nodebench gc` has deleted it, or the "
            "result was imported without weights. Delete the trial's folder and run its sweep again"
        )
    spec = spec.model_copy(update={"weights": None})  # the checkpoint has them
    model = build(spec, load_data(spec, data_root))
    restore(model, read_checkpoint(folder.checkpoint))
    return model.eval()
