"""Every field of a sweep file, from the classes that check it: as JSON Schema and as a page."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from nodebench.spec import TrialSpec
from nodebench.spec.data import DATASETS
from nodebench.spec.gradient import Gradient
from nodebench.spec.model import MODELS
from nodebench.spec.network import Activations, Norms
from nodebench.spec.settings import Settings
from nodebench.spec.solver import Solver
from nodebench.spec.training import (
    OPTIMIZERS,
    SCHEDULES,
    Jacobian,
    Kinetic,
    Limits,
    LocalError,
    Regularize,
    Steer,
    Stiffness,
    Taylor,
    Train,
)
from nodebench.spec.vocabulary import (
    ACTIVATIONS,
    AUGMENTATIONS,
    DYNAMICS,
    GRADIENTS,
    METHODS,
    MOTIONS,
    NORMS,
    PRECISIONS,
    WEIGHT_NORMS,
)
from nodebench.sweep.file import (
    MEASURES,
    WRITTEN_FIELD,
    Claim,
    Evaluate,
    Range,
    Resources,
    Search,
    Stop,
    SweepFile,
)

Schema = dict[str, Any]

INTRODUCTION = """\
# Writing a sweep file

A sweep file is YAML 1.2 with plain values: every word except `true` and `false` is text, `010` is
ten, and a number in quotes is text, which a field for numbers refuses. `base` is one trial. `grid`
is what varies: each key is a dotted path into a trial, and each value is a list. The axes of a
block multiply; a list of blocks is joined. `"a, b": [[1, 2], [3, 4]]` varies two paths together. A
part whose other settings stay at their defaults can be written by its name alone: `model: odenet`,
`solver: dopri5`.
`include: FILE` starts from another sweep file. Unknown fields and invalid values are refused, all
at once, with their paths and lines. Upper bounds are far beyond useful values: they keep a typing
mistake from exhausting a machine's memory or running forever.

Fields without a default are required; `–` is a default that follows from the other settings.
`nodebench schema --markdown` prints this page. `nodebench schema > sweep.schema.json` writes a
schema with which editors complete and check a file: put `# yaml-language-server:
$schema=sweep.schema.json` on its first line."""


def json_schema() -> Schema:
    """A sweep file's JSON Schema; checks of the whole file are left to `nodebench plan`."""
    whole, trial = SweepFile.model_json_schema(), TrialSpec.model_json_schema()
    around, within = whole.pop("$defs"), trial.pop("$defs")
    trial["properties"].pop("seed")  # `seeds` is next to `base`
    whole["properties"]["base"] = trial
    for name in ("grid", "evaluate"):  # one block stands for a list of one
        whole["properties"][name] = {"anyOf": [whole["properties"][name], {"type": "object"}]}
    for part in (trial, *within.values()):
        part.pop("required", None)  # `base` may leave any field to the grid
    loosened: Schema = _with_shorthand({**whole, "$defs": within | around})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **loosened}


