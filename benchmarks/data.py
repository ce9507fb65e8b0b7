"""Batches of augmented images: ours beside torchvision's data set in torch's DataLoader."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import Row, compared, interleaved
from nodebench.data.batches import train_batches
from nodebench.data.dataset import Data, Split

BATCH, IMAGES = 128, 12_800
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Torchvision(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 does for each image."""

    def __init__(self, split: Split):
        self.images = np.ascontiguousarray(split.inputs.permute(0, 2, 3, 1).numpy())
        self.targets = split.targets.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


def augmented_images(rounds: int = 5) -> list[Row]:
    """An epoch of random crops and flips, normalised, in batches of 128."""
    inputs = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    split = Split(inputs, torch.randint(10, (IMAGES,)))
    data = Data(split, split, None, 10, MEAN, STD, ("crop", "flip"))
    # Workers that stay, as a training over many epochs has them.
    loader = DataLoader(
        Torchvision(split), BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    seconds = interleaved(
        {
            "ours": lambda: sum(1 for _ in train_batches(data, 0, 0, BATCH, drop_last=False)),
            "loader": lambda: sum(1 for _ in loader),
        },
        rounds,
    )
    what = f"{IMAGES:,} CIFAR-10 images, crop and flip"
    return [compared(what, seconds["ours"], "DataLoader, 2 workers", seconds["loader"], "20")]
