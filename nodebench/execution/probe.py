"""Measures how long the steps of a trial take, alone in this process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from nodebench.errors import DeadlineExceeded, ResourceError, TrialFailure, counted
from nodebench.planning import RunOptions
from nodebench.planning.estimate import Cost
from nodebench.spec import Trial
from nodebench.spec.point import EvaluationPoint
from nodebench.store.rows import Row
from nodebench.training.loop import train
from nodebench.training.machine import (
    gpu_count,
    is_out_of_memory,
    memory_of_trial,
    peak_memory,
    release_memory,
    reset_peak_memory,
    select_device,
    synchronize,
)
from nodebench.training.preparation import prepare_trial
from nodebench.training.steps.step import Step

STEPS = 8
MOST_S = 10.0
"""A probe ends after this many steps, or with the first step beyond this many seconds."""


CONTEXT_BYTES = 2**30
"""GPU memory that a process takes before its first tensor: kernels and library workspaces."""

HANGS_S = 60.0
"""A probe whose solves take longer than this is abandoned."""


@dataclass(frozen=True)
class Probe:
    """Seconds of some training steps, and of one pass over the held-out data.

    The whole trial takes `iterations` steps and, including its evaluations, `tests` passes.
    `peak_bytes` is the peak memory of the probe, as counted by `machine.peak_memory`.
    """

    steps: tuple[float, ...]
    test_s: float
    iterations: int
    tests: float
    grows: bool
    peak_bytes: int

    @property
    def step_s(self) -> float:
        """The median time of a step."""
        return statistics.median(self.steps)

    def cost(self) -> Cost:
        """The cost of the whole trial; its bounds are for steps like the fastest or slowest."""
        middle, low, high = (
            step_s * self.iterations + self.test_s * self.tests
            for step_s in (self.step_s, min(self.steps), max(self.steps))
        )
        source = f"from {counted(len(self.steps), 'step')} of {1000 * self.step_s:,.1f} ms"
        return Cost(middle, low, high, source, self.grows)


def probe_trial(trial: Trial, options: RunOptions) -> Probe | str:
    """Times the first steps of a trial and a test on one batch; writes nothing.

    Returns a text with the reason if a step or the test fails or does not end within HANGS_S.
    """
    device = select_device(options.resources.gpu_share)
    try:
        return _probe(trial, options)
    except DeadlineExceeded:
        return f"a solve with the initial weights does not end within {HANGS_S:g} s"
    except TrialFailure as failure:
        return f"a solve with the initial weights fails ({failure.outcome})"
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return "its first steps need more memory than there is"
        return f"its first steps end in an error: {next(iter(str(error).splitlines()), '')}"
    finally:
        release_memory(device)


def _probe(trial: Trial, options: RunOptions) -> Probe:
    prepared = prepare_trial(trial.spec, options)
    spec, device, task = prepared.spec, prepared.device, prepared.task
    prepared.limit_solves(prepared.model, time.monotonic() + HANGS_S)
    state = prepared.new_state()
    reset_peak_memory(device)
    total = spec.train.iterations or (spec.train.epochs or 0) * task.batches_per_epoch
    steps = _first_steps(train(state, task, spec), device)
    test = task.evaluate(prepared.model, size=spec.train.batch_size)
    tests = total // (task.batches_per_epoch * spec.train.test_every) or 1
    evaluations = sum(
        _relative_cost(trial, point) * _share(point, spec.train.batch_size, task.test_passes)
        for point in options.points(trial)
    )
    return Probe(
        steps=tuple(steps[1:] or steps or [0.0]),  # the first also allocates
        test_s=test.forward_s * task.test_passes,
        iterations=total,
        tests=tests + evaluations,
        grows=spec.solver is not None and spec.solver.facts.kind != "fixed",
        peak_bytes=peak_memory(device),
    )


def share_of_gpu(trial: Trial, options: RunOptions, seeds: int = 1) -> float:
    """The share of this machine's GPU that a trial, or a pack of `seeds`, needs, in hundredths.

    Twice the peak memory of the first steps, since adaptive solvers need more later and allocators
    leave gaps, plus the memory that each process takes for itself. At most 1, which is also the
    share if these steps fail.

    Raises:
        ResourceError: if this machine has no GPU.
    """
    if not gpu_count():
        raise ResourceError(
            "`resources.gpus: auto` measures a trial on this machine, which has no GPU: give a "
            "fraction, or pass `--cpu`"
        )
    found = probe_trial(trial, options)
    if isinstance(found, str):
        return 1.0
    needed = (2 * seeds * found.peak_bytes + CONTEXT_BYTES) / memory_of_trial(1.0)
    return min(1.0, math.ceil(100 * needed) / 100)


def _first_steps(training: Iterator[Step | Row], device: torch.device) -> list[float]:
    """Seconds of each of the first steps, of at most one epoch."""
    start = time.perf_counter()
    moments: list[float] = []
    for item in training:
        if not isinstance(item, Step):
            moments.append(item.get("epoch_s", 0.0))  # the end of its last step
            break
        synchronize(device)
        moments.append(time.perf_counter() - start)
        if len(moments) > STEPS + 1 or moments[-1] > MOST_S:
            break
    return [after - before for before, after in pairwise(moments)]


def _share(point: EvaluationPoint, batch_size: int, passes: int) -> float:
    """The forward passes that a point takes, as a share of those over all held-out data."""
    if point.batch_size is not None:
        return -(-(point.test_size or passes * batch_size) // point.batch_size) / passes
    return min(1.0, -(-point.test_size // batch_size) / passes) if point.test_size else 1.0


def _relative_cost(trial: Trial, point: EvaluationPoint) -> float:
    """The cost of a pass under a point's solver relative to the training solver's, by evaluations.

    1 if the evaluations cannot be predicted; 0 for gradients, which use only a few samples.
    """
    trained, span = trial.spec.solver, trial.spec.model.span
    if point.gradient:
        return 0.0
    if trained is None or span is None or trained.adapt or trained.facts.kind != "fixed":
        return 1.0
    other = point.solver(trained, span)
    if other.facts.kind != "fixed":
        return 1.0
    there, here = ((s.stages or 1) * s.step_count(span) for s in (other, trained))
    return there / here