def _with_shorthand(node: Any) -> Any:
    """The same schema, in which a part's name may stand for the part."""
    if isinstance(node, list):
        return [_with_shorthand(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        short = SHORTHAND.get(node["$ref"].rpartition("/")[2], "string")
        return {"anyOf": [node, {"type": short}]}
    node = {("anyOf" if key == "oneOf" else key): value for key, value in node.items()}
    node.pop("discriminator", None)
    return {key: _with_shorthand(value) for key, value in node.items()}


SHORTHAND = {
    **dict.fromkeys(
        (part.__name__ for part in (Kinetic, Jacobian, LocalError, Stiffness, Steer)), "number"
    ),
    Regularize.__name__: "array",
}
"""The type of the shorthand for a part, if that is not its name."""


def page() -> str:
    """The reference as Markdown."""
    return "\n\n".join([INTRODUCTION, *_sections()]) + "\n"


AROUND: tuple[tuple[str, type[Settings]], ...] = (
    ("evaluate", Evaluate), ("claims", Claim), ("resources", Resources), ("limits", Limits),
    ("search", Search), ("search.space", Range), ("search.stop", Stop),
)  # fmt: skip
WITHIN: tuple[tuple[str, type[Settings]], ...] = (
    ("solver", Solver), ("gradient", Gradient), ("train", Train),
    ("train.regularize", Regularize), ("train.regularize.kinetic", Kinetic),
    ("train.regularize.jacobian", Jacobian), ("train.regularize.taylor", Taylor),
    ("train.regularize.local_error", LocalError), ("train.regularize.stiffness", Stiffness),
    ("train.regularize.steer", Steer), ("model.norm", Norms), ("model.activation", Activations),
)  # fmt: skip
CHOICES: tuple[tuple[str, Mapping[str, type[Settings]]], ...] = (
    ("train.optimizer", OPTIMIZERS), ("train.schedule", SCHEDULES), ("data", DATASETS),
    ("model", MODELS),
)  # fmt: skip


def _sections() -> Iterator[str]:
    yield _section("The file", SweepFile)
    for title, part in AROUND:
        yield _section(f"`{title}`", part, "###")
    yield _section("A trial: `base`, and the paths of `grid`", TrialSpec)
    for title, part in WITHIN:
        yield _section(f"`{title}`", part, "###")
    for title, table in CHOICES:
        yield f"## `{title}`"
        alike: dict[type[Settings], list[str]] = {}
        for name, part in table.items():
            alike.setdefault(part, []).append(f"`{name}`")
        for part, names in alike.items():
            yield _section(", ".join(names), part, "###")
    yield "## Words"
    yield _words(
        "Methods",
        {n: f"{m.kind}, order {m.order or 'varies'}: {m.source}" for n, m in METHODS.items()},
    )
    yield _words("Gradients", GRADIENTS)
    yield _words("Precisions", PRECISIONS)
    norms = NORMS | WEIGHT_NORMS | {"ln+wn": "a norm and a weight norm, in any combination"}
    yield _words("Norms", norms)
    yield _words("Activations", ACTIVATIONS)
    yield _words("Right-hand sides", {n: f"{f.layers} ({f.source})" for n, f in DYNAMICS.items()})
    yield _words("Equations of motion", MOTIONS)
    yield _words("Augmentations", AUGMENTATIONS)
    yield f"### Metrics of claims\n\n{', '.join(f'`{name}`' for name in MEASURES)}"


def _words(title: str, table: dict[str, str]) -> str:
    lines = [f"| `{name}` | {about} |" for name, about in table.items()]
    return "\n".join([f"### {title}\n", "| | |", "|---|---|", *lines])


def _section(title: str, part: type[Settings], level: str = "##") -> str:
    """A part's docstring, and a table of its fields."""
    schema = part.model_json_schema()
    needed = schema.get("required", [])
    lines = [
        f"| `{name}` | {_type(field)} | {'' if name in needed else _default(field)} |"
        for name, field in schema["properties"].items()
        if (name != "name" or part is SweepFile) and name != WRITTEN_FIELD
    ]
    table = ["| field | value | default |", "|---|---|---|", *lines] if lines else []
    about = inspect.cleandoc(part.__doc__ or "")
    return "\n".join([f"{level} {title}\n", about, "", *table]).rstrip()


def _default(field: Schema) -> str:
    value = field.get("default")
    return "–" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: Schema) -> str:
    """The values that a field may have, in words."""
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field or "oneOf" in field:
        alternatives: list[Schema] = field.get("anyOf") or field["oneOf"]
        kinds = [_type(each) for each in alternatives]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "$ref" in field:
        return "a group, below"
    if field.get("type") == "array":
        inner: Schema = field.get("items") or field.get("prefixItems", [{}])[0]
        return f"list of: {_type(inner)}"
    return NAMES.get(field.get("type", ""), "any value") + _bounds(field)


NAMES = {
    "integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`",
    "object": "mapping", "null": "null",
}  # fmt: skip


def _bounds(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[name]:g}" for name, sign in signs.items() if _tells(name, field)]
    return f" {', '.join(found)}" if found else ""


def _tells(bound: str, field: Schema) -> bool:
    """Whether a bound is stricter than that a number fits into 64 bits."""
    return bound in field and abs(field[bound]) < 2**62
