"""Small generated files in each data set's own layout.

`WRITERS[name](root)` writes them under a data root and returns the settings with which a trial
reads them: `{"checksums": ...}`, or nothing where a data set needs no files.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nodebench.data.dataset import Data
from nodebench.data.files import FILES
from nodebench.data.load import load_data
from nodebench.spec import TrialSpec
from nodebench.spec.data import DATASETS

NOWHERE = Path("/nonexistent")

Settings = dict[str, Any]
TRAIN, TEST = 60, 40
SEEDS = {"train": 1, "test": 2}

TINY_CLASSES = 10
"""Of the 200 of Tiny ImageNet."""

WORDS = ("The", "markets", "fell", "as", "oil", "rose;", "it's", '"we won"', "<b>#39;</b>", "50%")


def loaded(root: Path = NOWHERE, seed: int = 0, **data: Any) -> Data:
    """The data of a trial with these data settings."""
    data_set = load_data(TrialSpec(data=data, model="any:model", seed=seed), root)
    assert isinstance(data_set, Data)
    return data_set


def images(split: str, size: int, *shape: int) -> NDArray[np.uint8]:
    """The pixels [size, *shape] that are written for a split: random, the same every time."""
    generator = np.random.default_rng(SEEDS[split])
    return generator.integers(0, 256, (size, *shape), dtype=np.uint8)


def labels(size: int, classes: int) -> NDArray[np.uint8]:
    """The classes [size] that are written for a split: in turn."""
    return (np.arange(size) % classes).astype(np.uint8)


def texts(split: str, size: int) -> list[str]:
    """The descriptions that are written for a split."""
    generator = np.random.default_rng(SEEDS[split])
    return [" ".join(generator.choice(WORDS, 30)) for _ in range(size)]


def colors(split: str, size: int) -> NDArray[np.uint8]:
    """The colour [size, 3] of every JPEG that is written for a split: each is all of one."""
    return images(split, size, 3)


def write(folder: Path, files: dict[str, bytes]) -> Settings:
    """Writes files by name; gives the settings with their MD5."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    return {"checksums": checksums}


def mnist(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """The four un-gzipped files in the IDX format."""
    return write(root / FILES["mnist"].folder, _idx_files(train, test))


def fashion_mnist(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """The four .gz files; nodebench un-gzips them."""
    packed = {
        f"{name}.gz": gzip.compress(content, mtime=0)
        for name, content in _idx_files(train, test).items()
    }
    return write(root / FILES["fashion-mnist"].folder, packed)


def cifar10(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """Five training batches, the test batch and the class names, pickled."""
    rows, classes = images("train", train, 3072), labels(train, 10)
    batches = {
        f"data_batch_{i + 1}": {"data": rows[part], "labels": classes[part].tolist()}
        for i, part in enumerate(np.array_split(np.arange(train), 5))
    }
    batches["test_batch"] = {
        "data": images("test", test, 3072),
        "labels": labels(test, 10).tolist(),
    }
    batches["batches.meta"] = {"label_names": [f"thing {i}" for i in range(10)]}
    return write(root / FILES["cifar10"].folder, _pickled(batches))


def cifar100(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """The training file, the test file and the names of the fine classes, pickled."""
    batches: dict[str, Any] = {
        split: {
            "data": images(split, size, 3072),
            "fine_labels": labels(size, 100).tolist(),
            "coarse_labels": labels(size, 20).tolist(),
        }
        for split, size in (("train", train), ("test", test))
    }
    batches["meta"] = {"fine_label_names": [f"thing {i}" for i in range(100)]}
    return write(root / FILES["cifar100"].folder, _pickled(batches))


def svhn(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """Two MATLAB files, in which the digit 0 is class 10 and an image's number comes last."""
    from scipy.io import savemat

    files = {}
    for split, size in (("train", train), ("test", test)):
        digits = labels(size, 10)
        content = io.BytesIO()
        pixels = images(split, size, 3, 32, 32).transpose(2, 3, 1, 0)
        savemat(content, {"X": pixels, "y": np.where(digits == 0, 10, digits)[:, None]})
        files[f"{split}_32x32.mat"] = content.getvalue()
    return write(root / FILES["svhn"].folder, files)


def tiny_imagenet(root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """JPEGs of one colour each, in folders of 10 classes, and the lists that come with them."""
    names = [f"n{i:08}" for i in range(TINY_CLASSES)]
    files = {"wnids.txt": "\n".join(reversed(names)).encode() + b"\n"}
    rows = []
    for split, size in (("train", train), ("test", test)):
        for i, color in enumerate(colors(split, size)):
            name = names[i % TINY_CLASSES]
            if split == "train":
                path = f"train/{name}/images/{name}_{i // TINY_CLASSES:03}.JPEG"
            else:
                path = f"val/images/val_{i}.JPEG"
                rows.append(f"val_{i}.JPEG\t{name}\t0\t0\t62\t62\n")
            files[path] = jpeg(np.broadcast_to(color, (64, 64, 3)))
    files["val/val_annotations.txt"] = "".join(rows).encode()
    return write(root / FILES["tiny-imagenet"].folder, files)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """An image [height, width, 3], or [height, width] in grey, of the best quality."""
    content = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(content, format="JPEG", quality=100, subsampling=0)
    return content.getvalue()


def ag_news(name: str, root: Path, train: int = TRAIN, test: int = TEST) -> Settings:
    """Two CSV files of class, title, description, all quoted."""
    files = {}
    for split, size in (("train", train), ("test", test)):
        rows = zip(labels(size, 4) + 1, texts(split, size), strict=True)
        files[f"{split}.csv"] = csv_file([(str(label), "A title", text) for label, text in rows])
    return write(root / FILES[name].folder, files)


def csv_file(rows: list[tuple[str, str, str]]) -> bytes:
    """Rows in AG News's form of CSV."""
    content = io.StringIO(newline="")
    csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return content.getvalue().encode()


def nothing(_root: Path, **_sizes: int) -> Settings:
    """For data sets without files."""
    return {}


WRITERS: dict[str, Callable[..., Settings]] = dict.fromkeys(DATASETS, nothing) | {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "tiny-imagenet": tiny_imagenet,
    "agnews": partial(ag_news, "agnews"),
    "agnews-small": partial(ag_news, "agnews-small"),
}


def _idx_files(train: int, test: int) -> dict[str, bytes]:
    return {
        f"{prefix}-{kind}": _idx(values)
        for split, prefix, size in (("train", "train", train), ("test", "t10k", test))
        for kind, values in (
            ("images-idx3-ubyte", images(split, size, 28, 28)),
            ("labels-idx1-ubyte", labels(size, 10)),
        )
    }


def _idx(values: NDArray[np.uint8]) -> bytes:
    """uint8 values in the IDX format: magic number, dimensions, bytes."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def _pickled(batches: dict[str, Any]) -> dict[str, bytes]:
    return {name: pickle.dumps(batch, protocol=2) for name, batch in batches.items()}
