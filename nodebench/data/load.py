"""The table from a data set's name to its loader, and `load`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodebench.data import images, toy
from nodebench.data.dataset import Data
from nodebench.data.files import prepare
from nodebench.part import import_part
from nodebench.spec import TrialSpec

DATASETS: dict[str, Callable[[Any, int, Path], Data]] = {
    "digits": images.digits,
    "mnist": images.mnist,
    "spheres": toy.spheres,
}


def load(spec: TrialSpec, root: Path) -> Data:
    """A trial's data, from files under `root` or generated from its seed.

    Raises:
        DataError: if files are missing and cannot be downloaded, or are damaged.
    """
    prepare(spec.data, root)
    loader = DATASETS.get(spec.data.name) or import_part(spec.data.name)
    data: Data = loader(spec.data, spec.seed, root)
    return data
