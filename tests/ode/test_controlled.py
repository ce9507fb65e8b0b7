"""Solves whose steps are chosen here: one a batch, or one of each sample's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import Diverged, EvaluationLimit, FieldError, StepUnderflow
from nodebench.models.dynamics import Dynamics
from nodebench.models.layers import LayerFactory
from nodebench.ode.adaptive.counts import StepCounts
from nodebench.ode.block import ODEBlock, steps_taken, take_evaluations
from nodebench.ode.embedded import EMBEDDED
from nodebench.ode.field import Counted
from nodebench.ode.field import Field as OwnField
from nodebench.ode.fixed import integrate
from nodebench.ode.gradients.recorded_steps import traced
from nodebench.ode.steppers import stepper_of
from nodebench.spec.solver import Gradient, Solver
from tests.support.ode_problems import DECAY, LOGISTIC
from tests.support.tiny_fields import Field, gradients, start, taken

TIMES = [(0.0, 1.0), (0.0, 0.3, 0.5, 1.0), (1.0, 0.5, 0.0)]
IN_TORCHDIFFEQ = ["adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8"]


def by(step: str, method: str = "dopri5", tol: float = 1e-5, **control: object) -> Solver:
    return Solver(method=method, tol=tol, control={"step": step, **control})


def solved(
    solver: Solver, y0: Tensor, times: Sequence[float] = (0.0, 1.0), field: type[nn.Module] = Field
) -> tuple[Tensor, int, StepCounts]:
    block = ODEBlock(field(), solver, Gradient())
    with torch.no_grad():
        states = block.trajectory(y0.detach(), times)
    counts = steps_taken(block)
    assert counts is not None
    return states, block.evaluations, counts


def uneven() -> Tensor:
    """A batch of samples that need different steps."""
    return start(5).detach() * torch.tensor([[0.1], [1.0], [2.0], [5.0], [20.0]]).double()


# --------------------------------------------------------------------- one a batch: torchdiffeq's


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", IN_TORCHDIFFEQ)
def test_one_step_a_batch_is_torchdiffeqs_solve(method: str, times: tuple[float, ...]) -> None:
    ours = solved(by("batch", method), uneven(), times)
    theirs = solved(Solver(method=method, tol=1e-5), uneven(), times)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    assert ours[1:] == theirs[1:]


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", IN_TORCHDIFFEQ)
def test_a_batch_of_one_sample_with_steps_of_its_own_is_too(
    method: str, times: tuple[float, ...]
) -> None:
    states, evaluations, counts = solved(by("sample", method), uneven()[3:4], times)
    theirs = solved(Solver(method=method, tol=1e-5), uneven()[3:4], times)
    torch.testing.assert_close(states, theirs[0], rtol=1e-12, atol=1e-12)
    assert evaluations == theirs[1]
    assert (counts.accepted, counts.rejected) == (theirs[2].accepted, theirs[2].rejected)
    assert counts.of_samples is not None
    assert counts.of_samples.tolist() == [evaluations]


def test_steps_of_torchdiffeqs_solvers_are_counted() -> None:
    _, evaluations, counts = solved(Solver(method="dopri5", tol=1e-9), uneven(), field=Turning)
    assert counts.rejected > 0
    assert evaluations == 2 + 6 * (counts.accepted + counts.rejected)


class Turning(Field):
    """A field whose speed changes in time, by more than a growing step expects."""

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return super().forward(t, y) * (1 + 10 * torch.exp(-200 * (torch.as_tensor(t) - 0.5) ** 2))


# ------------------------------------------------------------------------------ tsit5, and orders


def elementary_weights(b: np.ndarray, a: np.ndarray) -> dict[int, list[float]]:
    """What the conditions of each order are off by."""
    c = a.sum(1)
    ac, acc = a @ c, a @ c**2
    return {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ ac - 1 / 6],
        4: [b @ c**3 - 1 / 4, b @ (c * ac) - 1 / 8, b @ acc - 1 / 12, b @ a @ ac - 1 / 24],
        5: [
            b @ c**4 - 1 / 5, b @ (c**2 * ac) - 1 / 10, b @ ac**2 - 1 / 20, b @ (c * acc) - 1 / 15,
            b @ a @ c**3 - 1 / 20, b @ (c * (a @ ac)) - 1 / 30, b @ a @ (c * ac) - 1 / 40,
            b @ a @ acc - 1 / 60, b @ a @ a @ ac - 1 / 120,
        ],
    }  # fmt: skip


def test_tsit5_has_order_five_and_an_estimate_of_order_four() -> None:
    tableau = EMBEDDED["tsit5"]
    a = np.zeros((7, 7))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    assert np.abs(a.sum(1) - tableau.c).max() < 1e-14
    b, e = np.array(tableau.b), np.array(tableau.e)
    for order, off in elementary_weights(b, a).items():
        assert np.abs(off).max() < 1e-14, order
    embedded = elementary_weights(b - e, a)
    assert max(np.abs(embedded[order]).max() for order in (1, 2, 3, 4)) < 1e-14
    assert np.abs(embedded[5]).max() > 1e-4
    assert (a[-1] == b).all()


@pytest.mark.parametrize("method", ["dopri5", "tsit5"])
def test_its_steps_converge_with_order_five(method: str) -> None:
    def error(n: int) -> float:
        grid = [i / n for i in range(n + 1)]
        f = lambda t, y: (DECAY.f(t, y[0]),)  # noqa: E731
        solver = Solver(method=method, tol=1e-3)
        ((y,),) = integrate(f, (DECAY.y0,), [grid], stepper_of(solver))[-1:]
        return float((y - DECAY.exact(1.0)).abs().max())

    assert math.log2(error(16) / error(32)) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("step", ["batch", "sample"])
@pytest.mark.parametrize("controller", ["i", "pi"])
def test_errors_follow_the_tolerance(controller: str, step: str) -> None:
    for tol in (1e-3, 1e-6, 1e-9):
        solver = by(step, "tsit5", tol, controller=controller)
        states, _, _ = solved(solver, LOGISTIC.y0[:, None], field=Logistic)
        error = (states[-1].squeeze(1) - LOGISTIC.exact(1.0)).abs().max()
        assert tol / 1000 < error < 6 * tol


class Logistic(nn.Module):
    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        return LOGISTIC.f(t, y)


# -------------------------------------------------------------------------- each sample on its own


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5"])
@pytest.mark.parametrize("controller", ["i", "pi"])
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


class Stiff(OwnField):
    """y' = -rate y, the first component, for the second."""

    def forward(self, _t: float | Tensor, y: Tensor) -> Tensor:
        rate, value = y.unbind(1)
        return torch.stack((torch.zeros_like(rate), -rate * value), 1)


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


