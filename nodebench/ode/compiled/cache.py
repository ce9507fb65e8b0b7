"""Where compiled kernels are kept: in the user's cache, by the version of what they are made from.

Numba would keep them beside their modules. There, each environment compiles them again, and a
kernel is used as it was although a function that it calls has changed in another module.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import UserProvidedCacheLocator, UserWideCacheLocator

SOURCES = (
    *("**/*_kernels.py", "ode/compiled/*.py"),
    *("ode/dense/parts.py", "ode/adaptive/step_size.py"),
)
"""What kernels are made from: patterns of modules in the package."""

_PACKAGE = Path(__file__).parents[2]
_config: Any = numba.config


class KernelCache(UserWideCacheLocator):
    """Tells numba the folder of kernels, in the user's cache or in NUMBA_CACHE_DIR."""

    def __init__(self, py_func: Callable[..., Any], py_file: str):
        super().__init__(py_func, py_file)
        if _config.CACHE_DIR:
            self._cache_path = UserProvidedCacheLocator(py_func, py_file).get_cache_path()
        self._cache_path = str(Path(self._cache_path).with_name(f"nodebench-{version()}"))


def has_kernels() -> bool:
    """Whether any kernel of this version has been compiled by this user on this machine."""
    folder = KernelCache(digest_of, __file__).get_cache_path()
    return any(Path(folder).glob("*.nbi"))


@cache
def version() -> str:
    """A digest of the sources of all kernels, and of numba's version."""
    return digest_of(_PACKAGE)


def digest_of(package: Path) -> str:
    """The version of the kernels of a copy of the package."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sources(package):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def sources(package: Path) -> list[Path]:
    """The modules that kernels are made from."""
    return sorted(path for pattern in SOURCES for path in package.glob(pattern))


@contextlib.contextmanager
def kept_by_version() -> Generator[None]:
    """Functions that numba decorates within are kept in this cache."""
    before = _config.CACHE_LOCATOR_CLASSES
    _config.CACHE_LOCATOR_CLASSES = f"{KernelCache.__module__}.{KernelCache.__name__}"
    try:
        yield
    finally:
        _config.CACHE_LOCATOR_CLASSES = before
