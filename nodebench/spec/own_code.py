"""The source of a user's own component: every module of the user's that it imports.

The modules are found without importing anything, by reading the `import` statements. Installed
packages and Python's own modules are left out: they have versions, of which a trial's environment
records Python's and those of the packages that nodebench computes with.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import sys
import sysconfig
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from nodebench.errors import InputError
from nodebench.files import PACKAGE

INSTALLED = {"site-packages", "dist-packages"}
PYTHON_FOLDERS = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
NODEBENCH = str(PACKAGE)
BY_NAME = ("import_module", "__import__")
"""Functions that import the module that their first argument names."""


@lru_cache
def own_modules(module: str) -> dict[str, str]:
    """Module -> SHA-256 of its file, for this module and all of the user's that it imports.

    Imports inside a function or under a condition count too. Files without any code, such as an
    empty `__init__.py`, are left out. The result is cached for the whole process, which imports a
    module only once.

    Raises:
        ModuleNotFoundError: if there is no such module here.
    """
    spec = next((spec for name, spec in _found(module) if name == module), None)
    content = _content(spec) if spec else None
    if content is None:
        raise ModuleNotFoundError(f"there is no module `{module}`")
    first = hashlib.sha256(content).hexdigest()
    hashes, seen, waiting = {module: first}, set[str](), [module]
    while waiting:
        for name, spec in _found(waiting.pop()):
            if spec.has_location and not is_users_file(spec.origin):
                break  # an installed package imports nothing of the user's
            if name in seen or not spec.has_location:
                continue
            seen.add(name)
            source = _Source(name, spec)
            if source.has_code:
                hashes[name] = source.hash
            waiting += source.imports()
    return dict(sorted(hashes.items()))


@contextmanager
def known_alone(paths: Sequence[str]) -> Generator[None]:
    """Rejects, at its end, modules that the user's parts imported and `own_modules` cannot find.

    Raises:
        InputError: in that case, and on every later call, as a module is imported only once.
    """
    before = set(sys.modules)
    yield
    new = [sys.modules.get(name) for name in sys.modules.keys() - before]
    specs = [spec for module in new if (spec := getattr(module, "__spec__", None)) is not None]
    known = {name for path in paths for name in own_modules(path.partition(":")[0])}
    own = [spec for spec in specs if spec.name not in known and is_users_file(spec.origin)]
    unseen = _unseen.setdefault(tuple(paths), set())
    unseen |= {spec.name for spec in own if _Source(spec.name, spec).has_code}
    if paths and unseen:
        raise InputError(
            f"`{'`, `'.join(paths)}`: `{min(unseen)}` is imported under a name computed at run "
            "time, so editing it would not change the trials' ids. Also name it in an `import` "
            "statement, which may be under `if False:`"
        )


_unseen: dict[tuple[str, ...], set[str]] = {}


def is_users_file(file: str | None) -> bool:
    """Whether a module's file is the user's: neither installed, nor Python's, nor ours."""
    if not file or not _is_there(file) or INSTALLED & set(Path(file).parts):
        return False
    return not any(_is_inside(file, folder) for folder in (*PYTHON_FOLDERS, NODEBENCH))


def place_in_users_code(error: BaseException) -> tuple[str, int] | None:
    """The file and line in the user's own code that an error comes from, if any is.

    It is the last one there: the user's code may have called other code.
    """
    frames = reversed(traceback.extract_tb(error.__traceback__))
    places = ((frame.filename, frame.lineno or 0) for frame in frames)
    return next((place for place in places if is_users_file(place[0])), None)


def _is_there(file: str) -> bool:
    """Whether a module's file is on disk, alone or in a zip file from which Python imports."""
    return any(path.is_file() for path in (Path(file), *Path(file).parents))


def _content(spec: ModuleSpec) -> bytes | None:
    """The bytes of a module's file; None if there is no readable file."""
    file, in_archive = spec.origin or "", getattr(spec.loader, "get_data", None)
    try:
        if os.path.isfile(file):
            return Path(file).read_bytes()
        # Not a device, which may never end.
        return in_archive(file) if in_archive and not os.path.exists(file) else None
    except OSError:
        return None


def _is_inside(file: str, folder: str) -> bool:
    return any(path.startswith(folder + os.sep) for path in (file, os.path.realpath(file)))


def _found(module: str) -> Iterator[tuple[str, ModuleSpec]]:
    """A module, preceded by the packages around it, as far as they exist; nothing is imported."""
    top, *rest = module.split(".")
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    name, spec = top, next(filter(None, (finder.find_spec(top, None) for finder in finders)), None)
    for tail in (*rest, None):
        if spec is None:
            return
        yield name, spec
        if tail is not None:
            # By its last name: with the full one, Python would look for the imported package.
            folders = list(spec.submodule_search_locations or ())
            name, spec = f"{name}.{tail}", PathFinder.find_spec(tail, folders)


class _Source:
    """A module's file, parsed without importing it."""

    def __init__(self, name: str, spec: ModuleSpec):
        self.name, self.is_package = name, spec.submodule_search_locations is not None
        content = _content(spec) or b""
        self.hash = hashlib.sha256(content).hexdigest()
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):  # not Python source; its import will report that
            self.nodes, self.has_code = list[ast.AST](), True
        else:
            self.nodes, self.has_code = list(ast.walk(tree)), not all(map(_is_text, tree.body))

    def imports(self) -> Iterator[str]:
        """The names that it may import; some of these may not be modules."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = self._absolute(node.level, node.module or "")
                yield from (module, *(f"{module}.{alias.name}" for alias in node.names))
            elif isinstance(node, ast.Call) and (named := _named(node)):
                dots = len(named) - len(named.lstrip("."))
                yield self._absolute(dots, named[dots:])

    def _absolute(self, dots: int, module: str) -> str:
        parts = self.name.split(".") if dots else []
        up = dots - self.is_package
        return ".".join([*parts[: len(parts) - up], *filter(None, [module])])


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _named(call: ast.Call) -> str | None:
    """The module that `import_module("a.b")` or `__import__("a.b")` names, if it is written out."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    first = call.args[0] if call.args else None
    if name in BY_NAME and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return None


def file_hash(path: str) -> str | None:
    """The SHA-256 of a file; None if it cannot be read, which is reported when it is needed."""
    try:
        found = os.stat(path)
        is_file = stat.S_ISREG(found.st_mode)  # a device may never end
        return _file_hash(path, found.st_mtime_ns, found.st_size) if is_file else None
    except OSError:
        return None


@lru_cache
def _file_hash(path: str, _mtime_ns: int, _size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
