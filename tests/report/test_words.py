"""Tests of what is said of trials, as enumerations: plain values in files, other words in prose."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nodebench.files import PACKAGE
from nodebench.report.analysis import agreement, baseline
from nodebench.report.analysis.claims import CLAIM_WORDS, EXPECTATION_WORDS, Judgement
from nodebench.report.analysis.verdict import VerdictWord

PAGES = {"page.py", "scoreboard.py", "notes.py", "markdown.py", "folder.py"}
MODULES = sorted((PACKAGE / "report").rglob("*.py"))


def test_words_are_those_that_csv_files_and_mlflow_have():
    assert [*VerdictWord] == ["ODE", "ResNet in disguise", "undecided"]
    assert [*Judgement] == ["holds", "does not hold", "undecided", "not run"]
    assert [*CLAIM_WORDS.values()] == ["reproduced", "not reproduced"]
    assert [*EXPECTATION_WORDS.values()] == ["met", "not met"]


@pytest.mark.parametrize(
    "words",
    [VerdictWord, agreement.PublishedReading, baseline.BaselineReading],
    ids=lambda words: words.__module__,
)
def test_every_word_has_a_text_of_its_own(words):
    assert len({word.text for word in words}) == len(words)
    assert baseline.BaselineReading.UNCLEAR.text == "without a clear difference"
    assert agreement.PublishedReading.DIFFERS.text == "differing"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_pages_have_markup(path: Path):
    tree = ast.parse(path.read_text())
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    bold = [text for text in texts if isinstance(text, str) and "**" in text]
    assert path.name in PAGES or not bold, bold
