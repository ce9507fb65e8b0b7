from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nodebench.data.dataset import Data, Split
from nodebench.models.build import build, parameter_count
from nodebench.models.dynamics import DownsamplingBlock, Dynamics, ResidualBlock, TimeConv
from nodebench.models.layers.factory import NORM_LAYERS, LayerFactory
from nodebench.models.vdcnn import TopOverTime
from nodebench.ode.block import ODEBlock, ode_blocks
from nodebench.spec import TrialSpec
from nodebench.spec.model import NeuralOde
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import DYNAMICS, NORM_WORDS
from tests.support.tiny_networks import CIFAR10, DIGITS, MNIST, built, count, data, spec


@pytest.mark.parametrize(
    ("model", "mnist", "cifar10"),
    [
        ({"name": "resnet", "blocks": 6}, 576_778, 577_930),
        ({"name": "resnet", "blocks": 1}, 206_858, 208_010),
        ({"name": "odenet"}, 208_010, 209_162),
        ({"name": "resnet", "blocks": 1, "dynamics": "postnorm"}, 208_010, 209_162),
        ({"name": "resnet", "blocks": 0}, 132_874, 134_026),
    ],
    ids=["resnet6", "resnet1", "odenet", "matched", "none"],
)
def test_parameter_counts_of_the_first_study(model: dict, mnist: int, cifar10: int) -> None:
    assert count(MNIST, **model) == mnist
    assert count(CIFAR10, **model) == cifar10


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ({"name": "odenet", "dynamics": "prenorm", "stem": "conv"}, 208_266),
        ({"name": "odenet", "dynamics": "prenorm", "stem": "res"}, 232_970),
        ({"name": "resnet", "stem": "conv"}, 576_778),
        ({"name": "resnet", "stem": "res"}, 601_482),
    ],
    ids=["odenet-conv", "odenet-res", "resnet-conv", "resnet-res"],
)
def test_parameter_counts_of_the_third_study(model: dict, total: int) -> None:
    assert count(MNIST, **model) == total


@pytest.mark.parametrize(
    ("shape", "classes", "model", "total"),
    [
        ((2,), 2, {"field": "simple", "width": 32}, 3_207),
        (CIFAR10, 10, {"field": "conv", "width": 128}, 179_213),
        (MNIST, 10, {"field": "conv", "width": 128}, 155_819),
        ((2,), 2, {"field": "linear", "width": 8}, 24 + 72 + 18 + 6),
    ],
    ids=["simple", "cifar10", "mnist", "linear"],
)
def test_parameter_counts_of_the_second_study(
    shape: tuple[int, ...], classes: int, model: dict, total: int
) -> None:
    network = build(spec(name="plainode", **model), data(*shape, classes=classes))
    assert parameter_count(network) == total


@pytest.mark.parametrize(
    ("dynamics", "total"), [("preact", 73_984), ("postnorm", 75_136), ("prenorm", 75_392)]
)
def test_parameter_counts_of_the_right_hand_sides(dynamics: str, total: int) -> None:
    assert parameter_count(Dynamics(dynamics, 64, LayerFactory("gn"))) == total


def test_only_what_is_trained_is_counted() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(requires_grad=False)
    assert parameter_count(layer) == 6


@pytest.mark.parametrize(("shape", "side"), [(MNIST, 6), (CIFAR10, 7)])
def test_the_stem_gives_the_studies_feature_maps(shape: tuple[int, ...], side: int) -> None:
    network = build(spec(name="odenet", width=8), data(*shape))
    assert network.stem(torch.zeros(2, *shape)).shape == (2, 8, side, side)


@pytest.mark.parametrize("norm", ["gn", "bn", "ln", "in", "nf", "wn", "sn", "bn+wn", "ln+sn"])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_one_euler_step_is_the_residual_block_of_the_same_weights(dynamics: str, norm: str) -> None:
    shared = {"dynamics": dynamics, "width": 8, "norm": norm, "blocks": 2}
    residual = build(spec(seed=1, name="resnet", **shared), data(*MNIST)).double()
    ode = build(spec(seed=2, name="odenet", t1=1.0, **shared), data(*MNIST)).double()
    x = torch.rand(3, *MNIST, dtype=torch.float64)
    assert (residual(x) - ode(x)).abs().max() > 1e-3
    ode.load_state_dict(residual.state_dict())
    torch.testing.assert_close(ode(x), residual(x), rtol=1e-12, atol=1e-12)
    assert all(block.evaluations == 2 for block in ode_blocks(ode))


