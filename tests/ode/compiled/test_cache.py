import ast
import contextlib
import errno
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

import nodebench
from nodebench.ode.compiled.cache import digest_of, sources, version
from nodebench.ode.compiled.decorators import compiled

PACKAGE = Path(nodebench.__file__).parent


def add(x, y):
    return x + y


@pytest.fixture
def a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


ANOTHER = """
from nodebench.ode.compiled.decorators import compiled
from tests.ode.compiled.test_cache import add

print("ready", flush=True)
assert compiled(add)(1.5, 2.5) == 4.0
"""
"""What another process does, which compiles another signature."""


def imported(path):
    """The nodebench modules that a module imports from, as paths below the package."""
    nodes = ast.walk(ast.parse(path.read_text()))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    ours = [name.split(".")[1:] for name in names if name.startswith("nodebench.")]
    return {str(Path(*parts).with_suffix(".py")) for parts in ours}


def test_a_version_is_of_all_that_kernels_are_made_from():
    found = sources(PACKAGE)
    known = {str(path.relative_to(PACKAGE)) for path in found}
    made_from = [p for p in found if p.name.endswith("_kernels.py") or p.parent.name == "compiled"]
    assert len(made_from) > 10
    for path in made_from:
        assert imported(path) <= known


def test_only_kernels_are_compiled():
    users = [p for p in PACKAGE.rglob("*.py") if "decorators import compiled" in p.read_text()]
    assert users
    assert set(users) <= set(sources(PACKAGE))


def test_an_edit_of_what_a_kernel_calls_gives_another_version(tmp_path):
    copied = tmp_path / "nodebench"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of(copied) == version()
    with (copied / "ode" / "compiled" / "tile_size.py").open("a") as file:
        file.write("TILE_ROWS = 8\n")
    assert digest_of(copied) != version()


def calls(kernel):
    """The sum of 1 and 2 by a kernel, and how often its cache was missed."""
    assert kernel(1, 2) == 3
    return sum(kernel.stats.cache_misses.values())


def test_a_kernel_is_kept_in_the_folder_of_its_version(a_cache):
    assert [calls(compiled(add)), calls(compiled(add))] == [1, 0]
    assert [path.name for path in a_cache.iterdir()] == [f"nodebench-{version()}"]


def test_clones_share_kernels(a_cache, tmp_path):
    functions = []
    for number in range(2):
        path = tmp_path / f"clone-{number}" / "module.py"
        path.parent.mkdir()
        path.write_text(inspect.getsource(add))
        os.utime(path, (number, number))
        module: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), module)
        functions.append(module["add"])
    assert [calls(compiled(function)) for function in functions] == [1, 0]


def test_where_nothing_can_be_kept_a_kernel_is_compiled(a_cache, monkeypatch):
    file = a_cache / "file"
    file.touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(file))
    kernel = compiled(add)
    assert kernel(1, 2) == 3
    assert kernel.stats.cache_path is None


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_file_is_compiled_and_kept_again(a_cache, suffix, content):
    calls(compiled(add))
    [path] = a_cache.glob(f"*/*.{suffix}")
    path.write_bytes(content)
    assert [calls(compiled(add)), calls(compiled(add))] == [1, 0]


def test_on_a_full_disk_a_kernel_is_compiled_by_each_process(a_cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    assert [calls(compiled(add)), calls(compiled(add))] == [1, 1]


def test_processes_that_compile_at_once_do_not_mix_their_code(a_cache, monkeypatch):
    """While one has read the index and not yet written it, another may not write."""
    save, others = IndexDataCacheFile._save_index, []

    def save_while_another_compiles(self, overloads):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(a_cache), "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", ANOTHER]
        others.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
        assert others[0].stdout.readline() == b"ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            others[0].wait(timeout=2)
        save(self, overloads)

    monkeypatch.setattr(IndexDataCacheFile, "_save_index", save_while_another_compiles)
    assert compiled(add)(1, 2) == 3
    with others[0] as other:
        assert other.wait(timeout=60) == 0
    later = compiled(add)
    assert (later(1, 2), later(1.5, 2.5)) == (3, 4.0)
    assert not later.stats.cache_misses
