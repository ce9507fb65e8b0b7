from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nodebench.data import load
from nodebench.data.batches import test_batches
from nodebench.data.load import census
from nodebench.spec.data import DATASETS, Images
from tests.support.fake_datasets import FILES, WRITERS, colors, images, jpeg, labels, loaded

test_batches.__test__ = False  # a name, not a test

SHAPES = {
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "svhn": (3, 32, 32),
}
CLASSES = {"mnist": 10, "fashion-mnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10}


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


@pytest.mark.parametrize("name", SHAPES)
def test_images_are_read_from_torchvisions_files(name: str, tmp_path: Path) -> None:
    data = loaded(tmp_path, name=name, **WRITERS[name](tmp_path, train=60, test=40))
    for split, part, size in (("train", data.train, 60), ("test", data.test, 40)):
        assert part.inputs.shape == (size, *SHAPES[name])
        assert part.inputs.dtype == torch.uint8
        assert part.inputs.is_contiguous()
        written = torch.from_numpy(images(split, size, *SHAPES[name]))
        assert torch.equal(part.inputs, written)
        assert part.targets.dtype == torch.int64
        assert part.targets.tolist() == labels(size, CLASSES[name]).tolist()
    assert data.classes == len(data.class_names) == CLASSES[name]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", (0.5,), (0.5,)),
        ("fashion-mnist", (0.5,), (0.5,)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        ("svhn", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        ("tiny-imagenet", (0.4802, 0.4481, 0.3975), (0.2764, 0.2689, 0.2816)),
    ],
)
def test_images_are_normalized_by_channel_unless_told_otherwise(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    settings = WRITERS[name](tmp_path)
    for normalize in (True, False):
        data = loaded(tmp_path, name=name, normalize=normalize, **settings)
        ((x, _),) = test_batches(data, data.test, 100)
        assert x.dtype == torch.float32
        expected = data.test.inputs.double() / 255
        if normalize:
            m, s = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
            expected = (expected - m) / s
        torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-5)


def test_augmentation_is_passed_on() -> None:
    assert loaded(name="digits", augment=["flip", "crop"]).augment == ("crop", "flip")


def test_mnists_older_unverified_format_is_not_read(tmp_path: Path) -> None:
    settings = WRITERS["mnist"](tmp_path)
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3)), processed / file)
    assert len(loaded(tmp_path, name="mnist", **settings).train) == 60


def test_the_digit_zero_of_svhn_is_class_zero(tmp_path: Path) -> None:
    data = loaded(tmp_path, name="svhn", **WRITERS["svhn"](tmp_path))
    assert data.train.targets[:11].tolist() == [*range(10), 0]


# ------------------------------------------------------------------------------ Tiny ImageNet


def test_tiny_imagenet_is_read_from_its_folder(tmp_path: Path) -> None:
    settings = WRITERS["tiny-imagenet"](tmp_path, train=60, test=40)
    data = loaded(tmp_path, name="tiny-imagenet", **settings)
    assert data.train.inputs.shape == (60, 3, 64, 64)
    assert data.test.inputs.shape == (40, 3, 64, 64)
    assert data.train.inputs.dtype == torch.uint8
    # Training images come class by class, test images in the order of their annotations.
    by_class = sorted(range(60), key=lambda i: (i % 10, i))
    assert data.train.targets.tolist() == [i % 10 for i in by_class]
    assert data.test.targets.tolist() == [i % 10 for i in range(40)]
    assert data.class_names == tuple(f"n{i:08}" for i in range(10))
    written = colors("train", 60)[by_class], colors("test", 40)
    for part, color in zip((data.train, data.test), written, strict=True):
        expected = torch.from_numpy(color)[:, :, None, None].expand(-1, -1, 64, 64)
        assert (part.inputs.int() - expected.int()).abs().max() <= 2


def test_only_chosen_jpegs_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"name": "tiny-imagenet", **WRITERS["tiny-imagenet"](tmp_path)}
    decoded: list[str] = []
    whole = load.images._pixels

    def spy(path: str, resolution: int) -> object:
        decoded.append(path)
        return whole(path, resolution)

    monkeypatch.setattr(load.images, "_pixels", spy)
    census(DATASETS["tiny-imagenet"](**settings), tmp_path)
    assert decoded == []
    sizes = {"train_size": 20, "val_size": 10, "test_size": 10}
    for _ in range(2):
        data = loaded(tmp_path, **settings, **sizes)
        assert len(decoded) == len(set(decoded)) == 40
    assert data.validation is not None
    for part, each in ((data.train, 2), (data.validation, 1), (data.test, 1)):
        assert set(Counter(part.targets.tolist()).values()) == {each}


def test_jpegs_are_resized_with_antialiasing_and_grey_ones_get_three_channels(
    tmp_path: Path,
) -> None:
    settings = WRITERS["tiny-imagenet"](tmp_path)
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    path = tmp_path / FILES["tiny-imagenet"].folder / "val" / "images" / "val_0.JPEG"
    path.write_bytes(jpeg(stripes))
    del settings["checksums"]["val/images/val_0.JPEG"]
    image = loaded(tmp_path, name="tiny-imagenet", **settings, resolution=16).test.inputs[0]
    assert image.shape == (3, 16, 16)
    assert torch.equal(image[0], image[1])
    # Stripes of one pixel average to grey; picking pixels would give black or white.
    assert (image.int() - 128).abs().max() < 16


# -------------------------------------------------------------------------------------- census


def test_a_census_counts_each_class(tmp_path: Path) -> None:
    settings = WRITERS["cifar10"](tmp_path, train=25, test=13)
    found = census(DATASETS["cifar10"](name="cifar10", **settings), tmp_path)
    assert found.folder == tmp_path / "cifar-10-batches-py"
    assert found.class_names == tuple(f"thing {i}" for i in range(10))
    assert found.train == (3, 3, 3, 3, 3, 2, 2, 2, 2, 2)
    assert found.test == (2, 2, 2, 1, 1, 1, 1, 1, 1, 1)


def test_every_data_set_loads_from_generated_files(tmp_path: Path) -> None:
    for name, part in DATASETS.items():
        found = census(part(name=name, **WRITERS[name](tmp_path)), tmp_path)
        assert (found.folder is None) == (name not in FILES)
        if issubclass(part, Images) and name != "digits":
            assert (sum(found.train), sum(found.test)) == (60, 40)
