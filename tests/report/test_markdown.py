"""Tests of report/markdown.py."""

from nodebench.report.markdown import plain_text


def test_plain_text_keeps_words_and_drops_marks_and_targets():
    assert plain_text("**[Line](#line-1) 2:** `text`, see [a](b)") == "Line 2: text, see a"
