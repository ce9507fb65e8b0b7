from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import Tensor

from nodebench.data.augmentation import CROP_PADDING
from nodebench.data.batches import batches_per_epoch, test_batches, train_batches
from nodebench.data.dataset import Data, Split, balanced
from nodebench.errors import DataError
from tests.support.fake_datasets import WRITERS, loaded

test_batches.__test__ = False  # a name, not a test

# ----------------------------------------------------------------------------------- subsets


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


def test_digits_are_those_that_scikit_learn_reads() -> None:
    images, targets = load_digits(return_X_y=True)
    data = loaded(name="digits")
    inside = torch.cat([data.train.inputs, data.test.inputs])[:, :, 4:-4, 4:-4]
    assert torch.equal(inside.flatten(1), torch.from_numpy(images).float() / 16)
    assert torch.equal(
        torch.cat([data.train.targets, data.test.targets]), torch.from_numpy(targets)
    )


def test_subsets_of_digits_are_balanced_and_follow_from_their_own_seed() -> None:
    data = loaded(name="digits", train_size=100, test_size=50)
    assert set(Counter(data.train.targets.tolist()).values()) == {10}
    assert set(Counter(data.test.targets.tolist()).values()) == {5}
    same = loaded(seed=9, name="digits", train_size=100, test_size=50)
    other = loaded(name="digits", train_size=100, subset_seed=1)
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
            loaded(name="digits", **sizes)
    assert len(loaded(name="digits", train_size=1300, val_size=47).train) == 1300
    assert len(loaded(name="digits", val_size=1346).train) == 1


def test_sizes_that_a_users_own_files_do_not_have_are_refused_when_they_are_read(
    tmp_path: Path,
) -> None:
    own = {"name": "mnist", **WRITERS["mnist"](tmp_path, train=30, test=20)}
    assert len(loaded(tmp_path, **own, train_size=20, val_size=10, test_size=20).train) == 20
    for sizes, said in (
        ({"train_size": 31}, "`train_size: 31`: more than the 30 training samples"),
        ({"val_size": 30}, "`val_size: 30`: more than the 30 training samples"),
        ({"test_size": 21}, "`test_size` exceeds the 20 test samples"),
    ):
        with pytest.raises(DataError, match=f"`mnist`: {said}"):
            loaded(tmp_path, **own, **sizes)


# ----------------------------------------------------------------------------------- batches


def numbered(count: int, **settings: object) -> Data:
    """Samples whose input and target are their number."""
    split = Split(torch.arange(count).float().unsqueeze(1), torch.arange(count))
    return Data(split, split, None, classes=count, **settings)


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
    return Data(split, split, None, classes=count, **settings)


def windows(image: Tensor) -> dict[bytes, tuple[int, int]]:
    """Every crop of the zero-padded image, by content, as the shift that makes it."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * CROP_PADDING, width + 2 * CROP_PADDING)
    padded[:, CROP_PADDING : CROP_PADDING + height, CROP_PADDING : CROP_PADDING + width] = image
    return {
        padded[:, dy : dy + height, dx : dx + width].contiguous().numpy().tobytes(): (dy, dx)
        for dy in range(2 * CROP_PADDING + 1)
        for dx in range(2 * CROP_PADDING + 1)
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
        assert {shift[axis] for shift in shifts} == set(range(2 * CROP_PADDING + 1))


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


def test_bytes_are_scaled_and_normalized_by_channel_after_the_crop() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    plain = moved(pictures(augment=("crop",)))
    data = pictures(dtype=torch.uint8, augment=("crop",), mean=mean, std=std)
    for i, image in moved(data).items():
        for channel in range(3):
            expected = (plain[i][channel] / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(image[channel], expected, rtol=1e-5, atol=1e-5)


def test_codes_of_characters_are_integers_and_never_scaled() -> None:
    codes = torch.tensor([[0, 1, 68], [67, 2, 0]], dtype=torch.uint8)
    split = Split(codes, torch.arange(2))
    data = Data(split, split, None, classes=2, symbols=69)
    ((inputs, _),) = test_batches(data, data.test, 8)
    assert inputs.dtype == torch.int32
    assert inputs.tolist() == codes.tolist()
    weight = torch.nn.Embedding(69, 4)
    weight(inputs).sum().backward()
    assert weight.weight.grad is not None
    assert weight.weight.grad[68].tolist() == [1.0] * 4
