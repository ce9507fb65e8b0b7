"""Labels of a sweep's cells: the settings that distinguish them, shortened if space is short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nodebench.spec.identity import canonical

LONGEST_DRAWN = 40
"""The largest number of characters of a label in a figure."""


def labeled(cells: Mapping[str, Mapping[str, Any]], paths: Sequence[str]) -> dict[str, str]:
    """Key -> label of each cell, from its settings at these paths."""
    told = _telling({key: dict(_leaves(s, paths)) for key, s in cells.items()})
    names = _names({path for values in told.values() for path in values})
    words = {key: " ".join(_words(values, names)) for key, values in told.items()}
    counts = Counter(words.values())
    labels = {}
    for key, values in told.items():
        if counts[words[key]] > 1:
            words[key] = " ".join(f"{names[path]} {v}" for path, v in values.items())
        # A name of two lines would look like two trials.
        labels[key] = " ".join(words[key].split()) or str(cells[key]["model.name"])
    return labels


def _words(values: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """The settings as words; a number has its name, unless it follows a text of its group.

    For example, `euler 8` has 8 steps, but `augment_dim 2 euler` names what is 2. A boolean always
    has its name.
    """
    group = None
    for path, value in values.items():
        own = path.rpartition(".")[0]
        is_clear = isinstance(value, str) or (own == group and not isinstance(value, bool))
        yield str(value) if is_clear else f"{names[path]} {value}"
        group = own if isinstance(value, str) else None


def _names(paths: Iterable[str]) -> dict[str, str]:
    """The last part of each path, or the last two, `kinetic.weight`, if one alone is unclear."""
    ends = {path: path.rpartition(".")[2] for path in paths}
    counts = Counter(ends.values())
    unclear = {end for end in counts if counts[end] > 1 or end in VAGUE_IN_LABELS}
    return {
        path: ".".join(path.split(".")[-2:]) if end in unclear else end
        for path, end in ends.items()
    }


def _leaves(values: Mapping[str, Any], paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """A cell's settings at these paths; the settings of a user's own part are split up."""
    for path in paths:
        value = values.get(path)
        if isinstance(value, Mapping) and value:
            inner = {f"{path}.{name}": setting for name, setting in value.items()}
            yield from _leaves(inner, inner)
        elif path in values:
            yield path, value


def _telling(told: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings without those that are equal in all cells, unless the cells are identical."""
    found: dict[str, set[str]] = {}
    for values in told.values():
        for path, value in values.items():
            found.setdefault(path, set()).add(canonical(value))
    common = {path for path in found if all(path in values for values in told.values())}
    alike = {path for path in common if len(found[path]) == 1}
    if alike == found.keys():
        return dict(told)
    return {
        key: {p: v for p, v in values.items() if p not in alike} for key, values in told.items()
    }


NAMES_OF_GROUPS = ("name", "method")
"""Fields that identify a group, so that its name stands for them: `solver` for `solver.method`."""

VAGUE = ("stem", "residual", "ode", "at", "solver", "order", "field", "weight")
"""Last parts of paths that are unclear without the one before, unless they are the whole path."""

VAGUE_IN_LABELS = ("weight",)
"""Those that a label does not leave alone; the others are in labels of committed reports."""


def headings(paths: Sequence[str]) -> dict[str, str]:
    """Path -> its heading in a table: its last part, or as many as make it unique.

    `solver.method` is `solver`, and `solver.steps` is `steps` unless `gradient.solver.steps` varies
    as well.
    """
    parts = {path: _telling_parts(path) for path in paths}
    found = {}
    for path, own in parts.items():
        others = [other for name, other in parts.items() if name != path]
        least = 2 if own[-1] in VAGUE and len(own) > 1 else 1
        count = next(
            (n for n in range(least, len(own)) if all(o[-n:] != own[-n:] for o in others)), len(own)
        )
        found[path] = ".".join(own[-count:])
    return found


def _telling_parts(path: str) -> list[str]:
    parts = path.split(".")
    return parts[:-1] if len(parts) > 1 and parts[-1] in NAMES_OF_GROUPS else parts


def cut(text: str, longest: int) -> str:
    """A text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def figure_labels(labels: Iterable[str]) -> dict[str, str]:
    """Label -> its form in a figure: cut to the available space, and unique."""
    short: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        name, number = cut(label, LONGEST_DRAWN), 1
        while name in short.values():
            number += 1
            name = f"{cut(label, LONGEST_DRAWN - 5)} ({number})"
        short[label] = name
    # Two dollars would be a formula, and legends leave out labels that begin with `_`.
    return {
        label: (" " if name.startswith("_") else "") + name.replace("$", "\\$")
        for label, name in short.items()
    }
