from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from nodebench.api import run
from nodebench.data.load import load_data
from nodebench.errors import ResourceError
from nodebench.execution.runner import Monitor
from nodebench.models.build import build
from nodebench.models.device import to_device
from nodebench.ode.block import ode_blocks, share_memory
from nodebench.spec import TrialSpec
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny

CPU = torch.device("cpu")
DIGITS = {
    "data": {"name": "digits", "train_size": 100, "test_size": 50},
    # Norms over so few pixels make gradients that rounding the weights once changes by a third.
    "model": {"name": "odenet", "width": 8, "norm": "nf"},
    "solver": {"method": "rk4", "steps": 2},
    "train": {"epochs": 2, "batch_size": 32, "precision": "bf16"},
}


def network(precision: str, gradient: str = "backprop", **changes):
    spec = TrialSpec.model_validate({**DIGITS, "gradient": gradient, **changes})
    data = load_data(spec, None)
    torch.manual_seed(0)
    model = to_device(build(spec, data), CPU, precision)
    share_memory(model, 2**30)
    return model, torch.rand(16, 1, 16, 16), torch.arange(16) % 10


def gradient_of(model, inputs, targets):
    logits = model(inputs)
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, targets).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_the_state_is_float32_and_the_convolutions_bfloat16():
    model, inputs, _ = network("bf16")
    [block] = ode_blocks(model)
    states, outputs = [], []
    block.f.register_forward_pre_hook(lambda _f, inputs: states.append(inputs[1].dtype))
    convolution = model.stem[0]
    convolution.register_forward_hook(lambda _c, _i, output: outputs.append(output.dtype))
    model(inputs)
    assert set(states) == {torch.float32}
    assert set(outputs) == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["backprop", "recompute", "exact", "adjoint"])
def test_gradients_are_those_of_float32_to_three_digits(name):
    found, expected = (gradient_of(*network(p, name)) for p in ("bf16", "float32"))
    error = (found - expected).norm() / expected.norm()
    assert 1e-5 < error < 0.03


def test_a_field_of_dense_layers_computes_in_bfloat16_too():
    small = {"data": "spheres", "model": "plainode", "gradient": "backprop"}
    model, *_ = network("bf16", **small)
    reference, *_ = network("float32", **small)
    batch = torch.rand(16, 2), torch.arange(16) % 2
    found, expected = (gradient_of(m, *batch) for m in (model, reference))
    assert 1e-5 < (found - expected).norm() / expected.norm() < 0.05


def test_a_copy_in_double_is_double_throughout():
    model, *_ = network("bf16")
    twin = copy.deepcopy(model).double()
    y = torch.rand(2, 8, 4, 4, dtype=torch.float64)
    [block], [own] = ode_blocks(twin), ode_blocks(network("float32")[0].double())
    own.load_state_dict(block.state_dict())
    torch.testing.assert_close(block(y), own(y), rtol=1e-12, atol=0)


def test_a_failure_leaves_autocast():
    model, inputs, _ = network("bf16")
    [block] = ode_blocks(model)
    block.max_evaluations = 1
    with pytest.raises(Exception, match="more than 1 evaluations"):
        model(inputs)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.usefixtures("coarse_reference")
def test_a_trial_trains_and_is_evaluated(tmp_path):
    gradients = {"gradients": ["adjoint"]}
    blocks = [{"methods": ["euler"], "steps": [4], **more} for more in ({}, gradients)]
    sweep = tiny(tmp_path, base=DIGITS, evaluate=blocks)
    store, [trial] = Store(tmp_path / "runs"), sweep.trials
    assert run_trial(trial, store, options(sweep, tmp_path)).outcome == "finished"
    outcomes = {row["outcome"] for row in store.folder(trial.id).evaluations()}
    assert outcomes == {"finished"}
    both = tiny(tmp_path, base=DIGITS, grid={"train.precision": ["float32", "bf16"]}).trials
    assert len({each.id for each in both} - {trial.id}) == 1


def test_tf32_is_of_gpus(tmp_path):
    sweep = tiny(tmp_path, base={**TINY, "train": {**TINY["train"], "precision": "tf32"}})
    with pytest.raises(ResourceError, match="needs a GPU; on a CPU it is the same as float32"):
        run(sweep, Store(tmp_path / "runs"), Monitor(), inline=True)
