from __future__ import annotations

import dataclasses
import hashlib
import itertools
import struct
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from nodebench.data.batches import PADDING, batches_per_epoch, test_batches, train_batches
from nodebench.data.dataset import Data, Split, balanced
from nodebench.data.files import FILES
from nodebench.data.load import load
from nodebench.errors import DataError
from nodebench.spec import TrialSpec

test_batches.__test__ = False  # type: ignore[attr-defined]  # a name, not a test
NOWHERE = Path("/nonexistent")


def spec(seed: int = 0, **data: object) -> TrialSpec:
    model = "plainode" if data["name"] == "spheres" else {"name": "resnet", "width": 8}
    return TrialSpec(data=data, model=model, seed=seed)


def loaded(seed: int = 0, **data: object) -> Data:
    return load(spec(seed, **data), NOWHERE)


# ----------------------------------------------------------------------------------- spheres


@pytest.mark.parametrize("dim", [2, 10])
def test_spheres_lie_in_their_shells_in_the_ratio_1_2_1(dim: int) -> None:
    data = loaded(name="spheres", dim=dim)
    for split, size in ((data.train, 2000), (data.test, 1000)):
        assert split.inputs.shape == (size, dim)
        radius = split.inputs.norm(dim=1)
        for low, high, label, share in ((0.1, 0.15, 0, 1), (0.25, 0.3, 1, 2), (0.4, 0.45, 0, 1)):
            inside = (radius > low - 1e-6) & (radius < high + 1e-6)
            assert inside.sum() == size * share // 4
            assert (split.targets[inside] == label).all()
    assert data.classes == 2
    assert data.validation is None


@pytest.mark.parametrize("dim", [2, 10])
def test_spheres_point_in_every_direction_alike(dim: int) -> None:
    x = loaded(name="spheres", dim=dim, train_size=20_000).train.inputs
    direction = x / x.norm(dim=1, keepdim=True)
    # A component of a uniform direction has mean 0 and variance 1/dim: 5 standard errors.
    assert direction.mean(0).abs().max() < 5 / (dim * 20_000) ** 0.5
    moments = direction.T @ direction / 20_000
    torch.testing.assert_close(
        moments, torch.eye(dim) / dim, rtol=0, atol=5 * dim**-1 / 20_000**0.5
    )


def test_radii_follow_the_published_law() -> None:
    dim = 10
    data = loaded(name="spheres", dim=dim, train_size=20_000).train
    radius = data.inputs[data.targets == 1].norm(dim=1)
    # r = 0.25 + 0.05 u^(1/d), so ((r - 0.25)/0.05)^d is uniform in [0, 1].
    u = ((radius.double() - 0.25) / 0.05).clamp(0, 1) ** dim
    levels = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(torch.quantile(u, levels), levels, rtol=0, atol=0.03)


def test_spheres_follow_from_the_seed_and_splits_differ() -> None:
    sizes = {"train_size": 40, "test_size": 40, "val_size": 40}
    first, again = (loaded(3, name="spheres", **sizes) for _ in range(2))
    other = loaded(4, name="spheres", **sizes)
    assert first.validation is not None
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    for one, two in itertools.combinations((first.train, first.test, first.validation), 2):
        assert not torch.equal(one.inputs, two.inputs)


def test_a_validation_split_leaves_the_other_spheres_as_they_are() -> None:
    without, with_ = loaded(name="spheres"), loaded(name="spheres", val_size=100)
    assert with_.validation is not None
    assert len(with_.validation) == 100
    assert torch.equal(without.train.inputs, with_.train.inputs)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_spheres_of_any_size_have_as_many_points(size: int) -> None:
    assert len(loaded(name="spheres", train_size=size).train) == size


# ------------------------------------------------------------------------------------ images


def test_digits_are_framed_and_in_range() -> None:
    data = loaded(name="digits")
    assert (len(data.train), len(data.test), data.classes) == (1347, 450, 10)
    assert data.input_shape == (1, 16, 16)
    images = data.train.inputs
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (0.0, 1.0)
    frame = images.clone()
    frame[..., 4:12, 4:12] = 0
    assert not frame.any()
    assert data.train.targets.dtype == torch.int64
    assert data.train.targets[:10].tolist() == list(range(10))


