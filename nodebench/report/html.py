"""A report as one HTML file that contains its figures and data."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.table { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent);
  vertical-align: top; }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 18rem; }
th { text-align: left; border-bottom-width: 2px; }
img { max-width: 100%; height: auto; background: white; border-radius: 6px; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { overflow-x: auto; padding: 0.8rem; border-radius: 6px;
  background: color-mix(in srgb, currentColor 7%, transparent); }
"""  # noqa: E501 - a rule a line

LONG = 40
"""Characters of a table's cell from which on it may break into lines."""


def html_page(markdown: str, folder: Path) -> str:
    """The page of a Markdown text whose figures and files lie in a folder."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in _all(tokens):
        _embed(token, folder)
    _loosen(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table>", '<div class="table"><table>')
    body = body.replace("</table>", "</table></div>")
    title = escape(markdown.partition("\n")[0].lstrip("# "))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )


def _all(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or [])


def _embed(token: Token, folder: Path) -> None:
    """Puts the file that an image or a link names into it."""
    name = {"image": "src", "link_open": "href"}.get(token.type)
    target = str(token.attrs.get(name, "")) if name else ""
    path = folder / target
    if not target or "://" in target or not path.is_file():
        return
    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    content = base64.b64encode(path.read_bytes()).decode()
    changes: dict[str, Any] = {str(name): f"data:{kind};base64,{content}"}
    if token.type == "link_open":
        changes["download"] = path.name
    token.attrs |= changes


def _loosen(tokens: list[Token]) -> None:
    """Lets long texts in tables break into lines; numbers stay whole."""
    for cell, content in pairwise(tokens):
        if cell.type == "td_open" and len(content.content) > LONG:
            cell.attrs["class"] = "long"
