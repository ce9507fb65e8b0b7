"""What the rooms promise beyond their imports, which import-linter checks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import nodebench
from nodebench.data.dataset import Data, Split
from nodebench.execution import launch
from nodebench.files import PACKAGE
from nodebench.ode.block import ODEBlock

ROOT = Path(__file__).parents[2]

TORCH_FREE = ("spec", "sweep", "store", "planning", "cli")

MOST_MODULES, MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 13, 330, 50, 8

ROOMS = {
    "spec": "", "sweep": "", "store": "", "planning": "", "cli": "",
    "ode": "torch torch.utils.checkpoint torchdiffeq scipy.special",
    "data": "torch pandas PIL.Image",
    "models": "torch torchdiffeq",
    "training": "torch torchdiffeq torch.func pandas PIL.Image",
    "execution": "torch torchdiffeq torch.func pandas PIL.Image ray.tune ray.tune.schedulers",
    "tracking": "mlflow pandas scipy.stats sqlalchemy.exc alembic.util",
    "report": "pandas scipy.stats matplotlib.pyplot seaborn",
}  # fmt: skip
"""Room -> what of others is imported before, since its settings are not ours."""

SHARED = {
    room: "torch" if "torch" in others else "pandas scipy.stats" if others else ""
    for room, others in ROOMS.items()
}
"""Room -> what of these it is forked with."""

IMPORT_ROOMS = """
import importlib, logging, os, pathlib, signal, sys, threading, warnings

def libraries():
    found = {}
    if torch := sys.modules.get("torch"):
        found["torch"] = (
            torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(), list(torch.optim.Optimizer.__dict__),
        )
    if matplotlib := sys.modules.get("matplotlib"):
        found["matplotlib"] = {name: str(value) for name, value in matplotlib.rcParams.items()}
    if pandas := sys.modules.get("pandas"):
        found["pandas"] = pandas.get_option("display.max_columns")
    return found

def state():
    loggers = {name: (logger.level, list(logger.handlers), list(logger.filters), logger.propagate)
               for name, logger in sorted(logging.root.manager.loggerDict.items())
               if isinstance(logger, logging.Logger)}
    return {
        "environment": dict(os.environ), "loggers": loggers, "root logger": logging.root.level,
        "handlers": list(logging.root.handlers), "filters": list(warnings.filters),
        "files": sorted(map(str, pathlib.Path(".").rglob("*"))), "folder": os.getcwd(),
        "threads": sorted(each.name for each in threading.enumerate()),
        "signals": {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)},
        "hooks": (sys.excepthook, sys.displayhook), **libraries(),
    }

def imported(room, others):
    for name in others:
        importlib.import_module(name)
    before = state()
    known = set(before["loggers"])
    for path in sorted(pathlib.Path(root, room).rglob("*.py")):
        name = ".".join(path.relative_to(pathlib.Path(root).parent).with_suffix("").parts)
        importlib.import_module(name.removesuffix(".__init__"))
    after = state()
    after["loggers"] = {name: how for name, how in after["loggers"].items()
                        if name in known or name.startswith("nodebench")}
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    heavy = {"torch", "numpy", "ray", "mlflow", "pandas", "scipy", "matplotlib"}
    return changed, sorted(heavy & set(sys.modules))

root, shared, *rooms = sys.argv[1:]
for name in ("typer", "yaml", "pydantic", "rich.console", "rich.progress", *shared.split()):
    importlib.import_module(name)