# ------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "bosh3", "adaptive_heun"])
@pytest.mark.parametrize("gradient", ["aca", "recompute", "exact"])
def test_gradients_of_samples_steps_are_backprops(
    gradient: str, method: str, times: tuple[float, ...]
) -> None:
    solver = by("sample", method, 1e-4)
    found = taken(solver, Gradient(name=gradient), Turning, times)
    expected = taken(solver, Gradient(), Turning, times)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("step", ["batch", "sample"])
def test_backprop_is_the_slope_of_the_accepted_steps(step: str) -> None:
    """Finite differences along the steps that were accepted, in float64."""
    block = ODEBlock(Turning(), by(step, "tsit5", 1e-4), Gradient())
    y0 = start()
    gradient = torch.autograd.grad(block(y0).square().sum(), y0)[0]
    trace = traced(Counted(block.f, lambda: None), y0.detach(), (0.0, 1.0), block.solver)
    f = lambda t, y: (block.f(t, y[0]),)  # noqa: E731

    def loss(y: Tensor) -> float:
        carry = trace.stepper.start(f, 0.0, (y,))
        for each in trace.intervals[0]:
            carry = trace.stepper.step(f, each.t, each.h, carry)
        return float(carry[0][0].square().sum())

    with torch.no_grad():
        for i, j in ((0, 0), (2, 1), (4, 2)):
            shift = torch.zeros_like(y0)
            shift[i, j] = 1e-6
            slope = (loss(y0 + shift) - loss(y0 - shift)) / 2e-6
            assert float(gradient[i, j]) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("gradient", ["adjoint", "symplectic", "interpolated", "aca", "recompute"])
def test_one_step_a_batch_takes_every_gradient_of_embedded_methods(gradient: str) -> None:
    solver = by("batch", "tsit5", 1e-9)
    found = taken(solver, Gradient(name=gradient), times=(0.0, 0.4, 1.0))
    expected = taken(solver, Gradient(), times=(0.0, 0.4, 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_adjoint_of_samples_steps_takes_one_step_a_batch() -> None:
    solver = by("sample", "tsit5", 1e-9)
    assert Gradient(name="adjoint").backward(solver) == by("batch", "tsit5", 1e-9)
    found = taken(solver, Gradient(name="adjoint"), times=(0.0, 0.4, 1.0))
    expected = taken(solver, Gradient(), times=(0.0, 0.4, 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_try_that_is_not_finite_leaves_no_trace_in_the_gradient() -> None:
    class Falling(nn.Module):
        """One sample is thrown below 0, where its slope is not a number, by steps too long."""

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -torch.where((t > 0.5) & (y > 3), 1e3, 0.1) * torch.log(y)

    found = {}
    for name in ("backprop", "aca"):
        y0 = torch.tensor([[5.0], [2.0]], dtype=torch.float64, requires_grad=True)
        block = ODEBlock(Falling(), by("sample", "dopri5", 1e-3), Gradient(name=name))
        y = block(y0)
        counts = steps_taken(block)
        assert counts is not None
        assert counts.rejected > 0
        found[name] = torch.autograd.grad(y.sum(), y0)[0]
    assert found["aca"].isfinite().all()
    torch.testing.assert_close(found["backprop"], found["aca"], rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------- failures and refusals


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


def test_evaluations_and_steps_are_taken_together() -> None:
    block = ODEBlock(Field(), by("sample"), Gradient(name="recompute"))
    block(start()).sum().backward()
    assert take_evaluations(block)[0] > 0
    assert steps_taken(block) is None
    assert gradients(block)
