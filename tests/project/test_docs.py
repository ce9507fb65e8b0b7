"""What the documentation says: snippets are run or parsed, links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import json
import pydoc
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import validator_for

import nodebench
from nodebench.cli.app import app
from nodebench.files import PACKAGE
from nodebench.store import Store
from nodebench.sweep import load
from nodebench.sweep.field_reference import json_schema, page
from nodebench.training.trial import run_trial
from tests.support.cli_process import command
from tests.support.tiny_sweeps import options

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         ROOT / "reports" / "README.md"]  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_snippets_are_what_a_sweep_may_hold(page, tmp_path):
    for number, text in enumerate(blocks(page, "yaml")):
        tree = yaml.safe_load(text)
        if not isinstance(tree, dict):
            continue
        whole = "base" in tree or "grid" in tree
        base = {} if whole else {"base": {"data": "digits", "model": "odenet"}}
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"name": "snippet", **base, **tree}))
        load(path, overrides=() if whole else ["seeds=[0]"])


def test_the_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    told = " > ".join(layers)
    assert told in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())


NAMED = r"`((?:[\w-]+/)+[\w-]+\.(?:py|yaml))(?::(\w+))?"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/extending.md"])
def test_files_that_a_page_names_exist_and_have_what_it_says_of_them(page):
    named = re.findall(NAMED, (ROOT / page).read_text())
    assert len(named) > 20 or page != "CONTRIBUTING.md"
    for file, name in named:
        found = [path for path in (PACKAGE / file, PACKAGE / "report" / file) if path.exists()]
        assert found, file
        assert not name or re.search(rf"^(class |def )?{name}\b", found[0].read_text(), re.M), name


def test_every_room_is_in_the_picture_and_says_what_it_is():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    picture = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^    (\w+) {3,}\w", picture, re.MULTILINE)) == rooms
    for path in PACKAGE.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert path.parent == PACKAGE or re.fullmatch(r".{20,}\.", text), path


def test_the_help_of_the_package_is_a_page_with_a_line_for_each_public_name():
    text = inspect.getdoc(nodebench) or ""
    assert len(text.splitlines()) <= 50
    lines = re.findall(r"^    (\w+(?:, \w+)*) {3,}\w", text, re.MULTILINE)
    named = [name for names in lines for name in names.split(", ")]
    assert sorted(named) == sorted([*nodebench.__all__, "Data", "ODEBlock", "Split"])
    whole = pydoc.render_doc(nodebench, renderer=pydoc.plaintext)
    assert len(whole.splitlines()) < 300


def test_the_reference_is_what_the_classes_say():
    written = (ROOT / "docs" / "sweep-file.md").read_text()
    assert written == page(), "nodebench schema --markdown > docs/sweep-file.md"


def shell_lines(page: Path) -> list[list[str]]:
    """The words of each command line of a page, without comments."""
    lines = re.findall(r"^(?: {4})+((?:nodebench|make) .*)$", page.read_text(), re.MULTILINE)
    return [shlex.split(re.sub(r"\[(\w+)\]", r"\1", line), comments=True)[:99] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_what_the_command_line_takes(page):
    group = typer.main.get_command(app)
    for program, *words in shell_lines(page):
        if program == "make":
            continue
        if words[0].startswith("-"):
            assert any(words[0] in option.opts for option in group.params), words
        else:
            group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_are_in_the_makefile(page):
    targets = re.findall(r"^([\w%.$()/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    patterns = [re.escape(target).replace("%", ".+") for target in targets]
    for program, *words in shell_lines(page):
        if program == "make" and words[0] != ".venv/.ready":
            assert any(re.fullmatch(pattern, words[0]) for pattern in patterns), words


def test_make_help_lists_the_targets_and_what_they_do():
    command = ["make", "--no-print-directory", "help"]  # as make runs the tests
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    commented = re.findall(r"^([\w%-]+):.*## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [tuple(each) for each in listed] == commented
    assert ("small-%", "The same in its small form, minutes on two cores") in commented


def test_the_first_sweep_goes_as_told(tmp_path):
    guide = ROOT / "docs" / "first-sweep.md"
    (text,) = blocks(guide, "yaml")
    (tmp_path / "first.yaml").write_text(text)
    plan = command(tmp_path, "plan", "first.yaml").stdout
    assert textwrap.indent(plan, "    ") in guide.read_text()
    more = command(tmp_path, "plan", "first.yaml", "--set", "seeds=[0, 1, 2, 3, 4]").stdout
    assert more.endswith("15 trials, 15 to run\n")
    named = re.search(r"nodebench logs (\w+)", guide.read_text())[1]
    [shown] = [line for line in plan.splitlines() if line.startswith(named)]
    less = ("data.train_size=32", "data.test_size=8", "evaluate={methods: [rk4], steps: [2]}")
    part = ("--only", "solver.method=euler", "--only", "seed=0")
    part += tuple(word for change in less for word in ("--set", change))
    planned = command(tmp_path, "plan", "first.yaml", *part).stdout.splitlines()[0]
    assert planned.split()[1:] == shown.split()[1:]
    done = command(tmp_path, "run", "first.yaml", "--inline", "--no-track", *part)
    assert done.returncode == 0, done.stderr
    assert "report: reports/first/README.md" in done.stdout
    assert "epoch 10" in command(tmp_path, "logs", planned[:6]).stdout


@pytest.mark.usefixtures("coarse_reference")
def test_the_notebook_runs(tmp_path, monkeypatch):
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODEBENCH_RUNS", raising=False)
    display = SimpleNamespace(Image=lambda *_arguments, **_options: None)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    scope: dict[str, object] = {"Path": Path}
    digits = "data={name: digits, train_size: 16, test_size: 8}"
    points = "evaluate={gradients: [backprop, adjoint], methods: [euler], steps: [2]}"
    for source in sources[1:]:  # the first fetches nodebench
        small = [
            digits,
            points,
            "solver=[{method: euler, steps: 2}]",
            "train.epochs=1",
            "train.batch_size=8",
            "model.width=8",  # at 4, oneDNN of torch 2.15 corrupts memory on an AMD EPYC
        ]
        exec(source.replace("else []", f"else {small}"), scope)
    assert scope["trials"]["test_accuracy"].notna().all()


@pytest.fixture(scope="module")
def schema():
    """What checks a tree against the schema of a sweep file, which is a schema."""
    checked = Draft202012Validator(json_schema())
    checked.check_schema(checked.schema)
    return checked


def test_the_schema_names_the_draft_by_which_it_is_checked(schema):
    assert validator_for(schema.schema) is type(schema)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_schema_admits_every_sweep(path, schema):
    schema.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "mistake",
    [
        {"gird": []},
        {"base": {"modle": "odenet"}},
        {"base": {"train": {"epochs": 0}}},
        {"base": {"solver": {"method": "eular"}}},
        {"claims": [{"above": 1}]},
        {"seeds": "many"},
    ],
)
def test_the_schema_refuses_what_a_sweep_may_not_be(mistake, schema):
    schema.validate({"name": "right"})
    with pytest.raises(ValidationError):
        schema.validate({"name": "wrong", **mistake})


SMALL_DATA = ("data.train_size=64", "data.test_size=32")


@pytest.mark.parametrize(
    "page", [ROOT / "docs" / "python.md"], ids=lambda page: str(page.relative_to(ROOT))
)
@pytest.mark.usefixtures("coarse_reference")
def test_python_snippets_run(page, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODEBENCH_RUNS", raising=False)
    scope: dict[str, object] = {}
    for block in blocks(page, "python"):
        small = block.replace('["train.epochs=1"]', f"{['train.epochs=1', *SMALL_DATA]}")
        exec(compile(small, page.name, "exec"), scope)
    assert len(scope["trials"]) == 10
    assert set(scope["sweep"].made.instead) >= {"data.train_size", "data.test_size"}
    assert scope["logits"].shape == (4, 10)
    assert {"frontier", "accuracy"} <= set(scope["drawn"])
    assert scope["page"].with_name("report.html").exists()
    assert "the same" in capsys.readouterr().out
    assert scope["found"].agrees


def test_the_model_and_the_data_of_one_s_own_train(tmp_path, monkeypatch):
    guide = ROOT / "docs" / "extending.md"
    for name, code in zip(("mynets", "mydata"), blocks(guide, "python"), strict=True):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    (text,) = blocks(guide, "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    sweep = load(tmp_path / "mine.yaml", ["train.epochs=2"])
    result = run_trial(sweep.trials[0], Store(tmp_path / "runs"), options(sweep, tmp_path))
    assert result.outcome == "finished", result.reason
    assert result.summary["nfe_forward"] == 16
