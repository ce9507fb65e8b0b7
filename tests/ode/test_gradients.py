from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nodebench.ode.block import ODEBlock
from nodebench.ode.solve import solve
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import GRADIENTS
from tests.support.ode_problems import DECAY
from tests.support.tiny_fields import (
    DOPRI5,
    FIXED,
    RK4,
    Field,
    gradients,
    rk4_for,
    start,
    taken,
)

# --------------------------------------------------------------------------------- recompute


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.3, 1.0)])
@pytest.mark.parametrize(
    "solver",
    [Solver(method="euler", steps=3), RK4, DOPRI5, Solver(method="implicit_adams", steps=8)],
    ids=lambda solver: solver.method,
)
def test_recompute_is_backprop_to_rounding(solver: Solver, times: tuple[float, ...]) -> None:
    torch.testing.assert_close(
        taken(solver, Gradient(name="recompute"), times=times),
        taken(solver, Gradient(name="backprop"), times=times),
        rtol=1e-13,
        atol=1e-13,
    )


def with_batch_norm() -> Field:
    return Field(nn.BatchNorm1d(8))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("solver", [RK4, DOPRI5], ids=["rk4", "dopri5"])
def test_recompute_is_backprop_in_a_field_with_batch_norm(solver: Solver, mode: str) -> None:
    def field() -> nn.Module:
        f = with_batch_norm()
        f.between[0].running_mean.fill_(0.3)
        return f.train(mode == "train")

    torch.testing.assert_close(
        taken(solver, Gradient(name="recompute"), field),
        taken(solver, Gradient(name="backprop"), field),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("solver", [RK4, DOPRI5], ids=["rk4", "dopri5"])
@pytest.mark.parametrize("name", ["recompute", "adjoint"])
def test_a_backward_pass_does_not_move_batch_statistics(name: str, solver: Solver) -> None:
    def buffers(name: str, *, backward: bool) -> list[Tensor]:
        block = ODEBlock(with_batch_norm(), solver, Gradient(name=name))
        if backward:
            gradients(block)
        else:
            block(start())
        return list(block.buffers())

    expected = buffers("backprop", backward=True)
    assert expected[2].item() >= 20  # num_batches_tracked: one an evaluation
    torch.testing.assert_close(buffers(name, backward=False), expected, rtol=0, atol=0)
    torch.testing.assert_close(buffers(name, backward=True), expected, rtol=0, atol=0)


def running_means(gradient: Gradient) -> list[Tensor]:
    """The running mean after a step, and as worked out from what batch norm saw, in order."""
    steps = 4
    block = ODEBlock(with_batch_norm(), Solver(method="euler", steps=steps), gradient)
    twin, seen = with_batch_norm(), []
    twin.between.register_forward_pre_hook(lambda _layer, x: seen.append(x[0].mean(0)))
    with torch.no_grad():
        forward = y = start().detach()
        for k in range(steps):
            forward = forward + twin(k / steps, forward) / steps
        if gradient.update_batch_norm and gradient.name == "recompute":
            for k in range(steps):
                y = y + twin(k / steps, y) / steps
        elif gradient.update_batch_norm:  # the adjoint goes back from t = 1
            for k in range(steps):
                forward = forward - twin(1 - k / steps, forward) / steps
    expected = torch.zeros(8, dtype=torch.float64)
    for mean in seen:
        expected = 0.9 * expected + 0.1 * mean
    gradients(block)
    assert block.f.between[0].num_batches_tracked == len(seen)
    return [block.f.between[0].running_mean, expected]


@pytest.mark.parametrize("update", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", ["recompute", "adjoint"])
def test_running_statistics_are_of_the_evaluations_that_update_them(
    name: str, *, update: bool
) -> None:
    found, expected = running_means(Gradient(name=name, update_batch_norm=update))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["recompute", "adjoint"])
def test_updating_batch_norm_in_the_backward_pass_leaves_the_gradient_as_it_is(name: str) -> None:
    def field() -> Field:
        return Field(parametrizations.spectral_norm(nn.Linear(8, 8)), nn.BatchNorm1d(8))

    # A spectral norm that went on in a backward pass would change the gradient.
    found, expected = (
        gradients(ODEBlock(seeded(field), RK4, Gradient(name=name, update_batch_norm=update)))
        for update in (True, False)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["backprop", "exact"])
def test_batch_norm_is_updated_only_by_gradients_that_always_evaluate_again(name: str) -> None:
    # `exact` does so where memory asks for it, and no result may depend on memory.
    with pytest.raises(ValidationError, match="is a setting of `adjoint` and `recompute`"):
        Gradient(name=name, update_batch_norm=True)


def seeded(make: Callable[[], Field]) -> Field:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def test_two_recomputed_blocks_in_a_row_are_backprop() -> None:
    def found(name: str) -> list[Tensor]:
        blocks = nn.Sequential(
            *(ODEBlock(with_batch_norm(), RK4, Gradient(name=name)) for _ in range(2))
        )
        y0 = start()
        blocks(y0).square().sum().backward()
        return [y0.grad, *(p.grad for p in blocks.parameters()), *blocks.buffers()]

    torch.testing.assert_close(found("recompute"), found("backprop"), rtol=1e-12, atol=1e-12)


def test_one_block_used_twice_is_recomputed_with_its_own_buffers() -> None:
    def found(name: str) -> list[Tensor]:
        block = ODEBlock(with_batch_norm(), RK4, Gradient(name=name))
        y0 = start()
        block(block(y0)).square().sum().backward()
        return [y0.grad, *(p.grad for p in block.parameters()), *block.buffers()]

    torch.testing.assert_close(found("recompute"), found("backprop"), rtol=1e-12, atol=1e-12)


def test_recompute_repeats_the_dropout_of_the_forward_pass() -> None:
    def found(name: str) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return taken(RK4, Gradient(name=name), lambda: Field(nn.Dropout(0.5)))

    torch.testing.assert_close(found("recompute"), found("backprop"), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------ output times


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_flows_from_each_output_time(name: str) -> None:
    for index, t in enumerate((0.0, 0.4, 1.0)):
        y0 = DECAY.y0.clone().requires_grad_()
        f = nn.Module()
        f.forward = lambda t, y: DECAY.f(t, y)
        block = ODEBlock(f, rk4_for(name, steps=16), Gradient(name=name))
        block.trajectory(y0, (0.0, 0.4, 1.0))[index].sum().backward()
        expected = torch.full_like(y0, -0.7 * t).exp()
        assert y0.grad is not None
        torch.testing.assert_close(y0.grad, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------- weight norms


def with_weight_norm(norm: Callable[[nn.Module], nn.Module]) -> Field:
    field = Field()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm(field.first)
        norm(field.last)
    return field.double()


WEIGHT_NORMS = [parametrizations.weight_norm, parametrizations.spectral_norm]


@pytest.mark.parametrize("norm", WEIGHT_NORMS)
@pytest.mark.parametrize("solver", [RK4, DOPRI5], ids=["rk4", "dopri5"])
def test_recompute_is_backprop_under_a_weight_norm(solver: Solver, norm: Callable) -> None:
    found, expected = (
        gradients(ODEBlock(with_weight_norm(norm), solver, Gradient(name=name)))
        for name in ("recompute", "backprop")
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", WEIGHT_NORMS)
def test_a_fine_adjoint_is_backprop_under_a_weight_norm(norm: Callable) -> None:
    fine = Solver(method="dopri5", tol=1e-9)
    found, expected = (
        gradients(ODEBlock(with_weight_norm(norm), fine, Gradient(name=name)))
        for name in ("adjoint", "backprop")
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_solve_and_its_backward_pass_iterate_a_spectral_norm_once(name: str) -> None:
    def vector(field: Field) -> Tensor:
        return field.first.parametrizations.weight[0]._u.clone()

    field, once = (with_weight_norm(parametrizations.spectral_norm) for _ in range(2))
    once.first.weight  # noqa: B018 - one power iteration
    ODEBlock(field, rk4_for(name), Gradient(name=name))(start()).sum().backward()
    assert torch.equal(vector(field), vector(once))
    assert all(part.training for part in field.modules())


# -------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "solver"),
    [(name, solver) for name in GRADIENTS for solver in (rk4_for(name), DOPRI5)
     if name != "reversible" or solver is not DOPRI5],
)  # fmt: skip
def test_a_parameter_that_f_does_not_use_has_no_gradient(name: str, solver: Solver) -> None:
    block = ODEBlock(Field(), solver, Gradient(name=name))
    block.f.idle = nn.Parameter(torch.ones(4, dtype=torch.float64))
    found = gradients(block)
    assert found["f.first.weight"].abs().sum() > 0
    assert block.f.idle.grad is None or not block.f.idle.grad.any()


@pytest.mark.parametrize("name", GRADIENTS)
def test_frozen_parameters_stay_without_gradient_and_disturb_no_other(name: str) -> None:
    block = ODEBlock(Field(), rk4_for(name), Gradient(name=name))
    everything = gradients(block)
    block.f.first.weight.grad = None
    block.f.first.weight.requires_grad_(requires_grad=False)
    found = gradients(block)
    assert block.f.first.weight.grad is None
    del everything["f.first.weight"]
    torch.testing.assert_close(found, everything, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_block_behind_data_has_gradients_of_its_parameters(name: str) -> None:
    def found(*, input_needs_gradient: bool) -> list[Tensor]:
        block = ODEBlock(Field(), rk4_for(name), Gradient(name=name))
        block(start().detach().requires_grad_(input_needs_gradient)).square().sum().backward()
        return [p.grad for p in block.parameters()]

    torch.testing.assert_close(
        found(input_needs_gradient=False), found(input_needs_gradient=True), rtol=0, atol=0
    )


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.3, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("method", FIXED)
def test_backprop_through_a_fixed_solve_passes_gradcheck(
    method: str, times: tuple[float, ...]
) -> None:
    weight = torch.tensor([[0.5, -1.0], [0.8, 0.2]], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[0.3, -0.7]], dtype=torch.float64, requires_grad=True)

    def trajectory(y0: Tensor, weight: Tensor) -> Tensor:
        states = solve(
            lambda t, y: (torch.tanh(y[0] @ weight + t),),
            (y0,),
            times,
            Solver(method=method, steps=3),
        ).states
        return torch.stack([y for (y,) in states])

    assert torch.autograd.gradcheck(trajectory, (y0, weight))
