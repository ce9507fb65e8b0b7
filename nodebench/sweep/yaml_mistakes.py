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


def yaml_mistake(error: yaml.YAMLError, text: str) -> YamlMistake:
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
        return YamlMistake("the line is indented with a tab. Use spaces", mark)
    place = _Place(_lines(text), mark.line, mark.column)
    opening = error.context_mark
    return (
        _of_indentation(why, place)
        or _of_lists(why, place)
        or _of_colons(why, place, opening.line if opening else None)
        or _of_brackets(error)
        or YamlMistake(f"{why} ({error.context})" if error.context else why, mark, opening)
    )


def why_unreadable(error: yaml.YAMLError, setting: str, value: str) -> str:
    """Why the value of a text `path=value` cannot be read."""
    return f"the value of {shown(setting)} is not plain YAML: {yaml_mistake(error, value).why}"


NO_MAPPING = "mapping values are not allowed here"
"""PyYAML's words for a colon after a text that cannot be a key."""


class _Place(NamedTuple):
    """A place in a text, counted from 0 as PyYAML counts."""

    lines: Sequence[str]
    number: int
    column: int

    @property
    def line(self) -> str:
        """Its line."""
        return self.lines[self.number]

    @property
    def before(self) -> str:
        """Its line up to it."""
        return self.line[: self.column]

    @property
    def above(self) -> list[int]:
        """The last line with content above it, and those that its groups are in, from the last."""
        found: list[int] = []
        for number in range(self.number - 1, -1, -1):
            line = self.lines[number]
            has_content = line.strip() != "" and not line.lstrip().startswith("#")
            is_outside = not found or _indentation(line) < _indentation(self.lines[found[-1]])
            if has_content and is_outside:
                found.append(number)
        return found

    def mark(self, number: int, column: int) -> Mark:
        """The mark of a place in this text."""
        index = sum(map(len, self.lines[:number])) + column
        return Mark("", index, number, column, "".join(self.lines), index)

    def start_of(self, number: int) -> Mark:
        """Where the content of a line begins."""
        return self.mark(number, _indentation(self.lines[number]))


def _of_indentation(why: str, place: _Place) -> YamlMistake | None:
    """The mistake of a line that is indented like none above it."""
    here, above = _indentation(place.line), place.above
    if not above:
        return None
    if why == NO_MAPPING:  # the line continues the text above it, which has less indentation
        is_meant = ":" not in place.before and here > _indentation(place.lines[above[0]])
    else:
        is_meant = "start>'" in why and not place.before.strip()
    if not is_meant:
        return None
    columns = sorted({column for each in above for column in _columns(place.lines[each])})
    word = place.line.strip(" -").partition(":")[0]
    text = (
        f"{shown(word)} is indented by {counted(here, 'space')}, but the lines above it by "
        f"{' or '.join(map(str, columns))}. Indent it like the others of its group"
    )
    if why == NO_MAPPING and re.search(r": +\w+ +\w", place.lines[above[0]]):
        text += ", or put the text above in quotes if it goes on here"
    return YamlMistake(text, place.start_of(place.number), place.start_of(above[0]))


def _of_lists(why: str, place: _Place) -> YamlMistake | None:
    """The mistake of a key among the entries of a list, or of an entry among keys."""
    above = place.above
    if not above or not re.search(r"expected <block end>, but found '[?-]'", why):
        return None
    if re.match(r"-[^\s-]", place.line.strip()):
        text = f"{shown(place.line.strip())} needs a space after the `-`"
        return YamlMistake(text, place.start_of(place.number))
    found = "a key among the entries of a list" if "'?'" in why else "an entry among keys"
    text = f"{shown(place.line.strip())} is {found}. Indent it like the others of its group"
    return YamlMistake(text, place.start_of(place.number), place.start_of(above[0]))


def _of_colons(why: str, place: _Place, opening: int | None) -> YamlMistake | None:
    """The mistake of a line with one colon too many or too few."""
    if why == NO_MAPPING and ": " in place.before:
        text = "this line has a second `: `. Put the text that has it in quotes"
        return YamlMistake(text, place.mark(place.number, place.column))
    number = next(iter(place.above), None) if why == NO_MAPPING else opening
    if number is None or not why.startswith((NO_MAPPING, "could not find expected ':'")):
        return None
    found = place.lines[number].strip()
    if ": " in found or found.endswith(":"):
        return None
    lack = "space after its colon" if ":" in found else "colon after its key"
    cure = "Write `key: value`, with a space, or `key:` above a group"
    return YamlMistake(f"{shown(found)} has no {lack}. {cure}", place.start_of(number))


def _of_brackets(error: yaml.MarkedYAMLError) -> YamlMistake | None:
    """The mistake of a `[` or `{` that is not closed."""
    if error.problem_mark is None or "while parsing a flow" not in str(error.context):
        return None
    if "node" in str(error.context):
        return YamlMistake("a value or a closing bracket is missing here", error.problem_mark)
    bracket, closing = ("[", "]") if "sequence" in str(error.context) else ("{", "}")
    text = f"a comma or `{closing}` is missing here: the `{bracket}` is still open"
    return YamlMistake(text, error.problem_mark, error.context_mark)


def _lines(text: str) -> list[str]:
    """The lines that PyYAML counts, with their ends."""
    ends = "\n\r\x85\u2028\u2029"
    return re.findall(rf"[^{ends}]*(?:\r\n|[{ends}]|\Z)", text)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _columns(line: str) -> tuple[int, int]:
    """Where a line starts, and where its content does if it is an entry of a list."""
    return _indentation(line), len(line) - len(line.lstrip(" -"))


def _excerpt(mark: Mark) -> tuple[str, ...]:
    """The line of a mark, with its number, and below it a line that points at the mark.

    Empty if the mark has no text.
    """
    margins = f"{mark.line + 1:>5} | ", f"{'':>5} | "
    snippet = mark.get_snippet(indent=0)
    lines = snippet.replace("\t", "→").split("\n") if snippet else ()
    return tuple(f"{margin}{line}" for margin, line in zip(margins, lines, strict=False))
