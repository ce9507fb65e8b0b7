"""Tests of models/layers/group_norm.py."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nodebench.models.chains.images import are_compiled, to_array
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.models.layers.norm_kernels import normalize
from nodebench.ode.regularizers.forward_mode import directional

LAST = torch.channels_last


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(*shape, generator=generator, dtype=dtype) + 2
    return x.to(memory_format=LAST).requires_grad_()


def norms(groups: int, channels: int, dtype: torch.dtype) -> tuple[GroupNorm, nn.GroupNorm]:
    """Ours and torch's, of the same weights."""
    generator = torch.Generator().manual_seed(1)
    ours, torchs = GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, generator=generator)
    torchs.load_state_dict(ours.state_dict())
    return ours.to(dtype), torchs.to(dtype)


def gradients(norm: nn.GroupNorm, x: Tensor) -> list[Tensor]:
    """The output, and what the input and the parameters have as gradients."""
    out = norm(x)
    by_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out, *torch.autograd.grad(out, [x, *norm.parameters()], by_out)]


@pytest.mark.parametrize("shape", [(3, 64, 6, 6), (5, 16, 9, 7), (2, 4, 3, 2), (1, 6, 32, 32)])
@pytest.mark.parametrize("groups", [1, 2, "all"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_compiled_norms_and_their_gradients_are_torchs(shape, groups, dtype, near):
    ours, torchs = norms(shape[1] if groups == "all" else groups, shape[1], dtype)
    x = images(*shape, dtype=dtype)
    assert are_compiled(x)
    for found, expected in zip(gradients(ours, x), gradients(torchs, x), strict=True):
        scale = expected.detach().abs().max().item() + 1
        assert found.is_contiguous(memory_format=LAST) or found.dim() == 1
        torch.testing.assert_close(found, expected, rtol=0, atol=near * scale)


def test_several_threads_give_the_bits_of_one():
    ours, _ = norms(32, 64, torch.float32)
    x = images(7, 64, 6, 6, dtype=torch.float32)
    alone = gradients(ours, x)
    torch.set_num_threads(3)
    try:
        together = gradients(ours, x)
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, alone, together))


def test_the_bits_do_not_depend_on_what_lies_behind_an_array_in_memory():
    norm, _ = norms(1, 32, torch.float32)
    x = images(3, 32, 2, 2, dtype=torch.float32).detach()
    array, scale, shift = to_array(x), norm.weight.detach().numpy(), norm.bias.detach().numpy()
    outputs = set()
    other_gaps = [np.empty(size, np.uint8) for size in range(16, 640, 8) for _ in range(20)]
    for size in range(32, 80, 2):
        behind = sorted((torch.empty(size) for _ in range(100)), key=Tensor.data_ptr)
        del behind[::2]  # in these gaps, the kernel allocates
        for each in behind:
            statistics, out = each[:6].view(2, 3, 1).numpy(), np.empty_like(array)
            normalize((0, 3), out, array, scale, shift, statistics, norm.eps, -math.inf)
            outputs.add(out.tobytes())
    assert len(outputs) == 1
    del other_gaps  # were filled until now, so that the kernel does not allocate there


def test_a_gradient_can_be_differentiated():
    """As a field may ask for that takes gradients itself."""

    def curvature(norm: nn.GroupNorm) -> Tensor:
        x = images(2, 4, 3, 3)
        (by_x,) = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(by_x.pow(2).sum(), x)[0]

    ours, torchs = norms(2, 4, torch.float64)
    torch.testing.assert_close(curvature(ours), curvature(torchs), rtol=1e-10, atol=1e-10)
    ours.requires_grad_(False)
    torch.testing.assert_close(curvature(ours), curvature(torchs), rtol=1e-10, atol=1e-10)


def test_transforms_and_other_layouts_are_torchs_own():
    ours, torchs = norms(2, 4, torch.float64)
    x = images(3, 4, 5, 5).detach()
    contiguous = x.contiguous()
    assert not are_compiled(contiguous)
    assert torch.equal(ours(contiguous), torchs(contiguous))
    each = torch.func.vmap(ours)(torch.stack([x, x + 1]))
    torch.testing.assert_close(each[1], torchs(x + 1))
    along = directional(ours, (x,), (torch.ones_like(x),))
    assert along.abs().max().item() < 1e-9  # a shift of all does nothing


def test_other_channels_or_precisions_are_torchs_errors_and_no_images_have_no_outputs():
    ours, _ = norms(2, 4, torch.float64)
    for wrong in (images(3, 8, 5, 5), images(3, 4, 5, 5, dtype=torch.float32)):
        with pytest.raises(RuntimeError):
            ours(wrong)
    assert ours(images(3, 4, 5, 5)[:0]).shape == (0, 4, 5, 5)
    without_weights = GroupNorm(2, 4, affine=False)
    assert without_weights(images(3, 4, 5, 5)).shape == (3, 4, 5, 5)


def test_an_input_that_is_not_finite_leaves_other_samples_as_they_are():
    ours, _ = norms(2, 4, torch.float32)
    x = images(3, 4, 5, 5, dtype=torch.float32).detach()
    broken = x.clone(memory_format=torch.preserve_format)
    broken[1, 0, 0, 0] = float("nan")
    assert torch.equal(ours(broken)[[0, 2]], ours(x)[[0, 2]])
    assert ours(broken)[1, :2].isnan().all()