def test_a_balanced_subset_is_balanced_seeded_and_in_order() -> None:
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 5)
    chosen = balanced(targets, 15, seed=0)
    assert Counter(targets[chosen].tolist()) == {0: 5, 1: 5, 2: 5}
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, balanced(targets, 15, seed=0))
    assert not torch.equal(chosen, balanced(targets, 15, seed=1))
    counts = Counter(targets[balanced(targets, 16, seed=0)].tolist())
    assert sorted(counts.values()) == [5, 5, 6]


def test_a_balanced_subset_takes_what_there_is_of_a_rare_class() -> None:
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 5)
    counts = Counter(targets[balanced(targets, 45, seed=0)].tolist())
    assert counts == {0: 20, 1: 20, 2: 5}
    assert balanced(targets, 85, seed=0).tolist() == list(range(85))


def test_a_larger_subset_holds_the_smaller_one() -> None:
    targets = loaded(name="digits").train.targets
    small, large = (set(balanced(targets, n, seed=0).tolist()) for n in (100, 300))
    assert small < large


def test_subsets_of_digits_are_balanced_and_follow_from_their_own_seed() -> None:
    data = loaded(0, name="digits", train_size=100, test_size=50)
    assert set(Counter(data.train.targets.tolist()).values()) == {10}
    assert set(Counter(data.test.targets.tolist()).values()) == {5}
    same = loaded(9, name="digits", train_size=100, test_size=50)
    other = loaded(0, name="digits", train_size=100, subset_seed=1)
    assert torch.equal(data.train.inputs, same.train.inputs)
    assert not torch.equal(data.train.inputs, other.train.inputs)


def rows(split: Split | None) -> Counter[bytes]:
    assert split is not None
    return Counter(image.numpy().tobytes() for image in split.inputs)


def test_validation_images_are_held_out_of_training() -> None:
    whole = loaded(name="digits")
    data = loaded(name="digits", val_size=200)
    assert data.validation is not None
    assert (len(data.validation), len(data.train), len(data.test)) == (200, 1147, 450)
    assert set(Counter(data.validation.targets.tolist()).values()) == {20}
    assert rows(data.validation) + rows(data.train) == rows(whole.train)
    assert rows(data.test) == rows(whole.test)


def test_validation_is_the_same_whatever_is_trained_on() -> None:
    few = loaded(name="digits", val_size=200, train_size=50)
    many = loaded(name="digits", val_size=200, train_size=500)
    assert few.validation is not None
    assert many.validation is not None
    assert torch.equal(few.validation.inputs, many.validation.inputs)
    assert len(few.train) == 50
    assert not rows(few.train) - rows(many.train)


def test_sizes_that_the_data_do_not_have_are_refused() -> None:
    for sizes in (
        {"train_size": 1348},
        {"train_size": 1300, "val_size": 48},
        {"val_size": 1347},
        {"test_size": 451},
    ):
        with pytest.raises(ValidationError, match="size"):
            spec(name="digits", **sizes)
    assert len(loaded(name="digits", train_size=1300, val_size=47).train) == 1300
    assert len(loaded(name="digits", val_size=1346).train) == 1


# ------------------------------------------------------------------------------------- MNIST


def idx(values: Tensor) -> bytes:
    """uint8 values in the IDX format: magic number, dimensions, bytes."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def write_mnist(root: Path, train: int = 30, test: int = 20) -> dict[str, str]:
    """A small MNIST in torchvision's layout; gives the MD5 of each file."""
    generator = torch.Generator().manual_seed(0)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    checksums = {}
    for prefix, size in (("train", train), ("t10k", test)):
        images = torch.randint(0, 256, (size, 28, 28), generator=generator, dtype=torch.uint8)
        labels = (torch.arange(size) % 10).to(torch.uint8)
        for name, values in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx(values)
            (folder / f"{prefix}-{name}").write_bytes(content)
            checksums[f"{prefix}-{name}"] = hashlib.md5(content).hexdigest()
    return checksums


def test_mnist_is_read_from_torchvisions_files(tmp_path: Path) -> None:
    checksums = write_mnist(tmp_path)
    data = load(spec(name="mnist", checksums=checksums), tmp_path)
    assert data.train.inputs.shape == (30, 1, 28, 28)
    assert data.train.inputs.dtype == torch.uint8
    assert data.test.targets.tolist() == [i % 10 for i in range(20)]
    generator = torch.Generator().manual_seed(0)
    expected = torch.randint(0, 256, (30, 28, 28), generator=generator, dtype=torch.uint8)
    assert torch.equal(data.train.inputs[:, 0], expected)


