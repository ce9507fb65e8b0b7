"""From a sweep file to one tree: YAML, `include`, `small` and overrides."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nodebench.errors import Fault, SweepError, unknown
from nodebench.model_settings import BY_PLACE
from nodebench.place_settings import PLACES
from nodebench.spec import TrialSpec
from nodebench.sweepfile import SweepFile

Tree = dict[str, Any]

BLOCKS = ("grid", "evaluate", "exclude")
"""Lists of blocks, of which one may stand alone."""


def read(path: Path, overrides: Sequence[str], small: bool, faults: list[Fault]) -> Tree:
    """The tree that a sweep file means, without `include` and `small`; faults are appended.

    Raises:
        SweepError: if there is no tree to speak of.
    """
    tree = _parse(path)
    tree["base"] = _included(path, tree, faults)
    tree.pop("include", None)
    shrink = tree.pop("small", None) or {}
    if small:
        if not isinstance(shrink, dict) or not shrink:
            faults.append(Fault("small", "`--small` needs a `small:` block, path -> value"))
            shrink = {}
        tree["name"] = f"{tree.get('name')}-small"
        for key, value in shrink.items():
            _override(tree, str(key), value, "small", faults)
        _note(tree, "Small form", [_assignment(key, value) for key, value in shrink.items()])
    for text in overrides:
        _override_by_text(tree, text, faults)
    if overrides:
        _note(tree, "Run with", overrides)
    for key in BLOCKS:
        if isinstance(tree.get(key), dict):
            tree[key] = [tree[key]]
    return tree


def _note(tree: Tree, title: str, changes: Sequence[str]) -> None:
    """Says in `about`, and so in the report, what is not as the file has it."""
    about = str(tree.get("about", "")).strip()
    tree["about"] = f"{about} {title}: {', '.join(f'`{text}`' for text in changes)}.".strip()


def _assignment(key: object, value: object) -> str:
    """`path=value`; a long value, such as a whole grid, is in the sweep file to be read."""
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    )
    return f"{key}={text}" if len(text) <= 40 else f"{key}=…"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which YAML would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key `{key.value}` is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise SweepError(
            str(path), [Fault("(file)", f"cannot be read: {error.strerror}")]
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SweepError(str(path), [Fault("(file)", f"is not YAML: {_where(error)}")]) from None
    if not isinstance(tree, dict):
        raise SweepError(
            str(path), [Fault("(file)", "a sweep file is a mapping: `name`, `base`, …")]
        )
    return tree


def _where(error: Exception) -> str:
    """YAML's complaint without its name for text that is not a file."""
    return " ".join(str(error).replace('in "<unicode string>", ', "").split())


def _included(path: Path, tree: Tree, faults: list[Fault], above: tuple[Path, ...] = ()) -> Any:
    """The file's `base`, laid over that of the file that it includes."""
    base = tree.get("base", {})
    include = tree.get("include")
    if include is None or not isinstance(base, dict):
        return base
    other = (path.parent / str(include)).resolve()
    if other in above or not other.is_file():
        why = "includes itself" if other in above else "there is no such file"
        faults.append(Fault("include", f"`{include}`: {why}"))
        return base
    return _merged(_included(other, _parse(other), faults, (*above, path.resolve())), base)


def _merged(below: Any, above: Any) -> Any:
    """`above` laid over `below`; a group of another name or method replaces the one below."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if any(key in above and above[key] != below.get(key) for key in ("name", "method")):
        return above
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}


def _override_by_text(tree: Tree, text: str, faults: list[Fault]) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        faults.append(Fault("--set", f"`{text}` should read `dotted.path=value`"))
        return
    try:
        _override(tree, key.strip(), yaml.safe_load(value), "--set", faults)
    except yaml.YAMLError:
        faults.append(Fault("--set", f"the value of `{text}` is not YAML"))


def _override(tree: Tree, key: str, value: Any, origin: str, faults: list[Fault]) -> None:
    """Sets a field of the file or of `base`, and replaces the axis of that name.

    An axis takes a list for its values; any other value removes it and stands in `base`.
    """
    if key.partition(".")[0] in SweepFile.model_fields:
        set_path(tree, key.split("."), value)
        return
    if key.partition(".")[0] not in TrialSpec.model_fields:
        known = [*TrialSpec.model_fields, *SweepFile.model_fields]
        faults.append(Fault(f"{origin} {key}", unknown(key.partition(".")[0], "field", known)))
        return
    replaced = False
    for block in _blocks(tree):
        for axis in [axis for axis in block if isinstance(axis, str)]:
            paths = axis_paths(axis)
            within = [path == key or path.startswith(f"{key}.") for path in paths]
            above = [key.startswith(f"{path}.") for path in paths]
            if axis == key and isinstance(value, list):
                block[axis], replaced = value, True
            elif all(within):
                del block[axis]
            elif above == [True] and isinstance(block[axis], list):
                block[axis] = [_with(axis, group, key, value) for group in block[axis]]
            elif any(within) or any(above):
                message = f"is zipped with others in `{axis}`: give that axis"
                faults.append(Fault(f"{origin} {key}", message))
    if not replaced and isinstance(tree["base"], dict):
        set_path(tree["base"], key.split("."), value)


def _with(axis: str, group: Any, key: str, value: Any) -> Any:
    """A value of an axis over a whole group, one field in it replaced."""
    tree: Tree = {}
    set_path(tree, axis.split("."), group)
    set_path(tree, key.split("."), value)
    for name in axis.split("."):
        tree = tree[name]
    return tree


def _blocks(tree: Tree) -> list[Tree]:
    grid = tree.get("grid", [])
    return [
        block
        for block in ([grid] if isinstance(grid, dict) else grid or [])
        if isinstance(block, dict)
    ]


def axis_paths(key: str) -> tuple[str, ...]:
    """The dotted paths of a grid key, which a comma zips."""
    return tuple(path.strip() for path in key.split(","))


def set_path(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Sets a value in a tree, writing shorthand on the way out in full."""
    for depth, key in enumerate(path[:-1]):
        inner = tree.get(key)
        if isinstance(inner, str) and depth == 1 and key in BY_PLACE:
            inner = dict.fromkeys(PLACES, inner)
        elif isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            inner = {}
        tree[key] = inner
        tree = inner
    tree[path[-1]] = copy.deepcopy(value)