def test_a_residual_block_adds_the_right_hand_side_at_time_zero() -> None:
    f = Dynamics("postnorm", 4, LayerFactory("nf"))
    x = torch.rand(2, 4, 5, 5)
    torch.testing.assert_close(ResidualBlock(f)(x), x + f(0.0, x))


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_time_is_one_with_time_as_the_first_channel(bias: bool) -> None:
    conv = nn.Conv2d(5, 4, 3, padding=1, bias=bias).double()
    y = torch.rand(2, 4, 5, 5, dtype=torch.float64)
    t = 0.37
    expected = conv(torch.cat((torch.full_like(y[:, :1], t), y), dim=1))
    torch.testing.assert_close(TimeConv(conv)(t, y), expected, rtol=1e-12, atol=1e-12)
    as_tensor = torch.tensor(t, dtype=torch.float64)
    torch.testing.assert_close(TimeConv(conv)(as_tensor, y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dynamics", "depends"), [("preact", 0), ("postnorm", 1), ("prenorm", 1)])
def test_a_right_hand_side_depends_on_time_where_its_form_says(dynamics: str, depends: int) -> None:
    f, y = Dynamics(dynamics, 4, LayerFactory("nf")), torch.rand(2, 4, 5, 5)
    assert int((f(0.0, y) != f(1.0, y)).any()) == depends


def test_augmentation_appends_channels_of_zeros() -> None:
    network = build(spec(name="odenet", width=8, augment_dim=3, norm="nf"), data(*MNIST))
    seen: list[Tensor] = []
    network.feature.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, *MNIST)
    assert network(x).shape == (2, 10)
    (y0,) = seen
    assert y0.shape == (2, 11, 6, 6)
    torch.testing.assert_close(y0[:, :8], network.stem[:-1](x))
    assert not y0[:, 8:].any()
    assert y0[:, :8].any()


@pytest.mark.parametrize(
    ("field", "shape"),
    [("simple", (2,)), ("simple", (9,)), ("linear", (2,)), ("conv", (3, 6, 6))],
    ids=["folded", "simple", "linear", "conv"],
)
def test_augmentation_of_a_plain_ode_appends_zeros(field: str, shape: tuple[int, ...]) -> None:
    augmented = spec(name="plainode", field=field, width=8, augment_dim=3)
    network = build(augmented, data(*shape, classes=4))
    seen: list[Tensor] = []
    network.block.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, *shape)
    assert network(x).shape == (2, 4)
    y0 = seen[0].squeeze(1) if field == "simple" and shape == (9,) else seen[0]
    assert torch.equal(y0[:, : shape[0]], x)
    assert y0.shape == (2, shape[0] + 3, *shape[1:])
    assert not y0[:, shape[0] :].any()


def test_a_downsampling_block_halves_the_resolution_rounding_up() -> None:
    block = DownsamplingBlock(4, 6, LayerFactory("gn"))
    assert block(torch.rand(2, 4, 26, 13)).shape == (2, 6, 13, 7)


@pytest.mark.parametrize("name", ["resnet", "odenet", "plainode"])
def test_weights_follow_from_the_seed_alone(name: str) -> None:
    shape = (2,) if name == "plainode" else MNIST

    def weights(seed: int) -> Tensor:
        network = build(spec(seed, name=name, width=8), data(*shape))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    torch.manual_seed(11)
    first, state = weights(0), torch.get_rng_state()
    torch.manual_seed(12)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stem", ["conv", "res"])
@pytest.mark.parametrize("norm", NORM_WORDS)
@pytest.mark.parametrize("name", ["resnet", "odenet"])
def test_every_norm_trains_in_both_networks(name: str, norm: str, stem: str) -> None:
    network = build(spec(name=name, width=8, blocks=1, norm=norm, stem=stem), data(*DIGITS))
    logits = network(torch.rand(4, *DIGITS))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("channels", [8, 32, 64])
