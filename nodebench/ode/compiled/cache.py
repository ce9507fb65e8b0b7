"""Where compiled kernels are kept: in the user's cache, by the version of what they are made from.

Numba would keep them beside their modules. There, each environment compiles them again, and a
kernel is used as it was although a function that it calls has changed in another module. Numba's
processes would also overwrite each other's files, so that one loads the code of another signature.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

SOURCES = (
    *("**/*_kernels.py", "ode/compiled/*.py"),
    *("ode/dense/parts.py", "ode/adaptive/step_size.py"),
)
"""What kernels are made from: patterns of modules in the package."""

_PACKAGE = Path(__file__).parents[2]
_config: Any = numba.config


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


class _Folder(UserWideCacheLocator):
    """Tells numba the folder of this version: in the user's cache, or in NUMBA_CACHE_DIR."""

    def __init__(self, py_func: Callable[..., Any], py_file: str):
        super().__init__(py_func, py_file)
        if _config.CACHE_DIR:
            self._cache_path = UserProvidedCacheLocator(py_func, py_file).get_cache_path()
        self._cache_path = str(Path(self._cache_path).with_name(f"nodebench-{version()}"))

    def get_source_stamp(self) -> bytes:
        """The version; older releases of numba take the file's time, which differs by clone."""
        return version().encode()


class _Files(CompileResultCacheImpl):
    _locator_classes: Any = [_Folder]


class KernelCache(FunctionCache):
    """A function's compiled code on disk, for one process at a time.

    What cannot be read or written is compiled by each process.

    Raises:
        RuntimeError: if there is no folder that can be written.
    """

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature; None if there is none."""
        with contextlib.suppress(OSError), self._alone():
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # noqa: BLE001  # a damaged file can raise anything
                self.flush()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps the code for a signature."""
        with contextlib.suppress(OSError), self._alone():
            super().save_overload(sig, data)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        with (Path(self.cache_path) / "kernels.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def has_kernels() -> bool:
    """Whether this user has compiled any kernel of this version on this machine."""
    folder = _Folder(digest_of, __file__).get_cache_path()
    return any(Path(folder).glob("*.nbi"))
