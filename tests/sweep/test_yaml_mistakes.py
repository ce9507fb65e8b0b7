"""Mistakes in the YAML of a sweep file."""

import pytest

from nodebench.errors import SweepError
from nodebench.sweep import load
from tests.support.planned_sweeps import faults, write_sweep


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "name: a\nname: b\n",
            ["  line 2, column 1: the key `name` is given twice", "    2 | name: b", "      | ^"],
        ),
        (
            "name: a\nbase:\n  data: {name: digits\n  model: odenet\n",
            [
                "  line 4, column 8: a comma or `}` is missing here: the `{` is still open",
                "    3 |   data: {name: digits",
                "      |         ^",
                "    4 |   model: odenet",
                "      |        ^",
            ],
        ),
        (
            "name: a\nbase:\n\tdata: digits\n",
            [
                "  line 3, column 1: the line is indented with a tab. Use spaces",
                "    3 | →data: digits",
                "      | ^",
            ],
        ),
        (
            "name: a\nbase:\n  data: digits\n\n model: odenet\n",
            [
                "  line 5, column 2: `model` is indented by 1 space, but the lines above",
                "    3 |   data: digits",
                "      |   ^",
                "    5 |  model: odenet",
                "      |  ^",
            ],
        ),
        (
            "name: a\nbase:\n- data: digits\nmodel: odenet\nseeds: [0\n",
            [
                "  line 6, column 1: a comma or `]` is missing here: the `[` is still open",
                "    5 | seeds: [0",
                "      |        ^",
                "    6 | ",
                "      | ^",
            ],
        ),
        (
            "name: a\nseeds: [0,\n",
            [
                "  line 3, column 1: a value or a closing bracket is missing here",
                "    3 | ",
                "      | ^",
            ],
        ),
        (
            "name: a\nabout: b\x01\n",
            ["  line 2, column 9: the character U+0001 is not allowed. Re"],
        ),
    ],
)
def test_a_mistake_in_the_yaml_is_shown_at_its_place(tmp_path, text, told):
    path = write_sweep(tmp_path, text)
    with pytest.raises(SweepError) as caught:
        load(path)
    title, *lines = str(caught.value).splitlines()
    assert title == f"{path}: 1 mistake"
    assert len(lines) == len(told)
    assert all(line.startswith(start) for line, start in zip(lines, told, strict=True))


UNLIKE = "Indent it like the others of its group"
CURE = "Write `key: value`, with a space, or `key:` above a group"
NO_COLON, NO_SPACE = f"has no colon after its key. {CURE}", f"has no space after its colon. {CURE}"


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("base:\n  data: digits\n   model: odenet\n", "line 3, column 4",
         f"`model` is indented by 3 spaces, but the lines above it by 0 or 2. {UNLIKE}"),
        ("base:\r\n    data: digits\r\n  model: odenet\r\n", "line 3, column 3",
         f"`model` is indented by 2 spaces, but the lines above it by 0 or 4. {UNLIKE}"),
        ("  name: t\nbase: {}\n", "line 2, column 1",
         f"`base` is indented by 0 spaces, but the lines above it by 2. {UNLIKE}"),
        ("grid:\n  - a: 1\n   - b: 2\n", "line 3, column 4",
         f"`b` is indented by 3 spaces, but the lines above it by 0 or 2 or 4. {UNLIKE}"),
        ("grid:\n  - a: [1]\n     b: [2]\n", "line 3, column 6",
         f"`b` is indented by 5 spaces, but the lines above it by 0 or 2 or 4. {UNLIKE}"),
        ("base:\n  - a\n  b: 3\n", "line 3, column 3",
         f"`b: 3` is a key among the entries of a list. {UNLIKE}"),
        ("base:\n  b: 3\n  - a\n", "line 3, column 3", f"`- a` is an entry among keys. {UNLIKE}"),
        ("name: t\nbase\n  data: digits\n", "line 2, column 1", f"`base` {NO_COLON}"),
        ("base:\n  data:digits\n  model: x\n", "line 2, column 3", f"`data:digits` {NO_SPACE}"),
        ("about: this is a text\n  that goes on: here\n", "line 2, column 3",
         f"`that goes on` is indented by 2 spaces, but the lines above it by 0. {UNLIKE}, or put "
         "the text above in quotes if it goes on here"),
        ("grid:\n  - a: 1\n  -b: 2\n", "line 3, column 3", "`-b: 2` needs a space after the `-`"),
        ("about: one: two\n", "line 1, column 11",
         "this line has a second `: `. Put the text that has it in quotes"),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_place_is_told_with_the_cure(tmp_path, text, where, why):
    assert faults(write_sweep(tmp_path, text)) == [f"{where}: {why}"]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028"])
@pytest.mark.parametrize("last", [" b: 3", "   b: 3", "  b: c: d", "  - b", "'", "{", "]"])
def test_a_line_is_found_whatever_ends_lines(tmp_path, end, last):
    (fault,) = faults(write_sweep(tmp_path, end.join(["a:", "  c: 1", "", last, ""])))
    assert fault.startswith(("line 4, ", "line 5, "))


def test_an_override_is_told_the_same(tmp_path):
    (fault,) = faults(write_sweep(tmp_path), overrides=["about=one: two: three"])
    told = "this line has a second `: `. Put the text that has it in quotes"
    assert fault == f"--set: the value of `about=one: two: three` is not plain YAML: {told}"
