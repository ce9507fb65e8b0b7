"""Downloads each data set's files into a data root.

Torchvision does this and is imported on the first download: this module does not import torch.
"""

from __future__ import annotations

from pathlib import Path

AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def fetch_mnist(root: Path) -> None:
    """The .gz files, and the un-gzipped ones next to them."""
    from torchvision import datasets

    datasets.MNIST(str(root), download=True)


def fetch_fashion_mnist(root: Path) -> None:
    """The .gz files, and the un-gzipped ones next to them."""
    from torchvision import datasets

    datasets.FashionMNIST(str(root), download=True)


def fetch_cifar10(root: Path) -> None:
    """The Python batches, unpacked from an archive that stays in `root`."""
    from torchvision import datasets

    datasets.CIFAR10(str(root), download=True)


def fetch_cifar100(root: Path) -> None:
    """The Python batches, unpacked from an archive that stays in `root`."""
    from torchvision import datasets

    datasets.CIFAR100(str(root), download=True)


def fetch_svhn(root: Path) -> None:
    """The training and test digits in MATLAB's format; not the half million extra ones."""
    from torchvision import datasets

    for split in ("train", "test"):
        datasets.SVHN(str(root / "SVHN"), split=split, download=True)


def fetch_tiny_imagenet(root: Path) -> None:
    """The folder of JPEGs, unpacked from an archive that is verified by MD5 and then deleted."""
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(
        TINY_IMAGENET, str(root), md5=TINY_IMAGENET_MD5, remove_finished=True
    )


def fetch_agnews(root: Path) -> None:
    """The two CSV files where torchtext would put them."""
    from torchvision.datasets.utils import download_url

    for file in ("train.csv", "test.csv"):
        if not (root / "datasets" / "AG_NEWS" / file).exists():
            download_url(AG_NEWS + file, str(root / "datasets" / "AG_NEWS"))
