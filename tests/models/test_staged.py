"""Tests of models/staged.py: the networks of Gusak et al. 2020."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from nodebench.models.dynamics import Dynamics
from nodebench.models.layers.factory import LayerFactory
from nodebench.models.layers.group_norm import GroupNorm
from nodebench.ode.block import ODEBlock
from nodebench.spec.vocabulary import STAGES
from tests.support.tiny_networks import CIFAR10, built, count


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ({"name": "odenet4"}, 5_306),
        ({"name": "odenet4", "norm": "ln"}, 5_306),
        ({"name": "odenet4", "width": 64}, 76_490),
        ({"name": "odenet10"}, 43_226),
        ({"name": "odenet10", "width": 64}, 676_682),
        ({"name": "resnet10"}, 43_226),
        ({"name": "resnet10", "width": 64}, 676_682),
        ({"name": "odenet4", "norm": {"stem": "bn", "ode": "nf"}}, 5_242),
        ({"name": "odenet4", "norm": {"stem": "bn", "ode": "sn"}}, 5_242),
        ({"name": "odenet4", "norm": {"stem": "bn", "ode": "wn"}}, 5_274),
    ],
    ids=str,
)
def test_parameter_counts_of_the_fourth_study(model: dict, total: int) -> None:
    assert count(CIFAR10, **model) == total


def described(name: str, width: int, order: str, affine: int, gains: int) -> int:
    """The parameters of a staged network, counted from its description.

    `affine` is the number of parameters of a norm per channel, `gains` of a weight norm per filter.
    """
    depth, is_ode = int(name[6:]), name.startswith("ode")
    total = 3 * width * 9 + gains * width  # the stem's convolution
    channels = width
    for stage, (residual, ode) in enumerate(STAGES[depth]):
        if not is_ode:
            residual, ode = residual + ode, 0
        for block in range(residual + ode):
            wide = 2 * channels if stage and not block else channels
            total += channels * wide * 9 + wide * wide * 9 + 2 * gains * wide
            if order == "postact":
                total += 2 * affine * wide
            else:
                total += affine * (channels + wide)
            if wide > channels:
                total += channels * wide + gains * wide
                total += affine * wide if order == "postact" else 0
            channels = wide
    total += affine * (width if order == "postact" else channels)
    return total + 10 * channels + 10


@pytest.mark.parametrize("order", ["postact", "preact"])
@pytest.mark.parametrize(("norm", "affine", "gains"), [("bn", 2, 0), ("in", 0, 0), ("ln+wn", 2, 1)])
@pytest.mark.parametrize("name", ["resnet4", "odenet6", "resnet6", "odenet18", "odenet34"])
def test_parameter_counts_of_networks_that_the_study_describes(
    name: str, norm: str, affine: int, gains: int, order: str
) -> None:
    found = count(CIFAR10, name=name, norm=norm, order=order, width=4)
    assert found == described(name, 4, order, affine, gains)


def test_the_description_gives_the_published_counts() -> None:
    assert described("odenet4", 64, "postact", 2, 0) == 76_490
    assert described("odenet10", 16, "postact", 2, 0) == 43_226


@pytest.mark.parametrize("depth", STAGES)
def test_ode_blocks_stand_where_the_study_has_them(depth: int) -> None:
    network = built(name=f"odenet{depth}", width=2)
    kinds = "".join("o" if isinstance(block, ODEBlock) else "r" for block in network.feature)
    assert kinds == "".join("r" * residual + "o" * ode for residual, ode in STAGES[depth])
    assert len(built(name=f"resnet{depth}", width=2).feature) == len(kinds)


@pytest.mark.parametrize("order", ["postact", "preact"])
def test_stages_double_the_width_and_halve_the_resolution(order: str) -> None:
    network = built(name="odenet18", width=4, order=order)
    x = network.stem(torch.rand(2, *CIFAR10))
    shapes = []
    for block in network.feature:
        x = block(x)
        shapes.append(tuple(x.shape[1:3]))
    assert shapes == [(4, 32)] * 2 + [(8, 16)] * 2 + [(16, 8)] * 2 + [(32, 4)] * 2


def test_the_postact_right_hand_side_is_not_negative() -> None:
    y = torch.randn(2, 4, 5, 5)
    assert (Dynamics("postact", 4, LayerFactory("ln"))(0.0, y) >= 0).all()
    assert (Dynamics("postact", 4, LayerFactory("ln", "none"))(0.0, y) < 0).any()


def test_an_original_residual_block_ends_with_an_activation() -> None:
    network = built(name="resnet10", width=4)
    x = network.stem(torch.rand(2, *CIFAR10))
    for block in network.feature:
        x = block(x)
        assert (x >= 0).all()
    linear = built(name="resnet10", width=4, activation={"stem": "relu", "residual": "none"})
    assert (linear.feature(x[:, :4]) < 0).any()


def test_each_place_of_a_staged_network_has_its_own_norm_and_activation() -> None:
    network = built(
        name="odenet10",
        width=4,
        norm={"stem": "bn", "residual": "in", "ode": "ln+wn"},
        activation={"stem": "relu", "residual": "tanh", "ode": "softplus"},
    )
    kinds = (nn.BatchNorm2d, nn.InstanceNorm2d, GroupNorm, nn.ReLU, nn.Tanh, nn.Softplus)

    def found(part: nn.Module) -> set[type]:
        return {type(m) for m in part.modules() if isinstance(m, kinds)}

    assert found(network.stem) == {nn.BatchNorm2d, nn.ReLU}
    residual, ode = network.feature[:2]
    assert found(residual) == {nn.InstanceNorm2d, nn.Tanh}
    assert found(ode) == {GroupNorm, nn.Softplus}
    weights = [m for m in ode.modules() if isinstance(m, parametrize.ParametrizationList)]
    assert len(weights) == 2
    assert not any(isinstance(m, parametrize.ParametrizationList) for m in residual.modules())


def test_a_weight_norm_bounds_what_it_says() -> None:
    conv = LayerFactory("sn").conv(3, 5, 3)
    for _ in range(50):  # the power iteration of the training mode
        conv.weight  # noqa: B018
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)
    conv = LayerFactory("wn").conv(3, 5, 3)
    gains = conv.parametrizations.weight.original0.flatten()
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), gains)
