"""Parses YAML text to a tree of plain values; hostile text is rejected and does no harm."""

from __future__ import annotations

import copy
import errno
import functools
import os
import re
import select
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shown
from nodebench.sweep.yaml_mistakes import Refusal, yaml_mistake

Tree = dict[str, Any]

# Limits within which PyYAML's Python parser needs only some seconds.
LARGEST_BYTES = 250_000
MOST_VALUES = 100_000
DEEPEST = 50

WRITER_WAIT_S = 5.0

_TAG = "tag:yaml.org,2002:"
_CORE: dict[str, tuple[str, str]] = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"null|Null|NULL|~|", "nN~"),
    "merge": ("<<", "<"),
}
"""YAML 1.2's plain values that are not text: their patterns, and their first characters.

Source: YAML 1.2.2, section 10.3.2 (the core schema), and `<<` of YAML 1.1.
"""

_FORMS = {f"{_TAG}{name}": re.compile(rf"(?:{form})\Z") for name, (form, _) in _CORE.items()}
_KEPT = [f"{_TAG}{name}" for name in ("null", "str", "seq", "map")]
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _refuse_tag(_loader: yaml.SafeLoader, node: yaml.Node) -> None:
    raise _refusal(node, f"the tag {shown(node.tag)} is not allowed. Leave it out")


def _refusal(node: yaml.Node, why: str) -> Refusal:
    return Refusal(problem=why, problem_mark=node.start_mark)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    """A boolean or a number in one of the forms that its tag allows."""
    text = loader.construct_scalar(node)
    if not _FORMS[node.tag].match(text):
        raise ValueError(text)
    if node.tag == f"{_TAG}bool":
        return text.lower() == "true"
    if node.tag == f"{_TAG}float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """First character -> the tags of plain values, in the form that PyYAML takes."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, (_, first) in _CORE.items():
        for character in (*first, *([""] if name == "null" else [])):
            found.setdefault(character, []).append((f"{_TAG}{name}", _FORMS[f"{_TAG}{name}"]))
    return found


class _Loader(yaml.SafeLoader):
    """Loads safe YAML 1.2 with values that JSON also has, and with unique keys of text.

    PyYAML itself loads YAML 1.1, where `no` is false, `010` is 8, `1:30` is 90, `1e-1` is text.
    """

    yaml_constructors = {
        None: _refuse_tag,
        **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _KEPT},
        **{f"{_TAG}{name}": _number for name in ("bool", "int", "float")},
    }
    yaml_implicit_resolvers = _resolvers()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key must be text, not a list or a mapping")
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                raise _refusal(key, f"a key must be text: write {shown(key.value)} in quotes")
            if key.value in seen:  # PyYAML would drop the first
                raise _refusal(key, f"the key {shown(key.value)} is given twice")
            seen.add(key.value)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # Otherwise, repeatedly merging merged mappings would grow without bounds.
        node.value = list({key.value: (key, value) for key, value in node.value}.values())

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError):  # `!!int x`, or a number with too many digits
            raise _refusal(node, f"{shown(node.value)} does not fit its tag `{node.tag}`") from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _refusal(node, "a number does not fit in 64 bits")
        if isinstance(value, str) and _CONTROL.search(value):
            raise _refusal(node, f"text contains an unprintable character: {value[:50]!r}")
        return value


def parse(text: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        yaml.YAMLError: if it is not YAML, has other values, or is too large or too deep.
    """
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """The same, cached: a file is read again for its sizes, and for the changes by `--set`."""
    try:
        tree = yaml.load(text, _Loader)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    _check_size(tree)
    return tree


class _Dumper(yaml.SafeDumper):
    """Quotes any text that would mean something else in YAML 1.1 or 1.2."""

    yaml_implicit_resolvers = {
        first: _resolvers().get(first, []) + yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])
        for first in {**_resolvers(), **yaml.SafeDumper.yaml_implicit_resolvers}
    }


def dump(tree: Any, **how: Any) -> str:
    """The YAML text of a tree, for `parse` and for other readers."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **how)
    return text


def inline(value: Any) -> str:
    """A value as YAML in one line: `0.1`, `[1, 2]`, `{name: adam, lr: 0.1}`."""
    return dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _check_size(tree: Any) -> None:
    """Rejects a tree that is too large with aliases expanded, such as one that contains itself."""
    level, count = [tree], 0
    for _ in range(DEEPEST):
        groups = [value for value in level if isinstance(value, (dict, list))]
        count += sum(map(len, groups))
        if count > MOST_VALUES:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} values with aliases expanded")
        level = [
            value
            for group in groups
            for value in (group.values() if isinstance(group, dict) else group)
        ]
        if not level:
            return
    raise yaml.YAMLError(f"it is nested deeper than {DEEPEST} levels, or an alias contains itself")


def parse_file(path: Path) -> Tree:
    """The mapping in a file.

    Raises:
        SweepError: if the file cannot be read, or is not a mapping.
    """
    text = _read(path)
    try:
        tree = parse(text)
    except yaml.YAMLError as error:
        raise SweepError(str(path), [yaml_mistake(error, text).as_fault]) from None
    if not isinstance(tree, dict):
        raise _unreadable(path, "a sweep file must be a mapping: `name`, `base`, …")
    return tree


class MarkedFile:
    """The tree of a file that `parse_file` can read, and the lines of its values."""

    def __init__(self, path: Path):
        loader = _Loader(_read(path))
        self._root: Any = loader.get_single_node()
        self.tree: Tree = loader.construct_document(self._root)  # resolves `<<` in the nodes too
        self._pairs: dict[yaml.Node, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    def line(self, keys: Sequence[str | int]) -> int:
        """The line of the value that the tree has at these keys."""
        node = marked = self._root
        for key in keys:
            if isinstance(key, str):
                marked, node = self._pairs_of(node)[key]
            else:
                node = marked = node.value[key]
        return int(marked.start_mark.line) + 1

    def _pairs_of(self, mapping: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if mapping not in self._pairs:
            self._pairs[mapping] = {pair[0].value: pair for pair in mapping.value}
        return self._pairs[mapping]


def _read(path: Path) -> str:
    try:
        with open(path, "rb", opener=_opened) as file:
            content = file.read(LARGEST_BYTES + 1)  # /dev/zero never ends
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_BYTES:
        raise _unreadable(path, f"is larger than {LARGEST_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        why = f"is not UTF-8 text (byte {error.start + 1:,}). Save it as UTF-8"
        raise _unreadable(path, why) from None


def _opened(path: str, flags: int) -> int:
    """Opens a file; a pipe only if it has a writer, since reading would otherwise never end."""
    file = os.open(path, flags | os.O_NONBLOCK)
    is_pipe = stat.S_ISFIFO(os.fstat(file).st_mode)
    if is_pipe and not select.select([file], [], [], WRITER_WAIT_S)[0]:
        os.close(file)
        raise OSError(errno.EAGAIN, "it is a pipe without a writer")
    os.set_blocking(file, True)
    return file


def _unreadable(path: Path, why: str) -> SweepError:
    return SweepError(str(path), [Fault("(file)", why)])
