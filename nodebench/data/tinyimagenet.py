"""The contents of Tiny ImageNet's folder. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodebench.errors import DataError

CLASSES, TRAIN_PER_CLASS, TEST = 200, 500, 10_000
"""The official numbers of classes, of training images per class, and of validation images."""


@dataclass(frozen=True)
class Listing:
    """The images, by path and class number, and the WordNet ids that the classes stand for."""

    class_names: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    test: tuple[tuple[Path, int], ...]


def listing(folder: Path) -> Listing:
    """Lists the images without opening any. Classes are numbered in the order of their names.

    Raises:
        DataError: if the lists of classes or of validation images are missing or malformed.
    """
    try:
        names = tuple(sorted((folder / "wnids.txt").read_text(encoding="utf-8").split()))
        numbers = {name: number for number, name in enumerate(names)}
        train = tuple(
            (path, number)
            for name, number in numbers.items()
            for path in sorted((folder / "train" / name / "images").glob("*.JPEG"))
        )
        rows = (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        pairs = [row.split("\t")[:2] for row in rows]
        test = tuple((folder / "val" / "images" / file, numbers[name]) for file, name in pairs)
        if not train or not test:
            raise ValueError("no images")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"`{folder}` is not Tiny ImageNet as it was released ({error}). Delete the folder "
            "and run again to download it anew"
        ) from error
    return Listing(names, train, test)


def check(folder: Path) -> None:
    """Checks that no image is missing, by number: 110,000 checksums would take minutes each time.

    Raises:
        DataError: if the number of images differs from the release.
    """
    listed = listing(folder)
    counts = [0] * len(listed.class_names)
    for _, number in listed.train:
        counts[number] += 1
    present = sum(path.suffix == ".JPEG" for path in (folder / "val" / "images").glob("*"))
    whole = counts == [TRAIN_PER_CLASS] * CLASSES and len(listed.test) == present == TEST
    if not whole:
        raise DataError(
            f"`{folder}` is incomplete: {len(listed.train):,} training images in {len(counts)} "
            f"classes and {present:,} validation images, not {CLASSES * TRAIN_PER_CLASS:,} in "
            f"{CLASSES} and {TEST:,}. Delete the folder and run again to download it anew"
        )
