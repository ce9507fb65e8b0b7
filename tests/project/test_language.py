"""The words that users read: `--help`, and the texts of the command line and of reports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from nodebench.cli.app import app
from nodebench.files import PACKAGE

INSTEAD = {
    r"\banew\b": "again, from scratch",
    r"\bgo(es)? on\b": "resumes, continues",
    r"(?<!-)\borphan(s|ed)?\b": "no longer in any sweep, removed",
    r"\bbesides?\b": "next to, compared with, in addition",
    r"\bcells?\b": "configuration",
    r"\bis no (?!longer\b|better\b|clear\b|other\b)": "is not a",
    r"\bit is said\b": "a warning is printed",
    r"\blikewise\b": "also",
    r"\bin the stead of\b": "instead of",
    r"\bby hand\b": "manually",
    r"\bat hand\b": "available",
    r"\bmend(s|ed)?\b": "fix",
    r"\bhinders?\b": "prevents",
    r"\b(told|tells?) apart\b|\bsets? (it|them) apart\b": "distinguish, differ in",
    r"\bnearest (finished|relative)\b": "most similar finished trial",
    r"\bwhat (it|they) lacks?\b|\bwhat became of\b": "missing, result",
    r"\btrained together\b": "packed into one run",
    r"\bis else the same\b": "otherwise identical",
    r"\bringed\b|\bsurpasses\b": "circled, Pareto-optimal",
}
"""Pattern -> what to write instead."""


def quaint(text: str) -> list[str]:
    """The words of a text that read oddly, each with what to write instead."""
    found = ((re.search(pattern, text, re.IGNORECASE), cure) for pattern, cure in INSTEAD.items())
    return [f"{match[0]!r} in {text!r}: write {cure}" for match, cure in found if match]


def texts(file: Path) -> Iterator[str]:
    """The string literals of a module that are prose: no docstrings, and more than one word."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and id(node) not in alone and len(value.split()) > 1:
            yield value


def verbs() -> dict[str, Any]:
    """The command line's verbs, by name."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.mark.parametrize("verb", verbs())
def test_help_reads_like_english(verb: str) -> None:
    command = verbs()[verb]
    helps = [command.help, *(getattr(each, "help", None) for each in command.params)]
    assert command.help
    assert [found for text in helps for found in quaint(text or "")] == []


@pytest.mark.parametrize("room", ["cli", "report"])
def test_messages_and_reports_read_like_english(room: str) -> None:
    read = [text for file in (PACKAGE / room).rglob("*.py") for text in texts(file)]
    assert len(read) > 100
    assert [found for text in read for found in quaint(text)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("the same command goes on", 1),
        ("trained anew, by hand", 2),
        ("`X` is no store", 1),
        ("two cells", 1),
        ("nodebench gc --orphans", 0),
        ("is no longer in any sweep", 0),
        ("no better than chance", 0),
    ],
)
def test_what_reads_oddly_is_found(text: str, count: int) -> None:
    assert len(quaint(text)) == count
