"""Steps as CUDA graphs: on a GPU whether they are the same steps, elsewhere who would take them."""

from __future__ import annotations

import time

import pytest
import torch

from nodebench.data.load import load_data
from nodebench.models.build import build
from nodebench.models.device import to_device
from nodebench.ode.block import share_memory
from nodebench.planning import RunOptions
from nodebench.spec import TrialSpec
from nodebench.spec.identity import Cell
from nodebench.sweep.file import Resources
from nodebench.training.loop import new_state
from nodebench.training.steps.cuda_graph import WARM_STEPS, CudaGraphSteps, graph_of
from nodebench.training.steps.step import Step
from nodebench.training.tasks.table import task_for

DIGITS = {
    "data": {"name": "digits", "train_size": 96, "test_size": 50},
    "model": {"name": "odenet", "width": 8, "norm": "bn"},
    "solver": {"method": "euler", "steps": 20},
    "train": {"epochs": 4, "batch_size": 32, "schedule": {"name": "cosine"}},
}


def training(device: str, **changes):
    """A state, and a function that gives its next step."""
    spec = TrialSpec.model_validate({**DIGITS, **changes})
    data = load_data(spec, None).to(torch.device(device))
    model = to_device(build(spec, data), torch.device(device)).train()
    share_memory(model, 2**32)
    state, task = new_state(model, spec), task_for(data, spec)
    batches = [batch for epoch in range(4) for batch in task.batches(epoch)]
    return state, (Step(state, task, batch) for batch in batches)


def test_a_cpu_takes_steps_as_they_are(tmp_path):
    trial = Cell(TrialSpec.model_validate(DIGITS)).trial(0)
    assert graph_of(trial, RunOptions(tmp_path)) is None


def test_a_gpu_records_what_is_always_the_same(tmp_path):
    on_gpu = RunOptions(tmp_path, Resources(gpus=1))
    trial = Cell(TrialSpec.model_validate(DIGITS)).trial(0)
    assert isinstance(graph_of(trial, on_gpu), CudaGraphSteps)
    adaptive = Cell(TrialSpec.model_validate({**DIGITS, "solver": {"method": "dopri5"}})).trial(0)
    assert graph_of(adaptive, on_gpu) is None


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["backprop", "exact"])
@pytest.mark.parametrize("model", ["bn", "gn", "ln"])
def test_recorded_steps_are_the_steps(model, gradient):
    changes = {"model": {**DIGITS["model"], "norm": model}, "gradient": gradient}
    (plain, expected), (graphed, steps) = (training("cuda", **changes) for _ in range(2))
    taker, taken = CudaGraphSteps(), 0
    for one, other in zip(expected, steps, strict=True):
        one.take()
        taker.take([other])
        taken += other.taken
        other.take()
    assert taken >= 12 - WARM_STEPS - 1
    assert plain.sums.forward == graphed.sums.forward
    torch.testing.assert_close(plain.sums.loss, graphed.sums.loss, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        plain.model.state_dict(), graphed.model.state_dict(), rtol=1e-2, atol=1e-3
    )


@pytest.mark.gpu
def test_a_batch_of_another_shape_is_taken_as_it_is():
    data = {**DIGITS["data"], "train_size": 90}
    _, steps = training("cuda", data=data)
    taker, taken = CudaGraphSteps(), []
    for step in steps:
        taker.take([step])
        taken.append(step.taken)
        step.take()
    assert taken[5::3] == [False] * len(taken[5::3])  # the last of each epoch, of 26
    assert taken[6] and taken[7]


@pytest.mark.gpu
def test_recorded_steps_are_faster():
    seconds = {}
    for name, taker in (("plain", None), ("graph", CudaGraphSteps())):
        _, steps = training("cuda")
        for number, step in enumerate(steps):
            if number == WARM_STEPS + 2:
                torch.cuda.synchronize()
                start = time.perf_counter()
            if taker:
                taker.take([step])
            step.take()
        torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - start
    assert seconds["graph"] < seconds["plain"]
