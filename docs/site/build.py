"""Builds the documentation as a site: `make docs`, from the project's root, into `site/html`.

Pages are those of `docs/`, the README, CONTRIBUTING, the changelog, all committed reports and
benchmarks, and one that is written here for each sweep. They are copied to `site/pages` with the
folders that they have in the project, so that their links hold, and Sphinx builds the site from
there. A warning or a dead link ends it with status 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nodebench.cli.text import first_sentence
from nodebench.planning.lookup import Listed, list_sweeps
from nodebench.sweep import load

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
PAGES, HTML = SITE / "pages", SITE / "html"

BENCHMARKS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))

SECTIONS: dict[str, tuple[str, ...]] = {
    "Learn": ("docs/first-sweep", "docs/notebook", "docs/faq"),
    "How to": (
        "docs/running", "docs/cluster", "docs/mlflow", "docs/python", "docs/extending",
        "docs/upkeep",
    ),
    "Reference": (
        "docs/sweep-file", "docs/commands", "docs/components", "docs/reports", "docs/site/api",
    ),
    "Explanation": (
        "docs/networks", "docs/evaluation", "docs/gradients", "docs/adjoint", "docs/regularizers",
        "docs/studies",
    ),
    "Results": (
        "sweeps/index", "reports/README",
        *(f"benchmarks/results/{page.stem}" for page in BENCHMARKS),
    ),
    "Project": ("CONTRIBUTING", "CHANGELOG"),
}  # fmt: skip
"""Heading in the sidebar -> its pages; one that stands in none is a warning of Sphinx's."""

FIGURES = ("steps", "robustness", "memory-by-steps", "gradient-costs", "frontier", "accuracy")
"""Of a report, the figures that show what its sweep is about, the best first."""

LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def main() -> int:
    """Writes the pages and builds the site; the status."""
    from sphinx.cmd.build import main as sphinx

    write_pages()
    shutil.rmtree(HTML, ignore_errors=True)
    conf = str(ROOT / "docs" / "site")
    strictly = ["-W", "--keep-going", "-q", "-j", "2"]
    doctrees = ["-d", str(SITE / "doctrees")]
    if status := sphinx(["-b", "html", "-c", conf, *strictly, *doctrees, str(PAGES), str(HTML)]):
        return status
    dead = list(dead_links(HTML))
    sys.stderr.write("\n".join([*dead, f"{HTML.relative_to(ROOT)}/index.html", ""]))
    return 1 if dead else 0


def write_pages() -> None:
    """Writes all that Sphinx reads."""
    shutil.rmtree(PAGES, ignore_errors=True)
    found = list_sweeps()
    reports = sorted((ROOT / "reports").glob("*/README.md"))
    pages = sorted((ROOT / "docs").glob("*.md"))
    for page in (ROOT / "reports" / "README.md", *reports, *BENCHMARKS, *pages):
        copy_page(page)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "docs/site/api.md"):
        copy_page(ROOT / name)
    copy_page(ROOT / "README.md", PAGES / "index.md", toctrees())
    copy_page(ROOT / "docs" / "notebook.ipynb", PAGES / "docs" / "notebook.md")
    add(PAGES / "reports" / "README.md", toctree("", [f"{r.parent.name}/README" for r in reports]))
    (PAGES / "sweeps").mkdir()
    for sweep in found:
        (PAGES / "sweeps" / f"{sweep.name}.md").write_text(sweep_page(sweep, reports))
    (PAGES / "sweeps" / "index.md").write_text(index_of_sweeps(found, reports))


def copy_page(page: Path, target: Path | None = None, more: str = "") -> None:
    """Copies a page with its links as the site has them, and all files that these name."""
    target = target or PAGES / page.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = notebook_text(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")
    target.write_text(LINK.sub(lambda link: linked(link[0], page), text) + more, encoding="utf-8")


def linked(link: str, page: Path) -> str:
    """A link of a page as the site has it; a file that is no page is copied."""
    name, mark, anchor = link.partition("#")
    if "://" in link or not name:
        return link
    target = (page.parent / name).resolve()
    if not target.exists():  # a dead link, which Sphinx names, or no link but code
        return link
    inner = target.relative_to(ROOT)
    if str(inner) == "README.md":
        inner = Path("index.md")
    elif inner.parts[0] == "sweeps":
        inner = inner.with_suffix(".md") if inner.suffix else inner / "index.md"
    elif target.is_dir():
        inner /= "README.md"
    elif inner.suffix == ".ipynb":
        inner = inner.with_suffix(".md")
    elif inner.suffix != ".md":
        (PAGES / inner).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, PAGES / inner)
    return f"{relative(PAGES / inner, PAGES / page.relative_to(ROOT).parent)}{mark}{anchor}"


def relative(target: Path, folder: Path) -> str:
    """The path of a file from a folder, as links have it."""
    return Path(os.path.relpath(target, folder)).as_posix()


