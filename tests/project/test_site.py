"""The documentation as a site: its pages, and that none of their links is dead."""

from __future__ import annotations

import os
import re

import pytest

import nodebench
from docs.site import build
from nodebench.planning.lookup import list_sweeps
from tests.support.installed import ROOT


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of all that Sphinx reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(build, "PAGES", tmp_path_factory.mktemp("site") / "pages")
        build.write_pages()
        yield build.PAGES


def test_every_page_and_every_committed_report_is_in_the_site(pages):
    found = {str(path.relative_to(pages).with_suffix("")) for path in pages.rglob("*.md")}
    docs = {
        f"docs/{path.stem}"
        for path in (ROOT / "docs").iterdir()
        if path.suffix in (".md", ".ipynb")
    }
    reports = {
        f"reports/{path.parent.name}/README" for path in (ROOT / "reports").glob("*/README.md")
    }
    assert docs | reports <= found
    listed = {page for section in build.SECTIONS.values() for page in section}
    assert docs <= listed
    assert listed <= found


def test_every_sweep_has_a_page_with_its_about_its_file_and_the_figure_of_its_report(pages):
    for sweep in list_sweeps():
        text = (pages / "sweeps" / f"{sweep.name}.md").read_text()
        assert sweep.about in text
        assert sweep.file.read_text() in text
        assert f"nodebench run {sweep.name}\n" in text
        folders = [ROOT / "reports" / f"{sweep.name}{size}" for size in ("", "-medium", "-small")]
        has_report = any((folder / "README.md").exists() for folder in folders)
        assert ("figures/" in text) == has_report
    assert (
        "| `full` | 135: 27 configurations, 5 seeds |"
        in (pages / "sweeps" / "spheres-solver.md").read_text()
    )


def test_links_of_all_pages_lead_to_pages_and_files_of_the_site(pages):
    count = 0
    for page in pages.rglob("*.md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", text):
            if "://" not in link and "`" not in link:
                count += 1
                assert os.path.isfile(page.parent / link), (page, link)
    assert count > 200


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "site" / "api.md").read_text()
    named = set(re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.MULTILINE))
    assert named == {*nodebench.__all__, "Data", "ODEBlock", "Split"}


def test_a_dead_link_and_a_dead_anchor_are_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><img src="no.svg">'
        '<a href="#here" id="here">3</a><a href="mailto:x@y">4</a><a href="//z/q">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert list(build.dead_links(tmp_path)) == [
        "a.html: `b.html#gone` leads nowhere",
        "a.html: `no.svg` leads nowhere",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Sphinx and its plugins
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_the_site_is_built_without_a_warning_or_a_dead_link(capfd):
    pytest.importorskip("furo", reason="`make docs` installs it")
    assert build.main() == 0, capfd.readouterr().err
    search = (build.HTML / "searchindex.js").read_text()
    assert "spheres" in search
