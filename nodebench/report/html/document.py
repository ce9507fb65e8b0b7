"""A report as one HTML file that contains its figures, its data and the code that draws them."""

from __future__ import annotations

import base64
import gzip
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from nodebench.files import PACKAGE, write
from nodebench.report.figures.drawing import left_out
from nodebench.report.html.charts import CHART
from nodebench.report.html.data import Explored
from nodebench.report.html.images import Picture, smallest
from nodebench.report.html.library import drawing_library
from nodebench.report.html.measures import as_json
from nodebench.report.markdown import Section, joined

LONG = 40
"""The most characters in a table's cell that are kept on one line."""

NOTHING_ELSEWHERE = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""The page's content security policy: nothing is fetched, and only its own scripts run."""


def write_page(sections: Iterable[Section], folder: Path, explored: Explored) -> list[str]:
    """Writes `report.html`, without charts that cannot be built; returns their problems."""
    problems: list[str] = []
    embedded: dict[str, str] = {}
    with left_out("charts of report.html", problems):
        embedded = _embedded(explored)
    stems = [stem for chart in explored.charts.values() for stem in chart.figures]
    page = html_page(joined(sections), folder, embedded, stems if embedded else ())
    write(folder / "report.html", page)
    return [*problems, *explored.problems]


def _embedded(explored: Explored) -> dict[str, str]:
    """The data, and the library that draws the charts if there are any."""
    library = {"report-library": drawing_library()} if explored.charts else {}
    return {"report-data": as_json(explored.embedded()), **library}


def html_page(
    markdown: str, folder: Path, embedded: Mapping[str, str], folded: Sequence[str] = ()
) -> str:
    """The HTML page of a Markdown text whose figures and files are in a folder.

    An image `chart:NAME` is the placeholder of a chart. `embedded` maps the ids of elements to
    texts for the page's scripts. Figures whose names begin with one of `folded` are collapsible.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    _name_headings(tokens)
    _fold(tokens, folded)
    for token in _all(tokens):
        _embed(token, folder)
    _loosen(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    body = re.sub(r'<p><img src="chart:(\w+)" alt="([^"]*)" /></p>', _place, body)
    body = body.replace("<table>", '<div class="table"><table>')
    body = body.replace("</table>", "</table></div>")
    title = escape(markdown.partition("\n")[0].lstrip("# "))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{NOTHING_ELSEWHERE}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_asset('page.css')}</style>\n<main>\n{body}</main>\n"
        f"<script>{_asset('tables.js')}</script>\n{_scripts(embedded)}</html>\n"
    )


def packed(text: str) -> str:
    """A text compressed and in base64, for an element of the page; the same bytes each time."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpacked(content: str) -> str:
    """The text of an element whose content `packed` made."""
    return gzip.decompress(base64.b64decode(content)).decode()


def _scripts(embedded: Mapping[str, str]) -> str:
    if not embedded:
        return ""
    parts = [
        f'<script type="application/gzip" id="{name}">{packed(text)}</script>\n'
        for name, text in embedded.items()
    ]
    return "".join(parts) + f"<script>{_asset('charts.js')}</script>\n"


def _asset(name: str) -> str:
    return (PACKAGE / "report" / "html" / name).read_text(encoding="utf-8")


def _place(found: re.Match[str]) -> str:
    """The element in which a chart is drawn, if scripts run."""
    return f'<figure class="chart" data-chart="{found[1]}" aria-label="{found[2]}" hidden></figure>'


def _name_headings(tokens: Sequence[Token]) -> None:
    """Gives headings the same ids as GitHub does; the page's links use them."""
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            words = re.sub(r"[^\w\- ]", "", content.content.lower()).strip()
            heading.attrs["id"] = words.replace(" ", "-")


def _fold(tokens: Sequence[Token], stems: Sequence[str]) -> None:
    """Makes static figures collapsible, with their captions, where a chart above replaces them.

    They stay open until it is drawn. A section without a chart keeps its figures.
    """
    has_chart = False
    for at, (opening, content) in enumerate(pairwise(tokens)):
        if opening.type == "heading_open":
            has_chart = False
        elif image := _only_image(opening, content):
            source = str(image.attrs["src"])
            has_chart = has_chart or source.startswith(CHART)
            if has_chart and _is_of(Path(source).stem, stems):
                _collapse(tokens[at : at + 3], tokens[at + 3 : at + 6])


def _only_image(opening: Token, content: Token) -> Token | None:
    """The image of a paragraph that consists of one."""
    inner = content.children or []
    is_one = opening.type == "paragraph_open" and len(inner) == 1 and inner[0].type == "image"
    return inner[0] if is_one else None


def _is_of(stem: str, stems: Sequence[str]) -> bool:
    return any(stem == known or stem.startswith(f"{known}-") for known in stems)


def _collapse(figure: Sequence[Token], below: Sequence[Token]) -> None:
    """Makes a figure's paragraph collapsible; a paragraph of text below it is its caption."""
    opening, content, closing = figure
    opening.tag = closing.tag = "details"
    opening.attrs |= {"class": "static", "open": ""}
    [image] = content.children or []
    content.children = [_html(f"<summary>Static figure: {escape(image.content)}</summary>"), image]
    if len(below) == 3 and below[0].type == "paragraph_open" and not _only_image(*below[:2]):
        content.children += [_html("<p>"), *(below[1].children or []), _html("</p>")]
        below[0].hidden = below[2].hidden = True
        below[1].children = []


def _html(text: str) -> Token:
    return Token("html_inline", "", 0, content=text)


def _all(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or [])


def _embed(token: Token, folder: Path) -> None:
    """Embeds the file that an image or a link names."""
    name = {"image": "src", "link_open": "href"}.get(token.type)
    target = str(token.attrs.get(name, "")) if name else ""
    path = folder / target
    if not target or "://" in target or target.startswith(CHART) or not path.is_file():
        return
    if not path.resolve().is_relative_to(folder.resolve()):
        return  # a text from elsewhere could name any file on this machine
    picture = (
        smallest(path)
        if token.type == "image"
        else Picture(mimetypes.guess_type(path.name)[0] or "text/plain", path.read_bytes())
    )
    content = base64.b64encode(picture.content).decode()
    changes: dict[str, Any] = {str(name): f"data:{picture.kind};base64,{content}"}
    if picture.width:
        changes["width"] = picture.width
    if token.type == "link_open":
        changes["download"] = path.name
    token.attrs |= changes


def _loosen(tokens: Sequence[Token]) -> None:
    """Lets long texts in tables wrap; numbers stay on one line."""
    for cell, content in pairwise(tokens):
        if cell.type == "td_open" and len(content.content) > LONG:
            cell.attrs["class"] = "long"
