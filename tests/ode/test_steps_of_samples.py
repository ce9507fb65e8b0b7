"""Solves in which each sample has steps of its own: what each needs, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit, FieldError, StepUnderflow
from nodebench.models.dynamics import Dynamics
from nodebench.models.layers.factory import LayerFactory
from nodebench.ode.block import ODEBlock, one_pass
from nodebench.spec.gradient import Gradient
from tests.support.controlled_solves import TIMES, Stiff, Turning, by, solved, uneven
from tests.support.tiny_fields import Field, gradients, start


@pytest.mark.parametrize(
    ("controller", "method", "times"),
    [
        *((controller, "dopri5", times) for controller in ("i", "pi") for times in TIMES),
        *((controller, "tsit5", TIMES[1]) for controller in ("i", "pi")),
        ("i", "bosh3", TIMES[1]),
    ],
)
def test_a_sample_is_solved_as_if_it_were_alone(
    controller: str, method: str, times: tuple[float, ...]
) -> None:
    solver, y0 = by("sample", method, controller=controller), uneven()
    # What rounds otherwise in a batch changes an error of 1e-10 by 1e-6 of it, and that the step.
    near = 1e-12 if controller == "i" else 1e-10
    states, evaluations, counts = solved(solver, y0, times, Turning)
    assert counts.of_samples is not None
    assert evaluations >= counts.of_samples.max()
    for i in range(len(y0)):
        alone, own, its_counts = solved(solver, y0[i : i + 1], times, Turning)
        torch.testing.assert_close(states[:, i : i + 1], alone, rtol=near, atol=near)
        assert its_counts.of_samples is not None
        assert counts.of_samples[i] == its_counts.of_samples[0] == own


def test_a_stiff_sample_takes_no_steps_of_others() -> None:
    easy = torch.tensor([[0.1, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    hard = torch.cat((easy, torch.tensor([[500.0, 1.0]], dtype=torch.float64)))
    _, _, before = solved(by("sample"), easy, field=Stiff)
    _, evaluations, after = solved(by("sample"), hard, field=Stiff)
    assert before.of_samples is not None
    assert after.of_samples is not None
    assert after.of_samples[:3].tolist() == before.of_samples.tolist()
    assert after.of_samples[3] == evaluations > 10 * int(after.of_samples[0])
    _, of_batch, _ = solved(by("batch"), hard, field=Stiff)
    assert of_batch > 10 * int(after.of_samples[0])  # what every sample pays for


def test_fields_of_nodebench_are_called_for_samples_that_are_not_done() -> None:
    sizes: list[int] = []

    class Seen(Stiff):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            sizes.append(len(y))
            return super().forward(t, y)

    class Whole(Seen):
        takes_rows = False

    y0 = torch.tensor([[0.1, 1.0], [50.0, 1.0]], dtype=torch.float64)
    rows, evaluations, counts = solved(by("sample"), y0, (0.0, 0.5, 1.0), Seen)
    assert {1, 2} == set(sizes[-evaluations:])
    assert counts.of_samples is not None
    assert sum(sizes[-evaluations:]) == int(counts.of_samples.sum())
    whole, same, _ = solved(by("sample"), y0, (0.0, 0.5, 1.0), Whole)
    assert same == evaluations
    assert set(sizes[-evaluations:]) == {2}
    torch.testing.assert_close(rows, whole, rtol=1e-13, atol=1e-13)


def test_convolutions_of_time_take_a_time_for_each_sample() -> None:
    torch.manual_seed(0)
    f = Dynamics("prenorm", 4, LayerFactory("gn")).double().eval()
    block = ODEBlock(f, by("sample", "tsit5", 1e-4), Gradient())
    y0 = torch.randn(3, 4, 6, 6, dtype=torch.float64) * torch.tensor([0.1, 1, 5]).view(3, 1, 1, 1)
    with torch.no_grad():
        states = block(y0)
        for i in range(3):
            torch.testing.assert_close(
                states[i : i + 1], block(y0[i : i + 1]), rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("above", [0.5, 1.5])
def test_one_sample_that_is_not_finite_ends_the_solve(above: float, factor: float) -> None:
    class Bad(nn.Module):
        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return y * torch.where(y > above, factor, 1.0)

    y0 = torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    with pytest.raises(Diverged if above < 1 else (Diverged, StepUnderflow)):
        solved(by("sample"), y0, field=Bad)


def test_underflow_names_the_step_of_the_samples_that_are_stuck() -> None:
    class Squared(nn.Module):
        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return y * y

    y0 = torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    with pytest.raises(StepUnderflow, match=r"fell to \d\.\de-1\d"):
        solved(by("sample"), y0, (0.0, 2.0), field=Squared)


def test_calls_of_f_for_the_whole_batch_are_limited() -> None:
    block = ODEBlock(Stiff(), by("sample"), Gradient())
    block.max_evaluations = 100
    with pytest.raises(EvaluationLimit, match="more than 100 evaluations"):
        block(torch.tensor([[0.1, 1.0], [5000.0, 1.0]], dtype=torch.float64))


def test_a_field_that_mixes_samples_is_refused() -> None:
    class Mean(nn.Module):
        def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
            return y - y.mean(0)

    with pytest.raises(FieldError, match="depends on the other samples"):
        solved(by("sample"), uneven(), field=Mean)
    block = ODEBlock(Field(nn.BatchNorm1d(8)).train(), by("sample"), Gradient())
    with pytest.raises(FieldError, match="batch norm inside f"):
        block(uneven())
    block.eval()(uneven())


def test_a_field_that_cannot_take_a_time_for_each_sample_is_refused() -> None:
    class OneTime(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return y * float(t)

    with pytest.raises(FieldError, match=r"a time for each sample, of shape \[5, 1\]"):
        solved(by("sample"), uneven(), field=OneTime)
    solved(by("batch"), uneven(), field=OneTime)


def test_a_pass_counts_its_own_evaluations_and_steps() -> None:
    block = ODEBlock(Field(), by("sample"), Gradient(name="recompute"))
    block(start()).sum().backward()
    with one_pass(block) as nothing:
        pass
    with one_pass(block) as forward:
        block(start())
    assert (nothing.nfe, nothing.steps) == (0, None)
    assert forward.evaluations[0] > 0
    assert forward.steps is not None
    assert gradients(block)
