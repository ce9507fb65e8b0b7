"""Tests of report/markdown.py."""

from nodebench.report.markdown import HtmlOnly, Section, joined, plain_text


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
