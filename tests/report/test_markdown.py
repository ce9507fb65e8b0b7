"""Tests of report/markdown.py."""

import pandas as pd
import pytest

from nodebench.report.analysis.formatting import count
from nodebench.report.markdown import (
    HtmlOnly,
    Section,
    joined,
    markdown_table,
    plain_text,
    table_parts,
)


def test_plain_text_keeps_words_and_drops_marks_and_targets():
    assert plain_text("**[Line](#line-1) 2:** `text`, see [a](b)") == "Line 2: text, see a"


def test_a_page_has_no_headings_of_empty_sections_and_no_parts_of_the_html_page():
    sections = [
        Section("", ["# x", ""]),
        Section("Empty", [""]),
        Section("Chart", [HtmlOnly("chart")]),
        Section("Text", ["a", HtmlOnly("chart"), "b"]),
    ]
    assert joined(sections) == "# x\n\n## Chart\n\nchart\n\n## Text\n\na\n\nchart\n\nb\n"
    page = joined(section.for_markdown() for section in sections)
    assert page == "# x\n\n## Text\n\na\n\nb\n"


def test_value_shared_by_all_rows_is_shown_once_below_the_table():
    table = pd.DataFrame({"cell": ["a", "b"], "machine": ["m", "m"], "n": ["1", "2"], "of": "x"})
    shown, line = table_parts(table, once=("machine", "n", "missing"))
    assert shown.splitlines()[0].split() == ["|", "cell", "|", "n", "|", "of", "|"]
    assert line == "All rows: machine = m."
    whole, none = table_parts(table[:1], once=("machine", "n"))  # a single row keeps its columns
    assert "machine" in whole and none == ""


@pytest.mark.parametrize(
    "text",
    ["1,234", "-0.5 ± 0.2", "+0.15", "82.67 [48.23, 100]", "100.00 (all equal)", "1 of 5", "–"],
)
def test_columns_of_numbers_are_aligned_right(text):
    assert markdown_table(pd.DataFrame({"a": ["1", text]})).splitlines()[1].endswith("-:|")
    assert markdown_table(pd.DataFrame({"a": ["word", text]})).splitlines()[1].endswith("--|")


def test_a_count_has_a_decimal_only_if_it_is_a_mean():
    assert [count(value) for value in (20.0, 19.7273, float("nan"))] == ["20", "19.7", "–"]
