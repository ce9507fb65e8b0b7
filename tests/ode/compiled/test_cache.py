import ast
import shutil
from pathlib import Path

import numba
import pytest

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
    assert all(path.name.endswith("_kernels.py") for path in users)


def test_an_edit_of_what_a_kernel_calls_gives_another_version(tmp_path):
    copied = tmp_path / "nodebench"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of(copied) == version()
    with (copied / "ode" / "compiled" / "tile_size.py").open("a") as file:
        file.write("TILE_ROWS = 8\n")
    assert digest_of(copied) != version()


def test_a_kernel_is_kept_in_the_folder_of_its_version(a_cache):
    before = numba.config.CACHE_LOCATOR_CLASSES
    first, second = compiled(add), compiled(add)
    assert (first(1, 2), second(1, 2)) == (3, 3)
    assert (sum(first.stats.cache_misses.values()), sum(second.stats.cache_hits.values())) == (1, 1)
    assert [path.name for path in a_cache.iterdir()] == [f"nodebench-{version()}"]
    assert before == numba.config.CACHE_LOCATOR_CLASSES


def test_where_nothing_can_be_kept_a_kernel_is_compiled(a_cache, monkeypatch):
    file = a_cache / "file"
    file.touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(file))
    kernel = compiled(add)
    assert kernel(1, 2) == 3
    assert kernel.stats.cache_path is None
