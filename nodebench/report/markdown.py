"""Markdown that reads well as plain text and rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd


class HtmlOnly(str):
    """A section that report.html has and the Markdown page does not."""


def joined(sections: Iterable[str]) -> str:
    """The text of all sections that are not empty."""
    return "\n\n".join(each for each in sections if each) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts in Markdown, with columns of numbers aligned right."""
    sides = ["right" if _is_numeric(table[column]) else "left" for column in table]
    text: str = table.map(escaped).to_markdown(index=False, disable_numparse=True, colalign=sides)
    return text


def escaped(text: str) -> str:
    """A text that can stand in a cell: a failure's reason may contain what would end it."""
    return " ".join(text.split()).replace("|", "\\|")


def section(title: str, text: str, table: pd.DataFrame) -> list[str]:
    """A table under a heading and a line of text; nothing if the table is empty."""
    if table.empty:
        return []
    return [part for part in (f"## {title}", text, markdown_table(table)) if part]


def bold(text: str) -> str:
    """A text in bold; an empty text stays empty."""
    return f"**{text}**" if text else ""


def plain_text(markdown: str) -> str:
    """Markdown without its markup; a link becomes its text."""
    without_links = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", markdown)
    return without_links.replace("**", "").replace("`", "")


def _is_numeric(column: pd.Series[str]) -> bool:
    return bool(column.str.fullmatch(r"[\d.,±– -]+( of \d+| \(\d+ of \d+\))?").all())
