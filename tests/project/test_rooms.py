"""What the rooms promise beyond their imports, which import-linter checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nodebench
from nodebench.data.dataset import Data, Split
from nodebench.execution import launch
from nodebench.files import PACKAGE
from nodebench.ode.block import ODEBlock

ROOT = Path(__file__).parents[2]

TORCH_FREE = ("spec", "sweep", "store", "planning", "cli")
HEAVY = ("torch", "ray", "mlflow", "pandas")

MOST_MODULES, MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 13, 330, 50, 8

LONGER = {"training/trial.py"}
"""Files that are being taken apart."""

IMPORTS_ALL = """
import importlib, logging, os, pathlib, sys, warnings

def state():
    loggers = {name: (logger.level, logger.handlers) for name, logger in
               logging.root.manager.loggerDict.items() if name.startswith("nodebench")}
    return (dict(os.environ), loggers, logging.root.level, list(logging.root.handlers),
            list(warnings.filters))

root, heavy, *rooms = sys.argv[1:]
import typer, yaml, pydantic, rich.console, rich.progress  # what others do is not ours
before = state()
for room in rooms:
    for path in sorted(pathlib.Path(root, room).rglob("*.py")):
        name = ".".join(path.relative_to(pathlib.Path(root).parent).with_suffix("").parts)
        importlib.import_module(name.removesuffix(".__init__"))
assert state() == before, [(a, b) for a, b in zip(state(), before) if a != b]
print(*sorted(set(heavy.split(",")) & set(sys.modules)))
"""


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


def test_the_rooms_of_plans_are_imported_without_torch_and_change_nothing() -> None:
    """Neither the environment, nor loggers, nor filters of warnings."""
    command = [sys.executable, "-c", IMPORTS_ALL, str(PACKAGE), ",".join(HEAVY), *TORCH_FREE]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (printed.stderr, printed.stdout.split()) == ("", [])


def test_the_names_of_a_trial_s_files_stand_in_one_module() -> None:
    folder = ast.parse((PACKAGE / "store" / "trial_folder.py").read_text(encoding="utf-8"))
    names = {text for text in _texts(folder) if text.endswith((".json", ".jsonl", ".txt", ".pt"))}
    assert {"trial.json", "history.jsonl", "evaluations.json", "error.txt"} <= names
    others = {
        path.name: sorted(names & set(_texts(ast.parse(path.read_text(encoding="utf-8")))))
        for path in PACKAGE.rglob("*.py")
        if path.name != "trial_folder.py"
    }
    assert {name: found for name, found in others.items() if found} == {}


@pytest.mark.parametrize("folder", sorted({path.parent for path in PACKAGE.rglob("*.py")}), ids=str)
def test_no_folder_has_too_many_modules(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


def test_no_file_is_too_long() -> None:
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, count in lines.items() if count > MOST_LINES} <= LONGER


def test_no_function_is_too_long_or_takes_too_much() -> None:
    found = [
        (str(path.relative_to(PACKAGE)), function.name)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        and (_lines(function) > MOST_LINES_OF_A_FUNCTION or _parameters(function) > MOST_PARAMETERS)
    ]
    assert found == []


def _texts(tree: ast.AST) -> Iterator[str]:
    """The texts in the code, but for docstrings, which stand alone."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def _lines(function: ast.FunctionDef) -> int:
    """So many from its name to its end."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def _parameters(function: ast.FunctionDef) -> int:
    """So many, `self` and `cls` aside."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([each for each in named if each.arg not in ("self", "cls")])