def notebook_text(notebook: Path) -> str:
    """A notebook as Markdown, its code in blocks and its outputs left out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ((cell["cell_type"], "".join(cell["source"])) for cell in cells)
    return "\n\n".join(text if kind == "markdown" else code_block(text) for kind, text in texts)


def code_block(text: str) -> str:
    """A notebook's code; with commands of Jupyter's in it, it is not Python."""
    language = "text" if re.search(r"^\s*[%!]", text, re.MULTILINE) else "python"
    return f"```{language}\n{text}\n```"


def toctrees() -> str:
    """The sidebar: a list of pages for each section."""
    return "".join(toctree(title, pages) for title, pages in SECTIONS.items())


def toctree(caption: str, pages: list[str] | tuple[str, ...]) -> str:
    """A list of pages that stands in the sidebar alone."""
    named = f":caption: {caption}\n" if caption else ""
    return "\n\n```{toctree}\n:hidden:\n" + named + "\n" + "\n".join(pages) + "\n```\n"


def add(page: Path, text: str) -> None:
    """Adds text to a page."""
    page.write_text(page.read_text(encoding="utf-8") + text, encoding="utf-8")


def sweep_page(sweep: Listed, reports: list[Path]) -> str:
    """The page of a sweep: what it is about, how large it is, its figure, its file."""
    own = reports_of(sweep, reports)
    sizes = [f"| `{size}` | {counted(sweep, size)} |" for size in reversed(sweep.sizes)]
    parts = [
        f"# {sweep.name}",
        sweep.about,
        f"    nodebench run {sweep.name}",
        "\n".join(["| size | trials |", "|---|---|", *sizes]),
        *(figure_of(report) for report in own[:1]),
        "\n".join(f"- Report: [{r.parent.name}](../reports/{r.parent.name}/README.md)" for r in own)
        or "No report of this sweep has been committed yet.",
        "## The sweep file",
        f"```yaml\n{sweep.file.read_text(encoding='utf-8')}```",
    ]
    return "\n\n".join(parts) + "\n"


def counted(sweep: Listed, size: str) -> str:
    """`135: 27 configurations by 5 seeds`."""
    trials = load(sweep.file, size=size).trials
    cells = len({trial.cell.key for trial in trials})
    seeds = len({trial.spec.seed for trial in trials})
    words = f"{cells} configuration{'' if cells == 1 else 's'}"
    return f"{len(trials)}: {words}, {seeds} seed{'' if seeds == 1 else 's'}"


def reports_of(sweep: Listed, reports: list[Path]) -> list[Path]:
    """The committed reports of a sweep, of its largest size first."""
    names = [
        f"{sweep.name}{'' if size == 'full' else f'-{size}'}" for size in reversed(sweep.sizes)
    ]
    by_name = {report.parent.name: report for report in reports}
    return [by_name[name] for name in names if name in by_name]


def figure_of(report: Path) -> str:
    """The figure that shows best what a report found, linked to the report."""
    folder = report.parent
    drawn = {path.stem for path in (folder / "figures").glob("*.svg")}
    name = next((name for name in FIGURES if name in drawn), min(drawn, default=""))
    if not name:
        return ""
    here = f"../reports/{folder.name}"
    return f"[![{name} of {folder.name}]({here}/figures/{name}.svg)]({here}/README.md)"


def index_of_sweeps(found: list[Listed], reports: list[Path]) -> str:
    """The page that lists all sweeps."""
    rows = [
        f"| [{each.name}]({each.name}.md) | {first_sentence(each.about)} | "
        + (
            ", ".join(f"[{r.parent.name}](../reports/{r.parent.name}/README.md)" for r in own)
            or "–"
        )
        + " |"
        for each in found
        for own in [reports_of(each, reports)]
    ]
    opening = (
        "# Sweeps\n\nThe experiments that come with nodebench. `nodebench sweeps` lists them, and "
        "`nodebench run NAME` runs one in any folder."
    )
    table = "\n".join(["| sweep | about | report |", "|---|---|---|", *rows])
    return f"{opening}\n\n{table}{toctree('', [each.name for each in found])}"


class _Links(HTMLParser):
    """The links of a page, and what links may lead to in it."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := found.get(name))}
        self.targets |= {value for name in ("href", "src") if (value := found.get(name))}


def dead_links(folder: Path) -> Iterator[str]:
    """The links of all pages in a folder that lead to no file or place in it."""
    pages = {page.resolve(): _Links(page) for page in sorted(folder.rglob("*.html"))}
    for page, links in pages.items():
        for link in sorted(links.targets):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            is_there = not anchor or target not in pages or anchor in pages[target].anchors
            if not target.is_file() or not is_there:
                yield f"{page.relative_to(folder.resolve())}: `{link}` leads nowhere"


if __name__ == "__main__":
    sys.exit(main())
