"""Loads a trial's data by name (`load_data`), and counts samples without a trial (`census`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nodebench.data import images, text, toy
from nodebench.data.dataset import Data
from nodebench.data.files import prepare
from nodebench.data.subset import Whole, subset
from nodebench.data.system import Flow, flow
from nodebench.data.trajectory import Trajectory, spiral
from nodebench.spec import TrialSpec
from nodebench.spec.data import Dataset, Labeled, RandomDataset
from nodebench.spec.settings import DATA_ARGUMENTS, import_part

# Data sets that are the same for every trial, which uses a subset.
WHOLES: dict[str, Callable[[Any, Path], Whole]] = {
    "digits": images.digits,
    "mnist": images.official,
    "fashion-mnist": images.official,
    "cifar10": images.official,
    "cifar100": images.official,
    "svhn": images.official,
    "tiny-imagenet": images.tiny_imagenet,
    "agnews": text.agnews,
    "agnews-small": text.agnews,
}

# Data sets that are drawn from a seed.
DRAWN: dict[str, Callable[[Any, int, Path], Data | Trajectory | Flow]] = {
    "spheres": toy.spheres,
    "three-minima": toy.three_minima,
    "spiral": spiral,
    "system": flow,
}


def load_data(spec: TrialSpec, root: Path) -> Data | Trajectory | Flow:
    """A trial's data, from files under `root` or drawn from a seed: the data's, else the trial's.

    Raises:
        DataError: if files are missing and cannot be downloaded, or are damaged, or hold fewer
            samples than the trial asks for.
    """
    prepare(spec.data, root)
    whole = WHOLES.get(spec.data.name)
    if whole is not None:
        assert isinstance(spec.data, Labeled)
        return subset(spec.data, whole(spec.data, root))
    loader = DRAWN.get(spec.data.name) or import_part(spec.data.name, DATA_ARGUMENTS)
    data: Data | Trajectory | Flow = loader(spec.data, _draw_seed(spec.data, spec.seed), root)
    return data


def _draw_seed(settings: Dataset, seed: int) -> int:
    """The seed that data are drawn from: their own, otherwise the trial's `seed`."""
    own = settings.draw_seed if isinstance(settings, RandomDataset) else None
    return seed if own is None else own


@dataclass(frozen=True)
class Census:
    """The number of samples in each class, if there are classes, and the files' folder, if any."""

    folder: Path | None
    class_names: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]


def census(settings: Dataset, root: Path) -> Census:
    """Counts a data set's samples, after downloading and verifying its files; decodes no JPEGs.

    Raises:
        DataError: as `load_data` does.
    """
    folder = prepare(settings, root)
    parts: Whole | Data | Trajectory | Flow
    if settings.name in WHOLES:
        parts = WHOLES[settings.name](settings, root)
    else:
        parts = DRAWN[settings.name](settings, _draw_seed(settings, 0), root)
    if isinstance(parts, Trajectory | Flow):
        return Census(folder, (), (), ())
    names = parts.class_names
    train, test = (
        tuple(torch.bincount(part.targets, minlength=len(names)).tolist())
        for part in (parts.train, parts.test)
    )
    return Census(folder, names, train, test)
