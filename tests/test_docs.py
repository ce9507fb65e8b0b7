"""What the documentation says: snippets are run or parsed, links lead somewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from nodebench.reference import json_schema, page
from nodebench.store import Store
from nodebench.sweep import load
from nodebench.trial import run_trial
from sweeps import options

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_snippets_are_what_a_sweep_may_hold(page, tmp_path):
    for number, text in enumerate(blocks(page, "yaml")):
        tree = yaml.safe_load(text)
        if not isinstance(tree, dict):
            continue
        whole = "base" in tree or "grid" in tree
        base = {} if whole else {"base": {"data": "digits", "model": "odenet"}}
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"name": "snippet", **base, **tree}))
        load(path, small=False, overrides=() if whole else ["seeds=[0]"])


def test_the_reference_is_what_the_classes_say():
    written = (ROOT / "docs" / "sweep-file.md").read_text()
    assert written == page(), "nodebench schema --markdown > docs/sweep-file.md"


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_schema_admits_every_sweep(path):
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


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
def test_the_schema_refuses_what_a_sweep_may_not_be(mistake):
    schema = json_schema()
    jsonschema.validate({"name": "right"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "wrong", **mistake}, schema)


@pytest.mark.parametrize("page", [ROOT / "docs" / "python.md"], ids=lambda page: page.name)
def test_python_snippets_run(page, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODEBENCH_RUNS", raising=False)
    scope: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), scope)
    assert scope["logits"].shape == (4, 10)
    assert {"frontier", "accuracy"} <= set(scope["drawn"])
    assert scope["page"].with_name("report.html").exists()
    assert "the same" in capsys.readouterr().out


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