def test_mnist_is_normalised_to_minus_one_to_one_unless_told_otherwise(tmp_path: Path) -> None:
    checksums = write_mnist(tmp_path)
    for normalize, low in ((True, -1.0), (False, 0.0)):
        data = load(spec(name="mnist", checksums=checksums, normalize=normalize), tmp_path)
        ((x, _),) = test_batches(data, data.test, 20)
        assert x.dtype == torch.float32
        assert (x.min().item(), x.max().item()) == (low, 1.0)
        expected = data.test.inputs.double() / 255 * (1 - low) + low
        torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-6)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    checksums = write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match="damaged") as caught:
        load(spec(name="mnist", checksums=checksums), tmp_path)
    assert str(path) in str(caught.value)
    assert checksums["t10k-images-idx3-ubyte"] in str(caught.value)


def test_files_that_are_not_the_official_ones_are_damaged_without_checksums(
    tmp_path: Path,
) -> None:
    write_mnist(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        load(spec(name="mnist"), tmp_path)


def test_a_file_is_verified_again_when_it_changes(tmp_path: Path) -> None:
    checksums = write_mnist(tmp_path)
    load(spec(name="mnist", checksums=checksums), tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"no labels")
    with pytest.raises(DataError, match="damaged"):
        load(spec(name="mnist", checksums=checksums), tmp_path)


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("Error downloading")])
def test_missing_files_without_network_say_what_to_do(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: Path) -> None:
        raise error

    monkeypatch.setitem(FILES, "mnist", dataclasses.replace(FILES["mnist"], download=fail))
    with pytest.raises(DataError, match="NODEBENCH_DATA") as caught:
        load(spec(name="mnist"), tmp_path)
    assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
    assert str(error) in str(caught.value)


def test_missing_files_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "elsewhere"
    checksums = write_mnist(source)
    calls: list[Path] = []

    def fetch(root: Path) -> None:
        calls.append(root)
        for file in (source / "MNIST" / "raw").iterdir():
            (root / "MNIST" / "raw" / file.name).write_bytes(file.read_bytes())

    monkeypatch.setitem(FILES, "mnist", dataclasses.replace(FILES["mnist"], download=fetch))
    root = tmp_path / "data"
    for _ in range(2):
        assert len(load(spec(name="mnist", checksums=checksums), root).train) == 30
    assert calls == [root]


def test_a_download_that_leaves_a_file_out_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums = write_mnist(tmp_path)
    missing = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    missing.unlink()
    files = dataclasses.replace(FILES["mnist"], download=lambda _root: None)
    monkeypatch.setitem(FILES, "mnist", files)
    with pytest.raises(DataError, match="missing") as caught:
        load(spec(name="mnist", checksums=checksums), tmp_path)
    assert str(missing) in str(caught.value)


# ----------------------------------------------------------------------------------- batches


def numbered(count: int, **settings: object) -> Data:
    """Samples whose input and target are their number."""
    split = Split(torch.arange(count).float().unsqueeze(1), torch.arange(count))
    return Data(split, split, None, classes=count, **settings)  # type: ignore[arg-type]


def order(data: Data, seed: int, epoch: int, batch_size: int = 4) -> list[int]:
    batches = train_batches(data, seed, epoch, batch_size, drop_last=False)
    return [int(target) for _, targets in batches for target in targets]


def test_every_sample_comes_once_an_epoch_with_its_target() -> None:
    data = numbered(11)
    for epoch in range(3):
        assert sorted(order(data, 0, epoch)) == list(range(11))
    for inputs, targets in train_batches(data, 0, 0, 4, drop_last=False):
        assert torch.equal(inputs.squeeze(1).long(), targets)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    data = numbered(50)
    first = order(data, 0, 0)
    torch.manual_seed(1)
    torch.rand(7)
    assert order(data, 0, 0) == first
    assert order(data, 0, 0, batch_size=7) == first
    assert order(data, 0, 1) != first
    assert order(data, 1, 0) != first
    assert first != sorted(first)


