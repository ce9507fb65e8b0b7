from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nodebench.models.dynamics import TimeConv
from nodebench.ode.block import ODEBlock, share_memory
from nodebench.ode.gradients.exact import exact_form, kept_bytes
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny

EULER = Solver(method="euler", steps=8)


class Field(nn.Module):
    """tanh(norm(W y))."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh()
            )

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        return self.layers(y)


def taken(name: str, memory_bytes: float = float("inf")) -> tuple[list[Tensor], ODEBlock]:
    """The gradients of a solve, and the block afterwards."""
    block = ODEBlock(Field(), EULER, Gradient(name=name))
    block.memory.bytes = memory_bytes
    torch.manual_seed(1)
    y0 = torch.randn(6, 4, requires_grad=True)
    block(y0).square().sum().backward()
    return [y0.grad, *(p.grad for p in block.parameters()), *block.buffers()], block


def test_what_an_evaluation_keeps_is_counted_without_its_parameters():
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1000))

        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return (y * self.factor).tanh()

    # y for the factor's gradient, and the tanh's output.
    assert kept_bytes(Square(), torch.randn(3, 1000), 0.0) == 2 * 3 * 1000 * 4


def test_filters_that_a_solve_splits_once_are_not_kept_by_each_evaluation():
    f = TimeConv(nn.Conv2d(3, 2, 3, padding=1))
    y = torch.randn(5, 2, 4, 4)
    # y for the filters' gradient; the filters themselves are there for all evaluations.
    assert kept_bytes(f, y, 0.0) == y.numel() * 4


@pytest.mark.parametrize(("evaluations_kept", "form"), [(16, "backprop"), (15.9, "recompute")])
def test_the_graph_may_fill_half_of_the_memory(evaluations_kept, form):
    f, y0 = Field(), torch.randn(6, 4)
    memory = evaluations_kept * kept_bytes(f, y0, 0.0)  # Euler, 8 steps: twice as much
    assert exact_form(f, y0, (0.0, 1.0), EULER, memory) == form


@pytest.mark.parametrize(("memory_bytes", "form"), [(float("inf"), "backprop"), (0, "recompute")])
def test_either_form_gives_the_gradients_and_buffers_of_backprop(memory_bytes, form):
    expected, _ = taken("backprop")
    found, block = taken("exact", memory_bytes)
    assert block.exact_forms == {EULER: form}
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_a_gradient_nothing_is_decided():
    block = ODEBlock(Field(), EULER, Gradient(name="exact"))
    with torch.no_grad():
        block(torch.randn(6, 4))
    assert block.exact_forms == {}


def test_blocks_share_a_trial_s_memory():
    model = nn.Sequential(*(ODEBlock(Field(), EULER, Gradient()) for _ in range(4)))
    share_memory(model, 1000)
    assert [block.memory.bytes for block in model] == [250] * 4


def test_a_trial_says_which_form_it_took(tmp_path, monkeypatch):
    results, rows = {}, {}
    for name in ("backprop", "exact"):
        sweep = tiny(tmp_path, base={**TINY, "gradient": name})
        store = Store(tmp_path / name)
        (trial,) = sweep.trials
        results[name] = run_trial(trial, store, options(sweep, tmp_path))
        rows[name] = store.folder(trial.id).history()[-1]["train_loss"]
    assert rows["exact"] == rows["backprop"]
    assert results["exact"].tags == {"exact_gradient": "backprop"}
    assert results["backprop"].tags == {}
    monkeypatch.setattr("nodebench.training.preparation.memory_of_trial", lambda _gpus: 0)
    store = Store(tmp_path / "small")
    result = run_trial(trial, store, options(sweep, tmp_path))
    assert result.tags == {"exact_gradient": "recompute"}
    assert store.folder(trial.id).history()[-1]["train_loss"] == rows["backprop"]
