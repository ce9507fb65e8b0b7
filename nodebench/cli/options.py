"""Arguments and options that several commands share, and groups of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

import nodebench
from nodebench.cli.stream import err
from nodebench.execution.publishing import Publication
from nodebench.execution.runner import Backend
from nodebench.planning import lookup
from nodebench.planning.selection import Selection
from nodebench.sweep import Sweep
from nodebench.sweep.file import SizeName


def sweep_names(incomplete: str) -> list[str]:
    """The completions of a sweep's name for a shell."""
    files = [str(path) for path in Path().glob("*.yaml")]
    return sorted(name for name in [*lookup.sweep_files(), *files] if name.startswith(incomplete))


TrialId = Annotated[str, typer.Argument(metavar="ID", help="A trial's id, or a prefix of it.")]
SweepPath = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP",
        help="A sweep file, a name that `nodebench sweeps` lists, or a report's folder.",
        autocompletion=sweep_names,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field or an axis. Repeatable."),
]
SizeOption = Annotated[
    SizeName, typer.Option("--size", help="The full sweep, or a smaller version from its file.")
]
Small = Annotated[bool, typer.Option("--small", help="Short for `--size small`.")]
From = Annotated[
    list[Path] | None,
    typer.Option(
        "--from",
        metavar="DIR",
        help="Another machine's NODEBENCH_RUNS folder, or a copy of it. Repeatable.",
    ),
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU, even if the file asks for GPUs.")]
ReplaceOther = Annotated[
    bool,
    typer.Option("--replace", help="Replace a different sweep or report that has the same name."),
]
OF_LAUNCHES: dict[str, Any] = {
    "only": Annotated[
        list[str],
        typer.Option(
            "--only",
            metavar="PATH=VALUE",
            help="Only trials with this setting, e.g. `solver.method=euler`. Repeatable.",
            show_default=False,
        ),
    ],
    "shard": Annotated[
        str,
        typer.Option(
            "--shard", metavar="I/N", help="Only the I-th of N equal shards, after --only."
        ),
    ],
    "retry_failed": Annotated[
        bool,
        typer.Option("--retry-failed", help="Count what diverged or met a limit (DNF) as missing."),
    ],
    "inline": Annotated[
        bool | None,
        typer.Option(
            help="Run trials one by one in this process, or in parallel with Ray.",
            show_default="in this process if only one trial is left",
        ),
    ],
    "cpu": Cpu,
    "fail_fast": Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first crash. A DNF is not a crash.")
    ],
    "track": Annotated[bool, typer.Option(help="Write to MLflow.")],
    "require_mlflow": Annotated[
        bool, typer.Option("--require-mlflow", help="Refuse to start unless MLflow is writable.")
    ],
    "write_report": Annotated[bool, typer.Option("--report/--no-report", help="Write the report.")],
    "replace_other": ReplaceOther,
}
"""The fields of `Launch` -> their options."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_sweep(
    source: str, changes: Sequence[str] | None = None, *, size: SizeName, small: bool
) -> Sweep:
    """The sweep that a command line names; prints its file unless the file was given."""
    sweep = lookup.load_sweep(source, overrides=changes or (), size=size, small=small)
    if told := taken_text(source, Path(sweep.origin.file)):
        err.print(told, markup=False, highlight=False)
    return sweep


def taken_text(source: str, file: Path) -> str:
    """The file that a name stands for; empty if a path or a report's folder was given."""
    if file in (Path(source).resolve(), (Path(source) / "sweep.yaml").resolve()):
        return ""
    for folder in (Path(), lookup.LOCAL_SWEEPS):
        if file.parent == folder.resolve():
            return f"sweep file: {folder / file.name}"
    if file.parent == lookup.shipped_sweeps().resolve():
        return f"sweep file: {file.name}, which comes with nodebench {nodebench.__version__}"
    return f"sweep file: {file}, as it was last launched or imported"


@dataclass(frozen=True)
class Source:
    """The sweep that a command works on."""

    source: SweepPath
    changes: Changes = None
    size: SizeOption = "full"
    small: Small = False

    def load(self) -> Sweep:
        """The sweep, with its changes and in its size."""
        return open_sweep(self.source, self.changes, size=self.size, small=self.small)

    def load_other(self, source: str) -> Sweep:
        """Another sweep in the same size, without the changes."""
        return open_sweep(source, size=self.size, small=self.small)

    def load_foreign(self, weights: Path) -> Sweep:
        """The sweep with weights from a file instead of trained ones."""
        size = lookup.size_of(self.size, small=self.small)
        return lookup.foreign(self.source, weights, overrides=self.changes or (), size=size)


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Replaces each parameter that is a group with the group's fields, for typer."""
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

    flattened.__signature__ = whole.replace(parameters=flat)  # pyrefly: ignore[missing-attribute]
    flattened.__annotations__ = {each.name: each.annotation for each in flat}
    return flattened


def _options_of(group: type) -> list[inspect.Parameter]:
    """A group's fields as parameters, with the annotations that typer reads."""
    hints = get_type_hints(group, include_extras=True)
    if issubclass(group, (Selection, Backend, Publication)):  # as `Launch` is
        hints |= OF_LAUNCHES
    parameters = inspect.signature(group).parameters
    return [parameter.replace(annotation=hints[name]) for name, parameter in parameters.items()]
