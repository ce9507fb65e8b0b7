"""PyYAML's complaints about a text in the user's terms: where, what is wrong, what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import yaml
from yaml import Mark
from yaml.reader import ReaderError

from nodebench.errors import Fault, counted, shown


class Refusal(yaml.MarkedYAMLError):
    """Valid YAML that a sweep file must not have."""


class YamlMistake(NamedTuple):
    """What is wrong in a text, and its place, if that is known."""

    why: str
    mark: Mark | None = None
    opening: Mark | None = None
    """An earlier place that the mistake refers to."""

    @property
    def as_fault(self) -> Fault:
        """The fault of a file with this text, with the lines of the mistake."""
        if self.mark is None:
            return Fault("(file)", f"is not plain YAML: {self.why}")
        opening = self.opening if self.opening and self.opening.line != self.mark.line else None
        lines = [line for mark in (opening, self.mark) if mark for line in _excerpt(mark)]
        where = f"line {self.mark.line + 1}, column {self.mark.column + 1}"
        return Fault(where, self.why, tuple(lines))


def explained(error: yaml.YAMLError, text: str) -> YamlMistake:
    """The mistake in a text that PyYAML complains about."""
    if isinstance(error, ReaderError):
        why = f"the character U+{error.character:04X} is not allowed. Remove it"
        before = text[: error.position].split("\n")
        # The line is not shown, because it has the character.
        return YamlMistake(why, Mark("", 0, len(before) - 1, len(before[-1]), None, 0))
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return YamlMistake(str(error))
    mark, why = error.problem_mark, str(error.problem).replace("'<stream end>'", "the file's end")
    if isinstance(error, Refusal):
        return YamlMistake(why, mark)
    if "'\\t'" in why:
        return YamlMistake("is indented with a tab. Use spaces", mark)
    context = f" ({error.context})" if error.context else ""
    as_told = YamlMistake(f"{why}{context}", mark, error.context_mark)
    return (
        _of_indentation(as_told, text)
        or _of_lists(as_told, text)
        or _of_colons(as_told, text)
        or as_told
    )


def why_unreadable(error: yaml.YAMLError, setting: str, value: str) -> str:
    """Why the value of a text `path=value` cannot be read."""
    return f"the value of {shown(setting)} is not plain YAML: {explained(error, value).why}"


NO_MAPPING = "mapping values are not allowed here"
"""PyYAML's words for a colon after a text that cannot be a key."""


def _of_indentation(told: YamlMistake, text: str) -> YamlMistake | None:
    """The mistake of a line that is indented like none above it."""
    assert told.mark is not None
    lines, number = _lines(text), told.mark.line
    line, above = lines[number], _lines_above(lines, number)
    here, before = _indentation(line), line[: told.mark.column]
    if told.why == NO_MAPPING:  # the line continues the text above it, which has less indentation
        is_meant = bool(above) and ":" not in before and here > _indentation(lines[above[0]])
    else:
        is_meant = bool(above) and "start>'" in told.why and not before.strip()
    if not is_meant:
        return None
    columns = sorted({column for each in above for column in _columns(lines[each])})
    word = line.strip(" -").partition(":")[0]
    why = (
        f"{shown(word)} is indented by {counted(here, 'space')}, but the lines above it by "
        f"{' or '.join(map(str, columns))}. Indent it like the others of its group"
    )
    return YamlMistake(why, _start_of(text, number), _start_of(text, above[0]))


def _of_lists(told: YamlMistake, text: str) -> YamlMistake | None:
    """The mistake of a key among the entries of a list, or of an entry among keys."""
    assert told.mark is not None
    lines, number = _lines(text), told.mark.line
    above = _lines_above(lines, number)
    if not above or not re.search(r"expected <block end>, but found '[?-]'", told.why):
        return None
    found = "a key among the entries of a list" if "'?'" in told.why else "an entry among keys"
    why = f"{shown(lines[number].strip())} is {found}. Indent it like the others of its group"
    return YamlMistake(why, told.mark, _start_of(text, above[0]))


def _of_colons(told: YamlMistake, text: str) -> YamlMistake | None:
    """The mistake of a line with one colon too many or too few."""
    assert told.mark is not None
    lines, number = _lines(text), told.mark.line
    above = _lines_above(lines, number)
    if told.why == NO_MAPPING and ": " in lines[number][: told.mark.column]:
        why = "this line has a second `: `. Put the text that has it in quotes"
        return YamlMistake(why, told.mark)
    if told.why == NO_MAPPING and above:
        number = above[0]
    elif told.why.startswith("could not find expected ':'") and told.opening:
        number = told.opening.line
    else:
        return None
    found = lines[number].strip()
    if ": " in found or found.endswith(":"):
        return None
    cure = "Write `key: value`, with a space, or `key:` above a group"
    why = f"{shown(found)} has no colon after its key. {cure}"
    return YamlMistake(why, _start_of(text, number))


def _lines(text: str) -> list[str]:
    """The lines that PyYAML counts, with their ends."""
    ends = "\n\r\x85\u2028\u2029"
    return re.findall(rf"[^{ends}]*(?:\r\n|[{ends}]|\Z)", text)


def _lines_above(lines: Sequence[str], number: int) -> list[int]:
    """The last line with content above a line, and those that its groups are in, from the last."""
    found: list[int] = []
    for each in range(number - 1, -1, -1):
        is_empty = lines[each].strip() == "" or lines[each].lstrip().startswith("#")
        if not is_empty and (
            not found or _indentation(lines[each]) < _indentation(lines[found[-1]])
        ):
            found.append(each)
    return found


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _columns(line: str) -> tuple[int, int]:
    """Where a line starts, and where its content does if it is an entry of a list."""
    return _indentation(line), len(line) - len(line.lstrip(" -"))


def _start_of(text: str, number: int) -> Mark:
    """The place where the content of a line begins."""
    lines = _lines(text)
    column = _indentation(lines[number])
    index = sum(map(len, lines[:number])) + column
    return Mark("", index, number, column, text, index)


def _excerpt(mark: Mark) -> tuple[str, ...]:
    """The line of a mark, with its number, and below it a line that points at the mark.

    Empty if the mark has no text.
    """
    margins = f"{mark.line + 1:>5} | ", f"{'':>5} | "
    snippet = mark.get_snippet(indent=0)
    lines = snippet.replace("\t", "→").split("\n") if snippet else ()
    return tuple(f"{margin}{line}" for margin, line in zip(margins, lines, strict=False))
