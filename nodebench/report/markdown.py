"""Markdown that reads well as plain text and rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd


class HtmlOnly(str):
    """A part of a section that report.html has and the Markdown page does not."""


class Section(NamedTuple):
    """Parts of a page under a heading, which is missing if the title is empty."""

    title: str
    parts: list[str]

    def for_markdown(self) -> Section:
        """The section as the Markdown page has it."""
        return Section(self.title, [p for p in self.parts if not isinstance(p, HtmlOnly)])


def joined(sections: Iterable[Section]) -> str:
    """The text of a page; sections and parts that are empty are left out."""
    texts: list[str] = []
    for title, parts in sections:
        if shown := [part for part in parts if part]:
            texts += [f"## {title}", *shown] if title else shown
    return "\n\n".join(texts) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """A table of texts in Markdown, with columns of numbers aligned right."""
    sides = ["right" if _is_numeric(table[column]) else "left" for column in table]
    text: str = table.map(escaped).to_markdown(index=False, disable_numparse=True, colalign=sides)
    return text


def escaped(text: str) -> str:
    """A text that can stand in a cell: a failure's reason may contain what would end it."""
    return " ".join(text.split()).replace("|", "\\|")


def table_section(title: str, text: str, table: pd.DataFrame, once: Sequence[str] = ()) -> Section:
    """A table below a line of text, by `table_parts`; an empty section if the table is empty."""
    return Section(title, [] if table.empty else [text, *table_parts(table, once)])


def table_parts(table: pd.DataFrame, once: Sequence[str] = ()) -> list[str]:
    """A table, and a line below it with those of the columns `once` that all its rows share."""
    shared = [n for n in once if n in table and len(table) > 1 and table[n].nunique() == 1]
    values = {name: str(table[name].iloc[0]) for name in shared}
    return [markdown_table(table.drop(columns=shared)), all_rows_text(values)]


def all_rows_text(values: Mapping[str, str]) -> str:
    """The values that all rows of a table have in common; empty if there are none."""
    known = "; ".join(f"{name} = {value}" for name, value in values.items())
    return f"All rows: {known}." if known else ""


def bullets(lines: Iterable[str]) -> str:
    """A list; empty if there are no lines."""
    return "\n".join(f"- {line}" for line in lines)


def bold(text: str) -> str:
    """A text in bold; an empty text stays empty."""
    return f"**{text}**" if text else ""


def plain_text(markdown: str) -> str:
    """Markdown without its markup; a link becomes its text."""
    without_links = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", markdown)
    return without_links.replace("**", "").replace("`", "")


NUMBER_TEXT = re.compile(r"[\d.,±+– \[\]()-]+( of \d+| \(\d+ of \d+\)| \(all equal\))?")
"""A number or a dash, perhaps with its interval, and what it is out of."""


def _is_numeric(column: pd.Series[str]) -> bool:
    return bool(column.str.fullmatch(NUMBER_TEXT).all())