def test_norms_standardise_what_their_names_say(channels: int) -> None:
    x = torch.randn(6, channels, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2
    # The axes over which a norm's output has mean 0 and variance 1.
    axes = {"bn": (0, 2, 3), "ln": (1, 2, 3), "in": (2, 3)}
    for name, over in axes.items():
        y = NORM_LAYERS[name](channels, 2)(x)
        torch.testing.assert_close(y.mean(over), torch.zeros_like(y.mean(over)), rtol=0, atol=1e-5)
        variance = y.var(over, correction=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=1e-4)
    groups = NORM_LAYERS["gn"](channels, 2)(x).reshape(6, min(channels, 32), -1)
    torch.testing.assert_close(groups.mean(2), torch.zeros(groups.shape[:2]), rtol=0, atol=1e-5)
    assert torch.equal(NORM_LAYERS["nf"](channels, 2)(x), x)
    assert list(NORM_LAYERS["in"](channels, 2).parameters()) == []


def test_each_place_has_its_own_norm() -> None:
    norms = {"stem": "bn", "residual": "in", "ode": "nf"}
    network = build(spec(name="odenet", width=8, stem="res", norm=norms), data(*MNIST))
    kinds = {nn.BatchNorm2d: "bn", nn.InstanceNorm2d: "in"}

    def found(part: nn.Module) -> set[str]:
        return {kinds[type(m)] for m in part.modules() if type(m) in kinds}

    assert (found(network.stem), found(network.feature), found(network.head)) == (
        {"in"},
        set(),
        {"bn"},
    )


def test_group_norm_wants_channels_that_fill_its_groups() -> None:
    with pytest.raises(ValidationError, match="48 channels are not a multiple of 32"):
        spec(name="odenet", width=48)
    with pytest.raises(ValidationError, match="65 channels are not a multiple of 32"):
        spec(name="resnet", width=64, augment_dim=1)
    with pytest.raises(ValidationError, match=r"norm\.ode"):
        spec(name="odenet", width=48, norm={"stem": "ln", "ode": "gn"})
    for norm in ("ln", {"stem": "bn", "ode": "nf", "residual": "gn"}):
        network = build(spec(name="odenet", width=48, norm=norm), data(*DIGITS))
        assert network(torch.rand(2, *DIGITS)).shape == (2, 10)
    for width in (5, 31, 32, 96):
        build(spec(name="odenet", width=width), data(*DIGITS))


def test_blocks_share_the_specs_solver_and_length() -> None:
    trial = spec(name="odenet", width=8, blocks=3, t1=2.5)
    blocks = ode_blocks(build(trial, data(*DIGITS)))
    assert [type(block) for block in blocks] == [ODEBlock] * 3
    assert {block.t1 for block in blocks} == {2.5}
    assert {block.solver for block in blocks} == {Solver(method="euler", steps=1)}


@pytest.mark.parametrize(
    ("field", "shape"),
    [("simple", (5,)), ("simple", (40,)), ("linear", (5,)), ("conv", (3, 6, 6))],
    ids=["folded", "simple", "linear", "conv"],
)
def test_a_plain_ode_integrates_the_raw_input(field: str, shape: tuple[int, ...]) -> None:
    network = build(spec(name="plainode", field=field, width=8), data(*shape, classes=3))
    x = torch.rand(4, *shape)
    y = x.unsqueeze(1) if shape == (40,) else x
    expected = network.head((y + network.block.f(0.0, y)).flatten(1))
    torch.testing.assert_close(network(x), expected)
    assert network(x).shape == (4, 3)


@pytest.mark.parametrize(
    ("init", "std"), [("normal", 0.02), ("kaiming", (2 / 96) ** 0.5), ("xavier", 0.02 / 96**0.5)]
)
def test_a_plain_ode_is_initialized_as_it_is_asked(init: str, std: float) -> None:
    network = build(spec(name="plainode", width=32, init=init), data(2, classes=2))
    middle = network.block.f.g[2].parametrizations.weight.original  # 32 -> 32 channels, kernel 3
    assert middle.std().item() == pytest.approx(std, rel=0.05)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_an_orthogonal_initialization_keeps_lengths_but_for_its_gain() -> None:
    network = build(spec(name="plainode", init="orthogonal", width=16), data(2, classes=2))
    weight = network.block.f.g[2].parametrizations.weight.original.flatten(1)  # 16 x 48
    expected = torch.eye(16) * 0.02**2
    torch.testing.assert_close(weight @ weight.T, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------ text and others


def text(symbols: int = 69, length: int = 40) -> Data:
    split = Split(torch.zeros(2, length, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    return Data(split, split, None, classes=4, symbols=symbols)


@pytest.mark.parametrize(
    ("model", "total"),
    [
        ({"name": "vdcnn"}, 286_740),
        ({"name": "vdcnn", "blocks": 1}, 161_940),
        ({"name": "odevdcnn"}, 162_196),
        ({"name": "vdcnn", "blocks": 0}, 161_940 - 24_960),
        ({"name": "vdcnn", "blocks": 1, "norm": "nf"}, 161_940 - 3 * 128),
    ],
    ids=str,
)
def test_parameter_counts_of_the_text_networks(model: dict, total: int) -> None:
    assert parameter_count(build(spec(**model), text())) == total


def test_the_top_values_over_time_are_kept_in_descending_order() -> None:
    x = torch.tensor([[[3.0, 9.0, 1.0, 7.0, 5.0]]])
    assert TopOverTime(4)(x).tolist() == [[[9.0, 7.0, 5.0, 3.0]]]


@pytest.mark.parametrize("name", ["vdcnn", "odevdcnn"])
def test_a_text_network_does_not_care_where_in_the_text_something_stands(name: str) -> None:
    network = build(spec(name=name, blocks=1), text(length=60)).eval()
    codes = torch.zeros(1, 60, dtype=torch.int32)
    words = torch.randint(1, 69, (10,), dtype=torch.int32)
    early, late = codes.clone(), codes.clone()
    early[0, 20:30], late[0, 30:40] = words, words
    other = codes.clone()
    other[0, 20:30] = words.flip(0)
    torch.testing.assert_close(network(early), network(late), rtol=1e-4, atol=1e-6)
    assert (network(early) - network(other)).abs().max() > 1e-4


def test_the_multilayer_perceptron_of_chens_table_has_a_quarter_million_parameters() -> None:
    assert count(MNIST, name="mlp") == 238_510
    assert count(MNIST, name="mlp", hidden=[20, 30]) == 784 * 20 + 20 + 20 * 30 + 30 + 310


def test_dropout_is_in_the_head_and_only_in_training() -> None:
    for network in (built(name="resnet4", dropout=0.5), built(name="resnet", dropout=0.5)):
        x = torch.rand(4, *CIFAR10)
        assert not torch.equal(network(x), network(x))
        assert not any(isinstance(m, nn.Dropout) for m in network.feature.modules())
        network.eval()
        torch.testing.assert_close(network(x), network(x))


def test_the_activation_of_a_network_is_a_setting() -> None:
    network = built(DIGITS, name="odenet", width=8, activation="softplus")
    kinds = [type(m) for m in network.modules()]
    assert kinds.count(nn.Softplus) == 5
    assert nn.ReLU not in kinds


def test_a_neural_ode_follows_its_field() -> None:
    times = [0.0, 0.25, 1.0]
    split = Split(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))
    trial = TrialSpec(
        data={"name": "spheres"},
        model={"name": "plainode"},
        solver={"method": "rk4", "steps": 8},
    )
    trial = trial.model_copy(update={"model": NeuralOde(name="neuralode")})
    network = build(trial, Data(split, split, None, 0)).double()
    first, last = network.block.f.g[0], network.block.f.g[2]
    assert (first.bias, last.bias.shape, parameter_count(network)) == (None, (2,), 10)
    matrix, shift = last.weight @ first.weight, last.bias
    y0 = torch.tensor([0.6, 0.3], dtype=torch.float64)
    states = network(y0, times)
    for t, y in zip(times, states, strict=True):
        rest = torch.linalg.solve(matrix, shift)
        expected = torch.linalg.matrix_exp(matrix * t) @ (y0 + rest) - rest
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