# `train_batches` gives no batch at all where `drop_last` meets a batch larger than the data,
# though `batches_per_epoch` promises one.
@pytest.mark.parametrize("drop_last", [False, True])
def test_there_are_as_many_batches_as_promised(drop_last: bool) -> None:
    for count, batch_size in itertools.product(range(1, 8), range(1, 10)):
        batches = list(train_batches(numbered(count), 0, 0, batch_size, drop_last))
        promised = batches_per_epoch(count, batch_size, drop_last)
        assert (count, batch_size, len(batches)) == (count, batch_size, promised)


def test_an_incomplete_last_batch_is_dropped_or_kept() -> None:
    def sizes(count: int, *, drop_last: bool) -> list[int]:
        return [len(t) for _, t in train_batches(numbered(count), 0, 0, 4, drop_last)]

    assert sizes(11, drop_last=False) == [4, 4, 3]
    assert sizes(11, drop_last=True) == [4, 4]
    assert sizes(12, drop_last=True) == sizes(12, drop_last=False) == [4, 4, 4]
    assert batches_per_epoch(11, 4, drop_last=True) == 2
    assert batches_per_epoch(11, 4, drop_last=False) == 3


def test_held_out_batches_keep_their_order_and_miss_none() -> None:
    data = numbered(10)
    batches = [targets.tolist() for _, targets in test_batches(data, data.test, 4)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def pictures(count: int = 40, dtype: torch.dtype = torch.float32, **settings: object) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, 3, 10, 8), generator=generator).to(dtype)
    split = Split(images, torch.arange(count))
    return Data(split, split, None, classes=count, **settings)  # type: ignore[arg-type]


def windows(image: Tensor) -> dict[bytes, tuple[int, int]]:
    """Every crop of the zero-padded image, by content, as the shift that makes it."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * PADDING, width + 2 * PADDING)
    padded[:, PADDING : PADDING + height, PADDING : PADDING + width] = image
    return {
        padded[:, dy : dy + height, dx : dx + width].contiguous().numpy().tobytes(): (dy, dx)
        for dy in range(2 * PADDING + 1)
        for dx in range(2 * PADDING + 1)
    }


def moved(data: Data, epoch: int = 0) -> dict[int, Tensor]:
    return {
        int(target): image
        for images, targets in train_batches(data, 0, epoch, 16, drop_last=False)
        for image, target in zip(images, targets, strict=True)
    }


def test_a_crop_is_a_window_of_the_zero_padded_image() -> None:
    data = pictures(augment=("crop",))
    shifts = [
        windows(data.train.inputs[i])[image.contiguous().numpy().tobytes()]
        for i, image in moved(data).items()
    ]
    assert len(set(shifts)) > 20
    for axis in (0, 1):
        assert {shift[axis] for shift in shifts} == set(range(2 * PADDING + 1))


def test_a_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    data = pictures(400, augment=("flip",))
    flipped = 0
    for i, image in moved(data).items():
        original = data.train.inputs[i]
        assert torch.equal(image, original) or torch.equal(image, original.flip(-1))
        flipped += int(torch.equal(image, original.flip(-1)))
    assert 150 < flipped < 250


def test_crop_and_flip_are_each_the_same_alone_and_together() -> None:
    cropped = moved(pictures(augment=("crop",)))
    flipped = moved(pictures(augment=("flip",)))
    originals = pictures().train.inputs
    for i, image in moved(pictures(augment=("crop", "flip"))).items():
        is_flipped = not torch.equal(flipped[i], originals[i])
        assert torch.equal(image, cropped[i].flip(-1) if is_flipped else cropped[i])


def test_augmentation_follows_from_seed_and_epoch_alone() -> None:
    data = pictures(augment=("crop", "flip"))
    first, again, later = moved(data), moved(data), moved(data, epoch=1)
    assert all(torch.equal(first[i], again[i]) for i in first)
    assert not all(torch.equal(first[i], later[i]) for i in first)


def test_held_out_images_are_never_augmented() -> None:
    data = pictures(augment=("crop", "flip"))
    ((images, _),) = test_batches(data, data.test, 100)
    assert torch.equal(images, data.test.inputs)


def test_bytes_are_scaled_and_normalised_by_channel_after_the_crop() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    plain = moved(pictures(augment=("crop",)))
    data = pictures(dtype=torch.uint8, augment=("crop",), mean=mean, std=std)
    for i, image in moved(data).items():
        for channel in range(3):
            expected = (plain[i][channel] / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(image[channel], expected, rtol=1e-5, atol=1e-5)
