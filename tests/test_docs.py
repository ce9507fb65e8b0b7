"""What the documentation says: snippets are run or parsed, links lead somewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from nodebench.sweep import load

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
