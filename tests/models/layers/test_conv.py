"""Tests of models/layers/conv.py."""

import pytest
import torch
from torch import Tensor, nn

from nodebench.models.layers.conv import Conv2d, can_convolve

LAST = torch.channels_last
PRECISIONS = [(torch.float64, 1e-12), (torch.float32, 3e-6)]


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    return x.to(memory_format=LAST).requires_grad_()


def convolutions(
    inputs: int, outputs: int, dtype: torch.dtype = torch.float64, *, bias: bool = True
) -> tuple[Conv2d, nn.Conv2d]:
    """Ours and torch's, of the same weights."""
    torch.manual_seed(1)
    ours = Conv2d(inputs, outputs, 3, padding=1, bias=bias, dtype=dtype)
    torchs = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias, dtype=dtype)
    torchs.load_state_dict(ours.state_dict())
    return ours.to(memory_format=LAST), torchs.to(memory_format=LAST)


def gradients(conv: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and what the input and the parameters have as gradients."""
    out = conv(x)
    by_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out, *torch.autograd.grad(out, [x, *conv.parameters()], by_out)]


@pytest.mark.parametrize(
    "shape", [(4, 16, 6, 6), (7, 32, 5, 3), (5, 16, 1, 2), (6, 16, 1, 1), (9, 64, 32, 20)]
)
@pytest.mark.parametrize("outputs", [16, 48])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_compiled_convolutions_and_their_gradients_are_torchs(shape, outputs, bias, dtype, near):
    ours, torchs = convolutions(shape[1], outputs, dtype, bias=bias)
    x = images(*shape, dtype=dtype)
    assert can_convolve(ours, x)
    expected = [
        each.double() for each in gradients(torchs.double(), x.detach().double().requires_grad_())
    ]
    for found, right in zip(gradients(ours, x), expected, strict=True):
        assert found.dtype == dtype
        error = (found.double() - right).norm() / right.norm()
        assert error.item() < near


def test_several_threads_give_the_bits_of_one():
    ours, _ = convolutions(32, 64, torch.float32)
    x = images(23, 32, 6, 6, dtype=torch.float32)
    alone = gradients(ours, x)[:3]
    torch.set_num_threads(3)
    try:
        together = gradients(ours, x)[:3]
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, alone, together))


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((3, 16, 6, 6), {}),  # too few samples
        ((8, 12, 6, 6), {}),
        ((8, 16, 6, 6), {"stride": 2}),
        ((8, 16, 6, 6), {"groups": 2}),
        ((8, 16, 6, 6), {"dilation": 2}),
        ((8, 16, 6, 6), {"padding": 0}),
        ((8, 16, 6, 6), {"padding_mode": "circular"}),
        ((8, 16, 6, 6), {"kernel_size": 5, "padding": 2}),
    ],
)
def test_other_convolutions_are_torchs_own(shape, settings):
    settings = {"kernel_size": 3, "padding": 1} | settings
    ours = Conv2d(shape[1], 16, **settings, dtype=torch.float64)
    torchs = nn.Conv2d(shape[1], 16, **settings, dtype=torch.float64)
    torchs.load_state_dict(ours.state_dict())
    x = images(*shape)
    assert not can_convolve(ours, x)
    assert all(map(torch.equal, gradients(ours, x), gradients(torchs, x)))


def test_other_layouts_are_torchs_own():
    ours, torchs = convolutions(16, 16)
    x = images(4, 16, 6, 6).detach().contiguous()
    assert torch.equal(ours(x), torchs(x))


def test_an_input_that_is_not_finite_leaves_other_samples_and_distant_positions_as_they_are():
    ours, _ = convolutions(16, 16, torch.float32)
    x = images(6, 16, 6, 6, dtype=torch.float32).detach()
    broken = x.clone(memory_format=torch.preserve_format)
    broken[1, 0, 0, 0] = float("nan")
    assert torch.equal(ours(broken)[[0, 2, 3, 4, 5]], ours(x)[[0, 2, 3, 4, 5]])
    assert ours(broken)[1, :, :2, :2].isnan().all()
    assert torch.equal(ours(broken)[1, :, 2:], ours(x)[1, :, 2:])


def test_weight_norms_of_compiled_convolutions_are_differentiated():
    ours, torchs = convolutions(16, 16)
    for conv in (ours, torchs):
        nn.utils.parametrizations.weight_norm(conv)
    x = images(5, 16, 4, 4)
    for found, expected in zip(gradients(ours, x), gradients(torchs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
