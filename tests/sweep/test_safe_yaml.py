"""Mistakes in the YAML of a sweep file."""

import pytest

from nodebench.errors import SweepError
from nodebench.sweep import load
from tests.support.planned_sweeps import write_sweep


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
                "  line 4, column 8: is not YAML: expected ',' or '}', but got ':' (while parsing",
                "    3 |   data: {name: digits",
                "      |         ^",
                "    4 |   model: odenet",
                "      |        ^",
            ],
        ),
        (
            "name: a\nbase:\n\tdata: digits\n",
            [
                "  line 3, column 1: is indented with a tab. Use spaces",
                "    3 | →data: digits",
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
