"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Size = Annotated[SizeName, typer.Option("--size", help="The file as it is, or a smaller form.")]
Small = Annotated[bool, typer.Option("--small", help="Short for `--size small`.")]
Inline = Annotated[
    bool, typer.Option("--inline", help="One trial after the other in this process, no Ray.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use the CPU whatever the file says.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATH=VALUE",
        help="Only trials that have this, as `solver.method=euler`. Repeatable.",
    ),
]
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Only the I-th of N equal parts.")
]
From = Annotated[
    list[Path] | None,
    typer.Option(
        "--from", metavar="DIR", help="Another machine's NODEBENCH_RUNS, or a copy. Repeatable."
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what did not finish (DNF).")
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first trial that has no result.")
]
ReplaceOther = Annotated[
    bool,
    typer.Option("--replace", help="Take the place of another file that has the sweep's name."),
]
Track = Annotated[bool, typer.Option(help="Write to MLflow.")]
RequireMlflow = Annotated[
    bool, typer.Option("--require-mlflow", help="Start only if MLflow can be written.")
]
WriteReport = Annotated[bool, typer.Option("--report/--no-report", help="Write the report.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
