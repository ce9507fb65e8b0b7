"""Tests of models/layers/conv.py."""

from typing import Any

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
    inputs: int, outputs: int, dtype: torch.dtype = torch.float64, **settings: Any
) -> tuple[Conv2d, nn.Conv2d]:
    """Ours and torch's, of the same weights."""
    settings = {"kernel_size": 3, "padding": 1, "dtype": dtype} | settings
    torch.manual_seed(1)
    ours, torchs = Conv2d(inputs, outputs, **settings), nn.Conv2d(inputs, outputs, **settings)
    torchs.load_state_dict(ours.state_dict())
    return ours.to(memory_format=LAST), torchs.to(memory_format=LAST)


def gradients(conv: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and what the input and the parameters have as gradients."""
    out = conv(x)
    by_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out, *torch.autograd.grad(out, [x, *conv.parameters()], by_out)]


def check(ours: Conv2d, torchs: nn.Conv2d, x: Tensor, near: float) -> None:
    """Ours are compiled, and equal to what torch finds in double precision."""
    assert can_convolve(ours, x)
    wide = x.detach().double().requires_grad_()
    for found, expected in zip(gradients(ours, x), gradients(torchs.double(), wide), strict=True):
        assert found.dtype == x.dtype
        assert found.shape == expected.shape
        error = (found.double() - expected).norm() / expected.norm()
        assert error.item() < near


@pytest.mark.parametrize(
    "shape", [(4, 16, 6, 6), (7, 32, 5, 3), (5, 16, 1, 2), (6, 16, 1, 1), (9, 64, 32, 20)]
)
@pytest.mark.parametrize("outputs", [16, 48])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_compiled_convolutions_and_their_gradients_are_torchs(shape, outputs, bias, dtype, near):
    check(*convolutions(shape[1], outputs, dtype, bias=bias), images(*shape, dtype=dtype), near)


@pytest.mark.parametrize("inputs", [1, 4, 12, 16])
@pytest.mark.parametrize("taps", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
def test_compiled_filters_strides_and_paddings_are_torchs(
    inputs, taps, stride, padding, dtype, near
):
    settings = {"kernel_size": taps, "stride": stride, "padding": padding}
    check(*convolutions(inputs, 16, dtype, **settings), images(5, inputs, 7, 6, dtype=dtype), near)


@pytest.mark.parametrize("batch", [5, 7, 9, 23])
@pytest.mark.parametrize("inputs", [1, 32])
@pytest.mark.parametrize("threads", [2, 3])
def test_several_threads_give_the_bits_of_one(batch, inputs, threads):
    """Of the output, the gradient of the input and that of the filters."""
    ours, _ = convolutions(inputs, 32, torch.float32)
    x = images(batch, inputs, 6, 6, dtype=torch.float32)
    alone = gradients(ours, x)[:3]
    torch.set_num_threads(threads)
    try:
        together = [gradients(ours, x)[:3] for _ in range(20)]
    finally:
        torch.set_num_threads(1)
    for each in together:
        assert torch.equal(each[0], alone[0])
        assert inputs == 1 or all(map(torch.equal, alone, each))


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((3, 16, 6, 6), {}),  # too few samples
        ((8, 3, 6, 6), {}),
        ((8, 16, 6, 6), {"groups": 2}),
        ((8, 16, 6, 6), {"dilation": 2}),
        ((8, 16, 6, 6), {"padding": (0, 1)}),
        ((8, 16, 6, 6), {"padding": "same"}),
        ((8, 16, 6, 6), {"padding_mode": "circular"}),
    ],
)
def test_other_convolutions_are_torchs_own(shape, settings):
    ours, torchs = convolutions(shape[1], 16, **settings)
    x = images(*shape)
    assert not can_convolve(ours, x)
    assert all(map(torch.equal, gradients(ours, x), gradients(torchs, x)))


def test_an_image_that_is_smaller_than_the_filters_is_torchs_error():
    ours, _ = convolutions(16, 16, padding=0)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        ours(images(4, 16, 2, 2))


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


@pytest.mark.parametrize("channels", [1, 4, 32])
def test_another_number_of_channels_is_torchs_error(channels):
    ours, _ = convolutions(16, 16)
    with pytest.raises(RuntimeError, match="expected input"):
        ours(images(4, channels, 6, 6))


def test_no_images_have_no_outputs():
    ours, _ = convolutions(16, 16)
    assert ours(images(4, 16, 6, 6)[:0]).shape == (0, 16, 6, 6)


def test_an_output_may_change_in_place():
    ours, torchs = convolutions(16, 16)
    x = images(4, 16, 6, 6)
    found, expected = (
        torch.autograd.grad(conv(x).mul_(2).sum(), [x, *conv.parameters()])
        for conv in (ours, torchs)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_an_input_of_another_precision_is_torchs_error():
    ours, _ = convolutions(16, 16)
    with pytest.raises(RuntimeError, match="type"):
        ours(images(4, 16, 6, 6, dtype=torch.float32))


def test_weight_norms_of_compiled_convolutions_are_differentiated():
    ours, torchs = convolutions(16, 16)
    for conv in (ours, torchs):
        nn.utils.parametrizations.weight_norm(conv)
    x = images(5, 16, 4, 4)
    for found, expected in zip(gradients(ours, x), gradients(torchs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
