"""Arguments and options that several verbs share, and groups of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from nodebench.execution.publishing import Publication
from nodebench.planning import lookup
from nodebench.sweep import Sweep
from nodebench.sweep.file import SizeName


def _sweeps(incomplete: str) -> list[str]:
    """What a shell may complete a sweep's name to."""
    names = [path.stem for path in Path("sweeps").glob("*.yaml")]
    files = [str(path) for path in Path().glob("*.yaml")]
    return sorted(name for name in [*names, *files] if name.startswith(incomplete))


SweepPath = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="A sweep file, the name of one in sweeps/, or a report's folder.",
        autocompletion=_sweeps,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a field or an axis. Repeatable."),
]
SizeOption = Annotated[SizeName, typer.Option("--size", help="The full sweep or a smaller form.")]
Small = Annotated[bool, typer.Option("--small", help="Short for `--size small`.")]
Inline = Annotated[
    bool, typer.Option("--inline", help="Run trials one by one in this process, without Ray.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU, even if the file asks for GPUs.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATH=VALUE",
        help="Only trials with this setting, e.g. `solver.method=euler`. Repeatable.",
    ),
]
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N equal shards.")
]
From = Annotated[
    list[Path] | None,
    typer.Option(
        "--from", metavar="DIR", help="Another machine's NODEBENCH_RUNS or a copy. Repeatable."
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Retry trials that did not finish (DNF).")
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first trial without a result.")
]
ReplaceOther = Annotated[
    bool,
    typer.Option("--replace", help="Replace another sweep file of the same name."),
]
Track = Annotated[bool, typer.Option(help="Write to MLflow.")]
RequireMlflow = Annotated[
    bool, typer.Option("--require-mlflow", help="Refuse to start unless MLflow is writable.")
]
WriteReport = Annotated[bool, typer.Option("--report/--no-report", help="Write the report.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Source:
    """Which sweep a verb is about."""

    source: SweepPath
    changes: Changes = None
    size: SizeOption = "full"
    small: Small = False

    def load(self, source: str | None = None) -> Sweep:
        """The sweep, or another with the same changes and of the same size."""
        return lookup.load_sweep(
            source or self.source,
            overrides=self.changes or (),
            size=self.size,
            small=self.small,
        )

    def load_foreign(self, weights: Path) -> Sweep:
        """The sweep with the weights of a file instead of a training."""
        size = lookup.size_of(self.size, small=self.small)
        return lookup.foreign(self.source, weights, overrides=self.changes or (), size=size)


@dataclass(frozen=True)
class TrialFilter:
    """Which of its trials."""

    only: Only = None
    shard: Shard = "1/1"

    @property
    def is_whole(self) -> bool:
        """Whether that is all of them."""
        return not self.only and self.shard == "1/1"


@dataclass(frozen=True)
class Place:
    """Where trials run."""

    inline: Inline = False
    cpu: Cpu = False


@dataclass(frozen=True)
class Telling:
    """Where it is told what became of them."""

    track: Track = True
    write_report: WriteReport = True
    replace: ReplaceOther = False

    def publication(self, *, require_mlflow: bool = False) -> Publication:
        """The same, for a launch."""
        return Publication(self.track, require_mlflow, self.write_report, self.replace)


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer reads it: a parameter that is a group gives way to the group's fields."""
    whole = inspect.signature(verb, eval_str=True)
    kinds = {name: parameter.annotation for name, parameter in whole.parameters.items()}
    groups: dict[str, type] = {
        name: kind for name, kind in kinds.items() if isinstance(kind, type) and is_dataclass(kind)
    }
    flat: list[inspect.Parameter] = []
    for name, parameter in whole.parameters.items():
        flat += _options_of(groups[name]) if name in groups else [parameter]

    @wraps(verb)
    def flattened(**given: object) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    flattened.__signature__ = whole.replace(parameters=flat)  # type: ignore[attr-defined]
    flattened.__annotations__ = {each.name: each.annotation for each in flat}
    return flattened


def _options_of(group: type) -> list[inspect.Parameter]:
    """A group's fields, with what typer reads in their annotations."""
    hints = get_type_hints(group, include_extras=True)
    parameters = inspect.signature(group).parameters
    return [parameter.replace(annotation=hints[name]) for name, parameter in parameters.items()]