for each in rooms:
    room, others = each.split("=")
    if not os.fork():
        print(room, *imported(room, others.split()), sep="\\t", flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(room + " cannot be imported")
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


@pytest.fixture(scope="module")
def after_import(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Room -> what importing it changed, and the heavy libraries that are imported then.

    Each room has a process of its own, forked from one that has what several rooms import.
    """
    folder, quiet = tmp_path_factory.mktemp("empty"), {"MLFLOW_DISABLE_TELEMETRY": "true"}
    found = {}
    for shared in ("", "torch", "pandas scipy.stats"):
        rooms = [f"{room}={others}" for room, others in ROOMS.items() if SHARED[room] == shared]
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_ROOMS, str(PACKAGE), shared, *rooms],
            capture_output=True, text=True, check=False, cwd=folder, env=os.environ | quiet,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        found |= {room: rest for room, *rest in lines}
    return found


def test_every_room_is_looked_at() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS)


@pytest.mark.timeout(300)  # libraries are imported again, on a machine that may be busy
@pytest.mark.parametrize("room", TORCH_FREE)
def test_a_room_of_plans_is_imported_without_heavy_libraries_and_changes_nothing(
    room: str, after_import: dict[str, list[str]]
) -> None:
    """Neither environment, loggers, filters of warnings, signals, threads, nor files."""
    assert after_import[room] == ["{}", "[]"]


@pytest.mark.timeout(300)  # libraries are imported again, on a machine that may be busy
@pytest.mark.parametrize("room", sorted(set(ROOMS) - set(TORCH_FREE)))
def test_a_room_with_libraries_changes_nothing_when_it_is_imported(
    room: str, after_import: dict[str, list[str]]
) -> None:
    """Nor the flags of torch, its random state and optimizers, or matplotlib's settings."""
    assert after_import[room][0] == "{}"


def test_mlflow_is_configured_before_it_is_imported() -> None:
    """Its import would start telemetry."""
    inside = {"nodebench.tracking.client", "nodebench.tracking.tracker"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for block in ast.walk(tree):
            for before, statement in pairwise(_statements(block)):
                if isinstance(statement, ast.ImportFrom) and statement.module in inside:
                    is_of_tracking = path.parent.name == "tracking" and isinstance(
                        block, ast.Module
                    )
                    assert is_of_tracking or ast.unparse(before) == "configure_mlflow()", path


def test_no_two_modules_define_the_same_public_name() -> None:
    """But for verbs of the command line, which are called what they call."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in _public_names(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    several = {name: where for name, where in found.items() if len(where) > 1}
    verbs = {
        name: where for name, where in several.items()
        if len(where) == 2 and "api.py" in where and any(w.startswith("cli/") for w in where)
    }  # fmt: skip
    assert {name: where for name, where in several.items() if name not in verbs} == {}
    assert set(verbs) == {"doctor", "evaluate", "plan", "run", "sync"}


CATCH_EVERYTHING = {
    "training/trial.py": "a crash of a trial is recorded, and the sweep goes on",
    "execution/ray_tune.py": "Ray raises a bare `Exception` where it cannot be started",
    "ode/compiled/cache.py": "a damaged kernel is compiled again, whatever its bytes raise",
    "ode/compiled/threads.py": "a thread hands what a kernel raised to its caller, who raises it",
    "training/steps/step.py": "a plain step gives the same result, and the log says why",
    "report/figures/drawing.py": "no figure is worth a report, whatever a library raises",
}


def test_everything_is_caught_at_the_trial_s_boundary_alone() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    }
    assert found == set(CATCH_EVERYTHING)


def test_what_users_parts_are_made_of_is_there_and_imported_at_first_use() -> None:
    assert (nodebench.Data, nodebench.Split) == (Data, Split)
    assert nodebench.ODEBlock is ODEBlock
    code = "import nodebench, sys; print('torch' in sys.modules, 'ODEBlock' in dir(nodebench))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.split() == ["False", "True"]


def test_a_name_that_nodebench_lacks_is_an_attribute_error() -> None:
    assert not hasattr(nodebench, "nothing")


def test_the_names_of_a_trial_s_files_stand_in_one_module() -> None:
    folder = ast.parse((PACKAGE / "store" / "trial_folder.py").read_text(encoding="utf-8"))
    names = {text for text in _texts(folder) if text.endswith((".json", ".jsonl", ".txt", ".pt"))}
    names |= {"given-up", "lock"}
    assert {"trial.json", "history.jsonl", "evaluations.json", "error.txt"} <= names
    assert names <= set(_texts(folder))
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
    assert {name for name, count in lines.items() if count > MOST_LINES} == set()


def test_no_function_is_too_long_or_takes_too_much() -> None:
    found = [
        (str(path.relative_to(PACKAGE)), function.name)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        and (_lines(function) > MOST_LINES_OF_A_FUNCTION or _parameters(function) > MOST_PARAMETERS)
    ]
    assert found == []


def _public_names(module: ast.Module) -> Iterator[str]:
    """The functions, classes and constants that stand at a module's top."""
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            names = [
                x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)
            ]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def _statements(node: ast.AST) -> list[ast.stmt]:
    """The statements in a block; a lambda's body is an expression."""
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else []


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
