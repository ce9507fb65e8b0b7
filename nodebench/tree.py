"""From YAML text to a tree of plain values: text that is hostile is refused, and does no harm."""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from pathlib import Path
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, shown

Tree = dict[str, Any]

# What YAML's reader in Python gets through in some seconds.
LARGEST_BYTES = 250_000
MOST_VALUES = 100_000
DEEPEST = 50

WRITER_WAIT_S = 5.0

_TAG = "tag:yaml.org,2002:"
_PLAIN = [f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")]
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _refuse_tag(_loader: yaml.SafeLoader, node: yaml.Node) -> None:
    raise _refusal(node, f"the tag {shown(node.tag)} makes no plain value. Leave it out")


def _refusal(node: yaml.Node, why: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {node.start_mark.line + 1}: {why}")


class _Loader(yaml.SafeLoader):
    """Safe YAML of what JSON may hold too: a date is text, and a key is text that stands once."""

    yaml_constructors = {
        None: _refuse_tag,
        **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _PLAIN},
    }
    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag != f"{_TAG}timestamp"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key is text, not a list or a mapping")
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                raise _refusal(key, f"a key is text: write {shown(key.value)} in quotes")
            if key.value in seen:  # YAML would drop the first
                raise _refusal(key, f"the key {shown(key.value)} is given twice")
            seen.add(key.value)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # Otherwise merging what was merged, ten times over, grows without end.
        node.value = list({key.value: (key, value) for key, value in node.value}.values())

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError):  # of `!!int x`, or a number of too many digits
            raise _refusal(
                node, f"{shown(node.value)} is not what its tag `{node.tag}` says"
            ) from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _refusal(node, "a number does not fit in 64 bits")
        if isinstance(value, str) and _CONTROL.search(value):
            raise _refusal(node, f"text holds a character that cannot be printed: {value[:50]!r}")
        return value


def parse(text: str) -> Any:
    """The plain values that a YAML text means.

    Raises:
        yaml.YAMLError: if it is not YAML, or means other values, too many or too deep ones.
    """
    try:
        tree = yaml.load(text, _Loader)  # a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    _check_size(tree)
    return tree


def _check_size(tree: Any) -> None:
    """Refuses a tree that is too large when aliases are written out, as a tree in itself is."""
    level, count = [tree], 0
    for _ in range(DEEPEST):
        groups = [value for value in level if isinstance(value, dict | list)]
        count += sum(map(len, groups))
        if count > MOST_VALUES:
            raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values, aliases written out")
        level = [
            value
            for group in groups
            for value in (group.values() if isinstance(group, dict) else group)
        ]
        if not level:
            return
    raise yaml.YAMLError(f"it is nested deeper than {DEEPEST} levels, or an alias holds itself")


def parse_file(path: Path) -> Tree:
    """The mapping that a file holds.

    Raises:
        SweepError: if it holds none.
    """
    try:
        with open(path, "rb", opener=_opened) as file:
            text = file.read(LARGEST_BYTES + 1)  # /dev/zero has no end
        if len(text) > LARGEST_BYTES:
            raise _unreadable(path, f"is larger than {LARGEST_BYTES:,} bytes")
        tree = parse(text.decode())
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"is not YAML of plain values: {_complaint(error)}") from None
    if not isinstance(tree, dict):
        raise _unreadable(path, "a sweep file is a mapping: `name`, `base`, …")
    return tree


def _opened(path: str, flags: int) -> int:
    """Opens a file; a pipe only if somebody writes to it, who would be waited for without end."""
    file = os.open(path, flags | os.O_NONBLOCK)
    is_pipe = stat.S_ISFIFO(os.fstat(file).st_mode)
    if is_pipe and not select.select([file], [], [], WRITER_WAIT_S)[0]:
        os.close(file)
        raise OSError(errno.EAGAIN, "it is a pipe, and nobody writes to it")
    os.set_blocking(file, True)
    return file


def _unreadable(path: Path, why: str) -> SweepError:
    return SweepError(str(path), [Fault("(file)", why)])


def _complaint(error: Exception) -> str:
    """YAML's complaint without its name for text that is not a file."""
    return " ".join(str(error).replace('in "<unicode string>", ', "").split())
