"""What the rooms promise beyond their imports, which import-linter checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nodebench
from nodebench.data.dataset import Data, Split
from nodebench.execution import launch
from nodebench.files import PACKAGE
from nodebench.ode.block import ODEBlock

ROOT = Path(__file__).parents[2]


def test_the_package_is_what_freshness_and_commits_are_looked_for_in() -> None:
    assert PACKAGE == ROOT / "nodebench"
    assert (PACKAGE / "report" / "analysis" / "published.yaml").exists()


def test_trials_are_tagged_with_the_commit_of_the_code() -> None:
    head = subprocess.check_output(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], text=True
    ).strip()
    assert launch.code_version()["commit"] == head


SETS_UP_AT_IMPORT = {
    "__main__.py": "it is run, not imported",
    "tracking/client.py": "MLflow reads some of its settings when it is imported",
}
DEFINES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def acts(module: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module that do more than define names."""
    for statement in module.body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        is_elsewhere = any(isinstance(x, ast.Attribute | ast.Subscript) for x in targets)
        if is_elsewhere or not (is_text or isinstance(statement, DEFINES)):
            yield statement


def test_a_module_only_defines_names_when_it_is_imported() -> None:
    found = {
        str(path.relative_to(PACKAGE)): [ast.unparse(s) for s in acts(ast.parse(path.read_text()))]
        for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, acting in found.items() if acting} == set(SETS_UP_AT_IMPORT), found


def test_importing_the_rooms_of_a_plan_loads_nothing_heavy_and_changes_no_setting() -> None:
    code = """
import importlib, logging, os, pkgutil, sys, warnings
import pydantic, yaml
before = dict(os.environ), warnings.filters[:], logging.root.handlers[:], logging.root.level
import nodebench
for room in ("spec", "sweep", "store", "planning", "execution"):
    importlib.import_module(f"nodebench.{room}")
    folder = [f"{nodebench.__path__[0]}/{room}"]
    for module in pkgutil.iter_modules(folder, f"nodebench.{room}."):
        if room != "execution" or module.name.split(".")[-1] in LIGHT:
            importlib.import_module(module.name)
after = dict(os.environ), warnings.filters[:], logging.root.handlers[:], logging.root.level
print(before == after, [name for name in HEAVY if name in sys.modules])
"""
    light = ("launch", "preflight", "ray_cluster", "ray_worker", "doctor", "runner", "costs")
    heavy = ("torch", "numpy", "ray", "mlflow", "pandas", "scipy", "matplotlib", "seaborn")
    code = f"LIGHT, HEAVY = {light}, {heavy}\n{code}"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "True []"


def test_what_users_parts_are_made_of_is_there_and_imported_at_first_use() -> None:
    assert (nodebench.Data, nodebench.Split) == (Data, Split)
    assert nodebench.ODEBlock is ODEBlock
    code = "import nodebench, sys; print('torch' in sys.modules, 'ODEBlock' in dir(nodebench))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.split() == ["False", "True"]


def test_a_name_that_nodebench_lacks_is_an_attribute_error() -> None:
    assert not hasattr(nodebench, "nothing")
